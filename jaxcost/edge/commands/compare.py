"""`jaxcost compare`: one model on several systems side by side, or memory types and near-memory engines."""

import argparse
import json
import sys

from rich.text import Text

from jaxcost.edge.commands.efficiency_text import efficiency_lines
from jaxcost.edge.commands.engine_options import describe_engine, engine_lines
from jaxcost.edge.commands.evaluate import evaluation_document
from jaxcost.edge.commands.fit_option import add_require_fit_argument, fit_status
from jaxcost.edge.commands.precision_text import describe_precision, precision_lines
from jaxcost.edge.commands.request import (
    Values,
    add_request_arguments,
    degrees,
    describe_request,
    evaluate_request,
    measure,
    picture_path,
    read_request,
    read_system,
    unset_targets,
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
    compared = parser.add_mutually_exclusive_group(required=True)
    compared.add_argument(
        "--systems", metavar="A,B,C", help="catalogue names or YAML files, separated by commas"
    )
    compared.add_argument(
        "--memories",
        nargs="?",
        const=",".join(PAPER_MEMORIES),
        metavar="A,B,C",
        help="compare memory types and near-memory engines instead; by default those of arXiv:2601.05047",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_require_fit_argument(parser)
    parser.add_argument(
        "--plot", type=picture_path, metavar="FILE", help="write a bar plot: .svg, .png or .pdf"
    )


def compare_command(args: argparse.Namespace) -> int:
    """Evaluate the model on every system, or compare memory types, and print."""
    if args.memories is not None:
        return _compare_memories(_names(args.memories, "--memories"), as_json=args.json)
    if args.model is None:
        raise InputError("a model to run on the systems", path="--model")
    names = _names(args.systems, "--systems")
    request = read_request(args)
    systems = {name: _read(name, args.efficiency, request) for name in names}
    results: dict[str, Values] = {
        name: measure(evaluate_request(system, request)) for name, (system, request, _) in systems.items()
    }
    if args.plot:
        from jaxcost.edge.show.plots import draw_comparison

        described = f"{describe_request(request)}; {describe_precision(request)}"
        draw_comparison(args.plot, f"{request.name}: {described}", results)
    status = fit_status(args, exceeded=any(map(tables.exceeded, results.values())))
    if args.json:
        documents = [
            evaluation_document(name, systems[name][2], systems[name][1], results[name]) for name in names
        ]
        sys.stdout.write(json.dumps(documents, indent=2, allow_nan=False) + "\n")
        return status
    efficiencies = {name: notes for name, (_, _, notes) in systems.items()}
    shown = efficiency_lines(next(iter(efficiencies.values())))
    if len(set(map(tuple, efficiencies.values()))) > 1:
        shown = [Text(f"Efficiency, {name}: {notes[0]}") for name, notes in efficiencies.items()]
        shown += [
            Text(f"Note, {name}: {n}", "yellow") for name, notes in efficiencies.items() for n in notes[1:]
        ]
    tables.write(
        Text(request.name, "bold"),
        Text(describe_request(request)),
        *precision_lines(request),
        *engine_lines({name: describe_engine(one.engine, one.plan) for name, (_, one, _) in systems.items()}),
        *(
            Text(f"Plan, {name}: {degrees(planned.plan)}; {planned.choice}")
            for name, (_, planned, _) in systems.items()
            if planned.choice
        ),
        *shown,
        Text(""),
        tables.comparison_table(names, list(results.values()), unset_targets(request)),
        Text("* best of the row among feasible systems"),
    )
    return status


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
                "Full read: time to read the whole memory once, as each token of a dense model that fills it does.\n"
            ),
            engines_table(engines),
            Text(
                "Gain, Per watt: bandwidth, and bandwidth per watt, over those of the memory's interface. Shards: "
                "number of shards of\n70 billion 16-bit weights. Density: capacity relative to the memory without "
                "logic; its inverse is the rise of the price per GB.\nPIM: logic on the memory die. PNM: logic on its "
                "own die."
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
