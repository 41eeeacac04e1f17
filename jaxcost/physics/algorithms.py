"""Rounds, hops and loads of collective algorithms, in closed form, on every topology.

Symbols: n ranks; S bytes of the whole vector on a rank; o seconds of software a round of messages, t a hop; b
seconds a byte takes over one link of a chip, v over all those it may use at once. q, L = sum of (q - 1) and D:
sides, steps and diameter of a grid; H tiers of a tree with branches r, of which each keeps r / s times the
bandwidth of its branches; groups of a chips in a dragonfly.

An algorithm takes times x (rounds x o + hops x t + load x S b) on a level, and the fastest is taken. A table of
algorithms has their axis before all others, `[algorithms, ..., levels, *batch]`.

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
from jax import lax

from jaxcost.core import arrays, smooth
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.levels import Level
from jaxcost.physics.topology import crossing, degree, diameter, grid_ports, layout, mean_hops

__all__ = [
    "ALL_REDUCES",
    "INDIVISIBLE",
    "SLOW",
    "AlgorithmCosts",
    "CollectiveCost",
    "algorithm_costs",
    "broadcast_costs",
    "duration",
    "fastest",
]

ALL_REDUCES = ("ring", "rabenseifner", "doubling", "double-tree", "one-shot", "two-shot", "in-network")
_TIMES = (2, 2, 1, 2, 1, 2, 1)  # how often each does its rounds
INDIVISIBLE = ("doubling", "double-tree", "one-shot", "in-network")  # others are a gather after its mirror
SLOW = ("ring", "rabenseifner", "double-tree", "two-shot")  # others take a round, or log2 n
_NEVER = 1e18  # seconds: what an algorithm takes that a level does not have


@pytree
class CollectiveCost:
    """What an algorithm takes, times (rounds x o + hops x t + load x S b), or a table of algorithms by name."""

    rounds: Scalar = field("1", "rounds of messages")
    hops: Scalar = field("1", "hops on the critical path")
    load: Scalar = field("1", "share of the vector that the busiest link carries")
    times: Scalar = field("1", "times that it is done", default=1.0)
    absent: Scalar = field("1", "1 where the topology cannot do it", default=0.0)
    names: tuple[str, ...] = field(doc="the algorithms of a table", default=(), static=True)

    def seconds(self, o: Scalar, t: Scalar, x: Scalar) -> Scalar:
        """Evaluate it for a round of o seconds, a hop of t and x = S b."""
        return self.times * (self.rounds * o + self.hops * t + self.load * x) + _NEVER * self.absent

    def __getitem__(self, name: str) -> "CollectiveCost":
        """Take one algorithm of a table."""
        index = self.names.index(name)
        return jax.tree.map(lambda x: arrays.row(x, index), replace(self, names=()))


@pytree
class AlgorithmCosts:
    """What every algorithm takes a group on one level, or on each of a table."""

    all_reduce: CollectiveCost = field(doc="all-reduces, a table")
    exchange: CollectiveCost = field(doc="all-to-all, of the bytes a rank sends to others")
    neighbour_hops: jax.Array = field("1", "hops of a step of the ring")
    mean_hops: jax.Array = field("1", "hops between two ranks, on average")

    @property
    def gather(self) -> CollectiveCost:
        """All-gathers, or reduce-scatters: what is done once of the all-reduces that are made of two."""
        return _table(
            {
                name: CollectiveCost(rounds=both.rounds, hops=both.hops, load=both.load)
                for name, both in (
                    ("ring", self.all_reduce["ring"]),
                    ("halving", self.all_reduce["rabenseifner"]),
                    ("direct", self.all_reduce["two-shot"]),
                )
            }
        )


def _table(costs: dict[str, CollectiveCost]) -> CollectiveCost:
    columns = {
        name: arrays.stack([getattr(one, name) for one in costs.values()])
        for name in ("rounds", "hops", "load", "times", "absent")
    }
    return CollectiveCost(names=tuple(costs), **columns)


def algorithm_costs(level: Level, ranks: Scalar) -> AlgorithmCosts:
    """Follow every algorithm for groups of `ranks` on a level, or on each of a table.

    Rounds, hops and loads step with the ranks and the wiring, and no gradient passes through them.
    """
    lay = layout(level.wiring, ranks, level.size)
    n, bits, H, r, s, a = lay.ranks, lay.bits, lay.tiers, lay.branches, lay.narrowing, lay.group
    others, tree = n - 1, level.wiring.is_tree
    # On a grid each dimension is a ring of its own, the streams of all ports taking them in different orders; an
    # open side closes its ring with one way back of q - 1 hops. In a tree a subtree's border is crossed once in and
    # once out, and the last hop of the cycle is not on the way. Rings that share no link cover the fully connected
    # (Walecki), but for one link of a chip where n is even.
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
    # Partners 1, 2, 4, ... away. Tier t of a tree takes part in lg r rounds, over links s^(t - 1) times as busy as
    # the port; of what is halved the nearest partner gets the most.
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
    rounds = _rows(ring.rounds, bits, jnp.ones_like(n))
    return AlgorithmCosts(
        all_reduce=CollectiveCost(
            rounds=rounds,
            hops=_rows(ring.hops, away, far),
            load=arrays.stack([ring.load, halved, doubled, 1.0, busiest, busiest / n, 1.0]),
            times=arrays.column(_TIMES, rounds),
            absent=_one_of("double-tree", rounds) * ~tree
            + _one_of("in-network", rounds) * ~level.switches_add,
            names=ALL_REDUCES,
        ),
        exchange=CollectiveCost(rounds=1.0, hops=far, load=busiest / jnp.maximum(others, 1)),
        neighbour_hops=arrays.where(tree, ring.hops / jnp.maximum(others, 1e-6), 1),
        mean_hops=mean_hops(lay),
    )


def _rows(ring: Scalar, halving: Scalar, at_once: Scalar) -> jax.Array:
    """Make a column of ALL_REDUCES: a ring, three of halved or doubled distances, three of every pair at once."""
    return lax.concatenate(
        [lax.broadcast(ring, (1,)), *(lax.broadcast(x, (3,)) for x in (halving, at_once))], 0
    )


def _one_of(name: str, like: jax.Array) -> jax.Array:
    return arrays.column([x == name for x in ALL_REDUCES], like)


def _geometric_sum(x: Scalar, power: Scalar, count: Scalar) -> Scalar:
    """Add up x^t for t = 0 ... count - 1, given x^count."""
    growth = x - 1
    even = jnp.abs(growth) < 1e-3
    return arrays.where(even, count, (power - 1) / arrays.where(even, 1, growth))


def broadcast_costs(level: Level, ranks: Scalar) -> CollectiveCost:
    """Follow the algorithms that send a vector of one rank to all others: a table."""
    costs = algorithm_costs(level, ranks).all_reduce
    lay = layout(level.wiring, ranks, level.size)
    ring, doubling, direct, multicast = (costs[x] for x in ("ring", "doubling", "two-shot", "in-network"))
    scatter = (lay.ranks - 1) / lay.ranks / jnp.maximum(degree(lay), 1)
    return _table(
        {
            "binomial": CollectiveCost(rounds=lay.bits, hops=doubling.hops, load=lay.bits),
            **{
                name: CollectiveCost(
                    rounds=1 + gather.rounds, hops=direct.hops + gather.hops, load=scatter + gather.load
                )
                for name, gather in (("scatter-gather", direct), ("scatter-ring", ring))
            },
            "multicast": multicast,
        }
    )


def duration(cost: CollectiveCost, level: Level, size: Scalar) -> Scalar:
    """Seconds that one algorithm, or each of a table, takes for a vector of `size` bytes."""
    return cost.seconds(level.round, level.hop, size * level.per_byte)


def fastest(costs: CollectiveCost, level: Level, size: Scalar, tau: Scalar) -> jax.Array:
    """Take the least time of a table of algorithms, smooth above tau = 0."""
    o, t, x = level.round, level.hop, size * level.per_byte
    return smooth.least(costs.seconds(o, t, x), tau) if smooth.is_exact(tau) else _fastest(costs, o, t, x, tau)


@jax.custom_jvp
def _fastest(costs: CollectiveCost, o: Scalar, t: Scalar, x: Scalar, tau: Scalar) -> jax.Array:
    return smooth.least(costs.seconds(o, t, x), tau)


@_fastest.defjvp
def _fastest_jvp(primals: Any, tangents: Any) -> Any:
    # However many algorithms there are, the time is that of one with the mixture of their rounds, hops and loads.
    (costs, o, t, x, tau), (_, do, dt, dx, dtau) = primals, tangents
    value, slopes, in_tau = smooth.least_slopes(costs.seconds(o, t, x), tau)
    shares = slopes * costs.times
    rounds, hops, load = (jnp.sum(shares * column, 0) for column in (costs.rounds, costs.hops, costs.load))
    return value, rounds * do + hops * dt + load * dx + in_tau * dtau
