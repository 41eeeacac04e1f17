"""What a streamed sweep hands to a reducer, and what a reducer is.

A sweep of billions of designs keeps nothing of a design but what reducers keep. They are fed batches on the
device, merged across devices and processes, and read on the host at the end. One law holds for all of them: the
result is a function of the set of (index, values) alone. Any order of batches, any size of them, any split over
devices and any tree of merges gives the same bits, as long as every design is given once; ties go to the lowest
index, counts are whole numbers, and no floating-point sum is taken.

Symbols: n designs in a batch, m metrics, a axes; a design's index is a wide number (`jaxcost.core.wide`).
"""

import dataclasses
import functools
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
    "Constraint",
    "Layout",
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
    """Designs and what they came to. Rows that are not valid are padding and count nowhere.

    Metrics are read one at a time: `values` is best the transpose of an array [m, n].
    """

    values: jax.Array = field("1", "metrics, float [n, m], each in its own unit")
    index: jax.Array = field("1", "index of every design, wide int32 [n, 2]")
    digits: jax.Array = field("1", "place of every design on every axis, int32 [n, a], -1 where inactive")
    valid: jax.Array = field("1", "bool [n]: whether the row is a design")


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the columns of a batch are: names of the metrics, names and full sizes of the axes."""

    metrics: tuple[str, ...]
    axes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    def column(self, metric: str) -> int:
        """Column of a metric in `values`.

        Raises:
            ValueError: there is none of that name.
        """
        if metric not in self.metrics:
            raise ValueError(f"no metric {metric!r} in this sweep; there are {', '.join(self.metrics)}")
        return self.metrics.index(metric)

    def axis(self, name: str) -> int:
        """Column of an axis in `digits`.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.axes:
            raise ValueError(f"no axis {name!r} in this sweep; there are {', '.join(self.axes)}")
        return self.axes.index(name)


@dataclasses.dataclass(frozen=True)
class Constraint:
    """Bounds on a metric: low <= metric <= high. NaN satisfies none."""

    metric: str
    low: float = -float("inf")
    high: float = float("inf")


FEASIBLE = (Constraint("margins.worst", low=0.0),)


class Reducer(Protocol):
    """What is kept of a sweep: a frozen, hashable dataclass, so a static argument of jit.

    A state is a tree of arrays of fixed shape. `update` and `merge` are traced; `result` is of the host.
    """

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that it reads, those of its constraints included."""
        ...

    def init(self, layout: Layout, dtype: Any = None) -> Any:
        """State of no design at all; floats of `dtype`, or of JAX's default."""
        ...

    def update(self, layout: Layout, state: Any, batch: Batch) -> Any:
        """State with the designs of a batch taken in."""
        ...

    def merge(self, layout: Layout, state: Any, other: Any) -> Any:
        """State of the designs of both, which have none in common."""
        ...

    def result(self, layout: Layout, state: Any) -> Any:
        """What has been kept: a frozen dataclass of NumPy arrays and Python numbers."""
        ...


def needed(metrics: Sequence[str], where: Sequence[Constraint]) -> tuple[str, ...]:
    """Metrics and those of constraints, each once, in order."""
    return tuple(dict.fromkeys((*metrics, *(c.metric for c in where))))


def selected(layout: Layout, batch: Batch, where: Sequence[Constraint], metrics: Sequence[str]) -> jax.Array:
    """Which rows are designs that satisfy all constraints and have a number in each of `metrics`, bool [n]."""
    chosen = batch.valid
    for constraint in where:
        value = batch.values[:, layout.column(constraint.metric)]
        chosen = chosen & (value >= constraint.low) & (value <= constraint.high)
    for metric in metrics:
        value = batch.values[:, layout.column(metric)]
        chosen = chosen & (value == value)
    return chosen


def groups(layout: Layout, batch: Batch, by: Sequence[str]) -> jax.Array:
    """Number of every row's group, int32 [n]: mixed radix over digit + 1, so that inactive is a group too."""
    group = jnp.zeros_like(batch.index[:, 0])
    for name in by:
        axis = layout.axis(name)
        group = group * (layout.shape[axis] + 1) + batch.digits[:, axis] + 1
    return group


def ungrouped(layout: Layout, group: np.ndarray, by: Sequence[str]) -> np.ndarray:
    """Digits of groups, [g, len(by)], -1 where the axis is inactive; on the host."""
    sizes = [layout.shape[layout.axis(name)] + 1 for name in by]
    out = np.zeros((len(group), len(by)), np.int64)
    for column in reversed(range(len(by))):
        out[:, column] = group % sizes[column] - 1
        group = group // sizes[column]
    return out


def earlier(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """Whether a comes before b, bool: by the first of the keys in which they differ. Broadcasts."""
    out = a[-1] < b[-1]
    for x, y in reversed(list(zip(a[:-1], b[:-1], strict=True))):
        out = (x < y) | ((x == y) & out)
    return out


def ordered_bits(x: jax.Array) -> jax.Array:
    """Map floats to int32 of the same order, -x to minus that of x; float64 is rounded to float32 first."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    return jnp.where(bits < 0, -(bits & NOWHERE), bits)


def from_ordered_bits(bits: jax.Array) -> jax.Array:
    """Map `ordered_bits` back to float32."""
    return jax.lax.bitcast_convert_type(jnp.where(bits < 0, -bits | ~NOWHERE, bits), jnp.float32)


def slice_length(n: int) -> int:
    """How many of n rows are taken in at a time, where few of many are."""
    return min(n, max(16, n // 64))


def first(mask: jax.Array, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Find the first `length` true entries of a mask [n].

    Returns:
        Positions, int32 [length]; which of them are there, bool [length]; the mask without them.
    """
    count = jnp.cumsum(mask, dtype=jnp.int32)
    order = jnp.arange(mask.shape[0], dtype=jnp.int32)
    position = jnp.zeros(length, jnp.int32).at[jnp.where(mask, count - 1, length)].set(order, mode="drop")
    return position, jnp.arange(1, length + 1, dtype=jnp.int32) <= count[-1], mask & (count > length)


def when(condition: jax.Array, function: Callable[[T], T], state: T) -> T:
    """Apply a function to a state only if a scalar holds.

    A loop of at most one turn: unlike a branch, it changes the state in place instead of copying it.
    """
    once = lambda c: (c[0] & jnp.logical_not(c[0]), function(c[1]))  # noqa: E731
    return jax.lax.while_loop(lambda c: c[0], once, (condition, state))[1]


any_of = functools.partial(functools.reduce, operator.or_)
all_of = functools.partial(functools.reduce, operator.and_)
