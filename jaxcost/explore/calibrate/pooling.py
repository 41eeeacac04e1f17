"""Fit a library's kernels to several chips at once, with partial pooling over generations and chips.

The parameters of a chip are those of the library, plus what its generation adds, plus what the chip adds (`fit.py`):

    u[chip] = u0 + width x_library + s_generation x[generation] + s_chip x[chip],   every x normal with variance 1

A chip that was never measured has the mean of its generation, a generation that was never measured that of the library.
The two widths are the same for all parameters and families; they were chosen by the errors on chips and generations
that were left out.

A prediction is made in one of three circumstances, each with an interval of its own, from errors of rows that the fit
had not seen: `shapes` of a chip that was measured, another `chip` of a generation that was measured, and another
`generation`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from jaxcost.explore.calibrate.cross_validation import scores
from jaxcost.explore.calibrate.fit import Effects, Fit, fit, folds, predict
from jaxcost.explore.calibrate.kernel_families import Selection, join_chips

__all__ = [
    "CIRCUMSTANCES",
    "LIBRARY",
    "WIDTHS",
    "HeldOut",
    "Pooled",
    "Widths",
    "held_out",
    "pool_rows",
    "pool_selections",
]

CIRCUMSTANCES = ("shapes", "chip", "generation")
LIBRARY = ""  # the unit that stands for a generation that was never measured
FOLDS = 4
_TAIL = 0.1  # on either side of an 80% interval


@dataclasses.dataclass(frozen=True)
class Widths:
    """Standard deviations, in u, of what a generation adds to a library's parameters, and a chip to those."""

    generation: float
    chip: float


WIDTHS = Widths(1.0, 0.1)


@dataclasses.dataclass(frozen=True, eq=False)
class Pooled:
    """The parameters of one place of a library's kernels on every chip and generation, with their errors.

    Attributes:
        selection: the rows of all chips; label "chip" of its rows names the unit of each.
        generations: generation of every measured chip.
        values: by unit (`LIBRARY`, generations, chips) and name, (value, low, high) with the ends of an 80% interval:
            of the library for a generation never measured, of a generation for a chip never measured.
        inside: ln(predicted / measured) of the fit to all rows, [R].
        held: by circumstance, the same of every row by the fit that was made without it, [R]; nan where a circumstance
            does not apply: a chip that is alone in its generation is another generation when it is left out.
        left_out: by circumstance, what was left out with each row, [R]; "" where it does not apply.
    """

    selection: Selection
    generations: Mapping[str, str]
    values: Mapping[str, Mapping[str, tuple[float, float, float]]]
    inside: np.ndarray
    held: Mapping[str, np.ndarray]
    left_out: Mapping[str, np.ndarray]

    @property
    def place(self) -> tuple[str, str] | None:
        """The field of `Kernels` and the field of its precision that the parameters fill; None where there is none."""
        return self.selection.place


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Errors of predictions in one circumstance, of rows that the fits had not seen.

    Attributes:
        rows: number of rows.
        median: median of |ln(predicted / measured)|.
        ninth: 90th percentile of the same.
        low: ln(measured / predicted) below which a tenth of the rows lie.
        high: that above which a tenth lie.
        covered: share of rows in an interval that is made without what is left out with them; None where only one
            thing was left out.
    """

    rows: int
    median: float
    ninth: float
    low: float
    high: float
    covered: float | None


def held_out(fits: Sequence[Pooled], circumstance: str) -> HeldOut | None:
    """Summarise the held-out errors of several fits in one circumstance; None where it never applies.

    What is left out (each fold, chip or generation) has the same weight in the interval, however many rows it has.
    """
    errors = np.concatenate([one.held[circumstance] for one in fits])
    apart = np.concatenate([one.left_out[circumstance] for one in fits])
    errors, apart = errors[np.isfinite(errors)], apart[np.isfinite(errors)]
    if not len(errors):
        return None
    off = -errors
    names = np.unique(apart)
    inside = np.zeros(len(off), bool)
    for name in names if len(names) > 1 else ():
        low, high = _middle(off[apart != name], apart[apart != name])
        at = apart == name
        inside[at] = (off[at] >= low) & (off[at] <= high)
    covered = float(np.mean([inside[apart == name].mean() for name in names])) if len(names) > 1 else None
    return HeldOut(len(off), *scores(errors), *_middle(off, apart), covered)


def _middle(off: np.ndarray, apart: np.ndarray) -> tuple[float, float]:
    """Return the quantiles between which 80% lie, with equal weight for every value of `apart`."""
    _, at, rows = np.unique(apart, return_inverse=True, return_counts=True)
    order = np.argsort(off)
    weight = (1 / rows[at])[order]
    share = (np.cumsum(weight) - weight / 2) / weight.sum()
    low, high = np.interp([_TAIL, 1 - _TAIL], share, off[order])
    return float(low), float(high)


def pool_selections(
    selections: Iterable[Selection],
    generations: Mapping[str, str],
    *,
    widths: Widths = WIDTHS,
    most_folds: int = FOLDS,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda text: None,
) -> list[Pooled]:
    """Fit every library and place to all its chips together.

    Args:
        selections: rows by chip, library and kernel, as `selections` returns them.
        generations: generation of every chip.
        widths: how much generations and chips differ.
        most_folds: folds of the shapes.
        seed: seed of the folds and of the starting points.
        on_progress: called with one line of text before every fit.
    """
    out = []
    for part in join_chips(selections):
        on_progress(f"{part.family.name}: {' '.join(part.labels.values())}, {len(part.rows)} rows")
        out.append(pool_rows(part, generations, widths=widths, most_folds=most_folds, seed=seed))
    return out


def pool_rows(
    part: Selection,
    generations: Mapping[str, str],
    *,
    widths: Widths = WIDTHS,
    most_folds: int = FOLDS,
    seed: int = 0,
) -> Pooled:
    """Fit the rows of one place of a library on all its chips, and predict rows that are left out.

    Left out are each fold of the shapes on all chips, each chip, and each generation.
    """
    chip = part.rows.labels["chip"].astype(str)
    chips = sorted(set(chip.tolist()))
    of = {name: generations[name] for name in chips}
    kinds = sorted(set(of.values()))
    units = [LIBRARY, *kinds, *chips]
    generation = np.asarray([of[name] for name in chip])
    shape = folds(part.axis, most_folds, seed=seed)
    outs = {
        **{("shapes", str(i)): shape == i for i in range(shape.max() + 1) if shape.max() > 0},
        **{("chip", name): chip == name for name in chips if sum(g == of[name] for g in of.values()) > 1},
        **({("generation", name): generation == name for name in kinds} if len(kinds) > 1 else {}),
    }
    weights = np.stack([np.ones(len(chip)), *(~out for out in outs.values())]).astype(float)
    found = fit(
        part.form.seconds,
        part.form.bounds,
        part.columns,
        part.rows.seconds,
        weights,
        np.unique(part.axis, return_inverse=True)[1],
        effects=_effects(units, kinds, chips, of, chip, widths),
        seed=seed,
    )
    at = np.asarray([units.index(name) for name in chip])

    def errors(training_set: int) -> np.ndarray:
        seconds = predict(part.form.seconds, part.columns, found.rows(training_set, at))
        return np.log(seconds / part.rows.seconds)

    held = {name: np.full(len(chip), np.nan) for name in CIRCUMSTANCES}
    left_out = {name: np.full(len(chip), "", object) for name in CIRCUMSTANCES}
    for i, ((circumstance, name), out) in enumerate(outs.items()):
        held[circumstance][out] = errors(1 + i)[out]
        left_out[circumstance][out] = name
    return Pooled(part, of, _by_unit(found, units), errors(0), held, left_out)


def _effects(
    units: Sequence[str],
    kinds: Sequence[str],
    chips: Sequence[str],
    of: Mapping[str, str],
    chip: np.ndarray,
    widths: Widths,
) -> Effects:
    """Return which effects each unit has: one per generation and one per chip."""
    shared, own, unseen = np.zeros((len(units), len(kinds))), np.zeros((len(units), len(chips))), []
    for i, unit in enumerate(units):
        kind = of.get(unit, unit)
        if kind in kinds:
            shared[i, kinds.index(kind)] = widths.generation
        if unit in chips:
            own[i, chips.index(unit)] = widths.chip
        unseen.append((kind not in kinds) * widths.generation**2 + (unit not in chips) * widths.chip**2)
    unit = np.asarray([units.index(name) for name in chip])
    return Effects(unit, np.concatenate([shared, own], 1), np.asarray(unseen))


def _by_unit(found: Fit, units: Sequence[str]) -> dict[str, dict[str, tuple[float, float, float]]]:
    ends = np.stack([found.values[0], found.low[0], found.high[0]], -1).tolist()
    return {
        unit: {name: tuple(three) for name, three in zip(found.names, rows, strict=True)}  # pyright: ignore[reportReturnType]
        for unit, rows in zip(units, ends, strict=True)
    }
