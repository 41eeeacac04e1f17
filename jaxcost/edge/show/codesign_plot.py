"""Figures of co-design: fronts, the best designs along a parameter with their limits, break-evens, elasticities."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxcost.edge.show.plots import STYLE, save_figure
from jaxcost.edge.show.study_words import (
    DisplayedObjective,
    customary_unit,
    format_amount,
    label,
    parameter_label,
)
from jaxcost.explore.codesign import Along, BreakEven, Codesign, Elasticities, Front

__all__ = ["draw_along", "draw_break_even", "draw_elasticities", "draw_front"]

# Okabe and Ito's colours, which colour-blind readers can distinguish; marks and hatches serve print in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKS = "osD^vP*X"
_HATCHES = ("", "//", "..", "\\\\", "xx", "--", "++", "oo")
_OPTION = "--out"
_NEGLIGIBLE = 5e-3  # elasticity below which a limit is not drawn
_LINEAR_DECADES, _FEW_DECADES = 0.5, 3.0  # ranges up to which an axis is linear, and has ticks at 1, 2 and 5


def draw_front(path: Path, title: str, front: Front) -> None:
    """Draw a front in its first two metrics, with a mark for each choice; a third metric is colour."""
    metrics, units = list(front.metrics), list(front.units)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.subplots()
        x, y = (_column(front, k) for k in (1, 0))
        kinds = [_choice_names(point.choices, [p.choices for p in front.points]) for point in front.points]
        third = _column(front, 2) if len(front.metrics) > 2 else None
        scales = [customary_unit(float(np.median(c)), u) for c, u in zip((x, y), units[1::-1], strict=True)]
        drawn = None
        if third is None:
            order = np.argsort(x)
            axes.plot(x[order] / scales[0][0], y[order] / scales[1][0], color="0.7", lw=1.2, zorder=1)
        for number, kind in enumerate(dict.fromkeys(kinds)):
            rows = np.flatnonzero(np.equal(kinds, kind))
            style: dict[str, Any] = {
                "marker": _MARKS[number % 8],
                "s": 44,
                "label": kind or None,
                "zorder": 3,
            }
            if third is None:
                axes.scatter(
                    x[rows] / scales[0][0], y[rows] / scales[1][0], color=_COLOURS[number % 8], **style
                )
            else:
                span = {"vmin": third.min(), "vmax": third.max(), "cmap": "cividis"}
                drawn = axes.scatter(
                    x[rows] / scales[0][0], y[rows] / scales[1][0], c=third[rows], **span, **style
                )
        if drawn is not None:
            bar = figure.colorbar(
                drawn, ax=axes, format=FuncFormatter(lambda v, _: format_amount(v, units[2]))
            )
            bar.set_label(label(metrics[2]))
        axes.set_xlabel(_axis(metrics[1], scales[0][1]))
        axes.set_ylabel(_axis(metrics[0], scales[1][1]))
        _set_scale(axes.xaxis, axes.set_xscale, x / scales[0][0])
        _set_scale(axes.yaxis, axes.set_yscale, y / scales[1][0])
        _finish(figure, axes, f"{title}\nPareto front")
        if any(kinds):
            axes.legend(frameon=False, fontsize=9)
        save_figure(figure, path, _OPTION)


def _column(front: Front, metric: int) -> np.ndarray:
    return np.asarray([point.values[front.metrics[metric]] for point in front.points])


def _choice_names(choices: dict[str, Any], alternatives: list[dict[str, Any]]) -> str:
    several = [path for path in choices if len({str(c[path]) for c in alternatives}) > 1]
    return ", ".join(str(choices[path]) for path in several)


def draw_along(path: Path, title: str, result: Codesign, along: Along) -> None:
    """Draw the best objective along a parameter, and below it the multipliers of the limits."""
    objective = DisplayedObjective(result.objective)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 6.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
        step, unit = customary_unit(float(np.median(along.values)), along.unit)
        x = along.values / step
        values = _metric_values(objective, along.objective)
        relaxed = _metric_values(objective, along.relaxed)
        relaxed = np.where(np.isfinite(values), relaxed, np.nan)
        upper.plot(x, relaxed, color="0.6", lw=1.2, ls="--", label="before rounding", zorder=1)
        kinds = [_choice_names(choice, list(along.choices)) for choice in along.choices]
        upper.plot(x, values, color=_COLOURS[0], lw=1.6, zorder=2)
        for number, kind in enumerate(dict.fromkeys(kinds)):
            rows = np.flatnonzero(np.equal(kinds, kind))
            style: Any = {"ls": "", "marker": _MARKS[number % 8], "color": _COLOURS[number % 8]}
            upper.plot(x[rows], values[rows], label=kind or "design", zorder=3, **style)
        upper.set_ylabel(_axis(objective.metric, objective.unit) if objective.metric else objective.name)
        _set_scale(upper.yaxis, upper.set_yscale, values[np.isfinite(values)])
        _shade_infeasible(upper, x, values)
        upper.legend(frameon=False, fontsize=9)
        _draw_multipliers(lower, x, along, np.isfinite(values), objective)
        lower.set_xlabel(_axis(along.path, unit, parameter_label))
        _set_scale(lower.xaxis, lower.set_xscale, x)
        for axes in (upper, lower):
            _grid(axes)
        figure.suptitle(f"{title}\nthe best design at each {parameter_label(along.path)}", fontsize=11)
        save_figure(figure, path, _OPTION)


def _metric_values(objective: DisplayedObjective, curve: np.ndarray) -> np.ndarray:
    return np.asarray([objective.metric_value(v) if np.isfinite(v) else np.nan for v in curve])


def _shade_infeasible(axes: Any, x: np.ndarray, values: np.ndarray) -> None:
    """Shade the values at which no design satisfies all limits."""
    edges = _edges(x)
    text = "infeasible"
    for i in np.flatnonzero(~np.isfinite(values)):
        axes.axvspan(edges[i], edges[i + 1], color="0.92", lw=0, label=text, zorder=0)
        text = "_nolegend_"


def _edges(x: np.ndarray) -> np.ndarray:
    if len(x) < 2:
        return np.asarray([x[0] / 1.1, x[0] * 1.1])
    inner = np.sqrt(x[1:] * x[:-1])
    return np.concatenate([[x[0] ** 2 / inner[0]], inner, [x[-1] ** 2 / inner[-1]]])


def _draw_multipliers(
    axes: Any, x: np.ndarray, along: Along, feasible: np.ndarray, objective: DisplayedObjective
) -> None:
    """Stack the multipliers of the limits, a bar at each value."""
    shown = {
        name: np.where(feasible, multipliers, 0)
        for name, multipliers in along.multipliers.items()
        if np.where(feasible, multipliers, 0).max() >= _NEGLIGIBLE
    }
    edges, base = _edges(x), np.zeros(len(x))
    for number, (name, multipliers) in enumerate(sorted(shown.items(), key=lambda item: -item[1].sum())):
        axes.bar(
            edges[:-1],
            multipliers,
            width=np.diff(edges),
            bottom=base,
            align="edge",
            color=_COLOURS[number % 8],
            hatch=_HATCHES[number % 8],
            edgecolor="white",
            linewidth=0.8,
            label=label(name),
        )
        base = base + multipliers
    axes.set_ylim(0, max(base.max() * 1.08, 0.1))
    axes.set_ylabel(f"% by which relaxing a limit by 1%\n{objective.verb} {objective.name}")
    if shown:
        # Above the bars, which may fill the axes.
        axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
    else:
        axes.text(0.5, 0.5, "no active limit", transform=axes.transAxes, ha="center", color="0.4")


def draw_break_even(path: Path, title: str, result: Codesign, even: BreakEven) -> None:
    """Draw the best objective with each of two choices along a parameter, and mark where the curves cross."""
    objective = DisplayedObjective(result.objective)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.subplots()
        step, unit = customary_unit(float(np.median(even.values)), even.unit)
        x, drawn = even.values / step, []
        for number, (name, curve) in enumerate(zip(even.names, (even.first, even.second), strict=True)):
            values = _metric_values(objective, curve)
            style: Any = {
                "color": _COLOURS[number],
                "ls": ("-", "--")[number],
                "marker": _MARKS[number],
                "ms": 4,
            }
            axes.plot(x, values, label=name if np.isfinite(values).any() else f"{name}: infeasible", **style)
            drawn.append(values)
        if np.isfinite(even.value):
            at = (even.value / step, objective.metric_value(even.objective))
            axes.axvline(at[0], color="0.6", lw=0.8, ls=":")
            axes.plot(*at, "k*", ms=13, zorder=5, label=f"equal at {format_amount(even.value, even.unit)}")
        axes.set_xlabel(_axis(even.path, unit, parameter_label))
        axes.set_ylabel(_axis(objective.metric, objective.unit) if objective.metric else objective.name)
        all_values = np.concatenate(drawn)
        _set_scale(axes.xaxis, axes.set_xscale, x)
        _set_scale(axes.yaxis, axes.set_yscale, all_values[np.isfinite(all_values)])
        _finish(figure, axes, f"{title}\nbest design with each choice, by {parameter_label(even.path)}")
        axes.legend(frameon=False, fontsize=9)
        save_figure(figure, path, _OPTION)


def draw_elasticities(path: Path, title: str, elasticities: Elasticities) -> None:
    """Draw d ln metric / d ln knob as a heat map with numbers in its cells."""
    table = elasticities.table.T
    with mpl.rc_context(STYLE | {"axes.spines.left": False, "axes.spines.bottom": False}):
        rows, columns = table.shape
        figure = Figure(figsize=(3.2 + 1.0 * columns, 2.2 + 0.45 * rows), layout="constrained")
        axes = figure.subplots()
        most = max(float(np.abs(table).max(initial=0)), 0.1)
        image = axes.imshow(table, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        for (i, j), value in np.ndenumerate(table):
            dark = abs(value) > 0.6 * most
            shown = f"{value:+.2f}" if abs(value) >= _NEGLIGIBLE else "0"
            axes.text(j, i, shown, ha="center", va="center", fontsize=9, color="white" if dark else "black")
        axes.set_xticks(range(columns), [label(m) for m in elasticities.metrics], rotation=30, ha="right")
        axes.set_yticks(range(rows), [label(k) for k in elasticities.knobs])
        axes.tick_params(length=0, labelsize=9)
        figure.colorbar(image, ax=axes, label="% of the metric per % of the knob")
        figure.suptitle(f"{title}\nelasticities, limits not enforced", fontsize=11)
        save_figure(figure, path, _OPTION)


def _axis(path: str, unit: str, name: Callable[[str], str] = label) -> str:
    return f"{name(path)} ({unit})" if unit not in ("", "1") else name(path)


def _set_scale(axis: Any, scale: Any, values: np.ndarray) -> None:
    """Make an axis logarithmic where its values are above 0 and span a wide range, with plain numbers at 1, 2 and 5."""
    if len(values) and values.min() > 0 and np.log10(values.max() / values.min()) > _LINEAR_DECADES:
        scale("log")
        wide = np.log10(values.max() / values.min()) > _FEW_DECADES
        axis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _grid(axes: Any) -> None:
    axes.grid(True, which="major", color="0.9", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", labelsize=9)


def _finish(figure: Figure, axes: Any, title: str) -> None:
    _grid(axes)
    figure.suptitle(title, fontsize=11)
