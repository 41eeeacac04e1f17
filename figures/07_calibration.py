"""Predicted over measured seconds of rows on axes held out, op by op, and of served models left out.

`python figures/07_calibration.py` reads experiments/out/07_calibration.npz and writes figures/out/07_calibration.svg;
with `--page` docs/validation.svg too.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

ROOT = Path(__file__).parents[1]
CHIPS = {
    "a100-80gb-sxm": ("A100", "#0072B2", "o"),
    "h100-sxm": ("H100", "#D55E00", "s"),
    "l40s": ("L40S", "#009E73", "^"),
}
MODELS = ("#56B4E9", "#E69F00", "#CC79A7", "#000000", "#8C6D31")
MARKS = "DvP*X"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxcost",
}


def main() -> None:
    data = np.load(ROOT / "experiments" / "out" / "07_calibration.npz")
    ops = list(dict.fromkeys(data["op"].tolist()))
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(9.6, 9.6), layout="constrained")
        panels = figure.subplots(4, 3, sharey=True).ravel()
        for axes, op in zip(panels, ops, strict=False):
            at = data["op"] == op
            axes.scatter(
                data["measured"][at] * 1e6,
                data["roofline"][at] / data["measured"][at],
                s=3,
                color="0.8",
                lw=0,
                rasterized=True,
            )
            for chip, (_, colour, mark) in CHIPS.items():
                of = at & (data["chip"] == chip)
                axes.scatter(
                    data["measured"][of] * 1e6,
                    np.exp(data["held"][of]),
                    s=5,
                    lw=0,
                    color=colour,
                    marker=mark,
                    alpha=0.5,
                    rasterized=True,
                )
            off = np.abs(data["held"][at])
            frame(
                axes,
                f"{op.replace('_', ' ')}\nmedian {np.median(off):.3f}, 90th {np.quantile(off, 0.9):.3f}",
                "measured (us)",
            )
        good = ~data["serving_wrong"]
        names = sorted(set(data["serving_model"].tolist()))
        for axes, column, word in zip(panels[len(ops) :], (0, 1), ("TPOT", "TTFT"), strict=False):
            for number, name in enumerate(names):
                at = good & (data["serving_model"] == name)
                measured, held = data["serving_measured"][at, column], data["serving_held"][at, column]
                axes.scatter(
                    measured * 1e3,
                    held / measured,
                    s=8,
                    lw=0,
                    color=MODELS[number % 5],
                    marker=MARKS[number % 5],
                    alpha=0.7,
                    label=name,
                )
            off = np.abs(data["serving_held"][good, column] / data["serving_measured"][good, column] - 1)
            frame(
                axes,
                f"{word} of served models\nmedian {np.median(off):.1%}, 90th {np.quantile(off, 0.9):.1%}",
                "measured (ms)",
            )
        last = panels[len(ops) + 2 :]
        for axes in last:
            axes.set_axis_off()
        for axes in panels[::3]:
            axes.set_ylabel("predicted / measured")
        marks = [Line2D([], [], ls="", marker=m, color=c, label=n) for n, c, m in CHIPS.values()]
        marks.append(Line2D([], [], ls="", marker=".", color="0.7", label="plain roofline"))
        marks += [
            Line2D([], [], ls="", marker=MARKS[i % 5], color=MODELS[i % 5], label=name)
            for i, name in enumerate(names)
        ]
        where = last[0] if len(last) else figure
        where.legend(handles=marks, loc="center", frameon=False, title="kernels by chip; serving by model")
        out = ROOT / "figures" / "out"
        out.mkdir(exist_ok=True)
        figure.savefig(out / "07_calibration.svg", dpi=150, metadata={"Date": None})
        if "--page" in sys.argv:
            figure.savefig(ROOT / "docs" / "validation.svg", dpi=110, metadata={"Date": None})


def frame(axes, title: str, words: str) -> None:
    axes.axhline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(0.2, 5)
    axes.set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
    axes.minorticks_off()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(words)


if __name__ == "__main__":
    main()
