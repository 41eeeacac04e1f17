"""The calibrated families of kernels: their rows, form, held-out axis, and fields in `spec/kernels.py`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcost.explore.calibrate import (
    kernel_forms as forms,
    message_forms as messages,
    mixture_form as mixture,
)
from jaxcost.explore.calibrate.cross_validation import Form, labelled
from jaxcost.explore.calibrate.fit import Columns, predict
from jaxcost.spec.chip import Chip
from jaxcost.spec.kernels import (
    AllToAllKernel,
    AttentionKernel,
    CollectiveKernel,
    CustomAllReduceKernel,
    MatmulKernel,
    MixtureKernel,
)
from jaxcost.spec.measurement import Measurements, concatenate
from jaxcost.spec.system import System

__all__ = ["FAMILIES", "KernelFamily", "Selection", "across_chips", "selections"]

_FEWEST = 24  # rows, below which a selection is not fitted


Keys = Callable[[Measurements], np.ndarray]
Systems = Mapping[str, System]


@dataclasses.dataclass(frozen=True)
class KernelFamily:
    """A family of kernels and how it is fitted.

    Attributes:
        name: name of the family.
        kernel: class of its parameters in `spec/kernels.py`.
        form: function of a system of the rows' chip that returns the form.
        source: family of measurements that has its rows.
        wanted: function that selects the rows of this family that are not excluded, bool [R].
        columns: function of rows and systems by chip that returns the columns of the form.
        keys: function that returns a key per row, [R]; rows of equal key are fitted together.
        by: labels that rows of equal key share.
        axis: function that returns the value of the held-out axis, [R].
        axis_name: the axis in words.
        place: function of labels that returns the field of `Kernels` and the field of its precision ("" without one);
            None for kernels that no field holds.
    """

    name: str
    kernel: type
    form: Callable[[System], Form]
    source: str
    wanted: Keys
    columns: Callable[[Measurements, Systems], Columns]
    keys: Keys
    by: tuple[str, ...]
    axis: Keys
    axis_name: str
    place: Callable[[Mapping[str, str]], tuple[str, str] | None]


@dataclasses.dataclass(frozen=True)
class Selection:
    """Rows that share one set of parameters: of one family, library and precision, on one chip or several.

    Attributes:
        family: the family.
        form: the family's form on their chips.
        labels: labels that all rows share.
        rows: the rows.
        columns: the columns of the form, [R] each.
        axis: value of every row on the held-out axis, [R].
        axis_name: the axis in words.
        slowness: median ratio of measured seconds to the ideal roofline.
    """

    family: KernelFamily
    form: Form
    labels: Mapping[str, str]
    rows: Measurements
    columns: Columns
    axis: np.ndarray
    axis_name: str
    slowness: float


def selections(
    family: KernelFamily, measurements: Sequence[Measurements], systems: Systems, *, fewest: int = _FEWEST
) -> list[Selection]:
    """Group the rows of a family into selections that are fitted together; rows of unknown chips are skipped.

    Args:
        family: the family.
        measurements: measurements of its source.
        systems: a system of every chip, by the chip's label in the rows.
        fewest: minimum number of rows of a selection.
    """
    parts = []
    for part in measurements:
        known = np.isin(part.labels["chip"].astype(str), list(systems))
        parts.append(part.where(known & family.wanted(part)))
    parts = [part for part in parts if len(part)]
    if not parts:
        return []
    rows = concatenate(parts)
    keys = family.keys(rows)
    out = []
    for key in np.unique(keys):
        some = rows.where(keys == key)
        if len(some) >= fewest:
            form = family.form(systems[str(some.labels["chip"][0])])
            labels = {name: str(some.labels[name][0]) for name in family.by}
            columns = family.columns(some, systems)
            slowness = _slowness(form, columns, some.seconds)
            out.append(
                Selection(family, form, labels, some, columns, family.axis(some), family.axis_name, slowness)
            )
    return out


def across_chips(parts: Sequence[Selection]) -> list[Selection]:
    """Join the selections of one library and precision on several chips; the held-out axis is the chip.

    Of several kernels on a chip, the one closest to the roofline is used.
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
        axis = rows.labels["chip"].astype(str)
        labels = {k: v for k, v in some.labels.items() if k not in apart}
        slowness = _slowness(some.form, columns, rows.seconds)
        out.append(Selection(some.family, some.form, labels, rows, columns, axis, "chip", slowness))
    return out


def _slowness(form: Form, columns: Columns, seconds: np.ndarray) -> float:
    return float(np.median(seconds / predict(form.run, columns, {})))


def _bits(word: str) -> str:
    return "bits_8" if "8" in word else "bits_16"


def _wide(word: str) -> bool:
    return word in ("bfloat16", "float16")


def _matmul_place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    precision = labels["precision"]
    # Weight-only quantization and block scales use other kernels than the ones that a plan selects by its bits.
    return ("matmul", _bits(precision)) if _wide(precision) or precision == "fp8" else None


def _attention_place(name: str) -> Callable[[Mapping[str, str]], tuple[str, str] | None]:
    def place(labels: Mapping[str, str]) -> tuple[str, str] | None:
        if labels["precision"] not in ("bfloat16", "default", "float16"):
            return None
        return name, _bits(labels.get("kv_precision", ""))

    return place


def _mixture_place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    words = {"bfloat16": "bits_16", "fp8": "bits_8", "fp8_block": "bits_8"}
    precision = labels["precision"]
    return ("mixture", words.get(precision, "bits_4")) if precision != "w4afp8" else None


def _exchange_place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    # The exchanges of a plan send a token once per rank.
    return None if labels.get("kernel", "") in messages.EVERY_EXPERT else (labels["phase"], "")


def _message_place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    if labels["library"] == "nccl":
        return "collective", ""
    # Kernels launched outside CUDA graphs wait for the host; serving replays graphs.
    return (
        None
        if labels["library"] == "nccl-torch" or "eager" in labels.get("kernel", "")
        else ("all_reduce", "")
    )


def _one_query(rows: Measurements) -> np.ndarray:
    return rows.work["queries"] == 1


def _several_queries(rows: Measurements) -> np.ndarray:
    return rows.work["queries"] > 1


def _core(rows: Measurements) -> np.ndarray:
    """The kernel alone, without the projections around it."""
    return rows.work["module"] == 0


def _labels(*names: str) -> Keys:
    return lambda rows: labelled([rows.labels[name] for name in names])


def _values(*names: str) -> Keys:
    return lambda rows: labelled([rows.work[n] if n in rows.work else rows.labels[n] for n in names])


def _of_chips(columns: Callable[[Measurements, Mapping[str, Chip]], Columns]) -> Any:
    return lambda rows, systems: columns(rows, {name: system.chip for name, system in systems.items()})


def _of_links(columns: Callable[..., Columns], *more: Any) -> Any:
    def described(rows: Measurements, systems: Systems) -> Columns:
        chips = {name: system.chip for name, system in systems.items()}
        return columns(rows, chips, {name: system.fabric for name, system in systems.items()}, *more)

    return described


def _always(form: Form) -> Callable[[System], Form]:
    return lambda system: form


_ATTENTION = ("chip", "library", "version", "kernel", "precision", "kv_precision")
_HEADS = _values("heads", "kv_heads", "head_dim", "window")
_MATMUL = ("chip", "library", "version", "precision")
_MESSAGE = ("chip", "library", "version", "kernel")
# Typical NCCL ring, which a library's own all-reduce falls back to above its size limit.
_RING = CollectiveKernel(launch=7e-6, round=7e-7, share=0.78, copies=3.5, protocol_switch=2.2)


def _ring(rows: Measurements, systems: Systems) -> Columns:
    names = dict.fromkeys(systems, _RING)
    return _of_links(messages.all_reduce_columns, names)(rows, systems)


def _clear(left_out: Keys) -> Keys:
    return lambda rows: left_out(rows) == ""


def _attention(
    name: str, form: Form, source: str, wanted: Keys, columns: Any, axis: Keys, words: str
) -> KernelFamily:
    return KernelFamily(
        name=name,
        kernel=AttentionKernel,
        form=_always(form),
        source=source,
        wanted=wanted,
        columns=_of_chips(columns),
        keys=_labels(*_ATTENTION),
        by=_ATTENTION,
        axis=axis,
        axis_name=words,
        place=_attention_place(name),
    )


def _latent(phase: Keys) -> Keys:
    return lambda rows: phase(rows) & _core(rows)


_ON_CHIP, _SHAPE = "heads on a chip", "head configuration"
FAMILIES: dict[str, KernelFamily] = {
    family.name: family
    for family in (
        KernelFamily(
            name="matmul",
            kernel=MatmulKernel,
            form=_always(forms.MATMUL),
            source="matmul",
            wanted=lambda rows: ~np.char.startswith(rows.labels["source"].astype(str), "vidur"),
            columns=_of_chips(forms.matmul_columns),
            keys=_labels(*_MATMUL),
            by=_MATMUL,
            axis=_values("columns", "inner"),
            axis_name="shape of the weights (n, k)",
            place=_matmul_place,
        ),
        _attention(
            "attention_decode",
            forms.ATTENTION_DECODE,
            "attention",
            _one_query,
            forms.attention_columns,
            _HEADS,
            _SHAPE,
        ),
        _attention(
            "attention_prefill",
            forms.ATTENTION_PREFILL,
            "attention",
            _several_queries,
            forms.attention_columns,
            _HEADS,
            _SHAPE,
        ),
        _attention(
            "latent_decode",
            forms.LATENT_DECODE,
            "latent_attention",
            _latent(_one_query),
            forms.latent_columns,
            _values("heads"),
            _ON_CHIP,
        ),
        _attention(
            "latent_prefill",
            forms.LATENT_PREFILL,
            "latent_attention",
            _latent(_several_queries),
            forms.latent_columns,
            _values("heads"),
            _ON_CHIP,
        ),
        KernelFamily(
            name="mixture",
            kernel=MixtureKernel,
            form=_always(mixture.MIXTURE),
            source="mixture",
            wanted=_clear(mixture.left_out),
            columns=_of_chips(mixture.columns),
            keys=mixture.groups,
            by=("chip", "library", "precision"),
            axis=mixture.axis,
            axis_name="model, or cut of the one there is",
            place=_mixture_place,
        ),
        KernelFamily(
            name="collective",
            kernel=CollectiveKernel,
            form=lambda system: messages.collective_form(system.fabric),
            source="collective",
            wanted=lambda rows: _clear(messages.left_out)(rows) & messages.is_collective(rows),
            columns=_of_links(messages.collective_columns),
            keys=_labels("chip", "library"),
            by=("chip", "library", "version"),
            axis=_values("op", "ranks"),
            axis_name="collective and ranks",
            place=_message_place,
        ),
        KernelFamily(
            name="all_reduce",
            kernel=CustomAllReduceKernel,
            form=lambda system: messages.all_reduce_form(system.fabric),
            source="collective",
            wanted=lambda rows: _clear(messages.left_out)(rows) & ~messages.is_collective(rows),
            columns=_ring,
            keys=_labels("chip", "library", "kernel"),
            by=_MESSAGE,
            axis=_values("ranks"),
            axis_name="ranks",
            place=_message_place,
        ),
        KernelFamily(
            name="all_to_all",
            kernel=AllToAllKernel,
            form=_always(messages.ALL_TO_ALL),
            source="all_to_all",
            wanted=lambda rows: rows.seconds > 0,
            columns=_of_links(messages.all_to_all_columns),
            keys=messages.groups,
            by=("chip", "library", "version", "kernel", "phase", "precision"),
            axis=messages.all_to_all_axis,
            axis_name="hidden width, experts and top k",
            place=_exchange_place,
        ),
    )
}
