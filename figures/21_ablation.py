"""Time, energy and bytes over the edge of the chip with near-memory engines on and off, by operator class and batch."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from style import BLACK, COLOURS, MARKS, WIDE, Data, plain, run

COLUMNS = (("time_ratio", "time"), ("energy_ratio", "energy"), ("crossing_ratio", "bytes over the edge"))
TITLES = {"base die": "Base dies", "bank": "Bank units"}


def draw(data: Data) -> Figure:
    steps = data["steps"]
    engines, models = steps.kinds("engine"), steps.kinds("model")
    figure, panels = plt.subplots(
        len(engines), len(COLUMNS), figsize=(WIDE, 6.4), layout="constrained", sharex="col", sharey="row"
    )
    kinds = [k for k in steps.kinds("near") if k != "none"]
    batches = steps.kinds("batch")
    groups = [(model, batch) for model in models for batch in batches]
    width = 0.75 / len(kinds)
    for line, engine in zip(panels, engines, strict=True):
        for axes, (column, text) in zip(line, COLUMNS, strict=True):
            for j, kind in enumerate(kinds):
                values = [
                    steps.where(model=m, engine=engine, batch=b, near=kind)[0][column] for m, b in groups
                ]
                y = np.arange(len(groups)) + 0.5 * np.array([g // len(batches) for g in range(len(groups))])
                at = y + (j - (len(kinds) - 1) / 2) * width
                axes.hlines(at, np.minimum(values, 1), np.maximum(values, 1), color=COLOURS[j], lw=1.2)
                axes.plot(values, at, ls="", color=COLOURS[j], marker=MARKS[j], label=f"near memory: {kind}")
            axes.axvline(1, color=BLACK, lw=1)
            axes.set(xscale="log", xlim=(0.0004 if column == "crossing_ratio" else 0.07, 1.2))
            plain(
                axes, "x", {"x": [0.001, 0.01, 0.1, 1] if column == "crossing_ratio" else [0.1, 0.2, 0.5, 1]}
            )
            axes.grid(visible=False, axis="y")
            axes.set_title(f"{TITLES[engine]}: {text}")
        line[0].set_yticks(y, [f"{m}, batch {b}" if b == batches[0] else f"batch {b}" for m, b in groups])
        line[0].invert_yaxis()
    panels[-1, 1].set_xlabel("ratio to a decode step without near-memory engines")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(kinds))
    return figure


if __name__ == "__main__":
    run(draw)
