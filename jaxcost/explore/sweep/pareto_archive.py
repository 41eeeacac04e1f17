"""The Pareto front of a stream of designs, in two to four objectives, exact or to within a factor.

Symbols: d objectives, c a design's costs (objectives, negated where the largest is best), b(c) the box of its costs, s
slots of the archive, n rows. Design x dominates y where both are of one group and

    b(x) <= b(y) in every objective, and b(x) differs from b(y) or (c(x), index x) precedes (c(y), index y).

This is a strict partial order, and the archive keeps the designs that no other dominates, the same in whatever order
designs arrive. With epsilon = 0 a box contains one vector of costs, so this is the exact front, with the lowest index
of equal vectors. With epsilon > 0 boxes are runs of w = floor(2^23 epsilon) - 2 neighbouring float32 numbers, of which
the largest is within a factor 1 + epsilon of the least (Laumanns et al. 2002, with boxes on the bits of the numbers in
position of their logarithms, which different compilations round differently).
"""

import dataclasses
import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import wide
from jaxcost.core.pytree import field, pytree, replace
from jaxcost.explore.sweep.reducer import (
    FEASIBLE,
    NOWHERE,
    Batch,
    BatchSchema,
    Constraint,
    all_of,
    any_of,
    earlier,
    from_ordered_bits,
    groups,
    needed,
    ordered_bits,
    selected,
    ungrouped,
)

__all__ = ["Pareto", "ParetoArchive", "ParetoFront"]

_RECENT = 64  # recent dominators
_UNROLLED = 16  # of them compared in one loop iteration, for batches of at most
_SMALL = 2048
_MIN_EPSILON, _MAX_EPSILON = 1e-6, 1.0
_LEAST_BITS = -0x7F800000
_MAX_GROUPS = 1 << 30
_LOW_LIMIT = 1 << wide.BITS  # low words of wide numbers are below it
_MAX_INT32 = 2**31 - 1


@pytree
class ArchiveEntries:
    """Designs and their costs; an empty slot has NaN for a box, which dominates nothing."""

    cost: jax.Array = field("1", "objectives, negated where the largest is best, [d, n]")
    box: jax.Array = field(
        "1", "least numbers of their boxes, [d, n]; [0, n] with epsilon = 0: the costs themselves"
    )
    group: jax.Array = field("1", "group number, int32 [n]")
    index: jax.Array = field("1", "wide index, int32 [2, n]")
    values: jax.Array = field("1", "all metrics, [m, n]")


@pytree
class RecentDominators:
    """Designs that recently dominated others or entered the archive: a first test that nearly all designs fail."""

    box: jax.Array = field("1", "boxes, [d, recent]")
    cost: jax.Array = field("1", "costs, [d, recent]; [d, 0] with epsilon = 0: the boxes themselves")
    group: jax.Array = field("1", "group number, int32 [recent]")
    index: jax.Array = field("1", "wide index, int32 [2, recent]")
    next: jax.Array = field("1", "slot to be replaced next, int32")


@pytree
class ParetoArchive:
    """The front so far. The result depends on `entries` and `lost` alone."""

    entries: ArchiveEntries = field(doc="designs that no earlier design dominates")
    recent: RecentDominators = field(doc="a few earlier designs, for the first test")
    lost: jax.Array = field("1", "designs that found no empty slot, wide")


@dataclasses.dataclass(frozen=True)
class ParetoFront:
    """Designs that no other dominates, by group, then in lexicographic order of the objectives, best first.

    `groups` are the axis indices of the axes `by`. If `complete`, this is the whole front. Otherwise the archive was
    full at some time: up to `lost` designs of the front are missing, designs that they dominate may be present, and
    which ones depends on the order in which designs arrived.
    """

    index: np.ndarray
    values: np.ndarray
    metrics: tuple[str, ...]
    by: tuple[str, ...]
    groups: np.ndarray
    complete: bool
    lost: int
    epsilon: float


@dataclasses.dataclass(frozen=True)
class Pareto:
    """The Pareto front: designs for which no other is better in one objective and at least as good in the others.

    With epsilon > 0, a subset of them: for every design f that satisfies `where`, a design is kept that in every
    objective has a cost of at most f + epsilon |f|. That is at most (1 + epsilon) times a positive metric that is
    minimised, and at least 1 / (1 + epsilon) of one that is maximised. Costs nearer to 0 than 1.2e-38 count as 0, and
    costs beyond 1.7e38 as infinite.

    Args:
        objectives: two to four metrics, minimised.
        largest: those of them that are maximised.
        size: largest number of designs kept, over all groups.
        epsilon: 0 for the exact front, or from 1e-6 to 1.
        by: names of axes; every combination of their values has its own front.
        where: constraints that designs must satisfy.
    """

    objectives: tuple[str, ...]
    largest: tuple[str, ...] = ()
    size: int = 1024
    epsilon: float = 0.0
    by: tuple[str, ...] = ()
    where: tuple[Constraint, ...] = FEASIBLE

    def __post_init__(self) -> None:
        """Check the objectives, the size and epsilon.

        Raises:
            ValueError: one of them is out of range.
        """
        if not 2 <= len(set(self.objectives)) == len(self.objectives) <= 4:
            raise ValueError(
                f"a front needs two to four different objectives; got {', '.join(self.objectives)}"
            )
        if unknown := set(self.largest) - set(self.objectives):
            raise ValueError(f"largest: {', '.join(sorted(unknown))} is not among the objectives")
        if self.size < 1:
            raise ValueError(f"the size of a front is at least 1; got {self.size}")
        if self.epsilon and not _MIN_EPSILON <= self.epsilon <= _MAX_EPSILON:
            raise ValueError(
                f"epsilon is 0 or from {_MIN_EPSILON:g} to {_MAX_EPSILON:g}; got {self.epsilon:g}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that the reducer reads."""
        return needed(self.objectives, self.where)

    def init(self, schema: BatchSchema, dtype: Any = None) -> ParetoArchive:
        """Return the state without designs.

        Raises:
            ValueError: there are more than 2^30 groups.
        """
        dtype = jnp.result_type(float) if dtype is None else dtype
        if (count := schema.group_count(self.by)) > _MAX_GROUPS:
            raise ValueError(f"at most 2^30 groups are possible; {', '.join(self.by)} have {count:,}")
        d, boxed = len(self.objectives), self.size if self.epsilon else 0
        return ParetoArchive(
            entries=ArchiveEntries(
                cost=jnp.full((d, self.size), jnp.nan, dtype),
                box=jnp.full((d, boxed), jnp.nan, dtype),
                group=jnp.full(self.size, -1, jnp.int32),
                index=jnp.full((2, self.size), NOWHERE, jnp.int32),
                values=jnp.zeros((len(schema.metrics), self.size), dtype),
            ),
            recent=RecentDominators(
                box=jnp.full((d, _RECENT), jnp.nan, dtype),
                cost=jnp.full((d, _RECENT if self.epsilon else 0), jnp.nan, dtype),
                group=jnp.full(_RECENT, -1, jnp.int32),
                index=jnp.full((2, _RECENT), NOWHERE, jnp.int32),
                next=jnp.asarray(0, jnp.int32),
            ),
            lost=jnp.zeros(2, jnp.int32),
        )

    def update(self, schema: BatchSchema, state: ParetoArchive, batch: Batch) -> ParetoArchive:
        """Insert a batch: rows pass a test against recent dominators, the rest are compared one by one with all."""
        cost = jnp.stack(
            [
                batch.values[:, schema.column(name)] * (-1 if name in self.largest else 1)
                for name in self.objectives
            ]
        ).astype(state.entries.cost.dtype)
        rows = ArchiveEntries(
            cost=cost,
            box=self._boxes(cost),
            group=groups(schema, batch, self.by),
            index=batch.index.T,
            values=batch.values.T.astype(state.entries.values.dtype),
        )
        return self._insert(state, rows, selected(schema, batch, self.where, self.objectives))

    def merge(self, schema: BatchSchema, state: ParetoArchive, other: ParetoArchive) -> ParetoArchive:
        """Keep the designs of both states that none of the other dominates."""
        state = replace(state, lost=wide.plus(state.lost, other.lost))
        return self._insert(state, other.entries, other.entries.index[0] != NOWHERE)

    def result(self, schema: BatchSchema, state: ParetoArchive) -> ParetoFront:
        """Return the designs of a state."""
        entries = jax.tree.map(np.asarray, state.entries)
        present = np.flatnonzero(entries.index[0] != NOWHERE)
        index, cost = wide.total(entries.index[:, present].T), entries.cost[:, present]
        order = np.lexsort((index, *cost[::-1], entries.group[present]))
        present = present[order]
        lost = int(wide.total(state.lost))
        return ParetoFront(
            index=index[order],
            values=entries.values[:, present].T,
            metrics=schema.metrics,
            by=self.by,
            groups=ungrouped(schema, entries.group[present].astype(np.int64), self.by),
            complete=lost == 0,
            lost=lost,
            epsilon=self.epsilon,
        )

    def _boxes(self, cost: jax.Array) -> jax.Array:
        """Return the least number of the box of every cost, [0, n] with epsilon = 0."""
        if not self.epsilon:
            return cost[:, :0]
        # The 2 that is subtracted covers the rounding of float64 to float32.
        width = int(self.epsilon * 2**23) - 2
        bits = jnp.maximum(ordered_bits(cost) // width * width, _LEAST_BITS)
        return from_ordered_bits(bits).astype(cost.dtype)

    def _box(self, entries: ArchiveEntries) -> jax.Array:
        return entries.box if self.epsilon else entries.cost

    def _keys(self, entries: ArchiveEntries) -> list[jax.Array]:
        return [*(entries.cost if self.epsilon else ()), entries.index[0], entries.index[1]]

    def _is_dominated_by_recent(self, recent: RecentDominators, rows: ArchiveEntries) -> jax.Array:
        """Return which rows a recent dominator dominates, as far as a cheap test shows, bool [n].

        Its box is below that of the row in some objective and nowhere above; or its costs are nowhere above and it
        precedes all rows of the batch. The second matters as much as the first: many designs of a grid have equal
        costs.
        """
        high = jnp.min(rows.index[0])
        low = jnp.min(jnp.where(rows.index[0] == high, rows.index[1], _LOW_LIMIT))
        before = earlier(list(recent.index), [high, low])
        cost = jnp.where(before[None, :], recent.cost if self.epsilon else recent.box, jnp.nan)
        boxes = self._box(rows)
        # Small batches run on CPUs, where a short unrolled loop keeps its operands in registers.
        unrolled = _UNROLLED if boxes.shape[1] <= _SMALL else _RECENT

        def compare(i: Any, dominated: jax.Array) -> jax.Array:
            part = lambda x: jax.lax.dynamic_slice_in_dim(x, i * unrolled, unrolled, axis=-1)  # noqa: E731
            box, costs, group = part(recent.box), part(cost), part(recent.group)
            for k in range(unrolled):
                below = all_of(a[k] <= b for a, b in zip(box, boxes, strict=True))
                below = below & any_of(a[k] < b for a, b in zip(box, boxes, strict=True))
                below = below | all_of(a[k] <= b for a, b in zip(costs, rows.cost, strict=True))
                dominated = dominated | (below & (group[k] == rows.group) if self.by else below)
            return dominated

        return jax.lax.fori_loop(0, _RECENT // unrolled, compare, rows.group != rows.group)

    def _dominates(self, x: ArchiveEntries, y: ArchiveEntries) -> jax.Array:
        """Return whether x dominates y, bool [n]; one of them is a single design and the other n of them."""
        pairs = list(zip(self._box(x), self._box(y), strict=True))
        within = all_of(a <= b for a, b in pairs)
        within = within & (x.group == y.group) if self.by else within
        return within & (any_of(a < b for a, b in pairs) | earlier(self._keys(x), self._keys(y)))

    def _insert(self, state: ParetoArchive, rows: ArchiveEntries, mask: jax.Array) -> ParetoArchive:
        """Insert rows one at a time, those with the lowest costs first, as they dominate most of the others."""
        bits = [ordered_bits(box) // 4 for box in self._box(rows)]
        score = functools.reduce(operator.add, bits[1:], bits[0])

        def remains(carry: tuple[ParetoArchive, jax.Array]) -> jax.Array:
            return jnp.any(carry[1])

        def insert(carry: tuple[ParetoArchive, jax.Array]) -> tuple[ParetoArchive, jax.Array]:
            state, left = carry
            position = _first(left & (score == jnp.min(jnp.where(left, score, _MAX_INT32))))
            new = _at(rows, position)
            dominators = self._dominates(state.entries, new)
            dominated = jnp.any(dominators)
            known = _at(replace(state.entries, values=new.values[:0]), _first(dominators))
            other = jax.tree.map(
                lambda a, b: jnp.where(dominated, a, b), known, replace(new, values=new.values[:0])
            )
            state = replace(state, recent=self._add_recent(state.recent, other))
            left = left & ~self._dominates(other, rows) & (jnp.arange(left.shape[0]) != position)
            return self._add_entry(state, new, ~dominated), left

        left = mask & ~self._is_dominated_by_recent(state.recent, rows)
        return jax.lax.while_loop(remains, insert, (state, left))[0]

    def _add_recent(self, recent: RecentDominators, other: ArchiveEntries) -> RecentDominators:
        """Note a design that dominated another, or entered the archive."""
        at = recent.next
        return RecentDominators(
            box=recent.box.at[:, at].set(self._box(other)),
            cost=recent.cost.at[:, at].set(other.cost) if self.epsilon else recent.cost,
            group=recent.group.at[at].set(other.group),
            index=recent.index.at[:, at].set(other.index),
            next=(at + 1) % _RECENT,
        )

    def _add_entry(self, state: ParetoArchive, new: ArchiveEntries, enters: jax.Array) -> ParetoArchive:
        """Remove the entries that a new design dominates and store it in an empty slot, if it enters."""
        entries = state.entries
        gone = enters & self._dominates(new, entries)
        free = gone | (entries.index[0] == NOWHERE)
        slot = _first(free)
        fits = enters & jnp.any(free)
        at = jnp.where(fits, slot, self.size)

        def put(old: jax.Array, empty: Any, x: jax.Array) -> jax.Array:
            return jnp.where(jnp.broadcast_to(gone, old.shape), empty, old).at[..., at].set(x, mode="drop")

        return ParetoArchive(
            entries=ArchiveEntries(
                cost=put(entries.cost, jnp.nan, new.cost),
                box=put(entries.box, jnp.nan, new.box) if self.epsilon else entries.box,
                group=put(entries.group, -1, new.group),
                index=put(entries.index, NOWHERE, new.index),
                values=entries.values.at[:, at].set(new.values, mode="drop"),
            ),
            recent=state.recent,
            lost=wide.add(state.lost, (enters & ~fits).astype(jnp.int32)),
        )


def _first(mask: jax.Array) -> jax.Array:
    """Return the position of the first true element, 0 where there is none."""
    n = mask.shape[0]
    return jnp.min(jnp.where(mask, jnp.arange(n, dtype=jnp.int32), n)) % n


def _at(entries: ArchiveEntries, position: jax.Array) -> ArchiveEntries:
    return jax.tree.map(lambda x: x[..., position] if x.size else x, entries)
