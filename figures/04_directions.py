"""Latency, energy and cost of each combination of four directions, and the effect of each direction and each pair."""

import math

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from style import BLACK, BLUE, GREY, ORANGE, PALE, WIDE, Data, plain, run

DIRECTIONS = {"flash": "flash", "near": "near memory", "stacked": "3D stacking", "quick": "fast fabric"}
METRICS = (
    ("tpot", "time per token", "m", 1e3),
    ("joules_per_token", "energy", "", 1),
    ("usd_per_mtok", "cost", "", 1),
)
EFFECTS = {
    "chips": "chips",
    "tpot": "time",
    "joules_per_token": "energy",
    "usd_per_mtok": "cost",
    "gco2e_per_mtok": "CO2e",
}
BETTER_WORSE = LinearSegmentedColormap.from_list("better to worse", (BLUE, "#FFFFFF", ORANGE))
MOST = 4.0  # an effect of so much or more, or as little, has the full colour


def bars(axes: Axes, values: list[float], chips: list[int] | None) -> None:
    """One bar a design, the least of them blue and hatched; on a log axis with the number of chips at their feet."""
    least = min(values)
    bottom = least / 2 if chips else 0.0
    for place, value in enumerate(values):
        best = value == least
        look = {"color": BLUE, "hatch": "////", "edgecolor": "white"} if best else {"color": "#9AA5B1"}
        axes.bar(place, value - bottom, bottom=bottom, width=0.74, **look)
        text = f"{value:.3g}" if value < 1000 else f"{value:.0f}"
        axes.annotate(
            text,
            (place, value),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7,
            rotation=90,
        )
        if chips:
            axes.annotate(
                f"{chips[place]}",
                (place, bottom),
                (0, -8),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                annotation_clip=False,
            )
    top = bottom * (max(values) / bottom) ** 1.32 if chips else 1.32 * max(values)
    axes.set(yscale="log" if chips else "linear", ylim=(bottom, top), xlim=(-0.7, len(values) - 0.3))
    plain(axes, "y")
    axes.tick_params(bottom=False, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    axes.grid(False, axis="x")


def matrix(axes: Axes, rows: list[dict], first: bool) -> None:
    """Which directions each design has."""
    for line, direction in enumerate(DIRECTIONS):
        axes.axhspan(line - 0.5, line + 0.5, color="#F3F4F6" if line % 2 else "white", lw=0)
        axes.plot(range(len(rows)), [line] * len(rows), "o", ms=5, color=PALE, ls="")
        axes.plot([i for i, r in enumerate(rows) if r[direction]], [line] * 8, "o", ms=5, color=BLACK, ls="")
    axes.set(ylim=(3.5, -0.5), xlim=(-0.7, len(rows) - 0.3))
    axes.set_yticks(range(4), list(DIRECTIONS.values()) if first else [""] * 4)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def effects(axes: Axes, rows: list[dict], first: bool) -> None:
    """Factors as coloured cells."""
    logs = [[math.log(r[metric]) for metric in EFFECTS] for r in rows]
    axes.imshow(logs, cmap=BETTER_WORSE, norm=Normalize(-math.log(MOST), math.log(MOST)), aspect="auto")
    for line, row in enumerate(rows):
        for column, metric in enumerate(EFFECTS):
            value = row[metric]
            text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
            dark = "white" if value < 1 / 2.5 else BLACK
            axes.text(column, line, text, ha="center", va="center", fontsize=7.5, color=dark)
    axes.axhline(len(DIRECTIONS) - 0.5, color=GREY, lw=1)
    axes.set_xticks(range(len(EFFECTS)), list(EFFECTS.values()))
    named = [" with ".join(DIRECTIONS[d] for d in r["directions"].split(" and ")) for r in rows]
    axes.set_yticks(range(len(rows)), named if first else [""] * len(rows))
    axes.tick_params(left=False, bottom=False)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw(data: Data) -> Figure:
    designs, workloads = data["designs"], data["workloads"].rows
    figure, panels = plt.subplots(
        len(METRICS) + 2,
        len(workloads),
        figsize=(WIDE, 10.4),
        layout="constrained",
        squeeze=False,
        height_ratios=[2, 1.7, 1.7, 0.95, 2.6],
    )
    for column, told in enumerate(workloads):
        rows = designs.where(workload=told["workload"])
        rows.sort(key=lambda r: (sum(r[d] for d in DIRECTIONS), [not r[d] for d in DIRECTIONS]))
        for line, (metric, text, prefix, scale) in enumerate(METRICS):
            axes = panels[line, column]
            bars(axes, [scale * r[metric] for r in rows], None if line else [r["chips"] for r in rows])
            if column == 0:
                axes.set_ylabel(designs.label(metric, text, prefix))
        panels[0, column].set_title(
            f"{told['workload']}: {told['model']}\nbatch {told['batch']}, {told['context']:,} tokens",
            fontsize=9,
        )
        matrix(panels[-2, column], rows, column == 0)
        effects(panels[-1, column], data["effects"].where(workload=told["workload"]), column == 0)
        panels[-1, column].set_title("metric with / without", fontsize=9)
    panels[0, 0].annotate(
        "chips",
        (0, 0),
        (-4, -8),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        fontsize=7,
    )
    return figure


if __name__ == "__main__":
    run(draw)
