"""FLOPS and bandwidth by year, 2012-2026, their ratio, and their growth against published rates."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from style import BLACK, BLUE, GREY, RED, WIDE, Data, looks, plain, run

FIRST = 2012
QUANTITIES = {"flops_16": "16-bit FLOP/s", "flops_64": "FP64 FLOP/s", "bandwidth": "bandwidth"}


def points(axes: Axes, data: Data, column: str, scale: float, *, fill: bool = True) -> None:
    """Mark the chips, a mark and a colour a vendor; hollow where another series shares the axes."""
    for look, vendor in zip(looks(), data["chips"].kinds("vendor"), strict=False):
        rows = [r for r in data["chips"].where(vendor=vendor) if r[column] is not None]
        axes.plot(
            [r["year"] for r in rows],
            [r[column] * scale for r in rows],
            ls="",
            marker=look["marker"],
            color=look["color"],
            mfc=look["color"] if fill else "white",
            label=vendor if fill else None,
        )


def line(axes: Axes, data: Data, column: str, of: str, scale: float, dash: str) -> None:
    """Draw a fitted line over the years of all chips."""
    (fit,) = data["growth"].where(quantity=column, of=of)
    last = max(data["chips"].values("year"))
    ends = [fit[f"in_{FIRST}"] * scale * fit["per_two_years"] ** ((y - FIRST) / 2) for y in (FIRST, last)]
    axes.plot([FIRST, last], ends, color=BLACK, ls=dash, lw=1.1, zorder=1)
    axes.annotate(
        f"x{fit['per_two_years']:.2f}",
        (last, ends[1]),
        (5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def name(axes: Axes, data: Data, column: str, scale: float, places: dict[str, tuple[int, int]]) -> None:
    for chip, offset in places.items():
        for row in data["chips"].where(chip=chip):
            axes.annotate(
                chip.removeprefix("Tesla ").split(" ")[0] if chip != "TPU v6e Trillium" else "TPU v6e",
                (row["year"], row[column] * scale),
                offset,
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )


def rates(axes: Axes, data: Data) -> None:
    """Growth with its standard error, published rates beside it."""
    table = data["growth"]
    place = 0
    ticks, labels = [], []
    for quantity, text in QUANTITIES.items():
        rows = table.where(quantity=quantity)
        for row in rows:
            if row["published"]:
                axes.plot(row["per_two_years"], place, marker="D", color=RED, ls="", mfc="white", mew=1.4)
            else:
                axes.errorbar(
                    row["per_two_years"],
                    place,
                    xerr=row["standard_error"],
                    fmt="o",
                    color=BLUE,
                    capsize=2.5,
                    lw=1.2,
                )
            ticks.append(place)
            labels.append(
                row["of"].replace("arXiv:2601.05047: NVIDIA, 2012-2022", "arXiv:2601.05047").split(": 20")[0]
            )
            place += 1
        axes.text(4.55, place - len(rows) - 0.2, text, ha="right", va="center", fontsize=8, fontweight="bold")
        place += 0.8
    axes.errorbar([], [], xerr=[], fmt="o", color=BLUE, capsize=2.5, label="fit, one standard error")
    axes.plot([], [], marker="D", color=RED, ls="", mfc="white", mew=1.4, label="published")
    axes.set_yticks(ticks, labels, fontsize=7.5)
    axes.set(xlim=(1, 4.6), ylim=(place - 0.4, -0.8), xlabel="growth per two years")
    axes.xaxis.set_major_formatter(lambda v, _: f"x{v:g}")
    axes.legend(loc="lower right", fontsize=7.5)
    axes.set_title("d  Growth rates, fitted and published")


def draw(data: Data) -> Figure:
    chips = data["chips"]
    figure, ((flops, bandwidth), (ratio, growth)) = plt.subplots(
        2, 2, figsize=(WIDE, 7.4), layout="constrained", width_ratios=(1, 1)
    )
    points(flops, data, "flops_16", 1e-12)
    points(flops, data, "flops_64", 1e-12, fill=False)
    line(flops, data, "flops_16", "NVIDIA", 1e-12, "-")
    line(flops, data, "flops_64", f"NVIDIA, {FIRST}-2022", 1e-12, "--")
    flops.plot([], [], "o", mfc="white", color=GREY, label="hollow: FP64")
    flops.plot([], [], color=BLACK, lw=1.1, label="fit, NVIDIA")
    flops.plot([], [], color=BLACK, lw=1.1, ls="--", label="fit, NVIDIA to 2022")
    flops.set(yscale="log", ylim=(0.5, 9000), ylabel=chips.label("flops_16", "peak rate", "T"))
    plain(flops, "y", {"y": [1, 10, 100, 1000]})
    flops.set_title("a  Peak rates diverge with matrix units")
    flops.legend(loc="upper left", fontsize=7.5, labelspacing=0.3)
    name(flops, data, "flops_16", 1e-12, {"Tesla V100": (0, 7), "Tesla K20X": (0, 7), "Rubin VR200": (-4, 8)})
    name(flops, data, "flops_64", 1e-12, {"Tesla K20X": (0, -13), "B300 SXM": (0, -12)})

    points(bandwidth, data, "bandwidth", 1e-12)
    line(bandwidth, data, "bandwidth", "NVIDIA", 1e-12, "-")
    line(bandwidth, data, "bandwidth", f"NVIDIA, {FIRST}-2022", 1e-12, "--")
    bandwidth.set(yscale="log", ylabel=chips.label("bandwidth", "memory bandwidth", "T"))
    plain(bandwidth, "y", {"y": [0.2, 0.5, 1, 2, 5, 10, 20]})
    bandwidth.set_title("b  Bandwidth grows more steadily")
    name(
        bandwidth,
        data,
        "bandwidth",
        1e-12,
        {"Tesla K20X": (0, 7), "Rubin VR200": (-4, 8), "TPU v6e Trillium": (0, -13)},
    )

    points(ratio, data, "flop_per_byte_16", 1)
    points(ratio, data, "flop_per_byte_64", 1, fill=False)
    line(ratio, data, "flop_per_byte_16", "NVIDIA", 1, "-")
    ratio.set(yscale="log", ylabel=chips.label("flop_per_byte_16", "peak rate over bandwidth"))
    plain(ratio, "y", {"y": [0.1, 1, 10, 100, 1000]})
    ratio.set_title("c  FLOP per byte: one jump in 2017, then level")
    name(
        ratio,
        data,
        "flop_per_byte_16",
        1,
        {"Tesla V100": (0, 7), "TPU v6e Trillium": (0, 7), "Rubin VR200": (0, -13)},
    )
    name(ratio, data, "flop_per_byte_64", 1, {"B300 SXM": (0, 7)})
    for axes in (flops, bandwidth, ratio):
        axes.set(xlim=(FIRST - 0.7, 2027.8), xticks=range(FIRST, 2028, 2))
    rates(growth, data)
    return figure


if __name__ == "__main__":
    run(draw)
