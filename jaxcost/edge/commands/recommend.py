"""`jaxcost recommend`: the cheapest plan and engine settings for a load within latency limits, with launch lines."""

import argparse
import contextlib
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from jaxcost.core.pytree import replace
from jaxcost.core.units import engineering
from jaxcost.edge.catalog.check import check_plan, check_traffic
from jaxcost.edge.catalog.parts import chip_of_system
from jaxcost.edge.catalog.set_option import with_settings
from jaxcost.edge.commands.efficiency_text import (
    efficiency_document,
    efficiency_lines,
    efficiency_notes,
)
from jaxcost.edge.commands.engine_options import describe_engine, engine_document, set_engine
from jaxcost.edge.commands.fit_option import add_require_fit_argument, fit_status
from jaxcost.edge.commands.precision_text import precision_document, precision_lines
from jaxcost.edge.commands.request import (
    Request,
    add_request_arguments,
    add_system_argument,
    build_system,
    measure,
    picture_path,
    read_number,
    read_request,
    read_seconds,
)
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.launch import (
    LAUNCHERS,
    Deployment,
    ServerPool,
    default_launcher,
    render_launch,
    repository_of,
)
from jaxcost.edge.show import tables
from jaxcost.edge.show.recommend_tables import (
    compare_candidates,
    comparison,
    describe_deployment,
    describe_plan,
    judge_candidate,
    plans_table,
    runner_up_line,
)
from jaxcost.edge.traces.reader import load_trace
from jaxcost.explore.recommend import Candidate, Recommendation, mean_traffic, recommend
from jaxcost.physics.compute.shards import microbatches
from jaxcost.spec.traffic import Traffic

__all__ = ["add_recommend_arguments", "recommend_command"]

_ENGINE = "vllm"
_DEGREES = ("tp", "pp", "ep", "dp")
_REPLAYED = 4
_CONTEXT_STEP = 1024  # the context of a launch line is a multiple of this


def add_recommend_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("model_name", nargs="?", metavar="MODEL", help="the model, as --model")
    add_request_arguments(parser, required=False, engine=_ENGINE)
    parser.set_defaults(prompt=None, output=None, **dict.fromkeys(_DEGREES))
    add_system_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_require_fit_argument(parser, "no plan satisfies every limit; the output is the same")
    parser.add_argument(
        "--plot",
        type=picture_path,
        metavar="FILE",
        help="write a plot of cost against latency: .svg, .png or .pdf",
    )
    group = parser.add_argument_group("load")
    group.add_argument(
        "--rate", type=read_number, metavar="N", help="requests per second (default that of --trace)"
    )
    group.add_argument(
        "--variation",
        type=read_number,
        metavar="N",
        help="squared coefficient of variation of a request's work, without --trace (default 1)",
    )
    group.add_argument(
        "--trace", metavar="FILE", help="trace of requests, whose lengths and rate are the load"
    )
    for name in ("ttft", "tpot"):
        group.add_argument(
            f"--{name}",
            dest=f"{name}_target",
            type=read_seconds,
            default=argparse.SUPPRESS,
            metavar="TIME",
            help=f"the same as --{name}-target",
        )
    group = parser.add_argument_group(
        "search",
        "All powers of two of tp, pp and dp are tried, and token budgets and limits of sequences. Given degrees and "
        "limits of the engine are kept. --kv-cache-dtype takes several types, separated by commas.",
    )
    group.add_argument(
        "--max-replica-chips",
        type=read_number,
        metavar="N",
        help="most chips of a replica (default those of the system)",
    )
    group.add_argument("--split", action="store_true", help="also try separate pools for prefill and decode")
    group.add_argument(
        "--verify",
        nargs="?",
        type=read_number,
        const=float(_REPLAYED),
        metavar="N",
        help=f"replay the load on the N cheapest plans, {_REPLAYED} with --trace or without N, 0 for none",
    )
    group.add_argument(
        "--percentile",
        type=read_number,
        default=99.0,
        metavar="N",
        help="percentile of a replay (default 99)",
    )
    group.add_argument(
        "--launch",
        metavar="NAME",
        help=f"form of the launch lines: {', '.join(LAUNCHERS)} (default that of --engine)",
    )


def recommend_command(args: argparse.Namespace) -> int:
    """Search the plans and print the recommendation."""
    _check(args)
    trace = None if args.trace is None else load_trace(args.trace)
    requests = _read_requests(args, trace)
    request = next(iter(requests.values()))
    chips = build_system(args.system, args.efficiency, request)
    check_traffic(request.traffic, request.model)
    plans = [
        with_settings("plan", set_engine(r.plan, r.engine, args.system), r.settings)
        for r in requests.values()
    ]
    stated = {name for name, _ in request.engine.changes}
    with _progress() as on_progress:
        try:
            result = recommend(
                chips,
                request.model,
                request.traffic,
                plans,
                max_replica_chips=args.max_replica_chips,
                degrees={d: value for d in _DEGREES if (value := getattr(args, d)) is not None},
                step_tokens=[float(plans[0].engine.step_tokens)] if "step_tokens" in stated else None,
                sequences=[float(plans[0].engine.sequences)] if "sequences" in stated else None,
                mixed=(0.0, 1.0) if request.engine.name.startswith("sglang") else None,
                split=args.split,
                trace=trace,
                verified=None if args.verify is None else int(args.verify),
                percentile=args.percentile,
                prices=request.prices,
                on_progress=on_progress,
            )
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(str(error), path="--system", given=args.system) from None
    best = result.best
    request = dataclasses.replace(list(requests.values())[best.template], plan=best.plan)
    fullest = replace(request.traffic, batch=best.plan.dp * float(microbatches(best.plan)))
    check_plan(best.system, request.model, best.plan, fullest)
    efficiency = efficiency_notes(args.system, args.efficiency, best.system, request.model, best.plan)
    launcher = args.launch or default_launcher(request.engine.name)
    launch = "" if result.feasible else "# this plan exceeds a limit\n"
    launch += render_launch(launcher, _deployment(args, request, best, trace), request.engine.name)
    names = list(requests)
    if args.plot is not None:
        from jaxcost.edge.show.recommend_plot import draw_recommendation

        draw_recommendation(
            args.plot, f"{request.name} on {args.system}", result, _limits(request.traffic), names
        )
    if args.json:
        document = _document(args, request, result, efficiency, names) | {
            "launch": {"launcher": launcher, "text": launch}
        }
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        _print(args, request, result, efficiency, names, launch)
    return fit_status(args, exceeded=not result.feasible)


def _check(args: argparse.Namespace) -> None:
    if (args.model is None) == (args.model_name is None):
        raise InputError("one model, as MODEL or as --model", path="MODEL", given=args.model_name)
    args.model = args.model or args.model_name
    if args.launch is not None and args.launch not in LAUNCHERS:
        raise not_among(LAUNCHERS, args.launch, path="--launch")
    if args.trace is None:
        if args.rate is None:
            raise InputError("--rate, or a --trace", path="--rate", given=None)
    else:
        for name in ("prompt", "output", "variation"):
            if getattr(args, name) is not None:
                raise InputError(
                    "no lengths with --trace, which has them", path=f"--{name}", given=getattr(args, name)
                )
    for name, least in (("rate", None), ("variation", 0), ("max_replica_chips", 1), ("verify", 0)):
        value = getattr(args, name)
        if value is None:
            continue
        if (least is None and value <= 0) or (least is not None and value < least):
            expected = "a positive number" if least is None else f"a number of at least {least}"
            raise InputError(expected, path=f"--{name.replace('_', '-')}", given=value)
    if not 0 < args.percentile <= 100:
        raise InputError("a percentile in (0, 100]", path="--percentile", given=args.percentile)
    for name, expected in (("cp", 1), ("chunk", 0)):
        if getattr(args, name) != expected:
            raise InputError(
                f"{expected}: it is not searched, and no launch line has it",
                path=f"--{name}",
                given=getattr(args, name),
            )
    if args.plan is not None:
        raise InputError("no --plan, as all plans are tried", path="--plan", given=args.plan)


def _read_requests(args: argparse.Namespace, trace: Any) -> dict[str, Request]:
    """Return the request with each type of KV cache, by its name."""
    lengths = {"prompt": Traffic().prompt, "output": Traffic().output}
    kinds = [None] if args.kv_cache_dtype is None else args.kv_cache_dtype.split(",")
    requests = {}
    for kind in kinds:
        options = dict(vars(args)) | {d: getattr(args, d) or 1.0 for d in _DEGREES} | {"kv_cache_dtype": kind}
        options |= {n: float(getattr(args, n) or value) for n, value in lengths.items()}
        request = read_request(argparse.Namespace(**options))
        traffic = replace(request.traffic, rate=args.rate or 0.0, batch=1.0)
        if trace is not None:
            traffic = mean_traffic(trace, traffic)
        if args.variation is not None:
            traffic = replace(traffic, variation=args.variation)
        requests[f"KV {kind or 'auto'}"] = dataclasses.replace(request, traffic=traffic)
    return requests


def _limits(traffic: Traffic) -> dict[str, float]:
    return {name: float(getattr(traffic, f"{name}_target")) for name in ("ttft", "tpot")}


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show what is done, where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda text, done, total: status.update(f"{text}: {done} of {total}")


def _deployment(args: argparse.Namespace, request: Request, best: Candidate, trace: Any) -> Deployment:
    """Return what is launched for the recommended candidate."""
    role = "serve" if best.prefill is None else "decode"
    pools = [ServerPool(best.plan, best.replicas, role)]
    if best.prefill is not None:
        pools.insert(0, ServerPool(best.prefill[1], best.prefill_replicas, "prefill"))
    context = 0
    if trace is not None:
        context = -(-int(np.max(trace.prompt + trace.output)) // _CONTEXT_STEP) * _CONTEXT_STEP
    bits = [name for name in request.stated_bits if name != "kv_bits"]
    notes = [
        f"{request.stated_bits[name]} {getattr(best.plan, name):g} is a matter of the checkpoint"
        for name in bits
    ]
    for flag, value in (("--tier", request.tiers), ("--near", request.near), ("--set", request.settings)):
        if value:
            notes.append(f"{flag} changes the hardware or the plan, and is not written here")
    return Deployment(
        model=repository_of(request.name),
        pools=tuple(pools),
        chip=chip_of_system(args.system),
        domain=round(float(best.system.fabric.domain)),
        max_context=context,
        stated=tuple(name for name, _ in request.engine.changes),
        graphs=request.engine.graphs,
        quantization=args.quantization or "",
        draft_model=repository_of(request.draft.model) if request.draft.model else "",
        notes=tuple(notes),
    )


def _document(
    args: argparse.Namespace,
    request: Request,
    result: Recommendation,
    efficiency: list[str],
    names: list[str],
) -> dict[str, Any]:
    verdict = judge_candidate(result.best, names)
    other = result.runner_up
    return {
        "model": request.name,
        "system": args.system,
        **precision_document(request),
        **engine_document(request.engine, request.plan),
        **efficiency_document(efficiency),
        "load": {
            name: float(getattr(request.traffic, name)) for name in ("rate", "prompt", "output", "variation")
        },
        "limits": _limits(request.traffic),
        "verdict": verdict.text,
        "binding": verdict.binding,
        "feasible": result.feasible,
        "evaluated": result.evaluated,
        "within_limits": result.met,
        "best": _candidate_document(result.best, names),
        "runner_up": None if other is None else _candidate_document(other, names),
        "runner_up_differences": {} if other is None else compare_candidates(result.best, other),
        "plans": [_candidate_document(c, names, short=True) for c in result.candidates],
    }


def _candidate_document(c: Candidate, names: list[str], *, short: bool = False) -> dict[str, Any]:
    engine, pool = c.plan.engine, c.prefill
    document = {
        "description": describe_plan(c, names),
        "plan": {d: float(getattr(c.plan, d)) for d in _DEGREES},
        "kv_bits": float(c.plan.kv_bits),
        "settings": {
            n: float(getattr(engine, n)) for n in ("step_tokens", "sequences", "mixed", "memory_share")
        },
        "prefill_plan": None if pool is None else {d: float(getattr(pool[1], d)) for d in _DEGREES},
        "replicas": c.replicas,
        "prefill_replicas": c.prefill_replicas,
        "chips": c.chips,
        "usd_per_mtok": c.usd_per_mtok,
        "feasible": c.feasible,
        "evaluated_by": "closed form" if c.verification is None else "replay",
        "margins": c.margins,
        "replay": None if c.verification is None else _finite(dataclasses.asdict(c.verification)),
    }
    if not short:
        values = measure(c.service)
        document["results"] = {path: {"value": value, "unit": unit} for path, (unit, value) in values.items()}
    return document


def _finite(document: dict[str, Any]) -> dict[str, Any]:
    """Replace numbers that are not finite, such as a percentile without requests, by None."""
    return {
        name: _finite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in document.items()
    }


def _print(
    args: argparse.Namespace,
    request: Request,
    result: Recommendation,
    efficiency: list[str],
    names: list[str],
    launch: str,
) -> None:
    best, traffic = result.best, request.traffic
    verdict = judge_candidate(best, names)
    opening = verdict.text
    if not result.feasible:
        nearest = f"{describe_plan(best, names)} on {describe_deployment(best)}"
        opening = f"No plan satisfies every limit. Nearest: {nearest}. {verdict.text}"
    limits = [
        f"{name.upper()} {engineering(value, 's')}" for name, value in _limits(traffic).items() if value > 0
    ]
    load = f"{traffic.rate:g} requests/s, variation {traffic.variation:.3g}, prompt {traffic.prompt:g}"
    if args.trace is not None:
        load = f"{Path(args.trace).name}: {load}"
    of = "of means" if best.verification is None else f"of p{best.verification.percentile:g} in the replay"
    tables.write(
        Text(f"{request.name} on {args.system}", "bold"),
        Text(opening, "green" if result.feasible else "red bold"),
        *efficiency_lines(efficiency),
        Text(f"{load}, output {traffic.output:g} tokens; limits {of}: {', '.join(limits) or 'none'}"),
        *precision_lines(request),
        Text(f"Engine: {describe_engine(request.engine, request.plan)}"),
        Text(f"{result.evaluated} plans with settings evaluated, {result.met} within the limits"),
        Text(""),
        comparison(result, names),
        Text(runner_up_line(result, names)),
        Text(""),
        plans_table(result, names),
    )
    sys.stdout.write(f"\n{launch.rstrip()}\n")
