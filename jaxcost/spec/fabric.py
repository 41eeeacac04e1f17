"""The links between chips, in three levels: the package, the scale-up domain, the scale-out network."""

from jaxcost.core.bounds import SHARE, Bounds
from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["TOPOLOGIES", "Fabric", "Link", "topology_id"]

# `Link.topology` is an index into this tuple. The index is traced, so one compilation sweeps all topologies.
TOPOLOGIES = (
    "ring",
    "fully-connected",
    "switch",
    "fat-tree",
    "tree",
    "torus",
    "mesh",
    "hypercube",
    "dragonfly",
)


def topology_id(name: str) -> float:
    """Return the index of a topology in `TOPOLOGIES`: `topology_id("torus")`.

    Raises:
        ValueError: an unknown topology.
    """
    if name not in TOPOLOGIES:
        raise ValueError(f"no topology {name!r}; there are {', '.join(TOPOLOGIES)}")
    return float(TOPOLOGIES.index(name))


@pytree
class Link:
    """The links of one chip on one level of the fabric.

    Starting a collective takes `launch`; a round of its messages over k hops takes `overhead + k latency`, and a byte
    takes 1 / bandwidth of the links in use. The bandwidth of a chip is divided evenly over the links that it has in the
    topology of the whole level.
    """

    bandwidth: Scalar = field("B/s", "bandwidth per direction of all links of a chip together", default=0.0)
    latency: Scalar = field("s", "time of one hop: a wire with its switch or router", default=0.0)
    overhead: Scalar = field("s", "software time of one round of messages", default=0.0)
    launch: Scalar = field("s", "software time of starting a collective", default=0.0)
    energy_per_byte: Scalar = field("J/B", "energy of a byte over one hop", default=0.0)
    topology: Scalar = field("1", "topology: an index into TOPOLOGIES", default=2.0)
    dimensions: Scalar = field("1", "dimensions of a torus or mesh", default=2.0, bounds=Bounds(1.0, 32.0))
    radix: Scalar = field(
        "1",
        "branches of a switch in a tree; chips per group of a dragonfly",
        default=32.0,
        bounds=Bounds(2.0, 1e6),
    )
    taper: Scalar = field(
        "1",
        "bandwidth of a tier of a fat tree over that of the tier below; has no gradient",
        default=1.0,
        bounds=Bounds(high=1.0, above=True),
    )
    in_network: Scalar = field("1", "1 where switches reduce and multicast", default=0.0, bounds=SHARE)
    sram_landing: Scalar = field(
        "1",
        "share of messages that land in on-chip memory; others pass through main memory",
        default=0.0,
        bounds=SHARE,
    )
    background: Scalar = field(
        "1", "share of the bandwidth that background traffic takes", default=0.0, bounds=Bounds(high=0.999)
    )
    interface_area: Scalar = field("m^2*s/B", "die area per B/s in each direction", default=0.0)
    interface_edge: Scalar = field("m*s/B", "die edge per B/s in each direction", default=0.0)


@pytree
class Fabric:
    """Three levels of links: `package` between the chips of a package, `scale_up` between the packages of a domain, and
    `scale_out` between domains.
    """

    package_chips: Scalar = field("1", "chips within one package", default=1.0, bounds=Bounds(1.0))
    domain: Scalar = field("1", "chips within one scale-up domain", default=1.0, bounds=Bounds(1.0))
    package: Link = field(doc="within a package", default=Link)
    scale_up: Link = field(doc="within a domain", default=Link)
    scale_out: Link = field(doc="between domains", default=Link)
    jitter: Scalar = field("s", "mean of the exponential delay of a rank at a collective", default=0.0)
    timeout: Scalar = field(
        "s", "longest wait for a late rank, whose stale data is used then; 0 for no time-out", default=0.0
    )
    background_message: Scalar = field("B", "message size of the background traffic", default=4096.0)
