"""Tables of the memory hierarchy: tiers of one evaluation, findings, and comparisons of memory types and engines."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from jaxcost.core.units import engineering
from jaxcost.edge.catalog.parts import list_names, load_part, title
from jaxcost.edge.catalog.reading import quantities
from jaxcost.edge.catalog.tiers import load_memory, load_near
from jaxcost.edge.show.tables import Values, plain_table, unwrapped
from jaxcost.explore.analysis import Finding
from jaxcost.physics.memory.near_memory import near_bandwidth, units
from jaxcost.spec.chip import Chip
from jaxcost.spec.memory import TIERS

__all__ = [
    "PAPER_MEMORIES",
    "engine_rows",
    "engines_table",
    "finding_table",
    "memory_rows",
    "memory_types_table",
    "tier_table",
    "uses_tiers",
]

# Table 3 of arXiv:2601.05047.
PAPER_MEMORIES = ("hbf", "hbm4-6400", "ddr5-6400", "lpddr5-6400", "flash-card")

_TITLES = {
    "sram": "on-chip",
    "memory": "main memory",
    "hbf": "flash stacks",
    "host": "host",
    "cxl": "CXL",
    "ssd": "drives",
}


def uses_tiers(values: Values) -> bool:
    """Return whether any tier other than main memory contains data."""
    return any(values[f"tiers.{name}.used"][1] > 0 for name in TIERS if name != "memory")


def tier_table(values: Values, chip: Chip, lifetime: float) -> Table:
    """Show use, bandwidth, writes and lifetime of every memory tier of the fullest chip."""
    rows = []
    for name in TIERS:
        tier = getattr(chip, name)
        if float(tier.capacity) == 0:
            continue
        used, rate, written, wear = (
            values[f"tiers.{name}.{key}"][1] for key in ("used", "bandwidth", "written", "wear")
        )
        share = used / float(tier.capacity)
        rows.append(
            (
                _TITLES[name],
                engineering(used, "B"),
                Text(f"{share:.1%}", "red bold" if share > 1 else ""),
                engineering(float(tier.capacity), "B"),
                engineering(rate, "B/s"),
                engineering(written, "B/s") if written > 0 else "-",
                f"{lifetime / wear / (365.25 * 86400):.3g} years" if wear > 0 else "-",
            )
        )
    columns = ("Tier", "Used", "Share", "Capacity", "Bandwidth", "Written", "Lifetime")
    return unwrapped(plain_table("Memory tiers of the fullest chip", columns, rows))


def finding_table(findings: Sequence[Finding]) -> Table:
    """Show the findings, each with the parameter of the system that remedies it."""
    rows: list[tuple[Any, ...]] = [(finding.what, finding.knob) for finding in findings]
    return plain_table("Findings, and the parameter to change", ("", ""), rows, left=2)


def memory_rows(wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Return memory types as mappings, for one stack, module or card each.

    Power is that of the data sheet, or that of reads at the full bandwidth where there is none.
    """
    rows = []
    for name in wanted:
        memory = load_memory(name)
        part, path = load_part("memories", name)
        stated = quantities(part, path)
        capacity, rate, energy = (
            float(getattr(memory, key)) for key in ("capacity", "bandwidth", "energy_per_byte")
        )
        power = stated.get("power", rate * energy)
        price = float(memory.price_per_byte)
        rows.append(
            {
                "name": name,
                "title": title("memories", name),
                "capacity": capacity,
                "bandwidth": rate,
                "power": power,
                "bandwidth_per_watt": rate / power,
                "capacity_per_watt": capacity / power,
                "latency": float(memory.latency),
                "granularity": float(memory.granularity),
                "endurance": float(memory.endurance),
                "sweep": capacity / rate,
                "energy_per_byte": power / rate,
                "price_per_byte": price,
                "price_per_bandwidth": price * capacity / rate,
                "carbon": float(memory.carbon_per_byte) * capacity,
            }
        )
    return rows


def memory_types_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Show memory types side by side: Table 3 of arXiv:2601.05047, and quantities that follow from it."""

    def endurance(cycles: float) -> str:
        return f"{cycles:,.0f} cycles" if cycles > 0 else "no limit"

    lines: list[tuple[str, list[str]]] = [
        ("Capacity", [engineering(r["capacity"], "B") for r in rows]),
        ("Bandwidth", [engineering(r["bandwidth"], "B/s") for r in rows]),
        ("Power", [engineering(r["power"], "W") for r in rows]),
        ("GB/s a watt", [f"{r['bandwidth_per_watt'] / 1e9:.3g}" for r in rows]),
        ("GB a watt", [f"{r['capacity_per_watt'] / 1e9:.3g}" for r in rows]),
        ("Read latency", [engineering(r["latency"], "s") for r in rows]),
        ("Bytes a read", [f"{r['granularity']:g}" if r["granularity"] > 0 else "-" for r in rows]),
        ("Write endurance", [endurance(r["endurance"]) for r in rows]),
        ("Full read", [engineering(r["sweep"], "s") for r in rows]),
        ("Energy a bit", [f"{r['energy_per_byte'] / 8 * 1e12:.3g} pJ" for r in rows]),
        ("USD a GB", [f"{r['price_per_byte'] * 1e9:.3g}" for r in rows]),
        ("USD a GB/s", [f"{r['price_per_bandwidth'] * 1e9:.3g}" for r in rows]),
        ("CO2e of manufacture", [f"{r['carbon']:.3g} kg" for r in rows]),
    ]
    table = plain_table(
        "Memories: one stack, module or card",
        ("", *(r["name"] for r in rows)),
        ((name, *row) for name, row in lines),
    )
    return unwrapped(table)


_WEIGHTS = 140e9  # bytes of 70 billion 16-bit weights


def engine_rows() -> list[dict[str, Any]]:
    """Return engines near memory as mappings, with the criteria of Table 4 of arXiv:2601.05047 that can be computed."""
    rows = []
    for name in list_names("near"):
        part, _ = load_part("near", name)
        memory, near = load_memory(part.memory), load_near(name)
        placed = type(memory)(capacity=memory.capacity * near.density, near=near)
        rate, energy = float(near_bandwidth(placed)), float(near.energy_per_byte)
        shard = float(placed.capacity / units(placed))
        rows.append(
            {
                "name": name,
                "kind": part.kind,
                "memory": part.memory,
                "energy_per_byte": energy,
                "bandwidth": rate,
                "bandwidth_gain": rate / float(memory.bandwidth),
                "bandwidth_per_watt_gain": float(memory.energy_per_byte) / energy,
                "energy_per_flop": float(near.energy_per_flop),
                "flops_per_byte": float(near.flops) / rate,
                "density": float(near.density),
                "power": rate * energy + float(near.idle_power),
                "shard": shard,
                "shards": _WEIGHTS / shard,
            }
        )
    return sorted(rows, key=lambda row: (row["kind"], row["name"]))


def engines_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Show engines near memory: the computable part of Table 4 of arXiv:2601.05047."""
    columns = (
        "Engine",
        "Kind",
        "Memory",
        "pJ/bit",
        "Bandwidth",
        "Gain",
        "Per watt",
        "pJ/FLOP",
        "FLOP/B",
        "Density",
        "Power",
        "Shard",
        "Shards",
    )
    cells = [
        (
            r["name"],
            r["kind"],
            r["memory"],
            f"{r['energy_per_byte'] / 8 * 1e12:.3g}",
            engineering(r["bandwidth"], "B/s"),
            f"{r['bandwidth_gain']:.3g}x",
            f"{r['bandwidth_per_watt_gain']:.2g}x",
            f"{r['energy_per_flop'] * 1e12:.3g}",
            f"{r['flops_per_byte']:.2g}",
            f"{r['density']:.0%}",
            engineering(r["power"], "W"),
            engineering(r["shard"], "B"),
            f"{r['shards']:,.0f}" if r["shards"] >= 10 else f"{r['shards']:.1f}",
        )
        for r in rows
    ]
    return unwrapped(plain_table("Engines in memory (PIM) and near memory (PNM)", columns, cells, left=3))
