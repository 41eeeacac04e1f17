"""The levels of a benchmark as a table, as mappings for JSON, and as CSV: closed form beside replay."""

import csv
import io
import math
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from jaxcost.core.units import engineering, number
from jaxcost.edge.show import tables
from jaxcost.explore.replay import BENCH_METRICS, Bench

__all__ = ["bench_csv", "bench_documents", "bench_table", "bench_verdict"]

LOADS = {"concurrency": "Users", "rate": "Requests/s"}
_MEAN, _SERVED = "tokens_per_second_per_chip", "requests_per_second"
# Heading, kind of prediction, metric, factor.
_COLUMNS = (
    ("TTFT, ms\nanalytic", "analytic", "mean_ttft", 1e3),
    ("\nreplay", "replayed", "mean_ttft", 1e3),
    ("\np50", "replayed", "p50_ttft", 1e3),
    ("\np99", "replayed", "p99_ttft", 1e3),
    ("TPOT, ms\nanalytic", "analytic", "mean_tpot", 1e3),
    ("\nreplay", "replayed", "mean_tpot", 1e3),
    ("\np99", "replayed", "p99_tpot", 1e3),
    ("ITL, ms\np99", "replayed", "p99_itl", 1e3),
    ("Tok/s/chip\nanalytic", "analytic", _MEAN, 1.0),
    ("\nreplay", "replayed", _MEAN, 1.0),
    ("Req/s\nreplay", "replayed", _SERVED, 1.0),
)


def _level_text(result: Bench, level: int) -> str:
    """Return a load with its unit."""
    load = float(result.loads[level])
    return f"{load:,.0f} users" if result.kind == "concurrency" else f"{number(load)} requests/s"


def bench_verdict(result: Bench, ttft: float, tpot: float) -> tuple[str, bool]:
    """Return the largest load within the targets, or the knee, in one line, and whether there is one.

    Args:
        result: the levels.
        ttft: target of the p99 of TTFT, s, 0 for none.
        tpot: target of the p99 of TPOT, s, 0 for none.
    """
    if not np.any(np.isfinite(result.replayed[_SERVED])):
        return "does not fit: no request is served at any load", False
    capacity = f"; capacity {number(result.capacity)} requests/s" if result.kind == "rate" else ""
    if ttft or tpot:
        limits = " and ".join(
            f"p99 {name} of at most {engineering(value, 's')}"
            for name, value in (("TTFT", ttft), ("TPOT", tpot))
            if value
        )
        good = np.flatnonzero(result.within(ttft=ttft or math.inf, tpot=tpot or math.inf))
        if not len(good):
            return f"no load has {limits} (replay){capacity}", False
        best = int(good[np.argmax(result.loads[good])])
        return f"{_level_text(result, best)} with {limits} (replay): {_reached(result, best)}{capacity}", True
    knee = result.knee
    if knee is None:
        return f"overloaded at every rate (replay){capacity}", False
    what = "90% of the largest throughput" if result.kind == "concurrency" else "serves 95% of the rate"
    text = f"knee (replay, {what}): {_level_text(result, knee)}, {_reached(result, knee)}"
    return text + capacity, True


def _reached(result: Bench, level: int) -> str:
    value = lambda name: float(result.replayed[name][level])  # noqa: E731
    return (
        f"{number(value(_MEAN))} output tokens/s per chip, p99 TTFT {engineering(value('p99_ttft'), 's')}, "
        f"p99 TPOT {engineering(value('p99_tpot'), 's')}"
    )


def _cell(value: float) -> str:
    return number(value) if math.isfinite(value) else "-"


def bench_table(result: Bench) -> RenderableType:
    """Return one row a level, with the notes below."""
    rows = []
    for level, load in enumerate(result.loads):
        cells = [
            _cell(float(getattr(result, kind)[name][level]) * factor) for _, kind, name, factor in _COLUMNS
        ]
        rows.append((f"{float(load):,.4g}", *cells))
    heads = [f"\n{LOADS[result.kind]}", *(head for head, *_ in _COLUMNS)]
    table = tables.unwrapped(tables.plain_table("", heads, rows, left=0))
    levels: dict[str, list[str]] = {}
    for level, notes in enumerate(result.notes):
        for note in notes:
            # Numbers of a note differ by level; the last level has the largest.
            levels.setdefault(note, []).append(f"{float(result.loads[level]):,.4g}")
    unit = "users" if result.kind == "concurrency" else "requests/s"
    lines = [Text(f"At {', '.join(at)} {unit}: {note}", "yellow") for note, at in levels.items()]
    return Group(table, *lines)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def bench_documents(result: Bench, ttft: float, tpot: float) -> dict[str, Any]:
    """Return every number of the levels for JSON; None where there is none."""
    within = result.within(ttft=ttft or math.inf, tpot=tpot or math.inf)
    kinds = {"analytic": result.analytic, "replayed": result.replayed, "ratio": result.ratio}
    levels = [
        {
            result.kind: float(load),
            **{
                kind: {name: _finite(float(values[name][level])) for name in BENCH_METRICS}
                for kind, values in kinds.items()
            },
            "within_targets": bool(within[level]) if ttft or tpot else None,
            "rejected": int(result.rejected[level]),
            "preemptions": int(result.preemptions[level]),
            "notes": list(result.notes[level]),
        }
        for level, load in enumerate(result.loads)
    ]
    return {
        "kind": result.kind,
        "requests": result.requests,
        "chips": result.chips,
        "slots": result.slots,
        "capacity": _finite(result.capacity),
        "knee": None if result.knee is None else float(result.loads[result.knee]),
        "table_error": result.table_error,
        "seconds": result.seconds,
        "levels": levels,
    }


def bench_csv(result: Bench) -> str:
    """Return one row a level with every metric of both predictions as CSV; empty where there is none."""
    out = io.StringIO()
    kinds = {"analytic": result.analytic, "replayed": result.replayed}
    heads = [f"{kind}_{name}" for kind in kinds for name in BENCH_METRICS]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([result.kind, "requests", "chips", *heads, "rejected", "preemptions", "notes"])
    for level, load in enumerate(result.loads):
        values = [_finite(float(kinds[k][name][level])) for k in kinds for name in BENCH_METRICS]
        row = [float(load), result.requests, result.chips, *("" if v is None else v for v in values)]
        totals = [int(result.rejected[level]), int(result.preemptions[level])]
        writer.writerow([*row, *totals, "; ".join(result.notes[level])])
    return out.getvalue()
