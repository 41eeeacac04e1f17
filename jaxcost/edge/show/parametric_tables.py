"""Fronts, designs along a parameter, break-evens and elasticities of co-design, as blocks of text and tables."""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxcost.edge.show.codesign_tables import Block, format_change, knob_text
from jaxcost.edge.show.study_words import DisplayedObjective, format_amount, label, parameter_label
from jaxcost.explore.codesign import Along, BreakEven, Codesign, Elasticities, Front

__all__ = ["along_blocks", "break_even_blocks", "elasticity_block", "front_block"]

_COLUMNS = 9  # designs in one table


def front_block(result: Codesign, front: Front) -> Block:
    """Return a table of designs of a front, with the slopes of the front."""
    first, *others = front.metrics
    points = [front.points[i] for i in _evenly_spaced(len(front.points))]
    rows = [
        (label(name), *(format_amount(p.values[name], unit) for p in points))
        for name, unit in zip(front.metrics, front.units, strict=True)
    ]
    rows += [
        (f"1% more {label(name)} changes {label(first)} by", *(f"{p.slopes[name]:+.2f}%" for p in points))
        for name in others
    ]
    rows += _choices([p.choices for p in points])
    rows += [
        (
            label(knob.name),
            *(_short_knob_text(result, k, points[i].knobs[k].value) for i in range(len(points))),
        )
        for k, knob in enumerate(result.knobs)
    ]
    shown = f", {len(points)} of them shown" if len(points) < len(front.points) else ""
    title = f"Pareto front: {len(front.points)} designs{shown}"
    return Block(title, ("", *map(str, range(1, len(points) + 1))), tuple(rows))


def along_blocks(result: Codesign, along: Along) -> Iterator[Block]:
    """Yield a table of the best designs along a parameter, and one of their active limits."""
    objective, shown = DisplayedObjective(result.objective), _evenly_spaced(len(along.values))
    best = np.nanmin(along.objective) if np.isfinite(along.objective).any() else np.nan
    rows = [
        (
            objective.name,
            *(objective.format(x) if np.isfinite(x) else "infeasible" for x in along.objective[shown]),
        ),
        (
            "vs. best",
            *(
                format_change(objective.metric_value(x) / objective.metric_value(best) - 1)
                if np.isfinite(x)
                else ""
                for x in along.objective[shown]
            ),
        ),
    ]
    rows += _choices([along.choices[i] for i in shown])
    rows += [
        (label(knob.name), *(_short_knob_text(result, k, along.knobs[knob.name][i]) for i in shown))
        for k, knob in enumerate(result.knobs)
    ]
    heads = [format_amount(along.values[i], along.unit) for i in shown]
    yield Block(f"The best design at each {parameter_label(along.path)}", ("", *heads), tuple(rows))
    priced = [
        (label(name), *(f"{prices[i]:.2f}" if prices[i] >= 5e-3 else "" for i in shown))
        for name, prices in sorted(along.multipliers.items(), key=lambda item: -item[1].max())
        if prices.max() >= 5e-3
    ]
    if priced:
        title = (
            f"Percent by which relaxing a limit by 1% {objective.verb} {objective.name}, "
            f"at each {parameter_label(along.path)}"
        )
        yield Block(title, ("", *heads), tuple(priced))


def break_even_blocks(result: Codesign, even: BreakEven) -> Iterator[Block]:
    """Yield the break-even value of two choices, and a table of both curves."""
    objective = DisplayedObjective(result.objective)
    parameter = parameter_label(even.path)
    if np.isfinite(even.value):
        same = f"{objective.name} {objective.format(even.objective)}"
        yield Block(
            f"Break-even: {even.names[0]} and {even.names[1]} both reach {same} at {parameter} "
            f"{format_amount(even.value, even.unit)}; below it {_better_below(even)} is better."
        )
    else:
        first, second = (np.where(np.isfinite(x), x, np.inf) for x in (even.first, even.second))
        better = [
            name
            for name, a, b in zip(even.names, (first, second), (second, first), strict=True)
            if (a <= b).all()
        ]
        outcome = f"{better[0]} is better" if len(better) == 1 else "the two curves do not cross"
        ends = f"from {format_amount(even.low, even.unit)} to {format_amount(even.high, even.unit)}"
        yield Block(f"No break-even: {outcome} for every {parameter} {ends}.")
    shown = _evenly_spaced(len(even.values))
    rows = [
        (
            format_amount(even.values[i], even.unit),
            *(
                objective.format(curve[i]) if np.isfinite(curve[i]) else "infeasible"
                for curve in (even.first, even.second)
            ),
        )
        for i in shown
    ]
    title = f"{objective.name} of the best design with each choice, by {parameter}"
    yield Block(title, (parameter, *even.names), tuple(rows))


def _better_below(even: BreakEven) -> str:
    below = [i for i, v in enumerate(even.values) if v < even.value and np.isfinite(even.first[i])]
    if not below:
        return even.names[1]
    i = below[-1]
    return even.names[0] if even.first[i] <= even.second[i] or np.isnan(even.second[i]) else even.names[1]


def elasticity_block(elasticities: Elasticities) -> Block:
    """Return a table of the elasticity of each metric by each knob."""
    rows = tuple(
        (label(metric), *(f"{x:+.2f}" if abs(x) >= 5e-3 else "" for x in elasticities.table[m]))
        for m, metric in enumerate(elasticities.metrics)
    )
    title = "Elasticities: percent by which a metric changes when a knob grows by 1%, limits not enforced"
    return Block(title, ("", *map(label, elasticities.knobs)), rows)


def _evenly_spaced(count: int) -> list[int]:
    """Return at most `_COLUMNS` of `count` indices, evenly spaced, with both ends."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, _COLUMNS))}) if count else []


def _choices(choices: Sequence[dict]) -> list[tuple[str, ...]]:
    paths = choices[0] if choices else {}
    return [
        (path if "." not in path else label(path), *(str(c[path]) for c in choices))
        for path in paths
        if len({str(c[path]) for c in choices}) > 1
    ]


def _short_knob_text(result: Codesign, knob: int, value: float) -> str:
    return knob_text(result, result.knobs[knob], value).split(" (")[0]
