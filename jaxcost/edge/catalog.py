"""Named parts: from the files of configs/, or a user's own, to the trees that are evaluated."""

import functools
import itertools
import math
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jaxcost.core.pytree import canonical, replace
from jaxcost.edge import schema
from jaxcost.edge.config import read_json, read_yaml
from jaxcost.edge.errors import InputError, nearest, within
from jaxcost.edge.quantity import parse_quantity
from jaxcost.edge.schema import Entry, check, unit_of
from jaxcost.spec.chip import Chip, Compute, Efficiency
from jaxcost.spec.fabric import Fabric, Link, topology_id
from jaxcost.spec.memory import Memory
from jaxcost.spec.model import Model
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import Host, System

__all__ = [
    "KINDS",
    "configs_root",
    "load_chip",
    "load_efficiency",
    "load_memory",
    "load_model",
    "load_prices",
    "load_system",
    "names",
    "provenance",
    "quantities",
    "title",
]

KINDS: dict[str, type[BaseModel] | None] = {
    "models": None,
    "chips": schema.ChipFile,
    "memories": schema.MemoryFile,
    "fabrics": schema.FabricFile,
    "systems": schema.SystemFile,
    "hosts": schema.HostFile,
    "silicon": schema.SiliconFile,
    "efficiency": schema.EfficiencyFile,
    "prices": schema.PricesFile,
    "grids": schema.GridFile,
    "spaces": None,
}
_LONGEST_NAME = 200  # longer ones a file system may refuse
_PRECISIONS = ("flops_16", "flops_8", "flops_6", "flops_4")  # each falls back on the one before it


def configs_root() -> Path:
    """Return the folder of the catalogue: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).parents[1]
    checkout = package.parent / "configs"
    return checkout if (checkout / "chips").is_dir() else package / "configs"


def names(kind: str) -> list[str]:
    """List the names of one kind, such as "chips", in order."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError("one of " + ", ".join(KINDS), given=kind, suggestion=nearest(kind, KINDS))
    return sorted(p.stem for p in (configs_root() / kind).glob("*.yaml"))


@functools.lru_cache(maxsize=1024)
def _parsed(path: Path, modified: int) -> dict[str, Any]:
    return read_yaml(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except (OSError, ValueError):  # read_yaml tells what is wrong with the path
        return read_yaml(path)


def _find(kind: str, name: str) -> Path:
    """Return the file of a catalogue name or of a path a user gave."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"a name among {kind}, or a path", given=name)
    if _looks_like_path(name):
        return _expanded(name)
    name = _chip_name(name) if kind == "chips" else name
    path = configs_root() / kind / f"{name}.yaml"
    if len(name) > _LONGEST_NAME or not path.exists():
        raise InputError(
            f"a name listed by `jaxcost list {kind}`, or a path",
            given=name,
            suggestion=nearest(name, _known(kind)),
        )
    return path


def _known(kind: str) -> list[str]:
    """List the names of one kind and their aliases."""
    own = names(kind)
    return own + [alias for other in own for alias in _aliases(kind, other)]


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise InputError("a path whose home folder exists", given=name) from None


def _looks_like_path(name: str) -> bool:
    return "/" in name or "\\" in name or bool(re.search(r"\.(ya?ml|json|safetensors|bin|gguf|txt)$", name))


def _aliases(kind: str, name: str) -> list[str]:
    return _read(configs_root() / kind / f"{name}.yaml").get("aliases", []) if kind == "chips" else []


def _load(kind: str, name: str) -> tuple[Any, Path]:
    path = _find(kind, name)
    file_type = KINDS[kind]
    assert file_type is not None
    return check(file_type, _read(path), file=_shown(path)), path  # type: ignore[type-var]


def _shown(path: Path) -> str:
    """Name a file as the user knows it: catalogue files from configs/ on."""
    try:
        return str(path.relative_to(configs_root().parent))
    except ValueError:
        return str(path)


def quantities(part: BaseModel, file: Path, prefix: str = "") -> dict[str, float]:
    """Read every entry of a section in SI units; absent ones are left out."""
    out = {}
    for field in type(part).model_fields:
        entry, unit = getattr(part, field), unit_of(type(part), field)
        if isinstance(entry, Entry) and unit is not None:
            shown, path = _shown(file), f"{prefix}{field}"
            out[field] = parse_quantity(entry.value, unit, file=shown, path=f"{path}.value")
            for bound in ("low", "high"):
                given = getattr(entry, bound)
                if given is not None:
                    edge = parse_quantity(given, unit, file=shown, path=f"{path}.{bound}")
                    if (edge > out[field]) if bound == "low" else (edge < out[field]):
                        raise InputError(
                            "low <= value <= high", file=shown, path=f"{path}.{bound}", given=str(given)
                        )
    return out


def _positive(
    values: dict[str, float], required: tuple[str, ...], file: Path, prefix: str
) -> dict[str, float]:
    for field in required:
        if values.get(field, 1.0) <= 0:
            raise InputError(
                "more than zero", file=_shown(file), path=f"{prefix}{field}", given=values[field]
            )
    return values


def load_memory(name: str) -> Memory:
    """Load one stack, channel or module of a memory type."""
    part, path = _load("memories", name)
    q = quantities(part, path)
    return canonical(
        Memory(
            capacity=q["capacity"],
            bandwidth=q["bandwidth"],
            latency=q.get("latency", 0.0),
            energy_per_byte=q["energy"],
            carbon_per_byte=q["carbon"],
        )
    )


def load_efficiency(name: str = "ideal") -> Efficiency:
    """Load achieved shares of the peaks: "ideal", "typical", or a YAML path."""
    part, path = _load("efficiency", name)
    q = _positive(quantities(part, path), ("matmul", "vector", "memory", "link"), path, "")
    for field in ("matmul", "vector", "memory", "link", "overlap"):
        if not 0 <= q.get(field, 0) <= 1:
            raise InputError("a share of at most 1", file=_shown(path), path=field, given=q[field])
    return canonical(Efficiency(**q))


def load_prices(name: str = "default") -> Prices:
    """Load the economics of a datacenter; its `grid` is a name among grids."""
    part, path = _load("prices", name)
    grid, grid_path = _load("grids", part.grid)
    q = _positive(quantities(part, path), ("lifetime", "datacenter_lifetime", "utilization", "pue"), path, "")
    return canonical(Prices(**q, grid_carbon=quantities(grid, grid_path)["carbon"]))


def _chip_name(name: str) -> str:
    """Resolve an alias."""
    if len(name) > _LONGEST_NAME or (configs_root() / "chips" / f"{name}.yaml").exists():
        return name
    return next((other for other in names("chips") if name in _aliases("chips", other)), name)


def _chip(name: str, efficiency: str) -> tuple[Chip, Any, Path]:
    part, path = _load("chips", name)
    compute = _positive(
        quantities(part.compute, path, "compute."),
        ("flops_16", "vector_flops", "exponentials"),
        path,
        "compute.",
    )
    for wider, narrower in itertools.pairwise(_PRECISIONS):
        compute.setdefault(narrower, compute[wider])
    compute.setdefault("flops_32", compute["vector_flops"])
    memory = _positive(quantities(part.memory, path, "memory."), ("capacity", "bandwidth"), path, "memory.")
    kind = within(_shown(path), "memory.type", load_memory, part.memory.type)
    energy = quantities(part.energy, path, "energy.")
    silicon, silicon_path = within(_shown(path), "silicon", _load, "silicon", part.silicon)
    process = _positive(quantities(silicon, silicon_path), ("good_share",), silicon_path, "")
    top = _positive(quantities(part, path), ("tdp",), path, "")
    chip = Chip(
        compute=Compute(**compute),
        memory=Memory(
            capacity=memory["capacity"],
            bandwidth=memory["bandwidth"],
            latency=kind.latency,
            energy_per_byte=memory.get("energy", kind.energy_per_byte),
            carbon_per_byte=kind.carbon_per_byte,
        ),
        efficiency=load_efficiency(efficiency),
        tdp=top["tdp"],
        idle_power=top["idle_power"],
        energy_per_flop=energy["per_flop"],
        energy_per_vector_flop=energy["per_vector_flop"],
        energy_per_exponential=energy["per_exponential"],
        on_chip_energy_per_byte=energy["on_chip_per_byte"],
        price=top["price"],
        die_area=top["die_area"],
        carbon_per_area=process["carbon_per_area"] / process["good_share"],
    )
    return chip, part, path


def load_chip(name: str, *, efficiency: str = "ideal") -> Chip:
    """Load one accelerator by name, alias or YAML path."""
    return canonical(_chip(name, efficiency)[0])


# What a number of a link may be: (least, most, whether the least itself may be).
_LINK_RANGES = {
    "bandwidth": (0.0, math.inf, False),
    "latency": (0.0, math.inf, True),
    "overhead": (0.0, math.inf, True),
    "launch": (0.0, math.inf, True),
    "energy": (0.0, math.inf, True),
    "dimensions": (1.0, 32.0, True),
    "radix": (2.0, 1e6, True),
    "taper": (0.0, 1.0, False),
    "in_network": (0.0, 1.0, True),
    "sram_landing": (0.0, 1.0, True),
    "background": (0.0, 0.999, True),
}


def _link(section: Any, path: Path, where: str) -> Link:
    if section is None:
        return Link()
    fabric, fabric_path = within(_shown(path), f"{where}fabric", _load, "fabrics", section.fabric)
    given = quantities(fabric, fabric_path)
    _in_range(given, _LINK_RANGES, fabric_path, "")
    here = quantities(section, path, where)
    _in_range(here, _LINK_RANGES, path, where)
    given |= here
    given["energy_per_byte"] = given.pop("energy")
    return Link(topology=topology_id(section.topology or fabric.topology or "switch"), **given)


def _in_range(
    values: dict[str, float], ranges: dict[str, tuple[float, float, bool]], file: Path, prefix: str
) -> None:
    for field, value in values.items():
        least, most, closed = ranges[field]
        if not (least <= value <= most and (closed or value > least)):
            kind = f"at least {least:g}" if closed else f"more than {least:g}"
            bound = "" if most == math.inf else f" and at most {most:g}"
            raise InputError(kind + bound, file=_shown(file), path=f"{prefix}{field}", given=value)


_SYSTEM_RANGES = {
    "jitter": (0.0, math.inf, True),
    "timeout": (0.0, math.inf, True),
    "spares": (0.0, 8.0, True),
    "failure_rate": (0.0, math.inf, True),
    "repair_time": (0.0, math.inf, True),
    "switchover_time": (0.0, math.inf, True),
    "background_message": (0.0, math.inf, True),
}


def load_system(name: str, *, efficiency: str = "ideal") -> System:
    """Load a system: a catalogue name, a YAML path, or `<chip>-x<N>` for any whole N (a chip alone is N = 1).

    Raises:
        InputError: no such name, or a broken file.
    """
    if not isinstance(name, str) or (len(name) > _LONGEST_NAME and not _looks_like_path(name)):
        raise InputError("a system of `jaxcost list systems`, `<chip>-x<N>`, or a YAML path", given=name)
    in_catalogue = not _looks_like_path(str(name)) and (configs_root() / "systems" / f"{name}.yaml").exists()
    if in_catalogue or _looks_like_path(str(name)):
        part, path = _load("systems", name)
        if not 1 <= part.chips <= 1_000_000:
            raise InputError("between 1 and 1,000,000", file=_shown(path), path="chips", given=part.chips)
        chip, chip_part, chip_path = within(_shown(path), "chip", _chip, part.chip, "ideal")
        wanted = part.efficiency or efficiency
        where = "efficiency" if part.efficiency else ""
        chip = replace(chip, efficiency=within(_shown(path), where, load_efficiency, wanted))
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
        return max(parse_quantity(entry.value, "1", file=_shown(where), path=f"{field}.value"), 1.0)

    own = quantities(part, path) if in_catalogue or _looks_like_path(str(name)) else {}
    message = {k: v for k, v in own.items() if k == "background_message"}
    section = getattr(part, "reliability", None)
    rare = {} if section is None else quantities(section, path, "reliability.")
    _in_range(message, _SYSTEM_RANGES, path, "")
    _in_range(rare, _SYSTEM_RANGES, path, "reliability.")
    late = {k: v for k, v in rare.items() if k in ("jitter", "timeout")}
    failing = {k: v for k, v in rare.items() if k not in late}
    host_name, host_user = pick("host")
    host, host_path = within(_shown(host_user), "host", _load, "hosts", host_name)
    return canonical(
        System(
            chip=chip,
            fabric=Fabric(
                package_chips=whole("package_chips"),
                domain=whole("domain"),
                package=_link(*pick("package"), "package."),
                scale_up=_link(*pick("scale_up"), "scale_up."),
                scale_out=_link(*pick("scale_out"), "scale_out."),
                **late,
                **message,
            ),
            host=Host(**quantities(host, host_path)),
            chips=chips,
            **failing,
        )
    )


def _split(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)-x(\d+)", name)
    known = _known("chips")
    base, chips = (match[1], int(match[2])) if match else (name, 1)
    if base not in known:
        close = nearest(base, known)
        suffix = f"-x{chips}" if match else ""
        options = [nearest(name, names("systems")), f"{close}{suffix}" if close else None]
        raise InputError(
            "a system of `jaxcost list systems`, `<chip>-x<N>`, or a YAML path",
            given=name,
            suggestion=nearest(name, [o for o in options if o]),
        )
    if not 1 <= chips <= 1_000_000:
        raise InputError("between 1 and 1,000,000 chips after -x", given=name)
    return base, chips


def load_model(name: str) -> Model:
    """Load a model: a catalogue name, or a path to a Hugging Face config.json or the folder that holds it.

    Raises:
        InputError: no such name, or a config that cannot be read, naming the field.
    """
    from jaxcost.edge.hf import read_hf_config

    if (
        isinstance(name, str)
        and name.strip()
        and (_looks_like_path(name) or (len(name) <= _LONGEST_NAME and Path(name).is_dir()))
    ):
        path = _expanded(name)
        path = path / "config.json" if os.path.isdir(path) else path
        data = read_yaml(path) if path.suffix in {".yaml", ".yml"} else read_json(path)
        config = data["config"] if isinstance(data.get("config"), dict) else data
        return canonical(read_hf_config(config, file=_shown(path)))
    path = _find("models", name)
    return canonical(read_hf_config(_read(path)["config"], file=_shown(path)))


def title(kind: str, name: str) -> str:
    """Return the full name of a part."""
    return str(_read(_find(kind, name)).get("title", name))


def provenance(kind: str, name: str) -> list[tuple[str, Any, str, str, str, str, Any, Any]]:
    """List (path, value, unit, source, date, kind, low, high) of every number of a part."""
    if kind in {"models", "spaces"}:
        data = _read(_find(kind, name))
        source, date, basis = (str(data.get(key, "")) for key in ("source", "date", "kind"))
        config = data.get("config", {})
        return [(f"config.{k}", v, "1", source, date, basis, None, None) for k, v in config.items()]
    part, _ = _load(kind, name)
    return list(_entries(part, ""))


def _entries(part: BaseModel, prefix: str) -> Any:
    for field in type(part).model_fields:
        value = getattr(part, field)
        if isinstance(value, Entry):
            unit = unit_of(type(part), field) or ""
            yield (
                f"{prefix}{field}",
                value.value,
                unit,
                value.source,
                str(value.date),
                value.kind,
                value.low,
                value.high,
            )
        elif isinstance(value, BaseModel):
            yield from _entries(value, f"{prefix}{field}.")
