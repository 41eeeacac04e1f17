"""`jaxcost serve`: the deployment that serves a rate of requests within latency targets."""

import argparse
import dataclasses
import json
import sys

import jax
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxcost.core.pytree import replace
from jaxcost.core.units import engineering
from jaxcost.edge.commands.efficiency_text import efficiency_document, efficiency_lines
from jaxcost.edge.commands.engine_options import describe_engine, engine_document
from jaxcost.edge.commands.fit_option import add_require_fit_argument, fit_status
from jaxcost.edge.commands.precision_text import precision_document, precision_lines
from jaxcost.edge.commands.prefill_options import add_prefill_arguments, read_prefill_pool
from jaxcost.edge.commands.request import (
    Request,
    Values,
    add_request_arguments,
    add_system_argument,
    degrees,
    describe_request,
    measure,
    read_number,
    read_request,
    read_system,
)
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.show import tables
from jaxcost.edge.show.verdict import Verdict, judge_service, unfit_line
from jaxcost.explore.analysis import is_valid
from jaxcost.explore.serve import best_service, serve
from jaxcost.physics.compute.shards import microbatches
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System

__all__ = ["add_serve_arguments", "serve_command"]

_HEADLINE = {
    "chips": "Chips",
    "replicas": "Replicas",
    "prefill_replicas": "Prefill replicas",
    "largest_rate": "Capacity of a replica",
    "ttft": "First token (TTFT)",
    "tpot": "Each token (TPOT)",
    "goodput": "Within both targets",
    "tokens_per_second": "Output tokens",
    "joules_per_token": "Energy",
    "usd_per_mtok": "Cost, per million output tokens, all in",
    "usd_per_query": "Cost of a request",
    "gco2e_per_mtok": "CO2e",
}
_FIRST = {
    "first.frontend": "front end",
    "first.prefill_wait": "wait for prefill",
    "first.slot_wait": "wait for a slot",
    "first.prefill": "prefill",
    "first.transfer": "transfer",
    "first.block": "first block",
    "first.total": "mean",
}
_LOAD = {
    "in_flight": "requests in flight",
    "slots": "slots (KV cache)",
    "prefill_busy": "prefill busy",
    "slots_busy": "slots busy",
    "ttft_met": "within TTFT target",
    "tpot_met": "within TPOT target",
}
_SHARES = ("prefill_busy", "slots_busy", "ttft_met", "tpot_met")
_MARGINS = {
    "memory": "memory",
    "ttft": "TTFT",
    "tpot": "TPOT",
    "prefill": "prefill",
    "slots": "slots",
    "power": "power",
    "hardware": "chips, heat, wear",
}
_ROUNDING = 1e-4  # error of a margin that is 0 at the largest rate


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    add_system_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_require_fit_argument(parser)
    group = parser.add_argument_group("load")
    group.add_argument(
        "--rate",
        type=read_number,
        required=True,
        metavar="N",
        help="requests per second over all replicas",
    )
    group.add_argument(
        "--variation",
        type=read_number,
        default=1.0,
        metavar="N",
        help="squared coefficient of variation of a request's work, 0 for equal requests (default 1)",
    )
    add_prefill_arguments(parser)


def serve_command(args: argparse.Namespace) -> int:
    """Compute the deployment and print it."""
    if not args.rate > 0:
        raise InputError("a positive number of requests a second", path="--rate", given=args.rate)
    if args.variation < 0:
        raise InputError("a number of at least 0", path="--variation", given=args.variation)
    request = read_request(args)
    automatic = bool(request.objective)
    fullest = request.plan.dp * float(microbatches(request.plan))
    traffic = replace(request.traffic, rate=args.rate, variation=args.variation, batch=fullest)
    request = dataclasses.replace(request, traffic=traffic, objective="")
    system, request, efficiency = read_system(args.system, args.efficiency, request)
    pool = read_prefill_pool(args, request)
    compute_service = best_service if automatic else serve
    service = compute_service(
        system, request.model, request.traffic, request.plan, prefill=pool, prices=request.prices
    )
    plan = jax.tree.map(float, service.plan)
    fullest = replace(request.traffic, batch=plan.dp * float(microbatches(plan)))
    if automatic and not is_valid(system, request.model, fullest, plan):
        expected = "a system on whose chips the model can be sharded"
        raise InputError(expected, path="--plan", given="auto")
    request = dataclasses.replace(request, plan=plan)
    values = measure(jax.device_get(service))
    verdict = _judge(request, values)
    if args.json:
        document = {
            "model": request.name,
            "system": args.system,
            "prefill_system": args.prefill_system,
            **precision_document(request),
            **engine_document(request.engine, request.plan),
            **efficiency_document(efficiency),
            "verdict": verdict.text,
            "binding": verdict.binding,
            "feasible": not _exceeded(values),
            "exceeded": _exceeded(values),
            "results": {path: {"value": value, "unit": unit} for path, (unit, value) in values.items()},
        }
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        _print(args, efficiency, request, values, pool, verdict)
    return fit_status(args, exceeded=bool(_exceeded(values)))


def _exceeded(values: Values) -> list[str]:
    return [name for name in _MARGINS if values[f"margins.{name}"][1] < -_ROUNDING]


def _targets(request: Request) -> dict[str, float]:
    return {name: float(getattr(request.traffic, f"{name}_target")) for name in ("ttft", "tpot")}


def _judge(request: Request, values: Values) -> Verdict:
    """Return the verdict on a deployment, over the constraints that can fail."""
    targets = _targets(request)
    margins = {key: values[f"margins.{key}"][1] for key in _MARGINS if targets.get(key) != 0}
    replicas, chips = (values[path][1] for path in ("replicas", "replica_chips"))
    deployment = f"{replicas:g} {'replica' if replicas == 1 else 'replicas'} of {_counted(chips)}"
    if values["prefill_replicas"][1] > 0:
        prefill, chips = (values[f"prefill_{path}"][1] for path in ("replicas", "replica_chips"))
        deployment += f" and {prefill:g} of {_counted(chips)} for prefill"
    return judge_service(margins, deployment, _ROUNDING, _MARGINS)


def _counted(chips: float) -> str:
    return f"{chips:g} {'chip' if chips == 1 else 'chips'}"


def _print(
    args: argparse.Namespace,
    efficiency: list[str],
    request: Request,
    values: Values,
    pool: tuple[System, Plan] | None,
    verdict: Verdict,
) -> None:
    def shown(path: str) -> str:
        unit, value = values[path]
        return f"{value:.1%}" if path in _SHARES else engineering(value, unit)

    def listed(title: str, names: dict[str, str]) -> Table:
        lines = [(name, shown(path)) for path, name in names.items() if values[path][1] != 0]
        return tables.unwrapped(tables.plain_table(title, ("", ""), lines))

    targets = _targets(request)
    margins = []
    for key, name in _MARGINS.items():
        margin = values[f"margins.{key}"][1]
        margin = abs(margin) if abs(margin) <= _ROUNDING else margin
        margins.append(tables.margin_row(name, None if targets.get(key) == 0 else margin))
    summary = tables.SideBySide(
        listed("Deployment", _HEADLINE),
        Group(listed("First token", _FIRST), listed("A replica", _LOAD)),
        tables.unwrapped(tables.plain_table("Margins", ("", "", ""), margins)),
    )
    traffic = request.traffic
    replica = describe_request(request).split("; ", 1)[1]
    load = f"{traffic.rate:g} requests/s, variation {traffic.variation:g}, prompt {traffic.prompt:g}"
    set_targets = [f"{n.upper()} {engineering(v, 's')}" for n, v in targets.items() if v > 0]
    unfit = unfit_line(verdict)
    lines = [
        f"{load}, output {traffic.output:g} tokens; targets: {', '.join(set_targets) or 'none'}",
        f"Replica: {replica}",
        *([f"Prefill pool: {args.prefill_system}, {degrees(pool[1])}"] if pool else []),
    ]
    tables.write(
        Text(f"{request.name} on {args.system}", "bold"),
        Text(verdict.text, "red bold" if verdict.exceeded else "green"),
        *efficiency_lines(efficiency),
        *map(Text, lines),
        *precision_lines(request),
        Text(f"Engine: {describe_engine(request.engine, request.plan)}"),
        Text(""),
        *([Text(unfit, "red")] if unfit else []),
        summary,
    )
