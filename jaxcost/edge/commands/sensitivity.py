"""`jaxcost sensitivity`: how much a result moves with each number of the hardware."""

import argparse
import json
import math
import sys

from rich.text import Text

from jaxcost.core.pytree import rows
from jaxcost.core.units import engineering
from jaxcost.edge.catalog.set_option import described_settings
from jaxcost.edge.commands.evaluate import request_line
from jaxcost.edge.commands.request import add_request_arguments, read_number, read_request, read_system
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.show import tables
from jaxcost.explore.analysis import elasticities, metric_names
from jaxcost.spec.prices import Knobs

__all__ = ["add_sensitivity_arguments", "sensitivity_command"]

_SHOWN = 20
_BAR = 24
_LEAST = 5e-5  # what is less shows as 0


def add_sensitivity_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    parser.add_argument("--system", required=True, help="catalogue name such as h100-sxm-x8, or a YAML file")
    parser.add_argument("--metric", default="tpot", help=f"one of {', '.join(metric_names())} (default tpot)")
    parser.add_argument(
        "--tau",
        type=read_number,
        default=0.05,
        metavar="N",
        help="softness of the limits, 0 to 1 (default 0.05)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, all leaves, instead of a table")


def sensitivity_command(args: argparse.Namespace) -> int:
    """Differentiate and print."""
    if args.metric not in metric_names():
        raise not_among(metric_names(), args.metric, path="--metric")
    if not 0 <= args.tau <= 1:
        raise InputError("a number in [0, 1]", path="--tau", given=args.tau)
    request = read_request(args)
    system, request, efficiency = read_system(args.system, args.efficiency, request)
    found = elasticities(
        args.metric,
        system,
        request.model,
        request.traffic,
        request.plan,
        prices=request.prices,
        knobs=Knobs(tau=args.tau),
    )
    if not all(math.isfinite(value) for _, value in found):
        raise InputError(
            f"a request whose {args.metric} is positive and finite", path="--metric", given=args.metric
        )
    leaves = {path: (unit, float(value)) for path, unit, value in rows(system)}
    if args.json:
        listed = [
            {"path": path, "elasticity": value, "value": leaves[path][1], "unit": leaves[path][0]}
            for path, value in found
        ]
        document = {
            "model": request.name,
            "system": args.system,
            "metric": args.metric,
            "tau": args.tau,
            "efficiency": efficiency,
            **described_settings(request.settings),
            "elasticities": listed,
        }
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        return 0
    tables.write(
        Text(f"{args.metric} of {request.name} on {args.system}", "bold"),
        Text(request_line(request)),
        Text(f"Efficiency: {efficiency}"),
        Text(""),
        _table(found, leaves),
        Text(
            f"Percent by which {args.metric} moves when the number grows by one percent; tau = {args.tau:g}."
        ),
    )
    return 0


def _table(found: list[tuple[str, float]], leaves: dict[str, tuple[str, float]]) -> tables.Table:
    shown = [(path, value) for path, value in found[:_SHOWN] if abs(value) >= _LEAST]
    most = max((abs(value) for _, value in shown), default=1.0)
    lines = []
    for path, value in shown:
        unit, now = leaves[path]
        bar = Text("█" * max(round(_BAR * abs(value) / most), 0), "red" if value > 0 else "blue")
        lines.append((path, bar, engineering(now, unit), f"{value:+.4f}"))
    return tables.plain_table("", ("Number of the system", "", "Value", "Elasticity"), lines, left=2)
