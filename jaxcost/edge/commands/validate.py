"""`jaxcost validate`: errors of the calibrated kernel models of the catalogue on measurements."""

import argparse
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from jaxcost.core.pytree import leaf_fields
from jaxcost.edge.catalog.circumstances import file_circumstance, fit_of_place
from jaxcost.edge.catalog.engines import load_engine
from jaxcost.edge.catalog.kernels import Circumstance, EfficiencyFile, FitSection, near_places
from jaxcost.edge.catalog.loaders import load_efficiency, load_model, load_system
from jaxcost.edge.catalog.parts import GENERAL, architectures, known, load_part, model_of_alias
from jaxcost.edge.catalog.reading import configs_root
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.measured.files import read_measured
from jaxcost.edge.show import tables
from jaxcost.edge.show.validate_plot import draw_validation
from jaxcost.explore.calibrate import (
    FAMILIES,
    GROUPS,
    MEASURED,
    NEAR_KERNEL,
    KernelNumbers,
    Scored,
    Summary,
    left_out_reasons,
    score_family,
    score_serving,
    summaries,
)
from jaxcost.spec.measurement import Measurements
from jaxcost.spec.system import System

__all__ = ["add_validate_arguments", "validate_command"]

Measured = Mapping[str, Sequence[Measurements]]
_SERVERS = 8  # chips of the system that serves; the plan of a row says how many it uses


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
    served, unserved = _served(measured, systems, folder)
    scored, missing = scored + served, missing | unserved
    if not scored:
        raise InputError(
            "measurements for which a file of the folder has kernels", file=folder, given=str(args.data)
        )
    groups = args.by or list(GROUPS)
    tabled = {group: summaries(scored, group) for group in groups}
    if args.plot is not None:
        draw_validation(args.plot, scored)
    rows = sum(len(part) for parts in measured.values() for part in parts)
    predicted = sum(len(part.measured) for part in scored)
    notes = [f"Predicted: {predicted} of {rows} rows"]
    notes += [f"Not predicted: {what}, {count} rows" for what, count in missing.items()]
    notes += [f"Not in the catalogue: chip {name}" for name in unknown]
    notes += [f"Rejected: {len(refused)} rows"] if refused else []
    counts = {"all": rows, "predicted": predicted, "not_predicted": dict(missing), "rejected": len(refused)}
    bases = sorted({part.basis for part in scored})
    if args.json:
        document = {group: [vars(one) for one in rows] for group, rows in tabled.items()}
        print(
            json.dumps(
                {"basis": bases, **document, "rows": counts, "notes": notes}, indent=2, allow_nan=False
            )
        )
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
    measured: Measured, systems: Mapping[str, System], folder: Path
) -> tuple[list[Scored], dict[str, int]]:
    """Predict every row for which the folder has kernels; count the others by reason."""
    scored, missing = [], _never_predicted(measured, systems)
    for family in FAMILIES.values():
        some, reasons = score_family(
            family,
            measured.get(family.source, ()),
            systems,
            lambda labels, place: _numbers(folder, labels, place),
        )
        scored += some
        missing.update(reasons)
    return scored, dict(missing)


def _served(
    measured: Measured, systems: Mapping[str, System], folder: Path
) -> tuple[list[Scored], dict[str, int]]:
    """Predict closed loops of users by the libraries' files; count the other rows of served models by reason."""
    rows = [
        part.where(np.isin(part.labels["chip"].astype(str), list(systems)))
        for part in measured.get("serving", ())
    ]
    named = {str(name) for part in rows for name in part.labels["model"]}
    models = {name: load_model(known) for name in sorted(named) if (known := _model_of(name))}
    libraries = {str(name) for part in rows for name in part.labels["library"]}
    files = {
        chip: {name: path for name in libraries if (path := _library_file(folder, chip, name))}
        for chip in systems
    }
    found = score_serving(
        rows,
        {
            chip: {
                name: load_system(f"{chip}-x{_SERVERS}", efficiency=str(path)) for name, path in of.items()
            }
            for chip, of in files.items()
        },
        models,
        {chip: {name: load_engine(name, chip) for name in of} for chip, of in files.items()},
        {name: _serving_intervals(path) for of in files.values() for name, path in of.items()},
    )
    keys = np.char.add(np.char.add(found.labels["chip"], " "), found.labels["library"])
    out = []
    for key in np.unique(np.char.add(np.char.add(keys, " "), found.labels["metric"])):
        chip, library, metric = str(key).split(" ")
        at = (keys == f"{chip} {library}") & (found.labels["metric"] == metric)
        blank, count = np.full(int(at.sum()), ""), int(at.sum())
        path = files[chip][library]
        labels = {
            "op": np.full(count, f"served {metric.upper()}"),
            "chip": found.labels["chip"][at],
            "library": found.labels["library"][at],
            "precision": blank,
            "measured": np.full(count, MEASURED[file_circumstance(_part(str(path)), str(path), chip)]),
            "model": found.labels["model"][at],
        }
        nothing = np.full(count, np.nan)
        out.append(
            Scored(labels, found.measured[at], found.predicted[at], nothing, found.inside[at], path.stem)
        )
    return out, {f"serving: {reason}": rows for reason, rows in found.reasons.items()}


def _model_of(name: str) -> str | None:
    """Return the catalogue's model of a checkpoint; one in 8 bits has the shape of the original."""
    return model_of_alias(name) or model_of_alias(name.removesuffix("-FP8"))


def _library_file(folder: Path, chip: str, library: str) -> Path | None:
    """Return the file of a library for a chip that has overheads of its engine."""
    names = (f"{chip}-{library}", library, f"{GENERAL}-{library}")
    paths = (folder / f"{name}.yaml" for name in names)
    return next((p for p in paths if p.exists() and getattr(_part(str(p)).kernels, "engine", None)), None)


def _serving_intervals(path: Path) -> dict[str, tuple[float, float]]:
    return {one.metric: (one.low, one.high) for one in _part(str(path)).serving}


def _never_predicted(measured: Measured, systems: Mapping[str, System]) -> Counter[str]:
    """Count the rows that are of no chip of the catalogue, or of no family of kernels, by reason."""
    reasons: Counter[str] = Counter()
    for source, parts in measured.items():
        families = [family for family in FAMILIES.values() if family.source == source]
        for part in parts:
            known = np.isin(part.labels["chip"].astype(str), list(systems))
            if not known.all():
                chips = ", ".join(part.where(~known).values("chip"))
                reasons[f"{source}: chips that are not in the catalogue ({chips})"] += int((~known).sum())
            rows = part.where(known)
            wanted = (
                np.any([family.wanted(rows) for family in families], axis=0)
                if families and len(rows)
                else None
            )
            if wanted is not None and not wanted.all():
                for reason in left_out_reasons(source, rows.where(~wanted)).tolist():
                    reasons[f"{source}: {reason}"] += 1
    return reasons


def _numbers(folder: Path, labels: Mapping[str, str], place: tuple[str, str]) -> KernelNumbers | str:
    """Return a kernel's numbers from the folder: of its library's file, else of one with kernels of its library.

    A file of one chip goes before the file of the library, and that before a file for any chip. A kernel that no file
    has is the nearest, as in `evaluate`.
    """
    chip, library = labels["chip"], labels.get("library", "")
    for near in near_places(place):
        for pattern in (f"{chip}-{{}}", "{}", f"{GENERAL}-{{}}"):
            preferred = folder / f"{pattern.format(library)}.yaml"
            # Kernels of NCCL are in files of serving libraries.
            for path in [preferred, *sorted(set(_files(folder, pattern)) - {preferred})]:
                found = _of_file(path, chip, near) if path.exists() else None
                if found is None or (path != preferred and found[0].library.split()[:1] != [library]):
                    continue
                fit, circumstance = found
                interval = fit.interval(circumstance)
                assert interval is not None
                rests_on = circumstance if near == place else NEAR_KERNEL
                return KernelNumbers(_kernel_numbers(str(path), chip, near), interval, path.stem, rests_on)
    return "no file has this kernel of this library"


def _files(folder: Path, pattern: str) -> list[Path]:
    if pattern != "{}":
        return list(folder.glob(f"{pattern.format('*')}.yaml"))
    scopes = tuple(f"{scope}-" for scope in (GENERAL, *known("chips"), *architectures()))
    return [path for path in folder.glob("*.yaml") if not path.stem.startswith(scopes)]


def _of_file(path: Path, chip: str, place: tuple[str, str]) -> tuple[FitSection, Circumstance] | None:
    return fit_of_place(_part(str(path)), place, str(path), chip)


@functools.cache
def _part(path: str) -> EfficiencyFile:
    return load_part("efficiency", path)[0]


@functools.cache
def _kernel_numbers(path: str, chip: str, place: tuple[str, str]) -> dict[str, float]:
    kernel = _kernels(path, chip)
    for name in place:
        kernel = getattr(kernel, name) if name else kernel
    return {f.name: float(getattr(kernel, f.name)) for f in leaf_fields(type(kernel))}


@functools.cache
def _kernels(path: str, chip: str) -> Any:
    return load_efficiency(path, chip).kernels


def _table(group: str, rows: list[Summary]) -> Table:
    heads = (group.capitalize(), "Rows", "Median", "90th", "Bias", "In 80%", "Roofline", "0.8 + 3 us")
    cells = [
        (
            one.name,
            str(one.rows),
            f"{one.median:.3f}",
            f"{one.ninth:.3f}",
            f"{one.bias:+.3f}",
            "-" if one.inside is None else f"{one.inside:.0%}",
            "-" if one.roofline is None else f"{one.roofline:.3f}",
            "-" if one.thumb is None else f"{one.thumb:.3f}",
        )
        for one in rows
    ]
    return tables.unwrapped(tables.plain_table(f"|ln(predicted / measured)| by {group}", heads, cells))
