"""The picture of a sweep: what the best designs cost at every speed, system by system."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxcost.explore.space import digits
from jaxcost.explore.sweep import Sweep

__all__ = ["draw_sweep", "front"]

# Okabe and Ito's colours, told apart by the colour-blind; dashes tell them apart in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")


def front(speed: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points that no other beats in both, smaller being better, fastest first."""
    order = np.lexsort((cost, speed))
    lowest = np.minimum.accumulate(cost[order])
    keep = np.concatenate(([True], lowest[1:] < lowest[:-1]))
    return speed[order][keep], cost[order][keep]


def draw_sweep(path: Path, title: str, result: Sweep, best: np.ndarray) -> None:
    """Draw, a panel a model, the lowest cost at every time per token that a system's designs reach."""
    space = result.space
    system, model, *_ = digits(np.arange(space.size), space.shape)
    tpot, usd, feasible = result.column("tpot") * 1e3, result.column("usd_per_mtok"), result.feasible
    panels = len(space.models)
    figure = Figure(figsize=(max(4.2 * panels, 6), 4.6), layout="constrained")
    for m, axes in enumerate(np.atleast_1d(figure.subplots(1, panels, sharey=True))):
        for s, name in enumerate(space.systems):
            chosen = (system == s) & (model == m) & feasible
            if chosen.any():
                style = {"color": _COLOURS[s % len(_COLOURS)], "ls": _DASHES[s % len(_DASHES)]}
                axes.step(*front(tpot[chosen], usd[chosen]), where="post", lw=1.8, label=name, **style)
        if model[best[0]] == m:
            axes.plot(tpot[best[0]], usd[best[0]], "k*", ms=13, label="best", zorder=5)
        axes.set(xscale="log", yscale="log", xlabel="time per output token (ms)", title=space.models[m])
        if m == 0:
            axes.set_ylabel("cost (USD per million output tokens)")
        axes.grid(True, which="both", color="0.9", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="both", labelsize=9)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for direction in (axes.xaxis, axes.yaxis):
            direction.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            direction.set_minor_formatter(NullFormatter())
    handles = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
    figure.legend(handles.values(), handles.keys(), frameon=False, fontsize=9, loc="outside right upper")
    figure.suptitle(
        f"{title}\nlowest cost of any design at least this fast, {space.size:,} designs", fontsize=11
    )
    figure.savefig(path, dpi=160)
