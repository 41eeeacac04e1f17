"""`jaxcost sweep`: every design of a space, the best of them, and what would move it."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcost.core.pytree import totals
from jaxcost.core.units import engineering
from jaxcost.edge.errors import InputError, not_among
from jaxcost.edge.set_option import (
    add_set_argument,
    described_settings,
    read_settings,
    set_in_space,
    settings_line,
)
from jaxcost.edge.space_file import leaf_units, read_space
from jaxcost.edge.tables import plain_table, write
from jaxcost.explore.planner import OBJECTIVES
from jaxcost.explore.sensitivity import elasticities
from jaxcost.explore.space import Design, design_at, digits
from jaxcost.explore.sweep import METRICS, Sweep, sweep
from jaxcost.report import Report

__all__ = ["add_sweep_arguments", "sweep_command"]

_UNITS = {name: total.unit for name in METRICS if (total := totals(Report).get(name))}
_SHOWN = (
    ("ttft", "TTFT", ""),
    ("tpot", "TPOT", ""),
    ("tokens_per_second", "token/s", " token/s"),
    ("joules_per_token", "J/token", "/token"),
    ("usd_per_mtok", "USD/Mtok", " USD/Mtok"),
    ("gco2e_per_mtok", "CO2e/Mtok", "/Mtok"),
)


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("space", help="a space of `jaxcost list spaces`, or a YAML path")
    parser.add_argument("--objective", help=f"metric to rank by, one of {', '.join(_UNITS)}")
    parser.add_argument("--top", type=int, default=10, help="designs to show (default 10)")
    parser.add_argument("--plot", type=Path, help="picture of cost against speed: .svg, .png or .pdf")
    parser.add_argument("--save", type=Path, help="every design to a .parquet file")
    add_set_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def sweep_command(args: argparse.Namespace) -> int:
    """Run the command."""
    _use_all_cores()
    space, objective, title = read_space(args.space)
    settings = read_settings(args.settings)
    space, title = set_in_space(space, settings), title + settings_line(settings)
    objective = args.objective or objective
    if objective not in _UNITS:
        raise not_among(_UNITS, objective, path="--objective")
    if args.top < 1:
        raise InputError("at least 1", path="--top", given=str(args.top))
    for option, path, endings in (
        ("--plot", args.plot, (".svg", ".png", ".pdf")),
        ("--save", args.save, (".parquet",)),
    ):
        if path is not None and path.suffix not in endings:
            raise InputError("a file name ending in " + " or ".join(endings), path=option, given=str(path))
        if path is not None and not path.parent.is_dir():
            raise InputError("a folder that exists", path=option, given=str(path.parent))
    start = time.perf_counter()
    result = sweep(space, progress=_progress(space.size) if sys.stderr.isatty() else None)
    seconds = time.perf_counter() - start
    best = result.best_by_pair(objective, args.top, largest=OBJECTIVES[objective])
    if not len(best):
        raise InputError("a space with at least one design that holds every constraint", path=args.space)
    slopes = _slopes(design_at(space, jax.numpy.int32(best[0])), objective)
    if args.json:
        _print_json(result, best, objective, slopes, seconds, described_settings(settings))
    else:
        _print_tables(result, best, objective, slopes, seconds, title)
    if args.plot is not None:
        from jaxcost.edge.sweep_plot import draw_sweep

        draw_sweep(args.plot, title, result, best)
    if args.save is not None:
        save(args.save, result)
    return 0


def _use_all_cores() -> None:
    """Let XLA see every core as a device; too late, and no harm, where JAX has already started."""
    try:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    except RuntimeError:
        pass


def _progress(total: int) -> Any:
    def show(done: int) -> None:
        print(
            f"\r{done:,} of {total:,} designs", end="" if done < total else "\n", file=sys.stderr, flush=True
        )

    return show


def _slopes(design: Design, objective: str) -> list[tuple[str, float]]:
    return elasticities(
        objective,
        design.system,
        design.model,
        design.traffic,
        design.plan,
        prices=design.prices,
    )


def coordinates(result: Sweep, index: np.ndarray) -> dict[str, np.ndarray]:
    """Return the system, the model and every axis's value of the designs with the given indices."""
    space = result.space
    system, model, *rest = digits(index, space.shape)
    out: dict[str, np.ndarray] = {
        "system": np.asarray(space.systems)[system],
        "model": np.asarray(space.models)[model],
    }
    for axis, digit in zip(space.axes, rest, strict=True):
        out[axis.path] = np.asarray(axis.values)[digit]
    return out


def _axis_text(result: Sweep, path: str, value: float) -> str:
    axis = next(a for a in result.space.axes if a.path == path)
    if axis.relative:
        return f"x{value:.3g}"
    unit = leaf_units(result.space.base)[path]
    return f"{value:g}" if unit in {"1", "token", "bit"} else engineering(value, unit)


def _print_tables(
    result: Sweep,
    best: np.ndarray,
    objective: str,
    slopes: list[tuple[str, float]],
    seconds: float,
    title: str,
) -> None:
    place = coordinates(result, best)
    size = result.space.size
    summary = (
        f"{size:,} designs in {seconds:.1f} s, compilation included ({size / seconds:,.0f} a second); "
        f"{result.feasible.mean():.1%} hold every constraint"
    )
    figures = [
        [
            str(rank + 1),
            str(place["model"][rank]),
            str(place["system"][rank]),
            *(
                engineering(float(result.column(name)[i]), _UNITS[name]).removesuffix(cut)
                for name, _, cut in _SHOWN
            ),
        ]
        for rank, i in enumerate(best)
    ]
    knobs = [
        [str(rank + 1), *(_axis_text(result, a.path, float(place[a.path][rank])) for a in result.space.axes)]
        for rank in range(len(best))
    ]
    moves = [[path, f"{value:+.3f}"] for path, value in slopes[:10] if abs(value) >= 5e-4]
    write(
        title,
        summary,
        plain_table(
            f"The best design of each model on each system, by {objective}",
            ["#", "model", "system", *(head for _, head, _ in _SHOWN)],
            figures,
            left=3,
        ),
        plain_table("Their knobs", ["#", *(_short(a.path) for a in result.space.axes)], knobs),
        plain_table(
            f"At #1: percent that {objective} moves per percent of", ["system leaf", "elasticity"], moves
        ),
    )


def _short(path: str) -> str:
    return "\n".join(path.split(".")[-2:]) if path.startswith("system.") else path.split(".")[-1]


def _print_json(
    result: Sweep,
    best: np.ndarray,
    objective: str,
    slopes: list[tuple[str, float]],
    seconds: float,
    settings: dict[str, dict[str, str]],
) -> None:
    import json

    place = coordinates(result, best)
    designs = [
        {
            "index": int(index),
            **{name: _plain(values[rank]) for name, values in place.items()},
            "metrics": {name: float(result.column(name)[index]) for name in result.metrics},
        }
        for rank, index in enumerate(best)
    ]
    print(
        json.dumps(
            {
                "designs": result.space.size,
                "seconds": seconds,
                "feasible": float(result.feasible.mean()),
                "objective": objective,
                **settings,
                "best": designs,
                "elasticities": dict(slopes),
            },
            indent=2,
        )
    )


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def save(path: Path, result: Sweep) -> None:
    """Write every design with its coordinates and metrics to Parquet, units in the schema's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    place = coordinates(result, np.arange(result.space.size))
    leaves = leaf_units(result.space.base)
    units = {axis.path: "1" if axis.relative else leaves[axis.path] for axis in result.space.axes}
    arrays, fields = [], []
    for name, values in (place | {m: result.column(m) for m in result.metrics}).items():
        text = values.dtype.kind in "US"
        array = pa.array(values).dictionary_encode() if text else pa.array(values)
        unit = "" if text else units.get(name, _UNITS.get(name, "1"))
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"unit": unit}))
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), path, compression="zstd")
