"""What money and carbon the surroundings cost, and the numerical knobs."""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Knobs", "Prices"]


@pytree
class Prices:
    """Economics of a datacenter and its grid. Defaults are the mid values of configs/prices/default.yaml."""

    electricity: Scalar = field("USD/J", "price of electric energy", default=0.08 / 3.6e6)
    pue: Scalar = field("1", "facility power over IT power", default=1.2)
    lifetime: Scalar = field("s", "time over which hardware is written off", default=5 * 365.25 * 86400.0)
    datacenter: Scalar = field("USD/W", "construction cost of critical power", default=11.7)
    datacenter_lifetime: Scalar = field(
        "s", "time over which the building is written off", default=15 * 365.25 * 86400.0
    )
    maintenance: Scalar = field(
        "1/s", "yearly share of hardware cost spent on upkeep", default=0.05 / (365.25 * 86400.0)
    )
    utilization: Scalar = field("1", "share of its life the system serves traffic", default=0.6)
    grid_carbon: Scalar = field("kg/J", "CO2e of electric energy", default=0.481 / 3.6e6)


@pytree
class Knobs:
    """Numerical knobs, apart from physics."""

    tau: Scalar = field("1", "softness of max, min and ceil: 0 is exact", default=0.0)
