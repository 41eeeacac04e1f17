"""`jaxcost figures`: reproduce the figures and tables of a checkout, and a page with all of them.

A study is a numbered pair of scripts: `experiments/NN_name.py`, which runs `study.run` and writes data, and
`figures/NN_name.py`, if it exists, which plots them. Every study runs in its own process, several at a time, and all
processes share one compilation cache.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxcost.edge.catalog.reading import configs_root
from jaxcost.edge.io.errors import InputError, RunError, not_among
from jaxcost.edge.io.write import make_folder
from jaxcost.edge.show import tables

__all__ = ["add_figures_arguments", "figures_command"]

_MARK = "from study import"  # marks an experiment that is part of a study
_MEASURED = "--measured"  # option of an experiment that reads measurements
_SHOWN = 2000  # last characters of the errors of a failed script that are shown


@dataclasses.dataclass
class _Study:
    """The scripts of a study, and the outcome of their run."""

    name: str
    steps: tuple[list[str], ...]  # command lines
    seconds: float = 0.0
    failure: str = ""


def add_figures_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--only", metavar="NAMES", help="studies to run: numbers or names separated by commas, such as 08,12"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for data, plots and the page")
    parser.add_argument(
        "--small", action="store_true", help="run coarse versions, which take a minute or two"
    )
    parser.add_argument(
        "--measured", type=Path, metavar="DIR", help="folder of measurements, for the validation of kernels"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=2,
        metavar="N",
        help="number of studies that run concurrently (default 2)",
    )
    parser.add_argument("--checkout", type=Path, metavar="DIR", help="folder of a clone of the project")
    parser.add_argument("--list", action="store_true", help="list the studies and exit")
    parser.add_argument("--json", action="store_true", help="print JSON")


def figures_command(args: argparse.Namespace) -> int:
    """Run the command."""
    if args.processes < 1:
        raise InputError("a whole number from 1", path="--processes", given=args.processes)
    if args.measured is not None and not args.measured.is_dir():
        raise InputError("a folder of measurements", path="--measured", given=str(args.measured))
    root = _checkout(args.checkout)
    names = _chosen(root, args.only)
    data, pictures = root / "experiments" / "out", root / "figures" / "out"
    page = pictures / "report.html"
    if args.out is not None:
        out = args.out.resolve()
        data, pictures, page = out / "data", out / "pictures", out / "report.html"
    left_out = _skipped(root, names, args)
    if args.list:
        _print_list(root, names, left_out, as_json=args.json)
        return 0
    if args.out is not None:
        make_folder(args.out)
    studies = [
        _Study(name, _steps(root, name, args, data, pictures)) for name in names if name not in left_out
    ]
    console = Console(stderr=True)
    begun = time.perf_counter()
    for name, why in left_out.items():
        console.print(f"{name}: skipped, {why}", highlight=False)
    console.print(f"{len(studies)} studies, {args.processes} at a time:", highlight=False)
    _run_all(studies, root, args.processes, lambda study: _print_status(console, study))
    failed = [study for study in studies if study.failure]
    if len(failed) < len(studies):
        report = ["figures/report.py", "--data", str(data), "--pictures", str(pictures), "--out", str(page)]
        report_page = _Study("report", (report,))
        _run_all([report_page], root, 1, lambda study: _print_status(console, study))
        failed += [report_page] if report_page.failure else []
    seconds = time.perf_counter() - begun
    if args.json:
        document = {
            "seconds": seconds,
            "report": str(page),
            "data": str(data),
            "pictures": str(pictures),
            "studies": {s.name: {"seconds": s.seconds, "failure": s.failure} for s in studies},
            "left_out": left_out,
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        tables.write(f"{', '.join(s.name for s in studies)}: {seconds / 60:.1f} min; open {page}")
    if failed:
        raise RunError(f"failed: {', '.join(s.name for s in failed)}; the others are kept")
    return 0


def _checkout(folder: Path | None) -> Path:
    """Return the folder with experiments and figures: that of --checkout, the current one, or that of the package."""
    candidates = [folder] if folder is not None else [Path.cwd(), configs_root().parent]
    for candidate in candidates:
        if all((candidate / path).is_file() for path in ("experiments/study.py", "figures/report.py")):
            return candidate.resolve()
    raise InputError(
        "a clone of the project, with its folders experiments and figures",
        path="--checkout",
        given=str(candidates[0]),
    )


def _all(root: Path) -> list[str]:
    """Return the names of all studies, in order."""
    scripts = sorted((root / "experiments").glob("[0-9][0-9]_*.py"))
    return [path.stem for path in scripts if _MARK in path.read_text()]


def _chosen(root: Path, only: str | None) -> list[str]:
    names = _all(root)
    if only is None:
        return names
    numbered = {name[:2]: name for name in names} | {name: name for name in names}
    words = [word.strip() for word in only.split(",")]
    for word in words:
        if word not in numbered:
            raise not_among(names, word, path="--only")
    return [name for name in names if name in {numbered[word] for word in words}]


def _reads_measured(root: Path, name: str) -> bool:
    return f'reads="{_MEASURED}"' in (root / "experiments" / f"{name}.py").read_text()


def _skipped(root: Path, names: list[str], args: argparse.Namespace) -> dict[str, str]:
    """Return the studies that cannot run, each with the reason."""
    if args.measured is not None:
        return {}
    return {n: f"it reads measurements: give {_MEASURED} DIR" for n in names if _reads_measured(root, n)}


def _steps(
    root: Path, name: str, args: argparse.Namespace, data: Path, pictures: Path
) -> tuple[list[str], ...]:
    experiment = [f"experiments/{name}.py", "--out", str(data), *(["--small"] if args.small else [])]
    if _reads_measured(root, name):
        experiment += [_MEASURED, str(args.measured.resolve())]
    figure = f"figures/{name}.py"
    if not (root / figure).is_file():
        return (experiment,)
    return experiment, [figure, "--data", str(data), "--out", str(pictures)]


def _run_all(
    studies: list[_Study], root: Path, processes: int, on_finished: Callable[[_Study], None]
) -> None:
    environment = _environment(root)
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        running = [pool.submit(_run, study, root, environment) for study in studies]
        for done in concurrent.futures.as_completed(running):
            on_finished(done.result())


def _environment(root: Path) -> dict[str, str]:
    """Return the environment of a script: the package of the checkout, and the compilation cache of this process."""
    import jax

    config: Any = jax.config
    before = os.environ.get("PYTHONPATH")
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(root), *([before] if before else [])]),
        "JAX_COMPILATION_CACHE_DIR": str(config.jax_compilation_cache_dir),
    }


def _run(study: _Study, root: Path, environment: dict[str, str]) -> _Study:
    begun = time.perf_counter()
    for step in study.steps:
        done = subprocess.run(
            [sys.executable, *step], check=False, cwd=root, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            study.failure = f"{step[0]} ended with {done.returncode}:\n{done.stderr[-_SHOWN:].strip()}"
            break
    study.seconds = time.perf_counter() - begun
    return study


def _print_status(console: Console, study: _Study) -> None:
    line = f"{study.name}: {study.seconds:.0f} s"
    console.print(f"{line}: {study.failure}" if study.failure else line, highlight=False, markup=False)


def _print_list(root: Path, names: list[str], left_out: dict[str, str], *, as_json: bool) -> None:
    """Print the first line of the docstring of every experiment."""
    about = {}
    for name in names:
        text = (root / "experiments" / f"{name}.py").read_text()
        about[name] = text.removeprefix('"""').splitlines()[0].removesuffix('"""')
    if as_json:
        document = {n: {"about": line, "left_out": left_out.get(n, "")} for n, line in about.items()}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    tables.write(tables.plain_table("", ("Study", "About"), list(about.items()), left=2))
