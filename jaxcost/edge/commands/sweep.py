"""`jaxcost sweep`: evaluate every design of a space; show the best, the fronts, and the violated constraints."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcost.edge.catalog.set_option import (
    add_set_argument,
    described_settings,
    read_settings,
    set_in_space,
    settings_line,
)
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.jobs.long_run import Outcome, run_sweep
from jaxcost.edge.jobs.sweep_rows import design_rows
from jaxcost.edge.jobs.workers import join_cluster, launch, worker_started
from jaxcost.edge.show.sweep_progress import show_progress
from jaxcost.edge.show.sweep_tables import print_designs, print_json, print_tables, rank_rows
from jaxcost.edge.studies.reducer_file import default_reducers, read_reducers
from jaxcost.edge.studies.space_file import read_space, read_space_data
from jaxcost.explore.analysis import OBJECTIVES, elasticities
from jaxcost.explore.space import Space, design_at
from jaxcost.explore.sweep import Best, Pareto, Reducer, TopK, build_stream
from jaxcost.spec.design import Design

__all__ = ["add_sweep_arguments", "sweep_command"]

_CLUSTER = "cluster"
_MAX_PROCESSES = 1024


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("space", help="name of a space (`jaxcost list spaces`), or a YAML file")
    parser.add_argument(
        "--objective", metavar="NAME", help=f"metric to rank by, one of {', '.join(OBJECTIVES)}"
    )
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="number of best designs to show (default 10)"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="write a plot of the Pareto front: .svg, .png or .pdf"
    )
    parser.add_argument("--save", type=Path, metavar="FILE", help="write every design to one .parquet file")
    add_set_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    long = parser.add_argument_group("long sweeps")
    long.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for checkpoints, the manifest and results as Parquet"
    )
    long.add_argument("--resume", action="store_true", help="continue the sweep in the folder of --out")
    long.add_argument(
        "--keep", action="store_true", help="write every design to --out, as Parquet by system and model"
    )
    long.add_argument(
        "--every",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="seconds between checkpoints (default 30)",
    )
    long.add_argument(
        "--processes", metavar="N", help=f"processes on this machine, or `{_CLUSTER}` under SLURM, GKE, ..."
    )
    long.add_argument("--chunk", type=int, metavar="N", help="designs evaluated together, a multiple of 64")
    long.add_argument("--index", type=int, metavar="N", help="show only the design of this index")


def sweep_command(args: argparse.Namespace) -> int:
    """Run the sweep and print its results."""
    joined = worker_started()
    processes = 1 if joined else _processes(args.processes)
    if processes == _CLUSTER:
        join_cluster()
    elif processes == 1 and not joined:
        _use_all_cores()  # before any file is read, as that creates JAX arrays
    data, file = read_space_data(args.space)[:2]
    space, objective, title = read_space(args.space)
    settings = read_settings(args.settings)
    space, title = set_in_space(space, settings), title + settings_line(settings)
    objective = args.objective or objective
    if objective not in OBJECTIVES:
        raise not_among(OBJECTIVES, objective, path="--objective")
    _check(args, space)
    reducers = read_reducers(data["reduce"], space, file) if "reduce" in data else default_reducers(objective)
    if args.index is not None:
        return _one(args, space, reducers, title)
    if isinstance(processes, int) and processes > 1:
        return launch(args.arguments, processes)
    about = {"title": title, "command": list(args.arguments), "space": data, **described_settings(settings)}
    with show_progress(space.size, reducers) as progress:
        outcome = run_sweep(
            space,
            reducers,
            folder=args.out,
            resume=args.resume,
            keep=args.keep if args.save is None else args.save,
            every=args.every,
            chunk=args.chunk,
            progress=progress,
            about=about,
        )
    if jax.process_index() == 0:
        _report(args, outcome, reducers, objective, title, described_settings(settings))
    return 0


def _processes(text: str | None) -> int | str:
    if text is None or text == _CLUSTER:
        return text or 1
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_PROCESSES:
        expected = f"a whole number from 1 to {_MAX_PROCESSES}, or {_CLUSTER}"
        raise InputError(expected, path="--processes", given=text)
    return int(text)


def _check(args: argparse.Namespace, space: Space) -> None:
    if args.top < 1:
        raise InputError("at least 1", path="--top", given=str(args.top))
    if not args.every >= 0:
        raise InputError("seconds, 0 or more", path="--every", given=str(args.every))
    if args.chunk is not None and (args.chunk < 64 or args.chunk % 64):
        raise InputError("a multiple of 64", path="--chunk", given=str(args.chunk))
    if args.index is not None and not 0 <= args.index < space.size:
        raise InputError(f"an index from 0 to {space.size - 1:,}", path="--index", given=str(args.index))
    for option, path, endings in (
        ("--plot", args.plot, (".svg", ".png", ".pdf")),
        ("--save", args.save, (".parquet",)),
    ):
        if path is not None and path.suffix not in endings:
            raise InputError("a file name ending in " + " or ".join(endings), path=option, given=str(path))
        if path is not None and not path.parent.is_dir():
            raise InputError("a folder that exists", path=option, given=str(path.parent))
    for option, given in (("--resume", args.resume), ("--keep", args.keep)):
        if given and args.out is None:
            raise InputError("--out DIR as well", path=option)
    if args.save is not None and (args.resume or args.keep or args.processes is not None):
        raise InputError("--out DIR --keep with --resume or --processes", path="--save", given=str(args.save))


def _use_all_cores() -> None:
    """Make every core a device of JAX; without effect where JAX is already initialised."""
    try:
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    except RuntimeError:
        pass


def _one(args: argparse.Namespace, space: Space, reducers: dict[str, Reducer], title: str) -> int:
    """Print one design, with exactly the metrics that a sweep computes for it."""
    stream = build_stream(space, reducers, keep=1)
    values = stream.run(args.index, 1)
    assert values is not None  # as the stream keeps them
    index = np.asarray([args.index], dtype=object if args.index >= 1 << 63 else np.int64)
    if args.json:
        print(json.dumps(design_rows(space, stream.metrics, index, values)[0], indent=2))
    else:
        print_designs(
            f"{title}: design {args.index:,} of {space.size:,}", space, index, values, stream.metrics
        )
    return 0


def _report(
    args: argparse.Namespace,
    outcome: Outcome,
    reducers: dict[str, Reducer],
    objective: str,
    title: str,
    settings: dict[str, dict[str, str]],
) -> None:
    best = _best(outcome, reducers, objective)
    slopes: list[tuple[str, float]] = []
    rows: list[dict[str, Any]] = []
    if best is not None:
        index, values = best[0][: args.top], best[1][: args.top]
        rows = design_rows(outcome.space, outcome.metrics, index, values)
        slopes = _elasticities(design_at(outcome.space, int(index[0])), objective)
    if args.json:
        print_json(outcome, objective, rows, slopes, settings)
    else:
        print_tables(outcome, reducers, title, objective, slopes, args.top)
    if args.plot is not None:
        from jaxcost.edge.show.sweep_plot import draw_front

        star = None if best is None else int(best[0][0])
        for name, reducer in reducers.items():
            front = outcome.results[name]
            if isinstance(reducer, Pareto) and len(front.index):
                draw_front(args.plot, title, outcome.space, front, reducer.objectives, star)
                return
        raise InputError("a space with a front of designs that satisfy every constraint", path="--plot")


def _best(
    outcome: Outcome, reducers: dict[str, Reducer], objective: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return index and metrics of the first ranking by the objective that is not empty, best first."""
    for name, reducer in reducers.items():
        result = outcome.results[name]
        if isinstance(reducer, TopK | Best) and reducer.metric == objective and len(result.index):
            rows = rank_rows(result, reducer)
            return result.index[rows], result.values[rows]
    return None


def _elasticities(design: Design, objective: str) -> list[tuple[str, float]]:
    return elasticities(
        objective, design.system, design.model, design.traffic, design.plan, prices=design.prices
    )
