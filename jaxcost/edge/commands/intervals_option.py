"""`jaxcost evaluate --intervals`: uncertainty of the results that follows from estimates in the catalogue."""

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

_WIDEST_NAME = 30  # columns of the name of a result, so that all five columns stand in 100
_SHOWN = ("usd_per_mtok", "gco2e_per_mtok", "joules_per_token", "tpot")
_NAMES = {path: name for path, name, _ in tables.HEADLINE}


def add_intervals_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("uncertainty")
    group.add_argument(
        "--intervals",
        action="store_true",
        help="sample all constants that have a low and a high; show intervals and the constants behind them",
    )
    group.add_argument(
        "--draws", type=int, default=10_000, metavar="N", help="number of draws (default 10000)"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the draws (default 0)")
    group.add_argument(
        "--tornado",
        type=picture_path,
        metavar="FILE",
        help="write a tornado plot of --metric, one bar a constant: .svg, .png or .pdf; implies --intervals",
    )
    group.add_argument(
        "--metric",
        default="usd_per_mtok",
        metavar="NAME",
        help=f"metric of --tornado, one of {', '.join(metric_names())}",
    )


def read_intervals(args: argparse.Namespace, request: Request) -> Intervals | None:
    """Propagate the uncertainty of constants through the request, if asked to, and write the tornado plot."""
    if args.metric not in metric_names():
        raise not_among(metric_names(), args.metric, path="--metric")
    if not args.intervals and args.tornado is None:
        return None

    def load() -> tuple[System, Prices]:
        bought = with_year(catalog.load_prices(args.prices or "default"), args.year)
        prices = with_settings("prices", bought, request.settings)
        return build_system(args.system, args.efficiency, request), prices

    intervals = intervals_of(
        load, request.model, request.traffic, request.plan, draws=args.draws, seed=args.seed
    )
    if args.tornado is not None:
        if not intervals.weakest(args.metric):
            raise InputError("a metric that some constant changes", path="--metric", given=args.metric)
        from jaxcost.edge.show.tornado_plot import draw_tornado

        draw_tornado(args.tornado, f"{request.name} on {args.system}", args.metric, intervals)
    return intervals


def intervals_document(intervals: Intervals) -> dict[str, Any]:
    """Return the intervals as plain mappings."""
    constants = {c.name: {**dataclasses.asdict(c), "written": list(c.written)} for c in intervals.constants}
    return {
        "draws": intervals.draws,
        "seed": intervals.seed,
        "feasible_share": intervals.feasible,
        "quantiles": {name: dataclasses.asdict(interval) for name, interval in intervals.quantiles.items()},
        "constants": constants,
        "tornado": {
            name: [
                {"constant": b.constant.name, "at_low": b.at_low, "at_high": b.at_high, "width": b.width}
                for b in bars
            ]
            for name, bars in intervals.tornado.items()
        },
        "weakest": {name: [b.constant.name for b in intervals.weakest(name)] for name in intervals.tornado},
    }


def intervals_tables(intervals: Intervals) -> list[RenderableType]:
    """Show the intervals of the main results, and the constants that widen them most."""
    rows = []
    for path, name in _NAMES.items():
        interval = intervals.quantiles[path]
        values = (interval.mid, interval.p5, interval.p50, interval.p95)
        rows.append((name, *(engineering(value, interval.unit) for value in values)))
    title = (
        f"Intervals: {intervals.draws:,} draws of {len(intervals.constants)} constants, seed {intervals.seed}"
    )
    columns = ("", "All at mid", "5%", "Median", "95%")
    table = tables.unwrapped(tables.plain_table(title, columns, rows))
    table.columns[0].no_wrap, table.columns[0].max_width = False, _WIDEST_NAME
    shown: list[RenderableType] = [table]
    shown.append(Text(f"{intervals.feasible:.1%} of the draws satisfy every constraint."))
    return [*shown, *_weakest(intervals)]


def _weakest(intervals: Intervals) -> list[RenderableType]:
    columns = ("Most uncertain constants", "Low, mid, high", "Result at low, high", "Source")
    table = tables.plain_table("", columns, ())
    sources: list[str] = []
    for metric in _SHOWN:
        table.add_row(Text(_NAMES[metric], "bold"), "", "", "")
        bars = intervals.weakest(metric)
        if not bars:
            table.add_row("  no constant changes it", "", "", "")
        for bar in bars:
            constant, unit = bar.constant, intervals.quantiles[metric].unit
            if constant.source not in sources:
                sources.append(constant.source)
            mark = Text(f"[{sources.index(constant.source) + 1}]")
            values = [engineering(value, unit) for value in (bar.at_low, bar.at_high)]
            table.add_row(f"  {constant.label}", _listed(constant.written), _listed(values), mark)
    listed = (Text(f"[{i}] {text}") for i, text in enumerate(sources, start=1))
    return [tables.unwrapped(table), *listed, Text("")]


def _listed(quantities: Iterable[str]) -> str:
    """Join quantities by commas, with a common unit written once."""
    texts = list(quantities)
    units = {text.partition(" ")[2] for text in texts}
    shared = f" {units.pop()}" if len(units) == 1 else ""
    return (
        ", ".join(text.removesuffix(shared) for text in texts) + shared
        if shared.strip()
        else ", ".join(texts)
    )
