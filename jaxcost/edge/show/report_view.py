"""A report as `print` and a notebook show it: the tables of `jaxcost evaluate`, from the report alone."""

import html
import io
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxcost.core.pytree import rows
from jaxcost.edge.show import tables
from jaxcost.edge.show.verdict import unfit_line
from jaxcost.report import Report

__all__ = ["as_html", "as_text"]

_WIDTH = 140


def as_text(report: Report) -> str:
    """Return the verdict, results, memory, margins and both steps as plain text."""
    verdict, summary, steps = _tables(report)
    console = Console(file=io.StringIO(), width=_WIDTH, highlight=False)
    opening = [Text(line) for line in verdict]
    for part in (*opening, Text(""), tables.SideBySide(*summary), *steps):
        console.print(part)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    return "\n".join(lines).strip("\n")


def as_html(report: Report) -> str:
    """Return the same as HTML."""
    verdict, summary, steps = _tables(report)
    opening = "".join(f"<p>{html.escape(line)}</p>" for line in verdict)
    row = '<div style="display: flex; gap: 2em; flex-wrap: wrap; align-items: flex-start">'
    return opening + "".join(
        f"{row}{''.join(map(_html, group))}</div>" for group in (summary, *([step] for step in steps))
    )


def _tables(report: Report) -> tuple[list[str], Sequence[Table], list[Table]]:
    values = {path: (unit, float(value)) for path, unit, value in rows(report)}
    # A target that is not set leaves a margin of exactly 1.
    untargeted = [name for name in ("ttft", "tpot") if values[f"margins.{name}"][1] == 1]
    summary = tables.summary_tables(values, None, untargeted)
    verdict = tables.judge_values(values, untargeted)
    opening = [line for line in (verdict.text, unfit_line(verdict)) if line]
    return opening, summary, tables.step_tables(values, mixed=values["schedule.mixed_share"][1] > 0)


def _html(table: Table) -> str:
    columns = [[html.escape(str(cell)) for cell in column._cells] for column in table.columns]
    align = [f'style="text-align: {"right" if c.justify == "right" else "left"}"' for c in table.columns]

    def line(tag: str, cells: Iterable[str]) -> str:
        pairs = zip(align, cells, strict=True)
        return "<tr>" + "".join(f"<{tag} {style}>{cell}</{tag}>" for style, cell in pairs) + "</tr>"

    head = line("th", (html.escape(str(c.header)) for c in table.columns)) if table.show_header else ""
    body = "".join(line("td", cells) for cells in zip(*columns, strict=True))
    caption = f'<caption style="text-align: left"><b>{html.escape(str(table.title))}</b></caption>'
    return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>"
