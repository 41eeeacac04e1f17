"""Named parts: from the files of configs/, or a user's own, to the trees that are evaluated."""

import itertools
import math
import os
import re
from pathlib import Path
from typing import Any

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog.kernels import kernels_of
from jaxcost.edge.catalog.parts import (
    KINDS,
    LONGEST_NAME,
    expanded,
    find,
    known,
    list_names,
    load_part,
    looks_like_path,
    provenance,
    read_part,
    title,
)
from jaxcost.edge.catalog.reading import (
    canonical,
    configs_root,
    in_shares,
    positive,
    quantities,
    shown,
    value_of,
)
from jaxcost.edge.catalog.silicon import DAY, with_silicon
from jaxcost.edge.catalog.tiers import load_memory, with_sections
from jaxcost.edge.io.config import read_json, read_yaml
from jaxcost.edge.io.errors import InputError, nearest, within
from jaxcost.spec.chip import Chip, Compute, Efficiency
from jaxcost.spec.fabric import Fabric, Link, topology_id
from jaxcost.spec.model import Model
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import Host, System

__all__ = [
    "KINDS",
    "configs_root",
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
    "title",
]

_PRECISIONS = ("flops_16", "flops_8", "flops_6", "flops_4")  # each falls back on the one before it


def load_efficiency(name: str = "ideal") -> Efficiency:
    """Load achieved shares of the peaks: "ideal", "typical", a calibrated library on a chip, or a YAML path."""
    part, path = load_part("efficiency", name)
    q = positive(quantities(part, path), ("matmul", "vector", "memory", "link"), path, "")
    for field in ("matmul", "vector", "memory", "link", "overlap"):
        if not 0 <= q.get(field, 0) <= 1:
            raise InputError("a share of at most 1", file=shown(path), path=field, given=q[field])
    kernels = None if part.kernels is None else kernels_of(part.kernels, path)
    return canonical(Efficiency(**q, kernels=kernels))


def load_prices(name: str = "default") -> Prices:
    """Load the economics of a datacenter; its `grid` is a name among grids."""
    part, path = load_part("prices", name)
    wanted = ("lifetime", "datacenter_lifetime", "utilization", "pue", "rack_power")
    q = positive(quantities(part, path), wanted, path, "")
    in_shares(q, ("load_swing",), path, "")
    if "load_peak" in q:
        q["load_peak"] /= DAY
    return canonical(Prices(**q, **grid_leaves(part.grid)))


def grid_leaves(name: str) -> dict[str, float]:
    """Read a region's electricity: the leaves of `Prices` that are the grid's."""
    part, path = load_part("grids", name)
    q = {"swing": 0.0, "peak": Prices().grid_peak * DAY} | quantities(part, path)
    in_shares(q, ("swing",), path, "")
    return {"grid_carbon": q["carbon"], "grid_swing": q["swing"], "grid_peak": q["peak"] / DAY}


def _chip(name: str, efficiency: str) -> tuple[Chip, Any, Path]:
    part, path = load_part("chips", name)
    compute = positive(
        quantities(part.compute, path, "compute."),
        ("flops_16", "vector_flops", "exponentials"),
        path,
        "compute.",
    )
    for wider, narrower in itertools.pairwise(_PRECISIONS):
        compute.setdefault(narrower, compute[wider])
    compute.setdefault("flops_32", compute["vector_flops"])
    memory = positive(quantities(part.memory, path, "memory."), ("capacity", "bandwidth"), path, "memory.")
    kind = within(shown(path), "memory.type", load_memory, part.memory.type)
    energy = quantities(part.energy, path, "energy.")
    on_die = read_part(find("memories", part.memory.type)).get("on_die", False)
    top = positive(quantities(part, path), ("tdp",), path, "")
    chip = Chip(
        compute=Compute(**compute),
        memory=replace(
            kind,
            capacity=memory["capacity"],
            bandwidth=memory["bandwidth"],
            energy_per_byte=memory.get("energy", kind.energy_per_byte),
            stacks=memory.get("stacks", 0.0),
            idle_power=0.0,  # drawn with that of the package
            # Memory that is part of the dies is made, and paid for, with them.
            **({"price_per_byte": 0.0, "carbon_per_byte": 0.0} if on_die else {}),
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
    )
    chip = replace(chip, **with_silicon(chip, part, path, on_die=on_die))
    return with_sections(chip, part, path, part.memory.near, "memory.near"), part, path


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
    "interface_area": (0.0, math.inf, True),
    "interface_edge": (0.0, math.inf, True),
}


def load_link(name: str) -> Link:
    """Load one level of a fabric, with the topology of its file, else a switch."""
    return canonical(_link_of(*load_part("fabrics", name), {}, None))


def _link(section: Any, path: Path, where: str) -> Link:
    if section is None:
        return Link()
    fabric, fabric_path = within(shown(path), f"{where}fabric", load_part, "fabrics", section.fabric)
    here = quantities(section, path, where)
    _in_range(here, _LINK_RANGES, path, where)
    return _link_of(fabric, fabric_path, here, section.topology)


def _link_of(fabric: Any, path: Path, changes: dict[str, float], topology: str | None) -> Link:
    given = quantities(fabric, path)
    _in_range(given, _LINK_RANGES, path, "")
    given |= changes
    given["energy_per_byte"] = given.pop("energy")
    return Link(topology=topology_id(topology or fabric.topology or "switch"), **given)


def _in_range(
    values: dict[str, float], ranges: dict[str, tuple[float, float, bool]], file: Path, prefix: str
) -> None:
    for field, value in values.items():
        least, most, closed = ranges[field]
        if not (least <= value <= most and (closed or value > least)):
            kind = f"at least {least:g}" if closed else f"more than {least:g}"
            bound = "" if most == math.inf else f" and at most {most:g}"
            raise InputError(kind + bound, file=shown(file), path=f"{prefix}{field}", given=value)


def load_host(name: str) -> Host:
    """Load what surrounds each chip: server, network and rack."""
    part, path = load_part("hosts", name)
    return canonical(Host(**quantities(part, path)))


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
        chip = replace(chip, efficiency=within(shown(path), where, load_efficiency, wanted))
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

    own = quantities(part, path) if in_catalogue or looks_like_path(str(name)) else {}
    message = {k: v for k, v in own.items() if k == "background_message"}
    battery = {k: v for k, v in own.items() if k == "battery"}
    section = getattr(part, "reliability", None)
    rare = {} if section is None else quantities(section, path, "reliability.")
    _in_range(message, _SYSTEM_RANGES, path, "")
    _in_range(rare, _SYSTEM_RANGES, path, "reliability.")
    late = {k: v for k, v in rare.items() if k in ("jitter", "timeout")}
    failing = {k: v for k, v in rare.items() if k not in late}
    host_name, host_user = pick("host")
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
            host=within(shown(host_user), "host", load_host, host_name),
            chips=chips,
            **battery,
            **failing,
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


def load_model(name: str) -> Model:
    """Load a model: a catalogue name, or a path to a Hugging Face config.json or the folder that holds it.

    Raises:
        InputError: no such name, or a config that cannot be read, naming the field.
    """
    from jaxcost.edge.hf.reader import read_hf_config

    if (
        isinstance(name, str)
        and name.strip()
        and (looks_like_path(name) or (len(name) <= LONGEST_NAME and Path(name).is_dir()))
    ):
        path = expanded(name)
        path = path / "config.json" if os.path.isdir(path) else path
        data = read_yaml(path) if path.suffix in {".yaml", ".yml"} else read_json(path)
        config = data["config"] if isinstance(data.get("config"), dict) else data
        return canonical(read_hf_config(config, file=shown(path)))
    path = find("models", name)
    return canonical(read_hf_config(read_part(path)["config"], file=shown(path)))
