"""Axes of a space from YAML: values, ranges, choices, tied and sampled ones, and the conditions they stand under."""

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
from jaxcost.edge.studies.choice_file import choosable, read_choice
from jaxcost.explore.space import (
    METHODS,
    MOST_POINTS,
    Axis,
    Choice,
    Condition,
    Joint,
    Part,
    Range,
    Tied,
    leaves_moved,
    linear_range,
    log_range,
    sample,
    stacks,
)
from jaxcost.spec.memory import TIERS

__all__ = ["AxisReader", "mapping", "number", "two_numbers", "value_list"]

_MOST_VALUES = 1_000_000
_RANGES = ("log", "linear")
_FORMS = "a list of values, {log: [low, high, count]}, {linear: [low, high, count]}, {choose: ...}, or {scale: ...}"
_KNOB_FORMS = (
    "{log: [low, high]}, {linear: [low, high]}, a list of values, {choose: ...}, {scale: ...}, or of a memory tier "
    "{stacks: [low, high]}"
)
_TIERS = tuple(f"system.chip.{tier}" for tier in TIERS)
_STUDY_POINTS = 1 << 16  # an optimiser reads the ranges of a sample, not its points
_SAMPLE_KEYS = ("method", "count", "seed", "knobs", "when")
_SAME = 1e-6  # relative difference within which a condition names a value


def number(value: Any, unit: str, path: str, file: str) -> float:
    """Read a number in SI units: bare, with its unit, or the name of a number format."""
    if unit != "bit" and isinstance(value, int | float) and not isinstance(value, bool):
        return parse_quantity(value, "1", file=file, path=path)
    if unit == "bit":
        return within(file, path, read_bits, value)
    return parse_quantity(value, unit, file=file, path=path)


def mapping(given: Any, expected: str, where: str, file: str) -> dict[str, Any]:
    """Return a mapping of names.

    Raises:
        InputError: it is none.
    """
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise InputError(expected, file=file, path=where, given=given)
    return given


def two_numbers(
    given: Any, unit: str, where: str, file: str, read: Callable[..., float] = number
) -> tuple[str, float, float]:
    """Read {log: [low, high]} or {linear: [low, high]} as its kind and its two ends.

    Raises:
        InputError: another form, or not 0 < low < high.
    """
    kind = next(iter(given), "") if isinstance(given, dict) else ""
    if kind not in _RANGES or len(given) != 1 or not isinstance(given[kind], list) or len(given[kind]) != 2:
        raise InputError(
            "{log: [low, high]} or {linear: [low, high]}", file=file, path=where, given=repr(given)
        )
    low, high = (read(v, unit, where, file) for v in given[kind])
    if not 0 < low < high:
        raise InputError("0 < low < high", file=file, path=where, given=repr(given[kind]))
    return kind, low, high


def value_list(
    given: Any, unit: str, where: str, file: str, read: Callable[..., float] = number
) -> list[float]:
    """Read a list of values, {log: [low, high, count]} or {linear: [low, high, count]} in SI units.

    Raises:
        InputError: another form, no value, or too many.
    """
    if isinstance(given, dict):
        return _steps(given, unit, where, file, read)
    if not isinstance(given, list) or not given:
        raise InputError(_FORMS, file=file, path=where, given=given)
    if len(given) > _MOST_VALUES:
        raise InputError(f"at most {_MOST_VALUES:,} values", file=file, path=where, given=len(given))
    return [read(v, unit, where, file) for v in given]


def _steps(
    given: dict[str, Any], unit: str, where: str, file: str, read: Callable[..., float]
) -> list[float]:
    kind = next(iter(given), "")
    parts = given.get(kind)
    if kind not in _RANGES or len(given) != 1 or not isinstance(parts, list) or len(parts) != 3:
        raise InputError(_FORMS, file=file, path=where, given=repr(given))
    low, high = (read(v, unit, where, file) for v in parts[:2])
    count = parts[2]
    known = isinstance(count, int) and not isinstance(count, bool) and 2 <= count <= _MOST_VALUES
    if not known or high <= low or (kind == "log" and low <= 0):
        expected = "0 < low < high and a whole count from 2 to 1,000,000"
        raise InputError(expected, file=file, path=where, given=repr(parts))
    steps = np.geomspace(low, high, count) if kind == "log" else np.linspace(low, high, count)
    return [float(x) for x in steps]


@dataclasses.dataclass(frozen=True)
class AxisReader:
    """Reads the axes of one file, each knowing those before it."""

    file: str
    units: Mapping[str, str]  # of the leaves of a design
    names: Mapping[str, Sequence[str]]  # of the choices before all axes: system and model
    tiers: Mapping[str, Any]  # stacks of every memory tier by its path, before all axes
    parts: list[Part] = dataclasses.field(default_factory=list)

    def add_axis(self, path: str, given: Any) -> None:
        """Read an axis: `path: values`, or a mapping with the values in one form and `when`."""
        where = f"axes.{path}"
        values, when = self._conditions(given, where)
        axis = self._axis(path, values, where)
        self._add(replace(axis, when=when), where)

    def add_tied(self, given: Any, where: str) -> None:
        """Read axes of one length that move together: a mapping from their paths to values, and `when`."""
        values, when = self._conditions(
            mapping(given, "a mapping from dotted paths to values", where, self.file), where
        )
        axes = tuple(self._axis(path, own, f"{where}.{path}") for path, own in values.items())
        if len(axes) < 2:
            raise InputError("at least two axes to tie", file=self.file, path=where, given=len(axes))
        if len({axis.size for axis in axes}) > 1:
            sizes = ", ".join(f"{axis.path} has {axis.size}" for axis in axes)
            raise InputError("as many values of each", file=self.file, path=where, given=sizes)
        self._add(Tied(axes=axes, when=when), where)

    def add_sample(self, given: Any, where: str, name: str) -> None:
        """Read a sample: its method, count, seed and knobs, and `when`."""
        mapping(given, "a mapping of " + ", ".join(_SAMPLE_KEYS), where, self.file)
        for key in given:
            if key not in _SAMPLE_KEYS:
                raise not_among(_SAMPLE_KEYS, key, file=self.file, path=where)
        values, when = self._conditions(given, where)
        read = self._knobs(values.get("knobs"), f"{where}.knobs")
        method = values.get("method", METHODS[0])
        if method not in METHODS:
            raise not_among(METHODS, str(method), file=self.file, path=f"{where}.method")
        count = self._whole(values.get("count"), 1, MOST_POINTS, f"{where}.count")
        seed = self._whole(values.get("seed", 0), 0, (1 << 32) - 1, f"{where}.seed")
        self._add(sample(*read, count=count, method=method, seed=seed, name=name, when=when), where)

    def add_knobs(self, given: Any, where: str) -> None:
        """Read the knobs of a study: those of a sample alone, for an optimiser asks for no points."""
        self._add(sample(*self._knobs(given, where), count=_STUDY_POINTS, name=where), where)

    def _knobs(self, given: Any, where: str) -> list[Range | Joint | Axis | Choice]:
        knobs = mapping(given, "a mapping from dotted paths to ranges", where, self.file)
        if not knobs:
            raise InputError("at least one knob", file=self.file, path=where)
        return [self._knob(path, own, f"{where}.{path}") for path, own in knobs.items()]

    def _whole(self, given: Any, least: int, most: int, where: str) -> int:
        if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
            raise InputError(
                f"a whole number from {least} to {most:,}", file=self.file, path=where, given=given
            )
        return given

    def _add(self, part: Part, where: str) -> None:
        before = [leaf for other in self.parts for leaf in leaves_moved(other)]
        for leaf in leaves_moved(part):
            for other in before:
                self._refuse_conflict(leaf, other, where)
            before.append(leaf)
        self.parts.append(part)

    def _refuse_conflict(self, leaf: Axis | Choice | Range, other: Axis | Choice | Range, where: str) -> None:
        if leaf.path == other.path:
            raise InputError("every path on one axis", file=self.file, path=where, given=leaf.path)
        erased = [p for p in other.sets or other.paths for q in leaf.sets if f"{p}.".startswith(f"{q}.")]
        if erased:
            expected = f"{leaf.path} before {other.path}, for it would undo what that sets"
            raise InputError(expected, file=self.file, path=where, given=f"{leaf.path} after {other.path}")
        if isinstance(other, Choice) and other.count in leaf.paths:
            expected = f"{leaf.path} before {other.path}, which comes in that number"
            raise InputError(expected, file=self.file, path=where, given=f"{leaf.path} after {other.path}")

    def _unit(self, path: str, where: str) -> str:
        if path not in self.units:
            known = [*self.units, *choosable()]
            raise InputError(
                "a dotted path of system, model, traffic, plan or prices",
                file=self.file,
                path=where,
                suggestion=nearest(path, known),
            )
        return self.units[path]

    def _axis(self, path: str, given: Any, where: str) -> Axis | Choice:
        path = current_leaf(path)
        listed = isinstance(given, dict) and len(given) == 1 and set(given) <= {"choose", "values"}
        inner = next(iter(given.values())) if listed else given
        if path in choosable() and not (path in self.units and isinstance(given, dict) and inner is given):
            return read_choice(path, inner, where, self.file)
        unit = self._unit(path, where)
        relative = isinstance(given, dict) and set(given) == {"scale"}
        values = given["scale"] if relative else inner
        unit = "1" if relative else unit
        numbers = value_list(values, unit, where, self.file)
        return Axis(path=path, values=jnp.asarray(numbers, jnp.result_type(float)), relative=relative)

    def _knob(self, path: str, given: Any, where: str) -> Range | Joint | Axis | Choice:
        if isinstance(given, dict) and "stacks" in given:
            return self._stacks(path, given, where)
        if isinstance(given, dict) and "together" in given:
            return self._together(path, given, where)
        scaled = isinstance(given, dict) and "scale" in given
        form = {**given, **given["scale"]} if scaled and isinstance(given["scale"], dict) else given
        kind = next((k for k in _RANGES if isinstance(form, dict) and k in form), None)
        if (
            not isinstance(form, dict)
            or kind is None
            or (isinstance(form[kind], list) and len(form[kind]) == 3)
        ):
            return self._axis(path, given, where)
        path = current_leaf(path)
        unit, whole, bounds = self._unit(path, where), form.get("whole", False), form[kind]
        if (
            not set(form) <= {kind, "whole", "scale"}
            or not isinstance(whole, bool)
            or not isinstance(bounds, list)
            or len(bounds) != 2
        ):
            raise InputError(_KNOB_FORMS, file=self.file, path=where, given=repr(given))
        low, high = (number(v, "1" if scaled else unit, where, self.file) for v in bounds)
        make = log_range if kind == "log" else linear_range
        try:
            return make(path, low, high, relative=scaled, whole=whole)
        except ValueError as error:
            raise InputError(
                str(error).split(", not ")[0], file=self.file, path=where, given=repr(bounds)
            ) from None

    def _stacks(self, path: str, given: dict[str, Any], where: str) -> Joint:
        """Read {stacks: [low, high]}, of a tier that is one stack, with `whole: false` where parts of one will do."""
        if path not in _TIERS:
            raise not_among(_TIERS, path, file=self.file, path=where)
        whole, bounds = given.get("whole", True), given["stacks"]
        if (
            not set(given) <= {"stacks", "whole"}
            or not isinstance(whole, bool)
            or not isinstance(bounds, list)
        ):
            raise InputError(
                "{stacks: [low, high]}, and whole: false", file=self.file, path=where, given=repr(given)
            )
        _, low, high = two_numbers({"log": bounds}, "1", where, self.file)
        self._refuse_several(path, where)
        try:
            return stacks(path, low, high, whole=whole)
        except ValueError as error:
            raise InputError(
                str(error).split(", not ")[0], file=self.file, path=where, given=repr(bounds)
            ) from None

    def _refuse_several(self, path: str, where: str) -> None:
        chosen = [leaf for part in self.parts for leaf in leaves_moved(part) if leaf.path == path]
        tiers = chosen[0].branches[path] if chosen and isinstance(chosen[0], Choice) else None
        stacked = self.tiers[path] if tiers is None else tiers.stacks
        if (np.asarray(stacked) > 1 + _SAME).any():
            raise InputError(
                f"a tier of one stack, as an axis {path}: {{choose: [hbm4]}} makes it",
                file=self.file,
                path=where,
                given=f"{float(np.max(stacked)):g} stacks",
            )

    def _together(self, path: str, given: dict[str, Any], where: str) -> Joint:
        """Read {scale: ..., together: [paths]}: the same factor on other leaves too."""
        others = given["together"]
        if "scale" not in given or not isinstance(others, list) or not others:
            raise InputError(
                "{scale: {log: [low, high]}, together: [other paths]}",
                file=self.file,
                path=where,
                given=repr(given),
            )
        own = {key: value for key, value in given.items() if key != "together"}
        moved = [self._knob(str(one), own, where) for one in (path, *others)]
        if not all(isinstance(one, Range) for one in moved):
            raise InputError("a range, {log: [low, high]}", file=self.file, path=where, given=repr(own))
        return Joint(ranges=tuple(one for one in moved if isinstance(one, Range)), name=path)

    def _conditions(self, given: Any, where: str) -> tuple[Any, tuple[Condition, ...]]:
        """Part the values of an axis from the conditions it stands under."""
        if not isinstance(given, dict) or "when" not in given:
            return given, ()
        rest = {key: value for key, value in given.items() if key != "when"}
        clauses = mapping(given["when"], "a mapping from earlier axes to values", f"{where}.when", self.file)
        return rest, tuple(self._clause(name, want, f"{where}.when") for name, want in clauses.items())

    def _clause(self, name: str, want: Any, where: str) -> Condition:
        name = current_leaf(name)
        known = {"system": "system", "model": "model"} | {
            leaf.path: part.name for part, leaf in self._digit_leaves()
        }
        if name not in known:
            expected = "an axis before this one: " + ", ".join(known)
            raise InputError(
                expected, file=self.file, path=where, given=name, suggestion=nearest(name, known)
            )
        where = f"{where}.{name}"
        if name in self.names:
            return name, self._named(self.names[name], want, where)
        axis = next(leaf for _, leaf in self._digit_leaves() if leaf.path == name)
        if isinstance(axis, Choice):
            return known[name], self._named(axis.names, want, where)
        return known[name], self._valued(axis, want, where)

    def _digit_leaves(self) -> Iterator[tuple[Part, Axis | Choice]]:
        """Yield the axes that conditions may be on, each with the part whose digit is theirs: no sample's."""
        for part in self.parts:
            if isinstance(part, Axis | Choice):
                yield part, part
            elif isinstance(part, Tied):
                yield from ((part, axis) for axis in part.axes)

    def _named(self, names: Sequence[str], want: Any, where: str) -> tuple[int, ...]:
        wanted = want if isinstance(want, list) else [want]
        for name in wanted:
            if name not in names:
                raise not_among(names, str(name), file=self.file, path=where)
        return self._some(tuple(i for i, name in enumerate(names) if name in wanted), want, where)

    def _valued(self, axis: Axis, want: Any, where: str) -> tuple[int, ...]:
        unit = "1" if axis.relative else self.units[axis.path]
        values = np.asarray(axis.values, float)
        if isinstance(want, dict):
            if not want or not set(want) <= {"at_least", "at_most"}:
                expected = "a value, a list of values, {at_least: ...} or {at_most: ...}"
                raise InputError(expected, file=self.file, path=where, given=repr(want))
            bounds = {key: number(bound, unit, where, self.file) for key, bound in want.items()}
            low = bounds.get("at_least", 0.0) * (1 - _SAME)
            high = bounds.get("at_most", np.inf) * (1 + _SAME)
            held = (values >= low) & (values <= high)
            return self._some(tuple(int(i) for i in np.flatnonzero(held)), want, where)
        held = np.zeros(len(values), bool)
        for text in want if isinstance(want, list) else [want]:
            value = number(text, unit, where, self.file)
            same = np.abs(values - value) <= _SAME * abs(value)
            if not same.any():
                shown = [f"{v:g}" for v in values[:12]] + ["..."] * (len(values) > 12)
                raise InputError("one of " + ", ".join(shown), file=self.file, path=where, given=text)
            held |= same
        return self._some(tuple(int(i) for i in np.flatnonzero(held)), want, where)

    def _some(self, digits: tuple[int, ...], want: Any, where: str) -> tuple[int, ...]:
        if not digits:
            raise InputError("what at least one value meets", file=self.file, path=where, given=repr(want))
        return digits
