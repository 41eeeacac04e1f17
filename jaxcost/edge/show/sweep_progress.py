"""The progress line of a sweep: share done, rate, share of feasible designs, best so far, time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxcost.core.units import engineering
from jaxcost.edge.jobs.long_run import Progress
from jaxcost.edge.jobs.sweep_rows import metric_unit
from jaxcost.explore.sweep import FeasibilityCounts, GroupBest, Ranking, TopK

__all__ = ["best_so_far", "feasible_share", "show_progress"]

_RESULTS_INTERVAL = 2.0  # seconds between two readings of the results so far


@contextmanager
def show_progress(size: int, reducers: dict[str, Any]) -> Iterator[Callable[[Progress], None] | None]:
    """Show a progress line while a sweep runs; nothing where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress as Bar, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[results]}"),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    start = time.monotonic()
    last_reading = start
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=size, rate="compiling", results="")

        def update(progress: Progress) -> None:
            nonlocal last_reading
            now = time.monotonic()
            rate = f"{engineering(progress.now / (now - start), '')}designs/s"
            bar.update(task, completed=progress.done, rate=rate)
            if now - last_reading > _RESULTS_INTERVAL:
                bar.update(task, results=_describe_results(progress.results(), reducers))
                last_reading = time.monotonic()

        yield update


def _describe_results(results: dict[str, Any], reducers: dict[str, Any]) -> str:
    parts = []
    share = feasible_share(results)
    if share is not None:
        parts.append(f"{share:.1%} feasible")
    best = best_so_far(results, reducers)
    if best is not None:
        parts.append(f"best {best[0]} {engineering(best[1], metric_unit(best[0]))}")
    return ", ".join(parts)


def feasible_share(results: dict[str, Any]) -> float | None:
    """Return the share of designs that satisfy every constraint, or None where no reducer counts them."""
    for result in results.values():
        if isinstance(result, FeasibilityCounts) and result.total:
            return result.feasible / result.total
    return None


def best_so_far(results: dict[str, Any], reducers: dict[str, Any]) -> tuple[str, float] | None:
    """Return the metric of the first ranking that is not empty and its best value, or None."""
    for name, result in results.items():
        if isinstance(result, Ranking | GroupBest) and len(result.index):
            reducer: TopK = reducers[name]
            column = result.values[:, result.metrics.index(reducer.metric)]
            return reducer.metric, float(column.max() if reducer.largest else column.min())
    return None
