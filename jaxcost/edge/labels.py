"""Labels of points in a picture, moved apart, each with a line to its point."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["place_labels"]

_ANGLES = tuple(2 * math.pi * i / 24 for i in range(24))
_REACHES = (10, 20, 34, 52, 74, 100, 130, 165, 205)  # points between a marker's rim and its label
_FONT = 8.5

Box = tuple[float, float, float, float]  # left, bottom, right, top in pixels


def place_labels(
    figure: Figure,
    axes: Axes,
    clusters: Sequence[dict[str, Any]],
    lines: Sequence[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Write every cluster's lines where they hide neither markers, roofs, other labels nor other leaders.

    Args:
        figure: the picture, drawn once so that its layout stands.
        axes: where to write.
        clusters: mappings of place (pixels), radius (pixels), lines (of text) and colour.
        lines: (x, y) in data units of what else is not to be written over.
    """
    scale = figure.dpi / 72
    markers = [_around(c["place"], c["radius"]) for c in clusters]
    roofs: list[Box] = []
    # The texts already there (names of roofs, the legend), and the roofs as chains of small boxes.
    texts = [t.get_window_extent().padded(2 * scale) for t in (*axes.texts, axes.get_legend())]
    written: list[Box] = [(t.x0, t.y0, t.x1, t.y1) for t in texts]
    for line in lines:
        dots = axes.transData.transform(np.column_stack(line))
        roofs += [_around(dot, 2 * scale) for dot in dots]
    frame = axes.get_window_extent()
    leaders: list[tuple[tuple, tuple]] = []
    for cluster in sorted(clusters, key=lambda c: -len(c["lines"])):
        text = axes.annotate(
            "\n".join(cluster["lines"]),
            cluster["place"],
            xycoords="figure pixels",
            xytext=cluster["place"],
            textcoords="figure pixels",
            fontsize=_FONT,
            color=cluster["colour"],
            ha="center",
            va="center",
            linespacing=1.15,
            zorder=5,
        )
        extent = text.get_window_extent()
        size = (extent.width + 4 * scale, extent.height + 2 * scale)
        box = min(
            _candidates(cluster, size, scale),
            key=lambda b: _cost(b, cluster["place"], (markers, roofs, written), leaders, frame),
        )
        text.remove()
        _write(axes, cluster, box)
        written.append(box)
        leaders.append((tuple(cluster["place"]), _nearest(box, cluster["place"])))


def _write(axes: Axes, cluster: dict[str, Any], box: Box) -> None:
    """Write in data units, so that the label stays put whatever the resolution."""
    back = axes.transData.inverted().transform
    edge = _nearest(box, cluster["place"])
    axes.text(
        *back(_middle(box)),
        "\n".join(cluster["lines"]),
        fontsize=_FONT,
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
    for reach in _REACHES:
        for angle in _ANGLES:
            away = cluster["radius"] + reach * scale
            cx = x + math.cos(angle) * (away + size[0] / 2)
            cy = y + math.sin(angle) * (away + size[1] / 2)
            boxes.append((cx - size[0] / 2, cy - size[1] / 2, cx + size[0] / 2, cy + size[1] / 2))
    return boxes


def _cost(
    box: Box,
    place: Sequence[float],
    there: tuple[Sequence[Box], Sequence[Box], Sequence[Box]],
    leaders: Sequence[tuple[tuple, tuple]],
    frame: Any,
) -> float:
    """Weigh what a label would hide, then what its leader would cross, then how far off it is.

    `there` holds the boxes of markers, of roofs and of texts, in pixels.
    """
    markers, roofs, written = there
    end = _nearest(box, place)
    outside = max(frame.x0 - box[0], box[2] - frame.x1, frame.y0 - box[1], box[3] - frame.y1, 0)
    hidden = sum(_overlap(box, other) for other in (*markers, *roofs))
    hidden += 20 * sum(_overlap(box, other) for other in written)
    crossed = sum(_cross(place, end, *other) for other in leaders)
    crossed += sum(_through(place, end, m) for m in markers if math.dist(_middle(m), place) > 1)
    struck = sum(_through(*other, box) for other in leaders)
    struck += sum(_through(place, end, other) for other in written)
    return 1e3 * outside + 10 * hidden + 200 * crossed + 2000 * struck + math.dist(place, end)


def _middle(box: Box) -> tuple[float, float]:
    return ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def _around(place: Sequence[float], radius: float) -> Box:
    return (place[0] - radius, place[1] - radius, place[0] + radius, place[1] + radius)


def _nearest(box: Box, place: Sequence[float]) -> tuple[float, float]:
    """Return the point of a box nearest to a place."""
    return (min(max(place[0], box[0]), box[2]), min(max(place[1], box[1]), box[3]))


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _cross(a: Sequence[float], b: Sequence[float], c: Sequence[float], d: Sequence[float]) -> bool:
    """Tell whether the segments ab and cd cross."""

    def side(p: Sequence[float], q: Sequence[float], r: Sequence[float]) -> bool:
        return (q[0] - p[0]) * (r[1] - p[1]) > (q[1] - p[1]) * (r[0] - p[0])

    return side(a, c, d) != side(b, c, d) and side(a, b, c) != side(a, b, d)


def _through(a: Sequence[float], b: Sequence[float], box: Box) -> bool:
    """Tell whether the segment ab crosses an edge of a box."""
    left, bottom, right, top = box
    corners = ((left, bottom), (right, bottom), (right, top), (left, top))
    return any(_cross(a, b, corners[i - 1], corners[i]) for i in range(4))
