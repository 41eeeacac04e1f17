"""Rounds, hops and loads of collective algorithms, in closed form, on every topology.

Symbols: n ranks; S bytes of the whole vector on a rank; o seconds of software a round of messages, t a hop; b
seconds a byte takes over one link of a chip, v over all those it may use at once. q, L = sum of (q - 1) and D:
sides, steps and diameter of a grid; H tiers of a tree with branches r, of which each keeps r / s times the
bandwidth of its branches; groups of a chips in a dragonfly.

Every algorithm on one level is a line, rounds x o + hops x t + load x S b, and the fastest is taken:

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

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from jaxcost.core import smooth
from jaxcost.core.fence import once, opaque_one
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.levels import Level
from jaxcost.physics.topology import crossing, degree, diameter, layout, mean_hops

__all__ = ["Line", "Lines", "duration", "fastest", "lines"]

_NEVER = 1e18  # seconds: the latency of an algorithm that a topology does not have


@pytree
class Line:
    """The time of one algorithm, times (rounds x o + hops x t + load x S b), and whether a level has it at all."""

    rounds: Scalar = field("1", "rounds of messages")
    hops: Scalar = field("1", "hops on the critical path")
    load: Scalar = field("1", "share of the vector that the busiest link carries")
    times: Scalar = field("1", "times that it is done", default=1.0)
    absent: Scalar = field("1", "true where the topology cannot do it", default=False)

    def seconds(self, o: Scalar, t: Scalar, x: Scalar) -> Scalar:
        """Evaluate it for a round of o seconds, a hop of t and x = S b."""
        return jnp.where(self.absent, _NEVER, self.times * (self.rounds * o + self.hops * t + self.load * x))

    def __mul__(self, times: float) -> "Line":
        """Repeat it."""
        return replace(self, times=self.times * times)

    def __add__(self, other: "Line") -> "Line":
        """Do one after the other, each once."""
        return Line(
            rounds=self.rounds + other.rounds, hops=self.hops + other.hops, load=self.load + other.load
        )


@pytree
class Lines:
    """What every algorithm takes a group on one level."""

    gather: dict[str, Line] = field(doc="all-gather or reduce-scatter, by algorithm")
    all_reduce: dict[str, Line] = field(doc="all-reduce, by algorithm")
    broadcast: dict[str, Line] = field(doc="broadcast, by algorithm")
    exchange: Line = field(doc="all-to-all, of the bytes a rank sends to others")
    neighbour_hops: Scalar = field("1", "hops of a step of the ring")
    mean_hops: Scalar = field("1", "hops between two ranks, on average")

    def quick(self) -> dict[str, Line]:
        """All-reduces that take a round or few, for small vectors."""
        return {name: self.all_reduce[name] for name in ("doubling", "one-shot", "in-network")}

    def sums(self, whole: Scalar) -> dict[str, Line]:
        """All-reduces; where `whole` is false, only those that can be taken apart: a gather and its mirror."""
        halved = ("ring", "rabenseifner", "two-shot")
        return {
            name: line
            if name in halved
            else replace(line, absent=jnp.logical_or(line.absent, jnp.logical_not(whole)))
            for name, line in self.all_reduce.items()
        }


def lines(on: Level, ranks: Scalar) -> Lines:
    """Follow every algorithm for a group of `ranks` on a level.

    Rounds, hops and loads step with the ranks and the wiring, and no gradient passes through them.
    """
    w = on.wiring
    lay = layout(w, ranks, on.size)
    one = opaque_one(lay.ranks)
    n, H, r, s = lay.ranks, lay.tiers, lay.branches, lay.narrowing
    a = lay.group
    steps = lay.over_sides(lambda q: q - 1)
    # On a grid each dimension is a ring of its own, the streams of all ports taking them in different orders; an
    # open side closes its ring with one way back of q - 1 hops. In a tree a subtree's border is crossed once in and
    # once out, and the last hop of the cycle is not on the way. Rings that share no link cover the fully connected
    # (Walecki), but for one link of a chip where n is even.
    back = steps - lay.over_sides(lambda q: jnp.minimum(q - 1, 1))
    around = 2 * (n - 1) * r / jnp.where(r > 1, r - 1, 1) - 2
    ports = w.choose(lay.over_sides(lay.ports), 2 * jnp.floor((n - 1) / 2), 1, jnp.minimum(n - 1, 2))
    ring = Line(
        rounds=jnp.where(w.grid, steps, n - 1),
        hops=w.choose(steps + jnp.where(lay.wrapped, 0, back), n - 1, around, n - 1),
        load=(n - 1) / (n * jnp.maximum(ports, 1)),
    )
    # Partners 1, 2, 4, ... away. Tier l of a tree takes part in lg r rounds, over links s^(l - 1) times as busy as
    # the port; of what is halved the nearest partner gets the most.
    q = jnp.maximum(lay.long_side, 2)
    inside, outside = lay.log_group, lay.log - lay.log_group
    away = w.choose(steps, lay.bits, lay.bits * (H + 1), inside + 3 * outside)
    ring, away, far = once((ring, away, diameter(w, lay)), one)
    # A geometric sum of H like terms is H.
    even_halved, even_doubled = jnp.abs(s - r) < 1e-3 * r, jnp.abs(s - 1) < 1e-3
    halved = w.ratio(
        (jnp.maximum(lay.log_side, 1) * (n - 1) * q, 2 * n * (q - 1)),
        (n - 1, n),
        # (1 - 1 / r) (1 + s / r + ... + (s / r)^(H - 1))
        ((r - 1) * jnp.where(even_halved, H, n - lay.narrowed), jnp.where(even_halved, r, n * (r - s))),
        (2 * n * a - n - a * a, n * a),
    )
    doubled = w.ratio(
        (steps, 1),
        (lay.bits, 1),
        # lg n / H (1 + s + ... + s^(H - 1))
        (lay.bits * jnp.where(even_doubled, 1, lay.narrowed - 1), jnp.where(even_doubled, 1, H * (s - 1))),
        (inside + a * outside, 1),
    )
    halving, doubling = (Line(rounds=lay.bits, hops=away, load=load) for load in (halved, doubled))
    # Every pair at once.
    busiest = crossing(w, lay)
    at_once = functools.partial(Line, rounds=1.0, hops=far)
    direct = at_once(load=busiest * (1 / n))
    scatter = at_once(load=(n - 1) / (n * jnp.maximum(degree(w, lay), 1)))
    by_switches = at_once(load=1.0, absent=jnp.logical_not(on.switches_add))
    found = Lines(
        gather={"ring": ring, "halving": halving, "direct": direct},
        all_reduce={
            "ring": ring * 2,
            "rabenseifner": halving * 2,
            "doubling": doubling,
            "double-tree": Line(
                rounds=lay.bits, hops=away, load=1.0, times=2.0, absent=jnp.logical_not(w.tree)
            ),
            "one-shot": at_once(load=busiest),
            "two-shot": direct * 2,
            "in-network": by_switches,
        },
        broadcast={
            "binomial": Line(rounds=lay.bits, hops=away, load=lay.bits),
            "scatter-gather": scatter + direct,
            "scatter-ring": scatter + ring,
            "multicast": by_switches,
        },
        exchange=at_once(load=busiest / jnp.maximum(n - 1, 1)),
        neighbour_hops=jnp.where(
            jnp.logical_and(w.tree, n > 1), ring.hops * (1 / jnp.maximum(n - 1, 1e-6)), 1
        ),
        mean_hops=mean_hops(w, lay),
    )
    return jax.tree.map(stop_gradient, found)


def duration(line: Line, on: Level, size: Scalar) -> Scalar:
    """Seconds that one algorithm takes for a vector of `size` bytes."""
    return line.seconds(on.round, on.hop, size * on.per_byte)


def fastest(options: dict[str, Line], on: Level, size: Scalar, tau: Scalar) -> Scalar:
    """Take the least time of several algorithms, smooth above tau = 0."""
    return _fastest(list(options.values()), on.round, on.hop, size * on.per_byte, tau)


@jax.custom_jvp
def _fastest(options: list[Line], o: Scalar, t: Scalar, x: Scalar, tau: Scalar) -> Scalar:
    return _stages(options, o, t, x, tau)[0]


def _stages(
    options: list[Line], o: Scalar, t: Scalar, x: Scalar, tau: Scalar
) -> tuple[Scalar, list[Scalar], Scalar]:
    return smooth.least_stages([line.seconds(o, t, x) for line in options], tau)


@_fastest.defjvp
def _fastest_jvp(primals: Any, tangents: Any) -> Any:
    # However many algorithms there are, the time is that of one with the mixture of their rounds, hops and loads.
    (options, o, t, x, tau), (_, do, dt, dx, dtau) = primals, tangents
    found, slopes, in_tau = _stages(options, o, t, x, tau)
    shares = [slope * line.times for slope, line in zip(slopes, options, strict=True)]
    mixture = [
        sum(share * getattr(line, name) for share, line in zip(shares, options, strict=True))
        for name in ("rounds", "hops", "load")
    ]
    (rounds, hops, load), in_tau = once((mixture, in_tau), opaque_one(o))
    return found, rounds * do + hops * dt + load * dx + in_tau * dtau
