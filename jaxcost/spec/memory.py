"""One memory tier of a chip."""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Memory"]


@pytree
class Memory:
    """A memory tier as one chip sees it: all its stacks or channels together."""

    capacity: Scalar = field("B", "usable bytes", default=0.0)
    bandwidth: Scalar = field("B/s", "peak read bandwidth", default=0.0)
    latency: Scalar = field("s", "time from a request to the first byte", default=0.0)
    energy_per_byte: Scalar = field("J/B", "device and interface energy of a byte moved", default=0.0)
    carbon_per_byte: Scalar = field("kg/B", "CO2e of making a byte of capacity", default=0.0)
