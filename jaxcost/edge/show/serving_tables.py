"""The points of a serving front as a table, as mappings for JSON, and as CSV."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from jaxcost.core.units import engineering, number
from jaxcost.edge.show import tables
from jaxcost.explore.analysis import DEGREES
from jaxcost.explore.serve import ServingFront

__all__ = ["front_csv", "front_documents", "front_table", "front_verdict", "plan_text"]

_MOST_ROWS = 18
_LIMITS = {
    "matmul": "compute",
    "vector": "vector units",
    "exponential": "exponentials",
    "memory": "memory bandwidth",
    "network": "network",
    "near": "engines near memory",
    "overhead": "launches and host",
}
_ORDER = ("tp", "pp", "ep", "dp", "cp")


def front_verdict(model: str, system: str, front: ServingFront) -> str:
    """Return in one line the two ends of a front, or why there is none."""
    if len(front.front):
        user, chip = (
            front.tokens_per_second_per_user[front.front],
            front.tokens_per_second_per_chip[front.front],
        )
        text = (
            f"{model} on {system}: {number(chip[0])} output tokens/s per chip at {number(user[0])} per user"
        )
        return text + (f", {number(chip[-1])} at {number(user[-1])}" if len(user) > 1 else "")
    if len(front.batch):
        return f"{model} on {system}: none of {len(front.batch):,} candidates is within the targets"
    if front.unfit:
        return f"{model} on {system}: does not fit, none of {front.unfit:,} candidates"
    return f"{model} on {system}: cannot be sharded by any of {front.invalid:,} plans"


def plan_text(degrees: np.ndarray) -> str:
    """Return the degrees that are not 1 as text, such as tp 4 ep 4."""
    named = dict(zip(DEGREES, degrees, strict=True))
    return " ".join(f"{name} {named[name]:g}" for name in _ORDER if named[name] != 1) or "1 chip"


def _layout_text(front: ServingFront, point: int) -> str:
    plan = plan_text(front.degrees[point])
    if not front.is_split[point]:
        return plan
    prefill = plan_text(front.prefill_degrees[point])
    counts = front.prefill_replicas[point], front.replicas[point]
    return f"{counts[0]:.3g} x ({prefill}) + {counts[1]:g} x ({plan})"


def front_table(title: str, front: ServingFront) -> RenderableType:
    """Return the points of a front as a table, at most 18 of them, with the number of candidates below it."""
    shown = np.unique(np.round(np.linspace(0, len(front.front) - 1, _MOST_ROWS)).astype(int))
    several, split = len(front.precisions) > 1, bool(front.is_split.any())
    columns = ["Tok/s/user", "Tok/s/chip", "TTFT", "Chips", "Users", "Batch"]
    columns += ["Prefill"] * (not split) + ["Plan: prefill + decode" if split else "Plan"]
    columns += ["Precision"] * several + ["Decode limited by"]
    rows = []
    for row in shown if len(front.front) else ():
        point = int(front.front[row])
        full = ", memory full" if front.memory_full[point] else ""
        cells = [
            number(front.tokens_per_second_per_user[point]),
            number(front.tokens_per_second_per_chip[point]),
            engineering(front.ttft[point], "s"),
            f"{front.chips[point]:.3g}",
            f"{front.users[point]:,.0f}",
            f"{front.batch[point]:g}",
        ]
        cells += [f"{front.prefill_share[point]:.0%}"] * (not split) + [_layout_text(front, point)]
        cells += [front.precisions[front.precision[point]]] * several + [_LIMITS[front.limits[row]] + full]
        rows.append(tuple(cells))
    table = tables.unwrapped(tables.plain_table(title, columns, rows, left=0))
    for column in table.columns[6 + (not split) :]:
        column.justify = "left"
    return Group(table, *map(Text, _counts(front, len(shown))))


def _counts(front: ServingFront, shown: int) -> list[str]:
    lines = []
    if len(front.front):
        first = f"{len(front.front)} of {len(front.batch):,} points are on the front"
        lines.append(first + (f"; {shown} are shown" if shown < len(front.front) else ""))
    late = int(np.sum(~front.in_time))
    left_out = [
        f"{front.unfit:,} candidates that do not fit in memory" if front.unfit else "",
        f"{late:,} beyond the targets" if late else "",
        f"{front.invalid:,} plans that cannot shard the model" if front.invalid else "",
        f"{front.unpaired:,} without a prefill pool within the chips" if front.unpaired else "",
    ]
    if any(left_out):
        lines.append(f"Left out: {', '.join(filter(None, left_out))}")
    if front.is_split.any():
        lines.append(
            "Pools: replicas x (plan); TTFT includes the wait for prefill and the transfer of the cache"
        )
    elif len(front.front):
        lines.append(
            "Users, batch: of a replica, of a data-parallel rank. Prefill: share of TPOT due to prompts"
        )
    return lines


def _record(front: ServingFront, point: int) -> dict[str, Any]:
    """Return the numbers of a point."""
    degrees = dict(zip(DEGREES, front.degrees[point].tolist(), strict=True))
    names = ("ttft", "tpot", "users", "batch", "chips", "replicas", "tokens_per_second")
    return {
        "tokens_per_second_per_chip": float(front.tokens_per_second_per_chip[point]),
        "tokens_per_second_per_user": float(front.tokens_per_second_per_user[point]),
        **{name: float(getattr(front, name)[point]) for name in names},
        "precision": front.precisions[int(front.precision[point])],
        **{name: degrees[name] for name in _ORDER},
        "prefill_share": float(front.prefill_share[point]),
        "memory_full": bool(front.memory_full[point]),
    }


def _pool(front: ServingFront, point: int) -> dict[str, float]:
    degrees = dict(zip(DEGREES, front.prefill_degrees[point].tolist(), strict=True))
    return {
        "replicas": float(front.prefill_replicas[point]),
        "prompts": float(front.prefill_prompts[point]),
        **{name: degrees[name] for name in _ORDER},
    }


def front_documents(front: ServingFront) -> dict[str, Any]:
    """Return the points of a front with the number of candidates, for JSON."""
    points = [
        {
            **_record(front, point),
            "prefill_pool": _pool(front, point) if front.is_split[point] else None,
            "decode_limit": limit,
        }
        for point, limit in zip(front.front.tolist(), front.limits, strict=True)
    ]
    counts = {"points": len(front.batch), "beyond_targets": int(np.sum(~front.in_time))}
    named = ("evaluated", "unfit", "invalid", "unpaired")
    return {"counts": counts | {name: getattr(front, name) for name in named}, "front": points}


def front_csv(fronts: Mapping[str, ServingFront]) -> str:
    """Return every point of the fronts of systems as CSV, with a header; `on_front` is 1 on the front."""
    out = io.StringIO()
    writer = None
    for system, front in fronts.items():
        on_front = set(front.front.tolist())
        for point in range(len(front.batch)):
            pool = {f"prefill_{name}": value for name, value in _pool(front, point).items()}
            record = {"system": system, **_record(front, point), **pool, "on_front": int(point in on_front)}
            record["memory_full"] = int(record["memory_full"])
            if writer is None:
                writer = csv.DictWriter(out, list(record), lineterminator="\n")
                writer.writeheader()
            writer.writerow(record)
    return out.getvalue()
