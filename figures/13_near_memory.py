"""PIM against PNM: bandwidth per watt, speed and energy by batch, and the eight criteria."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from style import BLACK, BLUE, COLOURS, HATCHES, PALE, RED, WIDE, Data, plain, run

KINDS = {"PIM": (BLUE, ""), "PNM": (RED, "///")}
PAPER = {"PIM": (5, 10), "PNM": (2, 5)}  # times the bandwidth per watt of standard memory


def draw(data: Data) -> Figure:
    figure = plt.figure(figsize=(WIDE, 7.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    watts, speed, energy = top.subplots(1, 3, sharey=True)
    per_watt(watts, data["engines"])
    decoding = data["decoding"]
    by_batch(speed, decoding, "speed_up", "Speed-up falls with the batch", "speed / speed without engines")
    by_batch(
        energy,
        decoding,
        "energy_ratio",
        "Energy saving falls with the batch",
        "energy per token / without engines",
    )
    handles, labels = speed.get_legend_handles_labels()
    top.legend(handles, labels, loc="outside lower right", ncols=3)
    criteria(bottom.subplots(), data["criteria"])
    return figure


def per_watt(axes, engines) -> None:
    for y, row in enumerate(engines.rows):
        low, high = PAPER[row["kind"]]
        axes.barh(y, high - low, 0.9, left=low, color=PALE, zorder=0)
        colour, hatch = KINDS[row["kind"]]
        axes.barh(y, row["times_per_watt"] - 0.5, 0.5, left=0.5, color=colour, hatch=hatch, edgecolor="white")
        axes.text(row["times_per_watt"] * 1.1, y, f"{row['times_per_watt']:.1f}", va="center", fontsize=8)
    for kind, (colour, hatch) in KINDS.items():
        axes.barh(0, 0, color=colour, hatch=hatch, edgecolor="white", label=kind)
    axes.barh(0, 0, color=PALE, label="paper")
    axes.legend(loc="lower right", fontsize=7.5)
    axes.set_yticks(range(len(engines.rows)), [f"{r['engine']}" for r in engines.rows])
    axes.set(xscale="log", xlim=(0.5, 70))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    plain(axes, "x", {"x": [0.5, 1, 2, 5, 10, 20, 50]})
    axes.set(xlabel="bandwidth per watt / that of the memory", title="PIM reads at lower power")


def by_batch(axes, decoding, column: str, title: str, label: str) -> None:
    engines, batches = decoding.kinds("engine"), decoding.kinds("batch")
    high = 0.8 / len(batches)
    for j, batch in enumerate(batches):
        y = np.arange(len(engines)) + (j - (len(batches) - 1) / 2) * high
        values = np.array([r[column] for name in engines for r in decoding.where(engine=name, batch=batch)])
        left = np.minimum(values, 1)
        looks = {"color": COLOURS[j + 2], "hatch": HATCHES[j], "edgecolor": "white"}
        axes.barh(
            y,
            np.maximum(np.maximum(values, 1) - left, 0.012),
            high,
            left=left,
            **looks,
            label=f"batch {batch}",
        )
    axes.axvline(1, color=BLACK, lw=1)
    axes.set_xscale("log")
    plain(axes, "x", {"x": [1, 2, 5, 10, 20] if column == "speed_up" else [0.05, 0.1, 0.2, 0.5, 1]})
    axes.set_xlim(*((0.9, 50) if column == "speed_up" else (0.027, 1.6)))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set(xlabel=label, title=title)


def criteria(axes, marks) -> None:
    axes.set(xlim=(0, 1), ylim=(len(marks.rows) + 1, 0))
    axes.axis("off")
    columns = (0, 0.155, 0.345, 0.48, 0.56, 0.79, 0.89)
    heads = ("criterion", "paper: PIM", "paper: PNM", "better", "computed", "PIM", "PNM")
    for x, head in zip(columns, heads, strict=True):
        axes.text(x, 0.5, head, va="center", weight="bold", fontsize=8)
    for y, r in enumerate(marks.rows):
        if y % 2 == 0:
            axes.add_patch(plt.Rectangle((0, y + 1), 1, 1, color="#F2F3F5"))
        counted = bool(r["computed"])
        found = r["measure"] if counted else "not computed"
        cells = [r["criterion"], r["paper_pim"], r["paper_pnm"], r["paper"], found]
        cells += (
            [reach(r["pim_low"], r["pim_high"]), reach(r["pnm_low"], r["pnm_high"])] if counted else ["", ""]
        )
        for x, text, column in zip(columns, cells, heads, strict=True):
            won = counted and column == r["computed"]
            axes.text(x, y + 1.5, wrapped(text), va="center", fontsize=7, weight="bold" if won else "normal")
    axes.set_title(
        "The eight criteria: the paper's words, and computed ranges (bold: the better in the middle of its range)",
        fontsize=10,
    )


def reach(low: float, high: float) -> str:
    """Least to most, large numbers with their prefix."""
    return short(low) if low == high else f"{short(low)} to {short(high)}"


def short(x: float) -> str:
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if x >= scale:
            return f"{x / scale:.2g}{prefix}" if x < 100 * scale else f"{x / scale:.0f}{prefix}"
    return f"{x:.2g}"


def wrapped(text: str, width: int = 34) -> str:
    """Break a long cell once, near its middle."""
    if len(text) <= width:
        return text
    space = min((i for i, c in enumerate(text) if c == " "), key=lambda i: abs(i - len(text) // 2))
    return text[:space] + "\n" + text[space + 1 :]


if __name__ == "__main__":
    run(draw)
