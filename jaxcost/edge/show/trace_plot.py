"""Plot of a trace: arrivals over time, lengths, and the hit rate of a prefix cache against its size."""

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxcost.core.units import engineering, number
from jaxcost.edge.show.plots import STYLE, save_figure
from jaxcost.explore.replay import TraceSummary
from jaxcost.spec.trace import Trace

__all__ = ["draw_trace"]

_PROMPT, _OUTPUT, _ARRIVALS = "#0072B2", "#D55E00", "#009E73"
_HOUR, _LONG = 3600.0, 2 * 3600.0
_MOST_POINTS = 20_000


def draw_trace(path: Path, title: str, trace: Trace, summary: TraceSummary, kv_bytes: float = 0.0) -> None:
    """Draw a trace and save the plot; `kv_bytes` of one token add an axis of bytes to the hit rate."""
    curve = len(summary.capacities) > 1
    shared = (
        "" if curve else f"; an infinite prefix cache holds {summary.cached_share:.1%} of the prompt tokens"
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 7), layout="constrained")
        panels = figure.subplot_mosaic("ab;cd" if curve else "ab;cc")
        if math.isfinite(summary.rate):
            _draw_rates(panels["a"], summary)
        else:
            panels["a"].text(0.5, 0.5, "All requests arrive at once.", ha="center")
            panels["a"].axis("off")
        _draw_lengths(panels["b"], trace)
        _draw_pairs(panels["c"], trace)
        if curve:
            _draw_hits(panels["d"], summary, kv_bytes)
        figure.suptitle(
            f"{title}{shared if summary.cached_share else ''}",
            x=0.01,
            ha="left",
            fontweight="bold",
            fontsize=12,
        )
        save_figure(figure, path)


def _draw_rates(axes: Any, summary: TraceSummary) -> None:
    unit, name = (_HOUR, "h") if summary.span > _LONG else (1.0, "s")
    axes.stairs(summary.arrival_rates, summary.edges / unit, color=_ARRIVALS, lw=1.6, fill=True, alpha=0.35)
    axes.stairs(summary.arrival_rates, summary.edges / unit, color=_ARRIVALS, lw=1.6)
    axes.axhline(summary.rate, color="0.3", lw=1, ls="--", label=f"mean {number(summary.rate)}/s")
    axes.legend(frameon=False, fontsize=9)
    axes.set(xlabel=f"time ({name})", ylabel="requests/s", xlim=(0, summary.edges[-1] / unit))
    axes.set_ylim(bottom=0, top=1.25 * summary.arrival_rates.max())
    axes.set_title(f"Arrivals, burstiness {number(summary.burstiness)}", loc="left", fontsize=10)


def _draw_lengths(axes: Any, trace: Trace) -> None:
    share = np.arange(1, trace.requests + 1) / trace.requests
    for name, tokens, colour, dash in (
        ("prompt", trace.prompt, _PROMPT, "-"),
        ("output", trace.output, _OUTPUT, "--"),
    ):
        axes.step(np.sort(tokens), share, where="post", color=colour, ls=dash, lw=1.8, label=name)
    axes.set(xscale="log", xlabel="tokens", ylabel="share of requests", ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    axes.set_title("Lengths", loc="left", fontsize=10)
    _finish(axes)


def _draw_pairs(axes: Any, trace: Trace) -> None:
    step = -(-trace.requests // _MOST_POINTS)
    axes.plot(
        trace.prompt[::step],
        trace.output[::step],
        "o",
        ms=3,
        mew=0,
        alpha=float(np.clip(300 / trace.requests, 0.08, 0.6)),
        color=_PROMPT,
        rasterized=True,
    )
    axes.set(xscale="log", yscale="log", xlabel="prompt tokens", ylabel="output tokens")
    axes.set_title("Each request", loc="left", fontsize=10)
    _finish(axes)


def _draw_hits(axes: Any, summary: TraceSummary, kv_bytes: float) -> None:
    tokens, rates = summary.capacities[:-1], 100 * summary.hit_rates[:-1]
    axes.plot(tokens, rates, "o-", color=_PROMPT, lw=1.8, ms=4)
    best = 100 * summary.hit_rates[-1]
    axes.axhline(best, color="0.3", lw=1, ls="--")
    axes.annotate(
        f"infinite: {best:.1f}%", (tokens[0], best), xytext=(0, 4), textcoords="offset points", fontsize=9
    )
    axes.set_xscale("log")
    axes.set(xlabel="prefix cache (tokens)", ylabel="prompt tokens found (%)", ylim=(0, max(1.2 * best, 1)))
    axes.set_title("Hit rate against the size of the cache", loc="left", fontsize=10)
    _finish(axes)
    if kv_bytes > 0:
        above = axes.secondary_xaxis("top", functions=(lambda x: x * kv_bytes, lambda x: x / kv_bytes))
        above.xaxis.set_major_formatter(FuncFormatter(lambda value, _: engineering(value, "B")))
        above.tick_params(labelsize=8)
        axes.set_title("Hit rate against the size of the cache", loc="left", fontsize=10, pad=22)


def _finish(axes: Any) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            low, high = axis.get_view_interval()
            if high / low < 30:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_minor_formatter(NullFormatter())
    axes.grid(True, color="0.9", lw=0.6)
    axes.set_axisbelow(True)
