"""Tables of reports, and the printing of tables: all text of a command is printed at once."""

import io
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from jaxcost.core.units import engineering, number
from jaxcost.physics.compute.roofline import LEGS

__all__ = [
    "CONSTRAINTS",
    "HEADLINE",
    "LEGS",
    "STEPS",
    "Operator",
    "Values",
    "comparison_table",
    "exceeded",
    "headline_table",
    "margin_row",
    "margins_table",
    "memory_table",
    "operator_table",
    "operators",
    "plain_table",
    "side_by_side",
    "step_tables",
    "summary_tables",
    "unwrapped",
    "write",
]

# Path in the report, label, whether higher is better.
HEADLINE = (
    ("ttft", "First token (TTFT)", False),
    ("tpot", "Each token (TPOT)", False),
    ("tokens_per_second", "Output tokens", True),
    ("joules_per_token", "Energy", False),
    ("usd_per_mtok", "Cost", False),
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
    "corpus": "corpus",
}
_NARROWEST, _WIDEST = 100, 140

Values = dict[str, tuple[str, float]]  # dotted path in a report: (unit, value)
Operator = dict[str, Any]


def write(*parts: RenderableType) -> None:
    """Print all parts, at the width of the terminal between 100 and 140 columns."""
    width = shutil.get_terminal_size((_NARROWEST, 24)).columns
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


def headline_table(values: Values) -> Table:
    """Show the totals of a report."""
    rows = [(name, engineering(values[path][1], values[path][0])) for path, name, _ in HEADLINE]
    stale, up = (values[f"reliability.{name}"][1] for name in ("stale_tokens", "availability"))
    if stale > 0:
        rows.append(("Tokens with stale data of late ranks", f"{stale:.2%}"))
    if up < 1:
        rows.append(("Availability", f"{up:.4%}"))
    return unwrapped(plain_table("Results", ("", ""), rows))


def memory_table(values: Values, capacity: float) -> Table:
    """Show the bytes of the fullest chip by kind, as shares of its capacity."""
    rows: list[tuple[RenderableType, ...]] = []
    for kind, name in _MEMORY.items():
        size = values[f"memory.{kind}"][1]
        if size > 0:
            rows.append((name, engineering(size, "B"), _percent(size / capacity)))
    used = values["memory.used"][1]
    style = "red bold" if used > capacity else "bold"
    rows.append(
        (Text("used", style), Text(engineering(used, "B"), style), Text(_percent(used / capacity), style))
    )
    rows.append(("capacity", engineering(capacity, "B"), ""))
    return unwrapped(plain_table("Memory, fullest chip", ("", "", ""), rows))


def exceeded(values: Values) -> list[str]:
    """Return the constraints that are violated."""
    return [key for key in CONSTRAINTS if values[f"margins.{key}"][1] < 0]


def margins_table(values: Values, without_target: Iterable[str]) -> Table:
    """Show the margin of every constraint; violated ones are red."""
    free = set(without_target)
    margins = {key: values[f"margins.{key}"][1] for key in CONSTRAINTS}
    rows = [
        margin_row(CONSTRAINTS[key], None if key in free else margin)
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
    values: Values, capacity: float, without_target: Iterable[str]
) -> tuple[Table, Table, Table]:
    """Make the tables that an evaluation begins with: totals, memory and margins."""
    return (
        headline_table(values),
        memory_table(values, capacity),
        margins_table(values, without_target),
    )


def side_by_side(*parts: RenderableType) -> Table:
    """Put tables next to each other, every line kept whole."""
    grid = Table.grid(padding=(0, 2))
    grid.add_row(*parts)
    return unwrapped(grid)


def step_tables(values: Values, *, mixed: bool) -> list[Table]:
    """Make the table of operators of each step; with `mixed`, prefill runs in chunks along with decoding."""
    out = []
    for phase, title in STEPS.items():
        total, hidden = (values[f"{phase}.{name}"][1] for name in ("total", "hidden"))
        heading = f"{_MIXED if mixed and phase == 'prefill' else title}: {engineering(total, 's')}"
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
    for path, name, more in HEADLINE:
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
    verdicts = [_verdict(values) for values in columns]
    table.add_row("Verdict", *verdicts)
    return table


def _cannot_fail(key: str, margins: Sequence[float]) -> bool:
    """Return whether a constraint need not be shown: nothing can violate it, or it is the area of an existing chip."""
    if key == "area":
        return all(margin >= 0 for margin in margins)
    return key not in _ALWAYS and all(margin == 1 for margin in margins)


def _verdict(values: Values) -> Text:
    over = [CONSTRAINTS[key] for key in exceeded(values)]
    return Text("exceeds " + ", ".join(over), "red bold") if over else Text("feasible", "green")


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
