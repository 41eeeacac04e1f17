"""Time and traffic of the messages between chips.

A group that spans levels (within a package, a domain, across domains) reduces and gathers on the inner ones around
an all-reduce of its share on the outermost, or repeats an all-reduce of everything on each (by doubling, in one shot
or in the network); the faster is taken. Within a domain a calibrated library takes its own way and time.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.fence import once, opaque_one
from jaxcost.core.loop import over
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.algorithms import Line, duration, fastest, lines
from jaxcost.physics.collective_kernel import (
    Carrier,
    Exchange,
    all_reduce_seconds,
    exchange_seconds,
)
from jaxcost.physics.levels import Level, domain_chips
from jaxcost.physics.reliability import straggler_wait
from jaxcost.spec.fabric import Fabric

__all__ = [
    "Communicator",
    "Message",
    "RankGroup",
    "all_reduce",
    "all_reduces",
    "all_to_alls",
    "broadcast",
    "communicator",
    "gather",
    "point_to_point",
]


@pytree
class Message:
    """What one message or collective costs one rank. Bytes are counted once for every hop they travel."""

    seconds: Scalar = field("s", "duration", default=0.0)
    package_bytes: Scalar = field("B", "bytes times hops within packages", default=0.0)
    scale_up_bytes: Scalar = field("B", "bytes times hops within domains", default=0.0)
    scale_out_bytes: Scalar = field("B", "bytes times hops between domains", default=0.0)


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
        return jnp.clip(chips / self.stride, 1, self.ranks) * jnp.clip(chips / self.every, 1, self.repeats)


@pytree
class Communicator:
    """A group as it lies on a fabric."""

    ranks: Scalar = field("1", "ranks in the group")
    counts: tuple[Scalar, ...] = field(doc="ranks that meet within a package, a domain, and across domains")
    launches: tuple[Scalar, ...] = field(doc="seconds of starting a collective, on every level it spans")
    wait: Scalar = field("s", "the wait for the last rank")

    def start(self, calibrated: bool = False) -> Scalar:
        """Seconds before anything moves; of kernels that are calibrated, but for what they start within a domain."""
        package, domain, outside = self.launches
        return (package + outside if calibrated else package + domain + outside) + self.wait


def communicator(group: RankGroup, fabric: Fabric, on: tuple[Level, ...]) -> Communicator:
    """Place a group on a fabric: as much of it as possible within a package, then within a domain."""
    inner = group.within(jnp.maximum(fabric.package_chips, 1))
    both = jnp.maximum(group.within(domain_chips(fabric)), inner)
    counts = once((inner, both / inner, group.total / both), opaque_one(inner))
    launched = [jnp.where(n > 1, place.launch, 0) for n, place in zip(counts, on, strict=True)]
    return Communicator(
        ranks=group.total,
        counts=counts,
        launches=tuple(launched),
        wait=straggler_wait(group.total, fabric.jitter, fabric.timeout),
    )


def all_reduce(
    size: Scalar, among: Communicator, on: tuple[Level, ...], tau: Scalar, *, scattered: Scalar = 0.0
) -> Message:
    """Sum a vector of S bytes over a group of ranks; `scattered=1` in two halves, between which it stays cut."""
    ((message,),) = all_reduces([(among, (size,), scattered)], on, tau)
    return message


def all_reduces(
    wanted: Sequence[tuple[Communicator, Sequence[Scalar], Scalar]],
    on: tuple[Level, ...],
    tau: Scalar,
    carriers: Sequence[Carrier | None] = (),
) -> list[list[Message]]:
    """Time several sums at once, as [(group, sizes, 1 where scattered)]: a compiled loop over groups and levels.

    `carriers` are the calibrated kernels that each goes by within a domain.
    """
    carriers = carriers or [None] * len(wanted)
    calibrated = any(by is not None for by in carriers)
    places = []
    for among, sizes, scattered in wanted:
        held = tuple(sizes)
        for n, place, last in zip(among.counts, on, _outermost(among, scattered), strict=True):
            places.append((place, n, last, tuple(sizes), held))
            held = tuple(size / n for size in held)

    def meet(
        x: tuple[Level, Scalar, Scalar, tuple[Scalar, ...], tuple[Scalar, ...]],
    ) -> tuple[Any, Scalar, Any]:
        place, n, last, sizes, held = x
        found, here = lines(place, n), n > 1
        times = [
            [
                jnp.where(here, fastest(options, place, size, tau), 0)
                for options, size in ((found.quick(), s), (found.sums(last), h))
            ]
            for s, h in zip(sizes, held, strict=True)
        ]
        own = (found.gather["ring"], found.all_reduce["one-shot"]) if calibrated else ()
        return times, found.neighbour_hops, own

    found = over(meet, places)
    out = []
    for i, ((among, sizes, scattered), by) in enumerate(zip(wanted, carriers, strict=True)):
        levels, sums = found[3 * i : 3 * i + 3], []
        for k, size in enumerate(sizes):
            times = [(t[k], hops) for t, hops, _ in levels]
            if by is not None:
                (closed, hops), found_there = times[1], levels[1][2]
                times[1] = _carried(by, among, size, scattered, on[1], closed, found_there), hops
            sums.append(_sum_up(among, size, scattered, on, times, tau, calibrated=by is not None))
        out.append(sums)
    return out


def _carried(
    by: Carrier,
    among: Communicator,
    size: Scalar,
    scattered: Scalar,
    place: Level,
    closed: Sequence[Scalar],
    found: tuple[Line, Line],
) -> list[Scalar]:
    """Time an all-reduce of everything within a domain, and one of what the package leaves of it."""
    inner, n, _ = among.counts
    launch = jnp.where(scattered < 0.5, 1, 2) * place.launch
    return [
        jnp.where(n > 1, all_reduce_seconds(by, found, place, s, n, scattered, seconds + launch), 0)
        for s, seconds in zip((size, size / inner), closed, strict=True)
    ]


def _outermost(among: Communicator, scattered: Scalar) -> tuple[Scalar, ...]:
    """Tell for every level whether the vector is reduced as a whole there; within it, in two halves."""
    _, middle, outer = among.counts
    whole = jnp.less(scattered, 0.5)
    return ~((middle > 1) | (outer > 1)) & whole, ~(outer > 1) & whole, whole


def _sum_up(
    among: Communicator,
    size: Scalar,
    scattered: Scalar,
    on: tuple[Level, ...],
    times: Sequence[tuple[Sequence[Scalar], Scalar]],
    tau: Scalar,
    *,
    calibrated: bool,
) -> Message:
    """Reduce and gather on the inner levels around the outermost, or repeat all on each."""
    whole = scattered < 0.5
    held, by_shares, of_all, used, sent = size, 0.0, 0.0, 0.0, []
    outermost = _outermost(among, scattered)
    for place, n, last, ((everything, share), hops) in zip(on, among.counts, outermost, times, strict=True):
        by_shares = by_shares + share
        of_all = of_all + everything
        used = used + (n > 1)
        travelled = jnp.where(
            jnp.logical_and(place.switches_add, last), held * (n > 1), 2 * (held - held / n)
        )
        sent.append(travelled * hops)
        held = held / n
    together = jnp.where((used > 1) & whole, smooth.least([by_shares, of_all], tau), by_shares)
    start = jnp.where(whole, 1, 2) * among.start(calibrated)
    return _message(jnp.where(among.ranks > 1, start + together, 0), sent)


def _message(seconds: Scalar, sent: Sequence[Scalar]) -> Message:
    return Message(seconds=seconds, package_bytes=sent[0], scale_up_bytes=sent[1], scale_out_bytes=sent[2])


def gather(size: Scalar, among: Communicator, on: tuple[Level, ...], tau: Scalar) -> Message:
    """All-gather a vector of S bytes in all, or reduce-scatter one: half of a scattered all-reduce."""
    both = all_reduce(size, among, on, tau, scattered=1.0)
    return Message(**{name: value / 2 for name, value in vars(both).items()})


def all_to_alls(
    wanted: Sequence[Sequence[Scalar]],
    among: Communicator,
    on: tuple[Level, ...],
    hottest: Sequence[Scalar],
    exchanges: Sequence[Exchange | None] = (),
) -> list[Message]:
    """Send different bytes to every rank of a group, all pairs at once, level by level; several such exchanges.

    Args:
        wanted: for each exchange, the bytes that a rank sends to others on each level.
        among: the group.
        on: the levels.
        hottest: for each exchange, the bytes that the busiest rank receives, in those of an average one.
        exchanges: for each, what carries it within a domain, where that is calibrated.
    """

    carried = any(by is not None for by in exchanges)

    def meet(x: tuple[Level, Scalar]) -> tuple[Scalar, Scalar, Scalar, Scalar]:
        place, n = x
        found, here = lines(place, n), n > 1
        empty = duration(found.exchange, place, 0.0)
        hops = found.exchange.hops * place.hop if carried else 0.0
        return jnp.where(here, empty, 0), found.exchange.load * place.per_byte * here, found.mean_hops, hops

    found = over(meet, list(zip(on, among.counts, strict=True)))
    messages = []
    for sizes, peak, by in zip(wanted, hottest, exchanges or [None] * len(wanted), strict=True):
        times = [a + b * (size * peak) for (a, b, *_), size in zip(found, sizes, strict=True)]
        if by is not None:
            _, per_byte, _, hops = found[1]
            n = among.counts[1]
            there = exchange_seconds(
                by, sizes[1] * peak, per_byte, hops, ranks=among.ranks, near=n, peak=peak
            )
            times[1] = jnp.where(n > 1, there, 0)
        sent = [size * hops for (_, _, hops, _), size in zip(found, sizes, strict=True)]
        start = among.start(by is not None)
        messages.append(_message(jnp.where(among.ranks > 1, start + sum(times), 0), sent))
    return messages


def broadcast(size: Scalar, among: Communicator, on: tuple[Level, ...], tau: Scalar) -> Message:
    """Send S bytes of one rank to all others: to one of every domain, then of every package, then within."""
    seconds, sent = 0.0, []
    for place, n in zip(on, among.counts, strict=True):
        found = lines(place, n)
        seconds = seconds + jnp.where(n > 1, fastest(found.broadcast, place, size, tau), 0)
        sent.append(size * (n - 1) / n * found.neighbour_hops)
    return _message(jnp.where(among.ranks > 1, among.start() + seconds, 0), sent)


def point_to_point(size: Scalar, span: Scalar, fabric: Fabric, on: tuple[Level, ...]) -> Message:
    """Send S bytes to a neighbour, over the innermost level that holds a group of `span` chips.

    Launch + o + k t + S b: one hop on a grid, between the fully connected and in a dragonfly; through a tree, to
    its top and down.
    """
    outside = span > domain_chips(fabric)
    inside = span <= fabric.package_chips
    places = (inside, ~inside & ~outside, outside)
    seconds, sent = 0.0, []
    for here, place in zip(places, on, strict=True):
        delay = place.launch + place.round + place.neighbour_hops * place.hop + size * place.per_byte
        seconds = seconds + jnp.where(here, delay, 0)
        sent.append(jnp.where(here, size * place.neighbour_hops, 0))
    return _message(seconds, sent)
