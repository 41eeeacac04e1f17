"""Plot of serving fronts: tokens per second and chip against tokens per second and user, one line a system."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxcost.edge.show.labels import place_labels
from jaxcost.edge.show.plots import STYLE, save_figure
from jaxcost.edge.show.serving_tables import plan_text
from jaxcost.explore.serve import ServingFront

__all__ = ["draw_serving_fronts"]

# Okabe and Ito's colour-blind-safe colours, those dark enough for lines on white; marks distinguish them in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00")
_MARKS = "osD^vP"
_LOG_RANGE = 6  # ratio of the ends of an axis from which it is logarithmic
_FONT = 10.0
_MARKED = 5  # points of a front whose plans are labelled where only one system is drawn
_PLANS = "#555555"


@dataclasses.dataclass(frozen=True)
class _Curve:
    """The front of one system without or with separate pools."""

    label: str
    plans: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray
    row: int
    hollow: bool

    @property
    def colour(self) -> str:
        return _COLOURS[self.row % len(_COLOURS)]


def draw_serving_fronts(path: Path, title: str, subtitle: str, fronts: Mapping[str, ServingFront]) -> None:
    """Draw the front of every system, and of separate pools as a dashed line with hollow marks.

    Args:
        path: file of the plot.
        title: title of the plot.
        subtitle: lengths of the requests.
        fronts: front of every system by name.
    """
    curves = _curves(fronts)
    with mpl.rc_context(STYLE | {"font.size": _FONT}):
        figure, axes = plt.subplots(figsize=(5.6, 4.8), layout="constrained")
        for curve in curves:
            axes.plot(
                curve.x,
                curve.y,
                color=curve.colour,
                ls="--" if curve.hollow else "-",
                lw=1.8,
                marker=_MARKS[curve.row % len(_MARKS)],
                ms=5,
                mfc="white" if curve.hollow else curve.colour,
            )
        _dress(axes, curves)
        head = title if len(fronts) != 1 else f"{title} on {next(iter(fronts))}"
        figure.suptitle(head, x=0.02, ha="left", fontweight="bold", fontsize=12)
        axes.set_title(subtitle, loc="left", fontsize=_FONT)
        if len(fronts) > 1 and len({curve.hollow for curve in curves}) > 1:
            _add_key(axes)
        figure.canvas.draw()
        segments = [
            (curve.x[i : i + 2], curve.y[i : i + 2]) for curve in curves for i in range(len(curve.x) - 1)
        ]
        place_labels(figure, axes, _labels(axes, curves), segments, font=_FONT)
        save_figure(figure, path)


def _curves(fronts: Mapping[str, ServingFront]) -> list[_Curve]:
    curves = []
    for row, (name, front) in enumerate(fronts.items()):
        kinds = (("one pool", ~front.is_split), ("separate pools", front.is_split))
        kinds = [(kind, points) for kind, mask in kinds if len(points := front.front_of(mask))]
        for kind, points in kinds:
            # Of several systems, a key names the kinds.
            label = name if len(fronts) > 1 else kind if len(kinds) > 1 or kind != "one pool" else ""
            curves.append(
                _Curve(
                    label="" if len(fronts) > 1 and kind != kinds[0][0] else label,
                    plans=tuple(plan_text(front.degrees[point]) for point in points),
                    x=front.tokens_per_second_per_user[points],
                    y=front.tokens_per_second_per_chip[points],
                    row=row,
                    hollow=kind != "one pool",
                )
            )
    return curves


def _labels(axes: Axes, curves: Sequence[_Curve]) -> list[dict[str, Any]]:
    """Return the labels of the curves, and of the plans at a few points of the front of one system."""
    labels = []
    pixels = [axes.transData.transform(np.column_stack((curve.x, curve.y))) for curve in curves]
    for number, curve in enumerate(curves):
        # The point that is farthest from the other fronts.
        others = [
            p for k, p in enumerate(pixels) if k != number and (curves[k].row != curve.row or _is_one(curves))
        ]
        apart = [np.linalg.norm(pixels[number][:, None] - other, axis=-1).min(1) for other in others]
        at = int(np.argmax(np.min(apart, 0))) if apart else len(curve.x) // 2
        if curve.label:
            labels.append(_label(axes, curve, at, [curve.label]))
    if _is_one(curves):
        labels += [_label(axes, curves[0], at, [curves[0].plans[at]], _PLANS) for at in _changes(curves[0])]
    return labels


def _is_one(curves: Sequence[_Curve]) -> bool:
    """Return whether all curves are of one system."""
    return len({curve.row for curve in curves}) == 1


def _changes(curve: _Curve) -> list[int]:
    """Return the first point of each plan along a curve, at most a few."""
    plans = curve.plans
    first = [plans.index(plan) for plan in dict.fromkeys(plans)]
    kept = np.linspace(0, len(first) - 1, min(_MARKED, len(first))).round().astype(int)
    return [first[i] for i in kept]


def _label(axes: Axes, curve: _Curve, at: int, lines: list[str], colour: str | None = None) -> dict[str, Any]:
    place = axes.transData.transform((curve.x[at], curve.y[at]))
    return {"place": place, "radius": 4.0, "lines": lines, "colour": colour or curve.colour}


def _add_key(axes: Axes) -> None:
    styles = {"one pool": ("-", _PLANS), "separate pools": ("--", "white")}
    handles = [
        Line2D([], [], color=_PLANS, ls=ls, lw=1.8, marker="o", ms=5, mfc=fill, label=kind)
        for kind, (ls, fill) in styles.items()
    ]
    axes.legend(handles=handles, loc="lower left", frameon=False)


def _dress(axes: Axes, curves: Sequence[_Curve]) -> None:
    axes.set_xlabel("Output tokens per second and user (1 / TPOT)")
    axes.set_ylabel("Output tokens per second and chip")
    axes.grid(visible=True, which="major", color="0.9", lw=0.6)
    axes.set_axisbelow(True)
    for name, direction in (("x", axes.xaxis), ("y", axes.yaxis)):
        values = np.concatenate([getattr(curve, name) for curve in curves]) if curves else np.ones(1)
        if values.max() > _LOG_RANGE * values.min():
            getattr(axes, f"set_{name}scale")("log")
            direction.set_major_locator(LogLocator(subs=(1, 2, 5)))
            direction.set_minor_formatter(NullFormatter())
        else:
            getattr(axes, f"set_{name}lim")(0, values.max() * 1.1)
        direction.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.margins(0.1)
