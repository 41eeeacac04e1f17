"""Time per token against number of chips, for three models on two fabrics; parallel efficiency; share of messages."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from style import BLACK, GREY, WIDE, Data, looks, plain, run

FABRICS = {"today": "-", "fast": "--"}
BATCH_LOOKS = ({"color": BLACK, "marker": "o"}, {"color": GREY, "marker": "s"})


def lines(axes: Axes, rows: list[dict], values: list[float], look: dict) -> None:
    """A line over chips, hollow where the model does not fit."""
    chips = [r["chips"] for r in rows]
    axes.plot(chips, values, **look)
    for row, x, y in zip(rows, chips, values, strict=True):
        if not row["fits"]:
            axes.plot(x, y, marker=look["marker"], mec=look["color"], mfc="white", zorder=3)


def draw(data: Data) -> Figure:
    designs = data["designs"]
    models, batches = designs.kinds("model"), designs.kinds("batch")
    look = dict(zip(models, looks(), strict=False))
    figure, (time, efficiency, share) = plt.subplots(1, 3, figsize=(WIDE, 3.9), layout="constrained")
    for fabric, dash in FABRICS.items():
        for model in models:
            rows = designs.where(model=model, fabric=fabric, batch=batches[0])
            here = {**look[model], "linestyle": dash}
            lines(time, rows, [r["tpot"] * 1e3 for r in rows], here)
            lines(efficiency, rows, [r["speedup"] / r["chips"] for r in rows], here)
        for batch, style in zip(batches, BATCH_LOOKS, strict=True):
            rows = designs.where(model=models[-1], fabric=fabric, batch=batch)
            lines(share, rows, [r["message_share"] for r in rows], {**style, "linestyle": dash})
    time.set(yscale="log", title="Time per token")
    time.set_ylabel(designs.label("tpot", "time per token, batch 1", "m"))
    efficiency.set(ylabel="speed-up / chips, batch 1", title="Parallel efficiency", ylim=(0.4, 1.03))
    share.set(ylabel=f"messages' share of TPOT, {models[-1]}", title="Share of communication", ylim=(0, 0.4))
    for axes in (time, efficiency, share):
        axes.set(xscale="log", xlabel="chips")
        plain(axes, "x", {"x": designs.kinds("chips")})
        axes.tick_params(axis="x", which="minor", bottom=False)
    plain(time, "y", {"y": [1, 2, 5, 10, 20, 50]})
    share.yaxis.set_major_formatter(PercentFormatter(1.0, 0))
    efficiency.yaxis.set_major_formatter(PercentFormatter(1.0, 0))
    messages = {r["fabric"]: r["message"] * 1e6 for r in designs.rows}
    handles = [Line2D([], [], **{**look[m], "linestyle": "-"}, label=m) for m in models]
    handles.append(Line2D([], [], color=BLACK, marker="o", mfc="white", ls="", label="does not fit"))
    handles += [
        Line2D([], [], color=BLACK, ls=dash, label=f"{messages[name]:.1f} µs per message")
        for name, dash in FABRICS.items()
    ]
    handles += [
        Line2D([], [], **style, ls="-", label=f"batch {batch} (right)")
        for batch, style in zip(batches, BATCH_LOOKS, strict=True)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    run(draw)
