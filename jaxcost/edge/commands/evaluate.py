"""`jaxcost evaluate`: one model on one system."""

import argparse
import dataclasses
import json
import sys

import jax
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from jaxcost.edge.catalog.set_option import described_settings, settings_line
from jaxcost.edge.commands.intervals_option import (
    add_intervals_arguments,
    intervals_document,
    intervals_tables,
    read_intervals,
)
from jaxcost.edge.commands.request import (
    Request,
    Values,
    add_request_arguments,
    degrees,
    evaluated,
    measure,
    picture_path,
    read_request,
    read_system,
)
from jaxcost.edge.show import tables
from jaxcost.edge.show.cost_tables import breakdown_tables, package_table, power_table, token_table
from jaxcost.edge.show.tier_tables import finding_table, tier_table, tiered
from jaxcost.explore.analysis import Finding, diagnose
from jaxcost.spec.memory import TIERS
from jaxcost.spec.system import System

__all__ = ["add_evaluate_arguments", "described", "evaluate_command", "request_line", "untargeted"]

_TITLES = {"prefill": "Prefill step", "decode": "Decode step"}


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    parser.add_argument("--system", required=True, help="catalogue name such as h100-sxm-x8, or a YAML file")
    parser.add_argument(
        "--costs", action="store_true", help="show what energy, dollars, CO2e, power and area go to"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--plot", type=picture_path, metavar="FILE", help="draw the roofline: .svg, .png or .pdf"
    )
    add_intervals_arguments(parser)


def evaluate_command(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    request = read_request(args)
    system, request, efficiency = read_system(args.system, args.efficiency, request)
    report = evaluated(system, request)
    values, findings = measure(report), diagnose(system, request.model, report)
    if args.plot:
        from jaxcost.edge.show.plots import draw_roofline

        draw_roofline(args.plot, f"{request.name} on {args.system}", system, request, values)
    found = read_intervals(args, request)
    if args.json:
        document = described(args.system, efficiency, request, values)
        document["findings"] = [dataclasses.asdict(finding) for finding in findings]
        if found:
            document["intervals"] = intervals_document(found)
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        shown = intervals_tables(found) if found else []
        _print(args.system, efficiency, request, system, values, findings, shown, costs=args.costs)
    return 0


def described(system: str, efficiency: str, request: Request, values: Values) -> dict:
    """Put one evaluation into plain mappings: the question, every number with its unit, the operators."""
    over = tables.exceeded(values)
    return {
        "model": request.name,
        "system": system,
        "efficiency": efficiency,
        "plan": _leaves(request.plan),
        **({"choice": request.choice} if request.choice else {}),
        **described_settings(request.settings),
        "traffic": _leaves(request.traffic),
        "feasible": not over,
        "exceeded": over,
        "results": {path: {"value": value, "unit": unit} for path, (unit, value) in values.items()},
        "operators": {phase: tables.operators(values, phase) for phase in _TITLES},
    }


def _leaves(tree: object) -> dict[str, float]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(key.name for key in path): float(value) for path, value in leaves}


def request_line(request: Request) -> str:
    """Say the plan and the traffic in one line or two."""
    plan, traffic = request.plan, request.traffic
    bits = f"weights {plan.weight_bits:.4g}"
    if request.model.experts.layers > 0:
        bits += f", experts {plan.expert_bits:.4g}"
    bits += f", KV {plan.kv_bits:.4g}, activations {plan.activation_bits:.4g} bits"
    requests = f"batch {traffic.batch:g}, prompt {traffic.prompt:g}, output {traffic.output:g} tokens"
    # Several systems may each get a plan of their own.
    chosen_later = request.objective and not request.choice
    laid_out = f"degrees chosen by {request.objective}" if chosen_later else degrees(plan)
    return f"{requests}; {laid_out}; {bits}{settings_line(request.settings)}"


def untargeted(request: Request) -> list[str]:
    """Name the targets that were not set."""
    return [name for name in ("ttft", "tpot") if getattr(request.traffic, f"{name}_target") == 0]


def _print(
    name: str,
    efficiency: str,
    request: Request,
    system: System,
    values: Values,
    findings: list[Finding],
    intervals: list[RenderableType],
    *,
    costs: bool,
) -> None:
    capacity = sum(float(getattr(system.chip, tier).capacity) for tier in TIERS) - float(system.chip.reserved)
    side_by_side = Table.grid(padding=(0, 2))
    side_by_side.add_row(
        tables.headline_table(values),
        tables.memory_table(values, capacity),
        tables.margins_table(values, untargeted(request)),
    )
    heading = Text(f"{request.name} on {name}", "bold")
    chips = f"{values['schedule.chips'][1]:g} of {float(system.chips):g} chips"
    parts = [
        heading,
        Text(f"{chips}; {request_line(request)}"),
        *([Text(f"Plan: {request.choice}")] if request.choice else []),
        Text(f"Efficiency: {efficiency}"),
        Text(""),
        tables.unwrapped(side_by_side),
        *intervals,
    ]
    if tiered(values):
        parts.append(tier_table(values, system.chip, float(request.prices.lifetime)))
    if findings:
        parts.append(finding_table(findings))
    if costs:
        beside = Table.grid(padding=(0, 2))
        beside.add_row(power_table(values), package_table(values))
        parts += [breakdown_tables(values), token_table(values), tables.unwrapped(beside)]
    titles = (
        {**_TITLES, "prefill": "Mixed step (prefill chunk and decode)"} if request.plan.chunk > 0 else _TITLES
    )
    for phase, title in titles.items():
        total, hidden = (values[f"{phase}.{name}"][1] for name in ("total", "hidden"))
        heading = f"{title}: {tables.engineering(total, 's')}"
        if hidden > 0:
            heading += f", messages and computing overlapping for {tables.engineering(hidden, 's')}"
        parts.append(tables.operator_table(tables.operators(values, phase), heading))
    tables.write(*parts)
