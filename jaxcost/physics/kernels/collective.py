"""The timing of a library's collectives within a scale-up domain: rings, custom all-reduces, all-to-alls of experts.

Symbols: n ranks; S bytes of the whole vector on a rank; b seconds per byte on a link, t seconds per hop; W bandwidth of
memory, of which one of c cores reaches W / c. S(a, b, s) is `smooth.maximum`, the sum at s = 1.

    S(launch + rounds round + hops t,
      load S b (n / 2)^contention_exponent / share + (copies own + staging) S / W,   protocol_switch)

where launch and round take as many cycles on every chip, with the rounds, hops and load of a ring: n - 1 rounds for an
all-gather or a reduce-scatter, twice that for an all-reduce, and own = 1 / n, the shard that a rank copies to itself.
Libraries send small messages by a protocol of lower latency and lower bandwidth. With s = protocol_switch above 1,
small messages cost s^2 more per byte and large messages s^2 more to start, which models both protocols with one number.
(n / 2)^contention_exponent models ranks that share a bus of the host.

A custom all-reduce takes the faster of one shot, in which every rank sends its vector to all others one after another,
and two shots, and changes to the ring at large sizes:

    shots + w max(ring + floor launch + staging S / W - shots, 0),   w = 1 / (1 + (limit / S)^8)

An all-to-all of experts sends m tokens of a rank to k of E experts each, in rows of r bytes. On N nodes of g ranks, a
token sends `away` rows to other ranks of a node, at b seconds per byte, and `far` rows to other nodes, at b':

    S(launch + expert E + hops t + chunk r c / W + delay' + internode_round log2 N,
      S(S(m (away + forwarding far) r b / share, m n k / E r receiver c / W, 0.2), m far r b' / internode_share, 0.05),
      protocol_switch)

With one copy per expert, sent directly, away = k (g - 1) / n and far = k (n - g) / n, and nothing is forwarded. Else
a token is sent once to every node that holds some of its experts, and forwarded to such ranks there: away = (g - 1) / g
times the ranks, and far = (N - 1) / N times the nodes, that hold some. delay' is the latency of the network.
With ideal kernels these are the rooflines of the ring and of the exchange.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import where
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.kernels.matmul import cached_share
from jaxcost.physics.network.algorithms import CollectiveCost
from jaxcost.physics.network.levels import Level
from jaxcost.spec.fabric import Fabric, topology_id
from jaxcost.spec.kernels import (
    AllToAllKernel,
    CollectiveKernel,
    CustomAllReduceKernel,
    InternodeKernel,
    Kernels,
)

__all__ = [
    "CLOCK",
    "AllToAllWork",
    "CollectiveBackend",
    "CollectiveWork",
    "Exchange",
    "all_reduce_seconds",
    "all_to_all_seconds",
    "at_clock",
    "collective_backend",
    "collective_seconds",
    "custom_all_reduce_seconds",
    "exchange_of",
    "exchange_seconds",
    "network_delay",
    "ring_exchange_seconds",
    "ring_work",
    "shares_bus",
    "shot_works",
    "without_all_reduce",
]

_SHARPNESS = 8.0  # the weight of the ring grows from 10% to 90% between 0.76 and 1.32 of the size limit
CLOCK = 1.98e9  # 1/s, at which launches and rounds are stated: the highest clock of an H100
_EXCHANGES = ("dispatch", "combine", "dispatch_low_latency", "combine_low_latency")
_BOTH_ENDS = 0.2  # how sending and unpacking combine: 0 where they overlap fully, 1 where not at all

_BOTH_LEVELS = 0.05  # the same of links within and between nodes


@pytree
class CollectiveWork:
    """The work of a collective by one algorithm, in seconds at datasheet rates."""

    ranks: Scalar = field("1", "ranks n")
    rounds: Scalar = field("1", "sequential messages of a rank")
    hops: Scalar = field("s", "time on wires and in switches on the critical path")
    link: Scalar = field("s", "time of the bytes on the busiest link")
    own: Scalar = field("s", "time of a rank's own shard at the bandwidth of memory")
    whole: Scalar = field("s", "time of the whole vector at the bandwidth of memory")


@pytree
class AllToAllWork:
    """The work of a dispatch or a combine among the ranks of an expert-parallel group."""

    ranks: Scalar = field("1", "ranks n")
    tokens: Scalar = field("1", "tokens m of a rank")
    top_k: Scalar = field("1", "experts k per token")
    experts: Scalar = field("1", "experts E of all ranks")
    row: Scalar = field("s", "time of a token's bytes at the memory bandwidth of one core")
    link: Scalar = field("s", "time of the bytes that leave a rank, on its link")
    hops: Scalar = field("s", "time on wires and in switches")
    nodes: Scalar = field("1", "nodes N of the group", default=1.0)
    far: Scalar = field(
        "s", "time of the bytes that leave a rank for other nodes, on the network", default=0.0
    )
    delay: Scalar = field("s", "latency of the network between nodes; 0 on one node", default=0.0)
    forwarded: Scalar = field(
        "s",
        "time of the bytes for other nodes that are forwarded there, on a link of the domain",
        default=0.0,
    )


@pytree
class CollectiveBackend:
    """The calibrated communication kernels of a library within a scale-up domain; None for closed forms."""

    collective: CollectiveKernel | None = field(doc="ring collectives", default=None)
    all_reduce: CustomAllReduceKernel | None = field(doc="custom all-reduce", default=None)
    dispatch: AllToAllKernel | None = field(doc="dispatch of tokens to experts", default=None)
    combine: AllToAllKernel | None = field(doc="combine of the experts' results", default=None)
    dispatch_low_latency: AllToAllKernel | None = field(doc="dispatch of steps without prompts", default=None)
    combine_low_latency: AllToAllKernel | None = field(doc="combine of steps without prompts", default=None)
    internode: InternodeKernel = field(
        doc="what rings add to messages between nodes", default=InternodeKernel
    )
    seconds_per_byte: Scalar = field("s/B", "time per byte of the memory of a chip", default=0.0)
    cores: Scalar = field(
        "1", "cores of a chip; 0 where unknown: work of a single core then takes no time", default=0.0
    )


@pytree
class Exchange:
    """A dispatch of tokens to experts, or a combine of their results, and the kernel that runs it."""

    kernel: AllToAllKernel | CollectiveKernel = field(
        doc="all-to-all kernel, or that of collectives without one"
    )
    tokens: Scalar = field("1", "tokens of a rank")
    top_k: Scalar = field("1", "experts per token")
    experts: Scalar = field("1", "experts of all ranks")
    row: Scalar = field("s", "time of a token's bytes at the memory bandwidth of one core")
    seconds_per_byte: Scalar = field("s/B", "time per byte of the memory of a chip")
    internode: InternodeKernel = field(doc="what rings add to messages between nodes")

    @property
    def every_expert(self) -> Scalar:
        """1 where a token is sent once per expert, 0 where once per rank."""
        return self.kernel.copies if isinstance(self.kernel, AllToAllKernel) else 0.0


def collective_backend(
    kernels: Kernels | None,
    seconds_per_byte: Scalar,
    cores: Scalar,
    *,
    shared_bus: Scalar = False,
    clock: Scalar = 0.0,
) -> CollectiveBackend | None:
    """Collect the calibrated communication kernels; None where there are none, so that closed forms apply.

    Args:
        kernels: the kernels of a library.
        seconds_per_byte: time per byte of the memory of a chip.
        cores: cores of a chip.
        shared_bus: true where the chips of a domain share the bus of a host (`shares_bus`).
        clock: clock of the cores, 1/s; 0 where unknown.
    """
    if kernels is None:
        return None
    fitted = {
        **{
            name: at_clock(
                _on_bus(getattr(kernels, name), getattr(kernels, f"{name}_shared_bus"), shared_bus), clock
            )
            for name in ("collective", "all_reduce")
        },
        **{name: getattr(kernels, name) for name in _EXCHANGES},
    }
    if all(kernel is None for kernel in fitted.values()):
        return None
    internode = InternodeKernel() if kernels.internode is None else kernels.internode
    return CollectiveBackend(seconds_per_byte=seconds_per_byte, cores=cores, internode=internode, **fitted)


def _on_bus(kernel: Any, on_bus: Any, shared: Scalar) -> Any:
    if kernel is None or on_bus is None:
        return kernel
    return jax.tree.map(lambda a, b: where(shared, b, a), kernel, on_bus)


def at_clock(kernel: Any, clock: Scalar) -> Any:
    """Return a kernel of collectives, or None, with the launch and the round that it has at a clock of the cores."""
    if kernel is None:
        return None
    slower = CLOCK / where(jnp.greater(clock, 0), clock, CLOCK)
    return replace(kernel, launch=kernel.launch * slower, round=kernel.round * slower)


def shares_bus(fabric: Fabric) -> Scalar:
    """Return true where the chips of a domain share PCIe bridges of a host; a switch gives each pair its own path."""
    return jnp.equal(fabric.scale_up.topology, topology_id("tree"))


def without_all_reduce(backend: CollectiveBackend | None) -> CollectiveBackend | None:
    """Return the backend without the custom all-reduce, which serves only tensor-parallel groups."""
    if backend is None or backend.collective is None:
        return None
    return replace(backend, all_reduce=None)


def collective_seconds(kernel: CollectiveKernel, work: CollectiveWork) -> Any:
    """Time a collective by one algorithm."""
    contention = (jnp.maximum(work.ranks, 2) / 2) ** kernel.contention_exponent
    waiting = kernel.launch + work.rounds * kernel.round + work.hops
    moving = work.link * contention / kernel.share + kernel.copies * work.own + kernel.staging * work.whole
    return smooth.maximum(waiting, moving, kernel.protocol_switch)


def custom_all_reduce_seconds(
    kernel: CustomAllReduceKernel, one: CollectiveWork, two: CollectiveWork, size: Scalar, ring: Scalar
) -> Any:
    """Time a custom all-reduce of `size` bytes in one or two shots, which changes to the ring of `ring` seconds."""
    shots = jnp.minimum(collective_seconds(kernel, one), collective_seconds(kernel, two))
    over = cached_share(kernel.limit, jnp.maximum(size, 1), _SHARPNESS)
    bulk = ring + kernel.floor * kernel.launch + kernel.staging * one.whole
    return shots + over * jnp.maximum(bulk - shots, 0)


def all_to_all_seconds(kernel: AllToAllKernel, work: AllToAllWork) -> Any:
    """Time a dispatch or a combine."""
    doublings = jnp.log2(jnp.maximum(work.nodes, 1))
    waiting = kernel.launch + kernel.expert * work.experts + work.hops + kernel.chunk * work.row
    waiting = waiting + work.delay + kernel.internode_round * doublings
    expert_rows = work.tokens * work.ranks * smooth.safe_div(work.top_k, work.experts)
    inside = (work.link + kernel.forwarding * work.forwarded) / kernel.share
    moving = smooth.maximum(inside, expert_rows * work.row * kernel.receiver, _BOTH_ENDS)
    moving = smooth.maximum(moving, work.far / kernel.internode_share, _BOTH_LEVELS)
    return smooth.maximum(waiting, moving, kernel.protocol_switch)


def network_delay(network: Level, cost: CollectiveCost, nodes: Scalar, round_: Scalar = 0.0) -> Any:
    """Return the latency of one message of an exchange between nodes, s; 0 on one node.

    Args:
        network: the level of the network.
        cost: hops of the exchange there.
        nodes: nodes of the group.
        round_: part of the level's round that belongs to another library.
    """
    return (nodes > 1) * (network.launch + network.round - round_ + cost.hops * network.hop)


def exchange_of(
    backend: CollectiveBackend | None,
    phase: str,
    tokens: Scalar,
    top_k: Scalar,
    experts: Scalar,
    row_bytes: Scalar,
    prompts: Scalar = True,
) -> Exchange | None:
    """Describe the dispatch or the combine (`phase`) of a backend; None where it has no kernel for it.

    `prompts` is true for steps with prompts; others use the kernels of low latency, where there are some.
    """
    if backend is None:
        return None
    kernel, quick = getattr(backend, phase), getattr(backend, f"{phase}_low_latency")
    if kernel is not None and quick is not None:
        kernel = jax.tree.map(lambda a, b: where(prompts, a, b), kernel, quick)
    kernel = quick if kernel is None else kernel
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
        internode=backend.internode,
    )


def ring_exchange_seconds(
    kernel: CollectiveKernel,
    seconds_per_byte: Scalar,
    size: Scalar,
    link: Scalar,
    hops: Scalar,
    ranks: Scalar,
) -> Any:
    """Time an exchange of every pair within a domain by the kernels of rings, which send to one rank at a time.

    Args:
        kernel: the kernel.
        seconds_per_byte: time per byte of the memory of a chip.
        size: bytes that the busiest rank sends or receives.
        link: seconds of these bytes on the busiest link.
        hops: seconds of one message on wires and in switches.
        ranks: ranks in the domain.
    """
    others = jnp.maximum(ranks, 2) - 1
    own = size / others * seconds_per_byte
    whole = own * (others + 1)
    work = CollectiveWork(ranks=ranks, rounds=others, hops=others * hops, link=link, own=own, whole=whole)
    return collective_seconds(kernel, work)


def exchange_seconds(
    exchange: Exchange,
    levels: tuple[Level, Level],
    costs: tuple[CollectiveCost, CollectiveCost],
    sizes: tuple[Scalar, Scalar],
    *,
    ranks: Scalar,
    nodes: Scalar,
    peak: Scalar,
) -> Any:
    """Time an exchange by a kernel for it, over the domain and the network between domains.

    Args:
        exchange: the exchange, with its kernel.
        levels: the domain and the network.
        costs: hops and load of an exchange on both.
        sizes: bytes that the busiest rank sends or receives on both.
        ranks: ranks of the group.
        nodes: domains of the group.
        peak: bytes that the busiest rank receives over the average.
    """
    domain, network = levels
    link, far = (
        size * cost.load * level.per_byte for size, cost, level in zip(sizes, costs, levels, strict=True)
    )
    rings = exchange.internode
    work = AllToAllWork(
        ranks=ranks,
        tokens=exchange.tokens * peak,
        top_k=exchange.top_k,
        experts=exchange.experts,
        row=exchange.row,
        link=link,
        hops=costs[0].hops * domain.hop,
        nodes=nodes,
        # The network's share and round are those of rings; the kernel has its own.
        far=far * rings.share,
        delay=network_delay(network, costs[1], nodes, rings.round),
        forwarded=where(exchange.every_expert > 0.5, 0.0, sizes[1] * costs[0].load * domain.per_byte),
    )
    return all_to_all_seconds(exchange.kernel, work)  # type: ignore[arg-type]


def ring_work(
    cost: CollectiveCost,
    level: Level,
    size: Scalar,
    ranks: Scalar,
    seconds_per_byte: Scalar,
    times: float = 1.0,
) -> CollectiveWork:
    """Return the work of a ring all-gather of a vector of `size` bytes over a level, repeated `times` times.

    Args:
        cost: rounds, hops and load of the ring.
        level: the level.
        size: bytes of the whole vector.
        ranks: ranks on the level.
        seconds_per_byte: time per byte of the memory of a chip.
        times: repetitions: 1 for an all-gather or reduce-scatter, 2 for an all-reduce.
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
    """Return the work of an all-reduce in one shot, with the hops and load in `cost`, and in two shots."""
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
    spans: Scalar = False,
) -> Any:
    """Time an all-reduce on one level, or where `scattered` a reduce-scatter and an all-gather.

    Args:
        backend: the kernels.
        ring: cost of a ring all-gather on the level.
        one_shot: cost of a one-shot all-reduce on the level.
        level: the level.
        size: bytes of the vector.
        ranks: ranks on the level.
        scattered: 1 where the vector stays sharded between the two halves.
        closed: seconds of the fastest closed form, launch included, where rings are not calibrated.
        spans: true where the group has ranks in several domains. Custom all-reduces need shared memory of one node, so
            that such groups use the ring of the communication library.
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
        custom = custom_all_reduce_seconds(backend.all_reduce, *shots, size, whole)
        whole = custom if backend.collective is None else jnp.where(spans, whole, custom)
    return jnp.where(scattered < 0.5, whole, halves)
