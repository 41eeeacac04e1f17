"""Remedies of a design that does not fit, as options of the command line."""

import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from rich.text import Text

from jaxcost.core.pytree import replace
from jaxcost.core.units import engineering
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.loaders import list_names
from jaxcost.explore.analysis import Remedy

__all__ = ["remedy_document", "remedy_lines"]

_FLAGS = ("traffic.batch", "plan.tp", "plan.pp", "plan.dp", "plan.ep", "plan.chunk")
_BITS = ("plan.weight_bits", "plan.expert_bits", "plan.kv_bits")


def remedy_lines(remedies: Sequence[Remedy], system: str, *, fits: bool) -> list[Text]:
    """Return one line for each remedy, below a heading; where there is none, a line that says so.

    Args:
        remedies: the remedies, in the order of their lines.
        system: name of the system.
        fits: whether the design fits as it is, and only misses targets.
    """
    if not remedies:
        tried = "a smaller batch or step, fewer bits of cache and weights, more memory for the engine, or more chips"
        return [Text(f"No remedy suffices alone among {tried}.")]
    verb = "meets its targets" if fits else "fits"
    lines = [
        f"  {_option(remedy.changes, system)} {verb} with {remedy.margin:+.1%}, at {_cost(remedy)}"
        for remedy in remedies
    ]
    return [
        Text("Remedies, the cheapest first, with costs per million output tokens, all in:"),
        *map(Text, lines),
    ]


def remedy_document(remedies: Sequence[Remedy], system: str) -> list[dict[str, object]]:
    """Return the remedies for JSON."""
    return [
        {
            "option": _option(remedy.changes, system),
            "margin": remedy.margin,
            "usd_per_mtok": remedy.usd_per_mtok,
        }
        for remedy in remedies
    ]


def _cost(remedy: Remedy) -> str:
    return engineering(remedy.usd_per_mtok, "USD/Mtok")


def _option(changes: Mapping[str, float], system: str) -> str:
    """Return the options that make some changes."""
    parts = []
    for path, value in changes.items():
        name = path.rpartition(".")[2].replace("_", "-")
        if path == "system.chips":
            parts.append(_system_option(system, round(value)))
        elif path in _FLAGS or path in _BITS:
            parts.append(f"--{name} {value:g}" if value < 1e6 else f"--{name} {value:.0f}")
        else:
            parts.append(f"--set {path}={value:g}" if value < 1e6 else f"--set {path}={value:.0f}")
    return " ".join(parts)


def _system_option(name: str, chips: int) -> str:
    """Return the option of the same system with another number of chips: by name where the catalogue has it."""
    chip = re.sub(r"-x\d+$", "", name)
    if chip in list_names("chips"):
        larger = f"{chip}-x{chips}"
        same = replace(catalog.load_system(name), chips=float(chips))
        pairs = zip(jax.tree.leaves(same), jax.tree.leaves(catalog.load_system(larger)), strict=True)
        if all(np.array_equal(a, b) for a, b in pairs):
            return f"--system {larger}"
    return f"--set system.chips={chips}"
