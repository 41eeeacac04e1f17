"""The verdict, the notes and the tables of a replay of one design."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxcost.core.units import engineering, number
from jaxcost.edge.show import tables
from jaxcost.edge.show.verdict import Verdict
from jaxcost.explore.replay import METRICS, Replay

__all__ = [
    "compared_table",
    "cost_table",
    "is_overloaded",
    "judge_replay",
    "latency_table",
    "note_lines",
    "replay_notes",
    "replay_values",
    "served_table",
]

_NAMES = {
    "ttft": "First token (TTFT)",
    "tpot": "Each token (TPOT)",
    "itl": "Between tokens (ITL)",
    "e2e": "Request (E2E)",
    "queueing": "Queueing",
}
_STATISTICS = ("mean", "p50", "p90", "p95", "p99")
_UNITS = {
    "duration": "s",
    "request_goodput": "1/s",
    "requests_per_second": "1/s",
    "tokens_per_second": "token/s",
    "tokens_per_second_per_chip": "token/s",
    "joules_per_token": "J/token",
    "usd_per_mtok": "USD/Mtok",
    "gco2e_per_mtok": "g/Mtok",
}
_FEW = 200  # requests below which two or fewer are beyond p99
_GROWTH = 3.0  # of mean queueing, last quarter over first, of a queue that grows
_LARGE_ERROR = 0.05  # of the step table


def replay_values(result: Replay, *, ttft_target: float = 0.0, tpot_target: float = 0.0) -> dict[str, Any]:
    """Return the numbers of a replay by name as (unit, value); a number that does not exist is None.

    `within_targets` is the share of all requests within the targets, s; 0 stands for no target.
    """
    with warnings.catch_warnings():  # of NumPy, for statistics of no requests
        warnings.simplefilter("ignore", RuntimeWarning)
        values = {name: float(value) for name, value in result.summary().items()}
    limits = {"ttft": ttft_target or math.inf, "tpot": tpot_target or math.inf}
    joules, served = float(result.joules), values["completed"] > 0
    values |= {
        "requests_per_second": values["completed"] / values["duration"],
        "within_targets": float(result.attained(**limits)),
        "request_goodput": float(result.goodput(**limits)),
        "idle_share": float(result.idle_joules) / joules if joules > 0 else math.nan,
    }
    if not served:
        values |= dict.fromkeys(("duration", *_UNITS), math.nan)
    unit = lambda name: "s" if name.split("_")[-1] in METRICS else _UNITS.get(name, "1")  # noqa: E731
    return {name: (unit(name), value if math.isfinite(value) else None) for name, value in values.items()}


def is_overloaded(result: Replay, *, concurrency: int = 0) -> bool:
    """Return whether the queue grew throughout: mean queueing ascends over the quarters of the requests.

    It must also triple from the first to the last and exceed half of the mean time that requests then take. A closed
    loop, and requests that all arrive at once, have no rate that could exceed the capacity.
    """
    served = np.flatnonzero(~result.rejected)
    if concurrency or len(served) < 8 or np.ptp(result.arrival) == 0:
        return False
    waits = [float(part.mean()) for part in np.array_split(result.queueing[served], 4)]
    service = float(np.mean(result.e2e[served] - result.queueing[served]))
    return waits == sorted(waits) and waits[-1] > max(_GROWTH * waits[0], service / 2)


def judge_replay(values: Mapping[str, Any], targets: Mapping[str, float], *, overloaded: bool) -> Verdict:
    """Return the verdict: p99 against the targets, goodput, throughput and cost.

    Args:
        values: those of `replay_values`.
        targets: limits of "ttft" and "tpot", s; 0 for none.
        overloaded: whether the queue grew throughout.
    """
    of = lambda name: values[name][1]  # noqa: E731
    if not of("completed"):
        text = "Does not fit: every request is larger than the KV cache of a replica, and is rejected"
        return Verdict(text, "Does not fit", "memory", ("memory",))
    excess: dict[str, float] = {}
    parts = []
    for name, target in targets.items():
        p99 = of(f"p99_{name}")
        if p99 is None:
            continue
        shown = f"p99 {name.upper()} {engineering(p99, 's')}"
        if target > 0:
            shown += f" of {engineering(target, 's')}"
            excess[name] = p99 / target
        parts.append(shown)
    exceeded = sorted((name for name, ratio in excess.items() if ratio > 1), key=lambda n: -excess[n])
    if any(target > 0 for target in targets.values()):
        share = f"{of('within_targets'):.1%} of the requests"
        parts.append(f"goodput {number(of('request_goodput'))} requests/s ({share})")
    parts.append(f"{engineering(of('tokens_per_second_per_chip'), 'token/s')} per chip")
    parts.append(f"{number(of('usd_per_mtok'))} USD per million output tokens")
    ratios = ", ".join(f"{name.upper()} {excess[name]:.3g} times" for name in exceeded)
    which = "a target" if len(exceeded) == 1 else "the targets"
    opening = f"Exceeds {which} ({ratios}): " if exceeded else "Within the targets: " if excess else ""
    if of("rejected"):
        opening = (
            f"Rejects {of('rejected'):,.0f} of {of('rejected') + of('completed'):,.0f} requests. {opening}"
        )
    if overloaded:
        opening = f"Overloaded. {opening}"
    broken = (*(["memory"] if of("rejected") else []), *exceeded)
    binding = max(excess, key=excess.__getitem__) if excess else ""
    return Verdict(opening + "; ".join(parts), opening.rstrip(": "), binding, broken)


def replay_notes(result: Replay, values: Mapping[str, Any], *, overloaded: bool) -> list[str]:
    """Return what limits the meaning of the numbers, one sentence each."""
    notes = []
    if overloaded:
        served = result.queueing[~result.rejected]
        first, *_, last = (engineering(part.mean(), "s") for part in np.array_split(served, 4))
        notes.append(
            f"Overloaded: the queue grew throughout, mean queueing from {first} in the first quarter of the requests "
            f"to {last} in the last. Percentiles depend on the length of the trace."
        )
    rejected = int(values["rejected"][1])
    if rejected:
        pool = float(result.pool_tokens)
        notes.append(
            f"{rejected:,} requests were rejected: with all their tokens they are larger than the KV cache of a "
            f"replica, {pool:,.0f} tokens. Latencies are those of the others."
        )
    if 0 < values["completed"][1] < _FEW:
        notes.append(
            f"Fewer than {_FEW} requests: p99 is that of one or two of them, and start and end of the trace weigh much."
        )
    if result.table_error > _LARGE_ERROR:
        notes.append(f"The error of the step table is {result.table_error:.1%}: times may be off as much.")
    return notes


def latency_table(values: Mapping[str, Any]) -> Table:
    """Show mean and percentiles of all latencies."""

    def cell(name: str) -> str:
        value = values[name][1]
        return "" if value is None else engineering(value, "s")

    rows = [(label, *(cell(f"{s}_{metric}") for s in _STATISTICS)) for metric, label in _NAMES.items()]
    return tables.unwrapped(tables.plain_table("Latency", ("", *_STATISTICS), rows))


def served_table(values: Mapping[str, Any], *, has_cache: bool) -> Table:
    """Show what was served."""
    of = lambda name: values[name][1]  # noqa: E731
    rows = [("Requests served", f"{of('completed'):,.0f}")]
    if of("rejected"):
        rows.append(("Rejected", f"{of('rejected'):,.0f}"))
    if of("completed"):
        rows += [
            ("Duration", engineering(of("duration"), "s")),
            ("Requests", f"{number(of('requests_per_second'))}/s"),
            ("Output tokens", engineering(of("tokens_per_second"), "token/s")),
            ("Of one chip", engineering(of("tokens_per_second_per_chip"), "token/s")),
            ("Preemptions", f"{of('preemptions'):,.0f}"),
        ]
        if has_cache:
            rows.append(("Prompt tokens in the prefix cache", f"{of('hit_rate'):.1%}"))
    return tables.unwrapped(tables.plain_table("Served", ("", ""), rows))


def cost_table(values: Mapping[str, Any]) -> Table:
    """Show energy, dollars and carbon of a token."""
    of = lambda name: values[name][1]  # noqa: E731
    rows = [("Chips", f"{of('chips'):,.0f}")]
    if of("completed"):
        rows += [
            ("Energy", engineering(of("joules_per_token"), "J/token")),
            ("Of it chips at rest", f"{of('idle_share'):.1%}"),
            ("Cost", engineering(of("usd_per_mtok"), "USD/Mtok")),
            ("CO2e", engineering(of("gco2e_per_mtok"), "g/Mtok")),
        ]
    return tables.unwrapped(tables.plain_table("Cost", ("", ""), rows))


def compared_table(compared: Mapping[str, tuple[float, float]], name: str) -> Table:
    """Show measured and replayed values with their ratio, by the keys of `vllm bench serve`."""
    rows = []
    for key, (measured, replayed) in compared.items():
        ratio = f"{replayed / measured:.2f}" if measured > 0 else ""
        label = _label(key)
        rows.append((label, _shown(key, measured), _shown(key, replayed), ratio))
    head = ("", "Measured", "Replayed", "Ratio")
    return tables.unwrapped(tables.plain_table(f"Against {name}", head, rows))


def _label(key: str) -> str:
    if key.endswith("_ms"):
        statistic, metric = key.removesuffix("_ms").split("_", 1)
        return f"{'E2E' if metric == 'e2el' else metric.upper()} {statistic}"
    return {
        "request_throughput": "Requests",
        "output_throughput": "Output tokens",
        "total_token_throughput": "All tokens",
        "duration": "Duration",
        "completed": "Requests served",
    }[key]


def _shown(key: str, value: float) -> str:
    if key.endswith("_ms"):
        return engineering(value / 1e3, "s")
    if key == "request_throughput":
        return f"{number(value)}/s"
    if key.endswith("throughput"):
        return engineering(value, "token/s")
    return engineering(value, "s") if key == "duration" else number(value)


def note_lines(notes: list[str]) -> list[Text]:
    """Return notes as lines."""
    return [Text(f"Note: {note}", "yellow") for note in notes]
