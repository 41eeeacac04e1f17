"""The public functions of co-design. Each takes a space with the fields of a `Problem`, or a ready `Problem`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxcost.explore.codesign.optimum import find_optimum
from jaxcost.explore.codesign.parametric import (
    Along,
    BreakEven,
    Elasticities,
    find_break_even,
    find_path,
    tabulate_elasticities,
)
from jaxcost.explore.codesign.pareto import Front, find_front
from jaxcost.explore.codesign.problem import Problem, as_problem
from jaxcost.explore.codesign.result import Codesign
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import Constraint

__all__ = ["break_even", "codesign", "codesign_along", "codesign_front", "elasticity_table"]

_FEW_STARTS = 8  # for each combination, where a problem is solved many times


def codesign(
    space: Space | Problem,
    objective: str | Mapping[str, float] | None = None,
    constraints: Sequence[Constraint] | None = None,
    **options: Any,
) -> Codesign:
    """Find the best design of a space by gradient.

    The space is relaxed, solved from many starting points while the softness of the model falls, rounded to whole
    numbers, and evaluated with the exact model.

    Args:
        space: the designs, or a ready problem, of which the other arguments then replace fields.
        objective: a metric to minimise, or exponents of a product of metrics to minimise; needed with a space.
        constraints: bounds on metrics of a Report. All margins are at least 0 in any case.
        **options: other fields of `Problem`: across, over, uncertain, draws, starts (16), seed, optimiser, evaluation,
            metrics and progress.

    Returns:
        The design with its knobs, its limits and their shadow prices. Where none was found, `failed` is the reason.

    Raises:
        ValueError: a bad objective, constraint, axis or option.
    """
    return find_optimum(as_problem(space, objective, constraints, options))


def codesign_front(
    space: Space | Problem,
    metrics: Sequence[str],
    constraints: Sequence[Constraint] | None = None,
    *,
    points: int = 16,
    gives: tuple[str, ...] | None = None,
    **options: Any,
) -> Front:
    """Find the designs of a space that trade two or three metrics for one another.

    Args:
        space: the designs, or a ready problem, whose objective is not used.
        metrics: two or three to minimise; one with a minus before its name is maximised.
        constraints: as for `codesign`. The bounds of the front hold in every scenario too.
        points: bounds that are tried; of three metrics the square of a whole number is best.
        gives: the field `metrics` of `Problem`.
        **options: as for `codesign`; with a space, starts is 8.

    Raises:
        ValueError: not two or three metrics, or as `codesign`.
    """
    names = (name.removeprefix("-") for name in metrics)
    objective = None if isinstance(space, Problem) else dict.fromkeys(names, 1.0)
    problem = as_problem(space, objective, constraints, _with_metrics(options, gives), starts=_FEW_STARTS)
    return find_front(problem, metrics, points)


def codesign_along(
    space: Space | Problem,
    objective: str | Mapping[str, float] | None = None,
    constraints: Sequence[Constraint] | None = None,
    path: str = "",
    values: Sequence[float] | np.ndarray = (),
    **options: Any,
) -> Along:
    """Find the best design at every value of a parameter that the designer does not choose.

    All values are solved at once, and each again from the solutions of its neighbours.

    Args:
        space: the designs, or a ready problem.
        objective: as for `codesign`.
        constraints: as for `codesign`.
        path: dotted path of a leaf that is no knob, or a metric with one bound among the constraints.
        values: of the leaf, or of the bound, in SI units.
        **options: as for `codesign`; with a space, starts is 8, for each value.

    Raises:
        ValueError: a path that is neither, or as `codesign`.
    """
    problem = as_problem(space, objective, constraints, options, starts=_FEW_STARTS)
    return find_path(problem, path, values)


def break_even(
    space: Space | Problem,
    objective: str | Mapping[str, float] | None = None,
    constraints: Sequence[Constraint] | None = None,
    path: str = "",
    low: float = 0.0,
    high: float = 0.0,
    *,
    axis: str,
    first: str,
    second: str,
    **options: Any,
) -> BreakEven:
    """Find the value of a parameter at which two choices have the same objective, each with its best design.

    Objectives are those of the relaxed problem.

    Args:
        space: the designs, or a ready problem; `axis` is enumerated.
        objective: as for `codesign`.
        constraints: as for `codesign`.
        path: as for `codesign_along`.
        low: lowest value of the parameter, above 0.
        high: highest value.
        axis: path of an enumerated axis, "system" or "model".
        first: name of one of its choices.
        second: name of another.
        **options: as for `codesign`; with a space, starts is 8, for each value.

    Raises:
        ValueError: no such axis or choice, not 0 < low < high, or as `codesign_along`.
    """
    problem = as_problem(space, objective, constraints, options, starts=_FEW_STARTS)
    return find_break_even(problem, path, low, high, axis=axis, first=first, second=second)


def elasticity_table(
    space: Space | Problem,
    design: Codesign,
    metrics: Sequence[str],
    *,
    gives: tuple[str, ...] | None = None,
    **options: Any,
) -> Elasticities:
    """Differentiate metrics by every knob at a design: d ln metric / d ln knob, in the mean over scenarios.

    The softness is 0.01, so that limits that are nearly active contribute.

    Args:
        space: of the design, or the problem of the design.
        design: result of `codesign`.
        metrics: of a Report; above 0.
        gives: the field `metrics` of `Problem`.
        **options: across and evaluation, as for the design.
    """
    objective = None if isinstance(space, Problem) else dict.fromkeys(metrics, 1.0)
    problem = as_problem(space, objective, None, _with_metrics(options, gives))
    return tabulate_elasticities(problem, design, metrics)


def _with_metrics(options: dict[str, Any], gives: tuple[str, ...] | None) -> dict[str, Any]:
    return options if gives is None else options | {"metrics": gives}
