"""The results of a sweep, as tables and as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcost.core.units import engineering
from jaxcost.edge.jobs.long_run import Outcome
from jaxcost.edge.jobs.sweep_rows import axis_units, design_rows, metric_unit, result_summary
from jaxcost.edge.show.sweep_progress import feasible_share
from jaxcost.edge.show.tables import plain_table, write
from jaxcost.explore.space import Axis, Range, Space, coordinates, leaf_axes
from jaxcost.explore.sweep import (
    Best,
    FeasibilityCounts,
    GroupBest,
    Histogram,
    Pareto,
    ParetoFront,
    Ranking,
    Reducer,
    TopK,
)

__all__ = ["print_designs", "print_json", "print_tables", "rank_rows"]

_SHOWN = (
    ("ttft", "TTFT", ""),
    ("tpot", "TPOT", ""),
    ("tokens_per_second", "token/s", " token/s"),
    ("joules_per_token", "J/token", "/token"),
    ("usd_per_mtok", "USD/Mtok", " USD/Mtok"),
    ("gco2e_per_mtok", "CO2e/Mtok", "/Mtok"),
)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_FRONT_ROWS = 12
_MAX_COLUMNS = 6  # more knobs are listed as rows
_NAMES = ("system", "model")


def rank_rows(result: Ranking | GroupBest, reducer: TopK | Best) -> np.ndarray:
    """Return the order of the rows of a result, best first, ties by index."""
    column = result.values[:, result.metrics.index(reducer.metric)]
    return np.lexsort((result.index, -column if reducer.largest else column))


def print_tables(
    outcome: Outcome,
    reducers: Mapping[str, Reducer],
    title: str,
    objective: str,
    elasticities: Sequence[tuple[str, float]],
    top: int,
) -> None:
    """Print every result, and the elasticities of the best design."""
    size, results = outcome.space.size, outcome.results
    share = feasible_share(results)
    feasible = "" if share is None else f"; {share:.1%} satisfy every constraint"
    rate = f"{size / max(outcome.seconds, 1e-9):,.0f} a second"
    blocks: list[Any] = [
        f"{size:,} designs in {outcome.seconds:.1f} s, compilation included ({rate}){feasible}"
    ]
    for name, result in results.items():
        blocks += _shown(outcome.space, name, reducers[name], result, top)
    shown_elasticities = [[path, f"{value:+.3f}"] for path, value in elasticities[:10] if abs(value) >= 5e-4]
    if shown_elasticities:
        heading = f"Elasticities of {objective} at design #1"
        blocks.append(plain_table(heading, ["parameter", "elasticity"], shown_elasticities))
    write(title, *blocks)


def _shown(space: Space, name: str, reducer: Any, result: Any, top: int) -> Iterator[Any]:
    if isinstance(result, Ranking | GroupBest):
        rows = rank_rows(result, reducer)[:top]
        if isinstance(result, Ranking):
            heading = f"{name}: the best designs, by {reducer.metric}"
        elif result.by == ("system", "model"):
            heading = f"The best design of each model on each system, by {reducer.metric}"
        else:
            heading = f"{name}: the best design of each {', '.join(result.by)}, by {reducer.metric}"
        yield from _designs(space, heading, result.index[rows], result.values[rows], result.metrics)
    elif isinstance(result, ParetoFront):
        yield from _front(space, name, reducer, result)
    elif isinstance(result, Histogram):
        yield _spread(result)
    elif isinstance(result, FeasibilityCounts):
        yield _reasons(result)


def print_designs(
    title: str, space: Space, index: np.ndarray, values: np.ndarray, metrics: Sequence[str]
) -> None:
    """Print designs: their metrics and the values of their knobs."""
    write(title, *_designs(space, "", index, values, metrics))


def _designs(
    space: Space, heading: str, index: np.ndarray, values: np.ndarray, metrics: Sequence[str]
) -> Iterator[Any]:
    if not len(index):
        yield f"{heading}: none"
        return
    columns = coordinates(space, index)
    shown = [entry for entry in _SHOWN if entry[0] in metrics]
    figures = [
        [
            str(rank + 1),
            str(columns["model"][rank]),
            str(columns["system"][rank]),
            *(
                engineering(float(row[metrics.index(name)]), metric_unit(name)).removesuffix(cut)
                for name, _, cut in shown
            ),
        ]
        for rank, row in enumerate(values)
    ]
    yield plain_table(heading, ["#", "model", "system", *(head for _, head, _ in shown)], figures, left=3)
    texts = {path: _axis_texts(space, path, column) for path, column in columns.items() if path not in _NAMES}
    numbers = [str(rank + 1) for rank in range(len(index))]
    if len(texts) > _MAX_COLUMNS:
        rows = [[" ".join(_short(path).split("\n")), *column] for path, column in texts.items()]
        yield plain_table("Knobs", ["#", *numbers], rows)
    elif texts:
        rows = [
            [number, *row] for number, row in zip(numbers, zip(*texts.values(), strict=True), strict=True)
        ]
        yield plain_table("Knobs", ["#", *map(_short, texts)], rows)


def _axis_texts(space: Space, path: str, column: np.ndarray) -> list[str]:
    if column.dtype.kind in "US":
        return [str(x) or "-" for x in column]
    leaves = [leaf for axis in space.axes for leaf in leaf_axes(axis) if leaf.path == path]
    relative = any(isinstance(leaf, Axis | Range) and leaf.relative for leaf in leaves)
    unit = axis_units(space)[path]
    out = []
    for value in map(float, column):
        if np.isnan(value):
            out.append("-")
        elif relative:
            out.append(f"x{value:.3g}")
        else:
            out.append(f"{value:g}" if unit in {"1", "token", "bit"} else engineering(value, unit))
    return out


def _short(path: str) -> str:
    return "\n".join(path.split(".")[-2:]) if path.startswith("system.") else path.split(".")[-1]


def _front(space: Space, name: str, reducer: Pareto, result: ParetoFront) -> Iterator[Any]:
    count = len(result.index)
    within = f"within {result.epsilon:.2g} of" if result.epsilon else "exactly"
    missing = (
        ""
        if result.complete
        else f"; NOT complete: up to {result.lost:,} more exceeded its size: increase size or epsilon"
    )
    per = f", for each {' and '.join(reducer.by)}" if reducer.by else ""
    yield f"{name}: {count:,} designs are {within} the Pareto front of {', '.join(reducer.objectives)}{per}{missing}"
    if reducer.by or not count:
        return
    rows = np.unique(np.linspace(0, count - 1, min(count, _FRONT_ROWS)).round().astype(int))
    heading = f"{name}: {len(rows)} of them, by {reducer.objectives[0]}"
    yield from _designs(space, heading, result.index[rows], result.values[rows], result.metrics)


def _spread(result: Histogram) -> Any:
    heading = f"{_heading(result.metric)} of the {result.count:,} designs that satisfy every constraint"
    if not result.count:
        return f"{heading}: none"
    unit = metric_unit(result.metric)
    cut = f" {unit}" if unit.startswith("USD") else "/" + unit.partition("/")[2]
    shares = [
        ("least", result.least),
        *((f"{q:.0%}", result.quantile(q)) for q in _QUANTILES),
        ("most", result.most),
    ]
    return plain_table(
        heading,
        [name for name, _ in shares],
        [[engineering(v, unit).removesuffix(cut) for _, v in shares]],
        left=0,
    )


def _heading(metric: str) -> str:
    return next((head for name, head, _ in _SHOWN if name == metric), metric)


def _reasons(result: FeasibilityCounts) -> Any:
    order = np.argsort(-result.violated, kind="stable")
    rows = [
        [
            result.margins[i].removeprefix("margins."),
            f"{result.violated[i] / result.total:.1%}",
            f"{result.alone[i] / result.total:.1%}",
        ]
        for i in order
        if result.violated[i]
    ]
    if not rows:
        return "No design violates a constraint"
    return plain_table(
        "Violated constraints",
        ["constraint", "violated", "no other"],
        rows,
    )


def print_json(
    outcome: Outcome,
    objective: str,
    best: list[dict[str, Any]],
    elasticities: Sequence[tuple[str, float]],
    settings: Mapping[str, Any],
) -> None:
    """Print the results as JSON."""
    document = {
        "designs": outcome.space.size,
        "seconds": outcome.seconds,
        "feasible": feasible_share(outcome.results),
        "objective": objective,
        **settings,
        "best": best,
        "elasticities": dict(elasticities),
        "results": {
            name: result_summary(result) | _json_rows(outcome.space, result)
            for name, result in outcome.results.items()
        },
    }
    print(json.dumps(document, indent=2))


def _json_rows(space: Space, result: Any) -> dict[str, Any]:
    if isinstance(result, Ranking | GroupBest | ParetoFront):
        return {"designs": design_rows(space, result.metrics, result.index, result.values)}
    if isinstance(result, Histogram):
        return {"edges": np.asarray(result.edges, float).tolist(), "counts": result.counts.tolist()}
    if isinstance(result, FeasibilityCounts):
        counts = zip(result.margins, result.violated.tolist(), result.alone.tolist(), strict=True)
        return {"margins": {name: {"violated": v, "alone": a} for name, v, a in counts}}
    return {}
