"""`jaxcost calibrate`: fit the kernel models of serving libraries to measurements, and write efficiency files."""

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxcost.edge.catalog.efficiency import document, write_efficiency
from jaxcost.edge.catalog.loaders import load_system
from jaxcost.edge.catalog.parts import title
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.io.write import make_folder
from jaxcost.edge.measured.aiconfigurator_tables import import_tables
from jaxcost.edge.measured.files import Refused, read_measured
from jaxcost.edge.show import tables
from jaxcost.explore.calibrate import FAMILIES, Fitted, calibrate, scores
from jaxcost.spec.measurement import Measurements

__all__ = ["TRANSFER", "add_calibrate_arguments", "calibrate_command"]

TRANSFER = "gpu"  # first word of the name of a file that is fitted across chips
_SHOWN = 8  # rejected rows that are listed


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", metavar="DIR", help="folder of measurements as CSV (docs/measurements.md)")
    source.add_argument(
        "--tables",
        action="store_true",
        help="read the tables of an installed aiconfigurator-core",
    )
    parser.add_argument(
        "--chip",
        action="append",
        required=True,
        metavar="NAME",
        help="chip of the catalogue; repeat for several",
    )
    parser.add_argument(
        "--library",
        action="append",
        metavar="NAME",
        help="use only measurements of this library; repeat for several",
    )
    parser.add_argument(
        "--family",
        action="append",
        metavar="NAME",
        help=f"fit only this kernel family, one of {', '.join(FAMILIES)}; repeat for several",
    )
    parser.add_argument(
        "--across",
        action="store_true",
        help="fit the measurements of all chips together, for chips without measurements",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the efficiency files")
    parser.add_argument("--seed", type=int, default=0, help="seed of folds and starts (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def calibrate_command(args: argparse.Namespace) -> int:
    """Fit the kernel models, write the files and print the errors."""
    for name in args.family or ():
        if name not in FAMILIES:
            raise not_among(FAMILIES, name, path="--family")
    if args.across and len(set(args.chip)) < 2:
        raise InputError("two or more --chip", path="--across", given=", ".join(args.chip))
    systems = {name: load_system(name) for name in args.chip}
    measured, refused = _read(args)
    fits = calibrate(
        measured,
        systems,
        families=args.family,
        across=args.across,
        seed=args.seed,
        on_progress=lambda text: print(text, file=sys.stderr, flush=True),
    )
    if not fits:
        raise InputError(
            "measurements of a kernel family that can be calibrated",
            file=args.data or "tables",
            given=f"none of {', '.join(systems)}",
        )
    written = _write(args, fits)
    if args.json:
        print(
            json.dumps({"fits": [_plain(one) for one in fits], "files": written}, indent=2, allow_nan=False)
        )
        return 0
    parts = [_table(fits)]
    parts += [Text(f"Rejected: {r.file}:{r.line}: {r.reason}") for r in refused[:_SHOWN]]
    if len(refused) > _SHOWN:
        parts.append(Text(f"and {len(refused) - _SHOWN} more rows"))
    parts += [Text(f"Wrote {path}") for path in written]
    tables.write(*parts)
    return 0


def _read(args: argparse.Namespace) -> tuple[dict[str, list[Measurements]], list[Refused]]:
    if args.data is not None:
        measured, refused = read_measured(args.data, chips=args.chip)
    else:
        measured, refused = {}, []
        for chip in args.chip:
            parts, bad = import_tables(chip)
            refused += bad
            for part in parts:
                measured.setdefault(part.family, []).append(part)
    if args.library:
        known = {str(x) for parts in measured.values() for p in parts for x in p.labels.get("library", ())}
        for name in args.library:
            if name not in known:
                raise not_among(sorted(known), name, path="--library")
        for family, parts in measured.items():
            labelled = [part for part in parts if "library" in part.labels]
            measured[family] = [
                p.where(np.isin(p.labels["library"].astype(str), args.library)) for p in labelled
            ]
    return measured, refused


def _write(args: argparse.Namespace, fits: Sequence[Fitted]) -> list[str]:
    """Write one file for every library on every chip, or for every library across chips."""
    if args.out is None:
        return []
    make_folder(args.out)
    date = datetime.date.today().isoformat()
    written = []
    for chip in [TRANSFER] if args.across else dict.fromkeys(args.chip):
        of = [one for one in fits if args.across or one.selection.labels["chip"] == chip]
        for library in sorted({one.selection.labels["library"] for one in of}):
            own = [one for one in of if one.selection.labels["library"] == library]
            # A library with collectives alone cannot serve a model.
            if not any(one.place is not None and one.place[1] for one in own):
                continue
            others = [one for one in of if one.selection.labels["library"] != library]
            path = args.out / f"{chip}-{library}.yaml"
            write_efficiency(path, document(*_titles(args, chip, library), own, others, date=date))
            written.append(str(path))
    return written


def _titles(args: argparse.Namespace, chip: str, library: str) -> tuple[str, str]:
    if args.across:
        names = ", ".join(title("chips", name) for name in dict.fromkeys(args.chip))
        note = f"Fitted to {names} together, each held out in turn; where a kernel was not measured, another library's."
        return f"{library} on a GPU that was not measured", note
    note = "Kernels fitted to measured rows; where the library was not measured, another library's on the same chip."
    return f"{library} on {title('chips', chip)}", note


def _table(fits: Sequence[Fitted]) -> Table:
    rows = []
    for one in fits:
        calibration = one.calibration
        (inside, _), (held_out, ninth) = scores(calibration.inside), scores(calibration.held)
        labels = one.selection.labels
        what = " ".join(v for k, v in labels.items() if v and k not in ("chip",))
        rows.append(
            (
                one.selection.family.name,
                labels.get("chip", "all"),
                what,
                str(len(one.selection.rows)),
                f"{inside:.3f}",
                f"{held_out:.3f}",
                f"{ninth:.3f}",
                f"{calibration.covered.mean():.0%}" if calibration.folds > 2 else "-",
                f"{one.selection.axis_name} / {calibration.folds}",
            )
        )
    heads = (
        "Kernels",
        "Chip",
        "Library, precision",
        "Rows",
        "Fitted",
        "Held out",
        "90th",
        "In 80%",
        "Held-out axis / folds",
    )
    return tables.unwrapped(tables.plain_table("|ln(predicted / measured)|, median", heads, rows, left=3))


def _plain(one: Fitted) -> dict:
    calibration = one.calibration
    median, ninth = scores(calibration.held)
    return {
        "family": one.selection.family.name,
        **one.selection.labels,
        "rows": len(one.selection.rows),
        "held_out": one.selection.axis_name,
        "folds": calibration.folds,
        "median_fitted": scores(calibration.inside)[0],
        "median_held_out": median,
        "ninth_held_out": ninth,
        "covered": float(calibration.covered.mean()),
        "interval": list(calibration.interval),
        "parameters": {
            name: {"value": value, "low": calibration.low[name], "high": calibration.high[name]}
            for name, value in calibration.values.items()
        },
    }
