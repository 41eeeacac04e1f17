"""`jaxcost codesign`: the best hardware of a study, by gradient, with the shadow price of every limit."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxcost.core.pytree import rows
from jaxcost.edge.catalog.loaders import load_prices, load_system
from jaxcost.edge.catalog.set_option import (
    Setting,
    add_set_argument,
    described_settings,
    read_settings,
    with_settings,
)
from jaxcost.edge.catalog.uncertain import Pair, uncertain
from jaxcost.edge.io.errors import InputError, RunError
from jaxcost.edge.io.write import make_folder
from jaxcost.edge.show.codesign_tables import Block, design_blocks, markdown, renderable, robust_blocks
from jaxcost.edge.show.parametric_tables import (
    along_blocks,
    break_even_blocks,
    elasticity_block,
    front_block,
)
from jaxcost.edge.show.tables import write
from jaxcost.edge.studies.study_file import Study, read_study
from jaxcost.explore.analysis import Spread
from jaxcost.explore.codesign import (
    Along,
    BreakEven,
    Codesign,
    Elasticities,
    Front,
    ProgressCallback,
    break_even,
    codesign,
    codesign_along,
    codesign_front,
    elasticity_table,
)
from jaxcost.physics.economics.area import by_parts

__all__ = ["add_codesign_arguments", "codesign_command"]

_MAX_STARTS = 4096
_PATH_STARTS = 2  # of a combination at each value of a path or front: solutions of neighbours are starts too
_METRICS = ("usd_per_mtok", "gco2e_per_mtok", "joules_per_token", "tpot", "ttft", "power.decode")


@dataclasses.dataclass(frozen=True)
class _Results:
    """The results of a study; only `best` where no design satisfies all limits."""

    study: Study
    best: Codesign
    robust: Codesign | None = None
    front: Front | None = None
    along: tuple[Along, ...] = ()
    break_even: BreakEven | None = None
    elasticities: Elasticities | None = None


def add_codesign_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "studies", nargs="+", metavar="STUDY", help="name from `jaxcost list studies`, or a YAML path"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for a summary, plots and JSON; each study in a folder of its own"
    )
    parser.add_argument("--starts", type=int, help="starting points for each combination of choices")
    parser.add_argument(
        "--seed", type=int, help="of the starting points and the draws; the same seed gives the same result"
    )
    add_set_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def codesign_command(args: argparse.Namespace) -> int:
    """Run the command; return 1 where a study has no design that satisfies its limits."""
    for option, value, most in (
        ("--starts", args.starts, _MAX_STARTS),
        ("--seed", args.seed, (1 << 32) - 1),
    ):
        least = 1 if option == "--starts" else 0
        if value is not None and not least <= value <= most:
            raise InputError(f"a whole number from {least} to {most:,}", path=option, given=str(value))
    settings = read_settings(args.settings)
    changes = {key: getattr(args, key) for key in ("starts", "seed") if getattr(args, key) is not None}
    studies = [dataclasses.replace(read_study(name, settings), **changes) for name in args.studies]
    names = [study.name for study in studies]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError("studies of different names", path="STUDY", given=repeated[0])
    if args.out is not None:
        make_folder(args.out)
    documents, failed = [], False
    for study in studies:
        with _progress_bar(study.title) as on_progress:
            results = _solve_study(study, settings, on_progress)
        document = {**_document(results), **described_settings(settings)}
        blocks = list(_blocks(results))
        documents.append(document)
        if args.out is not None:
            _write_folder(args.out / study.name, results, document, blocks)
        if not args.json:
            write(f"[bold]{study.title}[/bold]", "", *map(renderable, blocks))
        failed = failed or bool(results.best.failed)
    if args.json:
        sys.stdout.write(json.dumps({"studies": documents}, indent=2, allow_nan=False) + "\n")
    return int(failed)


@contextmanager
def _progress_bar(title: str) -> Iterator[ProgressCallback]:
    """Show a progress bar while a study is solved; none where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda step, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{title}: compiling", total=1.0)
        yield lambda step, share: bar.update(task, description=f"{title}: {step}", completed=share)


def _solve_study(study: Study, settings: tuple[Setting, ...], on_progress: ProgressCallback) -> _Results:
    problem = dataclasses.replace(study.problem, progress=on_progress)
    best = codesign(problem)
    if best.failed:
        return _Results(study, best)
    robust = front = even = None
    if (asked := study.robust) is not None:
        robust = codesign(
            problem,
            over=asked.over,
            uncertain=_spread(study, settings),
            draws=asked.draws,
            progress=_with_prefix("draws", on_progress),
        )
    problem = dataclasses.replace(problem, starts=min(study.starts, _PATH_STARTS))
    if (asked := study.front) is not None:
        front = codesign_front(problem, asked.metrics, points=asked.points)
    along = tuple(
        codesign_along(
            problem,
            path=asked.path,
            values=asked.values,
            progress=_with_prefix(f"along {asked.path}", on_progress),
        )
        for asked in study.along
    )
    if (asked := study.break_even) is not None:
        even = break_even(
            problem,
            path=asked.path,
            low=asked.low,
            high=asked.high,
            axis=asked.axis,
            first=asked.first,
            second=asked.second,
        )
    metrics = tuple(dict.fromkeys((*study.objective, *_METRICS)))
    return _Results(study, best, robust, front, along, even, elasticity_table(problem, best, metrics))


def _with_prefix(prefix: str, on_progress: ProgressCallback) -> ProgressCallback:
    return lambda step, share: on_progress(f"{prefix}, {step}", share)


def _spread(study: Study, settings: tuple[Setting, ...]) -> Spread:
    """Return the intervals of the uncertain constants behind the system and the prices of a study."""

    def load() -> Pair:
        system = load_system(study.space.systems[0], efficiency=str(study.data.get("efficiency", "ideal")))
        system = by_parts(system) if study.data.get("by_parts", False) else system
        prices = load_prices(str(study.data.get("prices", "default")))
        return with_settings("system", system, settings), with_settings("prices", prices, settings)

    return uncertain(load)[1]


def _blocks(results: _Results) -> Iterator[Block]:
    study, best = results.study, results.best
    yield from design_blocks(study, best)
    if results.robust is not None and study.robust is not None:
        yield from robust_blocks(best, results.robust, study.robust.draws)
    if results.front is not None:
        yield front_block(best, results.front)
    for along in results.along:
        yield from along_blocks(best, along)
    if results.break_even is not None:
        yield from break_even_blocks(best, results.break_even)
    if results.elasticities is not None:
        yield elasticity_block(results.elasticities)


def _document(results: _Results) -> dict[str, Any]:
    """Return the results as JSON values; null for numbers that are not finite."""
    study, best = results.study, results.best
    document = {
        "study": study.name,
        "title": study.title,
        "question": study.question,
        "as_written": study.data,
        "starts": study.starts,
        "seed": study.seed,
        "failed": best.failed,
        "design": _design(best),
    }
    if results.robust is not None:
        document["robust"] = _design(results.robust)
    for key in ("front", "break_even", "elasticities"):
        value = getattr(results, key)
        if value is not None:
            document[key] = dataclasses.asdict(value)
    if results.along:
        document["along"] = [
            {f.name: getattr(along, f.name) for f in dataclasses.fields(along) if f.name != "designs"}
            for along in results.along
        ]
    return _json_value(document)


def _design(result: Codesign) -> dict[str, Any]:
    return {
        "objective": result.objective,
        "over": result.over,
        "failed": result.failed,
        "value": result.value,
        "relaxed": result.relaxed,
        "gap": result.gap,
        "choices": result.choices,
        "knobs": [dataclasses.asdict(knob) for knob in result.knobs],
        "limits": [dataclasses.asdict(limit) for limit in result.limits],
        "convergence": dataclasses.asdict(result.convergence),
        "alternatives": [{"choices": choice, "relaxed": value} for choice, value in result.alternatives],
        "scenarios": list(result.scenarios),
        "reports": [{path: float(value) for path, _, value in rows(report)} for report in result.reports],
    }


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return _json_value(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _write_folder(folder: Path, results: _Results, document: dict[str, Any], blocks: list[Block]) -> None:
    make_folder(folder)
    figures = _draw_figures(folder, results) if not results.best.failed else []
    try:
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        (folder / "result.json").write_text(text, encoding="utf-8")
        summary = markdown(results.study.title, blocks, figures)
        (folder / "summary.md").write_text(summary, encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"{folder} could not be written ({error.strerror}); the results of the study are lost"
        ) from None


def _draw_figures(folder: Path, results: _Results) -> list[tuple[str, str]]:
    """Draw the figures of a study; return their names and files."""
    from jaxcost.edge.show.codesign_plot import draw_along, draw_break_even, draw_elasticities, draw_front

    figures: list[tuple[str, str]] = []
    best, title = results.best, results.study.title
    if results.front is not None:
        figures.append(("front", "front.svg"))
        draw_front(folder / "front.svg", title, results.front)
    for number, along in enumerate(results.along, 1):
        file = "along.svg" if len(results.along) == 1 else f"along-{number}.svg"
        figures.append((f"along {along.path}", file))
        draw_along(folder / file, title, best, along)
    if results.break_even is not None:
        figures.append(("break-even", "break-even.svg"))
        draw_break_even(folder / "break-even.svg", title, best, results.break_even)
    if results.elasticities is not None:
        figures.append(("elasticities", "elasticities.svg"))
        draw_elasticities(folder / "elasticities.svg", title, results.elasticities)
    return figures
