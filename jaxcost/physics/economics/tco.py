"""Total cost of ownership per output token, by component.

A chip with its host costs, per second of service: price / (lifetime u) for depreciation, price x maintenance / u for
upkeep, (power limit + provisioned power of the host) x USD/W / (building lifetime u) for the building, with u the share
of its life in which it serves. Interest is due on capital that is not yet depreciated: an annuity at the continuous
rate r over the life N is

    price x r / (1 - e^(-r N)),   of which price / N is depreciation

Energy is charged at the meter, PUE and idle hours included; water is what the site evaporates.

Source: Barroso, Hoelzle and Ranganathan 2018, chapter 6 (doi 10.2200/S00874ED3V01Y201809CAC046).
"""

import jax.numpy as jnp

from jaxcost.core.arrays import where
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.economics.area import Build
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System

__all__ = [
    "Cost",
    "Water",
    "annuity",
    "cost_per_token",
    "metered_energy",
    "supplied_power",
    "water_per_token",
]


@pytree
class Cost:
    """Dollars per million output tokens."""

    dies: Scalar = field("USD/Mtok", "depreciation of the accelerators' logic dies")
    memory: Scalar = field("USD/Mtok", "depreciation of their memory")
    package: Scalar = field("USD/Mtok", "depreciation of their packages")
    margin: Scalar = field("USD/Mtok", "depreciation of the vendor's margin")
    hosts: Scalar = field("USD/Mtok", "depreciation of servers and boards")
    network: Scalar = field("USD/Mtok", "depreciation of network cards, switches and cables")
    racks: Scalar = field("USD/Mtok", "depreciation of racks")
    maintenance: Scalar = field("USD/Mtok", "upkeep")
    datacenter: Scalar = field("USD/Mtok", "building, power and cooling plant")
    interest: Scalar = field("USD/Mtok", "cost of capital, of hardware and building")
    electricity: Scalar = field("USD/Mtok", "energy")
    water: Scalar = field("USD/Mtok", "water that the site evaporates")

    @derived("USD/Mtok")
    def chips(self) -> Scalar:
        """Depreciation of the accelerators."""
        return self.dies + self.memory + self.package + self.margin

    @derived("USD/Mtok")
    def total(self) -> Scalar:
        """Total cost of ownership."""
        surroundings = self.hosts + self.network + self.racks + self.maintenance
        return self.chips + surroundings + self.datacenter + self.interest + self.metered

    @property
    def metered(self) -> Scalar:
        """Metered cost, in proportion to energy."""
        return self.electricity + self.water


@pytree
class Water:
    """Cubic metres of water per million output tokens."""

    site: Scalar = field("m^3/Mtok", "evaporated to cool")
    grid: Scalar = field("m^3/Mtok", "used by power plants")

    @derived("m^3/Mtok")
    def total(self) -> Scalar:
        """All water."""
        return self.site + self.grid


def metered_energy(
    system: System, prices: Prices, *, energy: Scalar, chip_seconds: Scalar, owned_seconds: Scalar
) -> Scalar:
    """Return the joules at the facility's meter: (energy + idle energy of spares and unused hours) x PUE.

    An idle chip with its share of the server draws: idle power x (1 + overhead) + server power.
    """
    unused = owned_seconds / prices.utilization - chip_seconds
    idle = system.chip.idle_power * (1 + system.host.overhead) + system.host.power
    return (energy + unused * idle) * prices.pue


def annuity(interest: Scalar, lifetime: Scalar) -> Scalar:
    """Return the annuity over straight-line depreciation: r N / (1 - e^(-r N)), 1 without interest."""
    x = interest * lifetime
    some = where(x > 1e-3, x, 1)
    # A series where the quotient would lose precision, with equal error where the two meet.
    return where(x > 1e-3, some / -jnp.expm1(-some), 1 + x / 2 + x * x / 12)


def supplied_power(system: System) -> Scalar:
    """Return the provisioned power of a chip and its host, W: L + nameplate of the host, with L = min(TDP, power cap).

    A host without a nameplate counts as its power at that limit: power + overhead x L.
    """
    chip, host = system.chip, system.host
    limit = where(chip.power_cap > 0, jnp.minimum(chip.power_cap, chip.tdp), chip.tdp)
    return limit + where(host.provisioned > 0, host.provisioned, host.power + host.overhead * limit)


def water_per_token(prices: Prices, metered: Scalar) -> Water:
    """Return the water for `metered` joules per output token."""
    joules = 1e6 * metered
    return Water(site=joules / prices.pue * prices.site_water, grid=joules * prices.grid_water)


def cost_per_token(
    system: System, prices: Prices, chip_build: Build, *, owned_seconds: Scalar, metered: Scalar
) -> Cost:
    """Return the cost of `owned_seconds` chip-seconds, spares included, and `metered` joules per output token."""
    owned = 1e6 * owned_seconds / prices.utilization
    host = system.host
    surroundings = host.price + host.network_price + host.rack_price
    hardware = chip_build.price + surroundings
    depreciation = owned / prices.lifetime
    building = owned * supplied_power(system) * prices.datacenter / prices.datacenter_lifetime
    return Cost(
        dies=depreciation * chip_build.dies,
        memory=depreciation * chip_build.memory,
        package=depreciation * chip_build.package,
        margin=depreciation * chip_build.margin,
        hosts=depreciation * host.price,
        network=depreciation * host.network_price,
        racks=depreciation * host.rack_price,
        maintenance=owned * (hardware * prices.maintenance),
        datacenter=building,
        interest=depreciation * hardware * (annuity(prices.interest, prices.lifetime) - 1)
        + building * (annuity(prices.interest, prices.datacenter_lifetime) - 1),
        electricity=1e6 * metered * prices.electricity,
        water=water_per_token(prices, metered).site * prices.water,
    )
