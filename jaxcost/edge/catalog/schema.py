"""The files of configs/: what stands in them, checked once, strictly.

Every number is an entry {value, source, date, kind}, with low and high where it is an estimate. Numbers of a tree of
`spec` are declared there: `section` makes the entries of a file from their units and bounds, so that a number that is
added to a chip may stand in its file at once. Only what a file has beyond the trees is declared here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field, create_model, model_validator

from jaxcost.core.bounds import NON_NEGATIVE, POSITIVE, SHARE, Bounds
from jaxcost.core.pytree import leaf_fields
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.io.validation import StrictModel
from jaxcost.spec.chip import Chip, Compute, Cooling, Stacking
from jaxcost.spec.engine import Engine
from jaxcost.spec.fabric import TOPOLOGIES, Fabric, Link
from jaxcost.spec.memory import Memory, NearMemory
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Prices
from jaxcost.spec.silicon import Package, Process
from jaxcost.spec.system import Host, System

__all__ = [
    "MOST_POSITIONS",
    "AcceptanceFile",
    "ChipFile",
    "EngineFile",
    "Entry",
    "FabricFile",
    "GridFile",
    "MemoryFile",
    "NearFile",
    "PackageFile",
    "PricesFile",
    "Quantity",
    "SiliconFile",
    "SystemFile",
    "Titled",
    "quantity_of",
    "section",
]


MOST_POSITIONS = 16  # drafted tokens of a table of acceptance


class Entry(StrictModel):
    """One number with where it comes from."""

    expected: ClassVar[str] = "an entry with value, source, date and kind"
    value: str | int | float
    source: str
    date: str | int
    kind: Literal["datasheet", "paper", "measured", "estimate"]
    low: str | int | float | None = None
    high: str | int | float | None = None
    note: str | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "Entry":
        if self.kind == "estimate" and (self.low is None or self.high is None):
            raise InputError("low and high of an estimate")
        return self


class Titled(StrictModel):
    """A file of the catalogue."""

    title: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What the number of an entry must be, and the leaf that it becomes, where that has another name."""

    unit: str
    bounds: Bounds = NON_NEGATIVE
    leaf: str = ""


def section(
    tree: type,
    *,
    only: str = "",
    without: str = "",
    required: str = "",
    positive: str = "",
    names: Mapping[str, str] | None = None,
) -> Any:
    """Make a model whose fields are entries for the numbers of a tree, with the units and bounds declared there.

    Args:
        tree: a class of `spec`.
        only: the leaves taken, separated by spaces; all where empty.
        without: leaves left out.
        required: leaves whose entry must be there.
        positive: leaves whose 0 means that there is none, and which a file therefore gives above 0.
        names: names in the file of leaves that have another.
    """
    taken = [f for f in leaf_fields(tree) if f.metadata["unit"] and f.name not in without.split()]
    fields: dict[str, Any] = {}
    for f in taken:
        if only and f.name not in only.split():
            continue
        bounds, name = f.metadata["bounds"], (names or {}).get(f.name, f.name)
        above = bounds._replace(above=True) if f.name in positive.split() else bounds
        quantity = Quantity(f.metadata["unit"], above, f.name)
        needed = f.name in required.split()
        fields[name] = (Annotated[Entry if needed else Entry | None, quantity], ... if needed else None)
    return create_model(f"{tree.__name__}Section", __base__=StrictModel, __doc__=tree.__doc__, **fields)


class MemorySection(
    section(
        Memory,
        only="stacks capacity withheld bandwidth energy_per_byte",
        required="capacity bandwidth",
        positive="capacity bandwidth",
        names={"energy_per_byte": "energy"},
    )
):
    """The main memory; what is not given here is that of the named type. `near` names engines in or beside it."""

    type: str
    near: str | None = None


class TierSection(
    section(
        Memory,
        only="stacks capacity bandwidth buffer chained",
        required="stacks",
        positive="stacks capacity bandwidth",
    )
):
    """An auxiliary tier: stacks of a named type, and what differs here, all of them together."""

    type: str
    near: str | None = None


class TiersSection(StrictModel):
    """Auxiliary tiers, by name."""

    sram: TierSection | None = None
    hbf: TierSection | None = None
    host: TierSection | None = None
    cxl: TierSection | None = None
    ssd: TierSection | None = None


_ENERGY = {
    "energy_per_flop": "per_flop",
    "energy_per_vector_flop": "per_vector_flop",
    "energy_per_exponential": "per_exponential",
    "on_chip_energy_per_byte": "on_chip_per_byte",
}
_SYSTEM = "power_cap reserved"  # of a chip, as a system's file says


class EnergySection(
    section(Chip, only=" ".join(_ENERGY), required=" ".join(_ENERGY), names=_ENERGY),
):
    """Energy of work."""


class ComputeSection(
    section(
        Compute,
        required="flops_16 vector_flops exponentials",
        positive="flops_16 vector_flops exponentials",
    )
):
    """Peak dense rates."""


class StackingSection(section(Stacking)):
    """Main memory on logic; what is absent is the default of `Stacking`."""


class CoolingSection(section(Cooling, required="area sink")):
    """The way of the heat; what is absent is the default of `Cooling`."""


def _is_topology(name: Any) -> Any:
    if name not in TOPOLOGIES:
        raise not_among(TOPOLOGIES, str(name))
    return name


Topology = Annotated[str, BeforeValidator(_is_topology)]


class LinkSection(
    section(
        Link,
        without="topology interface_area interface_edge",
        required="bandwidth",
        positive="bandwidth",
        names={"energy_per_byte": "energy"},
    )
):
    """One level of links: its bandwidth here, all else from the named fabric unless it is given here too."""

    fabric: str
    topology: Topology | None = None  # a switch where no file says


class ReliabilitySection(
    section(Fabric, only="jitter timeout"),
    section(System, only="spares failure_rate repair_time switchover_time"),
):
    """Late ranks, failing chips and spares; none where absent."""


class ChipFile(
    Titled,
    section(
        Chip,
        without=" ".join([*_ENERGY, _SYSTEM]),
        required="tdp idle_power die_area price",
        positive="tdp",
    ),
    section(Package, only="dies cache critical", positive="dies"),
    section(Fabric, only="package_chips domain", required="domain"),
):
    """configs/chips: one accelerator."""

    year: int
    architecture: str = ""  # generation of its cores, whose kernels a chip that was not measured takes
    aliases: list[str] = Field(default_factory=list)
    compute: ComputeSection
    memory: MemorySection
    tiers: TiersSection | None = None
    stacking: StackingSection | None = None
    cooling: CoolingSection | None = None
    energy: EnergySection
    silicon: str
    packaging: str
    engine_share: Annotated[Entry | None, Quantity("1", SHARE._replace(above=True))] = None
    package: LinkSection | None = None
    scale_up: LinkSection | None = None
    scale_out: LinkSection | None = None
    host: str


class MemoryFile(
    Titled,
    section(
        Memory,
        without="withheld price_trend stacks buffer chained",
        required="capacity bandwidth energy_per_byte carbon_per_byte",
        positive="capacity bandwidth",
        names={
            "energy_per_byte": "energy",
            "write_energy_per_byte": "write_energy",
            "carbon_per_byte": "carbon",
            "price_per_byte": "price",
        },
    ),
):
    """configs/memories: one stack, channel, module or device."""

    power: Annotated[Entry | None, Quantity("W")] = None  # at full bandwidth: what the energy of a byte says
    on_die: bool = False
    price_factor: Annotated[Entry | None, Quantity("1", POSITIVE)] = None  # a year


class NearFile(
    Titled,
    section(
        NearMemory,
        required="bandwidth flops energy_per_byte energy_per_flop",
        positive="bandwidth flops",
        names={"energy_per_byte": "energy", "energy_per_flop": "flop_energy"},
    ),
):
    """configs/near: engines in (PIM) or beside (PNM) one stack, module or card of a memory."""

    memory: str
    kind: Literal["PIM", "PNM"]


class FabricFile(
    Titled,
    section(
        Link,
        without="topology",
        required="latency overhead launch energy_per_byte",
        positive="bandwidth",
        names={"energy_per_byte": "energy"},
    ),
):
    """configs/fabrics: one kind of link, by the hop; its software, and its place on the die."""

    topology: Topology | None = None


class SiliconFile(
    Titled,
    section(
        Process,
        without="yield_model",
        required="wafer_price defect_density fab_energy fab_gases fab_materials",
        positive="wafer_price clustering fab_energy",
    ),
):
    """configs/silicon: one logic process."""

    yield_model: Literal["negative-binomial", "poisson", "murphy", "seeds"] = "negative-binomial"
    area_per_byte: Annotated[Entry, Quantity("m^2/B", POSITIVE)]


class PackageFile(
    Titled,
    section(
        Package,
        only="base_price price_per_area die_test assembly_yield carbon",
        required="base_price price_per_area die_test assembly_yield carbon",
        positive="assembly_yield",
    ),
):
    """configs/packages: how dies and memories are joined."""


class HostFile(Titled, section(Host, required="price power carbon")):
    """configs/hosts: the share of server, network and rack that a chip brings with it."""


class PricesFile(
    Titled,
    section(
        Prices,
        without="since grid_carbon grid_swing grid_peak load_peak",
        required="electricity pue lifetime datacenter datacenter_lifetime maintenance utilization",
        positive="lifetime datacenter_lifetime utilization pue rack_power",
    ),
):
    """configs/prices: a datacenter and its grid."""

    load_peak: Annotated[Entry | None, Quantity("s")] = None  # time of day
    grid: str


_POSITIONS: dict[str, Any] = {
    f"token_{k}": (
        Annotated[Entry if k == 1 else Entry | None, Quantity("1", SHARE)],
        ... if k == 1 else None,
    )
    for k in range(1, MOST_POSITIONS + 1)
}


class AcceptanceFile(Titled, create_model("PositionsSection", __base__=StrictModel, **_POSITIONS)):
    """configs/acceptance: for each drafted token, the share of drafts accepted up to and including it."""

    model: str
    method: str


class EngineLimits(section(Engine)):
    """What differs on chips with at least some memory, except those whose names begin with a listed one."""

    at_least: str
    except_chips: list[str] = Field(default_factory=list)


class ExpertKernel(section(Plan, only="expert_width_multiple expert_input_multiple")):
    """A kernel of MXFP4 experts: the multiples to which it pads weights."""


class EngineOptions(StrictModel):
    """The engine's own names of what a user sets, without dashes in front."""

    memory_share: str | None = None
    cache_share: str | None = None
    step_tokens: str | None = None
    sequences: str | None = None
    block: str | None = None
    context: str | None = None
    without_graphs: str | None = None


class EngineFile(Titled, section(Engine, required="memory_share")):
    """configs/engines: a version of a serving engine; what is absent it does not have.

    Without `options` the names are vLLM's. The first of `expert_kernels` is the engine's default.
    """

    version: str = ""
    aliases: list[str] = Field(default_factory=list)
    options: EngineOptions | None = None
    expert_kernels: dict[str, ExpertKernel] = Field(default_factory=dict)
    by_memory: list[EngineLimits] = Field(default_factory=list)


class GridFile(
    Titled,
    section(
        Prices,
        only="grid_carbon grid_swing",
        required="grid_carbon",
        names={"grid_carbon": "carbon", "grid_swing": "swing"},
    ),
):
    """configs/grids: one region's electricity."""

    peak: Annotated[Entry | None, Quantity("s", leaf="grid_peak")] = None  # time of day


class SystemFile(
    Titled,
    section(Chip, only=f"shoreline {_SYSTEM}"),
    section(Fabric, only="package_chips domain background_message"),
    section(System, only="battery"),
):
    """configs/systems: a number of chips, with what differs from their defaults."""

    chip: str
    chips: int
    host: str | None = None
    efficiency: str | None = None
    near: str | None = None
    tiers: TiersSection | None = None
    stacking: StackingSection | None = None
    cooling: CoolingSection | None = None
    package: LinkSection | None = None
    scale_up: LinkSection | None = None
    scale_out: LinkSection | None = None
    reliability: ReliabilitySection | None = None


def quantity_of(model: type[BaseModel], field: str) -> Quantity | None:
    """Return what the number of a field must be, None where the field is no number."""
    return next((m for m in model.model_fields[field].metadata if isinstance(m, Quantity)), None)
