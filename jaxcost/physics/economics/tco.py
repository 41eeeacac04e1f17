"""Dollars per output token, in parts that add up.

A chip with its host costs, per second of service: price / (lifetime u) to buy, price x maintenance / u to keep,
(power limit + host power) x USD/W / (building lifetime u) to house, u being the share of its life it serves. Capital
costs interest on what is not yet written off: an annuity at the continuous rate r over the life N is

    price x r / (1 - e^(-r N)),   of which price / N is the writing off

Energy costs what it is metered at, PUE included, idle hours too; water what the site evaporates.

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

    dies: Scalar = field("USD/Mtok", "logic dies of the accelerators, written off over their life")
    memory: Scalar = field("USD/Mtok", "their memory, likewise")
    package: Scalar = field("USD/Mtok", "their packages, likewise")
    margin: Scalar = field("USD/Mtok", "what their vendor adds, likewise")
    hosts: Scalar = field("USD/Mtok", "servers and boards, likewise")
    network: Scalar = field("USD/Mtok", "network cards, switches and cables, likewise")
    racks: Scalar = field("USD/Mtok", "racks, likewise")
    maintenance: Scalar = field("USD/Mtok", "upkeep")
    datacenter: Scalar = field("USD/Mtok", "building, power and cooling plant")
    interest: Scalar = field("USD/Mtok", "cost of capital, of hardware and building")
    electricity: Scalar = field("USD/Mtok", "energy")
    water: Scalar = field("USD/Mtok", "water that the site evaporates")

    @derived("USD/Mtok")
    def chips(self) -> Scalar:
        """Accelerators, written off over their life."""
        return self.dies + self.memory + self.package + self.margin

    @derived("USD/Mtok")
    def total(self) -> Scalar:
        """All of it."""
        surroundings = self.hosts + self.network + self.racks + self.maintenance
        return self.chips + surroundings + self.datacenter + self.interest + self.metered

    @property
    def metered(self) -> Scalar:
        """What goes by the meter, in proportion to energy."""
        return self.electricity + self.water


@pytree
class Water:
    """Cubic metres of water per million output tokens."""

    site: Scalar = field("m^3/Mtok", "evaporated to cool")
    grid: Scalar = field("m^3/Mtok", "used by power plants")

    @derived("m^3/Mtok")
    def total(self) -> Scalar:
        """All of it."""
        return self.site + self.grid


def metered_energy(
    system: System, prices: Prices, *, energy: Scalar, chip_seconds: Scalar, owned_seconds: Scalar
) -> Scalar:
    """Joules at the facility's meter: the work, and the idle draw of spares and of hours without traffic, times PUE."""
    unused = owned_seconds / prices.utilization - chip_seconds
    return (energy + unused * (system.chip.idle_power + system.host.power)) * prices.pue


def annuity(interest: Scalar, lifetime: Scalar) -> Scalar:
    """Yearly payments over straight-line depreciation: r N / (1 - e^(-r N)), 1 without interest."""
    x = interest * lifetime
    some = where(x > 1e-3, x, 1)
    # Its series where the division would lose digits, to the same order at the seam.
    return where(x > 1e-3, some / -jnp.expm1(-some), 1 + x / 2 + x * x / 12)


def supplied_power(system: System) -> Scalar:
    """Watts that a chip and its host are supplied for: the chip's TDP, or less under a cap, and the host's power."""
    chip = system.chip
    limit = where(chip.power_cap > 0, jnp.minimum(chip.power_cap, chip.tdp), chip.tdp)
    return limit + system.host.power


def water_per_token(prices: Prices, metered: Scalar) -> Water:
    """Water for `metered` joules an output token."""
    joules = 1e6 * metered
    return Water(site=joules / prices.pue * prices.site_water, grid=joules * prices.grid_water)


def cost_per_token(
    system: System, prices: Prices, made: Build, *, owned_seconds: Scalar, metered: Scalar
) -> Cost:
    """Price `owned_seconds` of chips, `made` so, spares included, and `metered` joules, both per output token."""
    owned = 1e6 * owned_seconds / prices.utilization
    host = system.host
    surroundings = host.price + host.network_price + host.rack_price
    hardware = made.price + surroundings
    written_off = owned / prices.lifetime
    building = owned * supplied_power(system) * prices.datacenter / prices.datacenter_lifetime
    return Cost(
        dies=written_off * made.dies,
        memory=written_off * made.memory,
        package=written_off * made.package,
        margin=written_off * made.margin,
        hosts=written_off * host.price,
        network=written_off * host.network_price,
        racks=written_off * host.rack_price,
        maintenance=owned * (hardware * prices.maintenance),
        datacenter=building,
        interest=written_off * hardware * (annuity(prices.interest, prices.lifetime) - 1)
        + building * (annuity(prices.interest, prices.datacenter_lifetime) - 1),
        electricity=1e6 * metered * prices.electricity,
        water=water_per_token(prices, metered).site * prices.water,
    )
