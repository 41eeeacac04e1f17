"""A system: chips, the fabric between them, and their hosts."""

from jaxcost.core.bounds import Bounds
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric

__all__ = ["Host", "System"]


@pytree
class Host:
    """The share of server, network and rack per chip.

    A server draws power + overhead x (what its chips draw). The building is built for its nameplate, `provisioned`.
    """

    price: Scalar = field("USD", "server and board per chip", default=0.0)
    network_price: Scalar = field("USD", "network cards, switches and cables per chip", default=0.0)
    rack_price: Scalar = field("USD", "rack, its power supplies and cooling per chip", default=0.0)
    power: Scalar = field("W", "server per chip without the part in proportion to the chips", default=0.0)
    overhead: Scalar = field(
        "1",
        "fans and losses of power supplies, over what the chips draw",
        default=0.0,
        bounds=Bounds(high=2.0),
    )
    provisioned: Scalar = field(
        "W",
        "nameplate of the server per chip, without the chip; 0 for its power at the chip's limit",
        default=0.0,
    )
    carbon: Scalar = field("kg", "embodied CO2e of server and network per chip", default=0.0)


@pytree
class System:
    """A number of identical chips and the fabric between them."""

    chip: Chip = field(doc="the accelerator", default=Chip)
    fabric: Fabric = field(doc="the links", default=Fabric)
    host: Host = field(doc="server, network and rack per chip", default=Host)
    chips: Scalar = field("1", "accelerators in the system", default=1.0, bounds=Bounds(1.0, 1e6))
    spares: Scalar = field("1", "idle spare chips in addition", default=0.0, bounds=Bounds(high=8.0))
    failure_rate: Scalar = field("1/s", "failures of one chip in service", default=0.0)
    repair_time: Scalar = field("s", "time until a failed chip is replaced", default=0.0)
    battery: Scalar = field("J", "energy of the battery of a device; 0 for none", default=0.0)
    switchover_time: Scalar = field("s", "time until a spare has replaced a failed chip", default=0.0)
