"""The Pareto front of a stream of designs, in two to four objectives, exact or to within a factor.

Symbols: d objectives, c a design's costs (objectives, negated where the largest is sought), b(c) its box, s the
places of the archive, n rows. Design x removes y where both are of one group and

    b(x) <= b(y) in every objective, and b(x) differs from b(y) or (c(x), index x) comes before (c(y), index y).

That is a strict partial order, and what is kept are the designs that no other removes: the same whatever the
order in which they come. With epsilon = 0 a box holds one vector of costs, so this is the exact front, of equal
vectors the lowest index. With epsilon > 0 boxes are runs of w = floor(2^23 epsilon) - 2 neighbouring float32
numbers, of which the largest is within a factor 1 + epsilon of the least (Laumanns et al. 2002, with boxes on the
bits of the numbers in place of their logarithms, which no two compilations round alike).
"""

import dataclasses
import functools
import math
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
    Constraint,
    Layout,
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

__all__ = ["Archive", "Front", "Pareto"]

_GUARDS = 64
_UNROLLED = 16
_SMALL = 2048
_LEAST_EPSILON, _MOST_EPSILON = 1e-6, 1.0
_LEAST_BITS = -0x7F800000
_AWAY = 1 << 30
_MOST = 2**31 - 1


@pytree
class Points:
    """Designs with what decides among them; an empty place has NaN for a box, which removes nothing."""

    cost: jax.Array = field("1", "objectives, negated where the largest is sought, [d, n]")
    box: jax.Array = field(
        "1", "least numbers of their boxes, [d, n]; none where epsilon is 0: the costs themselves"
    )
    group: jax.Array = field("1", "number of the group, int32 [n]")
    index: jax.Array = field("1", "wide index, int32 [2, n]")
    values: jax.Array = field("1", "all metrics, [m, n]")


@pytree
class Guards:
    """Boxes of designs that have removed many of late: a first test that nearly all designs fail."""

    box: jax.Array = field("1", "boxes, [d, guards]")
    cost: jax.Array = field("1", "costs, [d, guards]; none where epsilon is 0: the box itself")
    group: jax.Array = field("1", "group, int32 [guards]")
    index: jax.Array = field("1", "wide index, int32 [2, guards]")
    next: jax.Array = field("1", "the one to be replaced next, int32")


@pytree
class Archive:
    """The front so far. Beside `points`, nothing bears on the result but `lost`."""

    points: Points = field(doc="designs that none seen so far removes")
    guards: Guards = field(doc="a few of those seen, to test against first")
    lost: jax.Array = field("1", "designs left out for want of room, wide")


@dataclasses.dataclass(frozen=True)
class Front:
    """Designs that no other removes, by group, then by the objectives in turn, best first.

    `groups` are the digits on the axes `by`. With `complete`, this is all of the front. Otherwise the archive was
    full at some time: at most `lost` designs of the front are missing, in their stead may stand some that they
    dominate, and which ones depends on the order in which designs came.
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
    """The designs that no other betters in one objective without being worse in another.

    With epsilon > 0, some of them: for every design f that satisfies `where` one is kept that in every objective
    has a cost of at most f + epsilon |f|, so at most (1 + epsilon) times a positive metric that is minimised, and
    at least 1 / (1 + epsilon) of one that is maximised; costs nearer to 0 than 1.2e-38 count as 0 there, and
    beyond 1.7e38 as infinite.

    Args:
        objectives: two to four metrics, minimised.
        largest: which of them are maximised.
        size: most designs kept, of all groups together.
        epsilon: 0 for the exact front, or from 1e-6 to 1.
        by: names of axes; every combination of their digits has a front of its own.
        where: constraints that they satisfy.
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
                f"a front has two to four different objectives, not {', '.join(self.objectives)}"
            )
        if unknown := set(self.largest) - set(self.objectives):
            raise ValueError(f"{', '.join(sorted(unknown))} is to be maximised but is no objective")
        if self.size < 1:
            raise ValueError(f"a front of at most {self.size} designs is none; a size is at least 1")
        if self.epsilon and not _LEAST_EPSILON <= self.epsilon <= _MOST_EPSILON:
            raise ValueError(
                f"epsilon is 0 or from {_LEAST_EPSILON:g} to {_MOST_EPSILON:g}, not {self.epsilon:g}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that it reads."""
        return needed(self.objectives, self.where)

    def init(self, layout: Layout, dtype: Any = None) -> Archive:
        """No design at all.

        Raises:
            ValueError: there are more groups than a 32-bit number counts.
        """
        dtype = jnp.result_type(float) if dtype is None else dtype
        if math.prod(layout.shape[layout.axis(name)] + 1 for name in self.by) > _AWAY:
            raise ValueError(f"{', '.join(self.by)} make more than 2^30 groups")
        d, boxed = len(self.objectives), self.size if self.epsilon else 0
        return Archive(
            points=Points(
                cost=jnp.full((d, self.size), jnp.nan, dtype),
                box=jnp.full((d, boxed), jnp.nan, dtype),
                group=jnp.full(self.size, -1, jnp.int32),
                index=jnp.full((2, self.size), NOWHERE, jnp.int32),
                values=jnp.zeros((len(layout.metrics), self.size), dtype),
            ),
            guards=Guards(
                box=jnp.full((d, _GUARDS), jnp.nan, dtype),
                cost=jnp.full((d, _GUARDS if self.epsilon else 0), jnp.nan, dtype),
                group=jnp.full(_GUARDS, -1, jnp.int32),
                index=jnp.full((2, _GUARDS), NOWHERE, jnp.int32),
                next=jnp.asarray(0, jnp.int32),
            ),
            lost=jnp.zeros(2, jnp.int32),
        )

    def update(self, layout: Layout, state: Archive, batch: Batch) -> Archive:
        """Take in a batch: first against the guards, what is left one at a time against all."""
        cost = jnp.stack(
            [
                batch.values[:, layout.column(name)] * (-1 if name in self.largest else 1)
                for name in self.objectives
            ]
        ).astype(state.points.cost.dtype)
        rows = Points(
            cost=cost,
            box=self._boxes(cost),
            group=groups(layout, batch, self.by),
            index=batch.index.T,
            values=batch.values.T.astype(state.points.values.dtype),
        )
        return self._take(state, rows, selected(layout, batch, self.where, self.objectives))

    def merge(self, layout: Layout, state: Archive, other: Archive) -> Archive:
        """Keep what neither removes of the other."""
        state = replace(state, lost=wide.plus(state.lost, other.lost))
        return self._take(state, other.points, other.points.index[0] != NOWHERE)

    def result(self, layout: Layout, state: Archive) -> Front:
        """Read what has been kept."""
        points = jax.tree.map(np.asarray, state.points)
        there = np.flatnonzero(points.index[0] != NOWHERE)
        index, cost = wide.total(points.index[:, there].T), points.cost[:, there]
        order = np.lexsort((index, *cost[::-1], points.group[there]))
        there = there[order]
        lost = int(wide.total(state.lost))
        return Front(
            index=index[order],
            values=points.values[:, there].T,
            metrics=layout.metrics,
            by=self.by,
            groups=ungrouped(layout, points.group[there].astype(np.int64), self.by),
            complete=lost == 0,
            lost=lost,
            epsilon=self.epsilon,
        )

    def _boxes(self, cost: jax.Array) -> jax.Array:
        """Least number of the box of every cost; with epsilon = 0 there is none but the cost."""
        if not self.epsilon:
            return cost[:, :0]
        # Two off, for what rounding float64 to float32 adds.
        width = int(self.epsilon * 2**23) - 2
        bits = jnp.maximum(ordered_bits(cost) // width * width, _LEAST_BITS)
        return from_ordered_bits(bits).astype(cost.dtype)

    def _box(self, points: Points) -> jax.Array:
        return points.box if self.epsilon else points.cost

    def _keys(self, points: Points) -> list[jax.Array]:
        return [*(points.cost if self.epsilon else ()), points.index[0], points.index[1]]

    def _guarded(self, guards: Guards, rows: Points) -> jax.Array:
        """Whether a guard removes a row, as far as that is cheap to tell, bool [n].

        Its box is below the row's; or it is no dearer in any objective and comes before all rows, so before the row.
        Designs of a grid are often alike in all objectives, which is why the second matters as much as the first.
        """
        high = jnp.min(rows.index[0])
        low = jnp.min(jnp.where(rows.index[0] == high, rows.index[1], _AWAY))
        before = earlier(list(guards.index), [high, low])
        cost = jnp.where(before[None, :], guards.cost if self.epsilon else guards.box, jnp.nan)
        own = self._box(rows)
        # Large batches are for machines that reduce well; elsewhere a loop keeps all in registers.
        turn = _UNROLLED if own.shape[1] <= _SMALL else _GUARDS

        def compare(turns: Any, found: jax.Array) -> jax.Array:
            cut = lambda x: jax.lax.dynamic_slice_in_dim(x, turns * turn, turn, axis=-1)  # noqa: E731
            box, costs, group = cut(guards.box), cut(cost), cut(guards.group)
            for i in range(turn):
                below = all_of(a[i] <= b for a, b in zip(box, own, strict=True))
                below = below & any_of(a[i] < b for a, b in zip(box, own, strict=True))
                below = below | all_of(a[i] <= b for a, b in zip(costs, rows.cost, strict=True))
                found = found | (below & (group[i] == rows.group) if self.by else below)
            return found

        return jax.lax.fori_loop(0, _GUARDS // turn, compare, rows.group != rows.group)

    def _removes(self, x: Points, y: Points) -> jax.Array:
        """Whether x removes y, one of them a single design and the other many, bool [n]."""
        pairs = list(zip(self._box(x), self._box(y), strict=True))
        within = all_of(a <= b for a, b in pairs)
        within = within & (x.group == y.group) if self.by else within
        return within & (any_of(a < b for a, b in pairs) | earlier(self._keys(x), self._keys(y)))

    def _take(self, state: Archive, rows: Points, chosen: jax.Array) -> Archive:
        """Take in rows, one at a time, for most are removed by the first few: those that look best go first."""
        bits = [ordered_bits(box) // 4 for box in self._box(rows)]
        looks = functools.reduce(operator.add, bits[1:], bits[0])

        def some(carry: tuple[Archive, jax.Array]) -> jax.Array:
            return jnp.any(carry[1])

        def take(carry: tuple[Archive, jax.Array]) -> tuple[Archive, jax.Array]:
            state, left = carry
            place = _first(left & (looks == jnp.min(jnp.where(left, looks, _MOST))))
            new = _at(rows, place)
            over = self._removes(state.points, new)
            removed = jnp.any(over)
            known = _at(replace(state.points, values=new.values[:0]), _first(over))
            other = jax.tree.map(
                lambda a, b: jnp.where(removed, a, b), known, replace(new, values=new.values[:0])
            )
            state = replace(state, guards=self._promoted(state.guards, other))
            left = left & ~self._removes(other, rows) & (jnp.arange(left.shape[0]) != place)
            return self._entered(state, new, ~removed), left

        return jax.lax.while_loop(some, take, (state, chosen & ~self._guarded(state.guards, rows)))[0]

    def _promoted(self, guards: Guards, other: Points) -> Guards:
        """Make a guard of the design that removed another of late, or entered."""
        at = guards.next
        return Guards(
            box=guards.box.at[:, at].set(self._box(other)),
            cost=guards.cost.at[:, at].set(other.cost) if self.epsilon else guards.cost,
            group=guards.group.at[at].set(other.group),
            index=guards.index.at[:, at].set(other.index),
            next=(at + 1) % _GUARDS,
        )

    def _entered(self, state: Archive, new: Points, enters: jax.Array) -> Archive:
        """Take out what a new design removes and put it where there is room, if it enters."""
        points = state.points
        gone = enters & self._removes(new, points)
        free = gone | (points.index[0] == NOWHERE)
        slot = _first(free)
        fits = enters & jnp.any(free)
        at = jnp.where(fits, slot, self.size)

        def put(old: jax.Array, empty: Any, x: jax.Array) -> jax.Array:
            return jnp.where(jnp.broadcast_to(gone, old.shape), empty, old).at[..., at].set(x, mode="drop")

        return Archive(
            points=Points(
                cost=put(points.cost, jnp.nan, new.cost),
                box=put(points.box, jnp.nan, new.box) if self.epsilon else points.box,
                group=put(points.group, -1, new.group),
                index=put(points.index, NOWHERE, new.index),
                values=points.values.at[:, at].set(new.values, mode="drop"),
            ),
            guards=state.guards,
            lost=wide.add(state.lost, (enters & ~fits).astype(jnp.int32)),
        )


def _first(mask: jax.Array) -> jax.Array:
    """Position of the first true entry, 0 where there is none."""
    n = mask.shape[0]
    return jnp.min(jnp.where(mask, jnp.arange(n, dtype=jnp.int32), n)) % n


def _at(points: Points, place: jax.Array) -> Points:
    return jax.tree.map(lambda x: x[..., place] if x.size else x, points)
