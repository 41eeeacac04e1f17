"""Results of co-design as blocks of text and tables, for a terminal and for Markdown."""

import dataclasses
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from jaxcost.core.units import number
from jaxcost.edge.show.study_words import DisplayedObjective, customary_unit, format_amount, label
from jaxcost.edge.show.tables import plain_table, unwrapped
from jaxcost.edge.studies.study_file import Study
from jaxcost.explore.codesign import Codesign, KnobValue, Limit
from jaxcost.explore.sweep import report_metrics

__all__ = [
    "Block",
    "compared_choices",
    "design_blocks",
    "format_change",
    "knob_text",
    "markdown",
    "renderable",
    "robust_blocks",
]

_METRICS = (
    "usd_per_mtok",
    "gco2e_per_mtok",
    "joules_per_token",
    "tpot",
    "ttft",
    "tokens_per_second",
    "power.decode",
    "power.prefill",
    "build.price",
    "build.die_area",
)
_MAX_LIMITS = 8
_SHOWN_COMBINATIONS = 5
_MAX_WIDTH = 140
_ROUNDING = 1e-9  # of the logarithm of a limit


@dataclasses.dataclass(frozen=True)
class Block:
    """A paragraph where there are no columns, else a table whose first `left` columns are text."""

    text: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    left: int = 1


def renderable(block: Block) -> Any:
    """Return a block as rich renders it."""
    if not block.columns:
        return Text(f"{block.text}\n")
    table = plain_table("", block.columns, [[Text(cell) for cell in row] for row in block.rows], block.left)
    lines = [block.columns, *block.rows]
    width = sum(max(len(line[i]) for line in lines) + 1 for i in range(len(block.columns)))
    return Group(Text(block.text, "bold"), unwrapped(table) if width <= _MAX_WIDTH else table)


def markdown(title: str, blocks: Sequence[Block], figures: Sequence[tuple[str, str]] = ()) -> str:
    """Return a page of Markdown of blocks, and of figures as (title, file)."""
    parts = [f"# {title}"]
    for block in blocks:
        if not block.columns:
            parts.append(_escaped(block.text))
            continue
        rule = [":--" if i < block.left else "--:" for i in range(len(block.columns))]
        lines = [block.columns, rule, *block.rows]
        parts.append(f"## {block.text}")
        parts.append("\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines))
    parts += [f"![{name}]({file})" for name, file in figures]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def design_blocks(study: Study, result: Codesign) -> Iterator[Block]:
    """Yield the result of a study: the objective, the design, its metrics, its limits and the convergence."""
    objective = DisplayedObjective(result.objective)
    if study.question:
        yield Block(study.question)
    if result.failed:
        yield Block(f"Unsolved: {result.failed}.")
    else:
        yield Block(_summary(result, objective))
    yield _design(result)
    yield _metrics(result)
    if result.failed:
        yield from _violated_limits(result)
    else:
        yield from _limits(result, objective)
    yield Block(_convergence(result))
    if len(result.alternatives) > 1:
        yield _alternatives(result, objective)


def _summary(result: Codesign, objective: DisplayedObjective) -> str:
    several = len(result.scenarios) > 1
    over = f", {_aggregate(result)} over {len(result.scenarios)} scenarios" if several else ""
    names = [str(name) for name in compared_choices(result).values() if isinstance(name, str)]
    choices = f" with {', '.join(names)}" if names else ""
    gap = f"{abs(result.gap):.2%} {'worse' if result.gap >= 0 else 'better'}"
    name = objective.name[0].upper() + objective.name[1:]
    return (
        f"{name}: {objective.format(result.value)}{choices}{over}. The relaxed optimum, before rounding to whole "
        f"numbers, is {objective.format(result.relaxed)}: the design is {gap}."
    )


def _aggregate(result: Codesign) -> str:
    return {0.0: "mean", 1.0: "worst"}.get(result.over, f"mean of the worst {1 - result.over:.0%}")


def compared_choices(result: Codesign) -> dict[str, Any]:
    """Return the choices of the design on the axes that have several."""
    first = result.alternatives[0][0] if result.alternatives else {}
    several = [path for path in first if len({str(choice[path]) for choice, _ in result.alternatives}) > 1]
    return {path: value for path, value in result.choices.items() if path in several}


def _design(result: Codesign) -> Block:
    rows = [
        (_choice_label(path), _choice_text(result, path, value), "", "")
        for path, value in result.choices.items()
    ]
    rows += [
        (
            label(knob.name),
            knob_text(result, knob, knob.value),
            " to ".join(knob_text(result, knob, x).split(" (")[0] for x in (knob.low, knob.high)),
            _position(knob),
        )
        for knob in result.knobs
    ]
    return Block("The design", ("", "Value", "Range", "Position"), tuple(rows))


def _choice_label(path: str) -> str:
    return path if "." not in path else label(path)


def _choice_text(result: Codesign, path: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    unit = _unit(result, path)
    return format_amount(float(value), unit) if unit else number(float(value))


def _position(knob: KnobValue) -> str:
    if not knob.end:
        return "inside"
    gain = abs(knob.slope)
    beyond = f" (1% beyond: {gain:.2f}% better)" if gain >= 5e-5 else ""
    return f"at its {knob.end} end{beyond}"


def _unit(result: Codesign, path: str) -> str:
    branch, _, last = path.rpartition(".")
    try:
        fields = dataclasses.fields(operator.attrgetter(branch)(result.design))
    except (AttributeError, TypeError):
        return ""
    return next((f.metadata.get("unit", "") for f in fields if f.name == last), "")


def knob_text(result: Codesign, knob: KnobValue, value: float) -> str:
    """Write a value of a knob; of a factor, the value of the leaf too."""
    if knob.name.endswith(".stacks"):
        return f"{value:g}" if knob.whole else number(value)
    unit = _unit(result, knob.name)
    if not knob.relative:
        return format_amount(value, unit)
    leaf = float(operator.attrgetter(knob.name)(result.design))
    scaled = leaf / knob.value * value if knob.value else 0.0
    return f"{format_amount(scaled, unit)} (x{value:.3g})" if scaled else f"x{value:.3g}"


def _metrics(result: Codesign) -> Block:
    units = report_metrics()
    names = dict.fromkeys((*result.objective, *_METRICS, *(limit.metric for limit in result.limits)))
    shown = [name for name in names if not name.startswith("margins.")]
    several = len(result.scenarios) > 1
    rows = [
        (
            label(name),
            *(
                format_amount(float(operator.attrgetter(name)(report)), units[name])
                for report in result.reports
            ),
        )
        for name in shown
    ]
    used = [
        f"{format_amount(float(r.memory.used), 'B')} ({1 - float(r.margins.memory):.0%} of the capacity)"
        for r in result.reports
    ]
    rows.append(("memory used, fullest chip", *used))
    return Block("Metrics of the design", ("", *(result.scenarios if several else ("Value",))), tuple(rows))


def _limits(result: Codesign, objective: DisplayedObjective) -> Iterator[Block]:
    shown = result.active[:_MAX_LIMITS]
    if not shown:
        yield Block("No limit is active: the optimum is inside all limits, or at the ends of its knobs.")
        return
    rest = len(result.active) - len(shown)
    title = f"Active limits, by shadow price{f' ({rest} more)' * (rest > 0)}"
    columns = ("Limit", "Bound", "Design", f"{objective.name} if relaxed by 1%")
    rows = tuple(_limit_row(limit, result, objective) for limit in shown)
    yield Block(title, columns, rows, left=2)
    priced = [limit for limit in shown if limit.limit and limit.price]
    if priced:
        prices = "; ".join(_shadow_price(limit, result, objective) for limit in priced)
        yield Block(f"Shadow prices: {prices}.")


def _shadow_price(limit: Limit, result: Codesign, objective: DisplayedObjective) -> str:
    margin = limit.metric.startswith("margins.")
    size, unit = customary_unit(limit.limit, limit.unit)
    more = "less" if not margin and not limit.upper else "more"
    of = label(limit.path) if margin else label(limit.metric)
    step = f"one {more} {unit}".strip()
    change = objective.format_change(result.value, limit.price * size)
    return f"{step} of {of} {objective.verb} {objective.name} by {change}"


def _limit_row(limit: Limit, result: Codesign, objective: DisplayedObjective) -> tuple[str, ...]:
    sign = "-" if objective.verb == "lowers" else "+"
    return (*_limit_cells(limit, result), f"{sign}{limit.multiplier / abs(objective.weight):.2f}%")


def _limit_cells(limit: Limit, result: Codesign) -> tuple[str, str, str]:
    """Return the limit, its bound and the value in the design."""
    unit = report_metrics()[limit.metric]
    several = len({x.scenario for x in result.limits}) > 1
    scenario = f" ({limit.scenario})" if several and limit.scenario else ""
    side = "at most" if limit.upper else "at least"
    return (
        label(limit.metric) + scenario,
        f"{side} {format_amount(limit.bound, unit)}",
        format_amount(limit.value, unit),
    )


def _violated_limits(result: Codesign) -> Iterator[Block]:
    violated = [limit for limit in sorted(result.limits, key=lambda x: x.slack) if limit.slack < -_ROUNDING]
    if violated:
        rows = tuple(_limit_cells(limit, result) for limit in violated[:_MAX_LIMITS])
        yield Block("Limits that the nearest design violates", ("Limit", "Bound", "Design"), rows, left=2)


def _convergence(result: Codesign) -> str:
    c = result.convergence
    return (
        f"Solved from {c.starts:,} starts with {c.evaluations:,} evaluations and their gradients. {c.converged:.0%} of "
        f"the starts converged, and {c.agreed:.0%} of those with the same choices are within 0.5% of the best. "
        f"Residuals: stationarity {_small(c.stationarity)}, violation {_small(c.violation)}, complementarity "
        f"{_small(c.complementarity)}."
    )


def _small(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _alternatives(result: Codesign, objective: DisplayedObjective) -> Block:
    paths = list(compared_choices(result)) or list(result.choices)
    best = result.alternatives[0][1]
    rows = [
        (
            *(_choice_text(result, path, choice[path]) for path in paths),
            objective.format(value) if math.isfinite(value) else "infeasible",
            format_change(objective.metric_value(value) / objective.metric_value(best) - 1)
            if math.isfinite(value)
            else "",
        )
        for choice, value in result.alternatives[:_SHOWN_COMBINATIONS]
    ]
    count = len(result.alternatives)
    columns = (*(_choice_label(path) for path in paths), objective.name, "vs. best")
    return Block(
        f"The best of {count:,} combinations of choices, before rounding",
        columns,
        tuple(rows),
        left=len(paths),
    )


def format_change(share: float) -> str:
    """Write a relative change in percent, with its sign."""
    return f"{share:+.1%}" if abs(share) >= 5e-4 else "0%"


def robust_blocks(result: Codesign, robust: Codesign, draws: int) -> Iterator[Block]:
    """Yield a comparison of a design for the best estimates of the constants with one for draws of them."""
    objective = DisplayedObjective(result.objective)
    if robust.failed:
        yield Block(
            f"No design is feasible in all {draws} draws of the uncertain constants: {robust.failed}."
        )
        return
    rows = [
        (
            _choice_label(path),
            _choice_text(result, path, value),
            _choice_text(robust, path, robust.choices[path]),
        )
        for path, value in result.choices.items()
        if path in compared_choices(result) or path in compared_choices(robust)
    ]
    rows += [
        (label(a.name), knob_text(result, a, a.value), knob_text(robust, b, b.value))
        for a, b in zip(result.knobs, robust.knobs, strict=True)
    ]
    robust_value = f"{objective.format(robust.value)}, {_aggregate(robust)}"
    rows.append((objective.name, objective.format(result.value), robust_value))
    title = f"A robust design, feasible in all {draws} draws of the uncertain constants"
    yield Block(title, ("", "For best estimates", "For all draws"), tuple(rows))
