"""The links between chips, in three levels: the package, the scale-up domain, the scale-out network."""

from jaxcost.core.bounds import SHARE, Bounds
from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["TOPOLOGIES", "Fabric", "Link", "topology_id"]

# A link's `topology` is the place of its name here; numbers are traced, so one compilation sweeps them all.
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
    """Return the number of a topology: `topology_id("torus")`.

    Raises:
        ValueError: no such topology.
    """
    if name not in TOPOLOGIES:
        raise ValueError(f"no topology {name!r}; there are {', '.join(TOPOLOGIES)}")
    return float(TOPOLOGIES.index(name))


@pytree
class Link:
    """One level of the fabric as one chip sees it.

    Software starts a collective in `launch`; a round of its messages over k hops takes `overhead + k latency`, and
    a byte takes 1 / bandwidth of the links it may use. A chip's bandwidth is spread evenly over the links that the
    topology of the whole level gives it.
    """

    bandwidth: Scalar = field(
        "B/s", "bytes a second in each direction, all links of a chip together", default=0.0
    )
    latency: Scalar = field("s", "time of one hop: a wire with the switch or router behind it", default=0.0)
    overhead: Scalar = field("s", "software time of one round of messages", default=0.0)
    launch: Scalar = field("s", "software time of starting a collective", default=0.0)
    energy_per_byte: Scalar = field("J/B", "energy of a byte over one hop", default=0.0)
    topology: Scalar = field("1", "how it is wired: a place in TOPOLOGIES", default=2.0)
    dimensions: Scalar = field("1", "dimensions of a torus or mesh", default=2.0, bounds=Bounds(1.0, 32.0))
    radix: Scalar = field(
        "1",
        "branches of a switch in a tree, chips of a dragonfly's group",
        default=32.0,
        bounds=Bounds(2.0, 1e6),
    )
    taper: Scalar = field(
        "1",
        "bandwidth that each tier of a fat tree keeps of the one below; has no gradient",
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
        "1", "share of the bandwidth that other traffic takes", default=0.0, bounds=Bounds(high=0.999)
    )
    interface_area: Scalar = field(
        "m^2*s/B", "area of the die that a byte a second in each direction takes", default=0.0
    )
    interface_edge: Scalar = field("m*s/B", "edge of the die that it takes", default=0.0)


@pytree
class Fabric:
    """Three levels: chips of one package talk over `package`, packages of a domain over `scale_up`, domains over
    `scale_out`.
    """

    package_chips: Scalar = field("1", "chips within one package", default=1.0, bounds=Bounds(1.0))
    domain: Scalar = field("1", "chips within one scale-up domain", default=1.0, bounds=Bounds(1.0))
    package: Link = field(doc="within a package", default=Link)
    scale_up: Link = field(doc="within a domain", default=Link)
    scale_out: Link = field(doc="between domains", default=Link)
    jitter: Scalar = field("s", "mean, exponential delay of a rank at a collective", default=0.0)
    timeout: Scalar = field(
        "s", "longest wait for a late rank, whose old data stands in; 0 to wait for ever", default=0.0
    )
    background_message: Scalar = field("B", "size of a message of the background traffic", default=4096.0)
