"""The best designs by a metric: of all, and of every group.

Symbols: k = count, g groups, m metrics; the key of a design is its metric, negated where the largest is best.
"""

import dataclasses
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
    BatchSchema,
    Constraint,
    earlier,
    first,
    groups,
    needed,
    selected,
    slice_length,
    ungrouped,
    when,
)

__all__ = ["Best", "GroupBest", "Ranking", "TopK"]

_MOST_GROUPS = 1 << 20


@pytree
class KeptDesigns:
    """Designs that a reducer keeps, r slots; an empty slot has the index NOWHERE."""

    key: jax.Array = field("1", "metric, or its negative, [r]")
    index: jax.Array = field("1", "wide index, int32 [2, r]")
    values: jax.Array = field("1", "all metrics, [m, r]")


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The best designs, best first, ties by index: index [k], values [k, m]."""

    index: np.ndarray
    values: np.ndarray
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class GroupBest:
    """The best design of every group that has one: axis indices [g, len(by)], index [g], values [g, m].

    An axis index of -1 means that the axis is inactive.
    """

    by: tuple[str, ...]
    groups: np.ndarray
    index: np.ndarray
    values: np.ndarray
    metrics: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TopK:
    """The `count` best designs by a metric; with a count of 1 the argmin, ties by the lowest index.

    Args:
        metric: metric to rank by.
        count: number of designs to keep.
        largest: whether the largest is best.
        where: constraints that designs must satisfy.
    """

    metric: str
    count: int
    largest: bool = False
    where: tuple[Constraint, ...] = FEASIBLE

    def __post_init__(self) -> None:
        """Check the count.

        Raises:
            ValueError: the count is below 1.
        """
        if self.count < 1:
            raise ValueError(f"a count is at least 1; got {self.count}")

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that the reducer reads."""
        return needed((self.metric,), self.where)

    def init(self, schema: BatchSchema, dtype: Any = None) -> KeptDesigns:
        """Return the state without designs."""
        return _empty_state(self.count, schema, dtype)

    def update(self, schema: BatchSchema, state: KeptDesigns, batch: Batch) -> KeptDesigns:
        """Insert a batch; a batch without any of the best costs one comparison a row."""
        rows, mask = _candidates(self, schema, state, batch)
        return self._insert(state, rows, mask)

    def merge(self, schema: BatchSchema, state: KeptDesigns, other: KeptDesigns) -> KeptDesigns:
        """Keep the best of both states."""
        return self._insert(state, other, other.index[0] != NOWHERE)

    def result(self, schema: BatchSchema, state: KeptDesigns) -> Ranking:
        """Return the designs of a state."""
        index, values = np.asarray(state.index).T, np.asarray(state.values).T
        present = index[:, 0] != NOWHERE
        return Ranking(wide.total(index[present]), values[present], schema.metrics)

    def _insert(self, state: KeptDesigns, rows: KeptDesigns, mask: jax.Array) -> KeptDesigns:
        length = slice_length(mask.shape[0])

        def enters(state: KeptDesigns, rows: KeptDesigns) -> jax.Array:
            return earlier(_order(rows), [x[-1] for x in _order(state)])

        def remains(carry: tuple[KeptDesigns, jax.Array]) -> jax.Array:
            return jnp.any(carry[1])

        def take(carry: tuple[KeptDesigns, jax.Array]) -> tuple[KeptDesigns, jax.Array]:
            state, left = carry
            position, present, left = first(left, length)
            state = _merge_sorted(state, jax.tree.map(lambda x: x[..., position], rows), present)
            return state, left & enters(state, rows)

        return jax.lax.while_loop(remains, take, (state, mask & enters(state, rows)))[0]


@dataclasses.dataclass(frozen=True)
class Best:
    """The best design of every group; a group is a combination of values of the axes `by`.

    Args:
        metric: metric to rank by.
        by: names of axes; designs for which an axis is inactive are a group of their own.
        largest: whether the largest is best.
        where: constraints that designs must satisfy.
    """

    metric: str
    by: tuple[str, ...] = ("system", "model")
    largest: bool = False
    where: tuple[Constraint, ...] = FEASIBLE

    @property
    def needs(self) -> tuple[str, ...]:
        """Metrics that the reducer reads."""
        return needed((self.metric,), self.where)

    def init(self, schema: BatchSchema, dtype: Any = None) -> KeptDesigns:
        """Return the state without designs.

        Raises:
            ValueError: present are more than 2^20 groups.
        """
        count = schema.group_count(self.by)
        if count > _MOST_GROUPS:
            raise ValueError(
                f"at most {_MOST_GROUPS:,} groups are possible; {', '.join(self.by)} have {count:,}"
            )
        return _empty_state(count, schema, dtype)

    def update(self, schema: BatchSchema, state: KeptDesigns, batch: Batch) -> KeptDesigns:
        """Insert a batch; a batch without a best of any group costs one comparison a row."""
        rows, mask = _candidates(self, schema, state, batch)
        group = groups(schema, batch, self.by)
        # Ties are decided by the index. Here it is enough to compare it with the last index kept, which costs less than
        # to gather the index of each row's rival; in a sweep in order, no row precedes that index.
        high = jnp.max(jnp.where(state.index[0] == NOWHERE, -1, state.index[0]))
        low = jnp.max(jnp.where(state.index[0] == high, state.index[1], -1))
        rival = state.key[group]
        tie = (rows.key == rival) & (earlier(list(rows.index), [high, low]) | jnp.isinf(rows.key))
        better = mask & ((rows.key < rival) | tie)
        return when(jnp.any(better), lambda state: _scatter_best(state, rows, group, better), state)

    def merge(self, schema: BatchSchema, state: KeptDesigns, other: KeptDesigns) -> KeptDesigns:
        """Keep the better design of every group."""
        better = earlier(_order(other), _order(state))
        return jax.tree.map(lambda a, b: jnp.where(jnp.broadcast_to(better, a.shape), b, a), state, other)

    def result(self, schema: BatchSchema, state: KeptDesigns) -> GroupBest:
        """Return the designs of a state."""
        index, values = np.asarray(state.index).T, np.asarray(state.values).T
        present = np.flatnonzero(index[:, 0] != NOWHERE)
        return GroupBest(
            by=self.by,
            groups=ungrouped(schema, present, self.by),
            index=wide.total(index[present]),
            values=values[present],
            metrics=schema.metrics,
        )


def _empty_state(count: int, schema: BatchSchema, dtype: Any) -> KeptDesigns:
    dtype = jnp.result_type(float) if dtype is None else dtype
    return KeptDesigns(
        key=jnp.full(count, jnp.inf, dtype),
        index=jnp.full((2, count), NOWHERE, jnp.int32),
        values=jnp.zeros((len(schema.metrics), count), dtype),
    )


def _candidates(
    reducer: TopK | Best, schema: BatchSchema, state: KeptDesigns, batch: Batch
) -> tuple[KeptDesigns, jax.Array]:
    key = batch.values[:, schema.column(reducer.metric)].astype(state.key.dtype)
    mask = selected(schema, batch, reducer.where, (reducer.metric,))
    rows = KeptDesigns(
        key=-key if reducer.largest else key,
        index=batch.index.T,
        values=batch.values.T.astype(state.values.dtype),
    )
    return rows, mask


def _order(kept: KeptDesigns) -> tuple[jax.Array, jax.Array, jax.Array]:
    return kept.key, kept.index[0], kept.index[1]


def _merge_sorted(state: KeptDesigns, rows: KeptDesigns, present: jax.Array) -> KeptDesigns:
    """Merge unsorted rows into sorted ones: the position of a design is the number of those that precede it."""
    count, length = state.key.shape[0], present.shape[0]
    old, new = _order(state), _order(rows)
    down = lambda keys: [x[:, None] for x in keys]  # noqa: E731
    across = lambda keys: [x[None, :] for x in keys]  # noqa: E731
    new_before_old = earlier(down(new), across(old)) & present[:, None]
    old_before_new = earlier(down(old), across(new))
    new_before_new = earlier(down(new), across(new)) & present[:, None]
    position = jnp.concatenate(
        [
            jnp.arange(count, dtype=jnp.int32) + jnp.sum(new_before_old, axis=0, dtype=jnp.int32),
            jnp.where(
                present,
                jnp.sum(old_before_new, axis=0, dtype=jnp.int32)
                + jnp.sum(new_before_new, axis=0, dtype=jnp.int32),
                count,
            ),
        ]
    )
    source = (
        jnp.zeros(count, jnp.int32).at[position].set(jnp.arange(count + length, dtype=jnp.int32), mode="drop")
    )
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1)[..., source], state, rows)


def _scatter_best(state: KeptDesigns, rows: KeptDesigns, group: jax.Array, better: jax.Array) -> KeptDesigns:
    """Scatter the least (key, index) of every group, one component of the triple after the other."""
    dropped = state.key.shape[0]
    still_old = jnp.ones_like(state.key, bool)
    still_new = better
    best = []
    for old, new in zip(_order(state), _order(rows), strict=True):
        worst = jnp.asarray(jnp.inf if jnp.issubdtype(old.dtype, jnp.floating) else NOWHERE, old.dtype)
        least = jnp.where(still_old, old, worst)
        least = least.at[jnp.where(still_new, group, dropped)].min(new, mode="drop")
        still_old = still_old & (old == least)
        still_new = still_new & (new == least[group])
        best.append(least)
    to = jnp.where(still_new, group, dropped)
    return KeptDesigns(
        key=best[0],
        index=jnp.stack(best[1:]),
        values=state.values.at[:, to].set(rows.values, mode="drop"),
    )
