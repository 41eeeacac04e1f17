"""Memory prices by year, and the cost of a million tokens by design, part and year of purchase."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from style import BLACK, COLOURS, DASHES, HATCHES, WIDE, Data, looks, plain, run

GB = 1e9
PARTS = (
    "memory",
    "dies and package",
    "vendor's margin",
    "servers, network, racks",
    "upkeep, building, interest",
    "electricity, water",
)
SHIFT = 0.12  # years by which families stand apart


def history(axes: Axes, data: Data) -> None:
    """Reported prices hollow, estimates filled with their interval."""
    table = data["history"]
    families = table.kinds("family")
    for k, (look, family) in enumerate(zip(looks(), families, strict=False)):
        drawn = look | {"linestyle": ""}
        for row in table.where(family=family):
            x, y = row["year"] + SHIFT * (k - len(families) / 2), row["price"] * GB
            if row["low"] is None:
                axes.plot(x, y, mfc="white", **drawn)
            else:
                span = [[y - row["low"] * GB], [row["high"] * GB - y]]
                axes.errorbar(x, y, yerr=span, capsize=2.5, lw=1.1, **drawn)
        axes.plot([], [], label=family, **drawn)
    axes.plot([], [], "o", mfc="white", mec=BLACK, label="hollow: as reported")
    axes.set(
        yscale="log", ylabel=f"price ({table.units['price'].replace('/B', '/GB')})", xticks=range(2023, 2027)
    )
    axes.set(xlim=(2022.6, 2027.1), ylim=(0.03, 200))
    plain(axes, "y", {"y": [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]})
    axes.set_title("a  DDR and flash prices rose in 2026")
    axes.legend(loc="upper left", ncols=2, fontsize=7.5)


def parts(axes: Axes, data: Data) -> None:
    """Shares of the cost, and what it is."""
    table = data["designs"]
    for place, row in enumerate(table.rows):
        left = 0.0
        for part, colour, hatch in zip(PARTS, COLOURS, HATCHES, strict=False):
            share = row[part] / row["usd_per_mtok"]
            axes.barh(
                place,
                share,
                left=left,
                height=0.55,
                color=colour,
                hatch=hatch,
                edgecolor="white",
                label=part if place == 0 else None,
            )
            left += share
        flash = f", {row['flash_sites']:.0f} of 8 sites flash" if row["flash_sites"] else ""
        text = (
            f"{row['usd_per_mtok']:.2f} {table.units['usd_per_mtok']}; {row['chips']:.0f} chips of "
            f"{row['chip_price']:,.0f} USD{flash}, batch {row['batch']:,.0f}; elasticity {row['elasticity']:.2f}"
        )
        axes.text(0.0, place - 0.31, text, fontsize=7.5, va="bottom")
    axes.set_yticks(range(len(table.rows)), [row["design"].replace(", ", "\n") for row in table.rows])
    axes.set(xlim=(0, 1), ylim=(len(table.rows) - 0.4, -0.75), xlabel="share of the cost of a token")
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("b  Parts of the cost of a token")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.14), ncols=3, fontsize=7, columnspacing=1.0)


def years(axes: Axes, data: Data, design: str, colour: str) -> None:
    """Cost against that of the first year, by the trend and with the jump."""
    table = data["years"]
    base = table.where(design=design, scenario="trend")[0]["usd_per_mtok"]
    for scenario, dash, mark in zip(table.kinds("scenario"), DASHES, ("o", "s"), strict=False):
        rows = [
            r
            for r in table.where(design=design, scenario=scenario)
            if scenario == "trend" or r["year"] >= 2025
        ]
        x = [r["year"] for r in rows]
        axes.plot(
            x,
            [r["usd_per_mtok"] / base for r in rows],
            color=colour,
            ls=dash,
            marker=mark,
            ms=4,
            label=scenario,
        )
        low, high = ([r[k] / base for r in rows] for k in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axes.set(xticks=range(table.kinds("year")[0], table.kinds("year")[-1] + 1, 1))
    axes.xaxis.set_major_formatter(lambda v, _: f"'{v % 100:.0f}")
    axes.set_title(f"{design} ({base:.3g} {table.units['usd_per_mtok']})", fontsize=8, fontweight="normal")


def draw(data: Data) -> Figure:
    figure = plt.figure(figsize=(WIDE, 7.2), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.75, 1))
    left, right = above.subplots(1, 2, width_ratios=(1, 1.25))
    history(left, data)
    parts(right, data)
    designs = data["years"].kinds("design")
    panels = below.subplots(1, len(designs), sharey=True)
    for axes, design, colour in zip(panels, designs, COLOURS, strict=False):
        years(axes, data, design, colour)
    panels[0].set_ylabel(f"cost of a token, {data['years'].kinds('year')[0]} = 1")
    panels[0].legend(loc="upper left", fontsize=7.5)
    title = "c  Cost of a million tokens by year of memory purchase; bands: low and high prices"
    below.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


if __name__ == "__main__":
    run(draw)
