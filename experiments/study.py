"""Shared code of the numbered experiments: one compiled program for all designs, command-line options, a data format.

An experiment is a function `study(small) -> Study` in a numbered file, run by `run(study)`:

    python experiments/08_walls.py [--small] [--out DIR]

It writes `08_walls.json`, the data, with the same bytes every time on one machine, and `08_walls.manifest.json`:
versions, seconds, and the hash of the data. `figures/08_walls.py` reads the data only.
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import inspect
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table as Shown

import jaxcost as jc
from jaxcost.evaluation import evaluate as evaluate_plan
from jaxcost.spec.memory import TIERS

OUT = Path(__file__).parent / "out"
DIGITS = 6  # significant ones that are written
CHUNK = 256  # designs evaluated together: every experiment runs the same program
# A fabric that answers in 0.3 us: two hops through a switch and the overhead of a round; messages land on the chip.
SUB_MICROSECOND = {"launch": 0.0, "overhead": 0.1e-6, "latency": 0.1e-6, "sram_landing": 1.0}
# All that a design may have: told together, all designs share one program.
FEATURES = (
    *(name for name in TIERS if name != "memory"),
    *(f"{name}.near" for name in ("memory", "hbf", "cxl")),
    *("stacking", "cooling", "cap", "reserved", "corpus", "corpus_read", "window"),
)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of one kind; every column has a unit, "" where it is a name."""

    about: str  # what a row is
    units: dict[str, str]
    rows: Sequence[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Study:
    """What an experiment found, and on what it rests."""

    title: str
    findings: tuple[str, ...]  # sentences whose numbers come from the tables
    assumptions: tuple[str, ...]
    sources: tuple[str, ...]
    tables: dict[str, Table]
    blobs: dict[str, bytes] = dataclasses.field(
        default_factory=dict
    )  # by ending of their file: what is no table


@dataclasses.dataclass(frozen=True)
class Case:
    """One design to evaluate."""

    system: jc.System
    model: jc.Model
    traffic: jc.Traffic
    plan: jc.Plan
    prices: jc.Prices = dataclasses.field(default_factory=jc.Prices)

    @property
    def given(self) -> tuple:
        """What an evaluation takes, in order."""
        return self.system, self.model, self.traffic, self.plan, self.prices


def evaluate(cases: Sequence[Case]) -> jc.Report:
    """Evaluate all cases by one program; every leaf of the report has the shape [cases].

    A tier or engine that `FEATURES` leaves out (such as an engine beside a drive) does not count.
    """
    leaves, trees = zip(*(jax.tree.flatten(case.given) for case in cases), strict=True)
    assert len(set(trees)) == 1, "cases of different structure"
    columns = np.asarray(leaves, np.float32).T
    columns = np.pad(columns, ((0, 0), (0, -len(cases) % CHUNK)), mode="edge")
    found = []
    for start in range(0, columns.shape[1], CHUNK):
        given = jax.tree.unflatten(trees[0], list(columns[:, start : start + CHUNK]))
        found.append(jax.device_get(_program(*given)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(cases)], *found)


@jax.jit
@jax.vmap
def _program(system: jc.System, model: jc.Model, traffic: jc.Traffic, plan: jc.Plan, prices: jc.Prices):
    report = evaluate_plan(system, model, traffic, plan, prices=prices, features=FEATURES)
    return jax.tree.map(jnp.asarray, report)


def run(study: Callable[..., Study], *, reads: str = "") -> None:
    """Run one experiment from the command line; with `reads` the folder of that option is its second argument."""
    path = Path(inspect.getfile(study))
    parser = argparse.ArgumentParser(description=inspect.getdoc(inspect.getmodule(study)))
    parser.add_argument("--small", action="store_true", help="a coarser version, for tests")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the data")
    if reads:
        parser.add_argument(reads, type=Path, required=True, help="folder of what it reads", dest="reads")
    args = parser.parse_args()
    begun = time.perf_counter()
    found = study(args.small, *([args.reads] if reads else []))
    show(found)
    write(path.stem, found, args.out, small=args.small, seconds=time.perf_counter() - begun)


def write(name: str, found: Study, out: Path, *, small: bool, seconds: float) -> None:
    """Write the data and its manifest."""
    data = as_json(found)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(data)
    for blob, content in found.blobs.items():
        (out / f"{name}.{blob}").write_bytes(content)
    manifest = {
        "experiment": name,
        "small": small,
        "seconds": round(seconds, 1),
        "sha256": hashlib.sha256(data.encode()).hexdigest(),
        "versions": {package: importlib.metadata.version(package) for package in ("jaxcost", "jax", "numpy")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "devices": [device.device_kind for device in jax.devices()],
    }
    (out / f"{name}.manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def as_json(found: Study) -> str:
    """The data as text: a row a line, numbers of six digits."""
    tables = []
    for name, table in found.tables.items():
        columns = list(table.units)
        for row in table.rows:
            assert list(row) == columns, f"{name}: a row has {list(row)}, its table {columns}"
        rows = ",\n   ".join(json.dumps([rounded(x) for x in row.values()]) for row in table.rows)
        head = json.dumps({"about": table.about, "units": table.units})[:-1]
        tables.append(f'  {json.dumps(name)}: {head}, "rows": [\n   {rows}\n  ]}}')
    text = {name: getattr(found, name) for name in ("title", "findings", "assumptions", "sources")}
    return json.dumps(text, indent=1)[:-2] + ',\n "tables": {\n' + ",\n".join(tables) + "\n }\n}\n"


def rounded(x: Any) -> Any:
    """A number of six significant digits, or what is no number; None where there is none."""
    if isinstance(x, str | bool | np.bool_ | None):
        return bool(x) if isinstance(x, np.bool_) else x
    value = float(x)
    if not math.isfinite(value):
        return None
    value = float(f"{value:.{DIGITS}g}")
    return int(value) if value.is_integer() and abs(value) < 1e15 else value


def show(found: Study) -> None:
    """Print what was found."""
    console = Console(width=150)
    console.print(f"[bold]{found.title}[/bold]")
    for table in found.tables.values():
        if len(table.rows) <= 40:
            shown = Shown(*(f"{n}\n{u}" if u not in ("", "1") else n for n, u in table.units.items()))
            for row in table.rows:
                shown.add_row(*(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row.values()))
            console.print(shown)
        else:
            console.print(f"{len(table.rows):,} rows: {table.about}")
    for sentence in found.findings:
        console.print(f"- {sentence}")
