"""Tables of reports, and the printing of tables: all text of a command is printed at once."""

import io
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from jaxcost.core.units import engineering, number
from jaxcost.edge.show.verdict import Verdict, judge
from jaxcost.physics.compute.roofline import LEGS

__all__ = [
    "CONSTRAINTS",
    "HEADLINE",
    "LEGS",
    "STEPS",
    "Operator",
    "SideBySide",
    "Values",
    "comparison_table",
    "exceeded",
    "headline_table",
    "judge_values",
    "margin_row",
    "margins_table",
    "memory_table",
    "operator_table",
    "operators",
    "plain_table",
    "step_tables",
    "summary_tables",
    "ttft_label",
    "unwrapped",
    "write",
]

# Path in the report, label, whether higher is better.
HEADLINE = (
    ("ttft", "First token (TTFT)", False),
    ("tpot", "Each token (TPOT)", False),
    ("tokens_per_second", "Output tokens", True),
    ("joules_per_token", "Energy", False),
    ("usd_per_mtok", "Cost, per million output tokens, all in", False),
    ("gco2e_per_mtok", "CO2e", False),
    ("average_power", "Average power", False),
)
CONSTRAINTS = {
    "memory": "memory",
    "chips": "chips",
    "power": "power",
    "ttft": "TTFT",
    "tpot": "TPOT",
    "sram": "on-chip memory",
    "hbf": "flash stacks",
    "host": "host memory",
    "cxl": "CXL memory",
    "ssd": "drives",
    "temperature": "temperature",
    "shoreline": "shoreline",
    "area": "die area",
    "endurance": "endurance",
    "plan": "plan",
    "sequences": "sequences",
}
_ALWAYS = ("memory", "chips", "power", "ttft", "tpot")  # the others are shown only where they can fail

STEPS = {"prefill": "Prefill step", "decode": "Decode step"}
_MIXED = "Mixed step (prefill chunk and decode)"
_SHORT = {"exponential": "exp"}
_MEMORY = {
    "weights": "weights",
    "experts": "experts",
    "kv": "KV cache",
    "state": "state",
    "activations": "buffers",
    "communication": "messages",
    "runtime": "runtime",
    "graphs": "graphs",
    "corpus": "corpus",
}
_NARROWEST, _DEFAULT, _WIDEST = 80, 100, 140
_UNLIMITED = 10_000
_TTFT = "First token (TTFT)"

Values = dict[str, tuple[str, float]]  # dotted path in a report: (unit, value)
Operator = dict[str, Any]


def write(*parts: RenderableType) -> None:
    """Print all parts, at the width of the terminal between 80 and 140 columns, and at 100 without a terminal."""
    width = shutil.get_terminal_size((_DEFAULT, 24)).columns
    width = min(max(width, _NARROWEST), _WIDEST)
    in_colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    console = Console(file=io.StringIO(), width=_WIDEST, force_terminal=in_colour, highlight=False)
    for part in parts:
        console.print(part, width=max(width, _WIDEST) if _is_rigid(part) else width)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in text.splitlines()]
    sys.stdout.write("\n".join(lines) + "\n")


def _is_rigid(part: RenderableType) -> bool:
    """Return whether a part, or one of a group, is a table whose lines are not wrapped."""
    if isinstance(part, Group):
        return any(map(_is_rigid, part.renderables))
    return isinstance(part, Table) and all(column.no_wrap for column in part.columns)


def plain_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[RenderableType]], left: int = 1
) -> Table:
    """Return a table whose first `left` columns are aligned left and the others right."""
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        show_header=any(columns),
    )
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def unwrapped(table: Table) -> Table:
    """Keep every cell on one line, even beyond the width of the terminal."""
    for column in table.columns:
        column.no_wrap = True
    return table


def ttft_label(values: Values) -> str:
    """Return the label of the TTFT of a report: of whom it is the time."""
    if values["schedule.mixed_share"][1] > 0:
        return f"{_TTFT}, mixed with decoding"
    return _TTFT if values["schedule.requests"][1] <= 1 else f"{_TTFT}, the whole batch"


def headline_table(values: Values, ttft_alone: float | None = None) -> Table:
    """Show the totals of a report, and the time to first token of one request alone where it is another."""
    names = {path: name for path, name, _ in HEADLINE} | {"ttft": ttft_label(values)}
    rows = [(name, engineering(values[path][1], values[path][0])) for path, name in names.items()]
    if ttft_alone is not None and names["ttft"] != _TTFT:
        if ttft_alone == values["ttft"][1]:  # one request in every replica
            rows[0] = (_TTFT, rows[0][1])
        else:
            rows.insert(0, (f"{_TTFT}, one request alone", engineering(ttft_alone, "s")))
    stale, up = (values[f"reliability.{name}"][1] for name in ("stale_tokens", "availability"))
    if stale > 0:
        rows.append(("Tokens with stale data of late ranks", f"{stale:.2%}"))
    if up < 1:
        rows.append(("Availability", f"{up:.4%}"))
    return unwrapped(plain_table("Results", ("", ""), rows))


def memory_table(values: Values, capacity: float | None = None) -> Table:
    """Show the bytes of the fullest chip by kind, as shares of what the engine may use."""
    rows: list[tuple[RenderableType, ...]] = []
    usable = values["pool.available"][1]
    share = lambda size: _percent(size / usable) if usable > 0 else ""  # noqa: E731
    for kind, name in _MEMORY.items():
        size = values[f"memory.{kind}"][1]
        if size > 0:
            rows.append((name, engineering(size, "B"), share(size)))
    used = values["memory.used"][1]
    style = "red bold" if used > usable else "bold"
    rows.append(tuple(Text(cell, style) for cell in ("used", engineering(used, "B"), share(used))))
    rows.append(("usable", engineering(usable, "B"), ""))
    if capacity is not None and capacity != usable:
        rows.append(("capacity", engineering(capacity, "B"), ""))
    return unwrapped(plain_table("Memory, fullest chip", ("", "", ""), rows))


def exceeded(values: Values) -> list[str]:
    """Return the constraints that are violated."""
    return [key for key in CONSTRAINTS if values[f"margins.{key}"][1] < 0]


def judge_values(values: Values, without_target: Iterable[str]) -> Verdict:
    """Return the verdict on a report: over the constraints that can fail."""
    free = set(without_target)
    margins = {key: values[f"margins.{key}"][1] for key in CONSTRAINTS if key not in free}
    margins = {key: m for key, m in margins.items() if m < 0 or not (_cannot_fail(key, [m]) or key == "area")}
    return judge(margins, values["memory.used"][1], values["pool.available"][1], CONSTRAINTS)


def margins_table(values: Values, without_target: Iterable[str]) -> Table:
    """Show the margin of every constraint; violated ones are red. A target of TTFT applies to that of the report."""
    free = set(without_target)
    margins = {key: values[f"margins.{key}"][1] for key in CONSTRAINTS}
    whose = ttft_label(values).removeprefix(_TTFT)
    names = CONSTRAINTS | ({} if "ttft" in free else {"ttft": f"TTFT{whose}"})
    rows = [
        margin_row(names[key], None if key in free else margin)
        for key, margin in margins.items()
        if not _cannot_fail(key, [margin])
    ]
    return unwrapped(plain_table("Margins", ("", "", ""), rows))


def margin_row(name: str, margin: float | None) -> tuple[RenderableType, ...]:
    """Return the name, margin and verdict of one constraint; a margin of None is that of a target that is not set."""
    if margin is None:
        return name, "", "no target"
    if margin < 0:
        return Text(name, "red"), Text(_percent(margin, sign=True), "red bold"), Text("EXCEEDED", "red bold")
    return name, _percent(margin, sign=True), "holds"


def operators(values: Values, phase: str) -> list[Operator]:
    """Return the operators of a step as mappings, the longest first.

    `binding` is the resource with the longest leg, or "overhead" where that leg is below half of the operator's time.
    """
    names = dict.fromkeys(path.split(".")[1] for path in values if path.startswith(f"{phase}."))
    total = values[f"{phase}.total"][1]
    out = []
    for name in names:
        seconds = values.get(f"{phase}.{name}.seconds", ("s", 0.0))[1]
        if seconds <= 0:
            continue
        legs = {leg: values[f"{phase}.{name}.{leg}"][1] for leg in LEGS}
        longest = max(legs, key=legs.__getitem__)
        binding = longest if legs[longest] >= seconds / 2 else "overhead"
        out.append({"name": name, "seconds": seconds, "share": seconds / total, "binding": binding, **legs})
    return sorted(out, key=lambda row: -row["seconds"])


def summary_tables(
    values: Values,
    capacity: float | None,
    without_target: Iterable[str],
    ttft_alone: float | None = None,
) -> tuple[Table, Table, Table]:
    """Make the tables that an evaluation begins with: totals, memory and margins."""
    return (
        headline_table(values, ttft_alone),
        memory_table(values, capacity),
        margins_table(values, without_target),
    )


class SideBySide:
    """Tables next to each other, as many in a row as the width has room for, every line kept whole."""

    def __init__(self, *parts: RenderableType):
        """Hold the tables, from left to right."""
        self.parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield one grid for each row of tables."""
        rows: list[list[RenderableType]] = []
        for part in self.parts:
            if rows and _width(console, [*rows[-1], part]) <= options.max_width:
                rows[-1].append(part)
            else:
                rows.append([part])
        for row in rows:
            yield _grid(row)


def _grid(parts: Sequence[RenderableType]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(*parts)
    return unwrapped(grid)


def _width(console: Console, parts: Sequence[RenderableType]) -> int:
    unlimited = console.options.update(width=_UNLIMITED)
    return Measurement.get(console, unlimited, _grid(parts)).maximum


def step_tables(values: Values, *, mixed: bool) -> list[Table]:
    """Make the table of operators of each step; with `mixed`, prefill runs in chunks along with decoding."""
    out = []
    for phase, title in STEPS.items():
        total, hidden = (values[f"{phase}.{name}"][1] for name in ("total", "hidden"))
        heading = f"{_MIXED if mixed and phase == 'prefill' else title}: {engineering(total, 's')}"
        steps = values["schedule.prefill_steps"][1]
        if phase == "prefill" and not mixed and steps > 1:
            heading += f", one of {steps:g}"
        if hidden > 0:
            heading += f", {engineering(hidden, 's')} of communication overlapped with compute"
        out.append(operator_table(operators(values, phase), heading))
    return out


def operator_table(rows: Sequence[Operator], title: str) -> Table:
    """Show the time of every operator, the resource that bounds it, and its legs; the binding leg is bold."""
    legs = [leg for leg in LEGS if any(row[leg] > 0 for row in rows)]
    headings = [_SHORT.get(leg, leg) for leg in legs]
    table = unwrapped(plain_table(title, ("Operator", "Bound by", "Time", "Share", *headings), (), left=2))
    for row in rows:
        cells = [Text(_seconds(row[leg]), "bold" if leg == row["binding"] else "dim") for leg in legs]
        table.add_row(
            row["name"],
            _SHORT.get(row["binding"], row["binding"]),
            _seconds(row["seconds"]),
            f"{row['share']:.1%}",
            *cells,
        )
    return table


def comparison_table(
    systems: Sequence[str], columns: Sequence[Values], without_target: Iterable[str]
) -> Table:
    """Show systems side by side; a star marks the best feasible one of each row."""
    free = set(without_target)
    table = plain_table("", ("", *systems), ())
    fits = [not exceeded(values) for values in columns]
    for path, title, more in HEADLINE:
        name = ttft_label(columns[0]) if path == "ttft" else title
        shown = [values[path][1] for values in columns]
        best = _best([v for v, ok in zip(shown, fits, strict=True) if ok], more)
        unit = columns[0][path][0]
        table.add_row(
            name,
            *(_marked(engineering(v, unit), ok and v == best) for v, ok in zip(shown, fits, strict=True)),
        )
    used = [f"{values['memory.used'][1] / 1e9:,.1f} GB" for values in columns]
    table.add_row("Memory used per chip", *used)
    for key, name in CONSTRAINTS.items():
        if key in free:
            continue
        margins = [values[f"margins.{key}"][1] for values in columns]
        if _cannot_fail(key, margins):
            continue
        table.add_row(f"Margin, {name}", *(_margin(m) for m in margins))
    verdicts = [judge_values(values, free) for values in columns]
    table.add_row("Verdict", *(Text(v.short, "red bold" if v.exceeded else "green") for v in verdicts))
    return table


def _cannot_fail(key: str, margins: Sequence[float]) -> bool:
    """Return whether a constraint need not be shown: nothing can violate it, or it is the area of an existing chip."""
    if key == "area":
        return all(margin >= 0 for margin in margins)
    return key not in _ALWAYS and all(margin == 1 for margin in margins)


def _margin(margin: float) -> Text:
    return Text(_percent(margin, sign=True), "red bold" if margin < 0 else "")


def _marked(text: str, best: bool) -> Text:
    return Text(f"* {text}", "green bold") if best else Text(text)


def _best(values: Sequence[float], more: bool) -> float | None:
    if not values:
        return None
    return max(values) if more else min(values)


def _seconds(value: float) -> str:
    return engineering(value, "s") if value > 0 else "-"


def _percent(share: float, *, sign: bool = False) -> str:
    if abs(share) >= 100:  # from ten thousand percent on, decimals are noise
        return f"{'+' if sign and share > 0 else ''}{number(100 * share)}%"
    return f"{100 * share:{'+' if sign else ''}.1f}%"
