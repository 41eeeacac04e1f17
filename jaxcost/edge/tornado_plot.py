"""The tornado: what each uncertain constant alone does to one result, the widest on top."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jaxcost.core.units import engineering
from jaxcost.edge.plots import STYLE, save_figure
from jaxcost.edge.tables import HEADLINE
from jaxcost.explore.uncertainty import Bar, Intervals

__all__ = ["draw_tornado"]

_LOW, _HIGH, _BAND = "#E69F00", "#0072B2", "#EEEEEE"
_MOST_BARS = 12
_NAMES = {path: name for path, name, _ in HEADLINE}


def draw_tornado(path: Path, title: str, metric: str, found: Intervals) -> None:
    """Draw the constants that move a metric, with their lows and highs at the ends of the bars, and save it."""
    bars, interval = found.weakest(metric, _MOST_BARS), found.quantiles[metric]
    with mpl.rc_context(STYLE):
        height = 2.0 + 0.42 * len(bars)
        figure, axes = plt.subplots(figsize=(10, height), layout="constrained")
        band = axes.axvspan(interval.p5, interval.p95, color=_BAND, zorder=0, linewidth=0)
        for place, bar in enumerate(bars):
            _draw_bar(axes, place, bar, interval.mid)
        line = axes.axvline(interval.mid, color="black", linewidth=1.2, zorder=3)
        axes.set_yticks(range(len(bars)), [bar.constant.name for bar in bars])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.14)
        axes.xaxis.set_major_locator(MaxNLocator(7))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: engineering(x, interval.unit)))
        axes.set_xlabel(_NAMES.get(metric, metric))
        handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in (_LOW, _HIGH)]
        drawn = f"5% to 95% of {found.draws:,} draws of all"
        names = ["constant at its low", "at its high", drawn, "all at mid"]
        # Above the bars, where none of them can be: its row of entries is as wide as the picture.
        figure.legend(
            [*handles, band, line], names, loc="outside lower center", ncols=4, frameon=False, fontsize=9
        )
        axes.set_title(f"{title}: what each constant alone does", loc="left", fontweight="bold", fontsize=12)
        save_figure(figure, path, "--tornado")


def _draw_bar(axes: Axes, place: int, bar: Bar, mid: float) -> None:
    """Draw one constant: a half to its low's result, a half to its high's, each with its value at the end."""
    ends = ((bar.at_low, _LOW, bar.constant.written[0]), (bar.at_high, _HIGH, bar.constant.written[2]))
    same_side = (bar.at_low - mid) * (bar.at_high - mid) > 0
    for index, (value, colour, written) in enumerate(ends):
        # Where both results lie on one side each takes half of the height, so that neither hides the other.
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
