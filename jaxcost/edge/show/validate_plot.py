"""Plot of a validation: predicted against measured seconds, one panel an op."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxcost.edge.show.plots import STYLE, save_figure
from jaxcost.explore.calibrate import Scored, scores

__all__ = ["draw_validation"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKS = "os^DvP*"
_ACROSS = 3


def draw_validation(path: Path, scored: Sequence[Scored]) -> None:
    """Draw the ratio of predicted to measured seconds against the measured ones, and the plain roofline in grey."""
    ops = list(dict.fromkeys(str(part.labels["op"][0]) for part in scored))
    chips = sorted({str(c) for part in scored for c in part.labels["chip"]})
    across = min(_ACROSS, len(ops))
    down = -(-len(ops) // across)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.2 * across + 0.6, 2.7 * down + 0.7), layout="constrained")
        panels = np.atleast_1d(figure.subplots(down, across, sharey=True, squeeze=False)).ravel()
        for axes, op in zip(panels, ops, strict=False):
            some = [part for part in scored if part.labels["op"][0] == op]
            measured = np.concatenate([part.measured for part in some])
            ideal = np.concatenate([part.roofline for part in some])
            ratio = np.concatenate([part.predicted for part in some]) / measured
            of = np.concatenate([part.labels["chip"] for part in some])
            axes.scatter(measured * 1e6, ideal / measured, s=3, color="0.8", lw=0, rasterized=True)
            for number, chip in enumerate(chips):
                at = of == chip
                if at.any():
                    axes.scatter(
                        measured[at] * 1e6,
                        ratio[at],
                        s=6,
                        lw=0,
                        marker=_MARKS[number % 7],
                        color=_COLOURS[number % 7],
                        alpha=0.5,
                        rasterized=True,
                    )
            axes.axhline(1, color="black", lw=0.8)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_ylim(0.2, 5)
            axes.set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
            axes.minorticks_off()
            median, ninth = scores(np.log(ratio))
            axes.set_title(f"{op.replace('_', ' ')}\nmedian {median:.3f}, 90th {ninth:.3f}", fontsize=9)
        for axes in panels[len(ops) :]:
            axes.set_visible(False)
        for axes in panels[max(len(ops) - across, 0) : len(ops)]:
            axes.set_xlabel("measured (us)")
        for axes in panels[::across]:
            axes.set_ylabel("predicted / measured")
        marks = [
            Line2D([], [], ls="", marker=_MARKS[n % 7], color=_COLOURS[n % 7], label=chip)
            for n, chip in enumerate(chips)
        ]
        marks.append(Line2D([], [], ls="", marker=".", color="0.7", label="plain roofline"))
        figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
        save_figure(figure, path, "--plot")
