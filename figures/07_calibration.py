"""Predicted over measured times on held-out axes, by kernel, and for served models that the fit left out."""

import math
import statistics

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from style import BLACK, BLUE, GREEN, ORANGE, PINK, RED, SKY, WIDE, Data, run

CHIPS = {
    "a100-80gb-sxm": ("A100", BLUE, "o"),
    "h100-sxm": ("H100", RED, "s"),
    "h200-sxm": ("H200", ORANGE, "D"),
    "l40s": ("L40S", GREEN, "^"),
}
MODELS = ((SKY, "D"), (BLUE, "v"), (PINK, "P"), (BLACK, "*"), ("#8C6D31", "X"))
COLUMNS = 3


def ninth(values: list[float]) -> float:
    """Their 90th percentile."""
    return statistics.quantiles(values, n=10, method="inclusive")[-1]


def draw(data: Data) -> Figure:
    kernels, serving = data["kernels"], data["serving"]
    names, models = kernels.kinds("kernel"), sorted(serving.kinds("model"))
    lines = -(-(len(names) + 3) // COLUMNS)
    figure, panels = plt.subplots(
        lines, COLUMNS, figsize=(WIDE, 2.4 * lines), layout="constrained", sharey=True
    )
    for axes, name in zip(panels.flat, names, strict=False):
        scatter(axes, kernels.where(kernel=name), "roofline", 1e6, s=3, color="0.8")
        for chip, (_, colour, mark) in CHIPS.items():
            scatter(
                axes,
                kernels.where(kernel=name, chip=chip),
                "held",
                1e6,
                s=5,
                color=colour,
                marker=mark,
                alpha=0.5,
            )
        off = [abs(math.log(r["held"] / r["measured"])) for r in kernels.where(kernel=name)]
        said = f"{statistics.median(off):.3f}, 90th {ninth(off):.2f}"
        frame(
            axes, f"{name.replace('_', ' ')}\nmedian error {said}", kernels.label("measured", "measured", "µ")
        )
    for axes, metric in zip(panels.flat[len(names) :], serving.kinds("metric"), strict=False):
        for (colour, mark), model in zip(MODELS, models, strict=False):
            rows = serving.where(metric=metric, model=model, wrong=False)
            scatter(axes, rows, "held", 1e3, s=8, color=colour, marker=mark, alpha=0.7)
        off = [abs(r["held"] / r["measured"] - 1) for r in serving.where(metric=metric, wrong=False)]
        title = f"{metric} of served models\nmedian error {statistics.median(off):.1%}, 90th {ninth(off):.1%}"
        frame(axes, title, serving.label("measured", "measured", "m"))
    rest = panels.flat[len(names) + 2 :]
    for axes in rest:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel("predicted / measured")
    marks = [Line2D([], [], ls="", marker=m, color=c, label=n) for n, c, m in CHIPS.values()]
    marks.append(Line2D([], [], ls="", marker=".", color="0.7", label="plain roofline"))
    marks += [
        Line2D([], [], ls="", marker=m, color=c, label=n) for (c, m), n in zip(MODELS, models, strict=False)
    ]
    rest[0].legend(handles=marks, loc="center", title="kernels by chip; serving by model")
    return figure


def scatter(axes: Axes, rows: list[dict], column: str, scale: float, **look) -> None:
    """Predicted over measured time against the latter; as an image, for there are thousands."""
    x, y = [r["measured"] * scale for r in rows], [r[column] / r["measured"] for r in rows]
    axes.scatter(x, y, lw=0, rasterized=True, **look)


def frame(axes: Axes, title: str, words: str) -> None:
    axes.axhline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.2, 5)
    axes.set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    axes.minorticks_off()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(words)


if __name__ == "__main__":
    run(draw)
