"""`jaxcost codesign`: which hardware to build, by gradient, and what every limit costs."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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
from jaxcost.edge.show.tables import write
from jaxcost.edge.studies.study_file import Study, read_study
from jaxcost.explore.analysis import Spread
from jaxcost.explore.codesign import Codesign, codesign
from jaxcost.physics.economics.area import by_parts

__all__ = ["add_codesign_arguments", "codesign_command"]

_MOST_STARTS = 4096
_WALK_STARTS = 2  # a combination at each value: neighbours help one another
Told = Callable[[str, float], None]


@dataclasses.dataclass(frozen=True)
class _Answers:
    """All that a study asked for."""

    study: Study
    found: Codesign
    robust: Codesign | None
    front: Any
    along: tuple[Any, ...]
    break_even: Any
    elasticities: Any


def add_codesign_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "studies", nargs="+", metavar="STUDY", help="of `jaxcost list studies`, or a YAML path"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for a summary, plots and JSON, each study in a folder of its own"
    )
    parser.add_argument("--starts", type=int, help="points each combination of choices is solved from")
    parser.add_argument(
        "--seed", type=int, help="of those points and of draws; the same gives the same answer"
    )
    add_set_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def codesign_command(args: argparse.Namespace) -> int:
    """Run the command; 1 where a study has no design that keeps its limits."""
    for option, value, most in (
        ("--starts", args.starts, _MOST_STARTS),
        ("--seed", args.seed, (1 << 32) - 1),
    ):
        least = 1 if option == "--starts" else 0
        if value is not None and not least <= value <= most:
            raise InputError(f"a whole number from {least} to {most:,}", path=option, given=str(value))
    settings = read_settings(args.settings)
    changes = {key: getattr(args, key) for key in ("starts", "seed") if getattr(args, key) is not None}
    studies = [dataclasses.replace(read_study(name, settings), **changes) for name in args.studies]
    twice = [study.name for study in studies if [s.name for s in studies].count(study.name) > 1]
    if twice:
        raise InputError("studies of different names", path="STUDY", given=twice[0])
    if args.out is not None:
        make_folder(args.out)
    documents, failed = [], False
    for study in studies:
        with _live(study.title) as tell:
            answers = _answers(study, settings, tell)
        document = {**_document(answers), **described_settings(settings)}
        blocks = list(_blocks(answers))
        documents.append(document)
        if args.out is not None:
            _written(args.out / study.name, answers, document, blocks)
        if not args.json:
            write(f"[bold]{study.title}[/bold]", "", *map(renderable, blocks))
        failed = failed or bool(answers.found.failed)
    if args.json:
        sys.stdout.write(json.dumps({"studies": documents}, indent=2, allow_nan=False) + "\n")
    return int(failed)


@contextmanager
def _live(title: str) -> Iterator[Told]:
    """Show a bar while a study is solved; nothing where standard error is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda stage, share: None
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
        yield lambda stage, share: bar.update(task, description=f"{title}: {stage}", completed=share)


def _answers(study: Study, settings: tuple[Setting, ...], tell: Told) -> _Answers:
    shared: dict[str, Any] = {"across": study.across, "over": study.over, "seed": study.seed}
    problem = (study.space, study.objective, study.limits)
    found = codesign(*problem, starts=study.starts, **shared, progress=tell)
    if found.failed:
        return _Answers(study, found, None, None, (), None, None)
    robust = front = even = None
    if study.robust is not None:
        spread = _spread(study, settings)
        own: dict[str, Any] = shared | {"over": study.robust.over}
        robust = codesign(
            *problem,
            uncertain=spread,
            draws=study.robust.draws,
            starts=study.starts,
            **own,
            progress=_of("draws", tell),
        )
    from jaxcost.explore.codesign import break_even, codesign_along, codesign_front, elasticity_table

    few = min(study.starts, _WALK_STARTS)
    if study.front is not None:
        points = study.front.points
        front = codesign_front(
            study.space, study.front.metrics, study.limits, points=points, starts=few, **shared, progress=tell
        )
    along = tuple(
        codesign_along(
            *problem,
            walk.path,
            np.asarray(walk.values),
            starts=few,
            **shared,
            progress=_of(f"along {walk.path}", tell),
        )
        for walk in study.along
    )
    if (asked := study.break_even) is not None:
        even = break_even(
            *problem, asked.path, asked.low, asked.high, axis=asked.axis, first=asked.first, second=asked.second,
            starts=few, **shared, progress=tell,
        )  # fmt: skip
    metrics = ["usd_per_mtok", "gco2e_per_mtok", "joules_per_token", "tpot", "ttft", "power.decode"]
    wanted = tuple(dict.fromkeys((*study.objective, *metrics)))
    return _Answers(
        study,
        found,
        robust,
        front,
        along,
        even,
        elasticity_table(study.space, found, wanted, across=study.across),
    )


def _of(what: str, tell: Told) -> Told:
    return lambda stage, share: tell(f"{what}, {stage}", share)


def _spread(study: Study, settings: tuple[Setting, ...]) -> Spread:
    """Return how far the constants behind the study's system and prices are open."""

    def load() -> Pair:
        system = load_system(study.space.systems[0], efficiency=str(study.data.get("efficiency", "ideal")))
        made = by_parts(system) if study.data.get("by_parts", False) else system
        prices = load_prices(str(study.data.get("prices", "default")))
        return with_settings("system", made, settings), with_settings("prices", prices, settings)

    return uncertain(load)[1]


def _blocks(answers: _Answers) -> Iterator[Block]:
    study, found = answers.study, answers.found
    yield from design_blocks(study, found)
    if found.failed:
        return
    if answers.robust is not None and study.robust is not None:
        yield from robust_blocks(found, answers.robust, study.robust.draws)
    from jaxcost.edge.show.parametric_tables import (
        along_blocks,
        break_even_blocks,
        elasticity_block,
        front_block,
    )

    if answers.front is not None:
        yield front_block(found, answers.front)
    for along in answers.along:
        yield from along_blocks(found, along)
    if answers.break_even is not None:
        yield from break_even_blocks(found, answers.break_even)
    yield elasticity_block(answers.elasticities)


def _document(answers: _Answers) -> dict[str, Any]:
    """Say everything as plain objects; null where a number is none."""
    study, found = answers.study, answers.found
    document = {
        "study": study.name,
        "title": study.title,
        "question": study.question,
        "as_written": study.data,
        "starts": study.starts,
        "seed": study.seed,
        "failed": found.failed,
        "design": _design(found),
    }
    if answers.robust is not None:
        document["robust"] = _design(answers.robust)
    for key in ("front", "break_even", "elasticities"):
        value = getattr(answers, key)
        if value is not None:
            document[key] = dataclasses.asdict(value)
    if answers.along:
        document["along"] = [
            {f.name: getattr(one, f.name) for f in dataclasses.fields(one) if f.name != "designs"}
            for one in answers.along
        ]
    return _plain(document)


def _design(found: Codesign) -> dict[str, Any]:
    from jaxcost.core.pytree import rows

    return {
        "objective": found.objective,
        "over": found.over,
        "failed": found.failed,
        "value": found.value,
        "relaxed": found.relaxed,
        "gap": found.gap,
        "choices": found.choices,
        "knobs": [dataclasses.asdict(knob) for knob in found.knobs],
        "limits": [dataclasses.asdict(limit) for limit in found.limits],
        "convergence": dataclasses.asdict(found.convergence),
        "alternatives": [{"choices": choice, "relaxed": value} for choice, value in found.alternatives],
        "scenarios": list(found.scenarios),
        "reports": [{path: float(value) for path, _, value in rows(report)} for report in found.reports],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _written(folder: Path, answers: _Answers, document: dict[str, Any], blocks: list[Block]) -> None:
    make_folder(folder)
    pictures: list[tuple[str, str]] = []
    if not answers.found.failed:
        from jaxcost.edge.show.codesign_plot import draw_along, draw_break_even, draw_elasticities, draw_front

        found, title = answers.found, answers.study.title
        if answers.front is not None:
            pictures.append(("front", "front.svg"))
            draw_front(folder / "front.svg", title, found, answers.front)
        for number, along in enumerate(answers.along, 1):
            name = "along.svg" if len(answers.along) == 1 else f"along-{number}.svg"
            pictures.append((f"along {along.path}", name))
            draw_along(folder / name, title, found, along)
        if answers.break_even is not None:
            pictures.append(("break-even", "break-even.svg"))
            draw_break_even(folder / "break-even.svg", title, found, answers.break_even)
        pictures.append(("elasticities", "elasticities.svg"))
        draw_elasticities(folder / "elasticities.svg", title, answers.elasticities)
    try:
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        (folder / "result.json").write_text(text, encoding="utf-8")
        (folder / "summary.md").write_text(markdown(answers.study.title, blocks, pictures), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder} could not be written ({error.strerror}); what was found is lost") from None
