"""`jaxcost evaluate`: evaluate one model on one system."""

import argparse
import dataclasses
import json
import sys

import jax
from rich.console import RenderableType
from rich.text import Text

from jaxcost.edge.catalog.set_option import described_settings
from jaxcost.edge.commands.draft_options import describe_draft
from jaxcost.edge.commands.engine_options import describe_engine, engine_document
from jaxcost.edge.commands.intervals_option import (
    add_intervals_arguments,
    intervals_document,
    intervals_tables,
    read_intervals,
)
from jaxcost.edge.commands.precision_text import precision_document, precision_lines
from jaxcost.edge.commands.request import (
    Request,
    Values,
    add_request_arguments,
    add_system_argument,
    describe_request,
    evaluate_request,
    measure,
    picture_path,
    read_request,
    read_system,
    unset_targets,
)
from jaxcost.edge.show import tables
from jaxcost.edge.show.cost_tables import breakdown_tables, package_table, power_table, token_table
from jaxcost.edge.show.tier_tables import finding_table, tier_table, uses_tiers
from jaxcost.explore.analysis import Finding, diagnose
from jaxcost.spec.memory import TIERS
from jaxcost.spec.system import System

__all__ = ["add_evaluate_arguments", "evaluate_command", "evaluation_document"]


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    add_system_argument(parser)
    parser.add_argument(
        "--costs", action="store_true", help="show energy, cost, CO2e, power and area by part"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--plot", type=picture_path, metavar="FILE", help="write a roofline plot: .svg, .png or .pdf"
    )
    add_intervals_arguments(parser)


def evaluate_command(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    request = read_request(args)
    system, request, efficiency = read_system(args.system, args.efficiency, request)
    report = evaluate_request(system, request)
    values, findings = measure(report), diagnose(system, request.model, report)
    if args.plot:
        from jaxcost.edge.show.plots import draw_roofline

        traffic = request.traffic
        subtitle = f"batch {traffic.batch:g}, prompt {traffic.prompt:g}, output {traffic.output:g} tokens"
        draw_roofline(args.plot, f"{request.name} on {args.system}", subtitle, system, request.plan, values)
    intervals = read_intervals(args, request)
    if args.json:
        document = evaluation_document(args.system, efficiency, request, values)
        document["findings"] = [dataclasses.asdict(finding) for finding in findings]
        if intervals:
            document["intervals"] = intervals_document(intervals)
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        shown = intervals_tables(intervals) if intervals else []
        _print(args.system, efficiency, request, system, values, findings, shown, costs=args.costs)
    return 0


def evaluation_document(system: str, efficiency: str, request: Request, values: Values) -> dict:
    """Return one evaluation as plain mappings: the request, every number with its unit, the operators."""
    exceeded = tables.exceeded(values)
    return {
        "model": request.name,
        "system": system,
        "efficiency": efficiency,
        "plan": _leaves(request.plan),
        **precision_document(request),
        **engine_document(request.engine, request.plan),
        **({"choice": request.choice} if request.choice else {}),
        **({"draft": draft} if (draft := describe_draft(request.plan, request.draft)) else {}),
        **described_settings(request.settings),
        "traffic": _leaves(request.traffic),
        "feasible": not exceeded,
        "exceeded": exceeded,
        "results": {path: {"value": value, "unit": unit} for path, (unit, value) in values.items()},
        "operators": {phase: tables.operators(values, phase) for phase in tables.STEPS},
    }


def _leaves(tree: object) -> dict[str, float]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(key.name for key in path): float(value) for path, value in leaves}


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
    summary = tables.summary_tables(values, capacity, unset_targets(request))
    heading = Text(f"{request.name} on {name}", "bold")
    chips = f"{values['schedule.chips'][1]:g} of {float(system.chips):g} chips"
    parts = [
        heading,
        Text(f"{chips}; {describe_request(request)}"),
        *precision_lines(request),
        Text(f"Engine: {describe_engine(request.engine, request.plan)}"),
        *([Text(f"Plan: {request.choice}")] if request.choice else []),
        Text(f"Efficiency: {efficiency}"),
        Text(""),
        tables.side_by_side(*summary),
        *intervals,
    ]
    if uses_tiers(values):
        parts.append(tier_table(values, system.chip, float(request.prices.lifetime)))
    if findings:
        parts.append(finding_table(findings))
    if costs:
        hardware = tables.side_by_side(power_table(values), package_table(values))
        parts += [breakdown_tables(values), token_table(values), hardware]
    parts += tables.step_tables(values, mixed=float(request.plan.chunk) > 0)
    tables.write(*parts)
