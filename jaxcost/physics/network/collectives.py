"""Time and traffic of collectives and point-to-point messages between chips.

A group that spans levels (package, domain, across domains) either reduce-scatters and all-gathers on the inner levels
around an all-reduce of the shard on the outermost level, or all-reduces the whole vector on every level (by doubling,
in one shot or in the network); the faster is used. Within a domain calibrated kernels replace the closed forms; between
domains the closed forms of collectives stay, with the library's round and share of `InternodeKernel`, and without
exchanges of every pair at once. Kernels that exchange tokens of experts span both levels.

Symbols: groups, sizes and messages have any axes before those of the batch, `[..., *batch]`; numbers that differ by
level have the levels in between, `[..., levels, *batch]`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcost.core import arrays, smooth
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.kernels.collective import (
    CollectiveBackend,
    Exchange,
    all_reduce_seconds,
    exchange_seconds,
    ring_exchange_seconds,
)
from jaxcost.physics.network.algorithms import (
    INDIVISIBLE,
    LOW_LATENCY,
    PAIRWISE,
    AlgorithmCosts,
    CollectiveCost,
    Costs,
    algorithm_costs,
    broadcast_costs,
    duration,
    fastest,
)
from jaxcost.physics.network.levels import (
    DOMAIN,
    NETWORK,
    Level,
    level_axis,
    shift_levels,
    sum_over_levels,
    take_level,
    with_level_axis,
)
from jaxcost.physics.network.reliability import straggler_wait
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.kernels import CollectiveKernel

__all__ = [
    "Communicator",
    "Message",
    "RankGroup",
    "all_reduce",
    "all_to_all",
    "broadcast",
    "communicator",
    "gather",
    "point_to_point",
]

_SENT = ("hops", "load")


@pytree
class Message:
    """The cost of one message or collective to one rank. Bytes count once per hop."""

    seconds: jax.Array = field("s", "duration")
    level_bytes: jax.Array = field("B", "bytes times hops on each level, `[..., levels, *batch]`")


@pytree
class RankGroup:
    """Ranks that communicate: `repeats` runs, `every` chips apart, of `ranks` chips that are `stride` chips apart."""

    ranks: Scalar = field("1", "ranks of a run")
    stride: Scalar = field("1", "chips between consecutive ranks", default=1.0)
    repeats: Scalar = field("1", "number of runs", default=1.0)
    every: Scalar = field("1", "chips between consecutive runs", default=1.0)

    @property
    def total(self) -> Scalar:
        """Ranks in the group."""
        return self.ranks * self.repeats

    def within(self, chips: Scalar) -> Scalar:
        """Count the ranks within the first `chips` chips."""
        runs = arrays.clip(chips / self.every, 1, self.repeats)
        return arrays.clip(chips / self.stride, 1, self.ranks) * runs


@pytree
class Communicator:
    """A group of ranks placed on a fabric."""

    ranks: jax.Array = field("1", "ranks in the group")
    within: jax.Array = field(
        "1", "ranks within a package, within a domain, and all: `[..., levels, *batch]`"
    )
    counts: jax.Array = field("1", "ranks that communicate on each level, `[..., levels, *batch]`")
    start: jax.Array = field(
        "s", "launch of a collective on every level that it spans, and the wait for the last rank"
    )


def communicator(group: RankGroup, fabric: Fabric, levels: Level) -> Communicator:
    """Place a group on a fabric: as many ranks as possible within a package, then within a domain."""
    total = jnp.asarray(group.total)
    within = jax.tree.map(lambda x: with_level_axis(x, levels), group).within(levels.reach)
    counts = within / shift_levels(within, levels, 1.0)
    return Communicator(
        ranks=total,
        within=within,
        counts=counts,
        start=sum_over_levels((counts > 1) * levels.launch, levels)
        + straggler_wait(total, fabric.jitter, fabric.timeout),
    )


def all_reduce(
    size: Scalar,
    group: Communicator,
    levels: Level,
    tau: Scalar,
    *,
    scattered: Scalar = 0.0,
    costs: AlgorithmCosts | None = None,
    backends: Sequence[CollectiveBackend | None] = (),
) -> Message:
    """All-reduce a vector of S bytes over a group of ranks.

    Args:
        size: S, `[..., *batch]`.
        group: the group, or a table of groups.
        levels: the levels of the fabric.
        tau: softness.
        scattered: 1 for a separate reduce-scatter and all-gather, between which the vector stays sharded.
        costs: `algorithm_costs` of the counts; None to compute them.
        backends: the calibrated kernels within a domain, one for each group along the first axis.
    """
    if costs is None:
        costs = algorithm_costs(levels, group.counts)
    whole, met = jnp.less(scattered, 0.5), jnp.greater(group.counts, 1)
    size = with_level_axis(size, levels)
    share_after = size / group.within
    share = share_after * group.counts
    last = with_level_axis(whole, levels) & (group.within >= with_level_axis(group.ranks, levels))
    # Two ways: a shard on every level, as reduce-scatter and all-gather on all but the last; or the whole vector on
    # every level, in few rounds.
    table = costs.all_reduce
    if any(backends):
        # Communication libraries run trees and rings between domains, not exchanges of every pair.
        outside = arrays.column([k > DOMAIN for k in range(3)], levels.hop) > 0
        table = {k: cost.unless(outside) if k in PAIRWISE else cost for k, cost in table.items()}
    by_shares = {k: cost.unless(~last) if k in INDIVISIBLE else cost for k, cost in table.items()}
    ways = (by_shares, share), ({k: table[k] for k in LOW_LATENCY}, size)
    times = [fastest(options, levels, part, tau) * met for options, part in ways]
    start = group.start
    if any(backends):
        scattered = jnp.broadcast_to(scattered, np.shape(start))
        both, sizes = arrays.stack(times), arrays.stack([share, size])
        both, start = _by_backends(both, backends, group, levels, costs.all_reduce, sizes, scattered)
        times = arrays.unstack(both)
    totals = [sum_over_levels(seconds, levels) for seconds in times]
    several = sum_over_levels(met, levels) > 1
    moved = arrays.where(several & whole, smooth.least(totals, tau), totals[0])
    added = levels.switches_add & last & met
    return Message(
        seconds=(2 - whole) * start + moved,
        level_bytes=arrays.where(added, share, 2 * (share - share_after)) * costs.neighbour_hops,
    )


def _by_backends(
    times: jax.Array,
    backends: Sequence[CollectiveBackend | None],
    group: Communicator,
    levels: Level,
    table: Costs,
    sizes: jax.Array,
    scattered: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Replace closed forms within the domain by calibrated kernels, whose times include their launch.

    Returns:
        Seconds of transfer `[ways, groups, ..., levels, *batch]` and of the start, `[groups, ..., *batch]`.
    """
    domain, launch = take_level(levels, DOMAIN), domain_launch(group, levels)
    # The numbers of a closed form may lack the axis of groups where they are equal for all.
    spread: Any = lambda x: in_domain(jnp.broadcast_to(x, group.counts.shape), levels)  # noqa: E731
    costs = [jax.tree.map(spread, replace(table[name], times=1.0)) for name in ("ring", "one-shot")]
    closed, sizes, counts = (in_domain(x, levels) for x in (times, sizes, group.counts))
    spans = group.ranks > in_domain(group.within, levels)
    seconds, starts = [], []
    for k, backend in enumerate(backends):
        seconds.append(closed[:, k])
        starts.append(group.start[k])
        if backend is not None:
            ring, one_shot = (
                CollectiveCost(rounds=one.rounds[k], hops=one.hops[k], load=one.load[k]) for one in costs
            )
            begun = closed[:, k] + jnp.where(scattered[k] < 0.5, 1, 2) * domain.launch
            fitted = all_reduce_seconds(
                backend, ring, one_shot, domain, sizes[:, k], counts[k], scattered[k], begun, spans[k]
            )
            seconds[k] = jnp.where(counts[k] > 1, fitted, 0)
            starts[k] = starts[k] - launch[k]
    return put_in_domain(times, jnp.stack(seconds, 1), levels), arrays.stack(starts)


def domain_launch(group: Communicator, levels: Level) -> jax.Array:
    """Return the launch of a collective within the domain, s, `[..., *batch]`; 0 for a group of one rank there."""
    return (in_domain(group.counts, levels) > 1) * take_level(levels, DOMAIN).launch


def in_domain(x: Scalar, levels: Level) -> jax.Array:
    """Take the level of the domain from a table `[..., levels, *batch]`."""
    return at_level(x, levels, DOMAIN)


def at_level(x: Scalar, levels: Level, place: int) -> jax.Array:
    """Take one level from a table `[..., levels, *batch]`."""
    return lax.index_in_dim(jnp.asarray(x), place, level_axis(x, levels), keepdims=False)


def put_in_domain(table: jax.Array, x: jax.Array, levels: Level) -> jax.Array:
    """Replace the level of the domain in a table `[..., levels, *batch]` by x `[..., *batch]`."""
    return put_at_level(table, x, levels, DOMAIN)


def put_at_level(table: jax.Array, x: jax.Array, levels: Level, place: int) -> jax.Array:
    """Replace one level in a table `[..., levels, *batch]` by x `[..., *batch]`."""
    here = arrays.column([k == place for k in range(3)], levels.hop) > 0
    return arrays.where(here, with_level_axis(x, levels), table)


def gather(size: Scalar, group: Communicator, levels: Level, tau: Scalar) -> Message:
    """All-gather a vector of S bytes in total, or reduce-scatter one: half of a scattered all-reduce."""
    both = all_reduce(size, group, levels, tau, scattered=1.0)
    return jax.tree.map(lambda x: x / 2, both)


def all_to_all(
    sizes: jax.Array,
    group: Communicator,
    levels: Level,
    *,
    costs: AlgorithmCosts,
    peak: Scalar = 1.0,
    exchanges: Sequence[Exchange | None] = (),
) -> Message:
    """Send different bytes to every rank of a group, all pairs concurrently, level by level.

    Args:
        sizes: bytes that a rank sends to others on each level, `[..., levels, *batch]`.
        group: the group.
        levels: the levels of the fabric.
        costs: `algorithm_costs` of the counts.
        peak: bytes that the busiest rank receives over the average.
        exchanges: calibrated exchanges within the domain, one for each entry of the first axis of `sizes`.
    """
    busiest = sizes * with_level_axis(peak, levels)
    met = group.counts > 1
    times, starts = duration(costs.exchange, levels, busiest) * met, group.start
    if any(exchanges):
        rows = list(times)
        starts = [group.start] * len(rows)
        for k, exchange in enumerate(exchanges):
            if exchange is not None:
                rows[k], starts[k] = _by_kernel(rows[k], busiest[k], exchange, group, levels, costs, peak)
        times, starts = arrays.stack(rows), arrays.stack(starts)
    return Message(seconds=starts + sum_over_levels(times, levels), level_bytes=sizes * costs.mean_hops)


def _by_kernel(
    times: jax.Array,
    sizes: jax.Array,
    exchange: Exchange,
    group: Communicator,
    levels: Level,
    costs: AlgorithmCosts,
    peak: Scalar,
) -> tuple[jax.Array, jax.Array]:
    """Replace the closed form of one exchange by its kernel, whose time includes the launch.

    Exchange kernels span the domain and the network; those of rings only the domain.

    Args:
        times: seconds of the closed form, `[groups, ..., levels, *batch]`.
        sizes: bytes that the busiest rank sends, likewise.
        exchange: the exchange.
        group: the group, `[groups, ...]`.
        levels: the levels of the fabric.
        costs: `algorithm_costs` of the counts.
        peak: bytes that the busiest rank receives over the average.

    Returns:
        Seconds like `times`, and of the start, `[groups, ..., *batch]`.
    """
    places = (DOMAIN,) if isinstance(exchange.kernel, CollectiveKernel) else (DOMAIN, NETWORK)
    tables = [take_level(levels, place) for place in places]
    sums = [
        CollectiveCost(
            rounds=1.0, **{x: at_level(getattr(costs.exchange, x), levels, place)[0] for x in _SENT}
        )
        for place in places
    ]
    sent = [at_level(sizes, levels, place) for place in places]
    counts = [at_level(group.counts, levels, place) for place in places]
    if isinstance(exchange.kernel, CollectiveKernel):
        (domain,), (cost,), (size,) = tables, sums, sent
        fitted = ring_exchange_seconds(
            exchange.kernel,
            exchange.seconds_per_byte,
            size,
            size * cost.load * domain.per_byte,
            cost.hops * domain.hop,
            counts[0],
        )
        apart = counts[0] > 1
    else:
        fitted = exchange_seconds(
            exchange, (tables[0], tables[1]), (sums[0], sums[1]), (sent[0], sent[1]),
            ranks=group.ranks, nodes=counts[1], peak=peak,
        )  # fmt: skip
        apart = (counts[0] > 1) | (counts[1] > 1)
        times = put_at_level(times, jnp.zeros_like(sent[1]), levels, NETWORK)
    launches = sum(
        ((count > 1) * table.launch for count, table in zip(counts, tables, strict=True)), start=jnp.zeros(())
    )
    return put_at_level(times, jnp.where(apart, fitted, 0), levels, DOMAIN), group.start - launches


def broadcast(size: Scalar, group: Communicator, levels: Level, tau: Scalar) -> Message:
    """Broadcast S bytes of one rank: to one rank of every domain, then of every package, then within packages."""
    n, size = group.counts, with_level_axis(size, levels)
    times = fastest(broadcast_costs(levels, n), levels, size, tau) * (n > 1)
    hops = algorithm_costs(levels, n).neighbour_hops
    return Message(
        seconds=group.start + sum_over_levels(times, levels), level_bytes=size * (n - 1) / n * hops
    )


def point_to_point(size: Scalar, span: Scalar, levels: Level) -> Message:
    """Send S bytes to a neighbour, over the innermost level that contains a group of `span` chips.

    It takes launch + o + k t + S b seconds, with k = 1 hop on a grid, in a fully connected level and in a dragonfly,
    and the hops to the top of a tree and down.
    """
    chosen = (span > shift_levels(levels.reach, levels, 0.0)) & (span <= levels.reach)
    size, hops = with_level_axis(size, levels), levels.neighbour_hops
    delay = levels.launch + levels.round + hops * levels.hop + size * levels.per_byte
    return Message(seconds=sum_over_levels(chosen * delay, levels), level_bytes=size * (chosen * hops))
