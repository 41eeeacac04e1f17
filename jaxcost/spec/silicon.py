"""What a chip is made of: the logic process, the dies and the package, each with what it costs to make."""

from jaxcost.core.bounds import SHARE
from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["YIELD_MODELS", "Package", "Process"]

# Models of yield by name; the position is the number that `Process.yield_model` takes.
YIELD_MODELS = ("negative-binomial", "poisson", "murphy", "seeds")


@pytree
class Process:
    """A logic process: what a wafer costs, how many of its dies work, and the carbon of making it."""

    wafer_price: Scalar = field("USD", "price of a processed wafer", default=0.0)
    wafer_diameter: Scalar = field("m", "diameter of a wafer that dies may take", default=0.294)
    defect_density: Scalar = field("1/m^2", "killing defects a square metre", default=0.0)
    clustering: Scalar = field("1", "how evenly defects spread: alpha of the negative binomial", default=3.0)
    yield_model: Scalar = field("1", "position in `YIELD_MODELS`", default=0.0)
    reticle: Scalar = field("m^2", "largest area that is exposed at once; 0 for no limit", default=858e-6)
    fab_energy: Scalar = field("J/m^2", "electricity of processing a square metre", default=0.0)
    fab_grid: Scalar = field("kg/J", "CO2e of that electricity", default=0.642 / 3.6e6)
    fab_gases: Scalar = field("kg/m^2", "CO2e of process gases that escape", default=0.0)
    fab_materials: Scalar = field("kg/m^2", "CO2e of materials", default=0.0)


@pytree
class Package:
    """How dies and memories become a package, and what that costs.

    Areas of parts are area_per_flop x 16-bit rate, area_per_byte x on-chip memory, and those of the interfaces; what
    a given `Chip.die_area` has beyond them is whatever else the die holds.
    """

    dies: Scalar = field("1", "logic dies, or exposures where they are stitched", default=1.0)
    critical: Scalar = field(
        "1", "share of a die whose defects make it unsaleable", default=1.0, bounds=SHARE
    )
    area_per_flop: Scalar = field("m^2*s/FLOP", "area of matmul engines, by the 16-bit rate", default=0.0)
    cache: Scalar = field("B", "on-chip memory that software does not place data in", default=0.0)
    area_per_byte: Scalar = field("m^2/B", "area of on-chip memory", default=0.0)
    other_area: Scalar = field(
        "m^2", "area of all else; only where `Chip.die_area` is 0, the sum of the parts", default=0.0
    )
    die_test: Scalar = field("1", "price of testing dies, as a share of making them", default=0.0)
    base_price: Scalar = field("USD", "substrate, assembly and test", default=0.0)
    price_per_area: Scalar = field("USD/m^2", "interposer under dies and stacks", default=0.0)
    assembly_yield: Scalar = field(
        "1", "packages that work after assembly of good parts", default=1.0, bounds=SHARE
    )
    carbon: Scalar = field("kg", "CO2e of package, board, power supply and heat sink", default=0.0)
    margin: Scalar = field(
        "USD",
        "vendor's margin and development; only where `Chip.price` is 0, the sum of the parts",
        default=0.0,
    )
