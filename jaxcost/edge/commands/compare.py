"""`jaxcost compare`: one model on several systems side by side, or memory types and engines near them."""

import argparse
import json
import sys

from rich.text import Text

from jaxcost.edge.commands.evaluate import described, request_line, untargeted
from jaxcost.edge.commands.request import (
    Values,
    add_request_arguments,
    degrees,
    evaluated,
    measure,
    picture_path,
    read_request,
    read_system,
)
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.show import tables
from jaxcost.edge.show.tier_tables import (
    PAPER_MEMORIES,
    engine_rows,
    engines_table,
    memory_rows,
    memory_types_table,
)

__all__ = ["add_compare_arguments", "compare_command"]

_MOST_SYSTEMS = 12


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser, required=False)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument(
        "--systems", metavar="A,B,C", help="catalogue names or YAML files, separated by commas"
    )
    asked.add_argument(
        "--memories",
        nargs="?",
        const=",".join(PAPER_MEMORIES),
        metavar="A,B,C",
        help="memory types and engines near them instead of systems; those of arXiv:2601.05047 by default",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", type=picture_path, metavar="FILE", help="draw bars: .svg, .png or .pdf")


def compare_command(args: argparse.Namespace) -> int:
    """Evaluate every system and print; or tell memory types apart."""
    if args.memories is not None:
        return _compare_memories(_names(args.memories, "--memories"), as_json=args.json)
    if args.model is None:
        raise InputError("a model to run on the systems", path="--model")
    names = _names(args.systems, "--systems")
    request = read_request(args)
    systems = {name: _read(name, args.efficiency, request) for name in names}
    results: dict[str, Values] = {
        name: measure(evaluated(system, request)) for name, (system, request, _) in systems.items()
    }
    if args.plot:
        from jaxcost.edge.show.plots import draw_comparison

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


def _compare_memories(names: list[str], *, as_json: bool) -> int:
    memories, engines = memory_rows(names), engine_rows()
    if as_json:
        document = {"memories": memories, "engines": engines}
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        tables.write(
            memory_types_table(memories),
            Text(
                "Sweep: time to read all of it once, the longest a token of a dense model that fills it takes.\n"
            ),
            engines_table(engines),
            Text(
                "Per watt: bandwidth a watt against reading the same memory over its interface. Shards: parts that "
                "70 billion 16-bit weights fall into.\nDensity: capacity left beside logic, which is also what "
                "commodity prices a GB rise by. PIM shares a die with memory, PNM has its own."
            ),
        )
    return 0


def _names(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise InputError("names separated by commas, none of them empty", path=option, given=text)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        kind = "system" if option == "--systems" else "memory"
        raise InputError(f"every {kind} once", path=option, given=twice)
    if len(names) > _MOST_SYSTEMS:
        raise InputError(f"at most {_MOST_SYSTEMS} side by side", path=option, given=len(names))
    return names
