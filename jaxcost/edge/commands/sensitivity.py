"""`jaxcost sensitivity`: elasticities of a metric in every number of the system."""

import argparse
import json
import math
import sys

from rich.text import Text

from jaxcost.core.pytree import rows
from jaxcost.core.units import engineering
from jaxcost.edge.catalog.set_option import described_settings
from jaxcost.edge.commands.efficiency_text import efficiency_document, efficiency_lines
from jaxcost.edge.commands.engine_options import describe_engine, engine_document
from jaxcost.edge.commands.precision_text import precision_document, precision_lines
from jaxcost.edge.commands.request import (
    add_request_arguments,
    add_system_argument,
    describe_request,
    read_number,
    read_request,
    read_system,
)
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.show import tables
from jaxcost.explore.analysis import elasticities, metric_names
from jaxcost.spec.prices import Knobs

__all__ = ["add_sensitivity_arguments", "sensitivity_command"]

_SHOWN = 20
_BAR = 24
_MIN_SHOWN = 5e-5  # smaller elasticities round to 0


def add_sensitivity_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    add_system_argument(parser)
    parser.add_argument("--metric", default="tpot", help=f"one of {', '.join(metric_names())} (default tpot)")
    parser.add_argument(
        "--tau",
        type=read_number,
        default=0.05,
        metavar="N",
        help="softness of max, min and ceil, 0 to 1; 0 is exact (default 0.05)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON with all numbers instead of a table")


def sensitivity_command(args: argparse.Namespace) -> int:
    """Differentiate the metric and print its elasticities."""
    if args.metric not in metric_names():
        raise not_among(metric_names(), args.metric, path="--metric")
    if not 0 <= args.tau <= 1:
        raise InputError("a number in [0, 1]", path="--tau", given=args.tau)
    request = read_request(args)
    system, request, efficiency = read_system(args.system, args.efficiency, request)
    by_path = elasticities(
        args.metric,
        system,
        request.model,
        request.traffic,
        request.plan,
        prices=request.prices,
        knobs=Knobs(tau=args.tau),
    )
    if not all(math.isfinite(value) for _, value in by_path):
        raise InputError(
            f"a request whose {args.metric} is positive and finite", path="--metric", given=args.metric
        )
    leaves = {path: (unit, float(value)) for path, unit, value in rows(system)}
    if args.json:
        listed = [
            {"path": path, "elasticity": value, "value": leaves[path][1], "unit": leaves[path][0]}
            for path, value in by_path
        ]
        document = {
            "model": request.name,
            "system": args.system,
            **precision_document(request),
            **engine_document(request.engine, request.plan),
            "metric": args.metric,
            "tau": args.tau,
            **efficiency_document(efficiency),
            **described_settings(request.settings),
            "elasticities": listed,
        }
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
        return 0
    tables.write(
        Text(f"{args.metric} of {request.name} on {args.system}", "bold"),
        Text(describe_request(request)),
        *precision_lines(request),
        Text(f"Engine: {describe_engine(request.engine, request.plan)}"),
        *efficiency_lines(efficiency),
        Text(""),
        _table(by_path, leaves),
        Text(
            f"Elasticity: change of {args.metric} in percent for a 1% increase of the number; tau = {args.tau:g}."
        ),
    )
    return 0


def _table(by_path: list[tuple[str, float]], leaves: dict[str, tuple[str, float]]) -> tables.Table:
    shown = [(path, value) for path, value in by_path[:_SHOWN] if abs(value) >= _MIN_SHOWN]
    most = max((abs(value) for _, value in shown), default=1.0)
    lines = []
    for path, value in shown:
        unit, now = leaves[path]
        bar = Text("█" * max(round(_BAR * abs(value) / most), 0), "red" if value > 0 else "blue")
        lines.append((path, bar, engineering(now, unit), f"{value:+.4f}"))
    return tables.plain_table("", ("Number of the system", "", "Value", "Elasticity"), lines, left=2)
