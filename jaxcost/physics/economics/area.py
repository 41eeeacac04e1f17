"""Die area, yield and bill of materials of a package.

Symbols: A area of one die, D defects per square metre, c critical share of the die, where a defect is fatal (elsewhere
there is redundancy), x = c A D, a clustering; d diameter of the wafer.

    dies per wafer = pi (d/2)^2 / A - pi d / sqrt(2 A)
    yield = (1 + x/a)^-a    negative binomial (Stapper 1973)     e^-x                  Poisson
            ((1 - e^-x)/x)^2                Murphy 1964          1 / (1 + x)           Seeds 1967
    die = wafer price / (dies per wafer x yield) x (1 + test)
    package = (dies + main memory + substrate + interposer) / assembly yield + auxiliary tiers

Sources: de Vries 2005 (doi 10.1109/TSM.2004.836656) for dies per wafer; Stapper 1973, Murphy 1964, Seeds 1967.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import total, where
from jaxcost.core.pytree import Scalar, derived, field, pytree, replace
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.memory import TIERS, Memory
from jaxcost.spec.silicon import Process
from jaxcost.spec.system import System

__all__ = [
    "Build",
    "build",
    "by_parts",
    "die_yield",
    "dies_per_wafer",
    "manufactured_bytes",
    "memory_price",
    "stack_price",
    "stack_yield",
]

_FEWEST = 0.01  # lower bound of dies per wafer: a die larger than the wafer has a very high, finite price


@pytree
class Build:
    """One package: area by part, yield, and price by part."""

    engines: Scalar = field("m^2", "matmul engines")
    on_chip_memory: Scalar = field("m^2", "caches and software-managed memory")
    memory_interfaces: Scalar = field("m^2", "interfaces to memory stacks and modules")
    link_interfaces: Scalar = field("m^2", "interfaces to other chips")
    other: Scalar = field("m^2", "everything else")
    dies_per_wafer: Scalar = field("1", "dies per wafer, good or bad")
    good_share: Scalar = field("1", "yield: share of good dies")
    dies: Scalar = field("USD", "good logic dies, tested")
    memory: Scalar = field("USD", "main memory and auxiliary tiers")
    package: Scalar = field("USD", "substrate, interposer, assembly, and losses in assembly")
    margin: Scalar = field(
        "USD", "vendor's margin and development; negative where sold below the cost of its parts"
    )

    @derived("m^2")
    def die_area(self) -> Scalar:
        """Area of all logic dies."""
        parts = self.engines, self.on_chip_memory, self.memory_interfaces, self.link_interfaces
        return total((*parts, self.other))

    @derived("USD")
    def materials(self) -> Scalar:
        """The bill of materials."""
        return self.dies + self.memory + self.package

    @derived("USD")
    def price(self) -> Scalar:
        """The purchase price of one package."""
        return self.materials + self.margin


def dies_per_wafer(process: Process, area: Scalar) -> Scalar:
    """Return the dies of an area per wafer, good or bad; dies across the rim are lost."""
    d = process.wafer_diameter
    size = where(area > 0, area, 1)
    cut = jnp.pi * d * (0.25 * d / size - 1 / jnp.sqrt(2 * size))
    return where(area > 0, jnp.maximum(cut, _FEWEST), 1)


def die_yield(process: Process, area: Scalar, critical: Scalar = 1.0) -> Scalar:
    """Return the yield of dies of an area by the yield model of the process."""
    x = critical * area * process.defect_density
    a = process.clustering
    some = where(x > 1e-6, x, 1)
    murphy = where(x > 1e-6, (-jnp.expm1(-some) / some) ** 2, 1 - x)
    models = (jnp.exp(-a * jnp.log1p(x / a)), jnp.exp(-x), murphy, 1 / (1 + x))
    return smooth.select_steps(process.yield_model, (0.5, 1.5, 2.5), models)


def stack_yield(layers: Scalar, bond_yield: Scalar, die_yield: Scalar = 1.0) -> Scalar:
    """Return the yield of memory stacks: y_die^n y_bond^(n - 1); dies tested before stacking have y_die = 1."""
    return die_yield**layers * bond_yield ** (layers - 1)


def stack_price(
    layers: Scalar, die_price: Scalar, base_price: Scalar, bond_yield: Scalar, die_yield: Scalar = 1.0
) -> Scalar:
    """Return the price of a stack of n memory dies on a base die, USD: (n p + p_base) / stack yield.

    Args:
        layers: memory dies in the stack.
        die_price: USD per memory die; per tested die where `die_yield` is 1.
        base_price: USD of the base die.
        bond_yield: yield of the bonding of two dies.
        die_yield: yield of untested dies; 1 for tested dies.
    """
    return (layers * die_price + base_price) / stack_yield(layers, bond_yield, die_yield)


def manufactured_bytes(memory: Memory) -> Scalar:
    """Return the bytes of the stacks of a tier: those that the driver reports and those withheld from it."""
    return memory.capacity + memory.withheld


def memory_price(memory: Memory, since: Scalar) -> Scalar:
    """Return the price of a tier, USD, `since` seconds after the catalogue: bytes x price e^(trend x time)."""
    return manufactured_bytes(memory) * memory.price_per_byte * jnp.exp(memory.price_trend * since)


def build(chip: Chip, fabric: Fabric, auxiliary: Sequence[str], since: Scalar) -> Build:
    """Return area, yield and price of a package.

    On-chip memory takes die area. Where the price of the chip is the sum of its parts, that area is its only cost.

    Args:
        chip: the chip with nominal capacities.
        fabric: its links, whose interfaces take area.
        auxiliary: names of its auxiliary tiers.
        since: seconds from the catalogue's memory prices to the purchase.
    """
    p, process = chip.package, chip.process
    links = (fabric.package, fabric.scale_up, fabric.scale_out)
    tiers = (chip.memory, *(getattr(chip, name) for name in auxiliary))
    has_price = chip.price > 0
    engines = p.area_per_flop * chip.compute.flops_16
    on_chip = p.area_per_byte * (p.cache + chip.sram.capacity)
    memory_interfaces = total(tier.stacks * tier.interface_area * (1 - tier.chained) for tier in tiers)
    link_interfaces = total(link.bandwidth * link.interface_area for link in links)
    parts = engines + on_chip + memory_interfaces + link_interfaces
    other = where(chip.die_area > 0, chip.die_area - parts, p.other_area)
    die_area = parts + other
    each = die_area / p.dies
    count, good = dies_per_wafer(process, each), die_yield(process, each, p.critical)
    dies = p.dies * process.wafer_price / (count * good) * (1 + p.die_test)
    main = memory_price(chip.memory, since)
    bought = {name: memory_price(getattr(chip, name), since) for name in auxiliary}
    if "sram" in bought:
        bought["sram"] = where(has_price, bought["sram"], 0)
    carrier = die_area + total(tier.stacks * tier.footprint for tier in tiers)
    supplied = p.base_price + p.price_per_area * carrier
    assembled = (dies + main + supplied) / p.assembly_yield
    return Build(
        engines=engines,
        on_chip_memory=on_chip,
        memory_interfaces=memory_interfaces,
        link_interfaces=link_interfaces,
        other=other,
        dies_per_wafer=count,
        good_share=good,
        dies=dies,
        memory=total((main, *bought.values())),
        package=assembled - dies - main,
        # A published price is that of the package; auxiliary tiers are bought in addition.
        margin=where(has_price, chip.price - assembled, p.margin),
    )


def by_parts(system: System, like: System | None = None) -> System:
    """Return a system whose die area and price are sums of parts, calibrated to its published area and price.

    A chip of the catalogue keeps its published area and price whatever is changed. In the result they follow from
    engines, on-chip memory, interfaces, stacks and yield; the remainder of the published numbers is constant.

    Args:
        system: the system.
        like: the system whose area and price the parts sum to; None for `system` itself.
    """
    base = system if like is None else like
    auxiliary = [name for name in TIERS if name != "memory"]
    parts = build(base.chip, base.fabric, auxiliary, 0.0)
    package = replace(system.chip.package, other_area=parts.other, margin=parts.margin)
    free = {"die_area": jnp.zeros_like(parts.other), "price": jnp.zeros_like(parts.other)}
    return replace(system, chip=replace(system.chip, package=package, **free))
