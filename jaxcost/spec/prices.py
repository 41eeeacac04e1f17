"""Prices and carbon of energy, datacenter and capital, and the numerical knobs."""

import math

from jaxcost.core.bounds import SHARE, Bounds
from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Knobs", "Prices"]


_YEAR = 365.25 * 86400.0


@pytree
class Prices:
    """Economics of a datacenter and its grid. Defaults are the mid values of configs/prices/default.yaml."""

    electricity: Scalar = field("USD/J", "price of electric energy", default=0.08 / 3.6e6)
    pue: Scalar = field("1", "facility power over IT power", default=1.2)
    lifetime: Scalar = field("s", "depreciation time of hardware", default=5 * _YEAR)
    datacenter: Scalar = field("USD/W", "construction cost of critical power", default=11.7)
    datacenter_lifetime: Scalar = field("s", "depreciation time of the building", default=15 * _YEAR)
    maintenance: Scalar = field("1/s", "share of the hardware cost spent on upkeep", default=0.05 / _YEAR)
    interest: Scalar = field("1/s", "cost of capital, as a continuous rate", default=0.08 / _YEAR)
    utilization: Scalar = field(
        "1", "share of its life in which the system serves traffic", default=0.6, bounds=SHARE
    )
    since: Scalar = field(
        "s", "time from the catalogue's memory prices to the purchase", default=0.0, bounds=Bounds(-math.inf)
    )
    water: Scalar = field("USD/m^3", "price of water", default=2.0)
    site_water: Scalar = field(
        "m^3/J", "water that the site evaporates per IT energy", default=0.5e-3 / 3.6e6
    )
    grid_water: Scalar = field("m^3/J", "water that power plants use", default=2.4e-3 / 3.6e6)
    rack_power: Scalar = field("W", "IT power per rack", default=40e3)
    grid_carbon: Scalar = field("kg/J", "CO2e of electric energy, daily mean", default=0.481 / 3.6e6)
    grid_swing: Scalar = field(
        "1", "daily amplitude of the grid carbon over its mean", default=0.0, bounds=SHARE
    )
    grid_peak: Scalar = field("1", "time of its peak, as a share of the day", default=19 / 24, bounds=SHARE)
    load_swing: Scalar = field("1", "daily amplitude of the traffic over its mean", default=0.0, bounds=SHARE)
    load_peak: Scalar = field("1", "time of its peak, as a share of the day", default=15 / 24, bounds=SHARE)
    building_carbon: Scalar = field("kg/W", "CO2e of building critical power", default=0.6)


@pytree
class Knobs:
    """Numerical knobs, apart from physics."""

    tau: Scalar = field("1", "softness of max, min and ceil: 0 is exact", default=0.0)
    fractional: Scalar = field(
        "1",
        "1 to allow fractions of a request in a group, as a relaxation of whole numbers; 0 is exact",
        default=0.0,
    )
