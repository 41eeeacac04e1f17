"""Read a co-design study from YAML: a space with knobs, an objective, limits, and further questions about them.

`docs/codesign.md` describes the keys of the file.
"""

import dataclasses
import math
from typing import Any

from jaxcost.edge.catalog.set_option import Setting, set_in_space
from jaxcost.edge.io.errors import InputError, nearest, not_among
from jaxcost.edge.io.validation import validate
from jaxcost.edge.studies.axis_file import ParseNumber, parse_ends, parse_number, parse_values
from jaxcost.edge.studies.reducer_file import build_constraints, parse_metric
from jaxcost.edge.studies.space_file import build_space, leaf_units, read_space_data
from jaxcost.edge.studies.study_schema import (
    MAX_POINTS,
    AlongSection,
    BreakEvenSection,
    FrontSection,
    RobustSection,
    StudyFile,
)
from jaxcost.explore.codesign import Problem, list_limits, relax
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import Constraint, report_metrics

__all__ = ["BreakEvenQuestion", "PathValues", "Study", "read_study"]


@dataclasses.dataclass(frozen=True)
class PathValues:
    """Values of a number of the design, or of the limit on a metric; the study finds the best design for each."""

    path: str
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class BreakEvenQuestion:
    """Two names on an axis, and the range of a number in which their objectives may be equal."""

    path: str
    low: float
    high: float
    axis: str
    first: str
    second: str


@dataclasses.dataclass(frozen=True)
class Study:
    """The content of a study file."""

    name: str
    file: str
    title: str
    question: str
    space: Space
    objective: dict[str, float]  # exponent of every metric
    limits: tuple[Constraint, ...]
    across: tuple[str, ...]
    over: str | float
    starts: int
    seed: int
    front: FrontSection | None
    along: tuple[PathValues, ...]
    break_even: BreakEvenQuestion | None
    robust: RobustSection | None
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
        name: the name or path of the study.
        settings: numbers to set in all its designs.

    Raises:
        InputError: as `read_space`; an unknown metric, limit, knob or option, or no knob to move.
    """
    data, file, path = read_space_data(name, "studies")
    sections = validate(StudyFile, data, file=file)
    space = set_in_space(build_space(sections, file), settings)
    limits = build_constraints(sections.limits, "limits", file)
    for axis in sections.across:
        if axis not in space.names:
            raise not_among(space.names, axis, file=file, path="across")
    try:
        list_limits(limits)
    except ValueError as error:
        raise InputError(f"valid limits ({error})", file=file, path="limits") from None
    try:
        combinations = relax(space, tuple(sections.across)).choices
    except ValueError as error:
        raise InputError(f"a space with knobs to move ({error})", file=file, path="knobs") from None
    if sections.robust is not None and len(space.systems) != 1:
        raise InputError(
            "one system, whose constants are drawn", file=file, path="robust", given=list(space.systems)
        )
    reader = _PathReader(space, limits, file)
    return Study(
        name=path.stem,
        file=file,
        title=sections.title or path.stem,
        question=" ".join(sections.question.split()),
        space=space,
        objective=sections.objective,
        limits=limits,
        across=tuple(sections.across),
        over=sections.over,
        starts=sections.starts,
        seed=sections.seed,
        front=sections.front,
        along=tuple(
            reader.read_along(section, f"along.{i}" if isinstance(data["along"], list) else "along")
            for i, section in enumerate(sections.along, 1)
        ),
        break_even=sections.break_even and reader.read_break_even(sections.break_even, combinations),
        robust=sections.robust,
        data=data,
    )


class _PathReader:
    """Reads values of a number of a space, or of the limit on a metric, in SI units."""

    def __init__(self, space: Space, limits: tuple[Constraint, ...], file: str) -> None:
        self._space, self._limits, self._file = space, limits, file
        self._units = leaf_units(space.base)

    def read_along(self, section: AlongSection, where: str) -> PathValues:
        unit, parse = self._unit(section.path, f"{where}.path")
        values = parse_values(section.values, unit, f"{where}.values", self._file, parse)
        if len(values) > MAX_POINTS:
            raise InputError(
                f"at most {MAX_POINTS} values", file=self._file, path=f"{where}.values", given=len(values)
            )
        return PathValues(section.path, tuple(sorted(set(values))))

    def read_break_even(
        self, section: BreakEvenSection, combinations: tuple[dict[str, Any], ...]
    ) -> BreakEvenQuestion:
        unit, parse = self._unit(section.path, "break_even.path")
        low, high = parse_ends(section.range.numbers, unit, "break_even.range", self._file, parse)
        between, where = section.between, "break_even.between"
        if between.axis not in combinations[0]:
            raise not_among(combinations[0], between.axis, file=self._file, path=f"{where}.axis")
        names = list(dict.fromkeys(str(choice[between.axis]) for choice in combinations))
        for key, name in (("first", between.first), ("second", between.second)):
            if name not in names:
                raise not_among(names, name, file=self._file, path=f"{where}.{key}")
        if between.first == between.second:
            raise InputError(
                "a name other than the first", file=self._file, path=f"{where}.second", given=between.second
            )
        return BreakEvenQuestion(section.path, low, high, between.axis, between.first, between.second)

    def _unit(self, path: str, where: str) -> tuple[str, ParseNumber]:
        """Return the unit of a leaf, or of a metric with one limit, and the function that parses its values."""
        finite = [math.isfinite(end) for c in self._limits if c.metric == path for end in (c.low, c.high)]
        if sum(finite) == 1:
            return report_metrics()[path], parse_metric
        if path not in self._units:
            raise InputError(
                "a dotted path of a design, or a metric with one limit",
                file=self._file,
                path=where,
                given=path,
                suggestion=nearest(path, [*self._units, *(limit.metric for limit in self._limits)]),
            )
        if path in {leaf for axis in self._space.axes for leaf in axis.paths}:
            raise InputError(
                "a number that is neither a knob nor an axis", file=self._file, path=where, given=path
            )
        return self._units[path], parse_number
