"""`jaxcost codesign`: studies are read strictly, and what is found is told in full."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost.explore.codesign as engine
from jaxcost.edge.catalog.loaders import names
from jaxcost.edge.commands import codesign as codesign_command
from jaxcost.edge.commands.cli import main
from jaxcost.edge.show.codesign_tables import Block, markdown
from jaxcost.edge.show.study_words import Goal, amount, label, one_more
from jaxcost.edge.studies import study_file
from jaxcost.explore.codesign.problem import codesign
from jaxcost.explore.codesign.relaxation import relax
from jaxcost.explore.space.axes import Joint

STUDY = """
title: A small study
question: How many stacks and how much arithmetic?
models: [llama-3.2-1b]
systems: [h100-sxm]
by_parts: true
axes: {system.chip.memory: {choose: [hbm3e, hbm4]}}
knobs: {system.chip.memory: {stacks: [1, 12]}, system.chip.compute.flops_8: {scale: {log: [0.1, 10]}, together: [system.chip.compute.flops_16]}, system.chip.tdp: {log: [100 W, 2000 W]}}
objective: usd_per_mtok
limits: {tpot: {at_most: 20 ms}}
starts: 2
"""
GIVES = ("usd_per_mtok", "tpot", "gco2e_per_mtok", "joules_per_token", "ttft", "power.decode")


def cheap(design):
    """Memory and engines cost; a token waits for both."""
    chip = design.system.chip
    flops, stacks, power = chip.compute.flops_16 / 1e15, chip.memory.stacks, chip.tdp / 1e3
    usd = 0.1 * stacks + flops + 0.2 * power + 1e9 * chip.memory.price_per_byte * 1e-3
    tpot = 20e-3 * (1e12 / chip.memory.bandwidth + 0.2 / flops + 0.1 / power)
    return jnp.stack([usd, tpot, usd, usd * tpot, tpot, 1e3 * power])


@pytest.fixture
def study(tmp_path):
    def written(text=STUDY, name="small.yaml", **changes):
        for key, value in changes.items():
            text = "\n".join(line for line in text.splitlines() if not line.startswith(f"{key}:"))
            text += f"\n{key}: {value}\n"
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return written


@pytest.fixture
def quick(monkeypatch):
    """Let the engine look at the cheap function instead of the model."""
    own = functools.partial(codesign, evaluation=cheap, metrics=GIVES)
    monkeypatch.setattr(codesign_command, "codesign", own)
    for name, given in (
        ("codesign_front", "gives"),
        ("codesign_along", "metrics"),
        ("break_even", "metrics"),
        ("elasticity_table", "gives"),
    ):
        made = functools.partial(getattr(engine, name), evaluation=cheap, **{given: GIVES})
        monkeypatch.setattr(engine, name, made)


def test_a_study_is_a_space_with_knobs(study):
    read = study_file.read_study(study())
    sample = read.space.axes[-1]
    stacks, flops, tdp = sample.knobs
    assert isinstance(stacks, Joint) and stacks.name == "system.chip.memory.stacks"
    assert "system.chip.memory.bandwidth" in stacks.paths and stacks.ranges[0].whole
    assert flops.paths == ("system.chip.compute.flops_8", "system.chip.compute.flops_16")
    assert all(r.relative for r in flops.ranges) and not tdp.relative
    assert float(tdp.high) == pytest.approx(2000)
    assert read.objective == {"usd_per_mtok": 1.0} and read.starts == 2
    assert [(c.metric, c.low, c.high) for c in read.limits] == [("tpot", -np.inf, 0.02)]
    knobs = relax(read.space).knobs
    assert [k.name for k in knobs] == [stacks.name, "system.chip.compute.flops_8", "system.chip.tdp"]
    assert knobs[0].values.tolist() == list(range(1, 13))


def test_what_is_better_large_is_raised(study):
    assert study_file.read_study(study(objective="tokens_per_second")).objective == {
        "tokens_per_second": -1.0
    }
    both = study_file.read_study(study(objective="{usd_per_mtok: 1, tokens_per_second: -0.5}"))
    assert both.objective == {"usd_per_mtok": 1.0, "tokens_per_second": -0.5}
    assert Goal({"tokens_per_second": -1.0}).says(1 / 250) == "250 token/s"
    assert Goal({"tokens_per_second": -1.0}).verb == "raises"


def test_all_that_a_study_may_ask_for(study):
    read = study_file.read_study(
        study(
            models="[llama-3.2-1b, llama-3.2-3b]",
            across="[model]",
            over="0.9",
            front="{metrics: [usd_per_mtok, tokens_per_second], points: 5}",
            along="[{path: tpot, values: {log: [10 ms, 40 ms, 3]}}, {path: traffic.batch, values: [4, 1]}]",
            break_even="{path: tpot, between: {axis: system.chip.memory, first: hbm3e, second: hbm4}, "
            "range: {log: [1 ms, 1 s]}}",
            robust="{over: worst, draws: 4}",
        )
    )
    assert read.across == ("model",) and read.over == 0.9
    assert read.front == study_file.FrontOf(("usd_per_mtok", "-tokens_per_second"), 5)
    assert read.along[0].values == pytest.approx((0.01, 0.02, 0.04)) and read.along[1].values == (1, 4)
    assert (read.break_even.low, read.break_even.high) == pytest.approx((1e-3, 1))
    assert read.robust == study_file.Robust("worst", 4)


@pytest.mark.parametrize(
    ("key", "value", "where", "hint"),
    [
        ("objectiv", "tpot", "objectiv", "did you mean 'objective'"),
        ("objective", "cost", "objective", "a number of a report"),
        ("objective", "{tpot: 0}", "objective.tpot", "an exponent other than 0"),
        ("limits", "{tpot: {below: 1 s}}", "limits.tpot", "at_most"),
        ("limits", "{tpot: {at_most: 3 W}}", "limits.tpot", "a quantity in s"),
        ("limits", "{margins.memory: {at_most: 0.5}}", "limits", "low end"),
        ("knobs", "{}", "knobs", "at least one knob"),
        ("knobs", "{system.chip.tdp: {stacks: [1, 2]}}", "knobs.system.chip.tdp", "system.chip.memory"),
        ("knobs", "{system.chip.memory: {stacks: [4, 1]}}", "knobs.system.chip.memory", "0 < low < high"),
        ("knobs", "{system.chip.tdp: {log: [1 W, 2 W], together: [x]}}", "knobs.system.chip.tdp", "scale"),
        ("axes", "{traffic.batch: [1, 2]}", "knobs.system.chip.memory", "a tier of one stack"),
        ("knobs", "{traffic.batch: [1, 2]}", "knobs", "a knob to move"),
        ("across", "[modle]", "across", "did you mean 'model'"),
        ("over", "median", "over", "mean, worst"),
        ("over", "1", "over", "below 1"),
        ("starts", "0", "starts", "a whole number from 1"),
        ("front", "{metrics: [tpot]}", "front.metrics", "2 or 3"),
        ("front", "{metrics: [tpot, ttft], point: 3}", "front", "did you mean 'points'"),
        ("along", "{path: system.chip.tdp, values: [1 W]}", "along.path", "neither a knob nor an axis"),
        ("along", "{path: ttft, values: [1 s]}", "along.path", "a metric with one limit"),
        ("along", "{path: tpot}", "along", "values: ..."),
        (
            "break_even",
            "{path: tpot, between: {axis: system.chip.memory, first: hbm3, second: hbm4}, range: {log: [1 s, 2 s]}}",
            "break_even.between.first",
            "did you mean 'hbm3e'",
        ),
        ("robust", "{draws: 1}", "robust.draws", "from 2"),
        ("systems", "[h100-sxm, h200-sxm]\nrobust: {draws: 4}", "robust", "one system"),
    ],
)
def test_a_bad_study_ends_in_one_line(study, capsys, key, value, where, hint):
    assert main(["codesign", study(**{key: value})]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("jaxcost codesign: ") and where in err and hint in err


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--starts", "0"], "--starts"),
        (["--seed", "-1"], "--seed"),
        (["--set", "system.chip.tdp=5 W"], "no axis of the space"),
        (["nothing-like-it"], "a study among configs/studies"),
        (["decode-chip-1000"], "did you mean 'decode-chip-1000w'"),
    ],
)
def test_bad_options(study, capsys, options, hint):
    assert main(["codesign", study(), *options]) == 2
    assert hint in capsys.readouterr().err


def test_no_study_is_solved_before_all_are_read(study, capsys, monkeypatch):
    monkeypatch.setattr(codesign_command, "codesign", lambda *a, **k: pytest.fail("solved"))
    assert main(["codesign", study(), study(name="other.yaml", over="median")]) == 2
    assert main(["codesign", study(), study()]) == 2
    assert "different names" in capsys.readouterr().err


@pytest.mark.slow
def test_from_study_to_folder(study, quick, tmp_path, capsys):
    file = study(
        front="{metrics: [usd_per_mtok, tpot], points: 3}",
        along="{path: tpot, values: [10 ms, 40 ms]}",
        break_even="{path: traffic.prompt, between: {axis: system.chip.memory, first: hbm3e, second: hbm4}, "
        "range: {log: [128, 1024]}}",
    )
    out = tmp_path / "out"
    assert main(["codesign", file, "--out", str(out), "--json", "--seed", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)["studies"]
    assert len(printed) == 1 and printed[0] == json.loads((out / "small" / "result.json").read_text())
    found = printed[0]
    assert found["seed"] == 3 and found["failed"] == ""
    design = found["design"]
    assert design["value"] >= design["relaxed"] * (1 - 1e-6)
    tight = [limit for limit in design["limits"] if limit["active"]]
    assert [limit["metric"] for limit in tight] == ["tpot"]
    assert tight[0]["value"] <= 0.02 and tight[0]["value"] == pytest.approx(0.02, rel=1e-3)
    stacks = design["knobs"][0]["value"]
    assert stacks == round(stacks)
    loose, strict = found["along"][0]["objective"][::-1]
    assert loose < design["value"] < strict
    assert found["break_even"]["value"] is None  # neither of them depends on the prompt
    summary = (out / "small" / "summary.md").read_text()
    for words in (
        "How many stacks and how much arithmetic?",
        "Limits that bind",
        "one more ms of",
        "No break-even",
        "The best of 2 combinations",
        "![front](front.svg)",
    ):
        assert words in summary
    for picture in ("front", "along", "break-even", "elasticities"):
        text = (out / "small" / f"{picture}.svg").read_text()
        assert text.startswith("<?xml") and "A small study" in text
    assert ">bound on time per output token (ms)<" in (out / "small" / "along.svg").read_text()


@pytest.mark.slow
def test_what_cannot_be_built_ends_in_status_1(study, quick, capsys):
    assert main(["codesign", study(limits="{tpot: {at_most: 1 us}}")]) == 1
    out = capsys.readouterr().out
    assert "Unsolved: no design was found that keeps all limits" in out and "breaks tpot by" in out
    assert "time per output token" in out and "at most 1.00 µs" in out


@pytest.mark.parametrize("name", names("studies"))
def test_studies_of_the_catalogue(name):
    read = study_file.read_study(name)
    assert read.question.endswith("?") and read.title and read.limits


def test_words():
    assert label("system.fabric.scale_up.latency") == "scale-up latency"
    assert label("system.chip.compute.flops_8") == "8-bit matmul rate"
    assert label("margins.memory") == "margin of memory"
    assert amount(1.5e-9, "USD/B") == "1.50 USD/GB"
    assert amount(4.5e-12 * 8, "J/B") == "4.50 pJ/bit"
    assert one_more(0.05, "s") == (1e-3, "ms")
    assert one_more(3e12, "B/s") == (1e12, "TB/s")
    assert one_more(700.0, "W") == (1.0, "W")
    goal = Goal({"usd_per_mtok": 1.0, "gco2e_per_mtok": 0.3})
    assert goal.name == "cost x carbon^0.3" and goal.own(2.0) == 2.0
    assert Goal({"tokens_per_second": -1.0}).change(1 / 100, -1e-4) == "1.00 token/s"


def test_markdown_escapes_what_is_a_sign():
    block = Block("A table", ("a_b", "c"), (("1|2", "*"),))
    text = markdown("Title", [Block("A line"), block], [("front", "front.svg")])
    assert text.splitlines()[0] == "# Title"
    assert "| a\\_b | c |" in text and "| 1\\|2 | \\* |" in text and "![front](front.svg)" in text
