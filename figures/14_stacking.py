"""3D stacking: temperature and tokens per second against bandwidth, rates of bonds, and logic in the base die."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from style import BLACK, BLUE, GREY, HATCHES, RED, WIDE, Data, looks, plain, run

ZERO = 273.15  # K at 0 C
HIGHEST = 128  # C, up to which the dotted lines are drawn: the legend is above
TERA = [4, 8, 16, 32, 64, 128]


def draw(data: Data) -> Figure:
    figure, ((hot, speed), (bonded, die)) = plt.subplots(2, 2, figsize=(WIDE, 7), layout="constrained")
    temperatures(hot, data["heat"])
    tokens(speed, data["heat"])
    bonds(bonded, data["bonds"])
    base_die(die, data["base_die"])
    return figure


def lines(heat) -> list[tuple[str, list[dict]]]:
    """One line a sink at full clock, and one at the lowest clock with the middle sink."""
    layers, energy, sinks, clocks = 8, 0.5, heat.kinds("sink"), heat.kinds("clock")
    key = {"layers": layers, "byte_energy": energy, "batch": min(heat.values("batch"))}
    found = [(sink, heat.where(sink=sink, clock=max(clocks), **key)) for sink in sinks]
    middle = sinks[len(sinks) // 2]
    return [*found, (f"{middle}, {min(clocks):.0%} clock", heat.where(sink=middle, clock=min(clocks), **key))]


def temperatures(axes, heat) -> None:
    top = max(heat.values("temperature")) - ZERO
    for look, (name, rows) in zip(looks(), lines(heat), strict=False):
        x = [r["bandwidth"] / 1e12 for r in rows]
        axes.plot(x, [r["temperature"] - ZERO for r in rows], **look, label=name)
        cool = [r["cool_temperature"] - ZERO for r in rows]
        axes.plot(x, [t if t < HIGHEST else None for t in cool], color=look["color"], lw=0.8, ls=":")
    axes.axhline(top, color=BLACK, lw=1)
    axes.text(4, top + 2, f"limit of the DRAM, {top:.0f} C", fontsize=7.5)
    axes.plot([], [], color=GREY, lw=0.8, ls=":", label="without throttling")
    axes.set(xscale="log", ylim=(35, 155))
    plain(axes, "x", {"x": TERA})
    axes.set(
        xlabel=heat.label("bandwidth", "bandwidth of the bonds", "T"),
        ylabel="junction temperature (C)",
        title="Decoding reaches the temperature limit of DRAM",
    )
    axes.legend(fontsize=7.5, loc="upper left", ncols=2)


def tokens(axes, heat) -> None:
    found = lines(heat)
    rows = found[0][1]
    axes.plot(
        [r["bandwidth"] / 1e12 for r in rows],
        [r["unheated"] for r in rows],
        color=BLACK,
        lw=1,
        label="without heat limit",
    )
    for look, (name, line) in zip(looks(), found, strict=False):
        axes.plot(
            [r["bandwidth"] / 1e12 for r in line], [r["tokens_per_second"] for r in line], **look, label=name
        )
    axes.set(xscale="log", yscale="log")
    plain(axes, ticks={"x": TERA, "y": [250, 500, 1000, 2000, 4000, 8000]})
    axes.set(
        xlabel=heat.label("bandwidth", "bandwidth of the bonds", "T"),
        ylabel=heat.label("tokens_per_second", "speed at batch 1"),
        title="Beyond the limit, bandwidth adds no speed",
    )
    axes.legend(fontsize=7.5)


def bonds(axes, table) -> None:
    for look, bond in zip(looks(), table.kinds("bond"), strict=False):
        rows = table.where(bond=bond)
        axes.plot([r["rate"] / 1e9 for r in rows], [r["bandwidth"] / 1e12 for r in rows], **look, label=bond)
    axes.set(xscale="log", yscale="log", ylim=(1, 1000))
    plain(
        axes, ticks={"x": sorted(r / 1e9 for r in table.kinds("rate")), "y": [1, 3, 10, 30, 100, 300, 1000]}
    )
    axes.set(
        xlabel=table.label("rate", "rate per bond", "G"),
        ylabel=table.label("bandwidth", "bandwidth", "T"),
        title="Hybrid bonds allow more bandwidth than heat does",
    )
    axes.legend(fontsize=7.5)


def base_die(axes, table) -> None:
    kinds = table.kinds("memory")
    y = np.arange(len(kinds))
    rows = [table.where(memory=kind, cap=0)[0] for kind in kinds]
    for j, (column, text, colour) in enumerate((("time_ratio", "time", BLUE), ("power_ratio", "power", RED))):
        values = [r[column] for r in rows]
        at = y + (j - 0.5) * 0.36
        axes.barh(at, values, 0.34, color=colour, hatch=HATCHES[j], edgecolor="white", label=text)
        for where, value in zip(at, values, strict=True):
            axes.text(value + 0.02, where, f"{value:.2f}", va="center", fontsize=8)
    axes.set_yticks(y, [k.replace(" energy", "\nenergy").replace(" in the", "\nin the") for k in kinds])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(
        xlim=(0, 1.45),
        xlabel="ratio to HBM4 at the same bandwidth, batch 1",
        title="Logic in the base die saves power, not time",
    )
    axes.legend(fontsize=8, loc="upper right")


if __name__ == "__main__":
    run(draw)
