"""Load levels of a benchmark: closed forms against the replay where they are exact, and the command."""

import csv
import dataclasses
import json

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.show.bench_tables import bench_documents, bench_verdict
from jaxcost.explore.replay import BENCH_METRICS
from tests.test_cli import run

SYSTEM, MODEL = jc.load_system("h100-sxm"), jc.load_model("llama-3.1-8b")
TRAFFIC = jc.Traffic(prompt=512, output=32)
REQUESTS = 48
USERS = [1, 2, 16]
COMMAND = ["bench", "--model", "llama-3.1-8b", "--system", "h100-sxm", "--prompt", "512", "--output", "32"]


@pytest.fixture(scope="module")
def closed():
    return jc.bench(SYSTEM, MODEL, TRAFFIC, jc.Plan(), concurrency=USERS, requests=REQUESTS)


@pytest.fixture(scope="module")
def by_rate():
    return jc.bench(SYSTEM, MODEL, TRAFFIC, jc.Plan(), rate=[1.0, 300.0], requests=REQUESTS)


def test_one_user_is_exact(closed):
    """Both have the same steps; what is left is the interpolation of step times, 1% at random points."""
    assert closed.table_error < 0.02
    assert closed.ratio["mean_tpot"][0] == pytest.approx(1, abs=0.01)
    assert closed.ratio["tokens_per_second"][0] == pytest.approx(1, abs=0.01)
    assert closed.ratio["mean_ttft"][0] == pytest.approx(1, abs=0.05)
    for name in ("ttft", "tpot"):  # every request alike
        assert closed.replayed[f"p99_{name}"][0] == pytest.approx(closed.replayed[f"p50_{name}"][0], rel=1e-6)


def test_equal_users_stay_in_lockstep(closed):
    """All prompts of users in lockstep share a step, so that the times of all requests are equal."""
    assert TRAFFIC.prompt * USERS[-1] <= 8192  # the budget of a step
    for level in range(len(USERS)):
        for name in ("ttft", "tpot"):
            p50, p99 = (closed.replayed[f"{q}_{name}"][level] for q in ("p50", "p99"))
            assert p99 == pytest.approx(p50, rel=1e-6)
    decode = jc.closed_loop(SYSTEM, MODEL, dataclasses.replace(TRAFFIC, variation=0.0), jc.Plan(), users=16.0)
    # No prompts are mixed into decode steps of lockstep.
    assert closed.replayed["mean_tpot"][-1] == pytest.approx(float(decode.decode_tpot), rel=0.01)


def test_throughput_rises_with_users(closed):
    for values in (closed.analytic, closed.replayed):
        assert np.all(np.diff(values["tokens_per_second"]) > 0)
        np.testing.assert_allclose(values["tokens_per_second_per_chip"], values["tokens_per_second"])
        np.testing.assert_allclose(values["tokens_per_second"], 32 * values["requests_per_second"], rtol=1e-5)
    np.testing.assert_allclose(closed.ratio["tokens_per_second"], 1, atol=0.1)
    assert closed.knee == 2


def test_a_low_rate_is_a_user_alone(closed, by_rate):
    assert by_rate.replayed["p50_ttft"][0] == pytest.approx(closed.replayed["p50_ttft"][0], rel=1e-6)
    for name in ("mean_ttft", "mean_tpot", "tokens_per_second"):
        assert by_rate.ratio[name][0] == pytest.approx(1, abs=0.05)


def test_no_steady_state_above_capacity(by_rate):
    assert 10 < by_rate.capacity < 300
    for name in ("mean_ttft", "mean_tpot"):
        assert np.isfinite(by_rate.analytic[name][0]) and np.isnan(by_rate.analytic[name][1])
    assert by_rate.analytic["requests_per_second"][1] == pytest.approx(by_rate.capacity)
    assert not by_rate.notes[0] and "overload" in by_rate.notes[1][0]
    assert by_rate.knee == 0


def test_verdict(closed, by_rate):
    assert bench_verdict(closed, 0.0, 0.0)[0].startswith("knee (replay, 90% of the largest throughput): 16")
    between = float(np.mean(closed.replayed["p99_ttft"][1:]))
    text, met = bench_verdict(closed, between, 0.0)
    assert met and text.startswith("2 users with p99 TTFT")
    assert closed.within(ttft=between).tolist() == [True, True, False]
    text, met = bench_verdict(by_rate, 1e-6, 1e-6)
    assert not met and text.startswith("no load has p99 TTFT") and "capacity" in text


def test_lengths_of_a_trace_and_of_a_range():
    """The lengths that are drawn have the means and the range that are stated."""
    from jaxcost.explore.replay.load_levels import _draw_lengths, _variation

    lengths = _draw_lengths(jc.Traffic(prompt=1000, output=100), 0.5, 3)
    assert lengths.prompt.min() >= 500 and lengths.prompt.max() <= 1500
    assert lengths.output.mean() == pytest.approx(100, rel=0.02)
    assert _variation(lengths.prompt) == pytest.approx(0.5**2 / 3, rel=0.05)
    equal = _draw_lengths(jc.Traffic(prompt=1000, output=100), 0.0, 3)
    assert set(equal.prompt) == {1000} and set(equal.output) == {100}


def test_json_csv_and_plot(capsys, tmp_path, monkeypatch, closed):
    """The command prints what the function returns."""
    monkeypatch.setattr("jaxcost.edge.commands.bench.bench", lambda *args, **options: closed)
    argv = [*COMMAND, "--concurrency", "1,2,16", "--num-prompts", str(REQUESTS), "--tpot-target", "1s"]
    code, out, err = run(
        capsys, *argv, "--json", "--csv", str(tmp_path / "b.csv"), "--plot", str(tmp_path / "b.png")
    )
    assert code == 0 and err == ""
    document = json.loads(out)
    assert document["verdict"].startswith("16 users") and document["met"]
    assert document | bench_documents(closed, 0.0, 1.0) == document
    level = document["levels"][1]
    assert level["concurrency"] == 2 and level["within_targets"]
    assert set(level["replayed"]) == set(level["analytic"]) == set(level["ratio"]) == set(BENCH_METRICS)
    assert level["analytic"]["p99_ttft"] is None
    rows = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    assert [float(row["concurrency"]) for row in rows] == USERS
    assert float(rows[2]["replayed_p99_tpot"]) == closed.replayed["p99_tpot"][2]
    assert (tmp_path / "b.png").stat().st_size > 10_000
    code, out, _ = run(capsys, *argv)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith("16 users with p99 TPOT")
    assert max(map(len, lines)) <= 110


def test_command_replays(capsys):
    """With the shapes of `by_rate`, whose program is compiled."""
    code, out, _ = run(capsys, *COMMAND, "--rate", "1", "--num-prompts", str(REQUESTS))
    assert code == 0 and out.startswith("knee (replay, serves 95% of the rate): 1.00 requests/s")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--concurrency", "1,x"], "got 'x'; expected a number"),
        (["--concurrency", "1.5"], "--concurrency: got 1.5; expected whole numbers"),
        (["--concurrency", "0"], "--concurrency: got 0"),
        (["--concurrency", "4,4"], "--concurrency: got '4,4'; expected every level once"),
        (
            ["--concurrency", "3", "--replicas", "2"],
            "--concurrency: got 3.0; expected multiples of the 2 replicas",
        ),
        (["--rate", "-1"], "--rate: got -1"),
        (
            ["--rate", "1", "--concurrency", "1"],
            "--rate: got '1'; expected --concurrency or --rate, not both",
        ),
        (["--num-prompts", "0"], "--num-prompts: got 0"),
        (["--range-ratio", "1"], "--range-ratio: got 1"),
        (["--batch", "4"], "--batch: got 4.0; expected --concurrency"),
        (["--chunk", "256"], "--chunk: got 256"),
        (["--prefix-hit", "0.5"], "--prefix-hit: got 0.5"),
        (["--output", "1"], "--output: got 1.0; expected a whole number of tokens, at least 2"),
        (["--csv", "x.txt"], "--csv: got 'x.txt'; expected a name ending in .csv"),
        (["--trace", "absent.csv"], "got 'absent.csv'; expected a file"),
        (
            ["--trace", "absent.csv", "--prompt", "512"],
            "--prompt: got 512.0; expected the lengths of --trace",
        ),
    ],
)
def test_bad_input(capsys, options, message):
    command = COMMAND[:5] if "--trace" in options else COMMAND
    code, out, err = run(capsys, *command, *options)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert message.replace("'", "") in err.replace("'", "").replace('"', "")


def test_a_diffusion_model_is_refused(capsys):
    argv = ["bench", "--model", "llada-8b", "--system", "h100-sxm", "--concurrency", "1"]
    code, _, err = run(capsys, *argv)
    assert code == 2 and "diffusion" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either concurrency or rate"),
        ({"concurrency": [1], "rate": [1.0]}, "either concurrency or rate"),
        ({"concurrency": [3], "replicas": 2}, "not a multiple of 2 replicas"),
        ({"rate": [0.0]}, "rate is a positive number"),
        ({"concurrency": [1], "range_ratio": 1.0}, "range_ratio"),
        ({"concurrency": [1], "requests": 1.5}, "requests is a whole number"),
    ],
)
def test_errors_of_the_function(options, message):
    with pytest.raises(ValueError, match=message):
        jc.bench(SYSTEM, MODEL, TRAFFIC, jc.Plan(), **options)
