"""`jaxcost replay`: its tables, JSON and files against the library, and one clear line for bad input."""

import argparse
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxcost.edge.catalog.engines import load_engine
from jaxcost.edge.catalog.loaders import load_model, load_system
from jaxcost.edge.commands.memory_options import with_memories
from jaxcost.edge.commands.replay_options import read_prefix_cache
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.show.replay_tables import is_overloaded, judge_replay, replay_notes, replay_values
from jaxcost.edge.traces.bench_results import (
    bench_summary,
    compare_results,
    read_bench_file,
    request_columns,
    save_replay,
    trace_of_result,
)
from jaxcost.edge.traces.reader import load_trace
from jaxcost.explore.replay import agent_trace, replay, synthetic_trace
from jaxcost.spec.plan import Plan
from tests.test_cli import run

MODEL = ["--model", "qwen3-0.6b", "--system", "h100-sxm"]
LOAD = ["--synthetic", "poisson", "--rate", "40", "--requests", "48", "--prompt", "200", "--output", "24"]
LOAD += ["--prompt-cv", "0.8", "--seed", "3"]
ARGV = ["replay", *MODEL, *LOAD, "--max-num-seqs", "8"]


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace("poisson", rate=40.0, requests=48, prompt=200, output=24, prompt_cv=0.8, seed=3)


def served(trace, **options):
    plan = Plan(engine=load_engine("vllm", "h100-sxm", sequences=8.0))
    return replay(load_system("h100-sxm"), load_model("qwen3-0.6b"), trace, plan, **options)


@pytest.fixture(scope="module")
def result(trace):
    return served(trace)


def test_json_is_that_of_the_library(capsys, result):
    status, out, err = run(capsys, *ARGV, "--json", "--ttft", "8ms", "--tpot", "1s")
    assert (status, err) == (0, "")
    document = json.loads(out)
    for name, value in result.summary().items():
        assert document["results"][name]["value"] == pytest.approx(float(value), rel=1e-9), name
    limits = {"ttft": 0.008, "tpot": 1.0}
    assert document["results"]["request_goodput"]["value"] == pytest.approx(float(result.goodput(**limits)))
    assert document["targets"] == limits and document["table_error"] == result.table_error
    p99 = float(result.percentile("ttft", 99))
    assert document["exceeded"] == (["ttft"] if p99 > 0.008 else [])
    assert document["trace"]["requests"] == 48 and document["replay_seconds"] > 0


def test_tables_and_files_of_a_replay(capsys, tmp_path, result):
    out_file, plot = tmp_path / "r.parquet", tmp_path / "r.png"
    argv = [*ARGV, "--ttft", "1us", "--require-fit", "--out", str(out_file), "--plot", str(plot)]
    status, out, err = run(capsys, *argv)
    assert (status, err) == (3, "") and plot.stat().st_size > 20_000
    for text in (
        "Exceeds a target (TTFT",
        "goodput 0 requests/s",
        "Between tokens (ITL)",
        "Queueing",
        "CO2e",
        "(rms)",
    ):
        assert text in out
    assert "Fewer than 200 requests" in out and max(map(len, out.splitlines())) <= 120
    table = pq.read_table(out_file)
    for name, column in request_columns(result).items():
        np.testing.assert_allclose(table[name].to_numpy(), column, rtol=1e-9, err_msg=name)
    metadata = {k.decode(): json.loads(v) for k, v in table.schema.metadata.items()}
    assert metadata["p99_tpot_ms"] == pytest.approx(1e3 * float(result.percentile("tpot", 99)))
    assert metadata["request_goodput"] == 0 and metadata["model_id"] and metadata["completed"] == 48


def test_results_are_read_back_and_compared(tmp_path, trace, result):
    summary = bench_summary(result, ttft_target=0.01)
    assert summary["mean_itl_ms"] == pytest.approx(1e3 * float(result.mean("itl")))  # without drafts
    for path in (tmp_path / "a.json", tmp_path / "a.parquet"):
        save_replay(path, result, summary, {"max_concurrency": None})
        read = read_bench_file(path)
        assert {name: read[name] for name in summary} == summary
        pairs = compare_results(read, summary)
        assert len(pairs) == 17 and all(measured == replayed for measured, replayed in pairs.values())
        again, limit = trace_of_result(path, read)
        assert limit == 0 and again.prompt.tolist() == trace.prompt.tolist()
        assert again.output.tolist() == trace.output.tolist()
        np.testing.assert_allclose(again.arrival, trace.arrival, atol=1e-12)
    assert load_trace(tmp_path / "a.json").requests == 48
    # Without its summary, the statistics come from the lists; those of single gaps are not known.
    lists = {
        name: value for name, value in read_bench_file(tmp_path / "a.json").items() if isinstance(value, list)
    }
    for key, (measured, replayed) in compare_results(lists, summary).items():
        if key not in ("median_itl_ms", "p99_itl_ms"):
            assert measured == pytest.approx(replayed, rel=1e-6), key
    sums = [sum(gaps) for gaps in lists["itls"]]
    np.testing.assert_allclose(sums, result.finish - result.first, rtol=1e-5)


def test_a_measured_closed_loop_is_replayed_as_one(capsys, tmp_path, trace):
    measured = {
        "max_concurrency": 4,
        "request_rate": "inf",
        "mean_ttft_ms": 8.0,
        "output_throughput": 1000.0,
        "input_lens": trace.prompt.tolist(),
        "output_lens": trace.output.tolist(),
        "start_times": (1000 + trace.arrival).tolist(),
    }
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(measured))
    argv = ["replay", *MODEL, "--max-num-seqs", "8", "--compare", str(path)]
    status, out, err = run(capsys, *argv, "--json")
    document = json.loads(out)
    assert (status, err) == (0, "") and document["trace"]["concurrency"] == 4
    at_once = trace_of_result(path, measured)[0]
    assert at_once.span == 0
    expected = served(at_once, concurrency=4)
    assert document["compared"]["mean_ttft_ms"] == {
        "measured": 8.0,
        "replayed": pytest.approx(1e3 * float(expected.mean("ttft"))),
    }
    assert list(document["compared"]) == ["mean_ttft_ms", "output_throughput"]
    assert bench_summary(expected)["max_concurrent_requests"] == 4
    assert not document["overloaded"]


def test_an_overload_is_said(trace, result):
    crowded = served(trace, rate=4000.0)
    assert is_overloaded(crowded) and not is_overloaded(result)
    assert not is_overloaded(crowded, concurrency=8)
    values = replay_values(crowded)
    assert judge_replay(values, {"ttft": 0.0, "tpot": 0.0}, overloaded=True).text.startswith(
        "Overloaded. p99 TTFT"
    )
    assert "queue grew throughout" in replay_notes(crowded, values, overloaded=True)[0]


def test_rejected_requests(capsys, tmp_path):
    """Nothing fits: the verdict says so, percentiles are absent, and files can be read."""
    path = tmp_path / "none.json"
    argv = [*ARGV, "--gpu-memory-utilization", "0.01", "--require-fit", "--out", str(path)]
    status, out, err = run(capsys, *argv, "--json", "--plot", str(tmp_path / "x.png"))
    document = json.loads(out)
    assert (status, err) == (3, "") and document["exceeded"] == ["memory"]
    assert document["results"]["p99_ttft"]["value"] is None and document["results"]["rejected"]["value"] == 48
    assert document["verdict"].startswith("Does not fit") and not (tmp_path / "x.png").exists()
    saved = json.loads(path.read_text())
    assert saved["failed"] == 48 and saved["output_lens"] == [0] * 48 and "rejected" in saved["errors"][0]


def test_a_prefix_cache_in_bytes(capsys):
    argv = [
        "replay",
        *MODEL,
        "--max-num-seqs",
        "8",
        "--synthetic",
        "agents",
        "--sessions",
        "6",
        "--turns",
        "3",
    ]
    argv += ["--system-prompt", "512", "--new-tokens", "64", "--output", "16"]
    status, out, err = run(capsys, *argv, "--prefix-cache", "1GB", "--json")
    document = json.loads(out)
    each = 2 * 2 * 28 * 8 * 128  # bytes of K and V in 28 layers with 8 heads of 128
    assert (status, err) == (0, "") and document["prefix_cache"] == f"{1e9 / each:,.0f} tokens (1.00 GB)"
    assert document["results"]["hit_rate"]["value"] > 0.3


def test_a_second_tier_takes_its_memory_and_time():
    """A token is read at the bandwidth of the tier by each chip of the replica, and the plan has the rest of the tier."""
    system = with_memories(load_system("h100-sxm-x8"), ("host=lpddr5x-8533:2",), ())
    model, plan = load_model("qwen3-0.6b"), Plan(tp=2)
    trace = agent_trace(sessions=2, turns=2)
    options = {"prefix_cache": "1000", "prefix_cache_slow": "1GB", "prefix_cache_tier": "host"}
    cache, text, left = read_prefix_cache(argparse.Namespace(**options), trace, system, model, plan)
    each = 2 * 2 * 28 * 8 * 128
    assert cache.capacity_tokens == 1000 and cache.slow_capacity_tokens == pytest.approx(1e9 / each)
    host = system.chip.host
    bandwidth = float(host.bandwidth) * float(system.chip.efficiency.memory)
    assert cache.load_seconds == pytest.approx(each / 2 / bandwidth, rel=0.05)  # and the latency of a read
    assert float(host.capacity) - float(left.chip.host.capacity) == pytest.approx(1e9 / 2, rel=1e-4)
    assert text.startswith("1,000 tokens (115 MB), then 8,719 tokens (1.00 GB) in host at ")
    options["prefix_cache_slow"] = "9TB"
    with pytest.raises(InputError, match="--prefix-cache-slow: got '9TB'; expected at most the"):
        read_prefix_cache(argparse.Namespace(**options), trace, system, model, plan)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--batch", "4"], "--batch: got 4.0; expected 1: a replay takes its load from the trace"),
        (["--chunk", "64"], "--chunk: got 64.0; expected 0: the token budget"),
        (["--set", "traffic.corpus=1GB"], "--set: got 'traffic.corpus'; expected no number of the traffic"),
        (["--replicas", "1.5"], "--replicas: got 1.5; expected a whole number"),
        (["--router", "prefx"], "--router: got 'prefx'; expected one of"),
        (["--prefill-replicas", "2"], "--prefill-replicas: got 2.0; expected --prefill-system as well"),
        (["--prefix-cache", "1e5"], "--prefix-cache: got '1e5'; expected none: the trace has no block ids"),
        (["--prefix-cache-tier", "host"], "--prefix-cache-tier: got 'host'; expected --prefix-cache-slow"),
        (["--out", "x.csv"], "--out: got 'x.csv'; expected a name ending in .parquet or .json"),
        (["--compare", "absent.json"], "--compare: got 'absent.json'; expected a result of vllm bench serve"),
        (["--replicas", "2", "--concurrency", "3"], "expected options that can be replayed (concurrency 3"),
    ],
)
def test_replay_refuses_in_one_line(capsys, more, message):
    status, out, err = run(capsys, *ARGV, *more)
    assert (status, out) == (2, "")
    assert err.startswith(f"jaxcost replay: {message}") and err.count("\n") == 1


def test_a_trace_is_needed(capsys):
    status, _, err = run(capsys, "replay", *MODEL)
    assert status == 2 and "--trace FILE, --synthetic KIND or --compare FILE" in err
