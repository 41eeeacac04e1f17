"""`jaxcost evaluate --intervals`: how far the estimates of the catalogue leave the results open."""

import argparse
import dataclasses
from collections.abc import Iterable
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from jaxcost.core.units import engineering
from jaxcost.edge.catalog import loaders as catalog
from jaxcost.edge.catalog.set_option import with_settings
from jaxcost.edge.catalog.uncertain import intervals_of
from jaxcost.edge.commands.cost_options import with_year
from jaxcost.edge.commands.request import Request, build_system, picture_path
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.show import tables
from jaxcost.explore.analysis import Intervals, metric_names
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System

__all__ = ["add_intervals_arguments", "intervals_document", "intervals_tables", "read_intervals"]

WEAKEST = ("usd_per_mtok", "gco2e_per_mtok", "joules_per_token", "tpot")
_NAMES = {path: name for path, name, _ in tables.HEADLINE}


def add_intervals_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("uncertainty")
    group.add_argument(
        "--intervals",
        action="store_true",
        help="draw all constants that have a low and a high, and name those that matter most",
    )
    group.add_argument(
        "--draws", type=int, default=10_000, metavar="N", help="number of draws (default 10000)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws (default 0)")
    group.add_argument(
        "--tornado",
        type=picture_path,
        metavar="FILE",
        help="draw what each constant alone does to --metric: .svg, .png or .pdf; implies --intervals",
    )
    group.add_argument(
        "--metric", default="usd_per_mtok", metavar="NAME", help=f"one of {', '.join(metric_names())}"
    )


def read_intervals(args: argparse.Namespace, request: Request) -> Intervals | None:
    """Propagate what is uncertain where that is asked for, and draw it; the plan is the request's."""
    if args.metric not in metric_names():
        raise not_among(metric_names(), args.metric, path="--metric")
    if not args.intervals and args.tornado is None:
        return None

    def load() -> tuple[System, Prices]:
        bought = with_year(catalog.load_prices(args.prices or "default"), args.year)
        prices = with_settings("prices", bought, request.settings)
        return build_system(args.system, args.efficiency, request), prices

    found = intervals_of(load, request.model, request.traffic, request.plan, draws=args.draws, seed=args.seed)
    if args.tornado is not None:
        if not found.weakest(args.metric):
            raise InputError("a metric that some constant moves", path="--metric", given=args.metric)
        from jaxcost.edge.show.tornado_plot import draw_tornado

        draw_tornado(args.tornado, f"{request.name} on {args.system}", args.metric, found)
    return found


def intervals_document(found: Intervals) -> dict[str, Any]:
    """Put the intervals into plain mappings."""
    constants = {c.name: {**dataclasses.asdict(c), "written": list(c.written)} for c in found.constants}
    return {
        "draws": found.draws,
        "seed": found.seed,
        "feasible_share": found.feasible,
        "quantiles": {name: dataclasses.asdict(interval) for name, interval in found.quantiles.items()},
        "constants": constants,
        "tornado": {
            name: [
                {"constant": b.constant.name, "at_low": b.at_low, "at_high": b.at_high, "width": b.width}
                for b in bars
            ]
            for name, bars in found.tornado.items()
        },
        "weakest": {name: [b.constant.name for b in found.weakest(name)] for name in found.tornado},
    }


def intervals_tables(found: Intervals) -> list[RenderableType]:
    """Show the intervals of the headline, and the constants behind the widest."""
    rows = []
    for path, name in _NAMES.items():
        interval = found.quantiles[path]
        values = (interval.mid, interval.p5, interval.p50, interval.p95)
        rows.append((name, *(engineering(value, interval.unit) for value in values)))
    title = f"Intervals: {found.draws:,} draws of {len(found.constants)} constants, seed {found.seed}"
    columns = ("", "All at mid", "5%", "Median", "95%")
    shown: list[RenderableType] = [tables.unwrapped(tables.plain_table(title, columns, rows))]
    shown.append(Text(f"Every constraint holds in {found.feasible:.1%} of the draws."))
    return [*shown, *_weakest(found)]


def _weakest(found: Intervals) -> list[RenderableType]:
    columns = ("Weakest constants", "Low, mid, high", "Result at low, high", "Source")
    table = tables.plain_table("", columns, ())
    sources: list[str] = []
    for metric in WEAKEST:
        table.add_row(Text(_NAMES[metric], "bold"), "", "", "")
        bars = found.weakest(metric)
        if not bars:
            table.add_row("  moved by none of them", "", "", "")
        for bar in bars:
            constant, unit = bar.constant, found.quantiles[metric].unit
            if constant.source not in sources:
                sources.append(constant.source)
            mark = Text(f"[{sources.index(constant.source) + 1}]")
            values = [engineering(value, unit) for value in (bar.at_low, bar.at_high)]
            table.add_row(f"  {constant.label}", _listed(constant.written), _listed(values), mark)
    listed = (Text(f"[{i}] {text}") for i, text in enumerate(sources, start=1))
    return [tables.unwrapped(table), *listed, Text("")]


def _listed(quantities: Iterable[str]) -> str:
    """Join quantities by commas, a unit that all of them share only once."""
    texts = list(quantities)
    units = {text.partition(" ")[2] for text in texts}
    shared = f" {units.pop()}" if len(units) == 1 else ""
    return (
        ", ".join(text.removesuffix(shared) for text in texts) + shared
        if shared.strip()
        else ", ".join(texts)
    )
