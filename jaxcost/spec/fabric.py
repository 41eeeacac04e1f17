"""The links between chips: a scale-up domain and, beyond it, a scale-out network."""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Fabric", "Link"]


@pytree
class Link:
    """One level of the fabric as one chip sees it."""

    bandwidth: Scalar = field(
        "B/s", "bytes a second in each direction, all links of a chip together", default=0.0
    )
    latency: Scalar = field("s", "time of an empty message, software included", default=0.0)
    energy_per_byte: Scalar = field("J/B", "energy of a byte sent", default=0.0)


@pytree
class Fabric:
    """Two levels: chips of one domain talk over `scale_up`, domains over `scale_out`."""

    domain: Scalar = field("1", "chips within one scale-up domain", default=1.0)
    scale_up: Link = field(doc="within a domain", default=Link)
    scale_out: Link = field(doc="between domains", default=Link)
