"""Read what a sweep keeps: the section `reduce` of a space file, or the default."""

from typing import Any

from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.io.validation import validate
from jaxcost.edge.studies.reducer_schema import (
    BestSection,
    DistributionSection,
    FeasibilitySection,
    Limits,
    ParetoSection,
    ReduceFile,
    TopSection,
)
from jaxcost.explore.analysis import OBJECTIVES
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import (
    FEASIBLE,
    Best,
    Constraint,
    Distribution,
    Feasibility,
    Pareto,
    Reducer,
    TopK,
    report_metrics,
)

__all__ = ["build_constraints", "default_reducers", "parse_metric", "read_reducers"]

_BARE = ("1", "token", "token/s")


def default_reducers(objective: str) -> dict[str, Reducer]:
    """Return the reducers of a sweep whose space file has no section `reduce`.

    They keep the best design of each model on each system by the objective, the front of speed against the objective
    for each, the distribution of the objective, and the constraints that designs do not meet.
    """
    largest, other = OBJECTIVES[objective], "usd_per_mtok" if objective == "tpot" else objective
    return {
        "best": Best(objective, by=("system", "model"), largest=largest),
        "front": Pareto(
            ("tpot", other),
            largest=(other,) * OBJECTIVES[other],
            size=4096,
            epsilon=0.005,
            by=("system", "model"),
        ),
        "distribution": Distribution(objective),
        "reasons": Feasibility(),
    }


def read_reducers(data: Any, space: Space, file: str) -> dict[str, Reducer]:
    """Read the section `reduce` of a space file: what to keep, each under a name.

        cheapest: {top: 20, by: usd_per_mtok, where: {tpot: {at_most: 50 ms}}}
        front:    {pareto: [tpot, usd_per_mtok, gco2e_per_mtok], epsilon: 1%, groups: [model]}
        pairs:    {best: usd_per_mtok, groups: [system, model]}
        spread:   {distribution: usd_per_mtok}
        reasons:  {feasibility: all}

    Designs that break a constraint of the model are left out, unless a reducer has `infeasible: true`.

    Raises:
        InputError: an unknown kind, metric, option, axis or unit.
    """
    sections = validate(ReduceFile, {"reduce": data}, file=file).reduce
    return {
        name: _build_reducer(section, space, file, f"reduce.{name}") for name, section in sections.items()
    }


def build_constraints(limits: Limits, path: str, file: str) -> tuple[Constraint, ...]:
    """Return limits on metrics, `{tpot: {at_most: 50 ms}, margins.memory: {at_least: 5%}}`, in SI units.

    Raises:
        InputError: a bound in another unit than its metric.
    """
    constraints = []
    for metric, bounds in limits.items():
        unit = report_metrics()[metric]
        low, high = (
            default if bound is None else parse_metric(bound, unit, f"{path}.{metric}", file)
            for bound, default in ((bounds.at_least, -float("inf")), (bounds.at_most, float("inf")))
        )
        constraints.append(Constraint(metric, low=low, high=high))
    return tuple(constraints)


def parse_metric(value: Any, unit: str, path: str, file: str) -> float:
    """Return a value of a metric in the unit of that metric."""
    # Quantities have no "per million tokens": such a unit must be written as the metric has it.
    if isinstance(value, str) and unit not in ("", "1") and value.endswith(f" {unit}"):
        value, unit = value.removesuffix(unit), "1"
    bare = unit in _BARE or (isinstance(value, int | float) and "Mtok" in unit)
    return parse_quantity(value, "1" if bare else unit, file=file, path=path)


def _build_reducer(section: Any, space: Space, file: str, path: str) -> Reducer:
    if isinstance(section, FeasibilitySection):
        return Feasibility()
    limits = build_constraints(section.where, f"{path}.where", file)
    where = limits if section.infeasible else (*FEASIBLE, *limits)
    groups = tuple(getattr(section, "groups", ()))
    for name in groups:
        if name not in space.names:
            raise not_among(space.names, name, file=file, path=f"{path}.groups")
    if isinstance(section, TopSection):
        return TopK(section.by, section.top, largest=_maximized(section.by, section.largest), where=where)
    if isinstance(section, BestSection):
        largest = _maximized(section.best, section.largest)
        return Best(section.best, by=groups or ("system", "model"), largest=largest, where=where)
    if isinstance(section, DistributionSection):
        return Distribution(section.distribution, where=where)
    assert isinstance(section, ParetoSection)
    epsilon = parse_quantity(section.epsilon, "1", file=file, path=f"{path}.epsilon")
    largest = [m for m in section.pareto if OBJECTIVES.get(m)] if section.largest is None else section.largest
    try:
        return Pareto(
            tuple(section.pareto),
            largest=tuple(largest),
            size=section.size,
            epsilon=epsilon,
            by=groups,
            where=where,
        )
    except ValueError as error:
        raise InputError(f"valid options ({error})", file=file, path=path) from None


def _maximized(metric: str, largest: bool | None) -> bool:
    return OBJECTIVES.get(metric, False) if largest is None else largest
