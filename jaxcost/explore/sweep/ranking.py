"""The best designs: of all, and of every group.

Symbols: k = count, g groups, m metrics; the key of a design is its metric, negated where the largest is sought.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import wide
from jaxcost.core.pytree import field, pytree
from jaxcost.explore.sweep.reducer import (
    FEASIBLE,
    NOWHERE,
    Batch,
    Constraint,
    Layout,
    earlier,
    first,
    groups,
    needed,
    selected,
    slice_length,
    ungrouped,
    when,
)

__all__ = ["Best", "Grouped", "Ranked", "TopK"]

_MOST_GROUPS = 1 << 20


@pytree
class Kept:
    """Designs that a reducer holds, r of them; an empty place has the index NOWHERE."""

    key: jax.Array = field("1", "metric, or minus it, [r]")
    index: jax.Array = field("1", "wide index, int32 [2, r]")
    values: jax.Array = field("1", "all metrics, [m, r]")


@dataclasses.dataclass(frozen=True)
class Ranked:
    """The best designs, best first, ties by index."""

    index: np.ndarray
    values: np.ndarray
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Grouped:
    """The best design of every group that has one; a digit of -1 is an axis that is inactive."""

    by: tuple[str, ...]
    groups: np.ndarray
    index: np.ndarray
    values: np.ndarray
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TopK:
    """The `count` best designs by a metric; with a count of 1 the argmin, ties by the lowest index.

    Args:
        metric: what ranks them.
        count: how many to keep.
        largest: whether the largest is best.
        where: constraints that they satisfy.
    """

    metric: str
    count: int
    largest: bool = False
    where: tuple[Constraint, ...] = FEASIBLE

    def __post_init__(self) -> None:
        """Check the count.

        Raises:
            ValueError: it is below 1.
        """
        if self.count < 1:
            raise ValueError(f"the best {self.count} of designs are none; a count is at least 1")

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that it reads."""
        return needed((self.metric,), self.where)

    def init(self, layout: Layout, dtype: Any = None) -> Kept:
        """No design at all."""
        return _nothing(self.count, layout, dtype)

    def update(self, layout: Layout, state: Kept, batch: Batch) -> Kept:
        """Take in a batch: where none of it is among the best so far, only that is found out."""
        rows, chosen = _candidates(self, layout, state, batch)
        return self._insert(state, rows, chosen)

    def merge(self, layout: Layout, state: Kept, other: Kept) -> Kept:
        """Keep the best of both."""
        return self._insert(state, other, other.index[0] != NOWHERE)

    def result(self, layout: Layout, state: Kept) -> Ranked:
        """Read what has been kept."""
        index, values = np.asarray(state.index).T, np.asarray(state.values).T
        there = index[:, 0] != NOWHERE
        return Ranked(wide.total(index[there]), values[there], layout.metrics)

    def _insert(self, state: Kept, rows: Kept, chosen: jax.Array) -> Kept:
        length = slice_length(chosen.shape[0])

        def enters(state: Kept, rows: Kept) -> jax.Array:
            return earlier(_order(rows), [x[-1] for x in _order(state)])

        def some(carry: tuple[Kept, jax.Array]) -> jax.Array:
            return jnp.any(carry[1])

        def take(carry: tuple[Kept, jax.Array]) -> tuple[Kept, jax.Array]:
            state, left = carry
            place, there, left = first(left, length)
            state = _merged(state, jax.tree.map(lambda x: x[..., place], rows), there)
            return state, left & enters(state, rows)

        return jax.lax.while_loop(some, take, (state, chosen & enters(state, rows)))[0]


@dataclasses.dataclass(frozen=True)
class Best:
    """The best design of every group, a group being a combination of digits on the axes `by`.

    Args:
        metric: what ranks them.
        by: names of axes; the designs for which an axis is inactive are a group of their own.
        largest: whether the largest is best.
        where: constraints that they satisfy.
    """

    metric: str
    by: tuple[str, ...] = ("system", "model")
    largest: bool = False
    where: tuple[Constraint, ...] = FEASIBLE

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that it reads."""
        return needed((self.metric,), self.where)

    def init(self, layout: Layout, dtype: Any = None) -> Kept:
        """No design in any group.

        Raises:
            ValueError: there are more than about a million groups.
        """
        count = math.prod(layout.shape[layout.axis(name)] + 1 for name in self.by)
        if count > _MOST_GROUPS:
            raise ValueError(
                f"{', '.join(self.by)} make {count:,} groups; the best of at most {_MOST_GROUPS:,} are kept"
            )
        return _nothing(count, layout, dtype)

    def update(self, layout: Layout, state: Kept, batch: Batch) -> Kept:
        """Take in a batch: where none of it is the best of its group so far, only that is found out."""
        rows, chosen = _candidates(self, layout, state, batch)
        group = groups(layout, batch, self.by)
        # A tie is decided by the index, of which it is enough here that it comes before the last of those kept: to
        # look up the index of each row's rival would cost more, and a sweep in order has no such row.
        high = jnp.max(jnp.where(state.index[0] == NOWHERE, -1, state.index[0]))
        low = jnp.max(jnp.where(state.index[0] == high, state.index[1], -1))
        rival = state.key[group]
        tie = (rows.key == rival) & (earlier(list(rows.index), [high, low]) | jnp.isinf(rows.key))
        better = chosen & ((rows.key < rival) | tie)
        return when(jnp.any(better), lambda state: _placed(state, rows, group, better), state)

    def merge(self, layout: Layout, state: Kept, other: Kept) -> Kept:
        """Keep the better of both in every group."""
        better = earlier(_order(other), _order(state))
        return jax.tree.map(lambda a, b: jnp.where(jnp.broadcast_to(better, a.shape), b, a), state, other)

    def result(self, layout: Layout, state: Kept) -> Grouped:
        """Read what has been kept."""
        index, values = np.asarray(state.index).T, np.asarray(state.values).T
        there = np.flatnonzero(index[:, 0] != NOWHERE)
        return Grouped(
            by=self.by,
            groups=ungrouped(layout, there, self.by),
            index=wide.total(index[there]),
            values=values[there],
            metrics=layout.metrics,
        )


def _nothing(count: int, layout: Layout, dtype: Any) -> Kept:
    dtype = jnp.result_type(float) if dtype is None else dtype
    return Kept(
        key=jnp.full(count, jnp.inf, dtype),
        index=jnp.full((2, count), NOWHERE, jnp.int32),
        values=jnp.zeros((len(layout.metrics), count), dtype),
    )


def _candidates(reducer: TopK | Best, layout: Layout, state: Kept, batch: Batch) -> tuple[Kept, jax.Array]:
    key = batch.values[:, layout.column(reducer.metric)].astype(state.key.dtype)
    chosen = selected(layout, batch, reducer.where, (reducer.metric,))
    rows = Kept(
        key=-key if reducer.largest else key,
        index=batch.index.T,
        values=batch.values.T.astype(state.values.dtype),
    )
    return rows, chosen


def _order(kept: Kept) -> tuple[jax.Array, jax.Array, jax.Array]:
    return kept.key, kept.index[0], kept.index[1]


def _merged(state: Kept, rows: Kept, there: jax.Array) -> Kept:
    """Merge some rows, in no order, into sorted ones: everyone's place is the number of those before it."""
    count, length = state.key.shape[0], there.shape[0]
    old, new = _order(state), _order(rows)
    down = lambda keys: [x[:, None] for x in keys]  # noqa: E731
    across = lambda keys: [x[None, :] for x in keys]  # noqa: E731
    new_first = earlier(down(new), across(old)) & there[:, None]
    old_first = earlier(down(old), across(new))
    among = earlier(down(new), across(new)) & there[:, None]
    place = jnp.concatenate(
        [
            jnp.arange(count, dtype=jnp.int32) + jnp.sum(new_first, axis=0, dtype=jnp.int32),
            jnp.where(
                there,
                jnp.sum(old_first, axis=0, dtype=jnp.int32) + jnp.sum(among, axis=0, dtype=jnp.int32),
                count,
            ),
        ]
    )
    source = (
        jnp.zeros(count, jnp.int32).at[place].set(jnp.arange(count + length, dtype=jnp.int32), mode="drop")
    )
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1)[..., source], state, rows)


def _placed(state: Kept, rows: Kept, group: jax.Array, better: jax.Array) -> Kept:
    """Scatter the least of (key, high, low) of every group, one key after the other."""
    away = state.key.shape[0]
    still_old = jnp.ones_like(state.key, bool)
    still_new = better
    fresh = []
    for old, new in zip(_order(state), _order(rows), strict=True):
        worst = jnp.asarray(jnp.inf if jnp.issubdtype(old.dtype, jnp.floating) else NOWHERE, old.dtype)
        least = jnp.where(still_old, old, worst)
        least = least.at[jnp.where(still_new, group, away)].min(new, mode="drop")
        still_old = still_old & (old == least)
        still_new = still_new & (new == least[group])
        fresh.append(least)
    to = jnp.where(still_new, group, away)
    return Kept(
        key=fresh[0],
        index=jnp.stack(fresh[1:]),
        values=state.values.at[:, to].set(rows.values, mode="drop"),
    )
