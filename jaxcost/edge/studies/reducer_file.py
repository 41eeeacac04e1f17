"""What a sweep is to keep, as a space file says under `reduce`, or what is kept where it says nothing."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxcost.edge.io.errors import InputError, nearest, not_among
from jaxcost.edge.io.quantity import parse_quantity
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

__all__ = ["bound", "default_reducers", "known_metric", "read_limits", "read_reducers"]

_MOST = 100_000
_BARE = ("1", "token", "token/s")
_OPTIONS = {
    "top": ("by", "where", "infeasible", "largest"),
    "pareto": ("epsilon", "groups", "size", "largest", "where", "infeasible"),
    "best": ("groups", "where", "infeasible", "largest"),
    "distribution": ("where", "infeasible"),
    "feasibility": (),
}


def default_reducers(objective: str) -> dict[str, Reducer]:
    """Return what is kept where nothing else is asked for.

    The best design of each model on each system by the objective, the front of speed against the objective for each,
    how the objective is distributed, and why designs fail.
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


def read_reducers(given: Any, space: Space, file: str) -> dict[str, Reducer]:
    """Read the section `reduce`: what to keep, each under a name.

        cheapest: {top: 20, by: usd_per_mtok, where: {tpot: {at_most: 50 ms}}}
        front:    {pareto: [tpot, usd_per_mtok, gco2e_per_mtok], epsilon: 1%, groups: [model]}
        pairs:    {best: usd_per_mtok, groups: [system, model]}
        spread:   {distribution: usd_per_mtok}
        reasons:  {feasibility: all}

    Only designs that hold every constraint of the model are looked at, unless `infeasible: true` says otherwise.

    Raises:
        InputError: no such kind, metric, option, axis or unit.
    """
    if not isinstance(given, dict) or not given:
        raise InputError("a mapping from names to what is kept", file=file, path="reduce", given=given)
    out = {}
    for name, section in given.items():
        where = f"reduce.{name}"
        if not str(name).replace("-", "").replace("_", "").isalnum():
            raise InputError("a name of letters, digits, - and _", file=file, path="reduce", given=str(name))
        kinds = [kind for kind in _OPTIONS if isinstance(section, dict) and kind in section]
        if len(kinds) != 1:
            kind = nearest(next(iter(section)), _OPTIONS) if isinstance(section, dict) and section else None
            wanted = "a mapping with one of " + ", ".join(_OPTIONS)
            raise InputError(wanted, file=file, path=where, given=repr(section), suggestion=kind)
        for option in section:
            if option not in (*_OPTIONS[kinds[0]], kinds[0]):
                raise not_among((kinds[0], *_OPTIONS[kinds[0]]), str(option), file=file, path=where)
        out[str(name)] = _Reader(section, where, file, space).read(kinds[0])
    return out


def known_metric(metric: Any, where: str, file: str) -> str:
    """Return a metric that a Report has.

    Raises:
        InputError: it has none of that name.
    """
    if metric not in report_metrics():
        ends = [path for path in report_metrics() if path.endswith(f".{metric}")]
        raise InputError(
            "a number of a report, such as " + ", ".join(OBJECTIVES),
            file=file,
            path=where,
            given=str(metric),
            suggestion=ends[0] if ends else nearest(str(metric), report_metrics()),
        )
    return metric


def read_limits(given: Any, where: str, file: str) -> tuple[Constraint, ...]:
    """Read limits on metrics: `{tpot: {at_most: 50 ms}, margins.memory: {at_least: 5%}}`.

    Raises:
        InputError: no such metric, form or unit.
    """
    if not isinstance(given, dict):
        raise InputError(
            "a mapping from metrics to {at_least:, at_most:}", file=file, path=where, given=repr(given)
        )
    out = []
    for metric, bounds in given.items():
        at = f"{where}.{metric}"
        unit = report_metrics()[known_metric(metric, at, file)]
        if not isinstance(bounds, dict) or not bounds or not set(bounds) <= {"at_least", "at_most"}:
            expected = "{at_least: ..., at_most: ...}, either or both"
            raise InputError(expected, file=file, path=at, given=repr(bounds))
        read = {key: bound(value, unit, at, file) for key, value in bounds.items()}
        ends = read.get("at_least", -float("inf")), read.get("at_most", float("inf"))
        out.append(Constraint(metric, low=ends[0], high=ends[1]))
    return tuple(out)


def bound(value: Any, unit: str, where: str, file: str) -> float:
    """Read a value of a metric."""
    # Quantities know no "per million tokens": those units are taken as they are written.
    if isinstance(value, str) and unit not in ("", "1") and value.endswith(f" {unit}"):
        value, unit = value.removesuffix(unit), "1"
    bare = unit in _BARE or (isinstance(value, int | float) and "Mtok" in unit)
    return parse_quantity(value, "1" if bare else unit, file=file, path=where)


class _Reader:
    """One entry of `reduce`."""

    def __init__(self, section: dict[str, Any], where: str, file: str, space: Space) -> None:
        self._section, self._where, self._file, self._space = section, where, file, space

    def read(self, kind: str) -> Reducer:
        main = self._section[kind]
        where = self._constraints()
        if kind == "top":
            metric = self._metric("by")
            return self._made(
                lambda: TopK(metric, self._count("top", _MOST), largest=self._largest(metric), where=where)
            )
        if kind == "best":
            metric = self._metric("best")
            by = self._groups() or ("system", "model")
            return self._made(lambda: Best(metric, by=by, largest=self._largest(metric), where=where))
        if kind == "distribution":
            return Distribution(self._metric("distribution"), where=where)
        if kind == "feasibility":
            if main != "all":
                raise self._error("all", "feasibility", main)
            return Feasibility()
        if not isinstance(main, list):
            raise self._error("a list of 2 to 4 metrics", "pareto", main)
        objectives = tuple(self._known(metric, "pareto") for metric in main)
        largest = self._section.get("largest", [m for m in objectives if OBJECTIVES.get(m)])
        if not isinstance(largest, list) or not set(map(str, largest)) <= set(objectives):
            raise self._error("a list of some of the objectives", "largest", largest)
        given = self._section.get("epsilon", 0)
        epsilon = parse_quantity(given, "1", file=self._file, path=f"{self._where}.epsilon")
        return self._made(
            lambda: Pareto(
                objectives,
                largest=tuple(largest),
                size=self._count("size", _MOST, 1024),
                epsilon=epsilon,
                by=self._groups(),
                where=where,
            )
        )

    def _error(self, expected: str, option: str, given: Any) -> InputError:
        return InputError(expected, file=self._file, path=f"{self._where}.{option}", given=repr(given))

    def _made(self, make: Callable[[], Reducer]) -> Reducer:
        try:
            return make()
        except ValueError as error:
            raise InputError(f"another choice: {error}", file=self._file, path=self._where) from None

    def _known(self, metric: Any, option: str) -> str:
        return known_metric(metric, f"{self._where}.{option}", self._file)

    def _metric(self, option: str) -> str:
        if option not in self._section:
            raise self._error("a metric", option, None)
        return self._known(self._section[option], option)

    def _count(self, option: str, most: int, default: int | None = None) -> int:
        count = self._section.get(option, default)
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= most:
            raise self._error(f"a whole number from 1 to {most:,}", option, count)
        return count

    def _largest(self, metric: str) -> bool:
        largest = self._section.get("largest", OBJECTIVES.get(metric, False))
        if not isinstance(largest, bool):
            raise self._error("true or false", "largest", largest)
        return largest

    def _groups(self) -> tuple[str, ...]:
        given: Sequence[Any] = self._section.get("groups", [])
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list):
            raise self._error("a list of axes", "groups", given)
        for name in given:
            if name not in self._space.names:
                raise not_among(self._space.names, str(name), file=self._file, path=f"{self._where}.groups")
        return tuple(given)

    def _constraints(self) -> tuple[Constraint, ...]:
        anyhow = self._section.get("infeasible", False)
        if not isinstance(anyhow, bool):
            raise self._error("true or false", "infeasible", anyhow)
        limits = read_limits(self._section.get("where", {}), f"{self._where}.where", self._file)
        return limits if anyhow else (*FEASIBLE, *limits)
