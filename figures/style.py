"""Shared code of the figures: reading data, one style, colour-blind-safe colours, saving.

A figure is a function `draw(data) -> Figure` in a file with the name of its experiment, run by `run(draw)`:

    python figures/08_walls.py [--data DIR] [--out DIR]

It reads only `08_walls.json` and writes `08_walls.svg` and `.png`. Lines and marks differ in more than their colour,
so that figures can be read in grey. Units come from the data.
"""

import argparse
import dataclasses
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

ROOT = Path(__file__).parents[1]
WIDE = 9.6  # inches: two columns of a paper
# Okabe and Ito's colours, darkest first for grey; a mark, a dash and a hatch to go with each.
BLUE, ORANGE, GREEN, RED, SKY, PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
BLACK, GREY, PALE = "#222222", "#8A8F98", "#D9DCE1"
COLOURS = (BLUE, RED, GREEN, ORANGE, PINK, SKY, BLACK, GREY)
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)), (0, (3, 1)))
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo", "--")
STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E8EB",
    "grid.linewidth": 0.6,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "hatch.linewidth": 0.6,
    "svg.fonttype": "path",
    "svg.hashsalt": "jaxcost",
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of one kind, and the unit of every column."""

    about: str
    units: dict[str, str]
    rows: tuple[dict[str, Any], ...]

    def where(self, **of: Any) -> list[dict[str, Any]]:
        """Rows whose columns have these values."""
        return [row for row in self.rows if all(row[k] == v for k, v in of.items())]

    def values(self, column: str, **of: Any) -> list[Any]:
        """One column of those rows."""
        return [row[column] for row in self.where(**of)]

    def kinds(self, column: str) -> list[Any]:
        """The values of a column, each once, in order."""
        return list(dict.fromkeys(row[column] for row in self.rows))

    def label(self, column: str, text: str, prefix: str = "") -> str:
        """An axis label: text and unit, as in "bandwidth (TB/s)"."""
        unit = self.units[column]
        return text if unit in ("", "1") else f"{text} ({prefix}{unit})"


@dataclasses.dataclass(frozen=True)
class Data:
    """What an experiment wrote."""

    title: str
    findings: tuple[str, ...]
    assumptions: tuple[str, ...]
    sources: tuple[str, ...]
    tables: dict[str, Table]

    def __getitem__(self, name: str) -> Table:
        return self.tables[name]


def read(path: Path) -> Data:
    """Read the data of one experiment."""
    found = json.loads(path.read_text())
    tables = {
        name: Table(
            table["about"],
            table["units"],
            tuple(dict(zip(table["units"], row, strict=True)) for row in table["rows"]),
        )
        for name, table in found.pop("tables").items()
    }
    return Data(**found, tables=tables)


def looks() -> Iterator[dict[str, Any]]:
    """Colour, mark and dash of one line after the other."""
    for colour, mark, dash in zip(COLOURS, MARKS, DASHES, strict=True):
        yield {"color": colour, "marker": mark, "linestyle": dash}


def plain(axes: Axes, which: str = "both", ticks: dict[str, list[float]] | None = None) -> None:
    """Write numbers of log axes as they are, at given ticks if any."""
    for name in "xy" if which == "both" else which:
        axis = getattr(axes, f"{name}axis")
        if ticks and name in ticks:
            axis.set_ticks(ticks[name])
        axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axis.set_minor_formatter(NullFormatter())


def run(draw: Callable[[Data], Figure]) -> None:
    """Draw one figure from the command line."""
    path = Path(inspect.getfile(draw))
    parser = argparse.ArgumentParser(description=inspect.getdoc(inspect.getmodule(draw)))
    parser.add_argument("--data", type=Path, default=ROOT / "experiments" / "out", help="folder of the data")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "out", help="folder of the pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        save(draw(read(args.data / f"{path.stem}.json")), args.out / f"{path.stem}.svg")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as vectors, and as an image beside them; the same bytes every time."""
    # The solver of the layout differs by its last digits from run to run.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position([round(x, 6) for x in axes.get_position().bounds])
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    figure.savefig(path.with_suffix(".png"), metadata={"Software": None})
    plt.close(figure)
