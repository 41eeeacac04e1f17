"""Ratio of jaxcost's value to the published one, by claim and source, marked by verdict."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from style import BLACK, BLUE, ORANGE, RED, WIDE, Data, plain, run

VERDICTS = {
    "ok": ("o", BLUE, "reproduced"),
    "loose": ("D", ORANGE, "reproduced under a condition"),
    "no": ("X", RED, "not reproduced"),
}
LIMITS = (0.05, 20.0)
BY_HAND = "By hand"  # checks, not claims: in the data only
LINE, FOOT, HEAD = 0.152, 0.5, 0.62  # inches: a row, the axis below, the legend above
# Inches from a column's left edge: the axis, and the ends of the numbers.
NAME, AXIS, PUBLISHED, OURS = 2.32, 0.95, 3.74, 4.18
FONT = 7.0


def columns(rows: list[dict]) -> list[list[dict | str]]:
    """Two columns of rows under their sources, of about the same length."""
    lines: list[list[dict | str]] = [[], []]
    sources = dict.fromkeys(r["source"] for r in rows)
    half = (len(rows) + len(sources)) / 2
    for source in sources:
        of = [r for r in rows if r["source"] == source]
        lines[bool(lines[1] or len(lines[0]) + len(of) / 2 >= half)] += [source, *of]
    return lines


def number(value: float) -> str:
    """Three digits without an exponent."""
    if abs(value) >= 1e4:
        return f"{value / 1e3:.0f}k"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def column(axes: Axes, lines: list[dict | str]) -> None:
    """One column: names to the left, marks, published and ours to the right."""

    def write(inches: float, place: float, text: str, **look: object) -> None:
        x = (inches - NAME) / AXIS
        style = {"fontsize": FONT, "va": "center", "transform": axes.get_yaxis_transform(), **look}
        axes.text(x, place, text, **style)

    axes.plot([1, 1], [-0.5, len(lines) - 0.5], color=BLACK, lw=0.8)
    write(PUBLISHED, -1, "published", ha="right", weight="bold")
    write(OURS, -1, "jaxcost", ha="right", weight="bold")
    for place, line in enumerate(lines):
        if isinstance(line, str):
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            write(0, place, line, fontsize=8, weight="bold", bbox=box)
            continue
        mark, colour, _ = VERDICTS[line["verdict"]]
        ratio = min(max(line["ratio"], LIMITS[0]), LIMITS[1])
        axes.plot([1, ratio], [place, place], color=colour, lw=1)
        axes.plot(ratio, place, mark, color=colour, ms=5, mec="white", mew=0.4, clip_on=False, zorder=4)
        write(0, place, line["claim"])
        write(PUBLISHED, place, number(line["published"]), ha="right")
        write(OURS, place, number(line["ours"]), ha="right")
        write(OURS + 0.05, place, "" if line["unit"] == "1" else line["unit"])
    axes.set(xscale="log", xlim=LIMITS, xlabel="jaxcost / published")
    axes.set_yticks([])
    plain(axes, "x", {"x": [0.1, 1, 10]})
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.spines["left"].set_visible(False)


def draw(data: Data) -> Figure:
    rows = [
        r for r in data["claims"].rows if r["verdict"] in VERDICTS and not r["source"].startswith(BY_HAND)
    ]
    both = columns(rows)
    length = max(len(lines) for lines in both)
    height = LINE * length + FOOT + HEAD
    figure = plt.figure(figsize=(WIDE, height))
    for left, lines in zip((0.05, 0.05 + WIDE / 2), both, strict=True):
        place = ((left + NAME) / WIDE, FOOT / height, AXIS / WIDE, LINE * length / height)
        axes = figure.add_axes(place)
        axes.set_ylim(length - 0.5, -0.5)
        column(axes, lines)
    counts = {v: sum(r["verdict"] == v for r in rows) for v in VERDICTS}
    handles = [
        Line2D([], [], ls="", marker=mark, color=colour, label=f"{text}: {counts[v]} of {len(rows)}")
        for v, (mark, colour, text) in VERDICTS.items()
    ]
    top = (height - 0.05) / height
    figure.legend(handles=handles, loc="upper center", ncols=3, bbox_to_anchor=(0.5, top))
    return figure


if __name__ == "__main__":
    run(draw)
