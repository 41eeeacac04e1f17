"""`jaxcost list`: the entries of the catalogue, with the source of every number."""

import argparse
import json
import sys
from typing import Any

from rich.text import Text

from jaxcost.core.units import engineering
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.engines import load_engine
from jaxcost.edge.catalog.set_option import settable
from jaxcost.edge.io.config import read_yaml
from jaxcost.edge.io.errors import InputError, nearest
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.edge.show import tables

__all__ = ["add_list_arguments", "list_command"]

_LEAVES = "leaves"
# The numbers in the overview of a kind: (path, heading).
_FIGURES: dict[str, tuple[tuple[str, str], ...]] = {
    "chips": (
        ("compute.flops_16", "16-bit matmul"),
        ("memory.capacity", "Memory"),
        ("memory.bandwidth", "Bandwidth"),
        ("tdp", "TDP"),
        ("price", "Price"),
    ),
    "memories": (
        ("capacity", "Capacity"),
        ("bandwidth", "Bandwidth"),
        ("energy", "Energy"),
        ("price", "Price"),
        ("carbon", "CO2e"),
    ),
    "near": (
        ("bandwidth", "Internal bandwidth"),
        ("flops", "Matmul"),
        ("energy", "Energy"),
        ("shard", "Shard"),
    ),
    "fabrics": (
        ("bandwidth", "Bandwidth"),
        ("launch", "Launch"),
        ("overhead", "Per round"),
        ("latency", "Per hop"),
        ("energy", "Energy per hop"),
    ),
    "hosts": (("price", "Price"), ("power", "Power"), ("carbon", "CO2e")),
    "silicon": (
        ("wafer_price", "Wafer"),
        ("defect_density", "Defects"),
        ("fab_energy", "Fab energy"),
    ),
    "packages": (
        ("base_price", "Substrate"),
        ("price_per_area", "Interposer"),
        ("assembly_yield", "Yield"),
        ("carbon", "CO2e"),
    ),
    "efficiency": (
        ("matmul", "Matmul"),
        ("vector", "Vector"),
        ("memory", "Memory"),
        ("link", "Link"),
        ("operator_overhead", "Overhead"),
    ),
    "prices": (
        ("electricity", "Electricity"),
        ("pue", "PUE"),
        ("utilization", "Utilisation"),
        ("lifetime", "Lifetime"),
    ),
    "grids": (("carbon", "CO2e"),),
    "acceptance": tuple((f"token_{k}", f"Token {k}") for k in range(1, 5)),
}


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    kinds = ", ".join(catalog.KINDS)
    help_kind = f"one of {kinds}, or {_LEAVES}: the numbers that --set can change"
    parser.add_argument("kind", nargs="?", metavar="KIND", help=help_kind)
    help_name = f"an entry, to show its numbers and their sources; with {_LEAVES}, a text to search for"
    parser.add_argument("name", nargs="?", metavar="NAME", help=help_name)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def list_command(args: argparse.Namespace) -> int:
    """List the kinds, the names of a kind, or the numbers of a name."""
    if args.kind is None:
        document: Any = {kind: len(catalog.list_names(kind)) for kind in catalog.KINDS}
        rows = [(kind, str(count)) for kind, count in document.items()]
        shown = [tables.plain_table("", ("Kind", "Entries"), rows)]
    elif args.kind == _LEAVES:
        document = _listed_leaves(args.name or "")
        rows = [(leaf["path"], leaf["unit"], leaf["meaning"]) for leaf in document]
        shown = [tables.plain_table("", ("Path", "Unit", "Meaning"), rows, left=3)]
    elif args.kind not in catalog.KINDS:
        kinds = (*catalog.KINDS, _LEAVES)
        expected = "one of " + ", ".join(kinds)
        near = nearest(args.kind, kinds)
        raise InputError(expected, path="KIND", given=args.kind, suggestion=near)
    elif args.name is None:
        document = [_overview(args.kind, name) for name in catalog.list_names(args.kind)]
        shown = _overview_table(args.kind, document)
    else:
        document = _part(args.kind, args.name)
        shown = _part_table(document)
    if args.json:
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        tables.write(*shown)
    return 0


def _listed_leaves(text: str) -> list[dict[str, str]]:
    """Return the numbers that --set can change whose path or meaning contains a text."""
    leaves = [
        {"path": path, "unit": unit, "meaning": meaning}
        for path, (unit, meaning) in settable().items()
        if text.lower() in f"{path} {meaning}".lower()
    ]
    if not leaves:
        raise InputError("a text that some path or meaning contains", path=_LEAVES, given=text)
    return leaves


def _overview(kind: str, name: str) -> dict[str, Any]:
    if kind == "models":
        figures = _model_figures(name)
    elif kind == "systems":
        figures = _system_figures(name)
    elif kind == "engines":
        figures = _engine_figures(name)
    else:
        by_path = {entry["path"]: entry for entry in _entries(kind, name)}
        figures = {
            heading: {key: by_path[path][key] for key in ("text", "value", "unit")}
            for path, heading in _FIGURES.get(kind, ())
            if path in by_path
        }
    entry = {"name": name, "title": catalog.title(kind, name), "figures": figures}
    return entry | _other_names(kind, name)


def _other_names(kind: str, name: str) -> dict[str, Any]:
    named = {"aliases": catalog.aliases(kind, name)} if kind in ("chips", "engines", "models") else {}
    return named | ({"architecture": catalog.architecture_of(name)} if kind == "chips" else {})


def _figure(value: Any, unit: str, text: str = "") -> dict[str, Any]:
    return {"text": text or engineering(value, unit), "value": float(value), "unit": unit}


def _model_figures(name: str) -> dict[str, Any]:
    from jaxcost.physics.compute.shards import active_parameters, total_parameters
    from jaxcost.physics.memory.capacity import kv_bytes_per_token

    model = catalog.load_model(name)
    total, active = float(total_parameters(model)), float(active_parameters(model))
    return {
        "Parameters (billions)": _figure(total, "1", f"{total / 1e9:.4g}"),
        "Active (billions)": _figure(active, "1", f"{active / 1e9:.4g}"),
        "KV cache per token, 16-bit": _figure(kv_bytes_per_token(model), "B"),
    }


def _engine_figures(name: str) -> dict[str, Any]:
    engine = load_engine(name)
    budget, most = float(engine.step_tokens), float(engine.sequences)
    return {
        "Memory share": _figure(engine.memory_share, "1", f"{float(engine.memory_share):.0%}"),
        "Cache share": _figure(engine.cache_share, "1", f"{float(engine.cache_share):.0%}"),
        "Step": _figure(budget, "token", f"{budget:,.0f}" if budget else "all prompts"),
        "Sequences": _figure(most, "1", f"{most:,.0f}" if most else "no limit"),
        "Page": _figure(engine.block, "token", f"{float(engine.block):g}"),
    }


def _system_figures(name: str) -> dict[str, Any]:
    system = catalog.load_system(name)
    chip, chips = system.chip, float(system.chips)
    return {
        "Chips": _figure(chips, "1"),
        "16-bit matmul": _figure(chips * chip.compute.flops_16, "FLOP/s"),
        "Memory": _figure(chips * chip.memory.capacity, "B"),
        "Bandwidth": _figure(chips * chip.memory.bandwidth, "B/s"),
        "TDP": _figure(chips * chip.tdp, "W"),
    }


def _overview_table(kind: str, listed: list[dict[str, Any]]) -> list[Any]:
    if not listed:
        return [Text(f"The catalogue has no {kind}.")]
    headings = list(dict.fromkeys(heading for entry in listed for heading in entry["figures"]))
    rows = []
    for entry in listed:
        figures = [entry["figures"].get(heading, {}).get("text", "-") for heading in headings]
        rows.append((entry["name"], *figures))
    if kind == "engines":
        headings.append("Also named")
        rows = [(*row, ", ".join(entry["aliases"])) for row, entry in zip(rows, listed, strict=True)]
    shown: list[Any] = [tables.plain_table("", ("Name", *headings), rows)]
    if kind == "systems":
        shown.append(Text("Any <chip>-x<N> is also a system, such as h100-sxm-x8."))
    if kind == "engines":
        shown.append(
            Text("Tokens of a step and sequences on the largest chips; the cache's share is one of the rest.")
        )
    if kind == "models":
        text = "`jaxcost list models NAME` shows the Hugging Face ids of a model, which are names of it too."
        shown.append(Text(text))
    return shown


def _entries(kind: str, name: str) -> list[dict[str, Any]]:
    out = []
    for path, value, unit, source, date, sort, low, high in catalog.provenance(kind, name):
        entry = {"path": path, "text": _text(value), "value": _number(value, unit), "unit": unit}
        entry |= {"low": _number(low, unit), "high": _number(high, unit)}
        entry |= {"low_text": _text(low), "high_text": _text(high)}
        out.append(entry | {"kind": sort, "date": date, "source": source})
    return out


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        shown = ", ".join(str(v) for v in value[:4])
        return shown if len(value) <= 4 else f"{shown}, ... ({len(value)})"  # to fit on a line
    return str(value)


def _number(value: Any, unit: str) -> float | None:
    """Return the value in SI units, or None where it is no quantity."""
    try:
        return parse_quantity(value, unit)
    except InputError:
        return None


def _part(kind: str, name: str) -> dict[str, Any]:
    if kind == "systems":
        return _system_part(name)
    part = {"kind": kind, "name": name, "title": catalog.title(kind, name), **_other_names(kind, name)}
    return part | {"entries": _entries(kind, name)}


def _system_part(name: str) -> dict[str, Any]:
    """Return the numbers of a system and of its chip."""
    catalog.load_system(name)  # raises where there is no such system
    entries: list[dict[str, Any]] = []
    title, chip = name, name
    in_catalogue = name in catalog.list_names("systems")
    if in_catalogue or name.endswith((".yaml", ".yml")):
        path = catalog.configs_root() / "systems" / f"{name}.yaml" if in_catalogue else name
        entries, title, chip = (
            _entries("systems", name),
            catalog.title("systems", name),
            str(read_yaml(path)["chip"]),
        )
    elif chip not in catalog.list_names("chips"):
        base, _, count = name.rpartition("-x")
        chip = base if count.isdecimal() and base else name
        title = f"{catalog.title('chips', chip)}, {count} of them" if chip != name else title
    of_chip = [{**entry, "path": f"chip.{entry['path']}"} for entry in _entries("chips", chip)]
    return {"kind": "systems", "name": name, "title": title, "entries": entries + of_chip}


def _part_table(document: dict[str, Any]) -> list[Any]:
    """Show every number with its kind, date and a reference to its source."""
    sources = list(dict.fromkeys(entry["source"] for entry in document["entries"] if entry["source"]))
    rows = []
    for entry in document["entries"]:
        span = " to ".join(text for text in (entry["low_text"], entry["high_text"]) if text)
        mark = f"[{sources.index(entry['source']) + 1}]" if entry["source"] else ""
        rows.append((entry["path"], entry["text"], span, entry["kind"], entry["date"], Text(mark)))
    columns = ("Number", "Value", "Low to high", "Kind", "Date", "Source")
    table = tables.plain_table("", columns, rows)
    for column in table.columns[3:]:
        column.justify = "left"
    aliases, architecture = document.get("aliases"), document.get("architecture")
    return [
        Text(f"{document['title']} ({document['kind']} {document['name']})", "bold"),
        *([Text(f"Also named {', '.join(aliases)}")] if aliases else []),
        *([Text(f"Architecture {architecture}")] if architecture else []),
        Text(""),
        table,
        *(Text(f"[{i}] {source}") for i, source in enumerate(sources, start=1)),
    ]
