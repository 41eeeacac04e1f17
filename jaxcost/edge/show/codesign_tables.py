"""What co-design found, as blocks of text and tables that print on a terminal and write as Markdown."""

import dataclasses
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group
from rich.text import Text

from jaxcost.core.units import number
from jaxcost.edge.show.study_words import Goal, amount, label, one_more
from jaxcost.edge.show.tables import plain_table, unwrapped
from jaxcost.edge.studies.study_file import Study
from jaxcost.explore.codesign import Codesign, KnobValue, Limit
from jaxcost.explore.sweep import report_metrics

__all__ = [
    "Block",
    "chosen",
    "design_blocks",
    "knob_text",
    "markdown",
    "percent",
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
_MOST_LIMITS = 8
_BEST = 5
_WIDE = 140


@dataclasses.dataclass(frozen=True)
class Block:
    """A line of text where there are no columns, else a table of which the first `left` columns are words."""

    text: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    left: int = 1


def renderable(block: Block) -> Any:
    """Make a block ready for a terminal."""
    if not block.columns:
        return Text(f"{block.text}\n")
    table = plain_table("", block.columns, [[Text(cell) for cell in row] for row in block.rows], block.left)
    lines = [block.columns, *block.rows]
    wide = sum(max(len(line[i]) for line in lines) + 1 for i in range(len(block.columns)))
    return Group(Text(block.text, "bold"), unwrapped(table) if wide <= _WIDE else table)


def markdown(title: str, blocks: Sequence[Block], pictures: Sequence[tuple[str, str]] = ()) -> str:
    """Write blocks, and pictures as (title, file), as one page of Markdown."""
    parts = [f"# {title}"]
    for block in blocks:
        if not block.columns:
            parts.append(_escaped(block.text))
            continue
        rule = [":--" if i < block.left else "--:" for i in range(len(block.columns))]
        lines = [block.columns, rule, *block.rows]
        parts.append(f"## {block.text}")
        parts.append("\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines))
    parts += [f"![{name}]({file})" for name, file in pictures]
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def design_blocks(study: Study, found: Codesign) -> Iterator[Block]:
    """Yield what `codesign` found: the answer first, then the design, and what it hangs on."""
    goal = Goal(found.objective)
    if study.question:
        yield Block(study.question)
    if found.failed:
        yield Block(f"Unsolved: {found.failed}.")
    else:
        yield Block(_answer(study, found, goal))
    yield _design(found)
    yield _metrics(found)
    if found.failed:
        yield from _broken(found)
    else:
        yield from _limits(found, goal)
    yield Block(_convergence(found))
    if len(found.alternatives) > 1:
        yield _alternatives(found, goal)


def _answer(study: Study, found: Codesign, goal: Goal) -> str:
    several = len(found.scenarios) > 1
    over = {0.0: "mean", 1.0: "worst"}.get(found.over, f"mean of the worst {1 - found.over:.0%}")
    among = f", {over} of {len(found.scenarios)} that one design serves" if several else ""
    what = [str(name) for path, name in chosen(found).items() if isinstance(name, str)]
    with_ = f" with {', '.join(what)}" if what else ""
    gap = f"{abs(found.gap):.2%} {'worse' if found.gap >= 0 else 'better'}"
    name = goal.name[0].upper() + goal.name[1:]
    return (
        f"{name}: {goal.says(found.value)}{with_}{among}. Without rounding to whole numbers it could be "
        f"{goal.says(found.relaxed)}: the design is {gap}."
    )


def chosen(found: Codesign) -> dict[str, Any]:
    """Return the choices among which there was one."""
    first = found.alternatives[0][0] if found.alternatives else {}
    several = [path for path in first if len({str(choice[path]) for choice, _ in found.alternatives}) > 1]
    return {path: value for path, value in found.choices.items() if path in several}


def _design(found: Codesign) -> Block:
    rows = [
        (_of_choice(path), _choice_text(found, path, value), "", "") for path, value in found.choices.items()
    ]
    rows += [
        (
            label(knob.name),
            knob_text(found, knob, knob.value),
            " to ".join(knob_text(found, knob, x).split(" (")[0] for x in (knob.low, knob.high)),
            _at_end(knob),
        )
        for knob in found.knobs
    ]
    return Block("The design", ("", "Value", "Range", "Where in it"), tuple(rows))


def _of_choice(path: str) -> str:
    return path if "." not in path else label(path)


def _choice_text(found: Codesign, path: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    unit = _unit(found, path)
    return amount(float(value), unit) if unit else number(float(value))


def _at_end(knob: KnobValue) -> str:
    if not knob.end:
        return "within"
    # The slope of what is lowered: what the end holds back.
    more = f"; 1% beyond it would bring {abs(knob.slope):.2f}%" if abs(knob.slope) >= 5e-5 else ""
    return f"at its {knob.end} end{more}"


def _unit(found: Codesign, path: str) -> str:
    branch, _, last = path.rpartition(".")
    try:
        fields = dataclasses.fields(operator.attrgetter(branch)(found.design))
    except (AttributeError, TypeError):
        return ""
    return next((f.metadata.get("unit", "") for f in fields if f.name == last), "")


def knob_text(found: Codesign, knob: KnobValue, value: float) -> str:
    """Write a value of a knob; of one that multiplies, what it makes of the number in the design."""
    if knob.name.endswith(".stacks"):
        return f"{value:g}" if knob.whole else number(value)
    unit = _unit(found, knob.name)
    if not knob.relative:
        return amount(value, unit)
    now = float(operator.attrgetter(knob.name)(found.design))
    made = now / knob.value * value if knob.value else 0.0
    return f"{amount(made, unit)} (x{value:.3g})" if made else f"x{value:.3g}"


def _metrics(found: Codesign) -> Block:
    units = report_metrics()
    names = dict.fromkeys((*found.objective, *_METRICS, *(limit.metric for limit in found.limits)))
    shown = [name for name in names if not name.startswith("margins.")]
    many = len(found.scenarios) > 1
    rows = [
        (
            label(name),
            *(amount(float(operator.attrgetter(name)(report)), units[name]) for report in found.reports),
        )
        for name in shown
    ]
    used = [
        f"{amount(float(r.memory.used), 'B')} ({1 - float(r.margins.memory):.0%} of what there is)"
        for r in found.reports
    ]
    rows.append(("memory used, fullest chip", *used))
    return Block("What it does", ("", *(found.scenarios if many else ("Value",))), tuple(rows))


def _limits(found: Codesign, goal: Goal) -> Iterator[Block]:
    shown = found.active[:_MOST_LIMITS]
    if not shown:
        yield Block(
            "No limit binds: the design is where it is for its own sake, or at the ends of its knobs."
        )
        return
    rest = len(found.active) - len(shown)
    columns = ("Limit", "Bound", "Design", "Eased by 1%")
    rows = tuple(_limit_row(limit, found, goal) for limit in shown)
    yield Block(f"Limits that bind, the dearest first{f' ({rest} more)' * (rest > 0)}", columns, rows, left=2)
    priced = [limit for limit in shown if limit.limit and limit.price]
    if priced:
        yield Block("At that: " + "; ".join(_worth(limit, found, goal) for limit in priced) + ".")


def _worth(limit: Limit, found: Codesign, goal: Goal) -> str:
    margin = limit.metric.startswith("margins.")
    step, name = one_more(limit.limit, limit.unit)
    more = "less" if not margin and not limit.upper else "more"
    of = label(limit.path) if margin else label(limit.metric)
    counted = f"one {more} {name}".strip()
    return f"{counted} of {of} {goal.verb} it by {goal.change(found.value, limit.price * step)}"


def _limit_row(limit: Limit, found: Codesign, goal: Goal) -> tuple[str, ...]:
    margin = limit.metric.startswith("margins.")
    where = f" ({limit.scenario})" if limit.scenario and len({x.scenario for x in found.limits}) > 1 else ""
    side = "at least" if margin or not limit.upper else "at most"
    unit = report_metrics()[limit.metric]
    sign = "-" if goal.verb.startswith("lower") else "+"
    return (
        label(limit.metric) + where,
        f"{side} {amount(limit.bound, unit)}",
        amount(limit.value, unit),
        f"{sign}{limit.multiplier / abs(goal.weight):.2f}%",
    )


def _broken(found: Codesign) -> Iterator[Block]:
    units = report_metrics()
    rows = tuple(
        (
            label(limit.metric) + (f" ({limit.scenario})" if limit.scenario else ""),
            f"{'at most' if limit.upper else 'at least'} {amount(limit.bound, units[limit.metric])}",
            amount(limit.value, units[limit.metric]),
        )
        for limit in sorted(found.limits, key=lambda x: x.slack)
        if limit.slack < -1e-9
    )
    if rows:
        columns = ("Limit", "Bound", "Design")
        yield Block("Limits that the nearest design breaks", columns, rows[:_MOST_LIMITS], left=2)


def _convergence(found: Codesign) -> str:
    c = found.convergence
    return (
        f"Solved from {c.starts:,} starts with {c.evaluations:,} evaluations and their gradients: "
        f"{c.converged:.0%} met their tolerances, and {c.agreed:.0%} of those with the same choices agree on the "
        f"best within 0.5%. Slope left {_small(c.stationarity)}, limits broken by {_small(c.violation)}, price "
        f"times slack {_small(c.complementarity)}."
    )


def _small(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _alternatives(found: Codesign, goal: Goal) -> Block:
    paths = list(chosen(found)) or list(found.choices)
    best = found.alternatives[0][1]
    rows = [
        (
            *(_choice_text(found, path, choice[path]) for path in paths),
            goal.says(value) if math.isfinite(value) else "no design holds",
            percent(goal.own(value) / goal.own(best) - 1) if math.isfinite(value) else "",
        )
        for choice, value in found.alternatives[:_BEST]
    ]
    count = len(found.alternatives)
    columns = (*(_of_choice(path) for path in paths), goal.name, "against the best")
    return Block(
        f"The best of {count:,} combinations, each with its own knobs, before rounding",
        columns,
        tuple(rows),
        left=len(paths),
    )


def percent(share: float) -> str:
    """Write a change with its sign."""
    return f"{share:+.1%}" if abs(share) >= 5e-4 else "0%"


def robust_blocks(found: Codesign, robust: Codesign, draws: int) -> Iterator[Block]:
    """Yield a design for uncertain constants beside the one for their best values."""
    goal = Goal(found.objective)
    over = {0.0: "mean", 1.0: "worst"}.get(robust.over, f"mean of the worst {1 - robust.over:.0%}")
    if robust.failed:
        yield Block(f"No design holds in all {draws} draws of the uncertain constants: {robust.failed}.")
        return
    rows = [
        (_of_choice(path), _choice_text(found, path, value), _choice_text(robust, path, robust.choices[path]))
        for path, value in found.choices.items()
        if path in chosen(found) or path in chosen(robust)
    ]
    rows += [
        (label(a.name), knob_text(found, a, a.value), knob_text(robust, b, b.value))
        for a, b in zip(found.knobs, robust.knobs, strict=True)
    ]
    rows.append((goal.name, f"{goal.says(found.value)} at best values", f"{goal.says(robust.value)}, {over}"))
    title = f"A design that holds in all {draws} draws of the uncertain constants"
    yield Block(title, ("", "Best values", "Uncertain"), tuple(rows))
