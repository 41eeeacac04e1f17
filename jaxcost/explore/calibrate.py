"""Calibrate the kernels of serving libraries to measurements: of all families, chips and precisions."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxcost.explore.fitting import Columns, predict
from jaxcost.explore.held_out import Calibration, Transfer, calibrate_rows, transfer
from jaxcost.explore.kernel_families import FAMILIES, Selection, selections
from jaxcost.spec.chip import Chip
from jaxcost.spec.measurement import Measurements

__all__ = ["Fitted", "Transferred", "calibrate", "fastest", "transfers"]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """One set of parameters: of a family of kernels on a chip, by a library, at a precision.

    Attributes:
        selection: the rows and what they have in common.
        calibration: the parameters, and how far off they are on what they have not seen.
        slowness: median of measured seconds over those of the ideal roofline.
    """

    selection: Selection
    calibration: Calibration
    slowness: float

    @property
    def place(self) -> tuple[str, str] | None:
        """Where the numbers belong: the field of `Kernels`, and of its precision; None where they do not."""
        return self.selection.family.place(self.selection.labels)


@dataclasses.dataclass(frozen=True)
class Transferred:
    """Rows of a chip predicted from its datasheet and the parameters that other chips share.

    Attributes:
        family: the family of kernels.
        labels: what the rows have in common, the chip apart.
        rows: those of the chip left out.
        transfer: how far off they are.
    """

    family: str
    labels: Mapping[str, str]
    rows: Measurements
    transfer: Transfer


def calibrate(
    found: Mapping[str, Sequence[Measurements]],
    chips: Mapping[str, Chip],
    *,
    families: Iterable[str] | None = None,
    seed: int = 0,
    told: Callable[[str], None] = lambda text: None,
) -> list[Fitted]:
    """Fit every selection of rows, and hold out its axis.

    Args:
        found: measurements by family, as `read_measured` gives them.
        chips: chips by the name that rows are labelled with; rows of others are left out.
        families: names among `FAMILIES`; all by default.
        seed: of folds and starts.
        told: called with a line before every selection.

    Raises:
        ValueError: no such family.
    """
    out = []
    for selection in _selected(found, chips, families):
        family, rows = selection.family, selection.rows
        told(f"{family.name}: {' '.join(selection.labels.values())}, {len(rows)} rows")
        columns = family.columns(rows, chips)
        made = calibrate_rows(family.form, columns, rows.seconds, selection.axis, seed=seed)
        out.append(Fitted(selection, made, _slowness(selection, columns)))
    return out


def transfers(
    found: Mapping[str, Sequence[Measurements]],
    chips: Mapping[str, Chip],
    *,
    families: Iterable[str] | None = None,
    seed: int = 0,
) -> list[Transferred]:
    """Leave every chip out in turn and predict it from the others: rows of one library and precision together.

    Of several kernels of a library at a precision on one chip the fastest stands for it.
    """
    apart = ("chip", "version", "kernel")
    out = []
    for name in FAMILIES if families is None else families:
        family = FAMILIES[name]
        keyed: dict[str, dict[str, tuple[float, Selection, Columns]]] = {}
        for part in _selected(found, chips, [name]):
            columns = family.columns(part.rows, chips)
            key = " ".join(v for k, v in part.labels.items() if k not in apart)
            one = (_slowness(part, columns), part, columns)
            of = keyed.setdefault(key, {})
            chip = part.labels["chip"]
            if chip not in of or one[0] < of[chip][0]:
                of[chip] = one
        for of in keyed.values():
            if len(of) < 2:
                continue
            columns = [c for _, _, c in of.values()]
            together = {n: np.concatenate([c[n] for c in columns]) for n in columns[0]}
            rows = {chip: part.rows for chip, (_, part, _) in of.items()}
            seconds = np.concatenate([r.seconds for r in rows.values()])
            chip = np.concatenate([np.full(len(r), c) for c, r in rows.items()])
            some = next(iter(of.values()))[1]
            labels = {k: v for k, v in some.labels.items() if k not in apart}
            out += [
                Transferred(name, labels, rows[made.chip], made)
                for made in transfer(family.form, together, seconds, chip, seed=seed)
            ]
    return out


def fastest(fits: Iterable[Fitted]) -> dict[tuple[str, str], Fitted]:
    """Choose for every place in `Kernels` the fit of the kernel that comes nearest the roofline."""
    out: dict[tuple[str, str], Fitted] = {}
    for one in fits:
        place = one.place
        if place is not None and (place not in out or one.slowness < out[place].slowness):
            out[place] = one
    return out


def _slowness(selection: Selection, columns: Columns) -> float:
    """Median of measured seconds over those of the ideal roofline."""
    return float(np.median(selection.rows.seconds / predict(selection.family.form.run, columns, {})))


def _selected(
    found: Mapping[str, Sequence[Measurements]], chips: Mapping[str, Chip], families: Iterable[str] | None
) -> list[Selection]:
    wanted = list(FAMILIES) if families is None else list(families)
    unknown = [name for name in wanted if name not in FAMILIES]
    if unknown:
        raise ValueError(f"no family {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    return [
        s for name in wanted for s in selections(FAMILIES[name], found.get(FAMILIES[name].source, ()), chips)
    ]
