"""Plot of a replay: requests and KV cache over time, and the distributions of TTFT and TPOT."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxcost.core.units import engineering, number
from jaxcost.edge.show.plots import STYLE, save_figure
from jaxcost.explore.replay import Replay

__all__ = ["draw_replay"]

_RUNNING, _WAITING, _CACHE, _TARGET = "#0072B2", "#D55E00", "#009E73", "#000000"
_UNITS = ((7200.0, 3600.0, "h"), (300.0, 60.0, "min"), (0.0, 1.0, "s"))  # from, size, name
_BINS, _MOST_POINTS = 200, 1000
_LOG_FROM = (
    30.0  # ratio of the longest time to the median, or to the target, from which an axis is logarithmic
)


def draw_replay(
    path: Path, title: str, result: Replay, targets: Mapping[str, float], replicas: int = 1
) -> None:
    """Draw a replay of one design and save the plot.

    Args:
        path: the file.
        title: of the plot; what follows a colon is on a second line.
        result: the replay.
        targets: limits of "ttft" and "tpot", s; 0 for none.
        replicas: replicas that share the requests that run.
    """
    with mpl.rc_context({**STYLE, "font.size": 11}):
        figure = Figure(figsize=(7.2, 8.4), layout="constrained")
        panels = figure.subplot_mosaic("aa;bb;cd", height_ratios=(1, 0.8, 1.15))
        _draw_requests(panels["a"], result)
        _draw_cache(panels["b"], result, replicas)
        panels["a"].sharex(panels["b"])
        panels["a"].tick_params(labelbottom=False)
        _draw_distribution(panels["c"], "TTFT", result.ttft, targets.get("ttft", 0.0), _RUNNING)
        _draw_distribution(panels["d"], "TPOT", result.tpot, targets.get("tpot", 0.0), _RUNNING)
        panels["c"].set_ylabel("requests (%)")
        head, _, detail = title.partition(": ")
        figure.suptitle(f"{head}\n{detail}", x=0.01, ha="left", fontweight="bold", fontsize=12)
        save_figure(figure, path)


def _time_unit(result: Replay) -> tuple[float, str]:
    """Return the seconds and the name of the unit in which the duration reads well."""
    end = float(result.duration)
    return next((size, name) for start, size, name in _UNITS if end >= start)


def _draw_requests(axes: Any, result: Replay) -> None:
    """Draw the requests that are admitted and not finished, preempted ones included, and those not yet admitted."""
    size, _ = _time_unit(result)
    edges = np.linspace(0, float(result.duration), _BINS + 1)
    served = ~result.rejected
    arrival, admitted, finish = (x[served] for x in (result.arrival, result.admitted, result.finish))
    running, waiting = _mean_number(edges, admitted, finish), _mean_number(edges, arrival, admitted)
    axes.stairs(running, edges / size, color=_RUNNING, lw=1.2, fill=True, alpha=0.3)
    axes.stairs(running, edges / size, color=_RUNNING, lw=1.6, label="in service")
    axes.stairs(waiting, edges / size, color=_WAITING, lw=1.8, ls=(0, (4, 1.5)), label="waiting")
    axes.set(ylabel="requests", xlim=(0, edges[-1] / size))
    axes.set_ylim(0, 1.2 * max(float(running.max()), float(waiting.max()), 1))
    axes.legend(frameon=False, ncols=2, loc="upper right", borderaxespad=0)
    axes.set_title("Requests", loc="left", fontsize=11)
    _finish(axes)


def _mean_number(edges: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the mean number in each interval of requests between their start and their end."""
    before = [np.array([np.maximum(edge - t, 0).sum() for edge in edges]) for t in (start, end)]
    return np.maximum(np.diff(before[0] - before[1]) / np.diff(edges), 0)


def _draw_cache(axes: Any, result: Replay, replicas: int) -> None:
    size, unit = _time_unit(result)
    pool, end = max(float(result.pool_tokens) * replicas, 1.0), float(result.duration)
    edges, share = result.timeline.edges, 100 * result.timeline.kv_tokens / pool
    axes.stairs(share, edges / size, color=_CACHE, lw=1.2, fill=True, alpha=0.35)
    axes.stairs(share, edges / size, color=_CACHE, lw=1.6)
    highest = float(share.max())
    axes.set(xlabel=f"time ({unit})", ylabel="in use (%)", xlim=(0, end / size))
    axes.set_ylim(0, 105 if highest > 40 else max(1.3 * highest, 1))
    axes.set_title(f"KV cache of {pool:,.0f} tokens: highest {number(highest, 2)}%", loc="left", fontsize=11)
    _finish(axes)


def _draw_distribution(axes: Any, name: str, values: np.ndarray, target: float, colour: str) -> None:
    """Draw the share of requests within a time, with the p99 and the target."""
    values = np.sort(values[np.isfinite(values)])
    if not len(values):
        axes.text(0.5, 0.5, f"no {name}", ha="center", transform=axes.transAxes)
        axes.axis("off")
        return
    p99 = float(np.percentile(values, 99))
    highest = max(float(values[-1]), target)
    scale, unit = (1e3, "ms") if max(p99, target) < 1 else (1.0, "s")
    share = 100 * np.arange(1, len(values) + 1) / len(values)
    drawn = np.unique(np.linspace(0, len(values) - 1, _MOST_POINTS).astype(int))
    axes.step(scale * values[drawn], share[drawn], where="post", color=colour, lw=2)
    axes.plot(
        [scale * p99], [99], "o", color=_WAITING, ms=8, mec="white", zorder=4, label=f"p99 {_time(p99)}"
    )
    if target > 0:
        axes.axvline(scale * target, color=_TARGET, lw=1.4, ls=(0, (2, 2)), label=f"target {_time(target)}")
    middle = min(float(np.median(values)), target or math.inf)
    if values[0] > 0 and highest / middle > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, numticks=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, 1.06 * scale * highest)
    axes.set(xlabel=f"{name} ({unit})", ylim=(0, 104))
    within = float(np.mean(values <= target)) if target > 0 else None
    share_text = "" if within is None else f": {within:.1%} within"
    axes.set_title(f"{name}{share_text}", loc="left", fontsize=11)
    low, high = axes.get_xlim()
    middle = math.sqrt(max(low, 0) * high) if axes.get_xscale() == "log" else (low + high) / 2
    is_late = np.mean(scale * values <= middle) < 0.5  # the curve rises in the right half of the plot
    axes.legend(
        loc="upper left" if is_late else "lower right",
        fontsize=10,
        handlelength=1.4,
        framealpha=0.85,
        edgecolor="none",
        borderaxespad=0.2,
    )
    _finish(axes)


def _time(seconds: float) -> str:
    return engineering(seconds, "s")


def _finish(axes: Any) -> None:
    axes.grid(True, color="0.9", lw=0.6)
    axes.set_axisbelow(True)
