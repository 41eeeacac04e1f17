"""One accelerator: engines, memory, power, and how much of its peaks software reaches."""

from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.memory import Memory

__all__ = ["Chip", "Compute", "Efficiency"]


@pytree
class Compute:
    """Peak dense rates of the engines. A precision the chip lacks runs at the next wider one's rate."""

    flops_32: Scalar = field("FLOP/s", "matmul rate with 32-bit operands", default=0.0)
    flops_16: Scalar = field("FLOP/s", "matmul rate with 16-bit operands", default=0.0)
    flops_8: Scalar = field("FLOP/s", "matmul rate with 8-bit operands", default=0.0)
    flops_6: Scalar = field("FLOP/s", "matmul rate with 6-bit operands", default=0.0)
    flops_4: Scalar = field("FLOP/s", "matmul rate with 4-bit operands", default=0.0)
    vector_flops: Scalar = field("FLOP/s", "element-wise rate in 32-bit arithmetic", default=0.0)
    exponentials: Scalar = field("1/s", "exponentials a second", default=0.0)


@pytree
class Efficiency:
    """Achieved share of each peak. All ones and no overhead is the ideal roofline."""

    matmul: Scalar = field("1", "share of the matmul peak", default=1.0)
    vector: Scalar = field("1", "share of the element-wise and exponential peaks", default=1.0)
    memory: Scalar = field("1", "share of the memory bandwidth", default=1.0)
    link: Scalar = field("1", "share of the link bandwidth", default=1.0)
    overlap: Scalar = field(
        "1",
        "share of what can hide of messages behind computing, or the other way round, that does",
        default=0.0,
    )
    operator_overhead: Scalar = field("s", "fixed time of launching one operator", default=0.0)


@pytree
class Chip:
    """One accelerator package. Rates are datasheet peaks; achieved = peak x efficiency."""

    compute: Compute = field(doc="engines", default=Compute)
    memory: Memory = field(doc="the main memory tier", default=Memory)
    efficiency: Efficiency = field(doc="achieved shares of the peaks", default=Efficiency)
    tdp: Scalar = field("W", "power the package may draw", default=0.0)
    idle_power: Scalar = field("W", "power drawn with no work", default=0.0)
    energy_per_flop: Scalar = field(
        "J/FLOP", "energy of a 16-bit matmul FLOP; in proportion to the bits", default=0.0
    )
    energy_per_vector_flop: Scalar = field("J/FLOP", "energy of an element-wise FLOP", default=0.0)
    energy_per_exponential: Scalar = field("J", "energy of one exponential", default=0.0)
    on_chip_energy_per_byte: Scalar = field(
        "J/B", "energy of moving a byte between the memory interface and the engines", default=0.0
    )
    price: Scalar = field("USD", "purchase price of the package", default=0.0)
    die_area: Scalar = field("m^2", "silicon area of all logic dies", default=0.0)
    carbon_per_area: Scalar = field("kg/m^2", "CO2e of a square metre of good die", default=0.0)
