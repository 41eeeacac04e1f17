"""The first lines of results: verdict, remedies, whose TTFT it is, and the exit status."""

import json
import shlex

import pytest

import jaxcost as jc
from jaxcost.edge.commands.cli import main
from jaxcost.edge.show.verdict import judge, judge_service, unfit_line

MODEL = ["--model", "llama-3.1-70b"]
EIGHT = [*MODEL, "--system", "h100-sxm-x8"]
SYSTEM, LLAMA = jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-70b")
NAMES = {"power": "power", "memory": "memory"}


def run(capsys, *argv):
    status = main(argv)
    out, err = capsys.readouterr()
    assert err == ""
    return status, out


def test_the_smallest_margin_of_what_can_fail_binds():
    verdict = judge({"memory": 0.669, "chips": 0.0, "power": 0.145}, 26.7e9, 80.8e9)
    words = "Fits: 26.7 of 80.8 GB in use on the fullest chip, 67.0% free; power binds first (+14.5%)"
    assert (verdict.text, verdict.binding, verdict.exceeded) == (words, "power", ())
    assert unfit_line(verdict) == ""


def test_violations_are_named_the_worst_first_and_what_cannot_run_before_all():
    verdict = judge({"power": -0.2, "memory": -53.4, "ttft": -99.0, "tpot": 0.5}, 1e12, 76e9, NAMES)
    assert (
        verdict.exceeded == ("memory", "ttft", "power") and verdict.binding == "memory" and not verdict.fits
    )
    assert verdict.text == (
        "Does not fit: main memory would have to hold 54.4 times what the engine may use; "
        "TTFT is 100.0 times its target; a chip draws 1.20 times its power (TDP)"
    )
    assert verdict.short == "Does not fit: memory 54.4 times, ttft 100.0 times, power 1.20 times"
    assert "does not fit" in unfit_line(verdict)


def test_an_engine_that_keeps_all_memory_is_said():
    plan = jc.Plan(tp=8.0, engine=jc.Engine(kept_bytes=1e12))
    report = jc.evaluate(SYSTEM, LLAMA, jc.Traffic(), plan)
    assert float(report.margins.memory) < 0  # not above 1, as of a negative capacity
    assert str(report).startswith("Does not fit: the engine may use no main memory")


def test_what_fits_but_misses_a_limit_is_said():
    verdict = judge({"memory": 0.5, "power": -0.004}, 500e6, 1e9)
    assert verdict.fits and "exceeds a limit" in unfit_line(verdict)
    words = "Fits in memory (500 MB of 1.00 GB in use on the fullest chip) but exceeds a limit: a chip draws 1.004"
    assert verdict.text.startswith(words)
    late = judge_service({"memory": 0.5, "ttft": -1.0, "slots": -1e-6}, "3 replicas of 8 chips", 1e-4)
    assert late.text == "Exceeds a limit: TTFT is 2.00 times its target"
    held = judge_service({"memory": 0.5, "slots": -1e-6}, "3 replicas of 8 chips", 1e-4)
    assert held.text == "Fits: 3 replicas of 8 chips; slots bind first (+0.0%)"


def test_evaluate_begins_with_a_verdict_and_gives_both_first_tokens(capsys):
    argv = ["evaluate", *EIGHT, "--tp", "8", "--batch", "32", "--require-fit"]
    status, out = run(capsys, *argv)
    lines = out.splitlines()
    assert status == 0 and lines[1].startswith("Fits: ") and lines[2].startswith("Efficiency: ")
    assert out.index("one request alone") < out.index("the whole batch")
    status, out = run(capsys, *argv, "--ttft-target", "2", "--json")
    document = json.loads(out)
    assert document["verdict"] in lines[1] and document["binding"] == "power" and document["remedies"] == []
    first = document["first_token"]
    assert first["whole_batch"] == document["results"]["ttft"]["value"]
    assert first["one_request_alone"] < first["whole_batch"] / 30
    assert first["mixed_with_decoding"] is None


@pytest.mark.parametrize(
    ("options", "label"),
    [
        (["--batch", "1"], "First token (TTFT)  "),
        (["--tp", "2", "--dp", "4", "--batch", "4"], "First token (TTFT)  "),
        (["--batch", "32", "--chunk", "512"], "First token (TTFT), mixed with decoding"),
    ],
)
def test_the_label_of_ttft_says_whose_it_is(capsys, options, label):
    options = options if "--tp" in options else ["--tp", "8", *options]
    _, out = run(capsys, "evaluate", *EIGHT, *options, "--ttft-target", "10")
    assert label in out and "the whole batch" not in out.split("Margins")[0]


def test_a_target_of_ttft_is_that_of_the_batch(capsys):
    _, out = run(capsys, "evaluate", *EIGHT, "--tp", "8", "--batch", "32", "--ttft-target", "0.5")
    assert "TTFT, the whole batch" in out.split("Margins")[1]


def test_a_design_that_does_not_fit_has_remedies_that_do(capsys):
    """Each remedy's option, given to the command, has the margin and the cost that the remedy states."""
    argv = ["evaluate", *EIGHT, "--tp", "8", "--batch", "4096", "--prompt", "8192"]
    status, out = run(capsys, *argv, "--require-fit")
    lines = out.splitlines()
    assert status == 3 and lines[1].startswith("Does not fit: main memory would have to hold 1")
    assert lines[2].startswith("Remedies") and out.index("Remedies") < out.index("does not fit.") < out.index(
        "TTFT"
    )
    status, out = run(capsys, *argv, "--json")
    remedies = json.loads(out)["remedies"]
    assert status == 0 and len(remedies) >= 2
    assert [r["usd_per_mtok"] for r in remedies] == sorted(r["usd_per_mtok"] for r in remedies)
    for remedy in remedies:
        status, out = run(capsys, *argv, *shlex.split(remedy["option"]), "--json", "--require-fit")
        results = json.loads(out)["results"]
        assert status == 0
        assert results["margins.memory"]["value"] == pytest.approx(remedy["margin"], abs=1e-6)
        assert results["usd_per_mtok"]["value"] == pytest.approx(remedy["usd_per_mtok"], rel=1e-6)


def test_the_batch_of_a_remedy_is_the_largest_that_fits():
    traffic = jc.Traffic(batch=4096.0, prompt=8192.0)
    remedies = jc.find_remedies(SYSTEM, LLAMA, traffic, jc.Plan(tp=8.0), count=9)
    batches = [r.changes["traffic.batch"] for r in remedies if "traffic.batch" in r.changes]
    assert batches == [float(jc.largest_batch(SYSTEM, LLAMA, traffic, jc.Plan(tp=8.0)))]


def test_only_what_helps_is_a_remedy():
    """Weights of 70 billion parameters on one chip: a smaller batch or cache does not help, fewer bits do."""
    system = jc.load_system("h100-sxm")
    remedies = jc.find_remedies(system, LLAMA, jc.Traffic(batch=1.0), jc.Plan(), count=9)
    changes = {path for remedy in remedies for path in remedy.changes}
    assert changes == {"plan.weight_bits", "plan.tp", "system.chips"}
    assert all(remedy.margin >= 0 for remedy in remedies)
    assert jc.find_remedies(system, LLAMA, jc.Traffic(batch=1.0), jc.Plan(weight_bits=8.0)) == []


def test_the_buffers_of_a_static_batch_are_remedied_by_steps():
    traffic = jc.Traffic(batch=32.0, prompt=32768.0)
    plan = jc.Plan(tp=8.0, engine=jc.Engine(step_tokens=0.0))
    steps = [
        r for r in jc.find_remedies(SYSTEM, LLAMA, traffic, plan) if "plan.engine.step_tokens" in r.changes
    ]
    (step,) = steps
    engine = jc.Engine(step_tokens=2 * step.changes["plan.engine.step_tokens"])
    report = jc.evaluate(SYSTEM, LLAMA, traffic, jc.replace(plan, engine=engine))
    assert step.margin >= 0 > float(report.margins.memory)


def test_a_missed_target_is_remedied_too():
    traffic = jc.Traffic(batch=64.0, tpot_target=0.006)
    remedies = jc.find_remedies(SYSTEM, LLAMA, traffic, jc.Plan(tp=8.0))
    (batch,) = [r.changes["traffic.batch"] for r in remedies if "traffic.batch" in r.changes]
    for size, meets in ((batch, True), (batch + 1, False)):
        report = jc.evaluate(SYSTEM, LLAMA, jc.replace(traffic, batch=size), jc.Plan(tp=8.0))
        assert (float(report.tpot) <= 0.006) == meets


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["compare", *MODEL, "--systems", "h100-sxm-x8,b200-x8", "--tp", "8"], 0),
        (["compare", *MODEL, "--systems", "h100-sxm,b300"], 3),
        (["serve", *EIGHT, "--tp", "8", "--rate", "1", "--tpot-target", "1us"], 3),
    ],
)
def test_require_fit_changes_the_status_alone(capsys, argv, status):
    plain, out = run(capsys, *argv)
    required, same = run(capsys, *argv, "--require-fit")
    assert (plain, required, same) == (0, status, out)
    assert ("Does not fit" in out or "Exceeds" in out) == (status == 3)


def test_costs_are_labelled(capsys):
    _, out = run(capsys, "evaluate", *EIGHT, "--tp", "8", "--costs")
    for words in (
        "Cost, per million output tokens, all in",
        "Cost per Mtok output, all in",
        "million output tokens, all in",
        "million input tokens: prefill",
        "million output tokens: decode",
    ):
        assert words in out


@pytest.mark.parametrize("columns", [80, 140])
def test_summaries_fit_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out = run(capsys, "evaluate", *EIGHT, "--tp", "8", "--batch", "32", "--costs")
    summary = out[: out.index("Prefill step")]
    widest = max(map(len, summary.splitlines()))
    assert widest <= columns and (columns == 80 or widest > 100)
