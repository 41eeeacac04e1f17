"""`jaxcost pareto`: the front of tokens per second and chip against tokens per second and user."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog.set_option import described_settings
from jaxcost.edge.commands.efficiency_text import efficiency_document, efficiency_lines
from jaxcost.edge.commands.engine_options import describe_engine, engine_document, engine_lines
from jaxcost.edge.commands.fit_option import add_require_fit_argument, fit_status
from jaxcost.edge.commands.precision_text import describe_precision, precision_document
from jaxcost.edge.commands.request import (
    Request,
    add_request_arguments,
    picture_path,
    read_number,
    read_request,
    read_system,
)
from jaxcost.edge.hf.precision.stored import RECIPES
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.formats import FORMATS, read_bits
from jaxcost.edge.io.write import write_atomically
from jaxcost.edge.show import tables
from jaxcost.edge.show.serving_tables import front_csv, front_documents, front_table, front_verdict
from jaxcost.explore.analysis import DEGREES
from jaxcost.explore.serve import (
    DECODE_UTILIZATION,
    PREFILL_UTILIZATION,
    ServingFront,
    serving_front,
    serving_plans,
)
from jaxcost.spec.traffic import Traffic

__all__ = ["add_pareto_arguments", "pareto_command"]

_MOST_SYSTEMS = 6
_MOST_BATCH = 65536
_STORED = "stored"
_BIT_FLAGS = ("weight_bits", "expert_bits", "kv_bits", "kv_cache_dtype", "quantization")


class _Result(NamedTuple):
    """The front of one system, with the requests by precision."""

    name: str
    requests: dict[str, Request]
    efficiency: list[str]
    front: ServingFront

    @property
    def request(self) -> Request:
        return next(iter(self.requests.values()))


def add_pareto_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    parser.set_defaults(**dict.fromkeys(DEGREES))
    parser.add_argument(
        "--system",
        required=True,
        metavar="A,B,C",
        help="catalogue name such as h100-sxm-x8, or a YAML file; several separated by commas",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_require_fit_argument(parser, "no point is on the front, in any system")
    parser.add_argument(
        "--plot", type=picture_path, metavar="FILE", help="write a plot of the fronts: .svg, .png or .pdf"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every point to a .csv file")
    group = parser.add_argument_group(
        "candidates",
        "All plans on the system's chips and on divisors of their number are tried; --tp, --pp, --ep, --dp and --cp "
        "keep those of one degree. cp is 1 where it is not given. Points beyond --ttft-target and --tpot-target are "
        "left out of the front.",
    )
    group.add_argument(
        "--precision",
        default=_STORED,
        metavar="A,B,C",
        help="precisions to try, each WEIGHTS or WEIGHTS/KV: a recipe "
        f"({', '.join(RECIPES)}), a format such as bf16 or bits of the weights, or {_STORED} for those of the "
        "checkpoint and the options (default); then a format or bits of the KV cache",
    )
    group.add_argument(
        "--max-batch",
        type=read_number,
        default=1024.0,
        metavar="N",
        help="most sequences of a data-parallel rank (default 1024)",
    )
    group.add_argument(
        "--variation",
        type=read_number,
        default=0.0,
        metavar="N",
        help="squared coefficient of variation of a request's work, 0 for equal requests (default 0)",
    )
    group = parser.add_argument_group("separate pools for prefill and decode")
    group.add_argument(
        "--split", action="store_true", help="try separate pools too, their replicas matched by rates"
    )
    group.add_argument(
        "--max-chips",
        type=read_number,
        metavar="N",
        help="most chips of both pools, with whole numbers of replicas; without, the ratio of a large deployment, with "
        "a fraction of a prefill replica for each decode replica",
    )
    group.add_argument(
        "--prefill-utilization",
        type=read_number,
        metavar="N",
        help=f"largest share of time that the prefill pool is busy (default {PREFILL_UTILIZATION})",
    )
    group.add_argument(
        "--decode-utilization",
        type=read_number,
        metavar="N",
        help=f"mean sequences of the decode pool over its batches (default {DECODE_UTILIZATION})",
    )


def pareto_command(args: argparse.Namespace) -> int:
    """Find the fronts and print them."""
    names = _listed(args.system, "--system", _MOST_SYSTEMS)
    fixed = {name: value for name in DEGREES if (value := getattr(args, name)) is not None}
    _check(args)
    requests = _requests(args, fixed)
    results = []
    with _status() as show:
        for name in names:
            show(f"{args.model} on {name}")
            results.append(_find_front(args, name, requests, fixed))
    if args.csv is not None:
        content = front_csv({result.name: result.front for result in results})
        try:
            write_atomically(args.csv, content.encode())
        except OSError as error:
            expected = f"a file that can be written ({error.strerror})"
            raise InputError(expected, path="--csv", given=str(args.csv)) from None
    if args.plot is not None:
        from jaxcost.edge.show.serving_plot import draw_serving_fronts

        fronts = {result.name: result.front for result in results}
        draw_serving_fronts(args.plot, args.model, _describe(results[0].request), fronts)
    if args.json:
        document = _document(args, results)
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        _print(args, results)
    return fit_status(args, exceeded=any(not len(result.front.front) for result in results))


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Show what is evaluated; nothing where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update


def _check(args: argparse.Namespace) -> None:
    if args.plan is not None:
        raise InputError("no plan: all plans are tried", path="--plan", given=args.plan)
    for name, flag in (("batch", "--max-batch"), ("chunk", "--max-num-batched-tokens")):
        default = getattr(Traffic(), name, 0.0)
        if getattr(args, name) != default:
            raise InputError(f"{flag} instead", path=f"--{name}", given=getattr(args, name))
    if not (1 <= args.max_batch <= _MOST_BATCH and args.max_batch == int(args.max_batch)):
        expected = f"a whole number from 1 to {_MOST_BATCH:,}"
        raise InputError(expected, path="--max-batch", given=args.max_batch)
    if args.variation < 0:
        raise InputError("a number of at least 0", path="--variation", given=args.variation)
    if args.output < 2:
        raise InputError("at least 2 tokens, for a time per output token", path="--output", given=args.output)
    for name in ("max_chips", "prefill_utilization", "decode_utilization"):
        if getattr(args, name) is not None and not args.split:
            flag = f"--{name.replace('_', '-')}"
            raise InputError("--split as well", path=flag, given=getattr(args, name))
    if args.max_chips is not None and not (args.max_chips >= 2 and args.max_chips == int(args.max_chips)):
        raise InputError("a whole number of at least 2", path="--max-chips", given=args.max_chips)
    share = args.prefill_utilization
    if share is not None and not 0 < share < 1:
        raise InputError("a share in (0, 1)", path="--prefill-utilization", given=share)
    share = args.decode_utilization
    if share is not None and not 0 < share <= 1:
        raise InputError("a share in (0, 1]", path="--decode-utilization", given=share)
    if args.csv is not None and args.csv.suffix.lower() != ".csv":
        raise InputError("a name ending in .csv", path="--csv", given=str(args.csv))
    if args.csv is not None and not args.csv.parent.is_dir():
        raise InputError("a name in a folder that exists", path="--csv", given=str(args.csv))


def _listed(text: str, option: str, most: int) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise InputError("names separated by commas, none of them empty", path=option, given=text)
    if len(set(names)) < len(names):
        raise InputError("every name once", path=option, given=text)
    if len(names) > most:
        raise InputError(f"at most {most} names", path=option, given=len(names))
    return names


def _requests(args: argparse.Namespace, fixed: dict[str, float]) -> dict[str, Request]:
    """Read the request once for each precision."""
    degrees = {name: fixed.get(name, 1.0) for name in DEGREES} | {"ep": 1.0}
    requests = {}
    for name in _listed(args.precision, "--precision", len(FORMATS)):
        options = vars(args) | degrees | _precision_options(args, name)
        request = read_request(argparse.Namespace(**options))
        traffic = replace(request.traffic, batch=degrees["dp"], variation=args.variation)
        requests[name] = dataclasses.replace(request, traffic=traffic)
    return requests


def _precision_options(args: argparse.Namespace, text: str) -> dict[str, Any]:
    """Return the options of the command line that a precision stands for."""
    weights, _, cache = text.lower().partition("/")
    options: dict[str, Any] = {}
    if weights in RECIPES:
        options["quantization"] = weights
    elif weights != _STORED:
        bits = read_bits(weights, "--precision")
        options |= {"weight_bits": bits, "expert_bits": bits}
    if "/" in text:
        options["kv_bits"] = read_bits(cache, "--precision")
    for name in _BIT_FLAGS:
        if getattr(args, name) is not None and options and (name in options or name != "kv_bits"):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"--precision or {flag}, not both", path="--precision", given=text)
    return options


def _find_front(
    args: argparse.Namespace, name: str, requests: dict[str, Request], fixed: dict[str, float]
) -> _Result:
    read = {precision: read_system(name, args.efficiency, request) for precision, request in requests.items()}
    system, request, efficiency = next(iter(read.values()))
    model = request.model
    has_experts = float(model.experts.layers) > 0
    degrees = serving_plans(max(round(float(system.chips)), 1), fixed=fixed, experts=has_experts)
    if not len(degrees):
        text = ", ".join(f"{degree} {value:g}" for degree, value in fixed.items())
        raise InputError(f"degrees of a plan on {float(system.chips):g} chips", path="--system", given=text)
    front = serving_front(
        system,
        model,
        request.traffic,
        {precision: planned.plan for precision, (_, planned, _) in read.items()},
        degrees=degrees,
        max_batch=int(args.max_batch),
        split=args.split,
        chips=args.max_chips,
        prefill_utilization=args.prefill_utilization or PREFILL_UTILIZATION,
        decode_utilization=args.decode_utilization or DECODE_UTILIZATION,
    )
    planned = {precision: one for precision, (_, one, _) in read.items()}
    return _Result(name, planned, efficiency, front)


def _describe(request: Request) -> str:
    """Return the lengths and the targets as text."""
    t = request.traffic
    targets = [
        f"{n.upper()} {v:g} s" for n in ("ttft", "tpot") if (v := float(getattr(t, f"{n}_target"))) > 0
    ]
    lengths = f"prompt {float(t.prompt):g}, output {float(t.output):g} tokens"
    return lengths + (f"; at most {', '.join(targets)}" if targets else "")


def _document(args: argparse.Namespace, results: list[_Result]) -> dict[str, Any]:
    request = results[0].request
    return {
        "model": request.name,
        "traffic": {f.name: float(getattr(request.traffic, f.name)) for f in dataclasses.fields(Traffic)},
        "precisions": {name: precision_document(one) for name, one in results[0].requests.items()},
        **described_settings(request.settings),
        "systems": [
            {
                "system": result.name,
                "verdict": front_verdict(args.model, result.name, result.front),
                **efficiency_document(result.efficiency),
                **engine_document(result.request.engine, result.request.plan),
                **front_documents(result.front),
            }
            for result in results
        ],
    }


def _print(args: argparse.Namespace, results: list[_Result]) -> None:
    requests = results[0].requests
    style = {True: "bold green", False: "bold red"}
    verdicts = [
        Text(front_verdict(args.model, r.name, r.front), style[bool(len(r.front.front))]) for r in results
    ]
    notes = dict.fromkeys(note for request in requests.values() for note in request.notes)
    single = len(requests) == 1
    precisions = [
        Text(f"Precision{'' if single else f' {name}'}: {describe_precision(request)}")
        for name, request in requests.items()
    ]
    engines = {r.name: describe_engine(r.request.engine, r.request.plan) for r in results}
    parts: list[Any] = [*verdicts, Text(_describe(results[0].request)), *precisions]
    parts += [*(Text(f"Note: {note}", "yellow") for note in notes), *engine_lines(engines)]
    for result in results:
        parts += efficiency_lines(result.efficiency) if len(results) == 1 else [Text("")]
        parts.append(front_table(result.name if len(results) > 1 else "", result.front))
        parts += efficiency_lines(result.efficiency) if len(results) > 1 else []
    tables.write(*parts)
