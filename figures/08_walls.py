"""Tokens per second by bandwidth, KV cache that fits by system, and throughput against latency by batch."""

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from style import BLACK, BLUE, DASHES, GREY, PALE, WIDE, Data, looks, plain, run

NAMES = {
    "llama-3.1-8b": "Llama 8B",
    "llama-3.1-70b": "Llama 70B",
    "llama-3.1-405b": "Llama 405B",
    "deepseek-v3": "DeepSeek-V3",
    "kimi-k2": "Kimi K2",
}
BITS = 8  # of panel a
PLACES = {"8 H100": (0, -14), "8 H200": (-7, 7)}  # points from a mark to its number
FRAME = {"frameon": True, "framealpha": 1.0, "edgecolor": "white", "handlelength": 2.4}
FAR = 260.0  # TB/s: what lies beyond is told at the edge


def bandwidth(axes: Axes, data: Data) -> None:
    table, marks = data["bandwidth"], data["marks"]
    pace = {m: table.values("tokens_per_second", model=m, bits=BITS)[-1] for m in table.kinds("model")}
    for look, model in zip(looks(), sorted(pace, key=pace.get, reverse=True), strict=False):
        rows = table.where(model=model, bits=BITS)
        x, y = [r["bandwidth"] / 1e12 for r in rows], [r["tokens_per_second"] for r in rows]
        axes.plot(x, y, label=NAMES[model], **look | {"marker": ""})
        held = [
            m["bandwidth"] / 1e12
            for m in marks.rows
            if model in m["holds_at_8_bits"].split(", ") and m["bandwidth"] / 1e12 < FAR
        ]
        at = np.exp(np.interp(np.log(held), np.log(x), np.log(y)))
        axes.plot(held, at, ls="", marker=look["marker"], color=look["color"], zorder=3)
    for mark in marks.rows:
        x = mark["bandwidth"] / 1e12
        away = x > FAR
        text = f"{mark['memory']} →" if away else mark["memory"]
        if not away:
            axes.axvline(
                x, ymax=0.79, color=GREY, lw=0.7, ls="-" if mark["sold_today"] else DASHES[1], zorder=0
            )
        axes.text(
            min(x, FAR),
            0.8,
            text,
            rotation=90,
            ha="center",
            va="bottom",
            fontsize=7,
            transform=axes.get_xaxis_transform(),
        )
    axes.plot([], [], color=GREY, lw=0.7, label="sold today")
    axes.plot([], [], color=GREY, lw=0.7, ls=DASHES[1], label="announced")
    axes.plot([], [], "o", color=BLACK, label="weights fit")
    axes.set(xscale="log", yscale="log", xlim=(0.2, 330), ylim=(0.05, 1e6))
    plain(axes, "xy", {"x": [0.2, 1, 5, 20, 100], "y": [1, 10, 100, 1000, 10000]})
    axes.set_yticklabels(["1", "10", "100", "1,000", "10,000"])
    axes.set(
        xlabel=table.label("bandwidth", "memory bandwidth", "T"),
        ylabel=table.label("tokens_per_second", "speed of one user"),
    )
    axes.set_title(f"a  Bandwidth limits the speed of one user ({BITS}-bit weights)")
    axes.legend(loc="lower right", fontsize=7, ncols=2, labelspacing=0.3, columnspacing=1.2, **FRAME)


def short(tokens: float) -> str:
    """Two digits and a letter."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.0f}{letter}" if tokens >= 10 * size else f"{tokens / size:.1f}{letter}"
    return f"{tokens:.0f}"


def capacity(axes: Axes, data: Data) -> None:
    table = data["capacity"]
    systems, models, bits = (table.kinds(k) for k in ("system", "model", "bits"))
    shades = LinearSegmentedColormap.from_list("cache", ["#EAF3FA", BLUE])
    columns = [(m, b) for m in models for b in bits]
    for i, system in enumerate(systems):
        for j, (model, bit) in enumerate(columns):
            (row,) = table.where(system=system, model=model, bits=bit)
            shade = (math.log10(max(row["tokens"], 1)) - 4) / 5
            look = (
                {"facecolor": shades(min(max(shade, 0), 1))}
                if row["fits"]
                else {"facecolor": "white", "hatch": "////"}
            )
            axes.add_patch(
                plt.Rectangle((j, i), 1, 1, edgecolor="white" if row["fits"] else PALE, lw=0.8, **look)
            )
            if row["fits"]:
                colour = "white" if shade > 0.7 else BLACK
                axes.text(
                    j + 0.5,
                    i + 0.5,
                    short(row["tokens"]),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=colour,
                )
    for j in range(0, len(columns) + 1, len(bits)):
        axes.axvline(j, color=BLACK, lw=0.8)
    held = {s: table.values("capacity", system=s)[0] / 1e9 for s in systems}
    axes.set(xlim=(0, len(columns)), ylim=(len(systems), 0))
    axes.set_xticks([j + 0.5 for j in range(len(columns))], [f"{b}" for _, b in columns])
    axes.set_yticks(
        [i + 0.5 for i in range(len(systems))],
        [f"{s} ({held[s]:,.0f} G{table.units['capacity']})" for s in systems],
    )
    for k, model in enumerate(models):
        x = (k + 0.5) * len(bits)
        axes.text(x, -0.12, NAMES[model], ha="center", va="bottom", fontsize=8.5, fontweight="bold")
    axes.set_xlabel("bits per weight")
    axes.set_title(
        "b  Capacity: tokens of KV cache that fit next to the weights (hatched: does not fit)", pad=20
    )
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def latency(axes: Axes, data: Data) -> None:
    table = data["latency"]
    for look, system in zip(looks(), table.kinds("system"), strict=False):
        rows = table.where(system=system)
        x, y = [r["tpot"] * 1e3 for r in rows], [r["tokens_per_second_per_chip"] for r in rows]
        axes.plot(x, y, label=system, **look | {"marker": "", "lw": 1.2})
        for fits in (True, False):
            at = [k for k, r in enumerate(rows) if r["fits"] == fits]
            fill = {} if fits else {"mfc": "white"}
            axes.plot(
                [x[k] for k in at],
                [y[k] for k in at],
                ls="",
                marker=look["marker"],
                color=look["color"],
                **fill,
            )
        turn = next((k for k, r in enumerate(rows) if not r["weights_bound_by_memory"]), None)
        if turn is not None:
            axes.plot(x[turn], y[turn], "o", ms=11, mfc="none", mec=BLACK, mew=1.1)
        last = max(k for k, r in enumerate(rows) if r["fits"])
        axes.annotate(
            f"{rows[last]['batch']}",
            (x[last], y[last]),
            PLACES.get(system, (0, 8)),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
        )
    axes.plot([], [], " ", label="number: largest batch that fits")
    axes.plot([], [], "o", mfc="white", mec=BLACK, label="cache does not fit")
    axes.plot([], [], "o", ms=9, mfc="none", mec=BLACK, label="weight matmuls become\ncompute-bound")
    axes.set(xscale="log", yscale="log")
    plain(axes, "xy", {"x": [0.5, 1, 2, 5, 10, 20, 50], "y": [1, 10, 100, 1000, 10000]})
    axes.set_yticklabels(["1", "10", "100", "1,000", "10,000"])
    axes.set(
        xlabel=table.label("tpot", "time per token", "m"),
        ylabel=table.label("tokens_per_second_per_chip", "throughput per chip"),
        ylim=(1, 4e4),
    )
    axes.set_title("c  Latency: throughput costs time per token")
    axes.legend(loc="lower right", fontsize=7, labelspacing=0.3)


def draw(data: Data) -> Figure:
    figure = plt.figure(figsize=(WIDE, 7.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    left, right = above.subplots(1, 2, width_ratios=(1.15, 1))
    bandwidth(left, data)
    latency(right, data)
    capacity(below.subplots(), data)
    return figure


if __name__ == "__main__":
    run(draw)
