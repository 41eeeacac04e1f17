"""`jaxcost bench`: what a benchmark client reports at every load, in closed form and replayed, side by side."""

import argparse
import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.text import Text

from jaxcost.core.pytree import replace
from jaxcost.core.units import engineering
from jaxcost.edge.commands.efficiency_text import efficiency_document, efficiency_lines
from jaxcost.edge.commands.engine_options import describe_engine, engine_document
from jaxcost.edge.commands.precision_text import precision_document, precision_lines
from jaxcost.edge.commands.request import (
    Request,
    add_request_arguments,
    add_system_argument,
    degrees,
    picture_path,
    read_number,
    read_request,
    read_system,
)
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.write import write_atomically
from jaxcost.edge.show import tables
from jaxcost.edge.show.bench_tables import bench_csv, bench_documents, bench_table, bench_verdict
from jaxcost.edge.traces.reader import load_trace
from jaxcost.explore.replay import Bench, bench
from jaxcost.physics.compute.shards import microbatches
from jaxcost.spec.trace import Trace
from jaxcost.spec.traffic import Traffic

__all__ = ["add_bench_arguments", "bench_command"]

_DEFAULT_LOADS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_MOST_LEVELS, _MOST_USERS, _MOST_REQUESTS = 32, 8192, 100_000
_OUTSIDE = (  # of the traffic: the replay has none of them
    "prefix_hit",
    "retrieved",
    "encoder_tokens",
    "corpus",
    "corpus_read",
    "weight_updates",
)


def add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser)
    add_system_argument(parser)
    group = parser.add_argument_group(
        "load",
        "Levels of a closed loop (--concurrency), or of Poisson arrivals (--rate). Prompts and outputs have the "
        "lengths --prompt and --output, --range-ratio about them, or those of --trace.",
    )
    group.add_argument(
        "--concurrency",
        "--max-concurrency",
        type=_numbers,
        metavar="C1,C2,...",
        help="outstanding requests of each level (default 1,2,4,...,256 without --rate)",
    )
    group.add_argument(
        "--rate", "--request-rate", type=_numbers, metavar="R1,R2,...", help="requests/s of each level"
    )
    group.add_argument(
        "--num-prompts",
        type=read_number,
        metavar="N",
        help="requests of every level (default 10 x the largest concurrency, from 100 to 2000; 1000 by rate)",
    )
    group.add_argument(
        "--range-ratio",
        "--random-range-ratio",
        type=read_number,
        default=0.0,
        metavar="R",
        help="lengths are uniform in [1 - R, 1 + R] times --prompt and --output (default 0)",
    )
    group.add_argument(
        "--trace", metavar="FILE", help="trace whose lengths are drawn; its arrivals are not used"
    )
    group.add_argument(
        "--replicas",
        type=read_number,
        default=1.0,
        metavar="N",
        help="copies of the plan; requests go to them by round robin (default 1)",
    )
    group.add_argument(
        "--seed", type=read_number, default=0.0, metavar="N", help="of lengths and arrivals (default 0)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write every level to a .csv file")
    parser.add_argument(
        "--plot",
        type=picture_path,
        metavar="FILE",
        help="write a plot of throughput and latencies against load: .svg, .png or .pdf",
    )


def _numbers(text: str) -> list[float]:
    return [read_number(part) for part in text.split(",")]


def bench_command(args: argparse.Namespace) -> int:
    """Predict the levels and print them."""
    _check(args)
    lengths = None if args.trace is None else load_trace(args.trace)
    request, system, efficiency = _read(args, lengths)
    t = request.traffic
    if args.concurrency is None and args.rate is None:
        args.concurrency = [load for load in _DEFAULT_LOADS if load % args.replicas == 0]
    levels: dict[str, Any] = {
        "concurrency": [int(load) for load in args.concurrency or ()],
        "rate": list(args.rate or ()),
    }
    with _progress(max(map(len, levels.values()))) as show:
        try:
            result = bench(
                system,
                request.model,
                t,
                request.plan,
                **levels,
                requests=None if args.num_prompts is None else int(args.num_prompts),
                range_ratio=args.range_ratio,
                lengths=lengths,
                replicas=int(args.replicas),
                seed=int(args.seed),
                prices=request.prices,
                on_progress=show,
            )
        except ValueError as error:
            raise InputError(f"a model and a load that can be replayed ({error})", given=args.model) from None
    targets = {name: float(getattr(t, f"{name}_target")) for name in ("ttft", "tpot")}
    if args.csv is not None:
        try:
            write_atomically(args.csv, bench_csv(result).encode())
        except OSError as error:
            expected = f"a file that can be written ({error.strerror})"
            raise InputError(expected, path="--csv", given=str(args.csv)) from None
    if args.plot is not None:
        from jaxcost.edge.show.bench_plot import draw_bench

        title = f"{args.model} on {args.system}"
        draw_bench(args.plot, title, _describe_lengths(args, lengths), result, targets)
    if args.json:
        document = _document(args, request, efficiency, lengths, result, targets)
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        _print(args, request, efficiency, lengths, result, targets)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.concurrency is not None and args.rate is not None:
        raise InputError("--concurrency or --rate, not both", path="--rate", given=_listed(args.rate))
    for name, value in (("replicas", args.replicas), ("num-prompts", args.num_prompts)):
        if value is not None and not (1 <= value <= _MOST_REQUESTS and value == int(value)):
            expected = f"a whole number from 1 to {_MOST_REQUESTS:,}"
            raise InputError(expected, path=f"--{name}", given=value)
    if args.seed < 0 or args.seed != int(args.seed):
        raise InputError("a whole number of at least 0", path="--seed", given=args.seed)
    if not 0 <= args.range_ratio < 1:
        raise InputError("a number in [0, 1)", path="--range-ratio", given=args.range_ratio)
    if args.trace is not None and args.range_ratio:
        raise InputError("--trace or --range-ratio, not both", path="--range-ratio", given=args.range_ratio)
    for name in ("concurrency", "rate"):
        loads: list[float] = getattr(args, name) or []
        if len(loads) > _MOST_LEVELS:
            raise InputError(f"at most {_MOST_LEVELS} levels", path=f"--{name}", given=len(loads))
        if len(set(loads)) < len(loads):
            raise InputError("every level once", path=f"--{name}", given=_listed(loads))
    for load in args.concurrency or ():
        if not (1 <= load <= _MOST_USERS and load == int(load)):
            expected = f"whole numbers from 1 to {_MOST_USERS:,}"
            raise InputError(expected, path="--concurrency", given=load)
        if load % args.replicas:
            expected = f"multiples of the {args.replicas:g} replicas, which share the requests evenly"
            raise InputError(expected, path="--concurrency", given=load)
    for load in args.rate or ():
        if not load > 0:
            raise InputError("positive numbers of requests a second", path="--rate", given=load)
    _check_traffic(args)
    if args.csv is not None and args.csv.suffix.lower() != ".csv":
        raise InputError("a name ending in .csv", path="--csv", given=str(args.csv))
    if args.csv is not None and not args.csv.parent.is_dir():
        raise InputError("a name in a folder that exists", path="--csv", given=str(args.csv))


def _check_traffic(args: argparse.Namespace) -> None:
    """Refuse options of the traffic that the replay has not."""
    defaults = Traffic()
    if args.batch != defaults.batch:
        raise InputError("--concurrency instead", path="--batch", given=args.batch)
    if args.chunk:
        raise InputError("the token budget of the engine instead", path="--chunk", given=args.chunk)
    for name in _OUTSIDE:
        if getattr(args, name) != getattr(defaults, name):
            flag = f"--{name.replace('_', '-')}"
            raise InputError("no such traffic, which a replay has not", path=flag, given=getattr(args, name))
    for name in ("prompt", "output"):
        value, default = getattr(args, name), getattr(defaults, name)
        if args.trace is not None and value != default:
            raise InputError("the lengths of --trace alone", path=f"--{name}", given=value)
        if value != int(value) or value < (2 if name == "output" else 1):
            least = "at least 2, for a time per output token" if name == "output" else "at least 1"
            raise InputError(f"a whole number of tokens, {least}", path=f"--{name}", given=value)


def _read(args: argparse.Namespace, lengths: Trace | None) -> tuple[Request, Any, list[str]]:
    request = read_request(args)
    traffic = request.traffic
    if lengths is not None:
        traffic = replace(traffic, prompt=float(lengths.prompt.mean()), output=float(lengths.output.mean()))
    fullest = request.plan.dp * float(microbatches(request.plan))
    users = max(args.concurrency or (1.0,)) / args.replicas if request.objective else fullest
    request = dataclasses.replace(request, traffic=replace(traffic, batch=max(users, fullest)))
    system, request, efficiency = read_system(args.system, args.efficiency, request)
    return request, system, efficiency


@contextlib.contextmanager
def _progress(levels: int) -> Iterator[Callable[[int], None]]:
    """Show which level is replayed; nothing where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda done: status.update(f"level {done + 1} of {levels}")


def _listed(values: list[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _describe_lengths(args: argparse.Namespace, lengths: Trace | None) -> str:
    if lengths is not None:
        return (
            f"lengths of {lengths.name}: prompt {lengths.prompt.mean():,.0f}, output {lengths.output.mean():,.0f} "
            "tokens on average"
        )
    about = f" +/- {args.range_ratio:.0%}" if args.range_ratio else ""
    return f"prompt {args.prompt:g}, output {args.output:g} tokens{about}"


def _document(
    args: argparse.Namespace,
    request: Request,
    efficiency: list[str],
    lengths: Trace | None,
    result: Bench,
    targets: dict[str, float],
) -> dict[str, Any]:
    verdict, met = bench_verdict(result, targets["ttft"], targets["tpot"])
    return {
        "model": request.name,
        "system": args.system,
        **precision_document(request),
        **engine_document(request.engine, request.plan),
        **efficiency_document(efficiency),
        "verdict": verdict,
        "met": met,
        "prompt": float(request.traffic.prompt),
        "output": float(request.traffic.output),
        "range_ratio": args.range_ratio,
        "trace": None if lengths is None else str(args.trace),
        "replicas": args.replicas,
        "seed": args.seed,
        "targets": {name: value or None for name, value in targets.items()},
        **bench_documents(result, targets["ttft"], targets["tpot"]),
    }


def _print(
    args: argparse.Namespace,
    request: Request,
    efficiency: list[str],
    lengths: Trace | None,
    result: Bench,
    targets: dict[str, float],
) -> None:
    verdict, met = bench_verdict(result, targets["ttft"], targets["tpot"])
    copies = f"{args.replicas:g} replicas of {degrees(request.plan)}" if args.replicas > 1 else ""
    load = f"{_describe_lengths(args, lengths)}; {result.requests:,} requests a level"
    set_targets = [f"{n.upper()} {engineering(v, 's')}" for n, v in targets.items() if v > 0]
    load += f"; targets: {', '.join(set_targets)}" if set_targets else ""
    error = (
        f"step times interpolated to {result.table_error:.1%}" if math.isfinite(result.table_error) else ""
    )
    tables.write(
        Text(verdict, "bold green" if met else "bold red"),
        Text(f"{request.name} on {args.system}; {copies or degrees(request.plan)}", "bold"),
        *efficiency_lines(efficiency),
        Text(load),
        *precision_lines(request),
        Text(f"Engine: {describe_engine(request.engine, request.plan)}"),
        bench_table(result),
        Text(f"Analytic: means in closed form. Replay: request by request, {error}."),
    )
