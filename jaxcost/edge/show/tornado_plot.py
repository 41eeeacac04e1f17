"""Tornado plot: the effect of each uncertain constant alone on one result, the widest at the top."""

import math
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxcost.core.units import engineering
from jaxcost.edge.show.plots import STYLE, save_figure
from jaxcost.edge.show.tables import HEADLINE
from jaxcost.explore.analysis import Bar, Intervals

__all__ = ["draw_tornado"]

_LOW, _HIGH, _BAND = "#E69F00", "#0072B2", "#EEEEEE"
_MAX_BARS = 12
_MIN_SHOWN = 0.005  # of the widest bar: narrower ones look like the line at mid
_NAMES = {path: name for path, name, _ in HEADLINE}


def draw_tornado(path: Path, title: str, metric: str, intervals: Intervals) -> None:
    """Draw the constants that change a metric, with their lows and highs at the ends of the bars, and save the plot."""
    bars, interval = intervals.weakest(metric, _MAX_BARS), intervals.quantiles[metric]
    bars = [bar for bar in bars if bar.width > _MIN_SHOWN * bars[0].width]
    with mpl.rc_context(STYLE):
        height = 2.0 + 0.42 * len(bars)
        figure, axes = plt.subplots(figsize=(10, height), layout="constrained")
        band = axes.axvspan(interval.p5, interval.p95, color=_BAND, zorder=0, linewidth=0)
        for place, bar in enumerate(bars):
            _draw_bar(axes, place, bar, interval.mid)
        line = axes.axvline(interval.mid, color="black", linewidth=1.2, zorder=3)
        axes.set_yticks(range(len(bars)), [bar.constant.label for bar in bars])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.14)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        unit, size = _scale(interval.mid, interval.unit)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / size:,.4g}"))
        axes.set_xlabel(f"{_NAMES.get(metric, metric)}, {unit}")
        handles = [Patch(color=colour) for colour in (_LOW, _HIGH)]
        drawn = f"5% to 95% of {intervals.draws:,} draws of all constants"
        names = ["constant at its low", "at its high", drawn, "all at mid"]
        figure.legend(
            [*handles, band, line], names, loc="outside lower center", ncols=4, frameon=False, fontsize=9
        )
        figure.suptitle(f"{title}: effect of each constant alone", x=0.01, ha="left", fontweight="bold")
        save_figure(figure, path, "--tornado")


def _scale(value: float, unit: str) -> tuple[str, float]:
    """Return the unit with the prefix that suits a value, and its factor on the unit without prefix."""
    digits, _, prefixed = engineering(value, unit).partition(" ")
    return prefixed, 10.0 ** round(math.log10(value / float(digits.replace(",", ""))))


def _draw_bar(axes: Axes, place: int, bar: Bar, mid: float) -> None:
    """Draw one constant: a bar to its result at low and one to that at high, each with the value of the constant."""
    ends = ((bar.at_low, _LOW, bar.constant.written[0]), (bar.at_high, _HIGH, bar.constant.written[2]))
    same_side = (bar.at_low - mid) * (bar.at_high - mid) > 0
    for index, (value, colour, written) in enumerate(ends):
        # Where both results lie on one side, each bar takes half of the height, so that neither covers the other.
        thick, shift = (0.34, 0.17 - 0.34 * (index == 0)) if same_side else (0.68, 0.0)
        axes.barh(place + shift, value - mid, left=mid, height=thick, color=colour, zorder=2)
        right = value > mid or (value == mid and bar.at_low + bar.at_high < 2 * mid)
        axes.annotate(
            written,
            (value, place + shift),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8,
            zorder=4,
        )
