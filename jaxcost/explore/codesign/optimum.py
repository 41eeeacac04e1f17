"""The best design of a problem: relax, solve from many points with falling softness, round, and evaluate exactly."""

from jaxcost.explore.codesign.problem import Problem
from jaxcost.explore.codesign.result import Codesign, build_result
from jaxcost.explore.codesign.rounding import find_exact_design
from jaxcost.explore.codesign.solver import Solver, initial_points

__all__ = ["find_optimum"]


def find_optimum(problem: Problem) -> Codesign:
    """Return the best design of a problem."""
    solver = Solver(problem)
    relaxed = solver.solve(initial_points(solver), on_progress=lambda share: problem.progress("solve", share))
    problem.progress("round", 0.0)
    rounded = find_exact_design(solver, relaxed)
    problem.progress("round", 1.0)
    return build_result(solver, relaxed, rounded)
