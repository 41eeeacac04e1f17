"""Plot of the Pareto front of a sweep: one panel a model and one line a system, where each has a front."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxcost.edge.jobs.sweep_rows import metric_unit
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import ParetoFront

__all__ = ["draw_front"]

# Okabe and Ito's colour-blind-safe colours; dashes distinguish the lines without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
_NAMES = {
    "tpot": "time per output token",
    "ttft": "time to first token",
    "latency": "latency of a request",
    "tokens_per_second": "output tokens a second",
    "joules_per_token": "energy of a token",
    "usd_per_mtok": "cost",
    "gco2e_per_mtok": "CO2e",
}
_SCALES = {"s": (1e3, "ms")}
_UNITS = {"USD/Mtok": "USD per million output tokens", "g/Mtok": "g CO2e per million output tokens"}


def draw_front(
    path: Path, title: str, space: Space, result: ParetoFront, objectives: tuple[str, ...], best: int | None
) -> None:
    """Draw a front in its first two objectives; a third, where there is one, as colour.

    Args:
        path: file of the plot.
        title: title of the space.
        space: the designs.
        result: the front, with at least one design.
        objectives: metrics of the front.
        best: index of the design to mark, if it is on the front.
    """
    panel = _names(space.models, result, "model")
    line = _names(space.systems, result, "system")
    panels = [name for name in (*space.models, "") if name in panel]
    flat = len(objectives) == 2
    figure = Figure(figsize=(max(4.2 * len(panels), 6.4), 4.6), layout="constrained")
    drawn = None
    for column, axes in enumerate(np.atleast_1d(figure.subplots(1, len(panels), sharey=True))):
        here = panel == panels[column]
        for number, name in enumerate((*space.systems, "")):
            rows = np.flatnonzero(here & (line == name))
            if not len(rows):
                continue
            x, y = (_scaled(result, metric)[rows] for metric in objectives[:2])
            order = np.argsort(x, kind="stable")
            if flat:
                style = {"color": _COLOURS[number % len(_COLOURS)], "ls": _DASHES[number % len(_DASHES)]}
                axes.step(x[order], y[order], where="post", lw=1.8, label=name or "front", **style)
            else:
                shade = _scaled(result, objectives[2])
                span = {"vmin": shade.min(), "vmax": shade.max()}
                marker = "osD^vP*X"[number % 8]
                drawn = axes.scatter(
                    x, y, c=shade[rows], s=26, cmap="cividis", marker=marker, label=name, **span
                )
            marked = rows[result.index[rows] == best] if best is not None else []
            if len(marked):
                star = [_scaled(result, metric)[marked[0]] for metric in objectives[:2]]
                axes.plot(*star, "k*", ms=13, label="best", zorder=5)
        _dress(axes, objectives, panels[column], first=column == 0)
    if drawn is not None:
        figure.colorbar(drawn, ax=figure.axes, label=_label(objectives[2]), pad=0.01)
    handles = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    handles.pop("", None)
    if len(handles) > 1:
        figure.legend(handles.values(), handles.keys(), frameon=False, fontsize=9, loc="outside right upper")
    within = f"within {result.epsilon:.2g}" if result.epsilon else "exact"
    figure.suptitle(f"{title}\nPareto front of {space.size:,} designs, {within}", fontsize=11)
    figure.savefig(path, dpi=160)


def _names(names: tuple[str, ...], result: ParetoFront, axis: str) -> np.ndarray:
    """Return the name of each design's group on an axis, "" where the front has no groups on it."""
    if axis not in result.by:
        return np.full(len(result.index), "", dtype=object)
    return np.asarray(names, dtype=object)[result.groups[:, result.by.index(axis)]]


def _scaled(result: ParetoFront, metric: str) -> np.ndarray:
    factor = _SCALES.get(metric_unit(metric), (1.0, ""))[0]
    return result.values[:, result.metrics.index(metric)] * factor


def _label(metric: str) -> str:
    unit = metric_unit(metric)
    unit = _SCALES.get(unit, (1.0, _UNITS.get(unit, unit)))[1]
    return f"{_NAMES.get(metric, metric)} ({unit})" if unit != "1" else _NAMES.get(metric, metric)


def _dress(axes: Any, objectives: tuple[str, ...], title: str, *, first: bool) -> None:
    axes.set(xlabel=_label(objectives[0]), title=title)
    if first:
        axes.set_ylabel(_label(objectives[1]))
    axes.grid(True, which="both", color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(which="both", labelsize=9)
    for name, direction in (("x", axes.xaxis), ("y", axes.yaxis)):
        low = min(line.get_data()[name == "y"].min() for line in axes.lines) if axes.lines else 0
        if axes.lines and low > 0:
            getattr(axes, f"set_{name}scale")("log")
            direction.set_major_locator(LogLocator(subs=(1, 2, 5)))
            direction.set_minor_formatter(NullFormatter())
        direction.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
