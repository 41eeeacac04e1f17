"""Placement of the labels of points in a plot, without overlaps, each with a leader line to its point."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["place_labels"]

_ANGLES = tuple(2 * math.pi * i / 24 for i in range(24))
_DISTANCES = (10, 20, 34, 52, 74, 100, 130, 165, 205)  # points between the edge of a marker and its label
_FONT = 8.5
_ROUNDS = 4

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


@dataclasses.dataclass(frozen=True)
class _Obstacles:
    """What labels must not cover, in pixels."""

    markers: Sequence[Box]
    roofs: Sequence[np.ndarray]  # two ends each
    texts: Sequence[Box]
    frame: Any


def place_labels(
    figure: Figure,
    axes: Axes,
    clusters: Sequence[dict[str, Any]],
    lines: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    font: float = _FONT,
) -> None:
    """Write the label of every cluster where it covers no marker, roof, label or leader line.

    For a few rounds, each label in turn takes the candidate position of least cost, given those of the others.

    Args:
        figure: the figure, already drawn once so that its layout is final.
        axes: where to write.
        clusters: mappings of place (pixels), radius (pixels), lines (of text) and colour.
        lines: (x, y) in data units of lines, straight on the page, that labels should not cover.
        font: size of the labels in points.
    """
    scale = figure.dpi / 72
    texts = [
        t.get_window_extent().padded(2 * scale) for t in (*axes.texts, axes.get_legend()) if t is not None
    ]
    obstacles = _Obstacles(
        markers=[_around(c["place"], c["radius"]) for c in clusters],
        roofs=[axes.transData.transform(np.column_stack(line))[[0, -1]] for line in lines],
        texts=[(t.x0, t.y0, t.x1, t.y1) for t in texts],
        frame=axes.get_window_extent(),
    )
    order = sorted(range(len(clusters)), key=lambda i: -len(clusters[i]["lines"]))
    places = []
    for cluster in clusters:
        boxes = _candidates(cluster, _size(axes, cluster, scale, font), scale)
        places.append([(box, _fixed_cost(box, cluster["place"], obstacles)) for box in boxes])
    chosen: dict[int, Box] = {}
    for _ in range(_ROUNDS):
        for i in order:
            others = [(chosen[j], clusters[j]["place"]) for j in chosen if j != i]
            chosen[i] = min(
                places[i],
                key=lambda p, i=i, others=others: p[1] + _label_cost(p[0], clusters[i]["place"], others),
            )[0]
    for i, box in chosen.items():
        _write(axes, clusters[i], box, font)


def _size(axes: Axes, cluster: dict[str, Any], scale: float, font: float) -> tuple[float, float]:
    text = axes.text(
        0.5, 0.5, "\n".join(cluster["lines"]), transform=axes.transAxes, fontsize=font, linespacing=1.15
    )
    extent = text.get_window_extent()
    text.remove()
    return extent.width + 4 * scale, extent.height + 2 * scale


def _write(axes: Axes, cluster: dict[str, Any], box: Box, font: float) -> None:
    """Write a label in data units, so that its position does not depend on the resolution."""
    back = axes.transData.inverted().transform
    edge = _nearest(box, cluster["place"])
    x, y = back(_middle(box))
    axes.text(
        x,
        y,
        "\n".join(cluster["lines"]),
        fontsize=font,
        color=cluster["colour"],
        ha="center",
        va="center",
        linespacing=1.15,
        zorder=5,
    )
    ends = back([cluster["place"], edge])
    axes.plot(ends[:, 0], ends[:, 1], color=cluster["colour"], linewidth=0.7, alpha=0.8, zorder=2.5)


def _candidates(cluster: dict[str, Any], size: tuple[float, float], scale: float) -> list[Box]:
    x, y = cluster["place"]
    boxes = []
    for distance in _DISTANCES:
        for angle in _ANGLES:
            away = cluster["radius"] + distance * scale
            cx = x + math.cos(angle) * (away + size[0] / 2)
            cy = y + math.sin(angle) * (away + size[1] / 2)
            boxes.append((cx - size[0] / 2, cy - size[1] / 2, cx + size[0] / 2, cy + size[1] / 2))
    return boxes


def _fixed_cost(box: Box, place: Sequence[float], obstacles: _Obstacles) -> float:
    """Return the cost of a position: what the label covers, what its leader crosses, and the distance."""
    end, frame = _nearest(box, place), obstacles.frame
    outside = max(frame.x0 - box[0], box[2] - frame.x1, frame.y0 - box[1], box[3] - frame.y1, 0)
    hidden = sum(_overlap(box, other) for other in obstacles.markers)
    hidden += 20 * sum(_overlap(box, other) for other in obstacles.texts)
    crossed = sum(_through(place, end, m) for m in obstacles.markers if math.dist(_middle(m), place) > 1)
    over = sum(_through(ends[0], ends[1], box) for ends in obstacles.roofs)
    over += 0.1 * sum(_cross(place, end, ends[0], ends[1]) for ends in obstacles.roofs)
    struck = sum(_through(place, end, other) for other in obstacles.texts)
    away = math.dist(place, end)
    return 1e3 * outside + 10 * hidden + 150 * crossed + 800 * over + 2000 * struck + 2 * away


def _label_cost(box: Box, place: Sequence[float], others: Sequence[tuple[Box, Sequence[float]]]) -> float:
    """Return the cost of a position given the other labels and their leaders."""
    end, cost = _nearest(box, place), 0.0
    for other, other_place in others:
        other_end = _nearest(other, other_place)
        cost += 200 * _overlap(box, other) + 300 * _cross(place, end, other_place, other_end)
        cost += 2000 * (_through(place, end, other) + _through(other_place, other_end, box))
    return cost


def _middle(box: Box) -> tuple[float, float]:
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def _around(place: Sequence[float], radius: float) -> Box:
    return (place[0] - radius, place[1] - radius, place[0] + radius, place[1] + radius)


def _nearest(box: Box, place: Sequence[float]) -> tuple[float, float]:
    """Return the point of a box that is nearest to a place."""
    return (min(max(place[0], box[0]), box[2]), min(max(place[1], box[1]), box[3]))


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _cross(a: Sequence[float], b: Sequence[float], c: Sequence[float], d: Sequence[float]) -> bool:
    """Return whether the segments ab and cd cross."""

    def side(p: Sequence[float], q: Sequence[float], r: Sequence[float]) -> bool:
        return (q[0] - p[0]) * (r[1] - p[1]) > (q[1] - p[1]) * (r[0] - p[0])

    return side(a, c, d) != side(b, c, d) and side(a, b, c) != side(a, b, d)


def _through(a: Sequence[float], b: Sequence[float], box: Box) -> bool:
    """Return whether the segment ab crosses an edge of a box."""
    left, bottom, right, top = box
    corners = ((left, bottom), (right, bottom), (right, top), (left, top))
    return any(_cross(a, b, corners[i - 1], corners[i]) for i in range(4))
