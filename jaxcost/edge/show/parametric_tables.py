"""Fronts, designs along a number, break-evens and elasticities of co-design, as blocks."""

from collections.abc import Iterator, Sequence

import numpy as np

from jaxcost.edge.show.codesign_tables import Block, knob_text, percent
from jaxcost.edge.show.study_words import Goal, amount, followed, label
from jaxcost.explore.codesign import Along, BreakEven, Codesign, Elasticities, Front

__all__ = ["along_blocks", "break_even_blocks", "elasticity_block", "front_block"]

_DESIGNS = 9  # side by side


def front_block(found: Codesign, front: Front) -> Block:
    """List designs of a front side by side, with what one metric costs in another."""
    first, *others = front.metrics
    points = [front.points[i] for i in _spread(len(front.points))]
    rows = [
        (label(name), *(amount(p.values[name], unit) for p in points))
        for name, unit in zip(front.metrics, front.units, strict=True)
    ]
    rows += [
        (f"1% more {label(name)} changes {label(first)} by", *(f"{p.slopes[name]:+.2f}%" for p in points))
        for name in others
    ]
    rows += _choices([p.choices for p in points])
    rows += [
        (label(knob.name), *(_short(found, k, points[i].knobs[k].value) for i in range(len(points))))
        for k, knob in enumerate(found.knobs)
    ]
    some = f", {len(points)} of them here" if len(points) < len(front.points) else ""
    title = f"The front: {len(front.points)} designs none of which is better in every metric{some}"
    return Block(title, ("", *map(str, range(1, len(points) + 1))), tuple(rows))


def along_blocks(found: Codesign, along: Along) -> Iterator[Block]:
    """List the best designs along a number, and what binds them."""
    goal, shown = Goal(found.objective), _spread(len(along.values))
    best = np.nanmin(along.objective) if np.isfinite(along.objective).any() else np.nan
    rows = [
        (goal.name, *(goal.says(x) if np.isfinite(x) else "none holds" for x in along.objective[shown])),
        (
            "against the best",
            *(
                percent(goal.own(x) / goal.own(best) - 1) if np.isfinite(x) else ""
                for x in along.objective[shown]
            ),
        ),
    ]
    rows += _choices([along.choices[i] for i in shown])
    rows += [
        (label(knob.name), *(_short(found, k, along.knobs[knob.name][i]) for i in shown))
        for k, knob in enumerate(found.knobs)
    ]
    heads = [amount(along.values[i], along.unit) for i in shown]
    yield Block(f"The best design at each {followed(along.path)}", ("", *heads), tuple(rows))
    walls = [
        (label(name), *(f"{prices[i]:.2f}" if prices[i] >= 5e-3 else "" for i in shown))
        for name, prices in sorted(along.multipliers.items(), key=lambda item: -item[1].max())
        if prices.max() >= 5e-3
    ]
    if walls:
        title = (
            f"Percent by which a limit eased by 1% {goal.verb} {goal.name}, at each {followed(along.path)}"
        )
        yield Block(title, ("", *heads), tuple(walls))


def break_even_blocks(found: Codesign, even: BreakEven) -> Iterator[Block]:
    """Say where two ways are equally good, and list how good each is on either side."""
    goal = Goal(found.objective)
    what = f"{followed(even.path)} from {amount(even.low, even.unit)} to {amount(even.high, even.unit)}"
    if np.isfinite(even.value):
        # Which is better below tells a reader on which side to build which.
        below = _better_below(even, goal)
        yield Block(
            f"Break-even: {even.names[0]} and {even.names[1]} are equally good at a {followed(even.path)} of "
            f"{amount(even.value, even.unit)}, with {goal.says(even.objective)} each; below it {below} is better."
        )
    else:
        lead = [
            name
            for name, own, other in zip(
                even.names, (even.first, even.second), (even.second, even.first), strict=True
            )
            if (np.where(np.isfinite(own), own, np.inf) <= np.where(np.isfinite(other), other, np.inf)).all()
        ]
        which = f"{lead[0]} is better all along" if len(lead) == 1 else "the two do not cross"
        yield Block(f"No break-even: {which} a {what}.")
    shown = _spread(len(even.values))
    rows = [
        (
            amount(even.values[i], even.unit),
            *(
                goal.says(curve[i]) if np.isfinite(curve[i]) else "none holds"
                for curve in (even.first, even.second)
            ),
        )
        for i in shown
    ]
    heads = (followed(even.path), *even.names)
    yield Block(f"{goal.name} of either, at its best, by {followed(even.path)}", heads, tuple(rows))


def _better_below(even: BreakEven, goal: Goal) -> str:
    below = [i for i, v in enumerate(even.values) if v < even.value and np.isfinite(even.first[i])]
    if not below:
        return even.names[1]
    i = below[-1]
    return even.names[0] if even.first[i] <= even.second[i] or np.isnan(even.second[i]) else even.names[1]


def elasticity_block(found: Elasticities) -> Block:
    """Show percent by percent what each knob moves."""
    rows = tuple(
        (label(metric), *(f"{x:+.2f}" if abs(x) >= 5e-3 else "" for x in found.table[m]))
        for m, metric in enumerate(found.metrics)
    )
    title = "Percent by which a metric moves where a knob alone grows by 1%, limits left aside"
    return Block(title, ("", *map(label, found.knobs)), rows)


def _spread(count: int) -> list[int]:
    """Choose some of many, evenly, both ends among them."""
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, _DESIGNS))}) if count else []


def _choices(choices: Sequence[dict]) -> list[tuple[str, ...]]:
    paths = choices[0] if choices else {}
    return [
        (path if "." not in path else label(path), *(str(c[path]) for c in choices))
        for path in paths
        if len({str(c[path]) for c in choices}) > 1
    ]


def _short(found: Codesign, knob: int, value: float) -> str:
    return knob_text(found, found.knobs[knob], value).split(" (")[0]
