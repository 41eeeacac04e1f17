"""Read a study of co-design from YAML: a space whose knobs an optimiser moves, what to lower, and within which limits.

All keys of a space but `sample`, `reduce`; a metric to lower, or exponents of a product, under `objective`; and what
`docs/codesign.md` lists.
"""

import dataclasses
import math
from typing import Any

from jaxcost.edge.catalog.set_option import Setting, set_in_space
from jaxcost.edge.io.errors import InputError, nearest, not_among
from jaxcost.edge.studies.axis_file import mapping, number, two_numbers, value_list
from jaxcost.edge.studies.reducer_file import bound, known_metric, read_limits
from jaxcost.edge.studies.space_file import SPACE_KEYS, leaf_units, read_space_data, space_of
from jaxcost.explore.analysis import OBJECTIVES
from jaxcost.explore.codesign import Problem, list_limits, relax
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import Constraint, report_metrics

__all__ = ["BreakEvenOf", "FrontOf", "Robust", "Study", "Walk", "read_study"]

_KEYS = (
    *SPACE_KEYS,
    "question",
    "knobs",
    "objective",
    "limits",
    "across",
    "over",
    "starts",
    "seed",
    "front",
    "along",
    "break_even",
    "robust",
)
_OVER = ("mean", "worst")
_MOST_STARTS, _MOST_DRAWS, _MOST_POINTS = 4096, 4096, 256


@dataclasses.dataclass(frozen=True)
class FrontOf:
    """A front to find."""

    metrics: tuple[str, ...]  # one that is to be raised has a minus before it
    points: int


@dataclasses.dataclass(frozen=True)
class Walk:
    """Values of a number along which to design."""

    path: str
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class BreakEvenOf:
    """Two choices of an axis, and the number at which they may break even."""

    path: str
    low: float
    high: float
    axis: str
    first: str
    second: str


@dataclasses.dataclass(frozen=True)
class Robust:
    """Draws of the uncertain constants, and what the objective is over them."""

    over: str | float
    draws: int


@dataclasses.dataclass(frozen=True)
class Study:
    """What a study file says."""

    name: str
    file: str
    title: str
    question: str
    space: Space
    objective: dict[str, float]
    limits: tuple[Constraint, ...]
    across: tuple[str, ...]
    over: str | float
    starts: int
    seed: int
    front: FrontOf | None
    along: tuple[Walk, ...]
    break_even: BreakEvenOf | None
    robust: Robust | None
    data: dict[str, Any]  # as written

    @property
    def problem(self) -> Problem:
        """The design problem of the study."""
        return Problem(
            self.space,
            self.objective,
            self.limits,
            across=self.across,
            over=self.over,
            starts=self.starts,
            seed=self.seed,
        )


def read_study(name: str, settings: tuple[Setting, ...] = ()) -> Study:
    """Read a study by the name of a file in configs/studies, or by a YAML path.

    Args:
        name: of the study.
        settings: numbers to set in all its designs.

    Raises:
        InputError: as `read_space`; no such metric, limit, knob or option, or nothing to move.
    """
    data, file, path = read_space_data(name, "studies", _KEYS)
    if "knobs" not in data:
        raise InputError("a mapping from dotted paths to ranges", file=file, path="knobs")
    space = set_in_space(space_of(data, file), settings)
    reader = _Reader(data, file, space)
    limits = read_limits(data.get("limits", {}), "limits", file)
    across = reader.across()
    try:
        list_limits(limits)
    except ValueError as error:
        raise InputError(f"other limits ({error})", file=file, path="limits") from None
    try:
        combinations = relax(space, across).choices
    except ValueError as error:
        raise InputError(f"another space ({error})", file=file, path="knobs") from None
    return Study(
        name=path.stem,
        file=file,
        title=str(data.get("title", path.stem)),
        question=" ".join(str(data.get("question", "")).split()),
        space=space,
        objective=reader.objective(),
        limits=limits,
        across=across,
        over=reader.over(data.get("over", "mean"), "over"),
        starts=reader.whole(data.get("starts", 16), 1, _MOST_STARTS, "starts"),
        seed=reader.whole(data.get("seed", 0), 0, (1 << 32) - 1, "seed"),
        front=reader.front(),
        along=reader.along(limits),
        break_even=reader.break_even(limits, combinations),
        robust=reader.robust(),
        data=data,
    )


class _Reader:
    """Reads what a study has beside its space."""

    def __init__(self, data: dict[str, Any], file: str, space: Space) -> None:
        self._data, self._file, self._space = data, file, space
        self._units = leaf_units(space.base)

    def _error(self, expected: str, where: str, given: Any) -> InputError:
        shown = given if given is None or isinstance(given, str) else repr(given)
        return InputError(expected, file=self._file, path=where, given=shown)

    def whole(self, given: Any, least: int, most: int, where: str) -> int:
        if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
            raise self._error(f"a whole number from {least} to {most:,}", where, given)
        return given

    def over(self, given: Any, where: str) -> str | float:
        if isinstance(given, str) and given in _OVER:
            return given
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < 1:
            raise self._error("mean, worst, or the a of CVaR_a from 0 to below 1", where, given)
        return float(given)

    def _section(self, key: str, given: Any, wanted: tuple[str, ...]) -> dict[str, Any]:
        """Check the keys of a section: all of those that are wanted, and no other."""
        form = "{" + ", ".join(f"{name}: ..." for name in wanted) + "}"
        section = mapping(given, form, key, self._file)
        for name in section:
            if name not in wanted:
                raise not_among(wanted, name, file=self._file, path=key)
        return section

    def _needed(self, section: dict[str, Any], name: str, where: str) -> Any:
        if name not in section:
            raise InputError(f"{name}: ...", file=self._file, path=where)
        return section[name]

    def objective(self) -> dict[str, float]:
        given = self._data.get("objective", "usd_per_mtok")
        if isinstance(given, str):
            name = known_metric(given.removeprefix("-"), "objective", self._file)
            # More of some metrics is better: those are raised.
            raised = OBJECTIVES.get(name, False) or given.startswith("-")
            return {name: -1.0 if raised else 1.0}
        mapping(given, "a metric, or a mapping from metrics to exponents", "objective", self._file)
        out = {}
        for name, weight in given.items():
            where = f"objective.{name}"
            known_metric(name, where, self._file)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not _usable(weight):
                raise self._error("an exponent other than 0, below 0 for what is to rise", where, weight)
            out[name] = float(weight)
        if not out:
            raise self._error("at least one metric", "objective", given)
        return out

    def across(self) -> tuple[str, ...]:
        given = self._data.get("across", [])
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list):
            raise self._error("a list of axes, such as [model]", "across", given)
        for name in given:
            if name not in self._space.names:
                raise not_among(self._space.names, str(name), file=self._file, path="across")
        return tuple(given)

    def front(self) -> FrontOf | None:
        if "front" not in self._data:
            return None
        section = self._section("front", self._data["front"], ("metrics", "points"))
        metrics = self._needed(section, "metrics", "front")
        if not isinstance(metrics, list) or not 2 <= len(set(map(str, metrics))) == len(metrics) <= 3:
            raise self._error("a list of 2 or 3 different metrics", "front.metrics", metrics)
        named = []
        for metric in map(str, metrics):
            name = known_metric(metric.removeprefix("-"), "front.metrics", self._file)
            named.append(f"-{name}" if metric.startswith("-") or OBJECTIVES.get(name) else name)
        return FrontOf(tuple(named), self.whole(section.get("points", 12), 2, _MOST_POINTS, "front.points"))

    def along(self, limits: tuple[Constraint, ...]) -> tuple[Walk, ...]:
        if "along" not in self._data:
            return ()
        given = self._data["along"]
        walks = []
        for i, one in enumerate(given if isinstance(given, list) else [given], 1):
            where = f"along.{i}" if isinstance(given, list) else "along"
            section = self._section(where, one, ("path", "values"))
            path = str(self._needed(section, "path", where))
            unit, read = self._followed(path, limits, f"{where}.path")
            values = value_list(
                self._needed(section, "values", where), unit, f"{where}.values", self._file, read
            )
            if len(values) > _MOST_POINTS:
                raise self._error(f"at most {_MOST_POINTS} values", f"{where}.values", len(values))
            walks.append(Walk(path, tuple(sorted(set(values)))))
        return tuple(walks)

    def _followed(self, path: str, limits: tuple[Constraint, ...], where: str) -> tuple[str, Any]:
        """Return the unit of a number to design along, and what reads it: a leaf, or a metric with one limit."""
        bounds = [
            sum(map(math.isfinite, (limit.low, limit.high))) for limit in limits if limit.metric == path
        ]
        if bounds == [1]:
            return report_metrics()[path], bound
        if path not in self._units:
            raise InputError(
                "a dotted path of a design, or a metric with one limit",
                file=self._file,
                path=where,
                given=path,
                suggestion=nearest(path, [*self._units, *(limit.metric for limit in limits)]),
            )
        moved = {leaf for axis in self._space.axes for leaf in axis.paths}
        if path in moved:
            raise self._error("a number that is neither a knob nor an axis", where, path)
        return self._units[path], number

    def break_even(
        self, limits: tuple[Constraint, ...], combinations: tuple[dict[str, Any], ...]
    ) -> BreakEvenOf | None:
        if "break_even" not in self._data:
            return None
        section = self._section("break_even", self._data["break_even"], ("path", "between", "range"))
        path = str(self._needed(section, "path", "break_even"))
        unit, read = self._followed(path, limits, "break_even.path")
        ends = self._needed(section, "range", "break_even")
        _, low, high = two_numbers(ends, unit, "break_even.range", self._file, read)
        names = ("axis", "first", "second")
        where = "break_even.between"
        between = self._section(where, self._needed(section, "between", "break_even"), names)
        axis, first, second = (str(self._needed(between, name, where)) for name in names)
        if axis not in combinations[0]:
            raise not_among(combinations[0], axis, file=self._file, path=f"{where}.axis")
        known = list(dict.fromkeys(str(choice[axis]) for choice in combinations))
        for key, name in (("first", first), ("second", second)):
            if name not in known:
                raise not_among(known, name, file=self._file, path=f"{where}.{key}")
        if first == second:
            raise self._error("another than the first", f"{where}.second", second)
        return BreakEvenOf(path, low, high, axis, first, second)

    def robust(self) -> Robust | None:
        if "robust" not in self._data:
            return None
        section = self._section("robust", self._data["robust"], ("over", "draws"))
        if len(self._space.systems) != 1:
            raise self._error("one system, whose constants are drawn", "robust", list(self._space.systems))
        return Robust(
            over=self.over(section.get("over", 0.9), "robust.over"),
            draws=self.whole(section.get("draws", 16), 2, _MOST_DRAWS, "robust.draws"),
        )


def _usable(weight: float) -> bool:
    return math.isfinite(weight) and weight != 0
