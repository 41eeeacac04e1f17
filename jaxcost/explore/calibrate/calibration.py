"""Calibrate the kernels of serving libraries to measurements: of all families, chips and precisions."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxcost.explore.calibrate.cross_validation import Calibration, calibrate_rows
from jaxcost.explore.calibrate.kernel_families import FAMILIES, Selection, Systems, across_chips, selections
from jaxcost.spec.measurement import Measurements

__all__ = ["Fitted", "calibrate", "fastest"]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """One set of parameters: of a family of kernels, by a library, at a precision, on a chip or across several.

    Attributes:
        selection: the rows and what they have in common.
        calibration: the parameters, and how far off they are on what they have not seen.
    """

    selection: Selection
    calibration: Calibration

    @property
    def place(self) -> tuple[str, str] | None:
        """Where the numbers belong: the field of `Kernels`, and of its precision; None where they do not."""
        return self.selection.family.place(self.selection.labels)


def calibrate(
    found: Mapping[str, Sequence[Measurements]],
    systems: Systems,
    *,
    families: Iterable[str] | None = None,
    across: bool = False,
    seed: int = 0,
    told: Callable[[str], None] = lambda text: None,
) -> list[Fitted]:
    """Fit every selection of rows, and hold out its axis.

    Args:
        found: measurements by family, as `read_measured` gives them.
        systems: a system of every chip, by the name that rows are labelled with; rows of others are left out.
        families: names among `FAMILIES`; all by default.
        across: fit the rows of all chips together, each chip held out in turn: what a chip never measured is
            predicted with.
        seed: of folds and starts.
        told: called with a line before every selection.

    Raises:
        ValueError: no such family.
    """
    wanted = list(FAMILIES) if families is None else list(families)
    unknown = [name for name in wanted if name not in FAMILIES]
    if unknown:
        raise ValueError(f"no family {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    parts = [s for n in wanted for s in selections(FAMILIES[n], found.get(FAMILIES[n].source, ()), systems)]
    out = []
    for part in across_chips(parts) if across else parts:
        told(f"{part.family.name}: {' '.join(part.labels.values())}, {len(part.rows)} rows")
        made = calibrate_rows(part.form, part.columns, part.rows.seconds, part.axis, even=across, seed=seed)
        out.append(Fitted(part, made))
    return out


def fastest(fits: Iterable[Fitted]) -> dict[tuple[str, str], Fitted]:
    """Choose for every place in `Kernels` the fit of the kernel that comes nearest the roofline."""
    out: dict[tuple[str, str], Fitted] = {}
    for one in fits:
        place = one.place
        if place is not None and (place not in out or one.selection.slowness < out[place].selection.slowness):
            out[place] = one
    return out
