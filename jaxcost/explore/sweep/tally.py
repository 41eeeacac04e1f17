"""Counts over a stream of designs: the distribution of a metric, and which constraints fail.

Symbols: n designs in a batch, k bins, c margins. Counts are wide numbers, [..., 2].
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import wide
from jaxcost.core.pytree import field, leaf_fields, pytree
from jaxcost.explore.sweep.reducer import (
    FEASIBLE,
    Batch,
    BatchSchema,
    Constraint,
    needed,
    ordered_bits,
    selected,
)
from jaxcost.report import Margins

__all__ = ["MARGINS", "Distribution", "Feasibility", "FeasibilityCounts", "Histogram"]

MARGINS = tuple(f"margins.{f.name}" for f in leaf_fields(Margins))

# A bin is a run of float32 numbers that agree in sign, exponent and seven bits of the mantissa.
_MANTISSA = 7
_SHIFT = 23 - _MANTISSA
_SPAN = 64
_LOWEST = (127 - _SPAN) << _MANTISSA
_SIDE = ((2 * _SPAN) << _MANTISSA) + 1
_BINS = 2 * _SIDE + 1


@pytree
class DistributionState:
    """Numbers of designs in bins of a metric."""

    counts: jax.Array = field("1", "wide counts, int32 [k, 2]")
    least: jax.Array = field("1", "smallest value, inf without designs")
    most: jax.Array = field("1", "largest value, -inf without designs")


@dataclasses.dataclass(frozen=True)
class Histogram:
    """The distribution of a metric: counts[i] designs lie between edges[i] and edges[i + 1].

    The edge nearer to 0 belongs to its bin. Neighbouring edges differ by a factor of at most 1 + 2^-7, except in the
    bins of magnitudes below 2^-64 and from 2^64 on. Empty bins at both ends are omitted. `least` and `most` are exact,
    NaN without designs.
    """

    metric: str
    count: int
    least: float
    most: float
    edges: np.ndarray
    counts: np.ndarray

    def quantile(self, q: float) -> float:
        """Return the quantile of a share q: the ceil(q count)-th smallest value.

        Exact at both ends. Between them it is the middle of its bin, with an error of at most 2^-8 |x| for
        2^-64 <= |x| < 2^64.

        Raises:
            ValueError: there are no designs, or q is not from 0 to 1.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile needs a share from 0 to 1; got {q:g}")
        if not self.count:
            raise ValueError(f"no quantile of {self.metric}: no design satisfies the constraints")
        rank = min(max(math.ceil(q * self.count), 1), self.count)
        if rank in {1, self.count}:
            return self.least if rank == 1 else self.most
        at = int(np.searchsorted(np.cumsum(self.counts), rank))
        low, high = max(self.edges[at], self.least), min(self.edges[at + 1], self.most)
        return float(low + (high - low) / 2)


@dataclasses.dataclass(frozen=True)
class Distribution:
    """The distribution of a metric over the designs that satisfy `where`, for any range of values.

    Its state takes 256 KiB. With 64-bit floats a design is counted in the bin of the metric rounded to 32 bits.

    Args:
        metric: the metric.
        where: constraints that designs must satisfy.
    """

    metric: str
    where: tuple[Constraint, ...] = FEASIBLE

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that the reducer reads."""
        return needed((self.metric,), self.where)

    def init(self, schema: BatchSchema, dtype: Any = None) -> DistributionState:
        """Return the state without designs."""
        dtype = jnp.result_type(float) if dtype is None else dtype
        return DistributionState(
            counts=jnp.zeros((_BINS, 2), jnp.int32),
            least=jnp.asarray(jnp.inf, dtype),
            most=jnp.asarray(-jnp.inf, dtype),
        )

    def update(self, schema: BatchSchema, state: DistributionState, batch: Batch) -> DistributionState:
        """Count a batch."""
        value = batch.values[:, schema.column(self.metric)].astype(state.least.dtype)
        mask = selected(schema, batch, self.where, (self.metric,))
        ends = jnp.min(jnp.where(mask[None, :], jnp.stack([value, -value]), jnp.inf), axis=1)
        at = _bin(value)
        counts = state.counts.at[at, 1].add(mask.astype(jnp.int32))
        return DistributionState(
            # Rows of one bin all compute its carry, and write equal values.
            counts=counts.at[at].set(wide.add(counts[at], 0)),
            least=jnp.minimum(state.least, ends[0]),
            most=jnp.maximum(state.most, -ends[1]),
        )

    def merge(
        self, schema: BatchSchema, state: DistributionState, other: DistributionState
    ) -> DistributionState:
        """Add the counts of both states."""
        return DistributionState(
            counts=wide.plus(state.counts, other.counts),
            least=jnp.minimum(state.least, other.least),
            most=jnp.maximum(state.most, other.most),
        )

    def result(self, schema: BatchSchema, state: DistributionState) -> Histogram:
        """Return the histogram of a state."""
        counts = wide.total(state.counts)
        filled = np.flatnonzero(counts)
        start, stop = (filled[0], filled[-1] + 1) if len(filled) else (0, 0)
        least, most = (float(x) if len(filled) else math.nan for x in (state.least, state.most))
        return Histogram(
            metric=self.metric,
            count=int(counts.sum()),
            least=least,
            most=most,
            edges=_edges()[start : stop + 1] if len(filled) else np.zeros(0),
            counts=counts[start:stop],
        )


def _bin(value: jax.Array) -> jax.Array:
    bits = ordered_bits(value)
    size = jnp.clip((jnp.abs(bits) >> _SHIFT) - _LOWEST + 1, 0, _SIDE)
    return jnp.where(bits < 0, _SIDE - size, _SIDE + size)


def _edges() -> np.ndarray:
    above = ((np.arange(_SIDE, dtype=np.int32) + _LOWEST) << _SHIFT).view(np.float32).astype(np.float64)
    above = np.append(above, np.inf)
    return np.concatenate([-above[::-1], above])


@pytree
class FeasibilityState:
    """Numbers of designs, wide."""

    total: jax.Array = field("1", "all designs, int32 [2]")
    feasible: jax.Array = field("1", "with no margin below 0, int32 [2]")
    invalid: jax.Array = field("1", "with NaN for a margin, int32 [2]")
    violated: jax.Array = field("1", "with this margin below 0, int32 [c, 2]")
    alone: jax.Array = field("1", "with this margin alone below 0, int32 [c, 2]")


@dataclasses.dataclass(frozen=True)
class FeasibilityCounts:
    """Numbers of designs: all, feasible, and by the constraints that fail.

    `violated[i]` designs have margin i below 0, and `alone[i]` of them no other: relaxing that constraint alone would
    make these feasible. Designs with NaN for a margin are `invalid`, and counted in neither.
    """

    total: int
    feasible: int
    invalid: int
    margins: tuple[str, ...]
    violated: np.ndarray
    alone: np.ndarray


@dataclasses.dataclass(frozen=True)
class Feasibility:
    """Counts feasible designs, and the others by the constraints that fail.

    Args:
        margins: metrics that are at least 0 where a constraint holds; by default all margins of a Report.
    """

    margins: tuple[str, ...] = MARGINS

    def __post_init__(self) -> None:
        """Check the margins.

        Raises:
            ValueError: no margin is given.
        """
        if not self.margins:
            raise ValueError("feasibility needs at least one margin")

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that the reducer reads."""
        return self.margins

    def init(self, schema: BatchSchema, dtype: Any = None) -> FeasibilityState:
        """Return the state without designs."""
        one, each = (jnp.zeros(shape, jnp.int32) for shape in ((2,), (len(self.margins), 2)))
        return FeasibilityState(total=one, feasible=one, invalid=one, violated=each, alone=each)

    def update(self, schema: BatchSchema, state: FeasibilityState, batch: Batch) -> FeasibilityState:
        """Count a batch."""
        margins = _columns(batch.values, [schema.column(name) for name in self.margins])
        number = batch.valid & jnp.all(margins == margins, axis=0)
        failing = number[None, :] & (margins < 0)
        fails = jnp.sum(failing, axis=0, dtype=jnp.int32)
        single = failing & (fails == 1)[None, :]
        totals = jnp.stack([batch.valid, number & (fails == 0), batch.valid & ~number])
        c = len(self.margins)
        counted = _count(jnp.concatenate([failing, single, totals]))
        return FeasibilityState(
            total=wide.add(state.total, counted[2 * c]),
            feasible=wide.add(state.feasible, counted[2 * c + 1]),
            invalid=wide.add(state.invalid, counted[2 * c + 2]),
            violated=wide.add(state.violated, counted[:c]),
            alone=wide.add(state.alone, counted[c : 2 * c]),
        )

    def merge(
        self, schema: BatchSchema, state: FeasibilityState, other: FeasibilityState
    ) -> FeasibilityState:
        """Add the counts of both states."""
        return jax.tree.map(wide.plus, state, other)

    def result(self, schema: BatchSchema, state: FeasibilityState) -> FeasibilityCounts:
        """Return the counts of a state."""
        return FeasibilityCounts(
            total=int(wide.total(state.total)),
            feasible=int(wide.total(state.feasible)),
            invalid=int(wide.total(state.invalid)),
            margins=self.margins,
            violated=wide.total(state.violated),
            alone=wide.total(state.alone),
        )


def _columns(values: jax.Array, columns: list[int]) -> jax.Array:
    """Return some columns of [n, m] as rows [c, n]: a slice where they are adjacent."""
    start, stop = columns[0], columns[-1] + 1
    if columns == list(range(start, stop)):
        return values.T[start:stop]
    return jnp.stack([values[:, column] for column in columns])


def _count(masks: jax.Array) -> jax.Array:
    """Return the number of true elements of each row, int32 [c] of [c, n].

    A product with ones is one XLA operation where a sum is several; it is exact below 2^24.
    """
    n = masks.shape[1]
    if n >= 1 << 24:
        return jnp.sum(masks, axis=1, dtype=jnp.int32)
    ones = jnp.ones(n, jnp.float32)
    return jnp.dot(masks.astype(jnp.float32), ones, precision="highest").astype(jnp.int32)
