"""A report in the hands of a user: paths as attributes, `print`, notebooks, and a design evaluated whole."""

import operator
import re

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.commands.cli import main

DESIGN = jc.Design(
    system=jc.load_system("h100-sxm-x8"),
    model=jc.load_model("llama-3.1-70b"),
    traffic=jc.Traffic(prompt=1024, output=512, batch=8),
    plan=jc.Plan(tp=8),
)


@pytest.fixture(scope="module")
def report():
    return jc.evaluate(DESIGN.system, DESIGN.model, DESIGN.traffic, DESIGN.plan)


def test_paths_of_rows_are_attributes(report):
    for path, _, value in jc.rows(report):
        assert float(operator.attrgetter(path)(report)) == float(value)
    with pytest.raises(AttributeError, match=r"no field or operator 'attention'; operators: embedding"):
        report.decode.attention  # noqa: B018


def test_print_shows_the_tables_of_the_command_line(report, capsys):
    text = str(report)
    assert text.startswith("Fits: 18.9 of 80.8 GB in use on the fullest chip, 76.7% free; power binds first")
    assert re.search(r"First token \(TTFT\), the whole batch +217 ms", text)
    assert re.search(r"Each token \(TPOT\) +5.85 ms", text)
    command = ["evaluate", "--model", "llama-3.1-70b", "--system", "h100-sxm-x8", "--tp", "8", "--batch", "8"]
    assert main([*command, "--prompt", "1024", "--output", "512"]) == 0
    printed = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    shown = [line.strip() for line in text.splitlines() if line.strip()]
    steps = shown[shown.index("Prefill step: 217 ms") :]
    assert printed[-len(steps) :] == steps and printed[1] == shown[0]
    cells = [cell for line in printed for cell in re.split("  +", line)]
    summary = [cell for line in shown[1 : -len(steps)] for cell in re.split("  +", line)]
    assert not set(summary) - set(cells)
    page = report._repr_html_()
    assert page.count("<table>") == 5
    assert "5.85 ms" in page


def test_communication_that_overlaps_is_said(report):
    """As in the heading of a step of the command."""
    efficiency = jc.replace(DESIGN.system.chip.efficiency, overlap=1.0)
    system = jc.replace_at(DESIGN.system, "chip.efficiency", efficiency)
    overlapped = jc.evaluate(system, DESIGN.model, DESIGN.traffic, DESIGN.plan)
    assert "of communication overlapped with compute" in str(overlapped)
    assert "of communication overlapped" not in str(report)


def test_a_batch_or_traced_report_is_shown_by_its_repr(report):
    batch = jax.tree.map(lambda x: np.stack([x, x]), report)
    assert str(batch).startswith("Report(")
    assert batch._repr_html_() is None
    traced = []
    jax.eval_shape(lambda r: traced.append(str(r)) or r.tpot, report)
    assert traced[0].startswith("Report(")


def test_a_design_is_evaluated_as_its_parts(report):
    same = jc.evaluate(DESIGN)
    assert float(same.tpot) == float(report.tpot)
    changed = jc.evaluate(DESIGN, traffic=jc.Traffic(prompt=1024, output=512, batch=16))
    assert float(changed.tpot) > float(report.tpot)
    with pytest.raises(TypeError, match="missing: traffic, plan"):
        jc.evaluate(DESIGN.system, DESIGN.model)
