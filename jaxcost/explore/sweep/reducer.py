"""The interface of a reducer, and what reducers share.

A sweep of billions of designs stores nothing about a design except what reducers keep. They take batches on the device,
are merged across devices and processes, and are read on the host at the end. All of them obey one law: the result is a
function of the set of (index, values) alone. Any order and size of batches, any split over devices and any tree of
merges give the same bits, as long as every design is passed once: ties go to the lowest index, counts are integers, and
no floating-point sum is taken.

Symbols: n designs in a batch, m metrics, a axes; a design's index is a wide number (`jaxcost.core.wide`).
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import field, pytree

T = TypeVar("T")

__all__ = [
    "FEASIBLE",
    "NOWHERE",
    "Batch",
    "BatchSchema",
    "Constraint",
    "Reducer",
    "all_of",
    "any_of",
    "earlier",
    "first",
    "from_ordered_bits",
    "groups",
    "needed",
    "ordered_bits",
    "selected",
    "slice_length",
    "ungrouped",
    "when",
]

NOWHERE = np.int32(2**31 - 1)


@pytree
class Batch:
    """Designs and their metrics. Rows that are not valid are padding, which no reducer counts.

    Reducers read one metric at a time, so `values` is best the transpose of an array [m, n].
    """

    values: jax.Array = field("1", "metrics, float [n, m], each in its own unit")
    index: jax.Array = field("1", "design index, wide int32 [n, 2]")
    axis_indices: jax.Array = field("1", "axis indices, int32 [n, a], -1 where an axis is inactive")
    valid: jax.Array = field("1", "bool [n]: whether the row is a design")


@dataclasses.dataclass(frozen=True)
class BatchSchema:
    """The columns of a batch: names of the metrics, names and full sizes of the axes."""

    metrics: tuple[str, ...]
    axes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    def column(self, metric: str) -> int:
        """Return the column of a metric in `values`.

        Raises:
            ValueError: no such metric.
        """
        if metric not in self.metrics:
            raise ValueError(f"no metric {metric!r} in this sweep; expected one of {', '.join(self.metrics)}")
        return self.metrics.index(metric)

    def axis(self, name: str) -> int:
        """Return the column of an axis in `axis_indices`.

        Raises:
            ValueError: no such axis.
        """
        if name not in self.axes:
            raise ValueError(f"no axis {name!r} in this sweep; expected one of {', '.join(self.axes)}")
        return self.axes.index(name)

    def group_count(self, by: Sequence[str]) -> int:
        """Return the number of combinations of indices of some axes, with -1 for an inactive axis."""
        return math.prod(self.shape[self.axis(name)] + 1 for name in by)


@dataclasses.dataclass(frozen=True)
class Constraint:
    """Bounds on a metric: low <= metric <= high. NaN violates every bound."""

    metric: str
    low: float = -float("inf")
    high: float = float("inf")


FEASIBLE = (Constraint("margins.worst", low=0.0),)


class Reducer(Protocol):
    """What a sweep keeps: a frozen, hashable dataclass, which is a static argument of jit.

    A state is a tree of arrays of fixed shape. `update` and `merge` are traced; `result` runs on the host.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that the reducer reads, including those of its constraints."""
        ...

    def init(self, schema: BatchSchema, dtype: Any = None) -> Any:
        """Return the state of an empty set of designs; floats of `dtype`, or of JAX's default."""
        ...

    def update(self, schema: BatchSchema, state: Any, batch: Batch) -> Any:
        """Return the state with the designs of a batch added."""
        ...

    def merge(self, schema: BatchSchema, state: Any, other: Any) -> Any:
        """Return the state of the union of two disjoint sets of designs."""
        ...

    def result(self, schema: BatchSchema, state: Any) -> Any:
        """Return what was kept: a frozen dataclass of NumPy arrays and Python numbers."""
        ...


def needed(metrics: Sequence[str], where: Sequence[Constraint]) -> tuple[str, ...]:
    """Return the metrics and those of constraints, each once, in order."""
    return tuple(dict.fromkeys((*metrics, *(c.metric for c in where))))


def selected(
    schema: BatchSchema, batch: Batch, where: Sequence[Constraint], metrics: Sequence[str]
) -> jax.Array:
    """Return which rows are designs that satisfy all constraints and have no NaN in `metrics`, bool [n]."""
    mask = batch.valid
    for constraint in where:
        value = batch.values[:, schema.column(constraint.metric)]
        mask = mask & (value >= constraint.low) & (value <= constraint.high)
    for metric in metrics:
        value = batch.values[:, schema.column(metric)]
        mask = mask & (value == value)
    return mask


def groups(schema: BatchSchema, batch: Batch, by: Sequence[str]) -> jax.Array:
    """Return the group number of every row, int32 [n]: mixed radix of axis index + 1, as -1 is a value too."""
    group = jnp.zeros_like(batch.index[:, 0])
    for name in by:
        axis = schema.axis(name)
        group = group * (schema.shape[axis] + 1) + batch.axis_indices[:, axis] + 1
    return group


def ungrouped(schema: BatchSchema, group: np.ndarray, by: Sequence[str]) -> np.ndarray:
    """Return the axis indices of groups, [g, len(by)], -1 where an axis is inactive; on the host."""
    sizes = [schema.shape[schema.axis(name)] + 1 for name in by]
    out = np.zeros((len(group), len(by)), np.int64)
    for column in reversed(range(len(by))):
        out[:, column] = group % sizes[column] - 1
        group = group // sizes[column]
    return out


def earlier(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """Return whether a precedes b in lexicographic order of their keys, bool. Broadcasts."""
    out = a[-1] < b[-1]
    for x, y in reversed(list(zip(a[:-1], b[:-1], strict=True))):
        out = (x < y) | ((x == y) & out)
    return out


def ordered_bits(x: jax.Array) -> jax.Array:
    """Map floats to int32 of equal order, odd in x; float64 is rounded to float32 first."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, -(bits & NOWHERE), bits)


def from_ordered_bits(bits: jax.Array) -> jax.Array:
    """Map `ordered_bits` back to float32."""
    return jax.lax.bitcast_convert_type(jnp.where(bits < 0, -bits | ~NOWHERE, bits), jnp.float32)


def slice_length(n: int) -> int:
    """Return how many of n rows are inserted at a time, where few of them are expected to be."""
    return min(n, max(16, n // 64))


def first(mask: jax.Array, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Find the first `length` true entries of a mask [n].

    Returns:
        Positions, int32 [length]; which of them exist, bool [length]; the mask without them.
    """
    count = jnp.cumsum(mask, dtype=jnp.int32)
    order = jnp.arange(mask.shape[0], dtype=jnp.int32)
    position = jnp.zeros(length, jnp.int32).at[jnp.where(mask, count - 1, length)].set(order, mode="drop")
    return position, jnp.arange(1, length + 1, dtype=jnp.int32) <= count[-1], mask & (count > length)


def when(condition: jax.Array, function: Callable[[T], T], state: T) -> T:
    """Apply a function to a state only if a scalar condition holds.

    This is a loop of at most one iteration: unlike `lax.cond`, it updates the state in place instead of copying it.
    """
    once = lambda c: (c[0] & jnp.logical_not(c[0]), function(c[1]))  # noqa: E731
    return jax.lax.while_loop(lambda c: c[0], once, (condition, state))[1]


any_of = functools.partial(functools.reduce, operator.or_)
all_of = functools.partial(functools.reduce, operator.and_)
