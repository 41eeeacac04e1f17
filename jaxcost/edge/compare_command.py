"""`jaxcost compare`: one model on several systems, side by side."""

import argparse
import json
import sys

from rich.text import Text

from jaxcost.edge import tables
from jaxcost.edge.errors import InputError
from jaxcost.edge.evaluate_command import described, request_line, untargeted
from jaxcost.edge.request import (
    Values,
    add_request_arguments,
    degrees,
    measure,
    picture_path,
    read_request,
    read_system,
)

__all__ = ["add_compare_arguments", "compare_command"]

_MOST_SYSTEMS = 12


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    parser.add_argument(
        "--systems", required=True, metavar="A,B,C", help="catalogue names or YAML files, separated by commas"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", type=picture_path, metavar="FILE", help="draw bars: .svg, .png or .pdf")


def compare_command(args: argparse.Namespace) -> int:
    """Evaluate every system and print."""
    names = _names(args.systems)
    request = read_request(args)
    systems = {name: _read(name, args.efficiency, request) for name in names}
    results: dict[str, Values] = {
        name: measure(system, request) for name, (system, request, _) in systems.items()
    }
    if args.plot:
        from jaxcost.edge.plots import draw_comparison

        draw_comparison(args.plot, f"{request.name}: {request_line(request)}", results)
    if args.json:
        documents = [described(name, systems[name][2], systems[name][1], results[name]) for name in names]
        sys.stdout.write(json.dumps(documents, indent=2, allow_nan=False) + "\n")
        return 0
    efficiencies = {name: line for name, (_, _, line) in systems.items()}
    distinct = dict.fromkeys(efficiencies.values())
    shown = [Text(f"Efficiency: {line}") for line in distinct]
    if len(distinct) > 1:
        shown = [Text(f"Efficiency, {name}: {line}") for name, line in efficiencies.items()]
    tables.write(
        Text(request.name, "bold"),
        Text(request_line(request)),
        *(
            Text(f"Plan, {name}: {degrees(found.plan)}; {found.choice}")
            for name, (_, found, _) in systems.items()
            if found.choice
        ),
        *shown,
        Text(""),
        tables.comparison_table(names, list(results.values()), untargeted(request)),
        Text("* the best of a row among the systems that are feasible"),
    )
    return 0


def _read(name: str, efficiency: str | None, request):
    try:
        return read_system(name, efficiency, request)
    except InputError as error:
        if name in str(error):
            raise
        raise InputError(
            error.expected,
            file=name,
            path=f"{error.file}: {error.path}" if error.file else error.path,
            given=error.given,
            suggestion=error.suggestion,
        ) from None


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise InputError("names separated by commas, none of them empty", path="--systems", given=text)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError("every system once", path="--systems", given=twice)
    if len(names) > _MOST_SYSTEMS:
        raise InputError(f"at most {_MOST_SYSTEMS} systems side by side", path="--systems", given=len(names))
    return names
