"""Pareto fronts of co-designed decode chips with catalogue chips, their parameters, and shadow prices of limits."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from style import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    HATCHES,
    MARKS,
    RED,
    WIDE,
    Data,
    looks,
    plain,
    run,
)  # fmt: skip

LIMITS = ("tpot", "power", "capacity", "edge", "reticle")
KNOBS = {"bandwidth": "bandwidth", "capacity": "capacity", "flops_8": "engines", "link": "links"}
TIMES = [2, 3, 5, 7, 10, 15, 20, 30, 50]
TICKS = [x * 10**k for k in range(-3, 5) for x in (1, 2, 5)]


def best_of(data: Data) -> list[dict]:
    """The cheapest plan within each bound."""
    designs = data["designs"]
    return [
        min(designs.where(bound=bound), key=lambda r: r["usd_per_mtok"])
        for bound in sorted(designs.kinds("bound"))
    ]


def undominated(rows: list[dict], metric: str) -> list[dict]:
    kept, least = [], float("inf")
    for row in sorted(rows, key=lambda r: (r["tpot"], r[metric])):
        if row[metric] < least:
            kept.append(row)
            least = row[metric]
    return kept


def catalogue(axes: Axes, data: Data, metric: str) -> None:
    """Each chip's own front over batches and plans, named at its quick end."""
    chips = data["catalogue"]
    for mark, name in zip(MARKS, chips.kinds("chip"), strict=False):
        rows = undominated(chips.where(chip=name, fits=True), metric)
        rows = [r for r in rows if r["tpot"] <= TIMES[-1] / 1e3]
        x, y = [r["tpot"] * 1e3 for r in rows], [r[metric] for r in rows]
        axes.plot(x, y, "-", marker=mark, color=GREY, lw=0.9, ms=4, mfc="white", zorder=1.5, label=name)


def scaled(axes: Axes, metric: list[float], beside: list[float] | None = None) -> None:
    """Log axes that hold a metric, and the least of those beside it."""
    low = min([*metric, *(beside or [])])
    axes.set(xscale="log", yscale="log", xlim=(2, 60), ylim=(low * 0.8, max(metric) * 1.5))
    low, high = axes.get_ylim()
    plain(axes, "xy", {"x": TIMES, "y": [t for t in TICKS if low <= t <= high]})


def attained(data: Data, metric: str) -> list[float]:
    return [r[metric] for r in data["catalogue"].where(fits=True) if r["tpot"] <= TIMES[-1] / 1e3]


def draw(data: Data) -> Figure:
    designs, clean = data["designs"], data["cleanest"]
    figure, ((first, second, sixth), (third, fourth, fifth)) = plt.subplots(
        2, 3, figsize=(WIDE, 6.6), layout="constrained"
    )
    best, (base,) = best_of(data), data["base"].rows
    catalogue(first, data, "usd_per_mtok")
    for look, plan in zip(
        ({"color": BLUE, "ls": "-"}, {"color": RED, "ls": "--"}), sorted(designs.kinds("plan")), strict=False
    ):
        rows = undominated(designs.where(plan=plan), "usd_per_mtok")
        first.plot(
            [r["tpot"] * 1e3 for r in rows],
            [r["usd_per_mtok"] for r in rows],
            marker="o",
            label=f"co-designed, {plan}",
            **look,
        )
    for axes, metric in ((second, "gco2e_per_mtok"), (sixth, "joules_per_token")):
        catalogue(axes, data, metric)
        rows = undominated(best, metric)
        axes.plot(
            [r["tpot"] * 1e3 for r in rows],
            [r[metric] for r in rows],
            "-s",
            color=BLACK,
            ms=4,
            label="cheapest designs",
        )
        scaled(axes, [r[metric] for r in designs.rows], attained(data, metric))
    second.plot(
        [r["tpot"] * 1e3 for r in clean.rows], [r["gco2e_per_mtok"] for r in clean.rows], ":D", color=GREEN,
        label="designs with least CO2e",
    )  # fmt: skip
    scaled(first, [r["usd_per_mtok"] for r in designs.rows], attained(data, "usd_per_mtok"))
    times = [r["bound"] * 1e3 for r in best]
    for look, (knob, name) in zip(looks(), KNOBS.items(), strict=False):
        third.plot(times, [r[knob] / base[knob] for r in best], **look, label=name)
    scaled(third, [r[knob] / base[knob] for r in best for knob in KNOBS])
    third.legend(fontsize=7.5)
    fourth.plot(times, [r["batch"] for r in best], "-o", color=BLACK)
    scaled(fourth, [r["batch"] for r in best])
    at, wide = range(len(best)), 0.8
    under = [0.0] * len(best)
    for colour, hatch, limit in zip(COLOURS, HATCHES, LIMITS, strict=False):
        worth = [r[f"worth_of_{limit}"] for r in best]
        if max(worth) > 1e-3:
            fifth.bar(
                at, worth, wide, bottom=under, color=colour, hatch=hatch, edgecolor="white", lw=0.4,
                label="time per token" if limit == "tpot" else limit,
            )  # fmt: skip
            under = [a + b for a, b in zip(under, worth, strict=True)]
    fifth.set_xticks(at, [f"{t:g}" for t in times])
    fifth.legend(fontsize=7.5)
    fifth.grid(axis="x", visible=False)
    for axes, title, x, y in (
        (first, "Cost against time", "TPOT (ms)", designs.label("usd_per_mtok", "cost")),
        (second, "CO2e against time", "TPOT (ms)", designs.label("gco2e_per_mtok", "CO2e")),
        (
            third,
            "Composition of the cheapest design",
            "bound on TPOT (ms)",
            f"ratio to {base['chip'].upper()}",
        ),
        (fourth, "Batch, eight chips", "bound on TPOT (ms)", "requests in flight"),
        (fifth, "Shadow prices of limits", "bound on TPOT (ms)", "% of cost per 1%"),
        (sixth, "Energy against time", "TPOT (ms)", designs.label("joules_per_token", "energy")),
    ):
        axes.set_title(title)
        axes.set(xlabel=x, ylabel=y)
    handles, labels = first.get_legend_handles_labels()
    more, names = second.get_legend_handles_labels()
    figure.legend([*handles, *more[-2:]], [*labels, *names[-2:]], loc="outside lower center", ncols=5)
    return figure


if __name__ == "__main__":
    run(draw)
