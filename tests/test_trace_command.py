"""`jaxcost trace`: its tables and JSON against the summary, files that it writes, and one clear line for bad input."""

import json

import numpy as np
import pytest

from jaxcost.edge.catalog.loaders import load_model
from jaxcost.edge.traces.reader import load_trace
from jaxcost.explore.replay import agent_trace, assign, hit_curve, summarize_trace, synthetic_trace
from jaxcost.physics.memory.capacity import kv_bytes_per_token
from jaxcost.spec.plan import Plan
from jaxcost.spec.trace import Trace
from tests.test_cli import run
from tests.test_traces import BENCH, MOONCAKE, OWN, write


def test_a_summary_has_the_numbers_of_the_trace():
    trace = agent_trace(sessions=60, turns=6, turns_cv=0.5, seed=2)
    summary = summarize_trace(trace, intervals=20)
    assert (summary.requests, summary.rate, summary.sessions) == (trace.requests, trace.rate, 60)
    assert summary.turns_mean * 60 == trace.requests
    assert summary.prompt.p90 == np.percentile(trace.prompt, 90) and summary.output.max == trace.output.max()
    assert summary.hit_rates.tolist() == hit_curve(trace, summary.capacities).tolist()
    assert summary.hit_rates[-2] == summary.hit_rates[-1] == pytest.approx(summary.cached_share)
    assert (np.diff(summary.hit_rates) >= 0).all() and 0 < summary.hit_rates[0] < summary.hit_rates[-1]
    assert hit_curve(trace, summary.nearly_all) >= 0.9 * summary.cached_share
    assert hit_curve(trace, summary.nearly_all - trace.block_tokens) < 0.9 * summary.cached_share
    gaps = np.diff(summary.edges)
    for rates, total in (
        (summary.arrival_rates, trace.requests),
        (summary.prompt_rates, trace.prompt.sum()),
        (summary.output_rates, trace.output.sum()),
    ):
        assert (rates * gaps).sum() == pytest.approx(total)


def test_a_summary_of_few_requests():
    one = summarize_trace(Trace("x", np.zeros(1), np.ones(1), np.ones(1)))
    assert one.rate == np.inf and len(one.arrival_rates) == 0 and one.correlation == 0
    assert one.capacities.tolist() == [np.inf] and one.hit_rates.tolist() == [0]


def test_json_is_that_of_the_library(capsys, tmp_path):
    path = write(tmp_path, MOONCAKE, "chat.jsonl")
    status, out, err = run(
        capsys, "trace", str(path), "--json", "--model", "llama-3.1-8b", "--kv-bits", "fp8"
    )
    assert (status, err) == (0, "")
    document = json.loads(out)
    trace = load_trace(path)
    size = float(kv_bytes_per_token(load_model("llama-3.1-8b"), Plan(kv_bits=8)))
    assert document["requests"] == 3 and document["requests_per_second"] == trace.rate
    assert document["prompt_tokens"]["max"] == 1100 and document["kv_bytes_per_token"] == size == 65536
    for point in document["hit_curve"]:
        capacity = np.inf if point["cache_tokens"] is None else point["cache_tokens"]
        assert point["hit_rate"] == hit_curve(trace, capacity)
        assert point["cache_bytes"] == (None if np.isinf(capacity) else capacity * size)
    assert document["cache_tokens_for_90_percent_of_hits"] == 1024


def test_tables_of_a_trace(capsys, tmp_path):
    trace = agent_trace(sessions=40, seed=1)
    argv = ["trace", "--synthetic", "agents", "--sessions", "40", "--seed", "1", "--replicas", "2"]
    plot = tmp_path / "a.png"
    status, out, err = run(capsys, *argv, "--model", "llama-3.1-70b", "--plot", str(plot))
    assert (status, err) == (0, "") and plot.stat().st_size > 10_000
    summary = summarize_trace(trace, assign(trace, 2, "prefix"))
    for text in (
        "320 requests",
        "Sessions",
        "2 replicas, router prefix",
        f"{summary.hit_rates[-1]:.1%}",
        "GB",
    ):
        assert text in out
    assert max(map(len, out.splitlines())) <= 120


def test_traces_without_blocks_say_what_is_unknown(capsys, tmp_path):
    path = write(tmp_path, OWN)
    status, out, _ = run(capsys, "trace", str(path), "--plot", str(tmp_path / "a.svg"))
    assert status == 0 and "hits of a finite cache are unknown" in " ".join(out.split())
    path = write(tmp_path, {k: v for k, v in BENCH.items() if k not in ("start_times", "request_rate")})
    status, out, _ = run(capsys, "trace", str(path), "--plot", str(tmp_path / "b.svg"))
    assert status == 0
    for text in ("all at once", "Note: The result has no start times", "nothing is known of shared prefixes"):
        assert text in out
    status, out, _ = run(capsys, "trace", str(path), "--json")
    assert json.loads(out)["requests_per_second"] is None and json.loads(out)["over_time"] == []


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_synthetic_trace_is_written_and_scaled(capsys, tmp_path, suffix):
    out_file = tmp_path / f"made.{suffix}"
    argv = [
        "trace",
        "--synthetic",
        "gamma",
        "--rate",
        "4",
        "--requests",
        "200",
        "--burstiness",
        "9",
        "--prompt-cv",
        "1",
    ]
    status, out, _ = run(capsys, *argv, "--seed", "7", "--out", str(out_file))
    assert status == 0 and f"Wrote {out_file}" in " ".join(out.split()).replace(" /", "/").replace(
        "Wrote/", "Wrote /"
    )
    made = load_trace(out_file)
    expected = synthetic_trace("gamma", rate=4.0, requests=200, burstiness=9.0, prompt_cv=1.0, seed=7)
    assert (made.prompt == expected.prompt).all() and made.arrival == pytest.approx(expected.arrival)
    status, out, _ = run(capsys, "trace", str(out_file), "--requests", "50", "--rate", "1", "--json")
    document = json.loads(out)
    assert document["requests"] == 50 and document["requests_per_second"] == pytest.approx(1.0)
    argv = ["trace", "--synthetic", "poisson", "--rate", "2", "--requests", "30", "--lengths", str(out_file)]
    document = json.loads(run(capsys, *argv, "--json")[1])
    assert document["prompt_tokens"]["max"] <= expected.prompt.max()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "got 'neither'; expected a FILE or --synthetic"),
        (["x.csv", "--synthetic", "agents"], "got 'both'; expected a FILE or --synthetic"),
        (["nothing.csv"], "got 'nothing.csv'; expected a file with a trace of requests"),
        (["x.csv", "--turns", "3"], "--turns: got 3.0; expected --synthetic as well"),
        (
            ["--synthetic", "poison"],
            "--synthetic: got 'poison'; expected one of poisson, gamma, diurnal, bursts, agents; did you mean 'poisson'?",
        ),
        (["--synthetic", "poisson"], "--rate: got 'no --rate'; expected requests a second"),
        (
            ["--synthetic", "poisson", "--rate", "-1"],
            "--synthetic: got 'poisson'; expected parameters of a workload (rate is a positive number, not -1.0)",
        ),
        (
            ["--synthetic", "poisson", "--rate", "1", "--turns", "3"],
            "--turns: got 3.0; expected --synthetic agents",
        ),
        (
            ["--synthetic", "agents", "--requests", "3"],
            "--requests: got 3.0; expected no such option with --synthetic agents",
        ),
        (["--synthetic", "agents", "--sessions", "1.5"], "--sessions: got 1.5; expected a whole number"),
        (
            ["--synthetic", "agents", "--replicas", "0"],
            "--replicas: got 0.0; expected a whole number of at least 1",
        ),
        (
            ["--synthetic", "agents", "--router", "random"],
            "--router: got 'random'; expected one of round_robin, prefix",
        ),
        (
            ["--synthetic", "poisson", "--rate", "1", "--replicas", "2"],
            "--replicas: got 2.0; expected a trace with block ids",
        ),
        (
            ["--synthetic", "agents", "--out", "x.txt"],
            "--out: got 'x.txt'; expected a name ending in .csv or .jsonl",
        ),
        (["--synthetic", "agents", "--model", "lama-3.1-8b"], "did you mean 'llama-3.1-8b'?"),
    ],
)
def test_bad_input_gives_one_line(capsys, argv, message):
    status, out, err = run(capsys, "trace", *argv)
    assert (status, out) == (2, "")
    assert err.startswith("jaxcost trace: ") and message in err and err.count("\n") == 1
