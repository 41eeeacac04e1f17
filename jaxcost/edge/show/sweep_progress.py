"""The live line of a sweep on a terminal: how far, how fast, how many are feasible, the best so far, time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxcost.core.units import engineering
from jaxcost.edge.jobs.long_run import Progress
from jaxcost.edge.jobs.sweep_rows import metric_unit
from jaxcost.explore.sweep import FeasibilityCounts, GroupBest, Ranking, TopK

__all__ = ["best_so_far", "feasible_share", "live"]

_BETWEEN = 2.0  # seconds between two looks at what has been found


@contextmanager
def live(size: int, reducers: dict[str, Any]) -> Iterator[Callable[[Progress], None] | None]:
    """Show a line while a sweep runs; nothing where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[found]}"),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    start = time.monotonic()
    looked = start
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=size, rate="compiling", found="")

        def show(progress: Progress) -> None:
            nonlocal looked
            now = time.monotonic()
            rate = f"{engineering(progress.now / (now - start), '')}designs/s"
            bar.update(task, completed=progress.done, rate=rate)
            if now - looked > _BETWEEN:
                bar.update(task, found=_found(progress.results(), reducers))
                looked = time.monotonic()

        yield show


def _found(results: dict[str, Any], reducers: dict[str, Any]) -> str:
    said = []
    share = feasible_share(results)
    if share is not None:
        said.append(f"{share:.1%} feasible")
    best = best_so_far(results, reducers)
    if best is not None:
        said.append(f"best {best[0]} {engineering(best[1], metric_unit(best[0]))}")
    return ", ".join(said)


def feasible_share(results: dict[str, Any]) -> float | None:
    """Return the share of designs that hold every constraint, where one of the reducers has counted them."""
    for result in results.values():
        if isinstance(result, FeasibilityCounts) and result.total:
            return result.feasible / result.total
    return None


def best_so_far(results: dict[str, Any], reducers: dict[str, Any]) -> tuple[str, float] | None:
    """Return the metric of the first ranking and its best value, where there is one."""
    for name, result in results.items():
        if isinstance(result, Ranking | GroupBest) and len(result.index):
            reducer: TopK = reducers[name]
            column = result.values[:, result.metrics.index(reducer.metric)]
            return reducer.metric, float(column.max() if reducer.largest else column.min())
    return None
