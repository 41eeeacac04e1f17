"""Named parts: from the files of configs/, or a user's own, to the trees that are evaluated."""

import itertools
import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog.kernels import check_keys, kernels_of
from jaxcost.edge.catalog.parts import (
    KINDS,
    LONGEST_NAME,
    aliases,
    architecture_of,
    architectures,
    chip_keys,
    chip_of_system,
    expanded,
    find,
    known,
    list_names,
    load_part,
    looks_like_path,
    provenance,
    read_part,
    scope_of_library,
    title,
)
from jaxcost.edge.catalog.reading import (
    canonical,
    configs_root,
    leaves_of,
    quantities,
    shown,
    value_of,
)
from jaxcost.edge.catalog.silicon import DAY, with_silicon
from jaxcost.edge.catalog.tiers import load_memory, with_sections
from jaxcost.edge.hf.source import CheckpointFiles, find_cached, find_checkpoint, is_hub_id
from jaxcost.edge.io.errors import InputError, nearest, within
from jaxcost.spec.chip import Chip, Compute, Efficiency
from jaxcost.spec.fabric import Fabric, Link, topology_id
from jaxcost.spec.model import Model
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import Host, System

if TYPE_CHECKING:
    from jaxcost.edge.hf.reader import ReadModel

__all__ = [
    "KINDS",
    "aliases",
    "architecture_of",
    "chip_of_system",
    "configs_root",
    "find_model",
    "grid_leaves",
    "list_names",
    "load_chip",
    "load_efficiency",
    "load_host",
    "load_link",
    "load_memory",
    "load_model",
    "load_prices",
    "load_system",
    "provenance",
    "quantities",
    "read_files",
    "title",
]

_PRECISIONS = ("flops_16", "flops_8", "flops_6", "flops_4")  # each falls back on the one before it


def load_efficiency(name: str = "ideal", chip: str | None = None) -> Efficiency:
    """Load achieved shares of the peaks: "ideal", "typical", a calibrated library, or a YAML path.

    A library has numbers of the chips that were measured, of their architectures, and of neither. `h100-sxm-vllm` is
    the library `vllm` as on that chip, whatever the chip in use; `gpu-vllm` is another name of `vllm`.

    Args:
        name: of the file, as in `jaxcost list efficiency`.
        chip: catalogue name or path of the chip in use; None for the numbers of a chip of another architecture than
            the measured ones.

    Raises:
        InputError: no such name, or a broken file.
    """
    part, path = load_part("efficiency", name)
    kernels = None
    if part.kernels is not None:
        here = () if chip is None else chip_keys(chip)
        check_keys(part.kernels, [*known("chips"), *architectures(), *part.chips, *here], shown(path))
        scope = scope_of_library(name)
        kernels = kernels_of(part.kernels, path, here if scope is None else scope)
    return canonical(Efficiency(**quantities(part, path), kernels=kernels))


def load_prices(name: str = "default") -> Prices:
    """Load the economics of a datacenter; its `grid` is a name among grids."""
    part, path = load_part("prices", name)
    q = quantities(part, path)
    if "load_peak" in q:
        q["load_peak"] /= DAY
    return canonical(Prices(**q, **grid_leaves(part.grid)))


def grid_leaves(name: str) -> dict[str, float]:
    """Read a region's electricity: the leaves of `Prices` that are the grid's."""
    part, path = load_part("grids", name)
    q = {"grid_swing": 0.0, "grid_peak": Prices().grid_peak * DAY} | quantities(part, path)
    return q | {"grid_peak": q["grid_peak"] / DAY}


def _chip(name: str, efficiency: str) -> tuple[Chip, Any, Path]:
    part, path = load_part("chips", name)
    compute = quantities(part.compute, path, "compute.")
    for wider, narrower in itertools.pairwise(_PRECISIONS):
        compute.setdefault(narrower, compute[wider])
    compute.setdefault("flops_32", compute["vector_flops"])
    memory = quantities(part.memory, path, "memory.")
    kind = within(shown(path), "memory.type", load_memory, part.memory.type)
    on_die = read_part(find("memories", part.memory.type)).get("on_die", False)
    # Memory that is part of the dies is made, and paid for, with them.
    free = {"price_per_byte": 0.0, "carbon_per_byte": 0.0} if on_die else {}
    energy: dict[str, Any] = dict(quantities(part.energy, path, "energy."))
    chip = Chip(
        compute=Compute(**compute),
        # Idle power of the memory is part of that of the package.
        memory=replace(kind, **{"stacks": 0.0, "idle_power": 0.0} | memory | free),
        efficiency=load_efficiency(efficiency, name),
        **energy,
    )
    # Numbers of the chip itself come with its sections; those of its silicon need its area.
    chip = with_sections(chip, part, path, part.memory.near, "memory.near")
    chip = replace(chip, **with_silicon(chip, part, path, on_die=on_die))
    return chip, part, path


def load_chip(name: str, *, efficiency: str = "ideal") -> Chip:
    """Load one accelerator by name, alias or YAML path."""
    return canonical(_chip(name, efficiency)[0])


def load_link(name: str) -> Link:
    """Load one level of a fabric, with the topology of its file, else a switch."""
    return canonical(_link_of(*load_part("fabrics", name), {}, None))


def _link(section: Any, path: Path, where: str) -> Link:
    if section is None:
        return Link()
    fabric, fabric_path = within(shown(path), f"{where}fabric", load_part, "fabrics", section.fabric)
    return _link_of(fabric, fabric_path, quantities(section, path, where), section.topology)


def _link_of(fabric: Any, path: Path, changes: dict[str, float], topology: str | None) -> Link:
    wired = topology_id(topology or fabric.topology or "switch")
    return Link(topology=wired, **quantities(fabric, path) | changes)


def load_host(name: str) -> Host:
    """Load what surrounds each chip: server, network and rack."""
    part, path = load_part("hosts", name)
    return canonical(Host(**quantities(part, path)))


def load_system(name: str, *, efficiency: str = "ideal") -> System:
    """Load a system: a catalogue name, a YAML path, or `<chip>-x<N>` for any whole N (a chip alone is N = 1).

    Raises:
        InputError: no such name, or a broken file.
    """
    if not isinstance(name, str) or (len(name) > LONGEST_NAME and not looks_like_path(name)):
        raise InputError("a system of `jaxcost list systems`, `<chip>-x<N>`, or a YAML path", given=name)
    in_catalogue = not looks_like_path(str(name)) and (configs_root() / "systems" / f"{name}.yaml").exists()
    if in_catalogue or looks_like_path(str(name)):
        part, path = load_part("systems", name)
        if not 1 <= part.chips <= 1_000_000:
            raise InputError("between 1 and 1,000,000", file=shown(path), path="chips", given=part.chips)
        chip, chip_part, chip_path = within(shown(path), "chip", _chip, part.chip, "ideal")
        wanted = part.efficiency or efficiency
        where = "efficiency" if part.efficiency else ""
        chip = replace(chip, efficiency=within(shown(path), where, load_efficiency, wanted, part.chip))
        chip = with_sections(chip, part, path, part.near, "near")
        chips = part.chips
    else:
        base, chips = _split(name)
        chip, chip_part, chip_path = _chip(base, efficiency)
        part, path = chip_part, chip_path

    def pick(field: str) -> tuple[Any, Path]:
        own = getattr(part, field, None)
        return (own, path) if own is not None else (getattr(chip_part, field), chip_path)

    def whole(field: str) -> float:
        entry, where = pick(field)
        if entry is None:
            return 1.0
        return max(value_of(entry, "1", where, shown(where), field), 1.0)

    own = quantities(part, path) if part is not chip_part else {}
    section = getattr(part, "reliability", None)
    if section is not None:
        own |= quantities(section, path, "reliability.")
    links: dict[str, Any] = {
        name: _link(*pick(name), f"{name}.") for name in ("package", "scale_up", "scale_out")
    }
    sizes = {name: whole(name) for name in ("package_chips", "domain")}
    host_name, host_user = pick("host")
    return canonical(
        System(
            chip=chip,
            fabric=Fabric(**leaves_of(Fabric, own) | sizes, **links),
            host=within(shown(host_user), "host", load_host, host_name),
            chips=chips,
            **leaves_of(System, own),
        )
    )


def _split(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)-x(\d+)", name)
    base, chips = (match[1], int(match[2])) if match else (name, 1)
    if base not in (chips_known := known("chips")):
        close = nearest(base, chips_known)
        suffix = f"-x{chips}" if match else ""
        options = [nearest(name, list_names("systems")), f"{close}{suffix}" if close else None]
        raise InputError(
            "a system of `jaxcost list systems`, `<chip>-x<N>`, or a YAML path",
            given=name,
            suggestion=nearest(name, [o for o in options if o]),
        )
    if not 1 <= chips <= 1_000_000:
        raise InputError("between 1 and 1,000,000 chips after -x", given=name)
    return base, chips


def load_model(name: str, *, download: bool = False) -> Model:
    """Load the shape of a model of the catalogue, of a Hugging Face config.json or of a Hugging Face id.

    The precision of a checkpoint is no part of it: `load_checkpoint` reads that too. A warning says so where the
    checkpoint is quantized, and as what a type is read that no family names.

    Args:
        name: an existing path of a config.json or of a folder with one; a Hugging Face id `org/name` that is in the
            local cache; or a name or alias of `jaxcost list models`. They are tried in this order.
        download: whether to fetch the configuration files of an id that is none of these. It requires
            `huggingface_hub`.

    Raises:
        InputError: no such name, or a config that cannot be read, naming the field.
    """
    from jaxcost.edge.hf.precision.stored import is_quantized

    files = find_model(name, download=download)
    read = read_files(files)
    notes = list(read.notes) if not read.family else []
    if is_quantized(files.config, files.hf_quant_config):
        notes += ["the checkpoint is quantized; load_checkpoint(...).plan(...) has its precision"]
    for note in notes:
        warnings.warn(f"{files.file}: {note}", stacklevel=2)
    return canonical(read.model)


def read_files(files: CheckpointFiles, *, strict: bool = False) -> "ReadModel":
    """Read the model of the files of a checkpoint; see `jaxcost.edge.hf.reader.read_checkpoint`."""
    from jaxcost.edge.hf.reader import read_checkpoint

    return read_checkpoint(files.config, file=files.file, strict=strict)


def find_model(name: str, *, download: bool = False) -> CheckpointFiles:
    """Read the configuration files of a model by the names that `load_model` takes."""
    if isinstance(name, str) and is_hub_id(name) and not os.path.exists(name):
        cached = find_cached(name)
        if cached is not None:
            return cached
    path = find("models", name)
    if path == expanded(name):
        return find_checkpoint(name, download=download, known=known("models") if is_hub_id(name) else ())
    entry = read_part(path)
    config = dict(entry["config"])
    if is_hub_id(name) and "stored" in entry:
        config["quantization_config"] = entry["stored"]
    return CheckpointFiles(config, shown(path))
