"""The plot of a recommendation: cost against speed for every plan."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from jaxcost.edge.show.plots import STYLE, save_figure
from jaxcost.edge.show.recommend_tables import describe_plan
from jaxcost.explore.recommend import Candidate, Recommendation

__all__ = ["draw_recommendation"]

_FEASIBLE, _INFEASIBLE, _BEST = "#0072B2", "#BBBBBB", "#D55E00"
_DEAREST = 10.0  # plans that cost more than this many times the recommended one are left out


def draw_recommendation(
    path: Path, title: str, recommendation: Recommendation, limits: dict[str, float], templates: Sequence[str]
) -> None:
    """Draw the cost of every plan with its best settings against mean TPOT and mean TTFT, and save the plot."""
    best = recommendation.best
    shown = [c for c in recommendation.candidates if c.usd_per_mtok <= _DEAREST * best.usd_per_mtok]
    with mpl.rc_context(STYLE):
        figure, grid = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained", sharey=True)
        for axes, name in zip(grid, ("tpot", "ttft"), strict=True):
            for colour, label, keep in (
                (_FEASIBLE, "within the limits", True),
                (_INFEASIBLE, "exceeds a limit", False),
            ):
                group = [c for c in shown if c.feasible == keep]
                if group:
                    axes.scatter(
                        [_milliseconds(c, name) for c in group],
                        [c.usd_per_mtok for c in group],
                        s=26,
                        color=colour,
                        alpha=0.8,
                        label=label,
                        zorder=2 + keep,
                    )
            at = _milliseconds(best, name), best.usd_per_mtok
            axes.scatter(*at, s=90, facecolor="none", edgecolor=_BEST, linewidth=1.8, zorder=4)
            axes.annotate(
                describe_plan(best, templates),
                at,
                xytext=(7, -12),
                textcoords="offset points",
                fontsize=9,
                color=_BEST,
            )
            if limits.get(name):
                axes.axvline(limits[name] * 1e3, color="black", linewidth=1.0, linestyle=":", zorder=1)
                axes.annotate(
                    "limit",
                    (limits[name] * 1e3, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(3, -10),
                    textcoords="offset points",
                    fontsize=9,
                )
            axes.set(xscale="log", yscale="log", xlabel=f"mean {name.upper()} (ms)")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
                axis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else ""))
            axes.margins(0.12)
            axes.grid(which="major", color="#DDDDDD", linewidth=0.6, zorder=0)
        grid[0].set_ylabel("USD per million output tokens")
        grid[0].legend(frameon=False, fontsize=9)
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
        save_figure(figure, path)


def _milliseconds(candidate: Candidate, name: str) -> float:
    return 1e3 * float(getattr(candidate.service, name))
