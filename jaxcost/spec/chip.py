"""One accelerator: engines, memories, cooling, power, silicon, and the achieved shares of its peaks."""

from jaxcost.core.bounds import SHARE
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.kernels import InternodeKernel, Kernels
from jaxcost.spec.memory import Memory
from jaxcost.spec.silicon import Package, Process

__all__ = ["Chip", "Compute", "Cooling", "Efficiency", "Stacking"]


@pytree
class Compute:
    """Peak dense rates of the engines. A precision that the chip does not support runs at the next wider one's rate."""

    flops_32: Scalar = field("FLOP/s", "matmul rate with 32-bit operands", default=0.0)
    flops_16: Scalar = field("FLOP/s", "matmul rate with 16-bit operands", default=0.0)
    flops_8: Scalar = field("FLOP/s", "matmul rate with 8-bit operands", default=0.0)
    flops_6: Scalar = field("FLOP/s", "matmul rate with 6-bit operands", default=0.0)
    flops_4: Scalar = field("FLOP/s", "matmul rate with 4-bit operands", default=0.0)
    vector_flops: Scalar = field("FLOP/s", "element-wise rate in 32-bit arithmetic", default=0.0)
    exponentials: Scalar = field("1/s", "exponentials a second", default=0.0)
    cores: Scalar = field(
        "1", "cores that take tiles of work; 0 where unknown: waves are then not counted", default=0.0
    )
    clock: Scalar = field("1/s", "highest clock of the cores; 0 where unknown", default=0.0)


@pytree
class Efficiency:
    """Achieved share of each peak. Shares of 1 without overhead are the ideal roofline.

    Calibrated kernels have further shares, which multiply these.
    """

    matmul: Scalar = field("1", "share of the matmul peak", default=1.0, bounds=SHARE)
    vector: Scalar = field("1", "share of the element-wise and exponential peaks", default=1.0, bounds=SHARE)
    memory: Scalar = field("1", "share of the memory bandwidth", default=1.0, bounds=SHARE)
    link: Scalar = field("1", "share of the link bandwidth", default=1.0, bounds=SHARE)
    overlap: Scalar = field(
        "1",
        "share of the shorter of computation and messages that overlaps with the longer",
        default=0.0,
        bounds=SHARE,
    )
    operator_overhead: Scalar = field("s", "fixed launch time of one operator", default=0.0)
    kernels: Kernels | None = field(doc="calibrated kernels of a serving library; None without", default=None)

    @property
    def internode(self) -> InternodeKernel | None:
        """What the communication library adds to messages between domains; None where it is not known."""
        return None if self.kernels is None else self.kernels.internode


@pytree
class Stacking:
    """Main memory bonded face to face on logic, or logic in the base die of its stacks; none by default."""

    bond_density: Scalar = field(
        "1/m^2",
        "data bonds or through-silicon vias per square metre; 0 to use the bandwidth of the memory",
        default=0.0,
    )
    bond_rate: Scalar = field("bit/s", "bit rate of one bond", default=0.0)
    area: Scalar = field("m^2", "bonded area", default=0.0)
    bond_yield: Scalar = field(
        "1", "share of the bonds that work, which scales the bandwidth", default=1.0, bounds=SHARE
    )
    energy: Scalar = field(
        "1",
        "energy of a byte between main memory and engines, over that of memory beside the chip",
        default=1.0,
    )


@pytree
class Cooling:
    """Cooling through `layers` of memory and the heat sink: T = coolant + P (sink + layers x layer) / area."""

    area: Scalar = field("m^2", "area of heat transfer; 0 to neglect heat", default=0.0)
    sink: Scalar = field(
        "K*m^2/W", "thermal resistance times area from the outermost die to the coolant", default=0.0
    )
    layer: Scalar = field("K*m^2/W", "thermal resistance times area of one layer of memory", default=0.0)
    layers: Scalar = field("1", "layers of memory between the logic and the sink", default=0.0)
    coolant: Scalar = field("K", "temperature of the coolant", default=308.15)
    limit: Scalar = field("K", "highest temperature of the junction; 0 for no limit", default=0.0)


@pytree
class Chip:
    """One accelerator package. Rates are datasheet peaks; achieved = peak x efficiency."""

    compute: Compute = field(doc="engines", default=Compute)
    memory: Memory = field(doc="the main memory tier", default=Memory)
    sram: Memory = field(doc="software-managed on-chip memory", default=Memory)
    hbf: Memory = field(doc="high bandwidth flash", default=Memory)
    host: Memory = field(doc="LPDDR or DDR memory of the package or its host", default=Memory)
    cxl: Memory = field(doc="memory behind CXL", default=Memory)
    ssd: Memory = field(doc="flash drives", default=Memory)
    stacking: Stacking = field(doc="main memory on logic", default=Stacking)
    cooling: Cooling = field(doc="cooling", default=Cooling)
    shoreline: Scalar = field("m", "die edge available to memories and links; 0 for no limit", default=0.0)
    efficiency: Efficiency = field(doc="achieved shares of the peaks", default=Efficiency)
    tdp: Scalar = field("W", "thermal design power of the package", default=0.0)
    power_cap: Scalar = field(
        "W", "average power of a step that the clock does not exceed; 0 for no cap", default=0.0
    )
    voltage_slope: Scalar = field(
        "1", "share of the supply voltage that scales with the clock", default=0.5, bounds=SHARE
    )
    clock_floor: Scalar = field(
        "1",
        "lowest clock over the nominal clock; for less power the engines pause",
        default=0.3,
        bounds=SHARE,
    )
    idle_power: Scalar = field("W", "power without work", default=0.0)
    reserved: Scalar = field(
        "B", "main memory reserved by others, such as a phone's system and applications", default=0.0
    )
    energy_per_flop: Scalar = field(
        "J/FLOP", "energy of a 16-bit matmul FLOP; other precisions in proportion to the bits", default=0.0
    )
    energy_per_vector_flop: Scalar = field("J/FLOP", "energy of an element-wise FLOP", default=0.0)
    energy_per_exponential: Scalar = field("J", "energy of one exponential", default=0.0)
    on_chip_energy_per_byte: Scalar = field(
        "J/B", "energy of a byte on the wires between memory interface and engines", default=0.0
    )
    price: Scalar = field(
        "USD", "purchase price of the package; 0 for the sum of its parts and `package.margin`", default=0.0
    )
    rental: Scalar = field(
        "USD/s", "rental price of a chip with its server; 0 where none is known", default=0.0
    )
    die_area: Scalar = field("m^2", "silicon area of all logic dies; 0 for the sum of its parts", default=0.0)
    process: Process = field(doc="the logic process", default=Process)
    package: Package = field(doc="dies, package, and the vendor's margin", default=Package)
