"""`jaxcost calibrate`: fit the kernel models of serving libraries to measurements, and write efficiency files."""

import argparse
import datetime
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxcost.edge.catalog.efficiency import document, write_efficiency
from jaxcost.edge.catalog.library_update import KernelPrior, kernel_prior, updated_document
from jaxcost.edge.catalog.loaders import load_system
from jaxcost.edge.catalog.parts import architecture_of, find, libraries, load_part, title
from jaxcost.edge.io.errors import InputError, not_among, within
from jaxcost.edge.io.write import make_folder
from jaxcost.edge.measured.aiconfigurator_tables import import_tables
from jaxcost.edge.measured.files import Refused, read_measured
from jaxcost.edge.show import tables
from jaxcost.explore.calibrate import (
    CIRCUMSTANCES,
    FAMILIES,
    Fitted,
    Pooled,
    Selection,
    calibrate,
    fastest,
    pool_selections,
    scores,
    selections,
    update_rows,
)
from jaxcost.spec.measurement import Measurements
from jaxcost.spec.system import System

__all__ = ["add_calibrate_arguments", "calibrate_command"]

_SCRATCH = "none"  # of --prior
_SHOWN = 8  # rejected rows that are listed
Measured = Mapping[str, list[Measurements]]
Systems = Mapping[str, System]


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
        help="fit the measurements of all chips together, to one file per library, also for chips without measurements",
    )
    parser.add_argument(
        "--prior",
        metavar="NAME",
        help="efficiency file whose kernels the measurements update, so that few rows suffice; none to fit them from "
        "nothing (default: the file of the library, if it was not fitted to the chip)",
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
    if args.across and args.prior:
        raise InputError("either --across or --prior", path="--prior", given=args.prior)
    if args.prior not in (None, _SCRATCH):
        within("", "--prior", find, "efficiency", args.prior)
    systems = {name: load_system(name) for name in args.chip}
    measured, refused = _read(args)
    made, written = (_pooled if args.across else _by_chip)(args, measured, systems)
    if not made:
        raise InputError(
            "measurements of a kernel family that can be calibrated",
            file=args.data or "tables",
            given=f"none of {', '.join(systems)}",
        )
    if args.json:
        print(
            json.dumps({"fits": [_plain(one) for one in made], "files": written}, indent=2, allow_nan=False)
        )
        return 0
    parts: list[Any] = [_table(made)]
    parts += [Text(f"Rejected: {r.file}:{r.line}: {r.reason}") for r in refused[:_SHOWN]]
    if len(refused) > _SHOWN:
        parts.append(Text(f"and {len(refused) - _SHOWN} more rows"))
    parts += [Text(f"Wrote {path}") for path in written]
    tables.write(*parts)
    return 0


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _selected(
    args: argparse.Namespace, measured: Measured, systems: Systems, fewest: int | None = None
) -> list[Selection]:
    """Return the rows of the families that are wanted, by chip, library and kernel."""
    options = {} if fewest is None else {"fewest": fewest}
    return [
        part
        for name in args.family or FAMILIES
        for part in selections(FAMILIES[name], measured.get(FAMILIES[name].source, ()), systems, **options)
    ]


def _pooled(args: argparse.Namespace, measured: Measured, systems: Systems) -> tuple[list[Pooled], list[str]]:
    """Fit every library to all chips together, and write a file for each."""
    generations = {name: architecture_of(name) or name for name in systems}
    parts = _selected(args, measured, systems)
    if args.out:
        make_folder(args.out)
    fits = pool_selections(parts, generations, seed=args.seed, on_progress=_progress)
    names = ", ".join(title("chips", name) for name in dict.fromkeys(args.chip))
    note = (
        f"Fitted to {names} together. A chip that was not measured takes the numbers of its architecture, another "
        "architecture those of the library. Where a kernel of the library was not measured, another library's."
    )
    written = []
    for library, own, others in _by_library(fits) if args.out else ():
        path = args.out / f"{library}.yaml"
        write_efficiency(path, document(f"{library} on GPUs", note, own, others, date=_today()))
        written.append(str(path))
    return fits, written


def _by_library(fits: Sequence[Any]) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """Yield every library that can serve a model, its fits, and those of other libraries."""
    for library in sorted({one.selection.labels["library"] for one in fits}):
        own = [one for one in fits if one.selection.labels["library"] == library]
        # A library with collectives alone cannot serve a model.
        if any(one.place is not None and one.place[1] for one in own):
            yield library, own, [one for one in fits if one.selection.labels["library"] != library]


def _by_chip(
    args: argparse.Namespace, measured: Measured, systems: Systems
) -> tuple[list[Fitted], list[str]]:
    """Fit every library on every chip: from its prior if there is one, else to its measurements alone."""
    if args.out:
        make_folder(args.out)
    made: list[Fitted] = []
    written: list[str] = []
    for chip in dict.fromkeys(args.chip):
        priors = _priors(args, _selected(args, measured, {chip: systems[chip]}, 1), chip)
        for name, parts in priors.items():
            updates = [one for part in parts for one in _updated(args, part, name)]
            made += [one for one, _ in updates]
            written += _write_update(args, name, chip, updates) if args.out and updates else []
        used = {part.labels["library"] for parts in priors.values() for part in parts}
        alone = calibrate(
            {family: [_without(part, used) for part in parts] for family, parts in measured.items()},
            {chip: systems[chip]},
            families=args.family,
            seed=args.seed,
            on_progress=_progress,
        )
        made += alone
        note = (
            "Kernels fitted to measured rows; where the library was not measured, another's on the same chip."
        )
        for library, own, others in _by_library(alone) if args.out else ():
            path = args.out / f"{chip}-{library}.yaml"
            head = f"{library} on {title('chips', chip)}"
            write_efficiency(path, document(head, note, own, others, date=_today()))
            written.append(str(path))
    return made, written


def _priors(args: argparse.Namespace, parts: Sequence[Selection], chip: str) -> dict[str, list[Selection]]:
    """Return the efficiency files that measurements update, each with its rows; rows without one are left out.

    Rows of a library without file, such as those of NCCL, update the files whose kernels are of that library.
    """
    if args.prior is not None:
        return {} if args.prior == _SCRATCH or not parts else {args.prior: list(parts)}
    of: dict[str, list[Selection]] = {}
    for part in parts:
        library = part.labels["library"]
        if library in libraries() and chip not in load_part("efficiency", library)[0].chips:
            of.setdefault(library, []).append(part)
    for name, own in of.items():
        fits = {
            (fit.kernels, fit.bits): fit.library.split()[:1] for fit in load_part("efficiency", name)[0].fits
        }
        own += [
            part
            for part in parts
            if part.labels["library"] not in libraries()
            and fits.get(part.place or ("", "")) == [part.labels["library"]]
        ]
    return of


def _updated(args: argparse.Namespace, part: Selection, name: str) -> Iterator[tuple[Fitted, KernelPrior]]:
    place = part.place
    prior = None if place is None else kernel_prior(name, part.labels["chip"], place)
    what = f"{part.family.name}: {' '.join(part.labels.values())}, {len(part.rows)} rows"
    if prior is None:
        _progress(f"{what}: {name} has no such kernel")
        return
    _progress(f"{what}, from {name}")
    yield Fitted(part, update_rows(part, prior.numbers, prior.interval, seed=args.seed)), prior


def _write_update(
    args: argparse.Namespace, name: str, chip: str, updates: Sequence[tuple[Fitted, KernelPrior]]
) -> list[str]:
    """Write the file of a prior with the numbers of a chip, and return its path."""
    priors = {id(one): prior for one, prior in updates}
    chosen = [(one, priors[id(one)]) for one in fastest(one for one, _ in updates).values()]
    rows, chip_title = sum(len(one.selection.rows) for one, _ in chosen), title("chips", chip)
    library = load_part("efficiency", name)[0].library or find("efficiency", name).stem
    path = args.out / f"{chip}-{library}.yaml"
    note = f"{title('efficiency', name)}, updated from {rows} measured rows of {chip_title}."
    head = f"{library} on {chip_title}"
    write_efficiency(path, updated_document(name, chip, head, note, chosen, date=_today()))
    return [str(path)]


def _without(part: Measurements, names: Collection[str]) -> Measurements:
    if "library" not in part.labels:
        return part
    return part.where(~np.isin(part.labels["library"].astype(str), list(names)))


def _today() -> str:
    return datetime.date.today().isoformat()


def _read(args: argparse.Namespace) -> tuple[Measured, list[Refused]]:
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


def _held(one: Fitted | Pooled) -> dict[str, np.ndarray]:
    """Return held-out errors by what was held out."""
    if isinstance(one, Pooled):
        return {name: errors[np.isfinite(errors)] for name, errors in one.held.items()}
    return {"shapes": one.calibration.held}


def _table(fits: Sequence[Fitted | Pooled]) -> Table:
    rows = []
    for one in fits:
        labels, inside = one.selection.labels, _inside(one)
        what = " ".join(v for k, v in labels.items() if v and k not in ("chip",))
        held = _held(one)
        rows.append(
            (
                one.selection.family.name,
                labels.get("chip") or ", ".join(getattr(one, "generations", ())),
                what,
                str(len(one.selection.rows)),
                f"{scores(inside)[0]:.3f}",
                *(
                    f"{scores(held[name])[0]:.3f}" if len(held.get(name, ())) else "-"
                    for name in CIRCUMSTANCES
                ),
                f"{scores(held['shapes'])[1]:.3f}" if len(held["shapes"]) else "-",
            )
        )
    heads = (
        "Kernels",
        "Chip",
        "Library, precision",
        "Rows",
        "Fitted",
        "Shapes",
        "Chips",
        "Generations",
        "90th",
    )
    text = "Median |ln(predicted / measured)| of the fit and of held-out shapes, chips and generations; 90th of shapes"
    return tables.unwrapped(tables.plain_table(text, heads, rows, left=3))


def _inside(one: Fitted | Pooled) -> np.ndarray:
    return one.inside if isinstance(one, Pooled) else one.calibration.inside


def _plain(one: Fitted | Pooled) -> dict[str, Any]:
    held = {name: scores(errors) for name, errors in _held(one).items() if len(errors)}
    document = {
        "family": one.selection.family.name,
        **one.selection.labels,
        "rows": len(one.selection.rows),
        "held_out": one.selection.axis_name,
        "median_fitted": scores(_inside(one))[0],
        "median_held_out": {name: both[0] for name, both in held.items()},
        "ninth_held_out": {name: both[1] for name, both in held.items()},
    }
    if isinstance(one, Pooled):
        numbers = {
            unit or "library": {
                name: dict(zip(("value", "low", "high"), three, strict=True)) for name, three in of.items()
            }
            for unit, of in one.values.items()
        }
        return document | {"parameters": numbers}
    calibration = one.calibration
    return document | {
        "folds": calibration.folds,
        "covered": float(calibration.covered.mean()),
        "interval": list(calibration.interval),
        "parameters": {
            name: {"value": value, "low": calibration.low[name], "high": calibration.high[name]}
            for name, value in calibration.values.items()
        },
    }
