"""The families of kernels that are calibrated: which rows, which form, what is held out, where the numbers belong.

`place` is where a fit's numbers belong in `spec/kernels.py`: (kernel, bits).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxcost.explore import kernel_forms as forms
from jaxcost.explore.fitting import Columns, predict
from jaxcost.explore.held_out import Form
from jaxcost.spec.chip import Chip
from jaxcost.spec.measurement import Measurements, concatenate

__all__ = ["FAMILIES", "Family", "Selection", "across_chips", "joined", "selections"]

_FEWEST = 24  # rows, below which a selection is not fitted


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of kernels and how it is fitted.

    Attributes:
        name: its name, a field of `Kernels` or part of one.
        form: the form.
        source: the family of measurements.
        wanted: the rows of those that are of this family, bool [R].
        columns: what describes rows for the form.
        by: labels by which rows are fitted apart.
        axis: columns or labels whose values are held out together.
        axis_name: the axis in words.
        place: of labels, the field of `Kernels` and of its precision.
    """

    name: str
    form: Form
    source: str
    wanted: Callable[[Measurements], np.ndarray]
    columns: Callable[[Measurements, Mapping[str, Chip]], Columns]
    by: tuple[str, ...]
    axis: tuple[str, ...]
    axis_name: str
    place: Callable[[Mapping[str, str]], tuple[str, str] | None]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Rows that share one set of parameters: of one family, library and precision, of a chip or of several.

    Attributes:
        family: the family.
        labels: what the rows have in common.
        rows: them.
        columns: what describes them for the form.
        axis: the key of every row on the axis that is held out, [R].
        axis_name: the axis in words.
        slowness: median of measured seconds over those of the ideal roofline.
    """

    family: Family
    labels: Mapping[str, str]
    rows: Measurements
    columns: Columns
    axis: np.ndarray
    axis_name: str
    slowness: float


def joined(values: Sequence[np.ndarray]) -> np.ndarray:
    """Join several columns to one key a row."""
    words = [[f"{x:g}" if isinstance(x, float) else str(x) for x in column.tolist()] for column in values]
    return np.asarray([" ".join(row) for row in zip(*words, strict=True)], dtype=str)


def selections(
    family: Family, found: Sequence[Measurements], chips: Mapping[str, Chip], *, fewest: int = _FEWEST
) -> list[Selection]:
    """Sort the rows of a family into what is fitted together; rows of other chips are left out.

    Args:
        family: the family.
        found: measurements of its source.
        chips: chips by the name that rows are labelled with.
        fewest: rows below which a selection is left out.
    """
    parts = []
    for part in found:
        known = np.isin(part.labels["chip"].astype(str), list(chips))
        parts.append(part.where(known & family.wanted(part)))
    parts = [part for part in parts if len(part)]
    if not parts:
        return []
    rows = concatenate(parts)
    keys = joined([rows.labels[name] for name in family.by])
    out = []
    for key in np.unique(keys):
        some = rows.where(keys == key)
        if len(some) < fewest:
            continue
        columns = family.columns(some, chips)
        held = [some.work[name] if name in some.work else some.labels[name] for name in family.axis]
        out.append(
            Selection(
                family=family,
                labels={name: str(some.labels[name][0]) for name in family.by},
                rows=some,
                columns=columns,
                axis=joined(held),
                axis_name=family.axis_name,
                slowness=_slowness(family, columns, some.seconds),
            )
        )
    return out


def across_chips(parts: Sequence[Selection]) -> list[Selection]:
    """Join what one library runs at one precision on several chips, whose axis is the chip.

    Of several kernels on a chip the one that comes nearest the roofline stands for it.
    """
    apart = ("chip", "version", "kernel")
    keyed: dict[tuple[str, ...], dict[str, Selection]] = {}
    for part in parts:
        key = (part.family.name, *(v for k, v in part.labels.items() if k not in apart))
        of, chip = keyed.setdefault(key, {}), part.labels["chip"]
        if chip not in of or part.slowness < of[chip].slowness:
            of[chip] = part
    out = []
    for of in keyed.values():
        if len(of) < 2:
            continue
        some, rows = next(iter(of.values())), concatenate([part.rows for part in of.values()])
        columns = {
            name: np.concatenate([part.columns[name] for part in of.values()]) for name in some.columns
        }
        out.append(
            Selection(
                family=some.family,
                labels={k: v for k, v in some.labels.items() if k not in apart},
                rows=rows,
                columns=columns,
                axis=rows.labels["chip"].astype(str),
                axis_name="chip",
                slowness=_slowness(some.family, columns, rows.seconds),
            )
        )
    return out


def _slowness(family: Family, columns: Columns, seconds: np.ndarray) -> float:
    return float(np.median(seconds / predict(family.form.run, columns, {})))


def _bits(word: str) -> str:
    return "bits_8" if "8" in word else "bits_16"


def _wide(word: str) -> bool:
    return word in ("bfloat16", "float16")


def _matmul_place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    precision = labels["precision"]
    # Weights alone narrowed, and scales of blocks, are other kernels than those a plan chooses by its bits.
    return ("matmul", _bits(precision)) if _wide(precision) or precision == "fp8" else None


def _attention_place(name: str) -> Callable[[Mapping[str, str]], tuple[str, str] | None]:
    def place(labels: Mapping[str, str]) -> tuple[str, str] | None:
        if labels["precision"] not in ("bfloat16", "default", "float16"):
            return None
        return name, _bits(labels.get("kv_precision", ""))

    return place


def _one_query(rows: Measurements) -> np.ndarray:
    return rows.work["queries"] == 1


def _several_queries(rows: Measurements) -> np.ndarray:
    return rows.work["queries"] > 1


_ATTENTION = ("chip", "library", "version", "kernel", "precision", "kv_precision")
_HEADS = ("heads", "kv_heads", "head_dim", "window")

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="matmul",
            form=forms.MATMUL,
            source="matmul",
            wanted=lambda rows: ~np.char.startswith(rows.labels["source"].astype(str), "vidur"),
            columns=forms.matmul_columns,
            by=("chip", "library", "version", "precision"),
            axis=("columns", "inner"),
            axis_name="shape of the weights (n, k)",
            place=_matmul_place,
        ),
        Family(
            name="attention_decode",
            form=forms.ATTENTION_DECODE,
            source="attention",
            wanted=_one_query,
            columns=forms.attention_columns,
            by=_ATTENTION,
            axis=_HEADS,
            axis_name="head configuration",
            place=_attention_place("attention_decode"),
        ),
        Family(
            name="attention_prefill",
            form=forms.ATTENTION_PREFILL,
            source="attention",
            wanted=_several_queries,
            columns=forms.attention_columns,
            by=_ATTENTION,
            axis=_HEADS,
            axis_name="head configuration",
            place=_attention_place("attention_prefill"),
        ),
        Family(
            name="latent_decode",
            form=forms.LATENT_DECODE,
            source="latent_attention",
            wanted=lambda rows: _one_query(rows) & (rows.work["module"] == 0),
            columns=forms.latent_columns,
            by=_ATTENTION,
            axis=("heads",),
            axis_name="heads on a chip",
            place=_attention_place("latent_decode"),
        ),
        Family(
            name="latent_prefill",
            form=forms.LATENT_PREFILL,
            source="latent_attention",
            wanted=lambda rows: _several_queries(rows) & (rows.work["module"] == 0),
            columns=forms.latent_columns,
            by=_ATTENTION,
            axis=("heads",),
            axis_name="heads on a chip",
            place=_attention_place("latent_prefill"),
        ),
    )
}
