"""The calibrated families of kernels: their rows, form, held-out axis, and fields in `spec/kernels.py`."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcost.explore.calibrate import (
    attention_form as attention,
    matmul_form as matmul,
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

__all__ = ["FAMILIES", "KernelFamily", "Selection", "join_chips", "selections"]

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
        marks: function of a system of the rows' chip that returns further labels, by which places may differ.
        unplaced: function of labels without a place that returns the reason.
        refine: function of the form and labels that returns the form of one selection.
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
    marks: Callable[[System], Mapping[str, str]] = lambda system: {}
    unplaced: Callable[[Mapping[str, str]], str] = lambda labels: "a kernel that no plan uses on this chip"
    refine: Callable[[Form, Mapping[str, str]], Form] = lambda form, labels: form


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
        place: the field of `Kernels` and the field of its precision that the rows tell of; None where there is none.
    """

    family: KernelFamily
    form: Form
    labels: Mapping[str, str]
    rows: Measurements
    columns: Columns
    axis: np.ndarray
    axis_name: str
    slowness: float
    place: tuple[str, str] | None = None


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
            labels = {name: str(some.labels[name][0]) for name in family.by}
            labels |= family.marks(systems[labels["chip"]])
            form = family.refine(family.form(systems[str(some.labels["chip"][0])]), labels)
            columns = family.columns(some, systems)
            slowness = _slowness(form, columns, some.seconds)
            out.append(
                Selection(
                    family,
                    form,
                    labels,
                    some,
                    columns,
                    family.axis(some),
                    family.axis_name,
                    slowness,
                    family.place(labels),
                )
            )
    return out


def join_chips(parts: Iterable[Selection]) -> list[Selection]:
    """Join the selections of one library and place on all its chips; those without a place are left out.

    Of several kernels on a chip, the one closest to the roofline is used.
    """
    keyed: dict[tuple[str, ...], dict[str, Selection]] = {}
    for part in parts:
        if part.place is not None:
            of, chip = keyed.setdefault((part.labels["library"], *part.place), {}), part.labels["chip"]
            if chip not in of or part.slowness < of[chip].slowness:
                of[chip] = part
    out = []
    for of in keyed.values():
        some, rows = next(iter(of.values())), concatenate([part.rows for part in of.values()])
        columns = {
            name: np.concatenate([part.columns[name] for part in of.values()]) for name in some.columns
        }
        axis = np.concatenate([part.axis for part in of.values()])
        labels = {k: v for k, v in some.labels.items() if k not in ("chip", "version", "kernel")}
        slowness = _slowness(some.form, columns, rows.seconds)
        out.append(
            dataclasses.replace(some, labels=labels, rows=rows, columns=columns, axis=axis, slowness=slowness)
        )
    return out


def _slowness(form: Form, columns: Columns, seconds: np.ndarray) -> float:
    return float(np.median(seconds / predict(form.run, columns, {})))


def _bits(word: str) -> str:
    return "bits_8" if "8" in word else "bits_16"


def _matmul_place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    place = matmul.PLACES.get(labels["precision"])
    return ("matmul", place) if place else None


def _attention_place(name: str) -> Callable[[Mapping[str, str]], tuple[str, str] | None]:
    def place(labels: Mapping[str, str]) -> tuple[str, str] | None:
        other = (labels["library"], labels.get("kernel", "")) in _OTHER_BACKENDS.get(name, ())
        # A module is a block with its projections, which have kernels of their own.
        if other or labels.get("kind", "").endswith("module"):
            return None
        cached = _bits(labels.get("kv_precision", ""))
        if labels["precision"] in ("bfloat16", "default", "float16"):
            return name, cached
        return (name, "compute_8") if labels["precision"] == "fp8" and cached == "bits_8" else None

    return place


def _one_query(rows: Measurements) -> np.ndarray:
    return rows.work["queries"] == 1


def _several_queries(rows: Measurements) -> np.ndarray:
    return rows.work["queries"] > 1


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
_LATENT = (*_ATTENTION, "kind", "projection_precision")
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
    by = _LATENT if source == "latent_attention" else _ATTENTION
    return KernelFamily(
        name=name,
        kernel=AttentionKernel,
        form=_always(form),
        source=source,
        wanted=wanted,
        columns=_of_chips(columns),
        keys=_labels(*by),
        by=by,
        axis=axis,
        axis_name=words,
        place=_attention_place(name),
    )


# Kernels that a library has but does not select by itself on the chips they were measured on: SGLang runs
# FlashAttention 3 (fa3) on Hopper and FlashInfer on Ampere and Ada
# (https://docs.sglang.io/advanced_features/attention_backend.html).
_OTHER_BACKENDS = {
    name: (("sglang", "triton"), ("sglang", "flash_attention"))
    for name in ("attention_decode", "attention_prefill")
}
_ON_CHIP, _SHAPE = "heads on a chip", "head configuration"
FAMILIES: dict[str, KernelFamily] = {
    family.name: family
    for family in (
        KernelFamily(
            name="matmul",
            kernel=MatmulKernel,
            form=_always(matmul.MATMUL),
            source="matmul",
            wanted=lambda rows: ~np.char.startswith(rows.labels["source"].astype(str), "vidur"),
            columns=_of_chips(matmul.matmul_columns),
            keys=_labels(*_MATMUL),
            by=_MATMUL,
            axis=_values("columns", "inner"),
            axis_name="shape of the weights (n, k)",
            place=_matmul_place,
            refine=matmul.matmul_form,
        ),
        _attention(
            "attention_decode",
            attention.ATTENTION_DECODE,
            "attention",
            _one_query,
            attention.attention_columns,
            _HEADS,
            _SHAPE,
        ),
        _attention(
            "attention_prefill",
            attention.ATTENTION_PREFILL,
            "attention",
            _several_queries,
            attention.attention_columns,
            _HEADS,
            _SHAPE,
        ),
        _attention(
            "latent_decode",
            attention.LATENT_DECODE,
            "latent_attention",
            _one_query,
            attention.latent_columns,
            _values("heads"),
            _ON_CHIP,
        ),
        _attention(
            "latent_prefill",
            attention.LATENT_PREFILL,
            "latent_attention",
            _several_queries,
            attention.latent_columns,
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
            keys=_labels("chip", "library", "precision"),
            by=("chip", "library", "precision"),
            axis=mixture.axis,
            axis_name="model, or cut of the one there is",
            place=mixture.place,
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
            place=messages.collective_place,
            unplaced=messages.not_placed,
            marks=lambda system: messages.bus(system.fabric),
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
            place=messages.collective_place,
            unplaced=messages.not_placed,
            marks=lambda system: messages.bus(system.fabric),
        ),
        KernelFamily(
            name="all_to_all",
            kernel=AllToAllKernel,
            form=_always(messages.ALL_TO_ALL),
            source="all_to_all",
            wanted=_clear(messages.left_out),
            columns=_of_links(messages.all_to_all_columns),
            keys=messages.groups,
            by=("chip", "library", "version", "kernel", "phase"),
            axis=messages.all_to_all_axis,
            axis_name="hidden width, experts, top k and nodes",
            place=messages.exchange_place,
            unplaced=messages.not_placed,
        ),
    )
}
