"""The levels of a fabric (package, scale-up domain, scale-out network), with the cost of a round, a hop and a byte.

A table of levels has them as an axis before those of the batch: `[levels, *batch]`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcost.core import arrays, smooth
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.network.topology import Topology, degree, lay_out_ranks, read_topology, switch_tiers
from jaxcost.spec.fabric import Fabric, Link
from jaxcost.spec.kernels import InternodeKernel
from jaxcost.spec.memory import Memory
from jaxcost.spec.system import System

__all__ = [
    "DOMAIN",
    "NETWORK",
    "Level",
    "domain_chips",
    "fabric_levels",
    "level_axis",
    "link_level",
    "shift_levels",
    "sum_over_levels",
    "system_levels",
    "take_level",
    "with_level_axis",
]

DOMAIN, NETWORK = 1, 2  # places of the scale-up domain and of the scale-out network among the levels
_BUSIEST = 0.999  # upper bound of the share of a link that other traffic takes
_UNLIMITED = 1e30  # chips
_USED = "bandwidth latency overhead launch topology dimensions radix taper in_network sram_landing background".split()


@pytree
class Level:
    """The unit costs of one level of a fabric, or of a table of levels."""

    topology: Topology = field(doc="the topology")
    size: Scalar = field("1", "units of the level in the system: chips, packages or domains")
    reach: Scalar = field("1", "largest group of chips without messages on outer levels", default=_UNLIMITED)
    launch: Scalar = field("s", "software time of starting a collective")
    round: Scalar = field("s", "software and landing time of one round of messages")
    hop: Scalar = field("s", "time of a hop, with the wait behind other traffic")
    per_byte: Scalar = field("s/B", "time per byte on one link of a chip, or on the port of a tree")
    switches_add: jax.Array = field("1", "true where switches reduce and multicast")

    @property
    def neighbour_hops(self) -> Scalar:
        """Hops to a neighbour: 1, or the way to the top of a tree and down."""
        up = arrays.where(self.size > 1, 2 * switch_tiers(self.topology, jnp.log2(self.size)), 0)
        return arrays.where(self.topology.is_tree, up, 1)


def link_level(
    link: Link,
    size: Scalar,
    fabric: Fabric,
    *,
    wired: Scalar | None = None,
    reach: Scalar = _UNLIMITED,
    efficiency: Scalar = 1.0,
    memory: Memory | None = None,
) -> Level:
    """Return the unit costs of a level; a level without bandwidth costs nothing and is never used.

    Background traffic of share x takes x of the bandwidth, and a hop waits on average for x / (2 (1 - x)) background
    messages (M/D/1 queue: Kleinrock 1975). Messages that land in main memory are written and read there, with the
    latency and the bandwidth of both.

    Args:
        link: the link, or a table of links.
        size: units of the level in the system.
        fabric: the fabric.
        wired: units that the level is built for, over whose links the bandwidth of a chip is divided; None for `size`.
        reach: largest group of chips without messages on outer levels.
        efficiency: achieved share of the bandwidth.
        memory: memory in which messages land that do not land in on-chip memory; None to neglect landing.
    """
    topology = read_topology(link)
    built = size if wired is None else jnp.maximum(wired, size)
    links = jnp.maximum(degree(lay_out_ranks(topology, built, built)), 1)
    busy = arrays.clip(link.background, 0, _BUSIEST)
    left = efficiency * (1 - busy)
    chip_per_byte = smooth.safe_div(1.0, link.bandwidth * left)
    wait = busy / 2 * efficiency * fabric.background_message * links * chip_per_byte
    memory = Memory() if memory is None else memory
    in_dram = 1 - link.sram_landing
    landing = in_dram * smooth.safe_div(2.0, memory.bandwidth)
    return Level(
        topology=topology,
        size=size,
        reach=reach,
        launch=link.launch,
        round=link.overhead + in_dram * (2 * memory.latency),
        hop=link.latency + wait,
        per_byte=jnp.maximum(chip_per_byte, landing * (link.bandwidth > 0)) * links,
        switches_add=topology.is_tree & (link.in_network > 0.5),
    )


def domain_chips(fabric: Fabric) -> Scalar:
    """Count the chips of a complete scale-up domain, at least one package."""
    return jnp.maximum(fabric.domain, fabric.package_chips)


def fabric_levels(
    fabric: Fabric,
    chips: Scalar,
    *,
    efficiency: Scalar = 1.0,
    memory: Memory | None = None,
    internode: InternodeKernel | None = None,
) -> Level:
    """Return the package, scale-up and scale-out levels of a system of `chips`: a table `[levels, *batch]`.

    Args:
        fabric: the fabric.
        chips: chips of the system.
        efficiency: achieved share of the bandwidth, on all levels.
        memory: memory in which messages land; None to neglect landing.
        internode: what a communication library adds to messages between domains; None for those of the link alone.
    """
    package = jnp.minimum(fabric.package_chips, chips)
    domain = arrays.clip(fabric.domain, package, jnp.maximum(chips, package))
    in_package, in_domain = jnp.maximum(fabric.package_chips, 1), domain_chips(fabric)
    links = fabric.package, fabric.scale_up, fabric.scale_out
    table = Link(**{name: arrays.stack([getattr(link, name) for link in links]) for name in _USED})
    levels = link_level(
        table,
        arrays.stack([package, domain / package, chips / domain]),
        fabric,
        wired=arrays.stack([fabric.package_chips, in_domain / in_package, 0.0]),
        reach=arrays.stack([in_package, jnp.maximum(in_domain, in_package), _UNLIMITED]),
        efficiency=efficiency,
        memory=memory,
    )
    if internode is None:
        return levels
    outside = arrays.column([k > DOMAIN for k in range(len(links))], levels.hop)
    return replace(
        levels,
        round=levels.round + outside * internode.round,
        per_byte=levels.per_byte / (1 - outside * (1 - internode.share)),
    )


def system_levels(system: System) -> Level:
    """Return the levels of a system: its fabric with the achieved shares, the library and the memory of its chips."""
    chip = system.chip
    return fabric_levels(
        system.fabric,
        system.chips,
        efficiency=chip.efficiency.link,
        memory=chip.memory,
        internode=chip.efficiency.internode,
    )


def take_level(levels: Level, index: int) -> Level:
    """Take one level of a table."""
    return jax.tree.map(lambda x: arrays.row(x, index), levels)


def with_level_axis(x: Scalar, levels: Level) -> jax.Array:
    """Insert an axis that broadcasts against a table of levels: `[*axes, *batch]` to `[*axes, 1, *batch]`."""
    x = jnp.asarray(x)
    return lax.expand_dims(x, (max(x.ndim - np.ndim(levels.hop) + 1, 0),))


def level_axis(x: Scalar, levels: Level) -> int:
    """Return the index of the axis of levels in a table `[*axes, levels, *batch]`."""
    return np.ndim(x) - np.ndim(levels.hop)


def shift_levels(x: Scalar, levels: Level, first: float) -> jax.Array:
    """Shift a table `[*axes, levels, *batch]` outwards by one level, with `first` on the innermost level."""
    x, axis = jnp.asarray(x), level_axis(x, levels)
    return lax.pad(
        x, jnp.asarray(first, x.dtype), [(int(k == axis), -int(k == axis), 0) for k in range(x.ndim)]
    )


def sum_over_levels(x: Scalar, levels: Level) -> jax.Array:
    """Sum a table `[*axes, levels, *batch]` over the levels."""
    return jnp.sum(x, level_axis(x, levels))
