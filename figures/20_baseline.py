"""Time per token, KV-cache traffic and power of a 7B model on one chip, against batch."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from style import WIDE, Data, looks, plain, run

PANELS = (
    ("tpot", "time per token", "m", 1e3),
    ("cache_bandwidth", "cache traffic", "T", 1e-12),
    ("power", "power of the chip", "", 1.0),
)


def draw(data: Data) -> Figure:
    steps = data["steps"]
    figure, panels = plt.subplots(1, 3, figsize=(WIDE, 3.2), layout="constrained")
    for axes, (column, text, prefix, scale) in zip(panels, PANELS, strict=True):
        for look, context in zip(looks(), steps.kinds("context"), strict=False):
            rows = steps.where(context=context)
            axes.plot(
                [r["batch"] for r in rows],
                [r[column] * scale for r in rows],
                label=f"context {context:,}",
                **look,
            )
            full = [r for r in rows if not r["fits"]]
            axes.plot(
                [r["batch"] for r in full],
                [r[column] * scale for r in full],
                ls="",
                marker=look["marker"],
                mfc="white",
                mec=look["color"],
                zorder=3,
            )
            if column == "tpot":
                by_hand = [r["tpot_by_hand"] * scale for r in rows]
                axes.plot([r["batch"] for r in rows], by_hand, "x", color="black", ms=7, zorder=4)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log" if column == "tpot" else "linear")
        plain(axes, "xy" if column == "tpot" else "x", {"x": steps.kinds("batch"), "y": [5, 10, 20, 50, 100]})
        axes.set(xlabel="batch", ylabel=steps.label(column, text, prefix), title=text)
    panels[1].set_ylim(0)
    panels[2].set_ylim(0)
    panels[0].plot([], [], "x", color="black", ms=7, label="bytes over bandwidth, by hand")
    panels[0].plot([], [], "o", mfc="white", mec="black", label="does not fit")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


if __name__ == "__main__":
    run(draw)
