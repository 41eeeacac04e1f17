"""Against the truth: where a space can be searched in full, codesign finds its best design to half a percent."""

import operator

import numpy as np
import pytest

import jaxcost as jc
from tests.codesign_spaces import PROBLEMS, exhaustive

# One of a list of values, one of stacks, one of a limit; all others by `-m exhaustive`.
ALWAYS = ("batch and degree of a dense model", "stacks of a large mixture", "a room's power")


@pytest.mark.slow
@pytest.mark.parametrize(
    "problem",
    [pytest.param(p, id=p.name, marks=() if p.name in ALWAYS else pytest.mark.exhaustive) for p in PROBLEMS],
)
def test_optimum(problem):
    best, held, at = exhaustive(problem)
    assert 0 < held < problem.size
    found = jc.codesign(problem.space(), problem.objective, problem.limits, starts=4)
    assert found.failed == ""
    report = found.report
    assert report.margins.worst.dtype == np.float32 and float(report.margins.worst) >= 0
    for limit in problem.limits:
        assert limit.low <= float(operator.attrgetter(limit.metric)(report)) <= limit.high
    value = problem.value(lambda name: float(operator.attrgetter(name)(report)))
    # Less than the best of all is no better than more: the search would not be a full one.
    assert best * (1 - 1e-5) <= value <= best * 1.005, (at, found.choices, found.knobs)


@pytest.mark.exhaustive
def test_exhaustive():
    """The rows that are searched are those of a product grid, which a sweep searches by itself."""
    problem = PROBLEMS[0]
    best, held, _ = exhaustive(problem)
    top = jc.sweep(problem.grid_space(), reduce={"best": jc.TopK("usd_per_mtok", problem.size)})["best"]
    assert len(top.index) == held
    assert top.values[0, top.metrics.index("usd_per_mtok")] == pytest.approx(best, rel=1e-6)
