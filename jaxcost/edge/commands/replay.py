"""`jaxcost replay`: serve a trace request by request, and report the percentiles that its users see."""

import argparse
import contextlib
import datetime
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.text import Text

from jaxcost.core.units import engineering, number
from jaxcost.edge.commands.efficiency_text import efficiency_document, efficiency_lines
from jaxcost.edge.commands.engine_options import describe_engine, engine_document
from jaxcost.edge.commands.fit_option import add_require_fit_argument, fit_status
from jaxcost.edge.commands.precision_text import precision_document, precision_lines
from jaxcost.edge.commands.prefill_options import read_prefill_pool
from jaxcost.edge.commands.replay_options import (
    Load,
    add_replay_options,
    read_load,
    read_prefix_cache,
    read_replayed_request,
)
from jaxcost.edge.commands.request import (
    Request,
    add_request_arguments,
    add_system_argument,
    degrees,
    describe_request,
    picture_path,
    read_system,
)
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.launch import repository_of
from jaxcost.edge.show import tables
from jaxcost.edge.show.replay_tables import (
    compared_table,
    cost_table,
    is_overloaded,
    judge_replay,
    latency_table,
    note_lines,
    replay_notes,
    replay_values,
    served_table,
)
from jaxcost.edge.show.verdict import Verdict
from jaxcost.edge.traces.bench_results import (
    RESULT_SUFFIXES,
    bench_summary,
    compare_results,
    save_replay,
)
from jaxcost.explore.replay import Replay, replay
from jaxcost.spec.trace import Trace

__all__ = ["add_replay_arguments", "replay_command"]

_ENGINE = "vllm"


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_request_arguments(parser, engine=_ENGINE)
    parser.set_defaults(prompt=None, output=None)
    add_system_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the requests and the summary: .parquet, or .json as vllm bench serve does",
    )
    parser.add_argument("--plot", type=picture_path, metavar="FILE", help="write a plot: .svg, .png or .pdf")
    add_require_fit_argument(
        parser, "requests are rejected or a p99 exceeds its target; the output is the same"
    )
    add_replay_options(parser)


def replay_command(args: argparse.Namespace) -> int:
    """Replay the trace and print what its requests see."""
    if args.out is not None and args.out.suffix not in RESULT_SUFFIXES:
        raise InputError(
            f"a name ending in {' or '.join(RESULT_SUFFIXES)}", path="--out", given=str(args.out)
        )
    load = read_load(args)
    request = read_replayed_request(args, load.trace)
    system, request, efficiency = read_system(args.system, args.efficiency, request)
    pool = read_prefill_pool(args, request)
    computes = (system, request.plan) if pool is None else pool
    cache, cache_words, left = read_prefix_cache(args, load.trace, computes[0], request.model, computes[1])
    system, pool = (left, pool) if pool is None else (system, (left, pool[1]))
    with _status(f"replaying {load.trace.requests:,} requests on {args.system}"):
        try:
            result = replay(
                system,
                request.model,
                load.trace,
                request.plan,
                prefill=None if pool is None else (*pool, int(args.prefill_replicas or 1)),
                replicas=int(args.replicas),
                router=args.router,
                prefix_cache=cache,
                concurrency=load.concurrency,
                seed=load.seed,
                prices=request.prices,
            )
        except ValueError as error:
            raise InputError(f"options that can be replayed ({error})") from None
    targets = {name: float(getattr(request.traffic, f"{name}_target")) for name in ("ttft", "tpot")}
    limits = {f"{name}_target": value for name, value in targets.items()}
    overloaded = is_overloaded(result, concurrency=load.concurrency)
    values = replay_values(result, **limits)
    verdict = judge_replay(values, targets, overloaded=overloaded)
    notes = [*load.trace.notes, *load.notes, *replay_notes(result, values, overloaded=overloaded)]
    summary = bench_summary(result, **limits)
    compared = {} if load.measured is None else compare_results(load.measured, summary)
    if args.out is not None:
        save_replay(args.out, result, summary, _about(request, load))
    if args.plot is not None and not result.completed:
        notes.append("No plot is written, as no request is served.")
    elif args.plot is not None:
        from jaxcost.edge.show.replay_plot import draw_replay

        draw_replay(args.plot, _title(args, request, load.trace), result, targets, int(args.replicas))
    if args.json:
        document = {
            "model": request.name,
            "system": args.system,
            "prefill_system": args.prefill_system,
            **precision_document(request),
            **engine_document(request.engine, request.plan),
            **efficiency_document(efficiency),
            "trace": _trace_document(load),
            "replicas": int(args.replicas),
            "prefill_replicas": int(args.prefill_replicas or (pool is not None)),
            "router": args.router,
            "prefix_cache": cache_words,
            "targets": targets,
            "verdict": verdict.text,
            "binding": verdict.binding,
            "feasible": not verdict.exceeded,
            "exceeded": list(verdict.exceeded),
            "overloaded": overloaded,
            "notes": notes,
            "results": {name: {"value": value, "unit": unit} for name, (unit, value) in values.items()},
            "table_error": result.table_error,
            "replay_seconds": result.seconds,
            "compared": {key: {"measured": m, "replayed": r} for key, (m, r) in compared.items()},
        }
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        _print(args, request, load, result, values, verdict, notes, efficiency, compared, cache_words)
    return fit_status(args, exceeded=bool(verdict.exceeded))


@contextlib.contextmanager
def _status(text: str) -> Iterator[None]:
    """Show what is done, where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def _rate(trace: Trace) -> float | str:
    return trace.rate if math.isfinite(trace.rate) else "inf"


def _about(request: Request, load: Load) -> dict[str, Any]:
    """Return what describes the run in a result of `vllm bench serve`."""
    name = repository_of(request.name)
    return {
        "date": datetime.datetime.now().strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": request.engine.name,
        "backend": request.engine.name,
        "label": "jaxcost replay",
        "model_id": name,
        "tokenizer_id": name,
        "num_prompts": load.trace.requests,
        "request_rate": _rate(load.trace),
        "max_concurrency": load.concurrency or None,
    }


def _trace_document(load: Load) -> dict[str, Any]:
    trace = load.trace
    return {
        "name": trace.name,
        "requests": trace.requests,
        "span_s": trace.span,
        "requests_per_second": trace.rate if math.isfinite(trace.rate) else None,
        "burstiness": trace.burstiness,
        "prompt_tokens_mean": float(trace.prompt.mean()),
        "output_tokens_mean": float(trace.output.mean()),
        "concurrency": load.concurrency or None,
        "seed": load.seed,
    }


def _title(args: argparse.Namespace, request: Request, trace: Trace) -> str:
    return f"{request.name} on {args.system}: {_describe_trace(trace)}"


def _describe_trace(trace: Trace) -> str:
    rate = f"{number(trace.rate)}/s" if math.isfinite(trace.rate) else "all at once"
    return f"{trace.name}, {trace.requests:,} requests, {rate}"


def _print(
    args: argparse.Namespace,
    request: Request,
    load: Load,
    result: Replay,
    values: dict[str, Any],
    verdict: Verdict,
    notes: list[str],
    efficiency: list[str],
    compared: dict[str, tuple[float, float]],
    cache: str,
) -> None:
    trace = load.trace
    lengths = f"mean prompt {number(trace.prompt.mean())}, output {number(trace.output.mean())} tokens"
    loop = f", at most {load.concurrency} at a time" if load.concurrency else ""
    replicas = int(args.replicas)
    sharding = describe_request(request).split("; ", 1)[1]
    deployment = f"{replicas} {'replica' if replicas == 1 else 'replicas'}: {sharding}"
    if replicas > 1:
        deployment += f"; router {args.router}"
    if args.prefill_system is not None:
        prefill = int(args.prefill_replicas or 1)
        names = {d: getattr(args, f"prefill_{d}") or 1.0 for d in ("tp", "pp", "ep", "dp", "cp")}
        deployment += f"; prefill: {prefill} of {args.prefill_system}, {degrees(argparse.Namespace(**names))}"  # type: ignore[arg-type]
    good = not verdict.exceeded and not verdict.text.startswith("Overloaded")
    steps = f"{number(values['steps'][1])} steps, whose table has an error of {result.table_error:.1%} (rms)"
    tables.write(
        Text(f"{request.name} on {args.system}", "bold"),
        Text(verdict.text, "green" if good else "red bold"),
        *note_lines(notes),
        *efficiency_lines(efficiency),
        Text(f"Load: {_describe_trace(trace)}{loop}; {lengths}"),
        Text(f"Deployment: {deployment}"),
        *precision_lines(request),
        Text(f"Engine: {describe_engine(request.engine, request.plan)}"),
        *(
            [Text(f"Prefix cache of a replica: {cache}; in addition to the engine's pages")]
            if cache != "none"
            else []
        ),
        Text(f"Replay: {steps}; it took {engineering(result.seconds, 's')}"),
        Text(""),
        *([latency_table(values)] if result.completed > 0 else []),
        tables.SideBySide(served_table(values, has_cache=cache != "none"), cost_table(values)),
        *([compared_table(compared, args.compare.name)] if compared else []),
    )
