"""Traces: checks of the data, readers of every format, one line for bad files, and files that read back."""

import json
from pathlib import Path

import numpy as np
import pytest

import jaxcost
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.traces.reader import load_trace
from jaxcost.edge.traces.writer import save_trace
from jaxcost.explore.replay import agent_trace, hit_curve
from jaxcost.spec.trace import Trace, build_trace

DATA = Path(jaxcost.__file__).parents[1].parent / "shared" / "data" / "traces"

AZURE_2023 = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:04.0319600,396,109\n2023-11-16 18:17:04,879,55\n"
AZURE_2024 = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n118,GPT-4,417,0,417,API log\n"
OWN = "arrival_s,prompt_tokens,output_tokens,n_512tok_blocks,prefix_hit_blocks_infinite_cache\n0.5,6758,500,14,0\n1.5,7322,490,15,1\n1.5,1500,7,3,3\n"
MOONCAKE = "".join(
    json.dumps(record) + "\n"
    for record in (
        {"timestamp": 0, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]},
        {"timestamp": 3000, "input_length": 1100, "output_length": 26, "hash_ids": [46, 47, 49]},
        {"timestamp": 4000, "input_length": 512, "output_length": 9, "hash_ids": [46]},
    )
)
SHAREGPT = [
    {
        "id": "a",
        "conversations": [
            {"from": "system", "value": "x" * 8},
            {"from": "human", "value": "y" * 40},
            {"from": "gpt", "value": "z" * 21},
            {"from": "human", "value": "y" * 4},
            {"from": "gpt", "value": "z" * 4},
        ],
    },
    {"id": "b", "messages": [{"role": "user", "tokens": 7}, {"role": "assistant", "tokens": 3}]},
    {"id": "c", "conversations": [{"from": "gpt", "value": "no question"}]},
]
BENCH = {
    "duration": 3.0,
    "request_rate": 2.0,
    "input_lens": [10, 20, 30],
    "output_lens": [5, 0, 7],
    "start_times": [100.5, 100.6, 102.0],
}


def write(folder, text, name="requests.txt"):
    path = folder / name
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def test_a_trace_knows_its_rate_and_burstiness():
    trace = Trace("x", np.array([0.0, 1.0, 3.0, 4.0]), np.full(4, 10), np.full(4, 5))
    assert (trace.requests, trace.span, trace.rate, trace.tokens) == (4, 4.0, 0.75, 60)
    assert trace.burstiness == pytest.approx((2 / 9) / (16 / 9))
    faster = trace.scaled_to(1.5)
    assert faster.rate == pytest.approx(1.5) and faster.burstiness == pytest.approx(trace.burstiness)
    assert trace.first(2).arrival.tolist() == [0.0, 1.0] and trace.first(9).requests == 4
    assert repr(trace) == "Trace('x', 4 requests in 4 s, 60 tokens)"
    with pytest.raises(ValueError, match="read-only"):
        trace.prompt[0] = 3


def test_a_trace_counts_what_an_infinite_cache_has():
    blocks = [[1, 2, 3], [1, 2, 9], [1, 2, 3, 4], [9, 1]]
    trace = build_trace("x", [3, 0, 1, 2], [30, 30, 45, 20], [1] * 4, block_tokens=10, blocks=blocks)
    assert trace.blocks.tolist() == [1, 2, 9, 1, 2, 3, 4, 9, 1, 1, 2, 3]
    assert trace.cached.tolist() == [0, 20, 19, 29]
    first = trace.first(2)
    assert first.blocks.tolist() == [1, 2, 9, 1, 2, 3, 4] and first.offsets.tolist() == [0, 3, 7]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"arrival": [1.0, 2.0]}, "arrivals start at 0 s, not at 1 s"),
        ({"arrival": [0.0, np.nan]}, "finite"),
        ({"arrival": [0.0, 2.0, 1.0], "prompt": [1] * 3, "output": [1] * 3}, "arrivals ascend"),
        ({"prompt": [1, 0]}, "prompt is at least 1 token"),
        ({"output": [1]}, "output has 1 entries for 2 requests"),
        ({"prompt": [1.5, 2]}, "prompt has whole numbers"),
        ({"cached": [0, 1], "prompt": [1, 1]}, "fewer than its prompt tokens"),
        ({"blocks": [1], "offsets": [0, 0, 1]}, "block_tokens is needed"),
        ({"blocks": [1], "offsets": [0, 1, 1], "block_tokens": 99}, "at most as many tokens as its prompt"),
        ({"blocks": [1], "offsets": [0, 0], "block_tokens": 1}, "offsets has 2 entries; 3 are expected"),
        (
            {"output_blocks": [1], "output_offsets": [0, 1, 1], "block_tokens": 10},
            "fewer tokens than its prompt and output",
        ),
    ],
)
def test_a_trace_refuses(changes, text):
    good = {"arrival": [0.0, 1.0], "prompt": [5, 5], "output": [5, 5]}
    with pytest.raises(ValueError, match=text):
        Trace("x", **(good | changes))


def test_traces_without_a_rate_refuse_to_be_scaled():
    trace = Trace("x", np.zeros(2), np.ones(2), np.ones(2))
    assert trace.rate == np.inf
    with pytest.raises(ValueError, match="all arrive at once"):
        trace.scaled_to(1.0)
    with pytest.raises(ValueError, match="positive number of requests"):
        trace.scaled_to(0.0)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        trace.first(0)


def test_azure(tmp_path):
    trace = load_trace(write(tmp_path, AZURE_2023, "conv.csv"))
    assert trace.name == "conv"
    assert trace.arrival == pytest.approx([0, 0.02004, 0.052])
    assert trace.prompt.tolist() == [374, 879, 396] and trace.output.tolist() == [44, 55, 109]
    assert trace.notes == (
        "The requests of the file are not in the order of their arrival; they were sorted.",
    )
    trace = load_trace(write(tmp_path, AZURE_2024))
    assert trace.arrival == pytest.approx([0, 0.99007]) and trace.prompt.tolist() == [2162, 2399]


def test_burstgpt_leaves_out_failed_requests(tmp_path):
    trace = load_trace(write(tmp_path, BURSTGPT))
    assert trace.arrival.tolist() == [0, 40] and trace.output.tolist() == [18, 230]
    assert trace.notes == ("1 request without prompt or output tokens is left out, such as failed ones.",)
    sessions = (
        BURSTGPT.replace("Timestamp,", "Timestamp,Session ID,")
        .replace("5,Ch", "5,u1,Ch")
        .replace("118,", "118,,")
    )
    trace = load_trace(write(tmp_path, sessions.replace(",417,0,", ",417,1,")))
    assert trace.session.tolist() == [0, 0, -1]


def test_the_own_csv(tmp_path):
    trace = load_trace(write(tmp_path, OWN))
    assert trace.arrival.tolist() == [0, 1, 1]
    assert trace.cached.tolist() == [0, 512, 1024]
    assert trace.block_tokens == 0 and trace.session.tolist() == [-1] * 3


def test_mooncake_keeps_full_blocks(tmp_path):
    trace = load_trace(write(tmp_path, MOONCAKE))
    assert trace.arrival.tolist() == [0, 3, 4] and trace.block_tokens == 512
    assert trace.offsets.tolist() == [0, 2, 4, 5]
    assert trace.cached.tolist() == [0, 1024, 511]
    without = MOONCAKE.replace("hash_ids", "other")
    assert load_trace(write(tmp_path, without)).block_tokens == 0


@pytest.mark.parametrize("form", ["list", "lines"])
def test_conversations_become_sessions_whose_context_grows(tmp_path, form):
    text = json.dumps(SHAREGPT) if form == "list" else "\n".join(map(json.dumps, SHAREGPT))
    trace = load_trace(write(tmp_path, text), block_tokens=4)
    assert trace.arrival.tolist() == [0, 1, 30]
    assert trace.prompt.tolist() == [12, 7, 19] and trace.output.tolist() == [6, 3, 1]
    assert trace.session.tolist() == [0, 1, 0]
    assert trace.cached.tolist() == [0, 0, 16]  # the four full blocks of 12 + 6 - 1 tokens
    assert trace.notes == (
        "The token counts of 6 texts are estimated at 4 characters a token.",
        "The file has no arrival times: 1 record begins each second, and the turns of a conversation follow each other after 30 s.",
    )


def test_records_of_one_prompt_and_output(tmp_path):
    records = [
        {"arrival_s": 9.0, "prompt_tokens": 5, "output_tokens": 6},
        {"arrival_s": 7.5, "prompt": "abcdefghi", "response": "ab"},
        {"arrival_s": 8.0, "prompt": "ignored", "usage": {"prompt_tokens": 8, "completion_tokens": 2}},
    ]
    trace = load_trace(write(tmp_path, records), characters_per_token=2)
    assert trace.arrival.tolist() == [0, 0.5, 1.5]
    assert trace.prompt.tolist() == [5, 8, 5] and trace.output.tolist() == [1, 2, 6]
    assert trace.session.tolist() == [-1] * 3
    assert "2 texts are estimated at 2 characters a token" in trace.notes[0]


def test_results_of_vllm_bench(tmp_path):
    trace = load_trace(write(tmp_path, BENCH))
    assert trace.arrival.tolist() == [0, 1.5] and trace.prompt.tolist() == [10, 30]
    assert len(trace.notes) == 1
    del (unpaced := dict(BENCH))["start_times"]
    trace = load_trace(write(tmp_path, unpaced))
    assert trace.arrival.tolist() == [0, 1.0]
    assert (
        trace.notes[0]
        == "The result has no start times: its requests arrive at equal gaps at its rate of 2/s."
    )
    trace = load_trace(write(tmp_path, unpaced | {"request_rate": "inf"}))
    assert trace.span == 0 and "all arrive at 0 s" in trace.notes[0]


BAD = [
    ("", "got 'an empty file'; expected a trace of requests"),
    ("a,b\n1,2\n", "line 1: got 'a,b'; expected a trace in one of the formats"),
    (OWN.replace("n_512tok_blocks", "sesion"), "line 1: column: got 'sesion'; expected one of"),
    (
        OWN.replace("n_512tok_blocks", "session"),
        "line 1: got 'prefix_hit_blocks_infinite_cache'; expected a column n_512tok_blocks",
    ),
    (OWN.replace("7322", "73x2"), "line 3: prompt_tokens: got '73x2'; expected a whole number of at least 0"),
    (OWN.replace("7322", "-2"), "line 3: prompt_tokens: got '-2'; expected a whole number of at least 0"),
    (OWN.replace("7322", "1.5"), "line 3: prompt_tokens: got '1.5'; expected a whole number of at least 0"),
    (OWN.replace("7322,490,15,1", "7322,490"), "line 3: got '3 fields'; expected 5 fields"),
    (OWN.replace("0.5,", "nan,"), "line 2: arrival_s: got 'nan'; expected a number of seconds"),
    (OWN.partition("\n")[0] + "\n", "got 'no row'; expected at least one request"),
    (
        AZURE_2023.replace("2023-11-16 18:17:04,", "18h17,"),
        "line 4: TIMESTAMP: got '18h17'; expected a date with time",
    ),
    (
        "arrival_s,prompt_tokens,output_tokens\n0,0,4\n1,3,0\n",
        "got '2 requests without'; expected requests with prompt and output tokens",
    ),
    (MOONCAKE + "{oops\n", "line 4: got '{oops'; expected a JSON object"),
    (MOONCAKE + "[1]\n", "line 4: got [1]; expected a JSON object"),
    (
        MOONCAKE.replace('"output_length": 26', '"output": 26'),
        "line 2: got 'only timestamp, input_length, output, hash_ids'; expected the key output_length",
    ),
    (
        MOONCAKE.replace('"input_length": 512', '"input_length": 500.5'),
        "line 3: input_length: got 500.5; expected a whole number of tokens",
    ),
    (
        MOONCAKE.replace("[46]", "[46, 47]"),
        "line 3: hash_ids: got '2 ids'; expected at most 1 ids, as 512 tokens have 1 blocks of 512",
    ),
    (MOONCAKE.replace("3000", "1" + "0" * 400), "line 2: timestamp: got 1000"),
    (MOONCAKE.replace("3000", "NaN"), "line 2: timestamp: got nan; expected a number of ms"),
    (
        [{"arrival_s": "9", "prompt_tokens": 1, "output_tokens": 1}],
        "[0].arrival_s: got '9'; expected a number of s",
    ),
    ([], "got 'an empty list'; expected at least one request"),
    ('{"a":\n', "line 2: expected JSON (Expecting value)"),
    ({"a": 1}, "line 1: got 'a'; expected a trace in one of the formats"),
    (
        [{"conversations": [{"from": "humn", "value": "x"}]}],
        "[0].conversations[0].from: got 'humn'; expected one of gpt",
    ),
    (
        [{"conversations": [{"from": "human", "text": "x"}]}],
        "[0].conversations[0]: got 'only from, text'; expected one of tokens",
    ),
    ([{"prompt": "x"}], "[0]: got 'only prompt'; expected one of output_tokens"),
    ([{"prompt": 3, "output": "x"}], "[0].prompt: got 3; expected text"),
    (
        {k: v for k, v in BENCH.items() if k != "output_lens"},
        "got 'no output_lens'; expected output_lens, which vllm bench serve --save-detailed writes",
    ),
    (BENCH | {"output_lens": [1]}, "output_lens: got '1 entries'; expected 3 entries, as input_lens has"),
    (BENCH | {"input_lens": [1, 2, "x"]}, "input_lens[2]: got 'x'; expected a whole number of tokens"),
    (BENCH | {"start_times": [1, 2, None]}, "start_times[2]: expected a number of s"),
]


@pytest.mark.parametrize(("content", "text"), BAD, ids=range(len(BAD)))
def test_bad_files_give_one_line(tmp_path, content, text):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as error:
        load_trace(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert text in str(error.value)


def test_arguments_of_the_reader(tmp_path):
    with pytest.raises(InputError, match=r"got '.*nothing.*'; expected a file with a trace"):
        load_trace(tmp_path / "nothing.csv")
    path = write(tmp_path, OWN)
    with pytest.raises(InputError, match="did you mean 'mooncake'"):
        load_trace(path, format="moncake")
    with pytest.raises(InputError, match="no TIMESTAMP, ContextTokens, GeneratedTokens"):
        load_trace(path, format="azure")
    with pytest.raises(InputError, match="characters_per_token: got 0"):
        load_trace(path, characters_per_token=0)
    assert load_trace(path, format="csv").requests == 3


@pytest.mark.parametrize("tokens", [16, 512, 1024])
def test_traces_read_back(tmp_path, tokens):
    trace = agent_trace(sessions=12, turns=5, block_tokens=tokens, seed=4)
    save_trace(trace, tmp_path / "a.csv")
    save_trace(trace, tmp_path / "a.jsonl")
    for name in ("a.csv", "a.jsonl"):
        again = load_trace(tmp_path / name)
        assert again.arrival == pytest.approx(trace.arrival, rel=1e-14)
        for field in ("prompt", "output", "session", "cached"):
            assert (getattr(again, field) == getattr(trace, field)).all(), field
    capacities = [1e4, 1e5, np.inf]
    assert again.block_tokens == tokens
    assert (hit_curve(again, capacities) == hit_curve(trace, capacities)).all()
    with pytest.raises(InputError, match=r"a name ending in \.csv or \.jsonl"):
        save_trace(trace, tmp_path / "a.txt")


@pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is absent")
def test_the_recorded_traces():
    azure = load_trace(DATA / "azure2023_conv.csv")
    assert (azure.requests, azure.tokens) == (5000, 7_093_150)
    mooncake = load_trace(DATA / "mooncake_conversation.csv")
    assert mooncake.requests == 4000 and 0.3 < mooncake.cached.sum() / mooncake.prompt.sum() < 0.4
