"""Grams of CO2e per million output tokens: running the hardware, and its share of having made it.

Making a chip: die area x kg/m^2 of good die + memory bytes x kg/B (after ACT: Gupta et al., ISCA 2022), spread
over lifetime x utilisation as its price is.
"""

from collections.abc import Sequence

from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.ops import add
from jaxcost.spec.memory import Memory
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System

__all__ = ["Carbon", "carbon_per_token"]


@pytree
class Carbon:
    """Grams of CO2e per million output tokens."""

    operation: Scalar = field("g/Mtok", "energy, at the grid's intensity")
    dies: Scalar = field("g/Mtok", "making the logic dies")
    memory: Scalar = field("g/Mtok", "making the memory")
    hosts: Scalar = field("g/Mtok", "making servers and network")

    @derived("g/Mtok")
    def total(self) -> Scalar:
        """All of it."""
        return self.operation + self.dies + self.memory + self.hosts


def carbon_per_token(
    system: System, prices: Prices, *, owned_seconds: Scalar, metered: Scalar, tiers: Sequence[Memory]
) -> Carbon:
    """Account `owned_seconds` of chips, spares included, and `metered` joules, both per output token.

    `tiers` are the memories as they are made, each with all its capacity.
    """
    chip = system.chip
    made = add(*(tier.capacity * tier.carbon_per_byte for tier in tiers))
    share = 1e9 * owned_seconds / (prices.utilization * prices.lifetime)
    return Carbon(
        operation=1e9 * metered * prices.grid_carbon,
        dies=share * (chip.die_area * chip.carbon_per_area),
        memory=share * made,
        hosts=share * system.host.carbon,
    )
