"""Co-design of the model itself: shadow prices against differences, and the conditions of an optimum."""

import dataclasses

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.explore.codesign.pareto import warm_start
from jaxcost.explore.codesign.result import best_converged
from jaxcost.explore.codesign.solver import Solver, initial_points

LIMITS = {"tpot": 0.012, "margins.power": 0.0, "margins.memory": 0.0}


def solver_with(**changed):
    bounds = LIMITS | {name.replace("_", "."): value for name, value in changed.items()}
    constraints = [
        jc.Constraint(name, low=value) if name.startswith("margins") else jc.Constraint(name, high=value)
        for name, value in bounds.items()
    ]
    return Solver(jc.Problem(jc.load_space("sobol"), "usd_per_mtok", constraints, starts=4))


@pytest.fixture(scope="module")
def solved():
    solver = solver_with()
    solutions = solver.solve(initial_points(solver))
    return solver, solutions, solutions.take([best_converged(solutions)])


@pytest.mark.slow
def test_all_starts_agree_and_meet_the_conditions_of_an_optimum(solved):
    _, solutions, best = solved
    for combination in np.unique(solutions.combination):
        objectives = solutions.objective[solutions.combination == combination]
        assert np.ptp(objectives) < 5e-3
    assert best.stationarity[0] < 1e-3
    assert best.violation[0] < 1e-4
    assert np.max(best.multipliers * np.abs(best.limits)) < 1e-4
    assert np.isfinite(solutions.objective).all()


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["tpot", "margins.power", "margins.memory"])
def test_multipliers_are_differences_of_solved_problems(solved, metric):
    solver, _, best = solved
    row = [bound.metric for bound in solver.limits].index(metric)
    step = 0.004
    logs = []
    for sign in (1, -1):
        wider = 1 + sign * step
        changed = {metric.replace(".", "_"): LIMITS[metric] * wider if metric == "tpot" else 1 - wider}
        points = dataclasses.replace(warm_start(best), stage=0)
        logs.append(solver_with(**changed).solve(points).objective[0])
    slope = (logs[0] - logs[1]) / np.log((1 + step) / (1 - step))
    assert best.multipliers[0, 0, row] > 0.01
    assert -slope == pytest.approx(best.multipliers[0, 0, row], rel=0.01)
