"""Output speed and battery energy of an answer on phones, by direction."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from style import BLUE, GREEN, GREY, ORANGE, WIDE, Data, plain, run

ARMS = {
    "today": ("LPDDR5X, as today", GREY, ""),
    "flash": ("LPDDR5X and flash", ORANGE, "///"),
    "in memory": ("engines in memory", BLUE, "..."),
    "stacked": ("DRAM stacked on logic", GREEN, "\\\\\\"),
}
METRICS = (
    ("tokens_per_second", "output tokens per second", 1, (5, 2000), [5, 10, 20, 50, 100, 200, 500, 1000]),
    (
        "battery_share",
        "battery per answer (%)",
        100,
        (0.002, 0.6),
        [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2],
    ),
)


def draw(data: Data) -> Figure:
    answers, phones = data["answers"], data["phones"].rows
    models = answers.kinds("model")
    figure, panels = plt.subplots(
        2, len(phones), figsize=(WIDE, 6), sharex=True, sharey="row", squeeze=False, layout="constrained"
    )
    for column, phone in enumerate(phones):
        for line, (metric, text, scale, limits, ticks) in enumerate(METRICS):
            axes = panels[line, column]
            for place, (arm, (_, colour, hatch)) in enumerate(ARMS.items()):
                for i, row in enumerate(answers.where(phone=phone["phone"], arm=arm)):
                    x, value = i + 0.22 * (place - 1.5), scale * row[metric]
                    if row["fits"]:
                        axes.bar(x, value, 0.19, color=colour, hatch=hatch, edgecolor="white")
                    shown = f"{value:.2g}" if value < 100 else f"{value:.0f}"
                    axes.annotate(
                        shown if row["fits"] else "does not fit",
                        (x, value if row["fits"] else limits[0]),
                        (0, 3),
                        textcoords="offset points",
                        rotation=90,
                        ha="center",
                        va="bottom",
                        fontsize=7.5,
                    )
            axes.set(yscale="log", ylim=limits, xlim=(-0.55, len(models) - 0.45))
            plain(axes, "y", {"y": ticks})
            axes.grid(False, axis="x")
            axes.set_xticks(range(len(models)), models)
            if column == 0:
                axes.set_ylabel(text)
        panels[0, column].set_title(
            f"{phone['phone']}: {phone['power_cap']:g} W, {(phone['memory'] - phone['reserved']) / 1e9:g} GB free"
        )
    handles = [Patch(facecolor=c, hatch=h, edgecolor="white", label=text) for text, c, h in ARMS.values()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


if __name__ == "__main__":
    run(draw)
