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
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import wide
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.explore.reducer import (
    FEASIBLE,
    NOWHERE,
    Batch,
    Constraint,
    Layout,
    all_of,
    any_of,
    earlier,
    first,
    from_ordered_bits,
    groups,
    needed,
    ordered_bits,
    selected,
    slice_length,
    ungrouped,
    when,
)

__all__ = ["Archive", "Front", "Pareto"]

_GUARDS = 64
_UNROLLED = 16
_SMALL = 2048
_LEAST_EPSILON, _MOST_EPSILON = 1e-6, 1.0
_LEAST_BITS = -0x7F800000
_AWAY = 1 << 30


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
    group: jax.Array = field("1", "group, int32 [guards]")
    next: jax.Array = field("1", "the one to be replaced next, int32")


@pytree
class Archive:
    """The front so far. Beside `points`, nothing bears on the result but `lost`."""

    points: Points = field(doc="designs that none seen so far removes")
    guards: Guards = field(doc="a few of those seen, to test against first")
    used: jax.Array = field("1", "places that have ever been used: the first so many, int32")
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
                group=jnp.full(_GUARDS, -1, jnp.int32),
                next=jnp.asarray(0, jnp.int32),
            ),
            used=jnp.asarray(0, jnp.int32),
            lost=jnp.zeros(2, jnp.int32),
        )

    def update(self, layout: Layout, state: Archive, batch: Batch) -> Archive:
        """Take in a batch: first against the guards, what is left a slice at a time against all."""
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

    def _under(
        self, box: jax.Array, group: jax.Array, rows: Points, used: Scalar | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Find boxes, of the first `used`, of the group of each row that are nowhere above its box.

        Returns:
            Number of the last of them, int32 [n], -1 where there is none; whether one of them is below, bool [n].
        """
        count, own = box.shape[1], self._box(rows)
        # Large batches are for machines that reduce well; elsewhere a loop keeps all in registers.
        turn = _UNROLLED if own.shape[1] <= _SMALL and count % _UNROLLED == 0 else count

        def compare(start: Any, found: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            last, below = found
            some, akin = (jax.lax.dynamic_slice_in_dim(x, start, turn, axis=-1) for x in (box, group))
            for i in range(turn):
                within = all_of(a[i] <= b for a, b in zip(some, own, strict=True))
                within = within & (akin[i] == rows.group) if self.by else within
                last = jnp.where(within, start + i, last)
                below = below | (within & any_of(a[i] < b for a, b in zip(some, own, strict=True)))
            return last, below

        if turn < count:
            nothing = (rows.group != rows.group) | (group[0] != group[0])
            none = (jnp.where(nothing, 0, -1), nothing)
            turns = count // turn if used is None else (used + turn - 1) // turn
            return jax.lax.fori_loop(0, turns, lambda k, found: compare(k * turn, found), none)
        pairs = list(zip(box[:, :, None], own[:, None, :], strict=True))
        within = all_of(a <= b for a, b in pairs)
        within = within & (group[:, None] == rows.group[None, :]) if self.by else within
        number = jnp.arange(count, dtype=jnp.int32)[:, None]
        last = jnp.max(jnp.where(within, number, -1), axis=0)
        return last, jnp.any(within & any_of(a < b for a, b in pairs), axis=0)

    def _removes(self, x: Points, y: Points) -> jax.Array:
        """Whether row i of x removes row j of y, bool [i, j]."""
        pairs = list(zip(self._box(x)[:, :, None], self._box(y)[:, None, :], strict=True))
        within = all_of(a <= b for a, b in pairs)
        within = within & (x.group[:, None] == y.group[None, :]) if self.by else within
        before = earlier([k[:, None] for k in self._keys(x)], [k[None, :] for k in self._keys(y)])
        return within & (any_of(a < b for a, b in pairs) | before)

    def _take(self, state: Archive, rows: Points, chosen: jax.Array) -> Archive:
        length = slice_length(chosen.shape[0])

        def some(carry: tuple[Archive, jax.Array]) -> jax.Array:
            return jnp.any(carry[1])

        def take(carry: tuple[Archive, jax.Array]) -> tuple[Archive, jax.Array]:
            state, left = carry
            place, there, left = first(left, length)
            new = _at(replace(rows, values=rows.values[:0]), place)
            under, below = self._under(self._box(state.points), state.points.group, new, state.used)
            # In an archive that has the box of a row there is none below it.
            other = _at(state.points, under)
            removed = there & (under >= 0) & (below | earlier(self._keys(other), self._keys(new)))
            state = replace(state, guards=self._promoted(state.guards, other, removed & below))
            enters = there & ~removed

            def enter(carry: tuple[Archive, jax.Array]) -> tuple[Archive, jax.Array]:
                state, left = carry
                entrants = enters & ~jnp.any(self._removes(new, new) & enters[:, None], axis=0)
                box = jnp.where(entrants[None, :], self._box(new), jnp.nan)
                whole = replace(new, values=rows.values[:, place])
                return self._entered(state, whole, entrants), left & ~self._under(box, new.group, rows)[1]

            return when(jnp.any(enters), enter, (state, left))

        below = self._under(state.guards.box, state.guards.group, rows)[1]
        return jax.lax.while_loop(some, take, (state, chosen & ~below))[0]

    def _promoted(self, guards: Guards, other: Points, removed: jax.Array) -> Guards:
        """Make a guard of the first design that removed one of a slice."""
        one = jnp.argmax(removed)
        at = jnp.where(removed[one], guards.next, _GUARDS)
        return Guards(
            box=guards.box.at[:, at].set(self._box(other)[:, one], mode="drop"),
            group=guards.group.at[at].set(other.group[one], mode="drop"),
            next=(guards.next + 1) % _GUARDS,
        )

    def _entered(self, state: Archive, new: Points, enters: jax.Array) -> Archive:
        """Take out what the new designs remove and put them where there is room."""
        points = state.points
        gone = jnp.any(self._removes(new, points) & enters[:, None], axis=0)
        free = gone | (points.index[0] == NOWHERE)
        slot, room, _ = first(free, enters.shape[0])
        turn = jnp.cumsum(enters, dtype=jnp.int32) - 1
        fits = enters & room[turn]
        at = jnp.where(fits, slot[turn], self.size)
        emptied = Points(
            cost=jnp.where(gone[None, :], jnp.nan, points.cost),
            box=jnp.where(gone[None, :], jnp.nan, points.box) if self.epsilon else points.box,
            group=jnp.where(gone, -1, points.group),
            index=jnp.where(gone[None, :], NOWHERE, points.index),
            values=points.values,
        )
        return replace(
            state,
            points=Points(
                cost=emptied.cost.at[:, at].set(new.cost, mode="drop"),
                box=emptied.box.at[:, at].set(new.box, mode="drop") if self.epsilon else emptied.box,
                group=emptied.group.at[at].set(new.group, mode="drop"),
                index=emptied.index.at[:, at].set(new.index, mode="drop"),
                values=emptied.values.at[:, at].set(new.values, mode="drop"),
            ),
            used=jnp.maximum(state.used, jnp.max(jnp.where(fits, at + 1, 0))),
            lost=wide.add(state.lost, jnp.sum(enters & ~fits, dtype=jnp.int32)),
        )


def _at(points: Points, place: jax.Array) -> Points:
    return jax.tree.map(lambda x: x[..., place] if x.size else x, points)
