"""Rounds, hops and loads of collective algorithms, in closed form, on every topology.

Symbols: n ranks; S bytes of the whole vector on a rank; o seconds of software per round of messages, t seconds per hop;
b seconds per byte on one link of a chip. q, L = sum of (q - 1) and D: sides, steps and diameter of a grid; H tiers of a
tree with branches r, in which a subtree has r / s times the bandwidth of a branch; groups of a chips in a dragonfly.

An algorithm takes times x (rounds x o + hops x t + load x S b) on a level, and the fastest is used. Algorithms are
entries of a mapping, each a table over groups and levels. An axis of algorithms would be slower: XLA would compute its
concatenation element by element.

    gather (all-gather; reduce-scatter is its mirror)
      ring      n - 1 steps to a neighbour; on a grid, dimension by dimension over all ports
      halving   lg n rounds of recursive doubling, or halving
      direct    every pair at once
    all-reduce
      2 x gather: ring, Rabenseifner's (halving), two-shot (direct)
      doubling, double binary tree, one-shot (every pair exchanges all of it), in-network (switches add)

Where messages of one round share a link, the busiest link's load is counted. Sources: Thakur, Rabenseifner and
Gropp 2005 (doi 10.1177/1094342005051521); Chan et al. 2007; Sanders, Speck and Traeff 2009 (double tree); Jain and
Sabharwal 2010 (grids); Graham et al. 2016 and Klenk et al. 2020 (in the network); Kim et al. 2008.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core import arrays, smooth
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.network.levels import Level
from jaxcost.physics.network.topology import crossing, degree, diameter, grid_ports, lay_out_ranks, mean_hops

__all__ = [
    "INDIVISIBLE",
    "LOW_LATENCY",
    "PAIRWISE",
    "AlgorithmCosts",
    "CollectiveCost",
    "algorithm_costs",
    "broadcast_costs",
    "duration",
    "fastest",
]

INDIVISIBLE = (
    "doubling",
    "double-tree",
    "one-shot",
    "in-network",
)  # others are a reduce-scatter and an all-gather
LOW_LATENCY = (
    "doubling",
    "one-shot",
    "in-network",
)  # 1 or log2 n rounds of the whole vector, for small vectors
PAIRWISE = ("one-shot", "two-shot")  # every pair of ranks exchanges messages at once
_NEVER = 1e18  # seconds of an algorithm that a level cannot run


@pytree
class CollectiveCost:
    """The cost of a collective algorithm: times (rounds x o + hops x t + load x S b) seconds."""

    rounds: Scalar = field("1", "rounds of messages")
    hops: Scalar = field("1", "hops on the critical path")
    load: Scalar = field("1", "share of the vector that the busiest link carries")
    times: Scalar = field("1", "repetitions", default=1.0)
    absent: jax.Array | None = field(
        "1", "true where the topology cannot run it; None where all can", default=None
    )

    def seconds(self, o: Scalar, t: Scalar, x: Scalar) -> Scalar:
        """Return the seconds for o per round, t per hop and x = S b."""
        taken = self.times * (self.rounds * o + self.hops * t + self.load * x)
        return taken if self.absent is None else arrays.where(self.absent, _NEVER, taken)

    def __mul__(self, times: float) -> "CollectiveCost":
        """Return the cost of the algorithm repeated."""
        return replace(self, times=self.times * times)

    def unless(self, absent: jax.Array) -> "CollectiveCost":
        """Return the cost with the algorithm excluded where `absent` is true."""
        return replace(self, absent=absent if self.absent is None else self.absent | absent)


Costs = dict[str, CollectiveCost]


@pytree
class AlgorithmCosts:
    """The costs of all algorithms for a group on one level, or on each level of a table."""

    gather: Costs = field(doc="all-gather or reduce-scatter, by algorithm")
    all_reduce: Costs = field(doc="all-reduce, by algorithm")
    exchange: CollectiveCost = field(doc="all-to-all, per byte that a rank sends to others")
    neighbour_hops: jax.Array = field("1", "hops of a step of the ring")
    mean_hops: jax.Array = field("1", "hops between two ranks, on average")


def algorithm_costs(level: Level, ranks: Scalar) -> AlgorithmCosts:
    """Return the costs of all algorithms for groups of `ranks` on a level, or on each level of a table.

    Rounds, hops and loads are step functions of the ranks and the topology; no gradient passes through them.
    """
    lay = lay_out_ranks(level.topology, ranks, level.size)
    n, bits, H, r, s, a = lay.ranks, lay.bits, lay.switch_tiers, lay.branches, lay.narrowing, lay.group
    others, tree = n - 1, level.topology.is_tree
    # On a grid each dimension is a ring, and the streams of the ports traverse the dimensions in different orders; a
    # side without wrap-around closes its ring by a path of q - 1 hops. In a tree the ring enters and leaves each
    # subtree once, and its last hop is not needed. Edge-disjoint rings cover a fully connected graph (Walecki), except
    # for one link per chip where n is even.
    and_back = 2 * lay.steps - grid_ports(lay, 1.0)
    ring = CollectiveCost(
        rounds=lay.choose(lay.steps, others, others, others),
        hops=lay.choose(
            arrays.where(lay.joined, lay.steps, and_back),
            others,
            jnp.maximum(2 * r * lay.subtrees - 2, 0),
            others,
        ),
        load=others
        / n
        / jnp.maximum(
            lay.choose(grid_ports(lay, lay.ports), 2 * jnp.floor(others / 2), 1.0, jnp.minimum(others, 2)), 1
        ),
    )
    # Partners are 1, 2, 4, ... ranks away. Tier t of a tree carries lg r rounds, on links s^(t - 1) times as busy as
    # the port; with halving, the nearest partner gets the most bytes.
    p = jnp.maximum(lay.long_side, 2)
    inside = jnp.log2(a)
    outside = lay.log - inside
    away = lay.choose(lay.steps, bits, bits * (H + 1), inside + 3 * outside)
    halved = lay.choose(
        jnp.maximum(jnp.log2(lay.long_side), 1) / 2 * (others / n) * (p / (p - 1)),
        others / n,
        (1 - 1 / r) * _geometric_sum(s / r, lay.narrowed / n, H),
        2 - 1 / a - 1 / lay.groups,
    )
    doubled = lay.choose(lay.steps, bits, bits / H * _geometric_sum(s, lay.narrowed, H), inside + a * outside)
    # Every pair at once.
    far, busiest = diameter(lay), crossing(lay)
    halving, doubling = (CollectiveCost(rounds=bits, hops=away, load=load) for load in (halved, doubled))
    one_shot, direct, by_switches = (
        CollectiveCost(rounds=1.0, hops=far, load=load) for load in (busiest, busiest / n, 1.0)
    )
    double_tree = CollectiveCost(rounds=bits, hops=away, load=1.0)
    return AlgorithmCosts(
        gather={"ring": ring, "halving": halving, "direct": direct},
        all_reduce={
            "ring": ring * 2,
            "rabenseifner": halving * 2,
            "doubling": doubling,
            "double-tree": (double_tree * 2).unless(~tree),
            "one-shot": one_shot,
            "two-shot": direct * 2,
            "in-network": by_switches.unless(~level.switches_add),
        },
        exchange=CollectiveCost(rounds=1.0, hops=far, load=busiest / jnp.maximum(others, 1)),
        neighbour_hops=arrays.where(tree, ring.hops / jnp.maximum(others, 1e-6), 1),
        mean_hops=mean_hops(lay),
    )


def _geometric_sum(x: Scalar, power: Scalar, count: Scalar) -> Scalar:
    """Return the sum of x^t for t = 0 ... count - 1, where `power` is x^count."""
    growth = x - 1
    even = jnp.abs(growth) < 1e-3
    return arrays.where(even, count, (power - 1) / arrays.where(even, 1, growth))


def broadcast_costs(level: Level, ranks: Scalar) -> Costs:
    """Return the costs of the algorithms that broadcast a vector of one rank to all others."""
    costs = algorithm_costs(level, ranks)
    lay = lay_out_ranks(level.topology, ranks, level.size)
    scatter = (lay.ranks - 1) / lay.ranks / jnp.maximum(degree(lay), 1)
    direct = costs.gather["direct"]

    def after_scatter(gather: CollectiveCost) -> CollectiveCost:
        return CollectiveCost(
            rounds=1 + gather.rounds, hops=direct.hops + gather.hops, load=scatter + gather.load
        )

    return {
        "binomial": CollectiveCost(rounds=lay.bits, hops=costs.all_reduce["doubling"].hops, load=lay.bits),
        "scatter-gather": after_scatter(direct),
        "scatter-ring": after_scatter(costs.gather["ring"]),
        "multicast": costs.all_reduce["in-network"],
    }


def duration(cost: CollectiveCost, level: Level, size: Scalar) -> Scalar:
    """Return the seconds of one algorithm for a vector of `size` bytes."""
    return cost.seconds(level.round, level.hop, size * level.per_byte)


def fastest(costs: Costs, level: Level, size: Scalar, tau: Scalar) -> jax.Array:
    """Return the seconds of the fastest of several algorithms, smooth above tau = 0."""
    options, o, t, x = list(costs.values()), level.round, level.hop, size * level.per_byte
    if smooth.is_exact(tau):
        return smooth.least([cost.seconds(o, t, x) for cost in options], tau)
    return _fastest(options, o, t, x, tau)


@jax.custom_jvp
def _fastest(options: list[CollectiveCost], o: Scalar, t: Scalar, x: Scalar, tau: Scalar) -> jax.Array:
    return smooth.least([cost.seconds(o, t, x) for cost in options], tau)


@_fastest.defjvp
def _fastest_jvp(primals: Any, tangents: Any) -> Any:
    # The tangent is that of one algorithm with a weighted mean of their rounds, hops and loads.
    (options, o, t, x, tau), (_, do, dt, dx, dtau) = primals, tangents
    value, slopes, in_tau = smooth.least_slopes([cost.seconds(o, t, x) for cost in options], tau)
    shares = [slope * cost.times for slope, cost in zip(slopes, options, strict=True)]
    rounds, hops, load = (
        arrays.total(share * getattr(cost, name) for share, cost in zip(shares, options, strict=True))
        for name in ("rounds", "hops", "load")
    )
    return value, rounds * do + hops * dt + load * dx + in_tau * dtau
