"""`jaxcost trace`: describe a trace of requests, recorded or synthetic, and write it."""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxcost.core.units import engineering, number
from jaxcost.edge.catalog.loaders import load_model
from jaxcost.edge.commands.request import picture_path, read_number
from jaxcost.edge.commands.trace_options import (
    add_trace_arguments as add_source_arguments,
    read_trace_options,
)
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.formats import read_bits
from jaxcost.edge.show import tables
from jaxcost.edge.traces.writer import SUFFIXES, save_trace
from jaxcost.explore.replay import STATIC_ROUTERS, TraceSummary, assign, summarize_trace
from jaxcost.physics.memory.capacity import kv_bytes_per_token
from jaxcost.spec.plan import Plan
from jaxcost.spec.trace import Trace

__all__ = ["add_trace_arguments", "trace_command"]

_ROWS = 12  # of the table of rates over time
_INTERVALS = 4 * _ROWS
_BAR = 24


def add_trace_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_source_arguments(parser)
    group = parser.add_argument_group("prefix cache")
    group.add_argument(
        "--model", metavar="NAME", help="model whose KV cache gives the size of a cache in bytes"
    )
    group.add_argument(
        "--kv-bits",
        default="16",
        metavar="N",
        help="bits of a number of the KV cache, or a format (default 16)",
    )
    group.add_argument(
        "--replicas",
        type=read_number,
        default=1.0,
        metavar="N",
        help="replicas, each with a cache (default 1)",
    )
    group.add_argument(
        "--router", default="prefix", metavar="NAME", help=f"{' or '.join(STATIC_ROUTERS)} (default prefix)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the trace: .csv, or .jsonl with block ids"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--plot", type=picture_path, metavar="FILE", help="write a plot: .svg, .png or .pdf")


def trace_command(args: argparse.Namespace) -> int:
    """Read or make the trace, and describe it."""
    if args.out is not None and args.out.suffix not in SUFFIXES:
        raise InputError(f"a name ending in {' or '.join(SUFFIXES)}", path="--out", given=str(args.out))
    kv_bytes = 0.0
    if args.model is not None:
        plan = Plan(kv_bits=read_bits(args.kv_bits, "--kv-bits"))
        kv_bytes = float(kv_bytes_per_token(load_model(args.model), plan))
    trace = read_trace_options(args)
    assignment = _assign(args, trace)
    summary = summarize_trace(trace, assignment, intervals=_INTERVALS)
    if args.out is not None:
        save_trace(trace, args.out)
    if args.plot is not None:
        from jaxcost.edge.show.trace_plot import draw_trace

        draw_trace(args.plot, _title(trace), trace, summary, kv_bytes)
    if args.json:
        document = _document(trace, summary, kv_bytes)
        sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
    else:
        _print(args, trace, summary, kv_bytes)
    return 0


def _assign(args: argparse.Namespace, trace: Trace) -> np.ndarray | None:
    if args.router not in STATIC_ROUTERS:
        raise InputError(f"one of {', '.join(STATIC_ROUTERS)}", path="--router", given=args.router)
    if args.replicas < 1 or args.replicas != int(args.replicas):
        raise InputError("a whole number of at least 1", path="--replicas", given=args.replicas)
    if args.replicas == 1:
        return None
    if not trace.block_tokens:
        raise InputError("a trace with block ids", path="--replicas", given=args.replicas)
    return assign(trace, int(args.replicas), args.router)


def _title(trace: Trace) -> str:
    return f"{trace.name}: {trace.requests:,} requests in {_duration(trace.span)}"


def _duration(seconds: float) -> str:
    size, unit = _time_unit(seconds)
    return engineering(seconds, "s") if size == 1 else f"{number(seconds / size)} {unit}"


def _time_unit(span: float) -> tuple[float, str]:
    """Return the seconds and the name of the unit in which a duration reads well."""
    return (1.0, "s") if span < 120 else (60.0, "min") if span < 7200 else (3600.0, "h")


def _document(trace: Trace, summary: TraceSummary, kv_bytes: float) -> dict[str, Any]:
    def finite(value: float) -> float | None:
        return float(value) if math.isfinite(value) else None

    return {
        "name": trace.name,
        "requests": summary.requests,
        "span_s": summary.span,
        "requests_per_second": finite(summary.rate),
        "burstiness": summary.burstiness,
        "prompt_tokens": dataclasses.asdict(summary.prompt),
        "output_tokens": dataclasses.asdict(summary.output),
        "correlation": summary.correlation,
        "sessions": summary.sessions,
        "turns": {"mean": summary.turns_mean, "max": summary.turns_max},
        "cached_share": summary.cached_share,
        "block_tokens": trace.block_tokens,
        "kv_bytes_per_token": kv_bytes or None,
        "hit_curve": [
            {
                "cache_tokens": finite(capacity),
                "cache_bytes": finite(capacity * kv_bytes) if kv_bytes else None,
                "hit_rate": float(rate),
            }
            for capacity, rate in zip(summary.capacities, summary.hit_rates, strict=True)
        ],
        "cache_tokens_for_90_percent_of_hits": finite(summary.nearly_all),
        "over_time": [
            {
                "from_s": float(start),
                "to_s": float(end),
                "requests_per_second": float(a),
                "prompt_tokens_per_second": float(p),
                "output_tokens_per_second": float(o),
            }
            for start, end, a, p, o in zip(
                summary.edges[:-1],
                summary.edges[1:],
                summary.arrival_rates,
                summary.prompt_rates,
                summary.output_rates,
                strict=True,
            )
        ],
        "notes": list(trace.notes),
    }


def _print(args: argparse.Namespace, trace: Trace, summary: TraceSummary, kv_bytes: float) -> None:
    lines = [Text(f"Note: {note}", "yellow") for note in trace.notes]
    if args.out is not None:
        lines.append(Text(f"Wrote {args.out}"))
    tables.write(
        Text(_title(trace), "bold"),
        *lines,
        Text(""),
        tables.SideBySide(_request_table(summary), _length_table(summary)),
        *([_rate_table(summary)] if math.isfinite(summary.rate) else []),
        *_cache_parts(args, trace, summary, kv_bytes),
    )


def _request_table(summary: TraceSummary) -> Table:
    rows = [("Rate", "all at once")]
    if math.isfinite(summary.rate):
        rows = [
            ("Rate", f"{number(summary.rate)}/s"),
            ("Burstiness of arrivals (Poisson 1)", number(summary.burstiness)),
            (f"Highest of {_INTERVALS} intervals", f"{number(summary.arrival_rates.max())}/s"),
        ]
    rows.append(("Correlation of prompt and output", number(summary.correlation)))
    if summary.sessions:
        rows.append(("Sessions", f"{summary.sessions:,}"))
        rows.append(("Turns of a session", f"{number(summary.turns_mean)}, at most {summary.turns_max:,}"))
    return tables.unwrapped(tables.plain_table("Requests", ("", ""), rows))


def _length_table(summary: TraceSummary) -> Table:
    names = ("mean", "p50", "p90", "p99", "max", "cv")
    rows = [
        (name, number(getattr(summary.prompt, name)), number(getattr(summary.output, name))) for name in names
    ]
    return tables.unwrapped(tables.plain_table("Tokens", ("", "Prompt", "Output"), rows))


def _rate_table(summary: TraceSummary) -> Table:
    """Show the rates in a few equal intervals, with a bar of the requests."""
    parts = min(_ROWS, len(summary.arrival_rates))
    columns = [
        x.reshape(parts, -1).mean(axis=1)
        for x in (summary.arrival_rates, summary.prompt_rates, summary.output_rates)
    ]
    edges = summary.edges[:: len(summary.arrival_rates) // parts]
    highest, (unit, name) = columns[0].max(), _time_unit(summary.span)
    rows = [
        (number(start / unit), *map(number, rates), Text("█" * round(_BAR * rates[0] / highest), "cyan"))
        for start, *rates in zip(edges[:-1], *columns, strict=True)
    ]
    head = (f"From, {name}", "Requests/s", "Prompt tokens/s", "Output tokens/s", "")
    table = tables.unwrapped(tables.plain_table("Over time", head, rows, left=0))
    table.columns[-1].justify = "left"
    return table


def _cache_parts(
    args: argparse.Namespace, trace: Trace, summary: TraceSummary, kv_bytes: float
) -> list[Table | Text]:
    shared = f"{summary.cached_share:.1%} of the prompt tokens are in the prefixes of earlier requests."
    if not trace.block_tokens:
        if not trace.cached.any():
            return [
                Text("The trace has no block ids and no cached tokens: nothing is known of shared prefixes.")
            ]
        return [Text(f"{shared} The trace has no block ids, so hits of a finite cache are unknown.")]
    replicas, each = int(args.replicas), "" if args.replicas == 1 else ", in each replica"
    rows = []
    for capacity, rate in zip(summary.capacities, summary.hit_rates, strict=True):
        tokens = f"{capacity:,.0f}" if math.isfinite(capacity) else "infinite"
        size = [engineering(capacity * kv_bytes, "B") if math.isfinite(capacity) else ""] if kv_bytes else []
        rows.append((tokens, *size, f"{rate:.1%}"))
    head = (f"Cache, tokens{each}", *(["Bytes"] if kv_bytes else []), "Hit rate")
    parts: list[Table | Text] = [
        Text(shared + (f" {replicas} replicas, router {args.router}." if replicas > 1 else "")),
        tables.unwrapped(tables.plain_table("Prefix cache, LRU by blocks", head, rows, left=0)),
    ]
    if math.isfinite(summary.nearly_all):
        size = f" ({engineering(summary.nearly_all * kv_bytes, 'B')})" if kv_bytes else ""
        nearly = (
            f"A cache of {summary.nearly_all:,.0f} tokens{size} has 90% of the hits of an infinite cache."
        )
        parts.append(Text(nearly))
    return parts
