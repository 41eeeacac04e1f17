"""What a library's collectives take within a domain: rings, its own all-reduce, and all-to-alls of experts.

Symbols: n ranks; S bytes of the whole vector on a rank; b seconds a byte takes over a link, t a hop; W bandwidth of
memory, of which one of c cores moves W / c.

    S(launch + rounds round + hops t,  load S b (n / 2)^crowd / share + (copies own + staging) S / W,  change)

with rounds, hops and load of a ring: n - 1 rounds for a gather or its mirror, twice that for an all-reduce, and own
= 1 / n, the part that a rank copies to itself. S(a, b, s) is `smooth.maximum`: the sum at s = 1. Above it small
messages take s^2 more a byte and large ones s^2 more to start: libraries send small messages by a protocol with
less latency and less bandwidth, and one number stands for its change to the other. (n / 2)^crowd is for ranks that
share a bus of the host.

A library's own all-reduce is the faster of one shot, in which every rank sends all to each other, one message after
another, and two, and gives way to the ring at large sizes:

    quick + w max(ring + floor launch + staging S / W - quick, 0),   w = 1 / (1 + (limit / S)^8)

Experts' all-to-all of m tokens a rank, k of E experts each, rows of r bytes, of which `away` leave the rank:

    S(launch + expert E + hops t + chunk r c / W,   S(m away r b / share, m n k / E r receiver c / W, 0.2),   change)

where away = k (n - 1) / n with a copy for every expert, else (n - 1) / n of the ranks that a token's experts fall
into. With ideal kernels these are the roofline of the ring and of the exchange.
"""

from typing import Any

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.kernels.matmul import shares_of_cache
from jaxcost.physics.network.algorithms import CollectiveCost
from jaxcost.physics.network.levels import Level
from jaxcost.spec.kernels import AllToAllKernel, CollectiveKernel, CustomAllReduceKernel, Kernels

__all__ = [
    "AllToAllWork",
    "CollectiveBackend",
    "CollectiveWork",
    "Exchange",
    "all_reduce_seconds",
    "all_to_all_seconds",
    "collective_backend",
    "collective_seconds",
    "custom_all_reduce_seconds",
    "exchange_of",
    "exchange_seconds",
    "ring_work",
    "shot_works",
    "without_all_reduce",
]

_SHARPNESS = 8.0  # of the change to the ring: from 10% to 90% between 0.76 and 1.32 of the limit
_BOTH_ENDS = 0.2  # how little sending and unpacking overlap


@pytree
class CollectiveWork:
    """A collective of one algorithm: what it takes at the datasheet's rates."""

    ranks: Scalar = field("1", "ranks n")
    rounds: Scalar = field("1", "messages of a rank one after the other")
    hops: Scalar = field("s", "time on wires and in switches of messages that wait for each other")
    link: Scalar = field("s", "bytes over the busiest link")
    own: Scalar = field("s", "bytes of a rank's own part, at the bandwidth of memory")
    whole: Scalar = field("s", "bytes of the vector, at the bandwidth of memory")


@pytree
class AllToAllWork:
    """A dispatch or a combination of tokens among the ranks that share experts."""

    ranks: Scalar = field("1", "ranks n")
    tokens: Scalar = field("1", "tokens m of a rank")
    top_k: Scalar = field("1", "experts k of a token")
    experts: Scalar = field("1", "experts E of all ranks")
    row: Scalar = field("s", "bytes of a token, at the bandwidth of one core")
    link: Scalar = field("s", "bytes that leave a rank, at the bandwidth of its link")
    hops: Scalar = field("s", "time on wires and in switches")


@pytree
class CollectiveBackend:
    """The calibrated kernels of a library that send messages within a domain."""

    collective: CollectiveKernel | None = field(doc="rings", default=None)
    all_reduce: CustomAllReduceKernel | None = field(doc="the library's own all-reduce", default=None)
    dispatch: AllToAllKernel | None = field(doc="tokens to their experts", default=None)
    combine: AllToAllKernel | None = field(doc="results back", default=None)
    seconds_per_byte: Scalar = field("s/B", "memory of a chip", default=0.0)
    cores: Scalar = field(
        "1", "cores of a chip; 0 where not known: what one core moves takes no time", default=0.0
    )


@pytree
class Exchange:
    """A dispatch of tokens to experts, or a combination of their results, with the kernel that carries it."""

    kernel: AllToAllKernel | CollectiveKernel = field(doc="the kernel: of its own, or of collectives")
    tokens: Scalar = field("1", "tokens of a rank")
    top_k: Scalar = field("1", "experts of a token")
    experts: Scalar = field("1", "experts of all ranks")
    row: Scalar = field("s", "bytes of a token, at the bandwidth of one core")
    seconds_per_byte: Scalar = field("s/B", "memory of a chip")

    @property
    def every_expert(self) -> Scalar:
        """1 where a token is sent once for every expert."""
        return self.kernel.copies if isinstance(self.kernel, AllToAllKernel) else 0.0


def collective_backend(
    kernels: Kernels | None, seconds_per_byte: Scalar, cores: Scalar
) -> CollectiveBackend | None:
    """Collect the kernels that send messages; None where none is calibrated, and closed forms stay."""
    if kernels is None:
        return None
    fitted = {name: getattr(kernels, name) for name in ("collective", "all_reduce", "dispatch", "combine")}
    if all(kernel is None for kernel in fitted.values()):
        return None
    return CollectiveBackend(seconds_per_byte=seconds_per_byte, cores=cores, **fitted)


def without_all_reduce(backend: CollectiveBackend | None) -> CollectiveBackend | None:
    """Leave out the library's own all-reduce, which serves tensor-parallel groups alone."""
    if backend is None or backend.collective is None:
        return None
    return replace(backend, all_reduce=None)


def collective_seconds(kernel: CollectiveKernel, work: CollectiveWork) -> Any:
    """Time a collective of one algorithm."""
    crowd = (jnp.maximum(work.ranks, 2) / 2) ** kernel.contention_exponent
    waiting = kernel.launch + work.rounds * kernel.round + work.hops
    moving = work.link * crowd / kernel.share + kernel.copies * work.own + kernel.staging * work.whole
    return smooth.maximum(waiting, moving, kernel.protocol_switch)


def custom_all_reduce_seconds(
    kernel: CustomAllReduceKernel, one: CollectiveWork, two: CollectiveWork, size: Scalar, ring: Scalar
) -> Any:
    """Time a library's own all-reduce of `size` bytes in one or two shots; the ring takes `ring` seconds."""
    quick = jnp.minimum(collective_seconds(kernel, one), collective_seconds(kernel, two))
    over = shares_of_cache(kernel.limit, jnp.maximum(size, 1), _SHARPNESS)
    bulk = ring + kernel.floor * kernel.launch + kernel.staging * one.whole
    return quick + over * jnp.maximum(bulk - quick, 0)


def all_to_all_seconds(kernel: AllToAllKernel, work: AllToAllWork) -> Any:
    """Time a dispatch or a combination."""
    waiting = kernel.launch + kernel.expert * work.experts + work.hops + kernel.chunk * work.row
    expert_rows = work.tokens * work.ranks * smooth.safe_div(work.top_k, work.experts)
    moving = smooth.maximum(work.link / kernel.share, expert_rows * work.row * kernel.receiver, _BOTH_ENDS)
    return smooth.maximum(waiting, moving, kernel.protocol_switch)


def exchange_of(
    backend: CollectiveBackend | None,
    phase: str,
    tokens: Scalar,
    top_k: Scalar,
    experts: Scalar,
    row_bytes: Scalar,
) -> Exchange | None:
    """Describe the dispatch or the combination that a backend sends; None where it sends none."""
    if backend is None:
        return None
    kernel = backend.dispatch if phase == "dispatch" else backend.combine
    kernel = backend.collective if kernel is None else kernel
    if kernel is None:
        return None
    return Exchange(
        kernel=kernel,
        tokens=tokens,
        top_k=top_k,
        experts=experts,
        row=row_bytes * backend.seconds_per_byte * backend.cores,
        seconds_per_byte=backend.seconds_per_byte,
    )


def exchange_seconds(
    exchange: Exchange,
    size: Scalar,
    per_byte: Scalar,
    hops: Scalar,
    *,
    ranks: Scalar,
    domain_ranks: Scalar,
    peak: Scalar,
) -> Any:
    """Time an exchange within a domain.

    Args:
        exchange: the exchange, with its kernel.
        size: bytes that the busiest rank sends, or receives.
        per_byte: seconds a byte on the busiest link.
        hops: seconds on wires and in switches of one message.
        ranks: of the whole group.
        domain_ranks: of the domain.
        peak: what the busiest rank receives, in that of an average one.
    """
    if isinstance(exchange.kernel, CollectiveKernel):
        others = jnp.maximum(domain_ranks, 2) - 1
        own = size / others * exchange.seconds_per_byte
        work = CollectiveWork(
            ranks=domain_ranks,
            rounds=others,
            hops=others * hops,
            link=size * per_byte,
            own=own,
            whole=own * (others + 1),
        )
        return collective_seconds(exchange.kernel, work)
    work = AllToAllWork(
        ranks=ranks,
        tokens=exchange.tokens * peak,
        top_k=exchange.top_k,
        experts=exchange.experts,
        row=exchange.row,
        link=size * per_byte,
        hops=hops,
    )
    return all_to_all_seconds(exchange.kernel, work)


def ring_work(
    cost: CollectiveCost,
    level: Level,
    size: Scalar,
    ranks: Scalar,
    seconds_per_byte: Scalar,
    times: float = 1.0,
) -> CollectiveWork:
    """Work of a ring that gathers, or done twice of one that sums, a vector of `size` bytes over a level.

    Args:
        cost: the ring's rounds, hops and load.
        level: the level.
        size: bytes of the whole vector.
        ranks: ranks on it.
        seconds_per_byte: memory of a chip.
        times: how often it is done: 2 for an all-reduce.
    """
    return CollectiveWork(
        ranks=ranks,
        rounds=times * cost.rounds,
        hops=times * cost.hops * level.hop,
        link=times * cost.load * (size * level.per_byte),
        own=size / jnp.maximum(ranks, 1) * seconds_per_byte,
        whole=size * seconds_per_byte,
    )


def shot_works(
    cost: CollectiveCost, level: Level, size: Scalar, ranks: Scalar, seconds_per_byte: Scalar
) -> tuple[CollectiveWork, CollectiveWork]:
    """Work of an all-reduce in one shot, whose hops and load are given, and in two of a share each."""
    others = jnp.maximum(ranks, 1) - 1
    one, two = (
        CollectiveWork(
            ranks=ranks,
            rounds=shots * others,
            hops=shots * cost.hops * level.hop,
            link=load * (size * level.per_byte),
            own=size / jnp.maximum(ranks, 1) * seconds_per_byte,
            whole=size * seconds_per_byte,
        )
        for shots, load in ((1, cost.load), (2, 2 * cost.load / jnp.maximum(ranks, 1)))
    )
    return one, two


def all_reduce_seconds(
    backend: CollectiveBackend,
    ring: CollectiveCost,
    one_shot: CollectiveCost,
    level: Level,
    size: Scalar,
    ranks: Scalar,
    scattered: Scalar,
    closed: Scalar,
) -> Any:
    """Time an all-reduce on one level, or where `scattered` its two halves, which are collectives of their own.

    Args:
        backend: the kernels.
        ring: a gather by the ring of the level.
        one_shot: its all-reduce in one shot.
        level: the level.
        size: bytes of the vector.
        ranks: ranks on it.
        scattered: 1 where the vector stays cut between the halves.
        closed: seconds of the fastest algorithm, with its start, where rings are not calibrated.
    """
    whole = halves = closed
    if backend.collective is not None:
        whole, half = (
            collective_seconds(
                backend.collective, ring_work(ring, level, size, ranks, backend.seconds_per_byte, times)
            )
            for times in (2.0, 1.0)
        )
        halves = 2 * half
    if backend.all_reduce is not None:
        shots = shot_works(one_shot, level, size, ranks, backend.seconds_per_byte)
        whole = custom_all_reduce_seconds(backend.all_reduce, *shots, size, whole)
    return jnp.where(scattered < 0.5, whole, halves)
