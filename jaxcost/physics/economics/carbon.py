"""Operational and embodied carbon per output token.

Embodied carbon of a chip (ACT: Gupta et al., ISCA 2022, doi 10.1145/3470496.3527408), amortised over lifetime x
utilisation as its price is; A area of its dies, Y their yield:

    dies = A / Y x (fab electricity x fab grid + gases + materials) / assembly yield
    memory = bytes x kg/B,   package = kg of package, board, power supply and heat sink

Operational carbon: metered energy times the grid intensity, weighted by the traffic over the day. Both vary as
1 + s cos 2 pi (h - peak), so the mean of the product is

    grid carbon x (1 + s_grid s_load / 2 x cos 2 pi (peak_grid - peak_load))

which is exact for any shape of one of them where the other is a cosine.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxcost.core.arrays import total, where
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.economics.area import Build, manufactured_bytes
from jaxcost.physics.economics.tco import supplied_power
from jaxcost.spec.chip import Chip
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System

__all__ = ["Carbon", "Embodied", "carbon_per_token", "embodied", "grid_intensity"]


@pytree
class Embodied:
    """Kilograms of CO2e of manufacturing one chip with its memory."""

    dies: Scalar = field("kg", "logic dies, bad dies included")
    memory: Scalar = field("kg", "all memory tiers")
    package: Scalar = field("kg", "package, board, power supply and heat sink")

    @derived("kg")
    def total(self) -> Scalar:
        """Embodied carbon of one chip."""
        return self.dies + self.memory + self.package


@pytree
class Carbon:
    """Grams of CO2e per million output tokens."""

    operation: Scalar = field("g/Mtok", "metered energy at the grid intensity")
    dies: Scalar = field("g/Mtok", "manufacture of logic dies")
    memory: Scalar = field("g/Mtok", "manufacture of memory")
    package: Scalar = field("g/Mtok", "manufacture of package, board and heat sink")
    hosts: Scalar = field("g/Mtok", "manufacture of servers and network")
    building: Scalar = field("g/Mtok", "construction of the datacenter")

    @derived("g/Mtok")
    def embodied(self) -> Scalar:
        """Embodied carbon."""
        return self.dies + self.memory + self.package + self.hosts + self.building

    @derived("g/Mtok")
    def total(self) -> Scalar:
        """Operational and embodied carbon."""
        return self.operation + self.embodied


def embodied(chip: Chip, chip_build: Build, auxiliary: Sequence[str]) -> Embodied:
    """Return the embodied carbon of one chip with its auxiliary tiers, named in `auxiliary`.

    On-chip memory counts by its area where the die area is the sum of the parts, and by its bytes otherwise.
    """
    p = chip.process
    wafer = p.fab_energy * p.fab_grid + p.fab_gases + p.fab_materials
    kept = chip.package.assembly_yield
    tiers = {name: getattr(chip, name) for name in ("memory", *auxiliary)}
    made_of = {name: manufactured_bytes(tier) * tier.carbon_per_byte for name, tier in tiers.items()}
    made_of["memory"] = made_of["memory"] / kept
    if "sram" in made_of:
        made_of["sram"] = where(chip.die_area > 0, made_of["sram"], 0)
    return Embodied(
        dies=chip_build.die_area * wafer / (chip_build.good_share * kept),
        memory=total(made_of.values()),
        package=chip.package.carbon / kept,
    )


def grid_intensity(prices: Prices) -> Scalar:
    """Return the CO2e of a joule, kg, weighted by the traffic over the day."""
    apart = jnp.cos(2 * jnp.pi * (prices.grid_peak - prices.load_peak))
    return prices.grid_carbon * (1 + prices.grid_swing * prices.load_swing / 2 * apart)


def carbon_per_token(
    system: System, prices: Prices, one: Embodied, *, owned_seconds: Scalar, metered: Scalar
) -> Carbon:
    """Return the carbon of `owned_seconds` chip-seconds and `metered` joules per output token.

    Args:
        system: power and hosts of the chips.
        prices: lifetime, utilisation and grid.
        one: embodied carbon of one chip.
        owned_seconds: chip-seconds per output token, spares included.
        metered: joules at the facility's meter per output token.
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
