"""Plot of a benchmark: throughput per chip, TTFT and TPOT against load; closed forms as lines, replay as marks."""

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxcost.edge.show.plots import STYLE, save_figure
from jaxcost.explore.replay import Bench

__all__ = ["draw_bench"]

_FONT = 10.0
# Colours of Okabe and Ito; marks distinguish the statistics in grey.
_STATISTICS = {"mean": ("#0072B2", "o"), "p50": ("#009E73", "s"), "p99": ("#D55E00", "^")}
_SIZES = {"mean": 8.5, "p50": 4.5, "p99": 6.0}  # the mean is hollow, so that the others show inside it
_LOADS = {"concurrency": "Concurrent users", "rate": "Requests per second"}
_PANELS = (("ttft", "TTFT, ms"), ("tpot", "TPOT, ms"))
_LEGEND: Any = {"columnspacing": 1.0, "handletextpad": 0.4, "handlelength": 1.6}
_LOG_RANGE = 6  # ratio of the ends of an axis from which it is logarithmic


def draw_bench(path: Path, title: str, subtitle: str, result: Bench, targets: dict[str, float]) -> None:
    """Draw three panels below each other, narrow enough for a phone.

    Args:
        path: file of the plot.
        title: title of the plot.
        subtitle: lengths of the requests.
        result: the levels.
        targets: "ttft" and "tpot", s, drawn as dotted lines; 0 for none.
    """
    order = np.argsort(result.loads, kind="stable")
    loads = result.loads[order]
    with mpl.rc_context(STYLE | {"font.size": _FONT}):
        figure, axes = plt.subplots(3, figsize=(4.6, 7.6), sharex=True, layout="constrained")
        name = "tokens_per_second_per_chip"
        axes[0].plot(loads, result.analytic[name][order], color=_STATISTICS["mean"][0], lw=1.8)
        axes[0].plot(loads, result.replayed[name][order], ls="", **_style("mean"))
        axes[0].set_title("Output tokens per second and chip", loc="left", fontsize=_FONT)
        _scale(axes[0], [result.analytic[name], result.replayed[name]])
        for panel, (metric, label) in zip(axes[1:], _PANELS, strict=True):
            drawn = []
            for statistic, (colour, _) in _STATISTICS.items():
                predicted = 1e3 * result.analytic[f"{statistic}_{metric}"][order]
                replayed = 1e3 * result.replayed[f"{statistic}_{metric}"][order]
                panel.plot(loads, predicted, color=colour, lw=1.8)
                panel.plot(loads, replayed, ls="", **_style(statistic))
                drawn += [predicted, replayed]
            if targets[metric] > 0:
                panel.axhline(1e3 * targets[metric], color="0.3", lw=1, ls=":")
                drawn.append(np.asarray([1e3 * targets[metric]]))
            panel.set_title(label, loc="left", fontsize=_FONT)
            _scale(panel, drawn)
        if result.kind == "rate":
            for panel in axes:
                if np.isfinite(result.capacity) and 0 < result.capacity < 1.2 * loads.max():
                    panel.axvline(result.capacity, color="0.5", lw=1, ls="--")
        elif loads.max() > _LOG_RANGE * loads.min():
            axes[-1].set_xscale("log", base=2)
            axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
            axes[-1].xaxis.set_minor_formatter(NullFormatter())
        axes[-1].set_xlabel(_LOADS[result.kind])
        figure.suptitle(f"{title}\n", x=0.02, ha="left", fontweight="bold", fontsize=12)
        figure.text(0.02, 0.967, subtitle, ha="left", va="top", fontsize=_FONT)
        figure.legend(
            handles=_key(result, targets), loc="outside lower center", ncols=3, frameon=False, **_LEGEND
        )
        save_figure(figure, path)


def _style(statistic: str) -> dict[str, Any]:
    colour, mark = _STATISTICS[statistic]
    fill = "none" if statistic == "mean" else colour
    return {"color": colour, "marker": mark, "ms": _SIZES[statistic], "mfc": fill, "mew": 1.5}


def _key(result: Bench, targets: dict[str, float]) -> list[Any]:
    handles = [
        Line2D([], [], ls="", label=f"replay, {statistic}", **_style(statistic)) for statistic in _STATISTICS
    ]
    handles.append(Line2D([], [], color=_STATISTICS["mean"][0], lw=1.8, label="closed form, mean"))
    if result.kind == "rate":
        handles.append(Line2D([], [], color="0.5", lw=1, ls="--", label="capacity"))
    if any(targets.values()):
        handles.append(Line2D([], [], color="0.3", lw=1, ls=":", label="target"))
    return handles


def _scale(axes: Axes, series: list[np.ndarray]) -> None:
    axes.grid(visible=True, which="major", color="0.9", lw=0.6)
    axes.set_axisbelow(True)
    values = np.concatenate([np.ravel(x) for x in series])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return
    if values.max() > _LOG_RANGE * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, 1.08 * values.max())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
