"""Grams of CO2e per million output tokens: running the hardware, and its share of having made it.

Making a chip (after ACT: Gupta et al., ISCA 2022, doi 10.1145/3470496.3527408), spread over lifetime x utilisation as
its price is; A area of its dies, Y their yield:

    dies = A / Y x (fab electricity x fab grid + gases + materials) / assembly yield
    memory = bytes x kg/B,   package = kg of package, board, power supply and heat sink

Running it: metered energy times the grid's intensity, weighted by the hours of traffic. Both swing over the day as
1 + s cos 2 pi (h - peak); only where their swings meet does the mean of the product differ:

    grid carbon x (1 + s_grid s_load / 2 x cos 2 pi (peak_grid - peak_load))

which is exact for any shape of the one where the other is a cosine.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxcost.core.arrays import total, where
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.economics.area import Build
from jaxcost.physics.economics.tco import supplied_power
from jaxcost.spec.chip import Chip
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System

__all__ = ["Carbon", "Embodied", "carbon_per_token", "embodied", "grid_intensity"]


@pytree
class Embodied:
    """Kilograms of CO2e of making one chip with its memory."""

    dies: Scalar = field("kg", "logic dies, those thrown away included")
    memory: Scalar = field("kg", "all its memory")
    package: Scalar = field("kg", "package, board, power supply and heat sink")

    @derived("kg")
    def total(self) -> Scalar:
        """All of it."""
        return self.dies + self.memory + self.package


@pytree
class Carbon:
    """Grams of CO2e per million output tokens."""

    operation: Scalar = field("g/Mtok", "energy, at the grid's intensity")
    dies: Scalar = field("g/Mtok", "making the logic dies")
    memory: Scalar = field("g/Mtok", "making the memory")
    package: Scalar = field("g/Mtok", "making package, board and heat sink")
    hosts: Scalar = field("g/Mtok", "making servers and network")
    building: Scalar = field("g/Mtok", "building the datacenter")

    @derived("g/Mtok")
    def embodied(self) -> Scalar:
        """Having made all of it."""
        return self.dies + self.memory + self.package + self.hosts + self.building

    @derived("g/Mtok")
    def total(self) -> Scalar:
        """All of it."""
        return self.operation + self.embodied


def embodied(chip: Chip, made: Build, auxiliary: Sequence[str]) -> Embodied:
    """Account making one chip and the tiers beside its main memory, by name, each with all its capacity.

    On-chip memory counts by its area where the area is that of the parts.
    """
    p = chip.process
    wafer = p.fab_energy * p.fab_grid + p.fab_gases + p.fab_materials
    kept = chip.package.assembly_yield
    tiers = {name: getattr(chip, name) for name in ("memory", *auxiliary)}
    made_of = {name: tier.capacity * tier.carbon_per_byte for name, tier in tiers.items()}
    made_of["memory"] = made_of["memory"] / kept
    if "sram" in made_of:
        made_of["sram"] = where(chip.die_area > 0, made_of["sram"], 0)
    return Embodied(
        dies=made.die_area * wafer / (made.good_share * kept),
        memory=total(made_of.values()),
        package=chip.package.carbon / kept,
    )


def grid_intensity(prices: Prices) -> Scalar:
    """CO2e of a joule, kg, as the traffic of a day meets it."""
    apart = jnp.cos(2 * jnp.pi * (prices.grid_peak - prices.load_peak))
    return prices.grid_carbon * (1 + prices.grid_swing * prices.load_swing / 2 * apart)


def carbon_per_token(
    system: System, prices: Prices, one: Embodied, *, owned_seconds: Scalar, metered: Scalar
) -> Carbon:
    """Account `owned_seconds` of chips, spares included, and `metered` joules, both per output token.

    Args:
        system: the chips' power and hosts.
        prices: lifetime, utilisation and grid.
        one: making one chip.
        owned_seconds: chip-seconds.
        metered: joules at the meter.
    """
    owned = 1e9 * owned_seconds / prices.utilization
    share = owned / prices.lifetime
    return Carbon(
        operation=1e9 * metered * grid_intensity(prices),
        dies=share * one.dies,
        memory=share * one.memory,
        package=share * one.package,
        hosts=share * system.host.carbon,
        building=owned * supplied_power(system) * prices.building_carbon / prices.datacenter_lifetime,
    )
