"""Time and traffic of the messages between chips.

A group that spans levels (within a package, a domain, across domains) reduces and gathers on the inner ones around
an all-reduce of its share on the outermost, or repeats an all-reduce of everything on each (by doubling, in one shot
or in the network); the faster is taken. Within a domain a calibrated library takes its own way and time.

Symbols: groups, sizes and messages have any axes before those of the batch, `[..., *batch]`; what differs by level
has the levels between, `[..., levels, *batch]`.
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
)
from jaxcost.physics.network.algorithms import (
    INDIVISIBLE,
    QUICK,
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
    Level,
    level_axis,
    shift_levels,
    sum_over_levels,
    take_level,
    with_level_axis,
)
from jaxcost.physics.network.reliability import straggler_wait
from jaxcost.spec.fabric import Fabric

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


@pytree
class Message:
    """What one message or collective costs one rank. Bytes are counted once for every hop they travel."""

    seconds: jax.Array = field("s", "duration")
    level_bytes: jax.Array = field("B", "bytes times hops on each level, `[..., levels, *batch]`")


@pytree
class RankGroup:
    """Ranks that send each other messages: `repeats` runs, `every` chips apart, of `ranks` chips `stride` apart."""

    ranks: Scalar = field("1", "chips of a run")
    stride: Scalar = field("1", "from one to the next", default=1.0)
    repeats: Scalar = field("1", "runs", default=1.0)
    every: Scalar = field("1", "chips from one run to the next", default=1.0)

    @property
    def total(self) -> Scalar:
        """Ranks in the group."""
        return self.ranks * self.repeats

    def within(self, chips: Scalar) -> Scalar:
        """Count those of the group within its first `chips` chips."""
        runs = arrays.clip(chips / self.every, 1, self.repeats)
        return arrays.clip(chips / self.stride, 1, self.ranks) * runs


@pytree
class Communicator:
    """A group as it lies on a fabric."""

    ranks: jax.Array = field("1", "ranks in the group")
    within: jax.Array = field(
        "1", "ranks within a package, within a domain, and all: `[..., levels, *batch]`"
    )
    counts: jax.Array = field("1", "ranks that meet on each level, `[..., levels, *batch]`")
    start: jax.Array = field(
        "s", "starting a collective on every level it spans, and the wait for the last rank"
    )


def communicator(group: RankGroup, fabric: Fabric, levels: Level) -> Communicator:
    """Place a group on a fabric: as much of it as possible within a package, then within a domain."""
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
    """Sum a vector of S bytes over a group of ranks.

    Args:
        size: S, `[..., *batch]`.
        group: the group, or a table of them.
        levels: the levels of the fabric.
        tau: softness.
        scattered: 1 for two halves, between which the vector stays cut.
        costs: `algorithm_costs` of the counts, where they are known already.
        backends: the calibrated kernels within a domain, one for each group along the first axis.
    """
    if costs is None:
        costs = algorithm_costs(levels, group.counts)
    whole, met = jnp.less(scattered, 0.5), jnp.greater(group.counts, 1)
    size = with_level_axis(size, levels)
    share_after = size / group.within
    share = share_after * group.counts
    last = with_level_axis(whole, levels) & (group.within >= with_level_axis(group.ranks, levels))
    # Two ways: a share on every level, in halves but on the last; or all of it, in few rounds.
    table = costs.all_reduce
    by_shares = {k: cost.unless(~last) if k in INDIVISIBLE else cost for k, cost in table.items()}
    ways = (by_shares, share), ({k: table[k] for k in QUICK}, size)
    times = [fastest(options, levels, part, tau) * met for options, part in ways]
    start = group.start
    if any(backends):
        scattered = jnp.broadcast_to(scattered, np.shape(start))
        both, sizes = arrays.stack(times), arrays.stack([share, size])
        both, start = _by_backends(both, backends, group, levels, table, sizes, scattered)
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
    """Replace closed forms within the domain by calibrated kernels, which count their launch themselves.

    Returns:
        seconds `[ways, groups, ..., levels, *batch]` and those before anything moves, `[groups, ..., *batch]`.
    """
    domain, launch = take_level(levels, DOMAIN), domain_launch(group, levels)
    # Numbers of the closed form may be the same for all groups.
    spread: Any = lambda x: in_domain(jnp.broadcast_to(x, group.counts.shape), levels)  # noqa: E731
    costs = [jax.tree.map(spread, replace(table[name], times=1.0)) for name in ("ring", "one-shot")]
    closed, sizes, counts = (in_domain(x, levels) for x in (times, sizes, group.counts))
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
                backend, ring, one_shot, domain, sizes[:, k], counts[k], scattered[k], begun
            )
            seconds[k] = jnp.where(counts[k] > 1, fitted, 0)
            starts[k] = starts[k] - launch[k]
    return put_in_domain(times, jnp.stack(seconds, 1), levels), arrays.stack(starts)


def domain_launch(group: Communicator, levels: Level) -> jax.Array:
    """Seconds of starting a collective of a group within the domain, `[..., *batch]`."""
    return (in_domain(group.counts, levels) > 1) * take_level(levels, DOMAIN).launch


def in_domain(x: Scalar, levels: Level) -> jax.Array:
    """Take what holds within the domain of a table `[..., levels, *batch]`."""
    return lax.index_in_dim(jnp.asarray(x), DOMAIN, level_axis(x, levels), keepdims=False)


def put_in_domain(table: jax.Array, x: jax.Array, levels: Level) -> jax.Array:
    """Replace what holds within the domain in a table `[..., levels, *batch]` by x `[..., *batch]`."""
    here = arrays.column([k == DOMAIN for k in range(3)], levels.hop) > 0
    return arrays.where(here, with_level_axis(x, levels), table)


def gather(size: Scalar, group: Communicator, levels: Level, tau: Scalar) -> Message:
    """All-gather a vector of S bytes in all, or reduce-scatter one: half of a scattered all-reduce."""
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
    """Send different bytes to every rank of a group, all pairs at once, level by level.

    Args:
        sizes: bytes that a rank sends to others on each level, `[..., levels, *batch]`.
        group: the group.
        levels: the levels of the fabric.
        costs: `algorithm_costs` of the counts.
        peak: bytes that the busiest rank receives, in those of an average one.
        exchanges: calibrated kernels that exchange within the domain, one for each place of the first axis of sizes.
    """
    busiest = sizes * with_level_axis(peak, levels)
    met = group.counts > 1
    times, start = duration(costs.exchange, levels, busiest) * met, group.start
    if any(exchanges):
        domain, cost = take_level(levels, DOMAIN), costs.exchange
        hops, load, ranks = (in_domain(x, levels) for x in (cost.hops, cost.load, group.counts))
        seconds = list(in_domain(times, levels))
        calibrated = [exchange is not None for exchange in exchanges]
        for k, exchange in enumerate(exchanges):
            if exchange is not None:
                fitted = exchange_seconds(
                    exchange,
                    in_domain(busiest, levels)[k],
                    load[0] * domain.per_byte,
                    hops[0] * domain.hop,
                    ranks=group.ranks,
                    domain_ranks=ranks,
                    peak=peak,
                )
                seconds[k] = jnp.where(ranks > 1, fitted, 0)
        times = put_in_domain(times, arrays.stack(seconds), levels)
        start = start - arrays.column(calibrated, times[..., 0]) * domain_launch(group, levels)
    return Message(seconds=start + sum_over_levels(times, levels), level_bytes=sizes * costs.mean_hops)


def broadcast(size: Scalar, group: Communicator, levels: Level, tau: Scalar) -> Message:
    """Send S bytes of one rank to all others: to one of every domain, then of every package, then within."""
    n, size = group.counts, with_level_axis(size, levels)
    times = fastest(broadcast_costs(levels, n), levels, size, tau) * (n > 1)
    hops = algorithm_costs(levels, n).neighbour_hops
    return Message(
        seconds=group.start + sum_over_levels(times, levels), level_bytes=size * (n - 1) / n * hops
    )


def point_to_point(size: Scalar, span: Scalar, levels: Level) -> Message:
    """Send S bytes to a neighbour, over the innermost level that holds a group of `span` chips.

    Launch + o + k t + S b: one hop on a grid, between the fully connected and in a dragonfly; through a tree, to
    its top and down.
    """
    chosen = (span > shift_levels(levels.reach, levels, 0.0)) & (span <= levels.reach)
    size, hops = with_level_axis(size, levels), levels.neighbour_hops
    delay = levels.launch + levels.round + hops * levels.hop + size * levels.per_byte
    return Message(seconds=sum_over_levels(chosen * delay, levels), level_bytes=size * (chosen * hops))
