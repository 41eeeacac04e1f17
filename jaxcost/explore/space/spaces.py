"""A space of designs: catalogue choices and axes of what varies, a design for every index.

Symbols: axis k has n_k digits; digit -1 says that it is inactive. Conditions cut a space into cases, each a product
grid, laid one after the other: a design's index is the start of its case plus its mixed-radix number within it, the
last axis running fastest. Without conditions there is one case. Indices are Python integers of any size; the device
counts from a `Place` on, in 32 bits.
"""

import bisect
import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcost.core import arrays
from jaxcost.core.pytree import Scalar, field, pytree, replace, replace_at
from jaxcost.evaluation import design_features
from jaxcost.explore.space.axes import (
    MOST_DIGITS,
    Axis,
    Choice,
    Condition,
    Joint,
    Part,
    Range,
    Sample,
    Tied,
    choice,
    compact,
    leaves_moved,
    linear_range,
    log_range,
    sample,
    stack,
    take,
)
from jaxcost.spec.design import Design

__all__ = [
    "MOST_DIGITS",
    "Axis",
    "Case",
    "Choice",
    "Condition",
    "Joint",
    "Part",
    "Place",
    "Range",
    "Sample",
    "Space",
    "Tied",
    "choice",
    "compacted",
    "coordinates",
    "design_at",
    "design_of",
    "digits",
    "digits_at",
    "digits_of",
    "linear_range",
    "log_range",
    "place",
    "sample",
    "space_features",
    "stack",
    "sweep_features",
]

_MOST_CASES = 1 << 16
_WRITTEN_OUT = 1 << 24  # longer axes are a range within a case
_INT64 = 1 << 63
_TRACED = 1 << 31


@dataclasses.dataclass(frozen=True)
class Case:
    """A product grid within a space: designs `start` to `start + size`, and the digits that each axis runs over.

    Digits of an inactive axis are [-1]; an axis of more than 2^24 digits that no condition cuts has a `range`.
    """

    start: int
    size: int
    digits: tuple[np.ndarray | range, ...]


@pytree
class Place:
    """Where the device counts from, within one case; of one shape for all cases, so that one compilation serves."""

    start: np.ndarray = field("1", "int32[K]: digits counted from, of the case's own grid")
    radices: np.ndarray = field("1", "int32[K]: number of digits of each axis in the case")
    shifts: np.ndarray = field("1", "int32[K]: -1 where an axis is inactive, else 0")
    tables: tuple[np.ndarray, ...] = field(doc="int32[n]: digits of the axes that conditions are on")


@pytree
class Space:
    """All combinations of the stacked systems and models with the digits of every axis, where conditions hold."""

    base: Design = field(doc="the design; systems and models have a leading axis of choices")
    axes: tuple[Part, ...] = field(doc="what else varies, in the order in which it is put into a design")
    systems: tuple[str, ...] = field(doc="names of the stacked systems", static=True)
    models: tuple[str, ...] = field(doc="names of the stacked models", static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the digits: "system", "model", and of each axis."""
        return ("system", "model", *(axis.name for axis in self.axes))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of systems, of models, and of digits of each axis."""
        return (len(self.systems), len(self.models), *(axis.size for axis in self.axes))

    @property
    def size(self) -> int:
        """Number of designs."""
        return self.cases[-1].start + self.cases[-1].size

    @functools.cached_property
    def conditions(self) -> tuple[tuple[tuple[int, frozenset[int]], ...], ...]:
        """For each digit, the earlier digits that it depends on, by position, and what they may be.

        Raises:
            ValueError: two axes of one name, or a condition on what is no earlier axis.
        """
        names = self.names
        if len(set(names)) < len(names):
            raise ValueError(f"axes need different names, not {', '.join(names)}")
        out: list[tuple[tuple[int, frozenset[int]], ...]] = [(), ()]
        for position, axis in enumerate(self.axes, 2):
            for name, _ in axis.when:
                if name not in names[:position]:
                    raise ValueError(f"{axis.name} depends on {name!r}, which is no axis before it")
            out.append(tuple((names.index(name), frozenset(allowed)) for name, allowed in axis.when))
        return tuple(out)

    @functools.cached_property
    def guards(self) -> tuple[int, ...]:
        """Positions of the digits that conditions are on."""
        return tuple(sorted({position for clauses in self.conditions for position, _ in clauses}))

    @functools.cached_property
    def cases(self) -> tuple[Case, ...]:
        """The product grids, in the order of their designs.

        Raises:
            ValueError: as `conditions`, an axis of no digits or more than 2^30, or more than 65,536 grids.
        """
        for name, n in zip(self.names, self.shape, strict=True):
            if not 1 <= n <= MOST_DIGITS:
                raise ValueError(f"an axis has 1 to 2^30 digits; {name} has {n:,}")
        cases, start = [], 0
        for grid in _grids(self.shape, self.conditions):
            size = math.prod(len(x) for x in grid)
            cases.append(Case(start=start, size=size, digits=grid))
            start += size
        return tuple(cases)

    def case_at(self, index: int) -> Case:
        """Return the case of an index.

        Raises:
            IndexError: no such design.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"no design {index:,} in a space of {self.size:,}")
        return self.cases[bisect.bisect_right(self.cases, index, key=lambda case: case.start) - 1]


def _grids(
    shape: tuple[int, ...], conditions: tuple[tuple[tuple[int, frozenset[int]], ...], ...]
) -> list[tuple[np.ndarray | range, ...]]:
    """Cut a space into product grids: within each, the digits of an axis are alike to all conditions on it."""
    grids: list[tuple[np.ndarray | range, ...]] = [()]
    for position, n in enumerate(shape):
        longer = []
        for grid in grids:
            holds = lambda j, allowed, grid=grid: int(grid[j][0]) in allowed  # noqa: E731
            if not all(holds(j, allowed) for j, allowed in conditions[position]):
                longer.append((*grid, np.asarray([-1])))
                continue
            whole = range(n) if n > _WRITTEN_OUT else np.arange(n)
            alike = np.zeros(n if n <= _WRITTEN_OUT else 1, np.int64)
            for clauses in conditions[position + 1 :]:
                if all(holds(j, allowed) for j, allowed in clauses if j < position):
                    for allowed in (allowed for j, allowed in clauses if j == position):
                        met = np.isin(np.asarray(whole), list(allowed))
                        alike = np.unique(2 * alike + met, return_inverse=True)[1]
            first = np.sort(np.unique(alike, return_index=True)[1])
            parts = [np.flatnonzero(alike == alike[i]) for i in first] if len(first) > 1 else [whole]
            longer += [(*grid, part) for part in parts]
            if len(longer) > _MOST_CASES:
                raise ValueError(f"conditions cut the space into more than {_MOST_CASES:,} grids")
        grids = longer
    return grids


def digits(index: Scalar | np.ndarray, shape: tuple[int, ...]) -> tuple:
    """Split an index into one digit an axis; works on JAX and NumPy integers alike."""
    out = []
    for n in reversed(shape):
        out.append(index % n)
        index = index // n
    return tuple(reversed(out))


def place(space: Space, index: int) -> tuple[Place, int]:
    """Find where the device counts from, for the designs from an index on.

    Args:
        space: the designs.
        index: of the first, from 0 to `space.size - 1`.

    Returns:
        The place, and how many designs follow in its case, the first included.

    Raises:
        IndexError: no such design.
    """
    case = space.case_at(index)
    radices = tuple(len(x) for x in case.digits)
    tables = []
    for guard in space.guards:
        table = np.zeros(space.shape[guard], np.int32)
        table[: radices[guard]] = case.digits[guard]
        tables.append(table)
    found = Place(
        start=np.asarray(digits(index - case.start, radices), np.int32),
        radices=np.asarray(radices, np.int32),
        shifts=np.asarray([-1 if x[0] < 0 else 0 for x in case.digits], np.int32),
        tables=tuple(tables),
    )
    return found, case.start + case.size - index


def digits_at(space: Space, place: Place, offset: Scalar) -> jax.Array:
    """Return the digits of designs some way on from a place, inside jit: -1 where an axis is inactive.

    Addition in mixed radix, from the last axis up:  t = start_k + q;  d_k = t mod n_k;  q = t div n_k.

    Args:
        space: the designs.
        place: where to count from.
        offset: designs further on, int32 below 2^30 and within the case; a scalar or an array [n].

    Returns:
        int32 [K, *offset].
    """
    carry = jnp.asarray(offset, jnp.int32)
    out = []
    for position, n in reversed(list(enumerate(space.shape))):
        table = position in space.guards
        may_rest = bool(space.conditions[position])
        # A divisor that is known costs a fraction of one that is not.
        total = place.start[position] + carry
        radix = jnp.broadcast_to(place.radices[position] if table or may_rest else np.int32(n), total.shape)
        digit, carry = jax.lax.rem(total, radix), jax.lax.div(total, radix)
        if table:
            digit = take(place.tables[space.guards.index(position)], digit)
        elif may_rest:
            digit = digit + place.shifts[position]
        out.append(digit)
    return arrays.stack(out[::-1])


def design_of(space: Space, digits: jax.Array | Sequence[Any]) -> Design:
    """Build the designs of digits [K, *designs], inside jit; an axis of digit -1 leaves a design as it is.

    A leaf that some axis moves has the shape of the digits, one that none moves is a scalar.
    """
    base = space.base
    design = Design(
        system=take(base.system, digits[0]),
        model=take(base.model, digits[1]),
        traffic=base.traffic,
        plan=base.plan,
        prices=base.prices,
        knobs=base.knobs,
    )
    for axis, digit in zip(space.axes, digits[2:], strict=True):
        if not axis.when:
            design = axis.put(design, digit)
            continue
        changed = axis.put(design, jnp.maximum(digit, 0))
        choose = lambda new, old, active=digit >= 0: old if new is old else jnp.where(active, new, old)  # noqa: E731
        design = jax.tree.map(choose, changed, design)
    return design


def compacted(space: Space) -> Space:
    """Return a space that `design_of` builds the same designs of, with scalars where all choices have one number."""
    shorten = lambda x: replace(x, trees=compact(x.trees)) if isinstance(x, Choice) else x  # noqa: E731
    return replace(
        space,
        base=replace(space.base, system=compact(space.base.system), model=compact(space.base.model)),
        axes=jax.tree.map(shorten, space.axes, is_leaf=lambda x: isinstance(x, Choice)),
    )


def design_at(space: Space, index: Any) -> Design:
    """Build the design of an index.

    Args:
        space: the designs.
        index: a whole number of any size; inside jit also a traced one, below 2^31 and without conditions.

    Raises:
        IndexError: no such design.
        ValueError: a traced index where the space has conditions or 2^31 designs; see `place` and `digits_at`.
    """
    if not isinstance(index, Tracer):
        found, _ = place(space, operator.index(index))
        return design_of(space, digits_at(space, found, 0))
    if len(space.cases) > 1 or space.size > _TRACED:
        raise ValueError(
            "a traced index needs a space of one case below 2^31 designs: use place and digits_at"
        )
    return design_of(space, digits(index, space.shape))


def coordinates(space: Space, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Return what the designs of some indices are: the system, the model, and one column a path of every axis.

    Columns hold the very numbers that the device puts into a design (factors where an axis is relative, NaN where it
    is inactive), and names of choices ("" where inactive).

    Raises:
        IndexError: no such design.
    """
    kind = np.int64 if space.size < _INT64 else object
    index = np.asarray([int(i) for i in indices] if kind is object else indices, kind).reshape(-1)
    if len(index) and not (0 <= index.min() and index.max() < space.size):
        raise IndexError(f"indices from {index.min():,} to {index.max():,} in a space of {space.size:,}")
    found = digits_of(space, index)
    out = {"system": np.asarray(space.systems)[found[0]], "model": np.asarray(space.models)[found[1]]}
    for axis, digit in zip(space.axes, found[2:], strict=True):
        active = digit >= 0
        for path, column in axis.columns(np.maximum(digit, 0)).items():
            missing = "" if column.dtype.kind == "U" else np.asarray(np.nan, column.dtype)
            out[path] = column if active.all() else np.where(active, column, missing)
    return out


def digits_of(space: Space, index: np.ndarray) -> np.ndarray:
    """Return the digits of indices, int64 [axes, n], -1 where an axis is inactive."""
    starts = np.asarray([case.start for case in space.cases], index.dtype)
    which = np.searchsorted(starts, index, side="right") - 1
    order = np.argsort(which, kind="stable")
    out = np.empty((len(space.shape), len(index)), np.int64)
    bounds = np.searchsorted(which[order], np.arange(len(starts) + 1))
    for i in np.unique(which):
        case, rows = space.cases[i], order[bounds[i] : bounds[i + 1]]
        local = digits(index[rows] - case.start, tuple(len(x) for x in case.digits))
        for k, (digit, own) in enumerate(zip(local, case.digits, strict=True)):
            own_digit = digit.astype(np.int64)
            out[k, rows] = own_digit if isinstance(own, range) else own[own_digit]
    return out


def space_features(space: Space) -> tuple[str, ...]:
    """Name what any design of a space has of `design_features`: what none has costs no time in a sweep."""
    design = _any_design(space)
    return design_features(design.system, design.traffic, design.plan)


def sweep_features(space: Space) -> tuple[str, ...]:
    """Return `space_features`, and "exact" where no design of the space is smooth."""
    design = _any_design(space)
    return design_features(design.system, design.traffic, design.plan, design.knobs)


def _any_design(space: Space) -> Design:
    """Return the base design with every value that an axis may give a leaf, as an array."""
    design = jax.tree.map(np.asarray, space.base)
    for part in space.axes:
        for leaf in leaves_moved(part):
            for path, values in _possible(leaf, design).items():
                before = operator.attrgetter(path)(design)
                design = replace_at(design, path, _either(before, values) if part.when else values)
    return design


def _either(before: Any, values: Any) -> Any:
    return jax.tree.map(lambda a, b: np.concatenate([a.ravel(), b.ravel()]), before, values)


def _possible(leaf: Axis | Choice | Range, design: Design) -> dict[str, Any]:
    """Return every value that a part may give to what it moves, of all that the design may hold there before."""
    if isinstance(leaf, Choice):
        return {path: jax.tree.map(np.asarray, branch) for path, branch in leaf.branches.items()}
    values = np.asarray([leaf.low, leaf.high] if isinstance(leaf, Range) else leaf.values)
    if leaf.relative:
        values = np.outer(np.unique(operator.attrgetter(leaf.path)(design)), np.unique(values))
    return {leaf.path: values.ravel()}
