"""The levels of a fabric as messages see them: what a round, a hop and a byte cost on each."""

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.fence import once, opaque_one
from jaxcost.core.loop import over
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.topology import Wiring, degree, layout, tiers, wiring
from jaxcost.spec.fabric import Fabric, Link
from jaxcost.spec.memory import Memory

__all__ = ["Level", "domain_chips", "level", "levels"]

_BUSIEST = 0.999  # a link busier than this with other traffic is taken to be this busy


@pytree
class Level:
    """One level of a fabric as messages see it."""

    wiring: Wiring = field(doc="its family of topologies")
    size: Scalar = field("1", "units of the level that the system has: chips, packages or domains")
    launch: Scalar = field("s", "software time of starting a collective")
    round: Scalar = field("s", "software and landing time of one round of messages")
    hop: Scalar = field("s", "time of a hop, with the wait behind other traffic")
    per_byte: Scalar = field("s/B", "over one link of a chip, or the port of a tree")
    neighbour_hops: Scalar = field("1", "hops to a neighbour: one; through a tree, to its top and down")
    switches_add: Scalar = field("1", "true where switches reduce and multicast")


def level(
    link: Link,
    size: Scalar,
    fabric: Fabric,
    *,
    wired: Scalar | None = None,
    efficiency: Scalar = 1.0,
    memory: Memory | None = None,
) -> Level:
    """Work out a level's unit costs once; one without bandwidth costs nothing and is never used.

    Other traffic of share x takes x of the bandwidth, and a hop waits x / (2 (1 - x)) of its messages on average
    (M/D/1 queue: Kleinrock 1975). What lands in main memory is written and read there, with the
    latency and at the bandwidth of both.

    Args:
        link: the link.
        size: units of the level that the system has.
        fabric: the fabric.
        wired: units that the level is built for, among whose links a chip's bandwidth is divided; `size` if absent.
        efficiency: achieved share of the bandwidth.
        memory: where messages land that do not in on-chip memory; none if absent.
    """
    on = wiring(link)
    built = size if wired is None else jnp.maximum(wired, size)
    links = once(jnp.maximum(degree(on, layout(on, built, built)), 1), opaque_one(link.bandwidth))
    busy = jnp.clip(link.background, 0, _BUSIEST)
    chip_per_byte = smooth.safe_div(1.0, link.bandwidth * (efficiency * (1 - busy)))
    through = Memory() if memory is None else memory
    in_dram = 1 - link.sram_landing
    landing = in_dram * smooth.safe_div(2.0, through.bandwidth)
    chip_per_byte = jnp.maximum(chip_per_byte, jnp.where(link.bandwidth > 0, landing, 0))
    wait = busy / (2 * (1 - busy)) * smooth.safe_div(fabric.background_message * links, link.bandwidth)
    return Level(
        wiring=on,
        size=size,
        launch=link.launch,
        round=link.overhead + in_dram * (2 * through.latency),
        hop=link.latency + wait,
        per_byte=chip_per_byte * links,
        neighbour_hops=jnp.where(on.tree, jnp.where(size > 1, 2 * tiers(on, jnp.log2(size)), 0), 1),
        switches_add=jnp.logical_and(on.tree, link.in_network > 0.5),
    )


def domain_chips(fabric: Fabric) -> Scalar:
    """Count the chips of a whole scale-up domain: one package at least."""
    return jnp.maximum(fabric.domain, fabric.package_chips)


def levels(
    fabric: Fabric, chips: Scalar, *, efficiency: Scalar = 1.0, memory: Memory | None = None
) -> tuple[Level, ...]:
    """Describe the package, scale-up and scale-out levels of a system of `chips`."""
    package = jnp.minimum(fabric.package_chips, chips)
    domain = jnp.clip(fabric.domain, package, jnp.maximum(chips, package))
    built = domain_chips(fabric) / jnp.maximum(fabric.package_chips, 1)

    def one(of: tuple[Link, Scalar, Scalar]) -> Level:
        link, size, wired = of
        return level(link, size, fabric, wired=wired, efficiency=efficiency, memory=memory)

    return over(
        one,
        [
            (fabric.package, package, fabric.package_chips),
            (fabric.scale_up, domain / package, built),
            (fabric.scale_out, chips / domain, 0.0),
        ],
    )
