"""Calibrate the kernels of serving libraries to measurements, for every family, chip and precision."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaxcost.core.deprecation import renamed_keywords
from jaxcost.explore.calibrate.cross_validation import Calibration, calibrate_rows
from jaxcost.explore.calibrate.kernel_families import FAMILIES, Selection, Systems, selections
from jaxcost.explore.calibrate.pooling import Pooled, pool_selections
from jaxcost.spec.measurement import Measurements

__all__ = ["Fitted", "calibrate", "fastest", "pool_chips"]


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The fitted parameters of one family of kernels, library and precision, on one chip or across several.

    Attributes:
        selection: the rows that were fitted, and their common labels.
        calibration: the parameters and their held-out errors.
    """

    selection: Selection
    calibration: Calibration

    @property
    def place(self) -> tuple[str, str] | None:
        """The field of `Kernels` and the field of its precision that the parameters fill; None where there is none."""
        return self.selection.place


@renamed_keywords(found="measurements", told="on_progress")
def calibrate(
    measurements: Mapping[str, Sequence[Measurements]],
    systems: Systems,
    *,
    families: Iterable[str] | None = None,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda text: None,
) -> list[Fitted]:
    """Fit the kernels of every chip, library and precision in the measurements, with cross-validation.

    Args:
        measurements: measurements by family, as `read_measured` returns them.
        systems: a system of every chip, by the chip's label in the rows; rows of other chips are skipped.
        families: names among `FAMILIES`; None for all.
        seed: seed of the folds and of the starting points.
        on_progress: called with one line of text before every fit.

    Returns:
        One fit per selection of rows (`selections`).

    Raises:
        ValueError: an unknown family.
    """
    out = []
    for part in _parts(measurements, systems, families):
        on_progress(f"{part.family.name}: {' '.join(part.labels.values())}, {len(part.rows)} rows")
        calibration = calibrate_rows(part.form, part.columns, part.rows.seconds, part.axis, seed=seed)
        out.append(Fitted(part, calibration))
    return out


def pool_chips(
    measurements: Mapping[str, Sequence[Measurements]],
    systems: Systems,
    generations: Mapping[str, str],
    *,
    families: Iterable[str] | None = None,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda text: None,
) -> list[Pooled]:
    """Fit the kernels of every library and precision to all chips together, with partial pooling.

    The result has numbers for every chip and generation, and for those that were never measured, with held-out errors
    of each circumstance. The equations are in `explore/calibrate/pooling.py`.

    Args:
        measurements: as for `calibrate`.
        systems: as for `calibrate`.
        generations: generation of every chip of `systems`, such as "hopper".
        families: names among `FAMILIES`; None for all.
        seed: seed of the folds and of the starting points.
        on_progress: called with one line of text before every fit.

    Raises:
        ValueError: an unknown family.
    """
    return pool_selections(
        _parts(measurements, systems, families), generations, seed=seed, on_progress=on_progress
    )


def _parts(
    measurements: Mapping[str, Sequence[Measurements]], systems: Systems, families: Iterable[str] | None
) -> list[Selection]:
    """Return the rows of the families that are fitted together."""
    wanted = list(FAMILIES) if families is None else list(families)
    unknown = [name for name in wanted if name not in FAMILIES]
    if unknown:
        raise ValueError(f"no family {unknown[0]!r}; there are {', '.join(FAMILIES)}")
    return [
        part
        for name in wanted
        for part in selections(FAMILIES[name], measurements.get(FAMILIES[name].source, ()), systems)
    ]


def fastest(fits: Iterable[Fitted]) -> dict[tuple[str, str], Fitted]:
    """Choose for every field and precision of `Kernels` the fit of the kernel that is closest to the roofline."""
    out: dict[tuple[str, str], Fitted] = {}
    for one in fits:
        place = one.place
        if place is not None and (place not in out or one.selection.slowness < out[place].selection.slowness):
            out[place] = one
    return out
