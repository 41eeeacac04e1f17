"""Six trends on the roofline; measured elasticities against the marks of the paper; when diffusion is compute-bound."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from style import BLACK, GREY, PALE, WIDE, Data, looks, plain, run

# Cells of the table of marks: the paper's mark as a word, the measure as a colour.
MEASURES = {"bytes held over the twin's": "x {:.1f}", "elasticity of the time per token": "{:.2f}"}


def draw(data: Data) -> Figure:
    figure = plt.figure(figsize=(WIDE, 7.4), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    left, right = top.subplots(1, 2, width_ratios=(1.55, 1))
    roofline(left, data["roofline"])
    crossing(right, data["blocks"])
    handles, labels = left.get_legend_handles_labels()
    top.legend(handles, labels, loc="outside lower center", ncols=4)
    marks(bottom.subplots(), data["marks"])
    return figure


def roofline(axes, steps) -> None:
    peak = max(steps.values("roof"))
    bandwidth = min(r["roof"] / r["intensity"] for r in steps.rows if r["roof"] < peak)
    x = np.geomspace(0.7, 4000, 200)
    axes.plot(x, np.minimum(peak, x * bandwidth) / 1e12, color=BLACK, lw=1.2, zorder=1)
    for look, trend in zip(looks(), steps.kinds("trend"), strict=False):
        rows = steps.where(trend=trend)
        path = [(r["intensity"], r["attained"] / 1e12) for r in rows if r["step"] == "decode"]
        axes.plot(*zip(*path, strict=True), **look, lw=1.0, mfc="white", zorder=2)
        prefill = next(r for r in rows if r["step"] == "prefill")
        axes.plot(
            prefill["intensity"], prefill["attained"] / 1e12, **look | {"linestyle": ""}, label=trend, ms=6
        )
    batch = max(steps.values("batch"))
    axes.text(
        0.98,
        0.05,
        f"filled: prefill (for reasoning: the conventional model's)\nhollow: decode, batch 1 to {batch}",
        transform=axes.transAxes,
        ha="right",
    )
    axes.set(xscale="log", yscale="log")
    plain(axes, ticks={"x": [1, 3, 10, 30, 100, 300, 1000, 3000], "y": [3, 10, 30, 100, 300, 1000, 3000]})
    axes.set(
        xlabel=steps.label("intensity", "arithmetic intensity"),
        ylabel=steps.label("attained", "attained per chip", "T"),
        title="Decoding is bandwidth-bound, prefill near the compute peak",
    )


def crossing(axes, blocks) -> None:
    for look, batch in zip(looks(), blocks.kinds("batch"), strict=False):
        rows = blocks.where(batch=batch)
        axes.plot([r["block"] for r in rows], [r["compute"] for r in rows], **look, label=f"batch {batch}")
    axes.set_xscale("log", base=2)
    plain(axes, "x", {"x": [1, 4, 16, 64, 256, 1024]})
    axes.legend(loc="upper left")
    axes.set(
        xlabel=blocks.label("block", "diffusion block", "").replace("token", "tokens"),
        ylabel="elasticity of speed in FLOP/s",
        title="Diffusion needs long blocks or batches",
        ylim=(-0.05, 1.05),
    )


def marks(axes, cells) -> None:
    trends, resources = cells.kinds("trend"), cells.kinds("resource")
    axes.set(xlim=(0, len(resources)), ylim=(len(trends), 0))
    axes.grid(visible=False)
    for row in cells.rows:
        x, y = resources.index(row["resource"]), trends.index(row["trend"])
        colour = PALE if row["stressed"] else "white"
        axes.add_patch(plt.Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", lw=2))
        value = MEASURES[row["measure"]].format(row["value"])
        axes.text(x + 0.04, y + 0.53, value, va="center")
        axes.text(x + 0.42, y + 0.53, row["paper"] or "-", va="center", style="italic")
        if not row["agrees"]:
            axes.text(x + 0.72, y + 0.53, "differs", va="center", weight="bold")
    axes.set_xticks(np.arange(len(resources)) + 0.5, resources)
    axes.set_yticks(np.arange(len(trends)) + 0.5, trends)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        "Computed value, and the mark of the paper (italic); shaded: stressed by the computed value", pad=8
    )
    axes.set_xlabel(
        "capacity: bytes held / those without the trend; others: elasticity of the time per token", color=GREY
    )


if __name__ == "__main__":
    run(draw)
