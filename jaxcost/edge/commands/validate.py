"""`jaxcost validate`: errors of the calibrated kernel models of the catalogue on measurements."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

from jaxcost.core.pytree import leaf_fields
from jaxcost.edge.catalog.kernels import FitSection
from jaxcost.edge.catalog.loaders import load_efficiency, load_system
from jaxcost.edge.catalog.parts import known, load_part
from jaxcost.edge.catalog.reading import configs_root
from jaxcost.edge.commands.calibrate import TRANSFER
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.measured.files import read_measured
from jaxcost.edge.show import tables
from jaxcost.edge.show.validate_plot import draw_validation
from jaxcost.explore.calibrate import (
    FAMILIES,
    GROUPS,
    Scored,
    Selection,
    Summary,
    score,
    selections,
    summaries,
)
from jaxcost.spec.system import System

__all__ = ["add_validate_arguments", "validate_command"]


def add_validate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of measurements as CSV")
    parser.add_argument(
        "--chip",
        action="append",
        metavar="NAME",
        help="use only measurements of this chip; repeat for several",
    )
    parser.add_argument(
        "--configs",
        type=Path,
        metavar="DIR",
        help="folder of efficiency files (default: those of the catalogue)",
    )
    parser.add_argument(
        "--by",
        action="append",
        choices=GROUPS,
        help="group errors by this; repeat for several (default: all)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="write a plot of predicted against measured times: .svg, .png or .pdf",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def validate_command(args: argparse.Namespace) -> int:
    """Predict the measurements and print the errors."""
    measured, refused = read_measured(args.data, chips=args.chip)
    folder = args.configs or configs_root() / "efficiency"
    named = {str(c) for parts in measured.values() for p in parts for c in p.labels["chip"]}
    unknown = sorted(named - set(known("chips")))
    systems = {name: load_system(name) for name in sorted(named & set(known("chips")))}
    scored, missing = _scored(measured, systems, folder)
    if not scored:
        raise InputError(
            "measurements for which a file of the folder has kernels", file=folder, given=str(args.data)
        )
    groups = args.by or list(GROUPS)
    tabled = {group: summaries(scored, group) for group in groups}
    if args.plot is not None:
        draw_validation(args.plot, scored)
    notes = [f"Not predicted: {what}, {rows} rows" for what, rows in missing.items()]
    notes += [f"Not in the catalogue: chip {name}" for name in unknown]
    notes += [f"Rejected: {len(refused)} rows"] if refused else []
    bases = sorted({part.basis for part in scored})
    if args.json:
        document = {group: [vars(one) for one in rows] for group, rows in tabled.items()}
        print(json.dumps({"basis": bases, **document, "notes": notes}, indent=2, allow_nan=False))
        return 0
    heading = (
        "Rows to which a file was fitted are included; docs/validation.md and the files give held-out errors."
    )
    tables.write(
        Text("Kernels of " + ", ".join(bases)),
        Text(heading),
        *(_table(group, rows) for group, rows in tabled.items()),
        *(Text(note) for note in notes),
    )
    return 0


def _scored(
    measured: Mapping, systems: Mapping[str, System], folder: Path
) -> tuple[list[Scored], dict[str, int]]:
    """Predict every row for which the folder has a file of its chip and library, or of its library across chips."""
    scored, missing = [], {}
    for family in FAMILIES.values():
        for part in selections(family, measured.get(family.source, ()), systems, fewest=1):
            one = _predicted(part, folder)
            if one is None:
                what = f"{family.name} {' '.join(v for v in part.labels.values() if v)}"
                missing[what] = missing.get(what, 0) + len(part.rows)
            else:
                scored.append(one)
    return scored, missing


def _predicted(part: Selection, folder: Path) -> Scored | None:
    place = part.family.place(part.labels)
    library = part.labels.get("library", "")
    if place is None:
        return None
    for group in (part.labels["chip"], TRANSFER):
        # The file of the library, then files that include its kernels: those of NCCL are in files of serving libraries.
        preferred = folder / f"{group}-{library}.yaml"
        for path in [preferred, *sorted(set(folder.glob(f"{group}-*.yaml")) - {preferred})]:
            fit = _fit(str(path), place) if path.exists() else None
            if fit is None or (path != preferred and fit.library.split()[:1] != [library]):
                continue
            kernels = load_efficiency(str(path)).kernels
            kernel = getattr(kernels, place[0])
            kernel = getattr(kernel, place[1]) if place[1] else kernel
            numbers = {f.name: float(getattr(kernel, f.name)) for f in leaf_fields(type(kernel))}
            return score(part, numbers, (fit.low, fit.high), path.stem)
    return None


def _fit(path: str, place: tuple[str, str]) -> FitSection | None:
    fits = load_part("efficiency", path)[0].fits
    return next((fit for fit in fits if (fit.kernels, fit.bits) == place), None)


def _table(group: str, rows: list[Summary]) -> Table:
    heads = (group.capitalize(), "Rows", "Median", "90th", "Bias", "In 80%", "Roofline", "0.8 + 3 us")
    cells = [
        (
            one.name,
            str(one.rows),
            f"{one.median:.3f}",
            f"{one.ninth:.3f}",
            f"{one.bias:+.3f}",
            f"{one.inside:.0%}",
            f"{one.roofline:.3f}",
            f"{one.thumb:.3f}",
        )
        for one in rows
    ]
    return tables.unwrapped(tables.plain_table(f"|ln(predicted / measured)| by {group}", heads, cells))
