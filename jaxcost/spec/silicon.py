"""The silicon of a chip: logic process, dies and package, with manufacturing cost and carbon."""

from jaxcost.core.bounds import SHARE
from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["YIELD_MODELS", "Package", "Process"]

# Models of yield by name; the position is the number that `Process.yield_model` takes.
YIELD_MODELS = ("negative-binomial", "poisson", "murphy", "seeds")


@pytree
class Process:
    """A logic process: wafer price, yield, and manufacturing carbon."""

    wafer_price: Scalar = field("USD", "price of a processed wafer", default=0.0)
    wafer_diameter: Scalar = field("m", "usable diameter of a wafer", default=0.294)
    defect_density: Scalar = field("1/m^2", "fatal defects per square metre", default=0.0)
    clustering: Scalar = field("1", "clustering parameter alpha of the negative binomial yield", default=3.0)
    yield_model: Scalar = field("1", "position in `YIELD_MODELS`", default=0.0)
    reticle: Scalar = field(
        "m^2", "reticle limit: largest area of an exposure; 0 for no limit", default=858e-6
    )
    fab_energy: Scalar = field("J/m^2", "electricity of processing per square metre", default=0.0)
    fab_grid: Scalar = field("kg/J", "CO2e of that electricity", default=0.642 / 3.6e6)
    fab_gases: Scalar = field("kg/m^2", "CO2e of emitted process gases", default=0.0)
    fab_materials: Scalar = field("kg/m^2", "CO2e of materials", default=0.0)


@pytree
class Package:
    """The dies and the package of a chip, with their cost.

    The areas of parts are area_per_flop x 16-bit rate, area_per_byte x on-chip memory, and those of the interfaces; the
    rest of a published `Chip.die_area` is other area.
    """

    dies: Scalar = field("1", "logic dies, or exposures of a stitched die", default=1.0)
    critical: Scalar = field(
        "1", "critical share of a die, where a defect is fatal", default=1.0, bounds=SHARE
    )
    area_per_flop: Scalar = field("m^2*s/FLOP", "area of matmul engines per 16-bit FLOP/s", default=0.0)
    cache: Scalar = field("B", "hardware-managed on-chip memory (caches)", default=0.0)
    area_per_byte: Scalar = field("m^2/B", "area of on-chip memory", default=0.0)
    other_area: Scalar = field(
        "m^2", "other area; used where `Chip.die_area` is 0, for the sum of the parts", default=0.0
    )
    die_test: Scalar = field("1", "price of testing dies over that of manufacturing them", default=0.0)
    base_price: Scalar = field("USD", "substrate, assembly and test", default=0.0)
    price_per_area: Scalar = field("USD/m^2", "interposer under dies and stacks", default=0.0)
    assembly_yield: Scalar = field("1", "yield of the assembly of good parts", default=1.0, bounds=SHARE)
    carbon: Scalar = field("kg", "CO2e of package, board, power supply and heat sink", default=0.0)
    margin: Scalar = field(
        "USD",
        "vendor's margin and development; used where `Chip.price` is 0, for the sum of the parts",
        default=0.0,
    )
