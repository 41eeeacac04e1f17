"""Dollars, joules and CO2e per token on every chip, with intervals; parts of the cost; the most uncertain constants."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from style import BLACK, BLUE, COLOURS, HATCHES, RED, SKY, WIDE, Data, plain, run

METRICS = (
    ("usd_per_mtok", "cost of ownership"),
    ("joules_per_token", "energy"),
    ("gco2e_per_mtok", "CO2e"),
)
PARTS = ("dies", "memory", "package", "vendor", "servers", "building", "interest", "energy")
OPEN = "b200"  # the chip whose constants are shown
TICKS = [x * 10**k for k in range(-3, 4) for x in (1, 2, 5)]


def dots(axes: Axes, rows: list[dict], metric: str) -> None:
    """The best value in its interval, a row a chip; squares are co-designed."""
    for at, row in enumerate(rows):
        made = not row["catalogue"]
        colour = RED if made else BLUE
        axes.plot([row[f"{metric}_5"], row[f"{metric}_95"]], [at, at], "-", color=colour, lw=2, alpha=0.5)
        axes.plot(row[metric], at, "s" if made else "o", color=colour)
    axes.set_xscale("log")
    low, high = min(r[f"{metric}_5"] for r in rows) * 0.8, max(r[f"{metric}_95"] for r in rows) * 1.2
    plain(axes, "x", {"x": [t for t in TICKS if low <= t <= high]})
    axes.set(xlim=(low, high), yticks=range(len(rows)))
    axes.grid(axis="y", visible=False)


def draw(data: Data) -> Figure:
    designs, parts, weakest = data["designs"], data["parts"], data["weakest"]
    models = designs.kinds("model")
    counts = [len(designs.where(model=m)) for m in models]
    figure, grid = plt.subplots(
        len(models) + 1, 4, figsize=(WIDE, 2.9 + 0.23 * sum(counts)), layout="constrained",
        gridspec_kw={"width_ratios": [1, 1, 1, 1.1], "height_ratios": [*counts, 5]},
    )  # fmt: skip
    for panels, model in zip(grid, models, strict=False):
        rows = sorted(designs.where(model=model), key=lambda r: -r["usd_per_mtok"])
        for axes, (metric, text) in zip(panels, METRICS, strict=False):
            dots(axes, rows, metric)
            axes.set_xlabel(designs.label(metric, text))
            axes.set_yticklabels([r["chip"] for r in rows] if axes is panels[0] else [])
        panels[0].set_title(f"{model}: best value, 5% to 95%")
        shares(panels[3], parts.where(model=model), [r["chip"] for r in rows])
        panels[3].set(xlabel="share of cost (%)", yticklabels=[])
        panels[3].set_title("Parts of the cost")
    for axes, (metric, text) in zip(grid[-1], METRICS, strict=False):
        bars(axes, weakest.where(model=models[0], chip=OPEN, metric=metric))
        axes.set_xlabel(f"{text} (best value: 1)", fontsize=8)
    grid[-1][0].set_title(f"Most uncertain constants: {models[0]} on {OPEN}")
    grid[-1][3].set_axis_off()
    handles = [
        plt.Line2D([], [], color=BLUE, marker="o", lw=2, label="catalogue chip"),
        plt.Line2D([], [], color=RED, marker="s", lw=2, label="co-designed"),
        plt.Rectangle((0, 0), 1, 1, color=SKY, label="constant at its low value"),
        plt.Rectangle((0, 0), 1, 1, fc=BLUE, hatch="///", ec="white", lw=0, label="at its high value"),
        *grid[0][3].get_legend_handles_labels()[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6)
    return figure


def bars(axes: Axes, rows: list[dict]) -> None:
    """A result with a constant at its low and its high, the widest on top."""
    for at, row in enumerate(reversed(rows)):
        axes.barh(at, row["at_low"] - 1, left=1, height=0.4, color=SKY)
        axes.barh(
            at, row["at_high"] - 1, left=1, height=0.4, color=BLUE, hatch="///", edgecolor="white", lw=0
        )
        axes.text(
            0.02, at + 0.26, row["constant"], fontsize=7, transform=axes.get_yaxis_transform(), va="bottom"
        )
    axes.axvline(1, color=BLACK, lw=0.8)
    axes.set(yticks=[], ylim=(-0.4, len(rows) - 0.25))
    axes.margins(x=0.08)


def shares(axes: Axes, rows: list[dict], order: list[str]) -> None:
    """Stacked shares of the cost, a bar a chip in the given order."""
    by_chip = {r["chip"]: r for r in rows}
    left = [0.0] * len(order)
    for part, colour, hatch in zip(PARTS, COLOURS, HATCHES, strict=True):
        wide = [100 * by_chip[c][part] / sum(by_chip[c][p] for p in PARTS) for c in order]
        axes.barh(
            range(len(order)),
            wide,
            left=left,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            lw=0.4,
            label=part,
        )
        left = [a + b for a, b in zip(left, wide, strict=True)]
    axes.set(xlim=(0, 100), yticks=range(len(order)))
    axes.grid(visible=False)


if __name__ == "__main__":
    run(draw)
