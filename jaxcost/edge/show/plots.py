"""Plots: the roofline of one evaluation, and bars of several, in the colour-blind-safe colours of Okabe and Ito."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from jaxcost.core.units import engineering
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.show.labels import place_labels
from jaxcost.edge.show.tables import HEADLINE, Values, exceeded, operators
from jaxcost.physics.compute.operators import MATH
from jaxcost.physics.compute.precision import operand_bits, precision_of
from jaxcost.physics.compute.roofline import math_class, math_rate
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System

__all__ = ["STYLE", "RooflinePoint", "draw_comparison", "draw_roofline", "roofline_points", "save_figure"]

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxcost",
}
_PHASES = {"prefill": ("#D55E00", "s"), "decode": ("#0072B2", "o")}
_FEASIBLE, _INFEASIBLE = "#0072B2", "#BBBBBB"
_MIN_AREA, _MAX_AREA = 22, 420  # points^2 of a marker at shares of 0 and 1


@dataclasses.dataclass(frozen=True)
class RooflinePoint:
    """One operator of one phase on the roofline."""

    phase: str
    name: str
    intensity: float  # FLOP/B
    rate: float  # FLOP/s
    share: float
    bits: float  # precision class of the matmul engine; 0 for an element-wise operator


def roofline_points(system: System, plan: Plan, values: Values) -> tuple[list[RooflinePoint], list[str]]:
    """Return the operators of both phases as points: FLOPs = leg x rate, bytes = leg x bandwidth.

    The FLOPs of an operator with matmul work are those of the matmul alone; else they are the element-wise ones.

    Returns:
        The points, and the names of operators without arithmetic or without memory traffic, which have no intensity.
    """
    chip, share = system.chip, system.chip.efficiency
    bandwidth = float(chip.memory.bandwidth) * float(share.memory)
    points, left_out = [], []
    for phase in _PHASES:
        for row in operators(values, phase):
            width = _operand_bits(row["name"], plan) if row["matmul"] > 0 else 0.0
            if width:
                flops = row["matmul"] * float(math_rate(chip, width)) * float(share.matmul)
            else:
                flops = row["vector"] * float(chip.compute.vector_flops) * float(share.vector)
            moved = row["memory"] * bandwidth
            if flops <= 0 or moved <= 0:
                left_out.append(row["name"])
                continue
            klass = float(math_class(width)) if width else 0.0
            rate = flops / row["seconds"]
            points.append(RooflinePoint(phase, row["name"], flops / moved, rate, row["share"], klass))
    return points, list(dict.fromkeys(left_out))


def _operand_bits(name: str, plan: Plan) -> float:
    """Return the bits of an operator's wider matmul operand."""
    # All indexers have keys of as many bits as a model has by default.
    bits = operand_bits(precision_of(plan, Model()))[MATH.get(name, "weights")]
    return max(float(x) for x in bits)


def draw_roofline(path: Path, title: str, subtitle: str, system: System, plan: Plan, values: Values) -> None:
    """Draw the operators of both phases under the roofs of memory and of the engines in use, and save the plot."""
    points, left_out = roofline_points(system, plan, values)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(10, 6.4), layout="constrained")
        lines = _draw_roofs(axes, system, points)
        for phase, (colour, marker) in _PHASES.items():
            here = [p for p in points if p.phase == phase]
            total = engineering(values[f"{phase}.total"][1], "s")
            axes.scatter(
                [p.intensity for p in here],
                [p.rate for p in here],
                s=[_area(p.share) for p in here],
                marker=marker,
                color=colour,
                alpha=0.75,
                edgecolor="white",
                linewidth=0.8,
                zorder=3,
                label=f"{phase} step, {total}",
            )
        _finish_axes(figure, axes, title, subtitle, left_out)
        bandwidth = float(system.chip.memory.bandwidth) * float(system.chip.efficiency.memory)
        _label_slope(axes, lines[0], f"memory: {engineering(bandwidth, 'B/s')}", points)
        place_labels(figure, axes, _clusters(figure, axes, points), lines)
        save_figure(figure, path)


def _draw_roofs(
    axes: Axes, system: System, points: Sequence[RooflinePoint]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the roofs, set the limits of the axes and return the lines."""
    chip, share = system.chip, system.chip.efficiency
    bandwidth = float(chip.memory.bandwidth) * float(share.memory)
    peaks = {}
    for bits in sorted({p.bits for p in points if p.bits}):
        peaks.setdefault(float(math_rate(chip, bits)) * float(share.matmul), []).append(f"{bits:g}-bit")
    vector = float(chip.compute.vector_flops) * float(share.vector)
    most = max([*peaks, vector])
    ridge = most / bandwidth
    low = min([p.intensity for p in points] + [ridge / 30]) / 2.5
    high = max([p.intensity for p in points] + [ridge * 10]) * 2.5
    floor = min([p.rate for p in points] + [low * bandwidth]) / 2
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, most * 6))
    slope = np.geomspace(low, ridge, 60)
    lines = [(slope, slope * bandwidth)]
    axes.plot(*lines[0], color="black", linewidth=1.6, zorder=2)
    roofs = [(rate, f"{' and '.join(names)} matmul", "-") for rate, names in peaks.items()]
    if any(p.bits == 0 for p in points):
        roofs.append((vector, "element-wise", ":"))
    for rate, name, dash in roofs:
        knee = rate / bandwidth
        flat = np.geomspace(knee, high, 60)
        lines.append((flat, np.full_like(flat, rate)))
        axes.plot(*lines[-1], color="black", linewidth=1.6 if dash == "-" else 1.2, linestyle=dash, zorder=2)
        axes.annotate(
            f"{name}, {engineering(rate, 'FLOP/s')}\nridge {engineering(knee, 'FLOP/B')}",
            (high, rate),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    return lines


def _label_slope(
    axes: Axes, line: tuple[np.ndarray, np.ndarray], name: str, points: Sequence[RooflinePoint]
) -> None:
    """Label the memory roof where points are farthest, rotated along it."""
    dots = axes.transData.transform(np.column_stack(line))
    (x0, y0), (x1, y1) = dots[0], dots[-1]
    taken = np.log([p.intensity for p in points])
    inner = range(len(dots) // 6, len(dots) * 5 // 6)
    middle = max(inner, key=lambda i: np.min(np.abs(np.log(line[0][i]) - taken), initial=np.inf))
    axes.annotate(
        name,
        (line[0][middle], line[1][middle]),
        xytext=(-5, 6),
        textcoords="offset points",
        rotation=math.degrees(math.atan2(y1 - y0, x1 - x0)),
        rotation_mode="anchor",
        ha="center",
        va="bottom",
        fontsize=9,
    )


def _finish_axes(figure: Figure, axes: Axes, title: str, subtitle: str, left_out: Sequence[str]) -> None:
    axes.set_xlabel("Arithmetic intensity (FLOP/B)")
    axes.set_ylabel("Rate of one chip (FLOP/s)")
    axes.xaxis.set_major_locator(LogLocator(10, numticks=12))
    axes.yaxis.set_major_locator(LogLocator(10, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: engineering(y, "FLOP/s", digits=1)))
    axes.grid(which="major", color="#DDDDDD", linewidth=0.6, zorder=0)
    axes.set_axisbelow(True)
    axes.set_title(f"{title}\n", loc="left", fontweight="bold", fontsize=12)
    axes.text(
        0, 1.015, f"{subtitle}. Marker area: share of the step time.", transform=axes.transAxes, fontsize=9
    )
    note = f"Not shown (no arithmetic or no memory traffic): {', '.join(left_out)}." if left_out else ""
    figure.supxlabel(note, fontsize=8, color="#555555", x=0.01, ha="left")
    legend = axes.legend(loc="upper left", frameon=False)
    for handle in legend.legend_handles:
        handle.set_sizes([70])  # type: ignore[union-attr]
    figure.canvas.draw()


def _area(share: float) -> float:
    return _MIN_AREA + (_MAX_AREA - _MIN_AREA) * share


def _clusters(figure: Figure, axes: Axes, points: Sequence[RooflinePoint]) -> list[dict[str, Any]]:
    """Group points of a phase that nearly coincide, so that they share a label."""
    near = 9 * figure.dpi / 72
    clusters: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: -p.share):
        place = axes.transData.transform((point.intensity, point.rate))
        radius = math.sqrt(_area(point.share) / math.pi) * figure.dpi / 72
        for cluster in clusters:
            if cluster["phase"] == point.phase and math.dist(cluster["place"], place) < max(
                near, cluster["radius"]
            ):
                cluster["lines"].append(_label(point))
                break
        else:
            clusters.append(
                {
                    "phase": point.phase,
                    "place": place,
                    "radius": radius,
                    "lines": [_label(point)],
                    "colour": _PHASES[point.phase][0],
                }
            )
    return clusters


def _label(point: RooflinePoint) -> str:
    return f"{point.name} {point.share:.0%}" if point.share >= 0.005 else f"{point.name} <1%"


def draw_comparison(path: Path, title: str, results: dict[str, Values]) -> None:
    """Draw every total of every system as bars, those of infeasible systems grey and hatched."""
    names = list(results)
    with mpl.rc_context(STYLE):
        rows = math.ceil(len(HEADLINE) / 2)
        height = 1.1 + rows * (0.75 + 0.3 * len(names))
        figure, grid = plt.subplots(rows, 2, figsize=(10, height), layout="constrained", squeeze=False)
        for axes, headline in itertools.zip_longest(grid.flat, HEADLINE):
            if headline is None:
                axes.axis("off")
                continue
            metric, name, more = headline
            _bars(axes, f"{name} ({'higher' if more else 'lower'} is better)", metric, results)
        head, _, detail = title.partition(": ")
        figure.suptitle(f"{head}\n\n", x=0.01, ha="left", fontweight="bold", fontsize=12)
        figure.text(0.01, 1 - 0.36 / height, detail, fontsize=9, va="top")
        if any(exceeded(values) for values in results.values()):
            grid.flat[-1].text(0, 0.5, "Grey and hatched: violates a constraint", fontsize=9, va="center")
        save_figure(figure, path)


def _bars(axes: Axes, title: str, metric: str, results: dict[str, Values]) -> None:
    shown = [values[metric][1] for values in results.values()]
    unit = next(iter(results.values()))[metric][0]
    over = [bool(exceeded(values)) for values in results.values()]
    bars = axes.barh(list(results), shown, color=[_INFEASIBLE if o else _FEASIBLE for o in over], height=0.65)
    for bar, infeasible in zip(bars, over, strict=True):
        bar.set_hatch("///" if infeasible else "")
        bar.set_edgecolor("white")
    axes.bar_label(bars, [engineering(v, unit) for v in shown], padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlim(left=0)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xticks([])  # every bar carries its value and unit
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def save_figure(figure: Figure, path: Path, option: str = "--plot") -> None:
    """Write a plot reproducibly, byte for byte, and close it; an error names `option`."""
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    try:
        figure.savefig(path, dpi=150, metadata=metadata)
    except OSError as error:
        reason = error.strerror or "error"
        raise InputError(f"a file that can be written ({reason})", path=option, given=str(path)) from None
    finally:
        plt.close(figure)
