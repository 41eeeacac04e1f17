"""The files of configs/: what stands in them, checked once, strictly.

Every number is an entry {value, source, date, kind}, with low and high where it is an estimate. The unit a field
must have is written beside the field.
"""

from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from jaxcost.edge.io.errors import InputError, nearest
from jaxcost.spec.fabric import TOPOLOGIES

__all__ = [
    "ChipFile",
    "Entry",
    "FabricFile",
    "GridFile",
    "MemoryFile",
    "NearFile",
    "PackageFile",
    "PricesFile",
    "SiliconFile",
    "Strict",
    "SystemFile",
    "Titled",
    "check",
    "unit_of",
]

M = TypeVar("M", bound="Strict")


class Strict(BaseModel):
    """A mapping whose keys are all known."""

    # Built when a file of the kind is first checked: few kinds are, in one call.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


class Entry(Strict):
    """One number with where it comes from."""

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
            raise ValueError("low and high beside the value of an estimate")
        return self


class Titled(Strict):
    """A file of the catalogue."""

    title: str
    note: str = ""


class ComputeSection(Strict):
    """Peak dense rates."""

    flops_32: Annotated[Entry | None, "FLOP/s"] = None
    flops_16: Annotated[Entry, "FLOP/s"]
    flops_8: Annotated[Entry | None, "FLOP/s"] = None
    flops_6: Annotated[Entry | None, "FLOP/s"] = None
    flops_4: Annotated[Entry | None, "FLOP/s"] = None
    vector_flops: Annotated[Entry, "FLOP/s"]
    exponentials: Annotated[Entry, "1/s"]
    cores: Annotated[Entry | None, "1"] = None


class MemorySection(Strict):
    """The main memory; what is not given here is that of the named type. `near` names engines in or beside it."""

    type: str
    stacks: Annotated[Entry | None, "1"] = None
    capacity: Annotated[Entry, "B"]
    bandwidth: Annotated[Entry, "B/s"]
    energy: Annotated[Entry | None, "J/B"] = None
    near: str | None = None


class TierSection(Strict):
    """A tier beside main memory: stacks of a named type, and what differs here, all of them together."""

    type: str
    stacks: Annotated[Entry, "1"]
    capacity: Annotated[Entry | None, "B"] = None
    bandwidth: Annotated[Entry | None, "B/s"] = None
    buffer: Annotated[Entry | None, "B"] = None
    chained: Annotated[Entry | None, "1"] = None
    near: str | None = None


class TiersSection(Strict):
    """Tiers beside main memory, by name."""

    sram: TierSection | None = None
    hbf: TierSection | None = None
    host: TierSection | None = None
    cxl: TierSection | None = None
    ssd: TierSection | None = None


class StackingSection(Strict):
    """Main memory on logic; what is absent is the default of `Stacking`."""

    bond_density: Annotated[Entry | None, "1/m^2"] = None
    bond_rate: Annotated[Entry | None, "bit/s"] = None
    area: Annotated[Entry | None, "m^2"] = None
    bond_yield: Annotated[Entry | None, "1"] = None
    energy: Annotated[Entry | None, "1"] = None


class CoolingSection(Strict):
    """The way of the heat; what is absent is the default of `Cooling`."""

    area: Annotated[Entry, "m^2"]
    sink: Annotated[Entry, "K*m^2/W"]
    layer: Annotated[Entry | None, "K*m^2/W"] = None
    layers: Annotated[Entry | None, "1"] = None
    coolant: Annotated[Entry | None, "K"] = None
    limit: Annotated[Entry | None, "K"] = None


class EnergySection(Strict):
    """Energy of work."""

    per_flop: Annotated[Entry, "J/FLOP"]
    per_vector_flop: Annotated[Entry, "J/FLOP"]
    per_exponential: Annotated[Entry, "J"]
    on_chip_per_byte: Annotated[Entry, "J/B"]


def _is_topology(name: Any) -> Any:
    if name not in TOPOLOGIES:
        *names, last = map(repr, TOPOLOGIES)
        raise ValueError(f"{', '.join(names)} or {last}")
    return name


Topology = Annotated[str, BeforeValidator(_is_topology)]


class Wiring(Strict):
    """How a level of links is wired; what is absent is the default of `Link`."""

    topology: Topology | None = None  # a switch where no file says
    dimensions: Annotated[Entry | None, "1"] = None
    radix: Annotated[Entry | None, "1"] = None
    taper: Annotated[Entry | None, "1"] = None
    in_network: Annotated[Entry | None, "1"] = None
    sram_landing: Annotated[Entry | None, "1"] = None
    background: Annotated[Entry | None, "1"] = None


class LinkSection(Wiring):
    """One level of links: its bandwidth here, all else from the named fabric unless it is given here too."""

    fabric: str
    bandwidth: Annotated[Entry, "B/s"]
    latency: Annotated[Entry | None, "s"] = None
    overhead: Annotated[Entry | None, "s"] = None
    launch: Annotated[Entry | None, "s"] = None
    energy: Annotated[Entry | None, "J/B"] = None


class ReliabilitySection(Strict):
    """Late ranks, failing chips and spares; none where absent."""

    jitter: Annotated[Entry | None, "s"] = None
    timeout: Annotated[Entry | None, "s"] = None
    spares: Annotated[Entry | None, "1"] = None
    failure_rate: Annotated[Entry | None, "1/s"] = None
    repair_time: Annotated[Entry | None, "s"] = None
    switchover_time: Annotated[Entry | None, "s"] = None


class ChipFile(Titled):
    """configs/chips: one accelerator."""

    year: int
    aliases: list[str] = []
    compute: ComputeSection
    memory: MemorySection
    tiers: TiersSection | None = None
    stacking: StackingSection | None = None
    cooling: CoolingSection | None = None
    shoreline: Annotated[Entry | None, "m"] = None
    tdp: Annotated[Entry, "W"]
    idle_power: Annotated[Entry, "W"]
    energy: EnergySection
    die_area: Annotated[Entry, "m^2"]
    silicon: str
    packaging: str
    dies: Annotated[Entry | None, "1"] = None
    cache: Annotated[Entry | None, "B"] = None
    critical: Annotated[Entry | None, "1"] = None
    engine_share: Annotated[Entry | None, "1"] = None
    price: Annotated[Entry, "USD"]
    rental: Annotated[Entry | None, "USD/s"] = None
    package_chips: Annotated[Entry | None, "1"] = None
    domain: Annotated[Entry, "1"]
    package: LinkSection | None = None
    scale_up: LinkSection | None = None
    scale_out: LinkSection | None = None
    host: str


class MemoryFile(Titled):
    """configs/memories: one stack, channel, module or device."""

    capacity: Annotated[Entry, "B"]
    bandwidth: Annotated[Entry, "B/s"]
    write_bandwidth: Annotated[Entry | None, "B/s"] = None
    latency: Annotated[Entry | None, "s"] = None
    energy: Annotated[Entry, "J/B"]
    power: Annotated[Entry | None, "W"] = None
    idle_power: Annotated[Entry | None, "W"] = None
    write_energy: Annotated[Entry | None, "J/B"] = None
    granularity: Annotated[Entry | None, "B"] = None
    read_size: Annotated[Entry | None, "B"] = None
    queue_depth: Annotated[Entry | None, "1"] = None
    in_order: Annotated[Entry | None, "1"] = None
    endurance: Annotated[Entry | None, "1"] = None
    write_amplification: Annotated[Entry | None, "1"] = None
    retention: Annotated[Entry | None, "s"] = None
    refresh: Annotated[Entry | None, "1"] = None
    temperature_limit: Annotated[Entry | None, "K"] = None
    shoreline: Annotated[Entry | None, "m"] = None
    on_die: bool = False
    interface_area: Annotated[Entry | None, "m^2"] = None
    footprint: Annotated[Entry | None, "m^2"] = None
    price: Annotated[Entry | None, "USD/B"] = None
    price_factor: Annotated[Entry | None, "1"] = None  # a year
    carbon: Annotated[Entry, "kg/B"]


class NearFile(Titled):
    """configs/near: engines in (PIM) or beside (PNM) one stack, module or card of a memory."""

    memory: str
    kind: Literal["PIM", "PNM"]
    bandwidth: Annotated[Entry, "B/s"]
    flops: Annotated[Entry, "FLOP/s"]
    energy: Annotated[Entry, "J/B"]
    flop_energy: Annotated[Entry, "J/FLOP"]
    idle_power: Annotated[Entry | None, "W"] = None
    power_limit: Annotated[Entry | None, "W"] = None
    shard: Annotated[Entry | None, "B"] = None
    density: Annotated[Entry | None, "1"] = None
    blocking: Annotated[Entry | None, "1"] = None
    overhead: Annotated[Entry | None, "s"] = None


class FabricFile(Titled, Wiring):
    """configs/fabrics: one kind of link, by the hop; its software, and its place on the die."""

    bandwidth: Annotated[Entry | None, "B/s"] = None
    latency: Annotated[Entry, "s"]
    overhead: Annotated[Entry, "s"]
    launch: Annotated[Entry, "s"]
    energy: Annotated[Entry, "J/B"]
    interface_area: Annotated[Entry | None, "m^2*s/B"] = None
    interface_edge: Annotated[Entry | None, "m*s/B"] = None


class SiliconFile(Titled):
    """configs/silicon: one logic process."""

    wafer_price: Annotated[Entry, "USD"]
    defect_density: Annotated[Entry, "1/m^2"]
    clustering: Annotated[Entry | None, "1"] = None
    yield_model: Literal["negative-binomial", "poisson", "murphy", "seeds"] = "negative-binomial"
    reticle: Annotated[Entry | None, "m^2"] = None
    area_per_byte: Annotated[Entry, "m^2/B"]
    fab_energy: Annotated[Entry, "J/m^2"]
    fab_grid: Annotated[Entry | None, "kg/J"] = None
    fab_gases: Annotated[Entry, "kg/m^2"]
    fab_materials: Annotated[Entry, "kg/m^2"]


class PackageFile(Titled):
    """configs/packages: how dies and memories are joined."""

    base_price: Annotated[Entry, "USD"]
    price_per_area: Annotated[Entry, "USD/m^2"]
    die_test: Annotated[Entry, "1"]
    assembly_yield: Annotated[Entry, "1"]
    carbon: Annotated[Entry, "kg"]


class HostFile(Titled):
    """configs/hosts: the share of server, network and rack that a chip brings with it."""

    price: Annotated[Entry, "USD"]
    network_price: Annotated[Entry | None, "USD"] = None
    rack_price: Annotated[Entry | None, "USD"] = None
    power: Annotated[Entry, "W"]
    carbon: Annotated[Entry, "kg"]


class PricesFile(Titled):
    """configs/prices: a datacenter and its grid."""

    electricity: Annotated[Entry, "USD/J"]
    pue: Annotated[Entry, "1"]
    lifetime: Annotated[Entry, "s"]
    datacenter: Annotated[Entry, "USD/W"]
    datacenter_lifetime: Annotated[Entry, "s"]
    maintenance: Annotated[Entry, "1/s"]
    interest: Annotated[Entry | None, "1/s"] = None
    utilization: Annotated[Entry, "1"]
    water: Annotated[Entry | None, "USD/m^3"] = None
    site_water: Annotated[Entry | None, "m^3/J"] = None
    grid_water: Annotated[Entry | None, "m^3/J"] = None
    rack_power: Annotated[Entry | None, "W"] = None
    load_swing: Annotated[Entry | None, "1"] = None
    load_peak: Annotated[Entry | None, "s"] = None
    building_carbon: Annotated[Entry | None, "kg/W"] = None
    grid: str


class GridFile(Titled):
    """configs/grids: one region's electricity."""

    carbon: Annotated[Entry, "kg/J"]
    swing: Annotated[Entry | None, "1"] = None
    peak: Annotated[Entry | None, "s"] = None


class SystemFile(Titled):
    """configs/systems: a number of chips, with what differs from their defaults."""

    chip: str
    chips: int
    host: str | None = None
    efficiency: str | None = None
    near: str | None = None
    tiers: TiersSection | None = None
    stacking: StackingSection | None = None
    cooling: CoolingSection | None = None
    shoreline: Annotated[Entry | None, "m"] = None
    package_chips: Annotated[Entry | None, "1"] = None
    domain: Annotated[Entry | None, "1"] = None
    package: LinkSection | None = None
    scale_up: LinkSection | None = None
    scale_out: LinkSection | None = None
    background_message: Annotated[Entry | None, "B"] = None
    reliability: ReliabilitySection | None = None
    battery: Annotated[Entry | None, "J"] = None
    reserved: Annotated[Entry | None, "B"] = None
    power_cap: Annotated[Entry | None, "W"] = None


def unit_of(model: type[BaseModel], field: str) -> str | None:
    """Return the unit that a field of a file must have, None where it is no number."""
    metadata = model.model_fields[field].metadata
    return metadata[0] if metadata and isinstance(metadata[0], str) else None


def check(model: type[M], data: dict[str, Any], *, file: object) -> M:
    """Check a mapping against its file type.

    Raises:
        InputError: of the first thing wrong, with its dotted path.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # An unknown key first: it is usually why another one is missing.
        found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise _explain(model, found[0], file) from None


def _explain(model: type[BaseModel], problem: Any, file: object) -> InputError:
    location = [str(part) for part in problem["loc"]]
    if problem["type"] != "extra_forbidden":  # the branches of a union are no keys
        location = [part for part in location if part not in ("str", "int", "float")]
    path, kind, given = ".".join(location), problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        names = list(_section(model, location[:-1]).model_fields)
        return InputError(
            "one of " + ", ".join(names), file=file, path=path, suggestion=nearest(location[-1], names)
        )
    if kind == "missing":
        return InputError("this field, which is missing", file=file, path=path)
    if kind in {"model_type", "model_attributes_type"}:
        wanted = "a mapping"
        if _section(model, location) is Entry:
            wanted = "an entry with value, source, date and kind"
        return InputError(wanted, file=file, path=path, given=given)
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return InputError(message, file=file, path=path, given=None if isinstance(given, dict) else given)


def _section(model: type[BaseModel], location: list[str]) -> type[BaseModel]:
    for part in location:
        if part not in model.model_fields:
            return model
        annotation = model.model_fields[part].annotation
        options = [annotation, *get_args(annotation)] if get_origin(annotation) else [annotation]
        options += [inner for option in options for inner in get_args(option)]
        found = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if not found:
            return model
        model = found[0]
    return model
