"""Dollars per output token, in parts that add up.

A chip with its host costs, per second of service: price / (lifetime u) to buy, price x maintenance / u to keep,
(TDP + host power) PUE x USD/W / (building lifetime u) to house, u being the share of its life it serves.
Energy costs what it is metered at, PUE included, idle hours too.
"""

from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System

__all__ = ["Cost", "cost_per_token", "metered_energy"]


@pytree
class Cost:
    """Dollars per million output tokens."""

    chips: Scalar = field("USD/Mtok", "accelerators, written off over their life")
    hosts: Scalar = field("USD/Mtok", "servers and network, likewise")
    maintenance: Scalar = field("USD/Mtok", "upkeep")
    datacenter: Scalar = field("USD/Mtok", "building, power and cooling plant")
    electricity: Scalar = field("USD/Mtok", "energy")

    @derived("USD/Mtok")
    def total(self) -> Scalar:
        """All of it."""
        return self.chips + self.hosts + self.maintenance + self.datacenter + self.electricity


def metered_energy(
    system: System, prices: Prices, *, energy: Scalar, chip_seconds: Scalar, owned_seconds: Scalar
) -> Scalar:
    """Joules at the facility's meter: the work, and the idle draw of spares and of hours without traffic, times PUE."""
    unused = owned_seconds / prices.utilization - chip_seconds
    return (energy + unused * (system.chip.idle_power + system.host.power)) * prices.pue


def cost_per_token(system: System, prices: Prices, *, owned_seconds: Scalar, metered: Scalar) -> Cost:
    """Price `owned_seconds` of chips, spares included, and `metered` joules, both per output token."""
    owned = 1e6 * owned_seconds / prices.utilization
    hardware = system.chip.price + system.host.price
    provisioned = (system.chip.tdp + system.host.power) * prices.pue
    return Cost(
        chips=owned * (system.chip.price / prices.lifetime),
        hosts=owned * (system.host.price / prices.lifetime),
        maintenance=owned * (hardware * prices.maintenance),
        datacenter=owned * (provisioned * prices.datacenter / prices.datacenter_lifetime),
        electricity=1e6 * metered * prices.electricity,
    )
