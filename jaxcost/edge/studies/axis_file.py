"""Build the axes, samples and knobs of a space from the sections of its file."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog.set_option import current_leaf
from jaxcost.edge.io.errors import InputError, nearest, not_among, within
from jaxcost.edge.io.formats import read_bits
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.studies.choice_file import choosable_paths, read_choice
from jaxcost.edge.studies.space_schema import (
    AxisSection,
    Bounds,
    Interval,
    KnobSection,
    SampleSection,
    TiedSection,
    ValuesSection,
)
from jaxcost.explore.space import (
    Axis,
    AxisSpec,
    ChoiceAxis,
    Condition,
    Joint,
    Range,
    Tied,
    leaf_axes,
    linear_range,
    log_range,
    sample,
    stacks,
)
from jaxcost.spec.memory import TIERS

__all__ = ["AxisReader", "ParseNumber", "parse_ends", "parse_number", "parse_values"]

_TIERS = tuple(f"system.chip.{tier}" for tier in TIERS)
_STUDY_POINTS = 1 << 16  # an optimizer reads the ranges of a sample, not its points
_TOLERANCE = 1e-6  # relative difference within which a condition matches a value

ParseNumber = Callable[[Any, str, str, str], float]


def parse_number(value: Any, unit: str, path: str, file: str) -> float:
    """Return a number in an SI unit from a bare number, a quantity, or the name of a number format."""
    if unit == "bit":
        return within(file, path, read_bits, value)
    bare = isinstance(value, int | float) and not isinstance(value, bool)
    return parse_quantity(value, "1" if bare else unit, file=file, path=path)


def parse_ends(
    numbers: Sequence[Any], unit: str, path: str, file: str, parse: ParseNumber = parse_number
) -> tuple[float, float]:
    """Return the two ends of a range in an SI unit.

    Raises:
        InputError: a number in another unit, or not [low, high] with 0 < low < high.
    """
    if len(numbers) != 2:
        raise InputError("[low, high]", file=file, path=path, given=list(numbers))
    low, high = (parse(number, unit, path, file) for number in numbers)
    if not 0 < low < high:
        raise InputError("0 < low < high", file=file, path=path, given=list(numbers))
    return low, high


def parse_values(
    values: list[Any] | Interval, unit: str, path: str, file: str, parse: ParseNumber = parse_number
) -> list[float]:
    """Return the values of a list, {log: [low, high, count]} or {linear: [low, high, count]} in an SI unit.

    Raises:
        InputError: a value in another unit, no count, or not low < high.
    """
    if isinstance(values, list):
        return [parse(value, unit, path, file) for value in values]
    if len(values.numbers) != 3:
        raise InputError("[low, high, count]", file=file, path=path, given=list(values.numbers))
    low, high = (parse(number, unit, path, file) for number in values.numbers[:2])
    if high <= low or (values.log and low <= 0):
        expected = "0 < low < high" if values.log else "low < high"
        raise InputError(expected, file=file, path=path, given=list(values.numbers))
    return [float(x) for x in (np.geomspace if values.log else np.linspace)(low, high, values.numbers[2])]


@dataclasses.dataclass(frozen=True)
class AxisReader:
    """Builds the axes of one file in order; an axis may depend on earlier ones."""

    file: str
    units: Mapping[str, str]  # unit of every leaf of a design
    names: Mapping[str, Sequence[str]]  # names of the systems and models
    tiers: Mapping[str, Any]  # stacks of every memory tier of the systems, by path
    parts: list[AxisSpec] = dataclasses.field(default_factory=list)

    def add_axis(self, path: str, section: AxisSection) -> None:
        """Add an axis."""
        where = f"axes.{path}"
        axis = self._build_axis(path, section, where)
        self._add(replace(axis, when=self._conditions(section.when, where)), where)

    def add_tied(self, section: TiedSection, where: str) -> None:
        """Add axes of one length that move together."""
        sections = section.__pydantic_extra__ or {}
        when = self._conditions(section.when, where)
        axes = tuple(self._build_axis(path, values, f"{where}.{path}") for path, values in sections.items())
        if len(axes) < 2:
            raise InputError("at least two axes to tie", file=self.file, path=where, given=len(axes))
        if len({axis.size for axis in axes}) > 1:
            sizes = ", ".join(f"{axis.path} has {axis.size}" for axis in axes)
            raise InputError("as many values of each", file=self.file, path=where, given=sizes)
        self._add(Tied(axes=axes, when=when), where)

    def add_sample(self, section: SampleSection, where: str) -> None:
        """Add a sample."""
        when = self._conditions(section.when, where)
        knobs = self._build_knobs(section.knobs, f"{where}.knobs")
        options = {"count": section.count, "method": section.method, "seed": section.seed}
        self._add(sample(*knobs, **options, name=where, when=when), where)

    def add_knobs(self, knobs: Mapping[str, Any], where: str) -> None:
        """Add the knobs of a study as a sample."""
        self._add(sample(*self._build_knobs(knobs, where), count=_STUDY_POINTS, name=where), where)

    def _build_knobs(self, knobs: Mapping[str, Any], where: str) -> list[Range | Joint | Axis | ChoiceAxis]:
        return [self._build_knob(path, section, f"{where}.{path}") for path, section in knobs.items()]

    def _add(self, part: AxisSpec, where: str) -> None:
        before = [leaf for other in self.parts for leaf in leaf_axes(other)]
        for leaf in leaf_axes(part):
            for other in before:
                self._refuse_conflict(leaf, other, where)
            before.append(leaf)
        self.parts.append(part)

    def _refuse_conflict(
        self, leaf: Axis | ChoiceAxis | Range, other: Axis | ChoiceAxis | Range, where: str
    ) -> None:
        if leaf.path == other.path:
            raise InputError("every path on one axis", file=self.file, path=where, given=leaf.path)
        erased = [p for p in other.sets or other.paths for q in leaf.sets if f"{p}.".startswith(f"{q}.")]
        if erased:
            expected = f"{leaf.path} before {other.path}, because it would undo what {other.path} sets"
            raise InputError(expected, file=self.file, path=where, given=f"{leaf.path} after {other.path}")
        if isinstance(other, ChoiceAxis) and other.count in leaf.paths:
            expected = f"{leaf.path} before {other.path}, which comes in that number"
            raise InputError(expected, file=self.file, path=where, given=f"{leaf.path} after {other.path}")

    def _unit(self, path: str, where: str) -> str:
        if path not in self.units:
            known = [*self.units, *choosable_paths()]
            raise InputError(
                "a dotted path of system, model, traffic, plan or prices",
                file=self.file,
                path=where,
                suggestion=nearest(path, known),
            )
        return self.units[path]

    def _build_axis(self, path: str, section: ValuesSection, where: str) -> Axis | ChoiceAxis:
        path = current_leaf(path)
        values = section.choose or section.values or section.scale or section
        by_name = isinstance(values, list) and section.scale is None
        if path in choosable_paths() and (by_name or path not in self.units):
            listed = values if isinstance(values, list) else list(values.numbers)
            return read_choice(path, listed, where, self.file, self.names.get("system", ()))
        unit, relative = self._unit(path, where), section.scale is not None
        numbers = parse_values(values, "1" if relative else unit, where, self.file)
        return Axis(path=path, values=jnp.asarray(numbers, jnp.result_type(float)), relative=relative)

    def _build_knob(self, path: str, section: KnobSection, where: str) -> Range | Joint | Axis | ChoiceAxis:
        if section.stacks is not None:
            return self._build_stacks(path, section, where)
        if section.range is None:
            return self._build_axis(path, section, where)
        paths = (path, *(section.together or ()))
        ranges = tuple(self._build_range(one, section, section.range, where) for one in paths)
        return Joint(ranges=ranges, name=path) if section.together else ranges[0]

    def _build_range(self, path: str, section: KnobSection, interval: Interval, where: str) -> Range:
        path = current_leaf(path)
        relative, unit = section.scale is not None, self._unit(path, where)
        low, high = (
            parse_number(number, "1" if relative else unit, where, self.file) for number in interval.numbers
        )
        whole = bool(section.whole or getattr(interval, "whole", False))
        with self._range_errors(where, interval.numbers):
            return (log_range if interval.log else linear_range)(
                path, low, high, relative=relative, whole=whole
            )

    def _build_stacks(self, path: str, section: KnobSection, where: str) -> Joint:
        if path not in _TIERS:
            raise not_among(_TIERS, path, file=self.file, path=where)
        low, high = parse_ends(section.stacks or (), "1", where, self.file)
        self._refuse_several_stacks(path, where)
        with self._range_errors(where, section.stacks):
            return stacks(path, low, high, whole=section.whole is not False)

    @contextlib.contextmanager
    def _range_errors(self, where: str, numbers: Any) -> Iterator[None]:
        """Raise the errors of a range as errors of the file."""
        try:
            yield
        except ValueError as error:
            expected = str(error).split(", not ")[0]
            raise InputError(expected, file=self.file, path=where, given=list(numbers)) from None

    def _refuse_several_stacks(self, path: str, where: str) -> None:
        choices = [leaf for part in self.parts for leaf in leaf_axes(part) if leaf.path == path]
        branches = choices[0].branches[path] if choices and isinstance(choices[0], ChoiceAxis) else None
        counts = self.tiers[path] if branches is None else branches.stacks
        if (np.asarray(counts) > 1 + _TOLERANCE).any():
            raise InputError(
                f"a tier of one stack, as an axis {path}: {{choose: [hbm4]}} makes it",
                file=self.file,
                path=where,
                given=f"{float(np.max(counts)):g} stacks",
            )

    def _conditions(self, clauses: Mapping[str, Any], where: str) -> tuple[Condition, ...]:
        return tuple(self._condition(name, wanted, f"{where}.when") for name, wanted in clauses.items())

    def _condition(self, name: str, wanted: Any, where: str) -> Condition:
        name = current_leaf(name)
        earlier = {axis.path: (part.name, axis) for part, axis in self._conditioning_axes()}
        known = [*self.names, *earlier]
        if name not in known:
            expected = "an axis before this one: " + ", ".join(known)
            raise InputError(
                expected, file=self.file, path=where, given=name, suggestion=nearest(name, known)
            )
        where = f"{where}.{name}"
        if name in self.names:
            return name, self._indices_of_names(self.names[name], wanted, where)
        part, axis = earlier[name]
        if isinstance(axis, ChoiceAxis):
            return part, self._indices_of_names(axis.names, wanted, where)
        return part, self._indices_of_values(axis, wanted, where)

    def _conditioning_axes(self) -> Iterator[tuple[AxisSpec, Axis | ChoiceAxis]]:
        """Yield the axes that a condition may name, each with its part of the space; samples have none."""
        for part in self.parts:
            if isinstance(part, Axis | ChoiceAxis):
                yield part, part
            elif isinstance(part, Tied):
                yield from ((part, axis) for axis in part.axes)

    def _indices_of_names(self, names: Sequence[str], wanted: Any, where: str) -> tuple[int, ...]:
        listed = wanted if isinstance(wanted, list) else [wanted]
        for name in listed:
            if name not in names:
                raise not_among(names, str(name), file=self.file, path=where)
        return self._indices(np.isin(names, listed), wanted, where)

    def _indices_of_values(self, axis: Axis, wanted: Any, where: str) -> tuple[int, ...]:
        unit = "1" if axis.relative else self.units[axis.path]
        values = np.asarray(axis.values, float)
        if isinstance(wanted, Bounds):
            low, high = (
                default if bound is None else parse_number(bound, unit, where, self.file)
                for bound, default in ((wanted.at_least, 0.0), (wanted.at_most, np.inf))
            )
            matches = (values >= low * (1 - _TOLERANCE)) & (values <= high * (1 + _TOLERANCE))
            return self._indices(matches, wanted.model_dump(exclude_none=True), where)
        matches = np.zeros(len(values), bool)
        for text in wanted if isinstance(wanted, list) else [wanted]:
            value = parse_number(text, unit, where, self.file)
            same = np.abs(values - value) <= _TOLERANCE * abs(value)
            if not same.any():
                shown = [f"{v:g}" for v in values[:12]] + ["..."] * (len(values) > 12)
                raise InputError("one of " + ", ".join(shown), file=self.file, path=where, given=text)
            matches |= same
        return self._indices(matches, wanted, where)

    def _indices(self, matches: np.ndarray, wanted: Any, where: str) -> tuple[int, ...]:
        if not matches.any():
            raise InputError(
                "a condition that at least one value meets", file=self.file, path=where, given=wanted
            )
        return tuple(int(i) for i in np.flatnonzero(matches))
