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
from jaxcost.edge.commands.efficiency_text import efficiency_document, efficiency_lines
from jaxcost.edge.commands.engine_options import describe_engine, engine_document
from jaxcost.edge.commands.fit_option import add_require_fit_argument, fit_status
from jaxcost.edge.commands.intervals_option import (
    add_intervals_arguments,
    intervals_document,
    intervals_tables,
    read_intervals,
)
from jaxcost.edge.commands.precision_text import precision_document, precision_lines
from jaxcost.edge.commands.remedy_text import remedy_document, remedy_lines
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
from jaxcost.edge.show.cost_tables import (
    breakdown_tables,
    package_table,
    power_table,
    server_lines,
    token_table,
)
from jaxcost.edge.show.tier_tables import finding_table, tier_table, uses_tiers
from jaxcost.edge.show.verdict import unfit_line
from jaxcost.explore.analysis import Finding, Remedy, diagnose, find_remedies, ttft_alone
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
    add_require_fit_argument(parser)
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
    alone = _ttft_alone(system, request, values)
    remedies = find_remedies(
        system, request.model, request.traffic, request.plan, prices=request.prices, report=report
    )
    if args.plot:
        from jaxcost.edge.show.plots import draw_roofline

        traffic = request.traffic
        subtitle = f"batch {traffic.batch:g}, prompt {traffic.prompt:g}, output {traffic.output:g} tokens"
        draw_roofline(args.plot, f"{request.name} on {args.system}", subtitle, system, request.plan, values)
    intervals = read_intervals(args, request)
    if args.json:
        document = evaluation_document(args.system, efficiency, request, values)
        document["first_token"] = _first_token(values, alone)
        document["remedies"] = remedy_document(remedies, args.system)
        document["findings"] = [dataclasses.asdict(finding) for finding in findings]
        if intervals:
            document["intervals"] = intervals_document(intervals)
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        shown = intervals_tables(intervals) if intervals else []
        _print(
            args.system,
            efficiency,
            request,
            system,
            values,
            alone,
            remedies,
            findings,
            shown,
            costs=args.costs,
        )
    return fit_status(args, exceeded=bool(tables.exceeded(values)))


def evaluation_document(system: str, efficiency: list[str], request: Request, values: Values) -> dict:
    """Return one evaluation as plain mappings: the request, every number with its unit, the operators."""
    exceeded = tables.exceeded(values)
    verdict = tables.judge_values(values, unset_targets(request))
    return {
        "model": request.name,
        "system": system,
        **efficiency_document(efficiency),
        "plan": _leaves(request.plan),
        **precision_document(request),
        **engine_document(request.engine, request.plan),
        **({"choice": request.choice} if request.choice else {}),
        **({"draft": draft} if (draft := describe_draft(request.plan, request.draft)) else {}),
        **described_settings(request.settings),
        "traffic": _leaves(request.traffic),
        "verdict": verdict.text,
        "binding": verdict.binding,
        "feasible": not exceeded,
        "exceeded": exceeded,
        "results": {path: {"value": value, "unit": unit} for path, (unit, value) in values.items()},
        "operators": {phase: tables.operators(values, phase) for phase in tables.STEPS},
    }


def _ttft_alone(system: System, request: Request, values: Values) -> float:
    """Return the time to first token of one request alone; that of the report where its batch is one request."""
    if values["schedule.requests"][1] == 1 and float(request.plan.chunk) == 0:
        return values["ttft"][1]
    return float(ttft_alone(system, request.model, request.traffic, request.plan))


def _first_token(values: Values, alone: float) -> dict[str, float | None]:
    """Return the times to first token by whose they are; None where the schedule has no such request."""
    mixed = values["schedule.mixed_share"][1] > 0
    ttft = values["ttft"][1]
    return {
        "one_request_alone": alone,
        "whole_batch": None if mixed else ttft,
        "mixed_with_decoding": ttft if mixed else None,
    }


def _leaves(tree: object) -> dict[str, float]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {".".join(key.name for key in path): float(value) for path, value in leaves}


def _print(
    name: str,
    efficiency: list[str],
    request: Request,
    system: System,
    values: Values,
    alone: float,
    remedies: list[Remedy],
    findings: list[Finding],
    intervals: list[RenderableType],
    *,
    costs: bool,
) -> None:
    capacity = sum(float(getattr(system.chip, tier).capacity) for tier in TIERS) - float(system.chip.reserved)
    targets = unset_targets(request)
    summary = tables.summary_tables(values, capacity, targets, alone)
    verdict = tables.judge_values(values, targets)
    chips = f"{values['schedule.chips'][1]:g} of {float(system.chips):g} chips"
    unfit = unfit_line(verdict)
    parts: list[RenderableType] = [
        Text(f"{request.name} on {name}", "bold"),
        Text(verdict.text, "red bold" if verdict.exceeded else "green"),
        *(remedy_lines(remedies, name, fits=verdict.fits) if remedies or not verdict.fits else []),
        *efficiency_lines(efficiency),
        Text(f"{chips}; {describe_request(request)}"),
        *precision_lines(request),
        Text(f"Engine: {describe_engine(request.engine, request.plan)}"),
        *([Text(f"Plan: {request.choice}")] if request.choice else []),
        Text(""),
        *([Text(unfit, "red")] if unfit else []),
        tables.SideBySide(*summary),
        *intervals,
    ]
    if uses_tiers(values):
        parts.append(tier_table(values, system.chip, float(request.prices.lifetime)))
    if findings:
        parts.append(finding_table(findings))
    if costs:
        hardware = tables.SideBySide(power_table(values), package_table(values))
        parts += [breakdown_tables(values), *server_lines(name, system), token_table(values), hardware]
    parts += tables.step_tables(values, mixed=float(request.plan.chunk) > 0)
    tables.write(*parts)
