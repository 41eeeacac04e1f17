"""Flash against HBM4 and LPDDR5: time and cost of a token by active share, break-even price, and life."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from style import BLACK, COLOURS, GREY, HATCHES, PALE, WIDE, Data, looks, plain, run

SHARES = [2, 5, 10, 20, 50, 100]
YEAR = 365.25 * 86400
BLANK = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
PRICE = (0.8, 1.5, 3.0)  # USD/GB: low, mid and high of the catalogue


def draw(data: Data) -> Figure:
    figure, ((time, cost), (price, life)) = plt.subplots(2, 2, figsize=(WIDE, 7), layout="constrained")
    by_share(time, data["designs"], "fewest chips", "tpot", 1e3, "m")
    time.set_title("The smallest system that holds the model")
    time.legend(fontsize=7.5)
    by_share(cost, data["designs"], "cheapest token", "usd_per_mtok", 1.0, "")
    cost.set_title("The system with the cheapest token")
    cost.legend(fontsize=7.5)
    break_even(price, data["break_even"])
    lifetimes(life, data["lifetimes"])
    return figure


def by_share(axes, designs, goal: str, column: str, scale: float, prefix: str) -> None:
    size, batch = min(designs.values("parameters")), min(designs.values("batch"))
    for look, design in zip(looks(), designs.kinds("design"), strict=False):
        rows = designs.where(goal=goal, design=design, parameters=size, batch=batch)
        rows = [r for r in rows if r[column] is not None]
        chips = [r["chips"] for r in rows]
        count = f"{min(chips)}" if min(chips) == max(chips) else f"{min(chips)} to {max(chips)}"
        label = f"{design}, {count} chip{'s' if max(chips) > 1 else ''}"
        axes.plot([100 * r["active"] for r in rows], [r[column] * scale for r in rows], **look, label=label)
    axes.set(xscale="log", yscale="log", xlim=(2, 120))
    plain(axes, ticks={"x": SHARES, "y": [1, 2, 5, 10, 20, 50, 100, 200]})
    names = {"tpot": "time per token", "usd_per_mtok": "cost of tokens"}
    axes.set(
        xlabel=f"active share of {size / 1e9:.0f}e9 parameters (%)",
        ylabel=designs.label(column, names[column], prefix),
    )


def break_even(axes, even) -> None:
    size = min(even.values("parameters"))
    axes.axhspan(PRICE[0], PRICE[2], color=PALE, zorder=0)
    axes.axhline(PRICE[1], color=GREY, lw=1, zorder=1)
    styles = list(looks())
    bought = even.where(goal="fewest chips", parameters=size)
    first = bought[0]["latency"]
    pairs = [(r["active"] * 100, r["price"] * 1e9) for r in bought if r["latency"] == first]
    axes.plot(*zip(*pairs, strict=True), **styles[3], label="smallest system")
    for look, latency in zip(styles, even.kinds("latency"), strict=False):
        rows = even.where(goal="cheapest token", parameters=size, latency=latency)
        axes.plot(
            [100 * r["active"] for r in rows],
            [r["price"] * 1e9 for r in rows],
            **look,
            label=f"per token, latency {latency * 1e6:.0f} us",
        )
    axes.axhline(0, color=BLACK, lw=0.8)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=5, linscale=1.2)
    plain(axes, ticks={"x": SHARES, "y": [-10, -5, -2, 0, 2, 5, 10, 20]})
    axes.set(xlim=(2, 120), ylim=(-14, 90))
    axes.text(100, PRICE[2] + 0.25, "assumed price, low to high", ha="right", fontsize=7.5, color=BLACK)
    axes.legend(fontsize=7.5, ncols=2, loc="upper left")
    axes.set(
        xlabel=f"active share of {size / 1e9:.0f}e9 parameters (%)",
        ylabel="break-even price of flash (USD/GB)",
        title="Break-even price: flash adds capacity, not bandwidth",
    )


def lifetimes(axes, worn) -> None:
    kinds = [k for k in worn.kinds("written") if all(v is not None for v in worn.values("life", written=k))]
    cycles = worn.kinds("cycles")
    high = 0.8 / len(cycles)
    for j, count in enumerate(cycles):
        years = [r["life"] / YEAR for kind in kinds for r in worn.where(written=kind, cycles=count)]
        y = np.arange(len(kinds)) + (j - (len(cycles) - 1) / 2) * high
        axes.barh(
            y,
            years,
            high,
            left=1e-3,
            color=COLOURS[j],
            hatch=HATCHES[j],
            edgecolor="white",
            label=f"{count:,.0f} cycles",
        )
        for at, value in zip(y, years, strict=True):
            axes.text(
                value * 1.15,
                at,
                f"{value:.2g}" if value < 10 else f"{value:,.0f}",
                va="center",
                fontsize=7.5,
                bbox=BLANK,
            )
    axes.axvline(5, color=BLACK, lw=1, ls="--")
    axes.text(5.4, -0.62, "5 years", fontsize=7.5)
    axes.set_xscale("log")
    axes.set(xlim=(0.03, 6000), ylim=(len(kinds) - 0.4, -0.8))
    axes.set_yticks(np.arange(len(kinds)), [k.replace(", ", ",\n").replace(" of ", "\nof ") for k in kinds])
    plain(axes, "x", {"x": [0.1, 1, 10, 100, 1000]})
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right", fontsize=7.5)
    axes.set(
        xlabel="service life of four stacks (years)", title="Flash endures weight updates, but not KV caches"
    )


if __name__ == "__main__":
    run(draw)
