"""A space of designs: stacked systems and models, and axes of what varies. A design for every index.

Symbols: axis k has n_k values, with indices 0 to n_k - 1; the axis index -1 means that the axis is inactive. Conditions
cut a space into subgrids, each a full product grid; a design's index is the start of its subgrid plus its mixed-radix
number within it, the last axis fastest. Without conditions there is one subgrid. Design indices are Python integers of
any size; the device counts from a `Cursor` on, in 32 bits.
"""

import bisect
import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcost.core import arrays
from jaxcost.core.pytree import Scalar, field, pytree, replace, replace_at
from jaxcost.evaluation import design_features
from jaxcost.explore.space.axes import (
    MAX_AXIS_SIZE,
    Axis,
    AxisSpec,
    ChoiceAxis,
    Range,
    compact,
    leaf_axes,
    take,
)
from jaxcost.spec.design import Design

__all__ = [
    "Cursor",
    "Space",
    "Subgrid",
    "axis_indices_at",
    "axis_indices_of",
    "build_designs",
    "compact_space",
    "coordinates",
    "cursor_at",
    "design_at",
    "space_features",
    "sweep_features",
    "unravel_index",
]

_MAX_SUBGRIDS = 1 << 16
_MAX_ARRAY = 1 << 24  # a subgrid holds the indices of a longer axis as a range
_INT64 = 1 << 63
_MAX_TRACED = 1 << 31

_Conditions: TypeAlias = tuple[tuple[tuple[int, frozenset[int]], ...], ...]


@dataclasses.dataclass(frozen=True)
class Subgrid:
    """A product grid within a space: the designs `start` to `start + size`, and the indices that each axis takes.

    An inactive axis has the index -1 alone. The indices of an axis of more than 2^24 values are a `range`.
    """

    start: int
    size: int
    axis_indices: tuple[np.ndarray | range, ...]


@pytree
class Cursor:
    """A design of a subgrid, from which the device counts; of equal shape for all subgrids, to compile once."""

    start: np.ndarray = field("1", "int32[K]: position of the design along each axis of the subgrid")
    radices: np.ndarray = field("1", "int32[K]: number of indices of each axis in the subgrid")
    shifts: np.ndarray = field("1", "int32[K]: -1 where an axis is inactive, else 0")
    tables: tuple[np.ndarray, ...] = field(doc="int32[n]: indices in the subgrid of each of `condition_axes`")


@pytree
class Space:
    """All combinations of the stacked systems and models with the values of every axis, where conditions hold."""

    base: Design = field(doc="the design; systems and models are stacked along a leading axis")
    axes: tuple[AxisSpec, ...] = field(doc="what else varies, in the order in which it changes a design")
    systems: tuple[str, ...] = field(doc="names of the stacked systems", static=True)
    models: tuple[str, ...] = field(doc="names of the stacked models", static=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes, K of them: "system", "model", and those of `axes`."""
        return ("system", "model", *(axis.name for axis in self.axes))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of systems, of models, and of values of each of `axes`."""
        return (len(self.systems), len(self.models), *(axis.size for axis in self.axes))

    @property
    def size(self) -> int:
        """Number of designs."""
        return self.subgrids[-1].start + self.subgrids[-1].size

    @functools.cached_property
    def conditions(self) -> _Conditions:
        """For each axis, the positions of the earlier axes that it depends on, and the indices they may have.

        Raises:
            ValueError: two axes have the same name, or a condition names no earlier axis.
        """
        names = self.names
        if len(set(names)) < len(names):
            raise ValueError(f"axes need different names; got {', '.join(names)}")
        out: list[tuple[tuple[int, frozenset[int]], ...]] = [(), ()]
        for position, axis in enumerate(self.axes, 2):
            for name, _ in axis.when:
                if name not in names[:position]:
                    raise ValueError(f"{axis.name} depends on {name!r}, which is no axis before it")
            out.append(tuple((names.index(name), frozenset(allowed)) for name, allowed in axis.when))
        return tuple(out)

    @functools.cached_property
    def condition_axes(self) -> tuple[int, ...]:
        """Positions of the axes that conditions are on."""
        return tuple(sorted({position for clauses in self.conditions for position, _ in clauses}))

    @functools.cached_property
    def subgrids(self) -> tuple[Subgrid, ...]:
        """The product grids that conditions cut the space into, in the order of their designs.

        Raises:
            ValueError: as `conditions`, an axis without values or with more than 2^30, or more than 65,536 subgrids.
        """
        for name, n in zip(self.names, self.shape, strict=True):
            if not 1 <= n <= MAX_AXIS_SIZE:
                raise ValueError(f"an axis has 1 to 2^30 values; {name} has {n:,}")
        subgrids, start = [], 0
        for grid in _grids(self.shape, self.conditions):
            size = math.prod(len(x) for x in grid)
            subgrids.append(Subgrid(start=start, size=size, axis_indices=grid))
            start += size
        return tuple(subgrids)

    def subgrid_at(self, index: int) -> Subgrid:
        """Return the subgrid of a design.

        Raises:
            IndexError: no such design.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"no design {index:,} in a space of {self.size:,}")
        return self.subgrids[bisect.bisect_right(self.subgrids, index, key=lambda grid: grid.start) - 1]


def _grids(shape: tuple[int, ...], conditions: _Conditions) -> list[tuple[np.ndarray | range, ...]]:
    """Cut a space into product grids, each of axis indices on which every condition has the same answer."""
    grids: list[tuple[np.ndarray | range, ...]] = [()]
    for position, n in enumerate(shape):
        longer = []
        for grid in grids:
            holds = lambda j, allowed, grid=grid: int(grid[j][0]) in allowed  # noqa: E731
            if not all(holds(j, allowed) for j, allowed in conditions[position]):
                longer.append((*grid, np.asarray([-1])))
                continue
            indices = range(n) if n > _MAX_ARRAY else np.arange(n)
            label = np.zeros(n if n <= _MAX_ARRAY else 1, np.int64)
            for clauses in conditions[position + 1 :]:
                if all(holds(j, allowed) for j, allowed in clauses if j < position):
                    for allowed in (allowed for j, allowed in clauses if j == position):
                        met = np.isin(np.asarray(indices), list(allowed))
                        label = np.unique(2 * label + met, return_inverse=True)[1]
            first = np.sort(np.unique(label, return_index=True)[1])
            parts = [np.flatnonzero(label == label[i]) for i in first] if len(first) > 1 else [indices]
            longer += [(*grid, part) for part in parts]
            if len(longer) > _MAX_SUBGRIDS:
                raise ValueError(f"conditions cut the space into more than {_MAX_SUBGRIDS:,} subgrids")
        grids = longer
    return grids


def unravel_index(index: Scalar | np.ndarray, shape: tuple[int, ...]) -> tuple:
    """Split an index into one index for each axis, the last fastest: JAX, NumPy or Python integers of any size."""
    out = []
    for n in reversed(shape):
        out.append(index % n)
        index = index // n
    return tuple(reversed(out))


def cursor_at(space: Space, index: int) -> tuple[Cursor, int]:
    """Return the cursor of a design, from which the device counts.

    Args:
        space: the designs.
        index: index of the design, from 0 to `space.size - 1`.

    Returns:
        The cursor, and the number of designs from it to the end of its subgrid, itself included.

    Raises:
        IndexError: no such design.
    """
    subgrid = space.subgrid_at(index)
    radices = tuple(len(x) for x in subgrid.axis_indices)
    tables = []
    for position in space.condition_axes:
        table = np.zeros(space.shape[position], np.int32)
        table[: radices[position]] = subgrid.axis_indices[position]
        tables.append(table)
    cursor = Cursor(
        start=np.asarray(unravel_index(index - subgrid.start, radices), np.int32),
        radices=np.asarray(radices, np.int32),
        shifts=np.asarray([-1 if x[0] < 0 else 0 for x in subgrid.axis_indices], np.int32),
        tables=tuple(tables),
    )
    return cursor, subgrid.start + subgrid.size - index


def axis_indices_at(space: Space, cursor: Cursor, offset: Scalar) -> jax.Array:
    """Return the axis indices of the designs `offset` after a cursor, inside jit: -1 where an axis is inactive.

    Addition in mixed radix, from the last axis to the first:  t = start_k + q;  i_k = t mod n_k;  q = t div n_k.

    Args:
        space: the designs.
        cursor: where to count from.
        offset: number of designs after the cursor, int32 below 2^30 and within its subgrid; a scalar or an array [n].

    Returns:
        int32 [K, *offset].
    """
    carry = jnp.asarray(offset, jnp.int32)
    out = []
    for position, n in reversed(list(enumerate(space.shape))):
        has_table = position in space.condition_axes
        is_conditional = bool(space.conditions[position])
        # Division by a constant takes a fraction of the time of division by a traced number.
        total = cursor.start[position] + carry
        radix = cursor.radices[position] if has_table or is_conditional else np.int32(n)
        radix = jnp.broadcast_to(radix, total.shape)
        index, carry = jax.lax.rem(total, radix), jax.lax.div(total, radix)
        if has_table:
            index = take(cursor.tables[space.condition_axes.index(position)], index)
        elif is_conditional:
            index = index + cursor.shifts[position]
        out.append(index)
    return arrays.stack(out[::-1])


def build_designs(space: Space, axis_indices: jax.Array | Sequence[Any]) -> Design:
    """Build the designs of axis indices [K, *designs], inside jit; an axis of index -1 leaves a design unchanged.

    Leaves that some axis changes have the shape of the indices; the others are scalars.
    """
    base = space.base
    design = Design(
        system=take(base.system, axis_indices[0]),
        model=take(base.model, axis_indices[1]),
        traffic=base.traffic,
        plan=base.plan,
        prices=base.prices,
        knobs=base.knobs,
    )
    for axis, index in zip(space.axes, axis_indices[2:], strict=True):
        if not axis.when:
            design = axis.put(design, index)
            continue
        changed = axis.put(design, jnp.maximum(index, 0))
        choose = lambda new, old, active=index >= 0: old if new is old else jnp.where(active, new, old)  # noqa: E731
        design = jax.tree.map(choose, changed, design)
    return design


def compact_space(space: Space) -> Space:
    """Return an equivalent space for `build_designs` in which numbers that all alternatives share become scalars."""
    shorten = lambda x: replace(x, trees=compact(x.trees)) if isinstance(x, ChoiceAxis) else x  # noqa: E731
    return replace(
        space,
        base=replace(space.base, system=compact(space.base.system), model=compact(space.base.model)),
        axes=jax.tree.map(shorten, space.axes, is_leaf=lambda x: isinstance(x, ChoiceAxis)),
    )


def design_at(space: Space, index: Any) -> Design:
    """Build the design of an index.

    Args:
        space: the designs.
        index: an integer of any size; inside jit also a traced one, below 2^31 and in a space without conditions.

    Raises:
        IndexError: no such design.
        ValueError: a traced index where the space has conditions or 2^31 designs.
    """
    if not isinstance(index, Tracer):
        cursor, _ = cursor_at(space, operator.index(index))
        return build_designs(space, axis_indices_at(space, cursor, 0))
    if len(space.subgrids) > 1 or space.size > _MAX_TRACED:
        raise ValueError("a traced index needs a space without conditions and of at most 2^31 designs")
    return build_designs(space, unravel_index(index, space.shape))


def coordinates(space: Space, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Return the coordinates of designs: the system, the model, and one column for each path that an axis changes.

    Numbers are exactly those that the device puts into a design: factors where an axis is relative, NaN where it is
    inactive. Alternatives are given by name, "" where inactive.

    Raises:
        IndexError: no such design.
    """
    kind = np.int64 if space.size < _INT64 else object
    index = np.asarray([int(i) for i in indices] if kind is object else indices, kind).reshape(-1)
    if len(index) and not (0 <= index.min() and index.max() < space.size):
        raise IndexError(f"indices from {index.min():,} to {index.max():,} in a space of {space.size:,}")
    by_axis = axis_indices_of(space, index)
    out = {"system": np.asarray(space.systems)[by_axis[0]], "model": np.asarray(space.models)[by_axis[1]]}
    for axis, axis_index in zip(space.axes, by_axis[2:], strict=True):
        active = axis_index >= 0
        for path, column in axis.columns(np.maximum(axis_index, 0)).items():
            missing = "" if column.dtype.kind == "U" else np.asarray(np.nan, column.dtype)
            out[path] = column if active.all() else np.where(active, column, missing)
    return out


def axis_indices_of(space: Space, index: np.ndarray) -> np.ndarray:
    """Return the axis indices of designs, int64 [K, n], -1 where an axis is inactive."""
    starts = np.asarray([subgrid.start for subgrid in space.subgrids], index.dtype)
    which = np.searchsorted(starts, index, side="right") - 1
    order = np.argsort(which, kind="stable")
    out = np.empty((len(space.shape), len(index)), np.int64)
    bounds = np.searchsorted(which[order], np.arange(len(starts) + 1))
    for i in np.unique(which):
        subgrid, rows = space.subgrids[i], order[bounds[i] : bounds[i + 1]]
        positions = unravel_index(index[rows] - subgrid.start, tuple(len(x) for x in subgrid.axis_indices))
        for k, (position, choices) in enumerate(zip(positions, subgrid.axis_indices, strict=True)):
            at = position.astype(np.int64)
            out[k, rows] = at if isinstance(choices, range) else choices[at]
    return out


def space_features(space: Space) -> tuple[str, ...]:
    """Return the `design_features` that any design of a space has; the code of all others is not traced."""
    design = _all_values(space)
    return design_features(design.system, design.traffic, design.plan)


def sweep_features(space: Space) -> tuple[str, ...]:
    """Return `space_features`, and "exact" where every design of the space has a softness of 0."""
    design = _all_values(space)
    return design_features(design.system, design.traffic, design.plan, design.knobs)


def _all_values(space: Space) -> Design:
    """Return the base design with an array of every value that a leaf may have in the space."""
    design = jax.tree.map(np.asarray, space.base)
    for axis in space.axes:
        for leaf in leaf_axes(axis):
            for path, values in _possible_values(leaf, design).items():
                before = operator.attrgetter(path)(design)
                design = replace_at(design, path, _concatenate(before, values) if axis.when else values)
    return design


def _concatenate(before: Any, values: Any) -> Any:
    return jax.tree.map(lambda a, b: np.concatenate([a.ravel(), b.ravel()]), before, values)


def _possible_values(axis: Axis | ChoiceAxis | Range, design: Design) -> dict[str, Any]:
    """Return every value that an axis may set, by path, given all values that the design may have before."""
    if isinstance(axis, ChoiceAxis):
        return {path: jax.tree.map(np.asarray, branch) for path, branch in axis.branches.items()}
    values = np.asarray([axis.low, axis.high] if isinstance(axis, Range) else axis.values)
    if axis.relative:
        values = np.outer(np.unique(operator.attrgetter(axis.path)(design)), np.unique(values))
    return {axis.path: values.ravel()}
