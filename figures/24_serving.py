"""Speed against throughput by chip, prefix caches by tier and capacity, and percentiles under slow links."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    MARKS,
    RED,
    WIDE,
    Data,
    looks,
    plain,
    run,
)  # fmt: skip

SPEEDS = [10, 20, 50, 100, 200, 500]
TICKS = [m * 10**k for k in range(-4, 6) for m in (1, 2, 5)]
GIGABYTES = [16, 64, 256, 1024, 4096]
CHANGES = {
    "hop latency": "x times the hop latency",
    "bandwidth": "1/x of the bandwidth",
    "jitter": "x - 1 us of jitter",
}


def ticks_within(axes: Axes) -> None:
    """Put ticks 1, 2, 5 of each decade on the y axis, or 1 alone where it has more than two decades."""
    low, high = axes.get_ylim()
    ticks = TICKS[::3] if high / low > 100 else TICKS
    plain(axes, "y", {"y": [t for t in ticks if low <= t <= high]})


def draw_front(axes: Axes, data: Data, kind: str) -> None:
    """Draw the front of every chip."""
    fronts = data["fronts"]
    for look, chip in zip(looks(), fronts.kinds("chip"), strict=False):
        rows = sorted(fronts.where(kind=kind, chip=chip), key=lambda r: r["user"])
        width = 1.2 if all(r["catalogue"] for r in rows) else 2.2
        x, y = [r["user"] for r in rows], [r["throughput"] for r in rows]
        axes.plot(x, y, **look, lw=width, ms=4, markevery=3, label=chip)
    axes.set(xscale="log", yscale="log", xlim=(9, 600), title=f"Front, {kind}")
    axes.set_xlabel(fronts.label("user", "speed of a user"))
    axes.set_ylabel(fronts.label("throughput", "throughput of a chip"))
    plain(axes, "x", {"x": SPEEDS})
    ticks_within(axes)


def draw_caches(axes: Axes, data: Data, table: str, column: str) -> None:
    """Draw a column against the capacity of each tier, and no cache as a line across."""
    shown = data[table]
    rows = [r for r in shown.rows if table != "caches" or r["sessions"] == middle(data)]
    for look, tier in zip(looks(), [t for t in shown.kinds("tier") if t != "none"], strict=False):
        mine = [r for r in rows if r["tier"] == tier and r[column] is not None]
        axes.plot([r["capacity"] / 1e9 for r in mine], [r[column] for r in mine], **look, label=tier)
    without = [r[column] for r in rows if r["tier"] == "none" and r[column] is not None]
    for value in without:
        axes.axhline(value, color=BLACK, ls=(0, (1, 2)), lw=1.2)
    axes.set(xscale="log", xlim=(8, 6000))
    axes.set_xlabel(shown.label("capacity", "prefix cache", "G"))
    plain(axes, "x", {"x": GIGABYTES})


def middle(data: Data) -> float:
    """Return the session rate at which capacities are compared."""
    rates = sorted(data["caches"].kinds("sessions"))
    return rates[len(rates) // 2]


def draw_links(axes: Axes, data: Data, metric: str) -> None:
    """Draw a percentile over that of links as they are: all replicas, and one of eight."""
    links = data["links"]
    count = max(links.kinds("replicas"))
    for colour, mark, change in zip((BLUE, RED, GREEN), MARKS, links.kinds("change"), strict=False):
        for replicas in links.kinds("replicas"):
            rows = links.where(change=change, replicas=replicas)
            every = replicas == count
            axes.plot(
                [r["factor"] for r in rows],
                [r[metric] / rows[0][metric] for r in rows],
                color=colour,
                marker=mark,
                ls="-" if every else "--",
                mfc=colour if every else "white",
            )
    axes.set(xscale="log", yscale="log", xlabel="x", ylabel="ratio to links as they are")
    plain(axes, "x", {"x": links.kinds("factor")})
    ticks_within(axes)


def draw(data: Data) -> Figure:
    figure = plt.figure(figsize=(WIDE, 9.6), layout="constrained")
    upper, centre, lower = figure.subfigures(3, 1)
    kinds = data["fronts"].kinds("kind")
    panels = upper.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, (kinds[0], kinds[-1]), strict=True):
        draw_front(axes, data, kind)
    panels[1].set_ylabel("")
    handles, labels = panels[0].get_legend_handles_labels()
    upper.legend(handles, labels, loc="outside lower center", ncols=4)
    first, second, third = centre.subplots(1, 3)
    draw_caches(first, data, "caches", "hits")
    first.set(ylim=(0, 1), ylabel="share of prompt tokens", title="Hits")
    draw_caches(second, data, "caches", "ttft_99")
    turns = data["caches"].values("turns", sessions=middle(data))[0]
    second.set(
        yscale="log", title=f"p99 TTFT at {turns:.2g} turns/s", ylabel=data["caches"].label("ttft_99", "time")
    )
    ticks_within(second)
    draw_caches(third, data, "limits", "usd_per_mtok")
    third.set(title="Cost within the limits", ylabel=data["limits"].label("usd_per_mtok", "cost"))
    third.set_ylim(bottom=0)
    handles, labels = first.get_legend_handles_labels()
    handles.append(plt.Line2D([], [], color=BLACK, ls=(0, (1, 2)), lw=1.2))
    centre.legend(handles, [*labels, "no cache"], loc="outside lower center", ncols=5)
    left, right = lower.subplots(1, 2)
    draw_links(left, data, "ttft_99")
    left.set_title("p99 TTFT under slow links")
    draw_links(right, data, "tpot_99")
    right.set_title("p99 TPOT under slow links")
    handles = [
        plt.Line2D([], [], color=colour, marker=mark, label=CHANGES[change])
        for colour, mark, change in zip(
            (BLUE, RED, GREEN), MARKS, data["links"].kinds("change"), strict=False
        )
    ]
    handles += [
        plt.Line2D([], [], color=GREY, ls="-", marker="o", label="all replicas"),
        plt.Line2D([], [], color=GREY, ls="--", marker="o", mfc="white", label="one of eight"),
    ]
    lower.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


if __name__ == "__main__":
    run(draw)
