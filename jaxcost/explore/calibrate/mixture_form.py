"""The fitted form of the kernels of routed experts, and the columns of measured rows.

A row is all routed experts of one layer on one rank. Benchmarks replay it, so small weights stay in the last-level
cache. Two parameters of the kernel are constants: fitting them does not lower the errors of held-out rows.

Three facts of the benchmark or of the library are columns of the rows, because a model that is served does not have
them: whether routing gives all experts equally many rows, how many distinct experts share the cache, and whether SGLang
has tuned tile sizes for the shape. Where SGLang has none, its Triton kernel uses tiles of 16 x 32 x 64 up to as many
tokens as local experts and of 64 x 64 x 32 beyond (sglang, `fused_moe_triton_config.py`). The latter reach 0.7 of the
bandwidth and half of the FLOP/s of tuned ones.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcost.explore.calibrate.cross_validation import Form, labelled
from jaxcost.explore.calibrate.fit import Bounds, Columns
from jaxcost.explore.calibrate.machine_columns import machine_columns, machine_of
from jaxcost.explore.calibrate.routing import routing
from jaxcost.physics.kernels.matmul import timing_seconds
from jaxcost.physics.kernels.mixture import MixtureWork, mixture_bytes, mixture_timing
from jaxcost.spec.chip import Chip
from jaxcost.spec.kernels import MixtureKernel
from jaxcost.spec.measurement import Measurements

__all__ = ["MIXTURE", "axis", "columns", "left_out", "place"]

_FIXED = {
    "cache": Bounds(1.0, 30.0, 4.0),
    "padding": Bounds(0.0, 1.0, 0.5),
}
_WORK = (
    "rows",
    "experts",
    "held",
    "slots",
    "hidden",
    "inner",
    "weight_bytes",
    "activation_bytes",
    "even",
    "untuned",
)
_UNROUTED_VERSIONS = {("trtllm", "1.0.0"), ("trtllm", "1.3.0rc10"), ("vllm", "0.14.0")}
_FEW = 32  # tokens

# Local experts and their width for which SGLang has tile sizes tuned to 16 bits, by chip, among the measured shapes.
# Those of 8 experts with 7168 and 14336 (Hopper), of 16 experts, and of 128 with 192 (H100) are files in its
# fused_moe_triton/configs; the others are read off the rows: no drop of speed beyond as many tokens as local experts.
_TUNED = {
    "a100-80gb-sxm": {(8, 1792), (8, 2048), (8, 7168)},
    "h100-sxm": {(8, 1792), (8, 2048), (8, 7168), (16, 2048), (128, 192), (128, 768)},
    "h200-sxm": {(8, 1792), (8, 2048), (8, 7168), (8, 14336), (128, 192), (128, 768)},
}

_PLACES = {
    "bfloat16": "bits_16",
    "fp8": "bits_8",
    "fp8_block": "bits_8_block",
    "w4a16_mxfp4": "bits_4",
    "int4_wo": "bits_4_group",
}

GROUPED = "routing differs from its label: faster than reading the experts that balanced routing reaches"
UNROUTED = "unknown routing: a rank with few tokens takes as long as one with several experts per token"
SLOW = "five times as slow as the nearest models and plans at every size"
UNTUNED = (
    "FlashInfer not autotuned: four times as slow as the same kernels in TensorRT-LLM, slower than 16 bits"
)
WIDENED = "weights of 4 bits are widened to 16 bits when they are loaded: as slow as reading 16 bits"
OLD = "an older release of the kernel, two to four times as slow as the current one at 32 tokens and more"
FEW = "too few rows for a fit"


def columns(measured: Measurements, chips: Mapping[str, Chip]) -> dict[str, np.ndarray]:
    """Return the columns of measurements of the family "mixture", [R] each.

    Args:
        measured: the rows.
        chips: the chips of all rows, by name.
    """
    work = measured.work
    bits = np.maximum(work["weight_bits"], work["activation_bits"])
    routed = routing(measured)
    return routed | {
        "even": (work["skew"] == 0).astype(float),
        "untuned": _untuned(measured, routed["held"]),
        "hidden": work["hidden"],
        "inner": work["width"] / work["tensor_parallel"],
        "weight_bytes": work["weight_bits"] / 8,
        "activation_bytes": work["activation_bits"] / 8,
        **machine_columns(measured, chips, bits),
    }


def _untuned(measured: Measurements, local: np.ndarray) -> np.ndarray:
    """Return 1 where the library's kernel runs with tile sizes that are not tuned to the shape, else 0, [R]."""
    labels, work = measured.labels, measured.work
    shapes = zip(labels["chip"], local, work["width"] / work["tensor_parallel"], strict=True)
    tuned = np.fromiter(((int(e), int(n)) in _TUNED.get(str(chip), ()) for chip, e, n in shapes), bool)
    sixteen = (labels["library"] == "sglang") & (labels["precision"] == "bfloat16")
    return (sixteen.astype(bool) & ~tuned & (work["tokens"] > local)).astype(float)


def _seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    machine = machine_of(columns)
    work = MixtureWork(**{name: columns[name] for name in _WORK}, replayed=columns["reached"])
    timing = mixture_timing(machine, MixtureKernel(**parameters), work)
    return timing_seconds(timing, mixture_bytes(work) / machine.bandwidth)


MIXTURE = Form(
    "mixture",
    _seconds,
    {
        "launch": Bounds(2e-6, 3e-4, 2e-5),
        "expert": Bounds(0, 1e-6, 5e-8),
        "memory": Bounds(0.5, 1, 0.85),
        "resident": Bounds(0.2, 2, 0.8),
        "matmul": Bounds(0.03, 1, 0.6),
        # The tallest tiles of these kernels: taller ones would explain the time of reading weights by padding.
        "rows": Bounds(8, 128, 64),
        "adapt": Bounds(0, 1, 0.3),
        "untuned_memory": Bounds(0.2, 1, 1),
        "untuned_matmul": Bounds(0.1, 1, 1),
        "depth": Bounds(0, 1000, 100),
        "serial": Bounds(0, 1, 0.3),
        "passes": Bounds(0, 10, 1),
        "remote_fraction": Bounds(0, 1, 0.3),
    },
    _FIXED,
)


def place(labels: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the field of `Kernels` and the field of `MixtureKernels` of a precision; None where it has none."""
    name = _PLACES.get(labels["precision"])
    return None if name is None else ("mixture", name)


def axis(measured: Measurements) -> np.ndarray:
    """Return the value of the held-out axis, [R]: the model, or how it is sharded where there is only one model."""
    if len(measured.values("model")) > 1:
        return measured.labels["model"].astype(str)
    return labelled([measured.work["tensor_parallel"], measured.work["expert_parallel"]])


def left_out(measured: Measurements) -> np.ndarray:
    """Return the reason why a row is excluded from the fit, [R]; "" where it is fitted."""
    labels, work = {name: words.astype(str) for name, words in measured.labels.items()}, measured.work
    reasons = np.full(len(measured), "", object)
    uneven = (work["expert_parallel"] > 1) & (work["skew"] > 0)
    pairs = zip(labels["library"], labels["version"], strict=True)
    unrouted = np.fromiter((pair in _UNROUTED_VERSIONS for pair in pairs), bool, len(measured))
    reasons[uneven & unrouted & (work["tokens"] <= _FEW)] = UNROUTED

    def rows(**words: str) -> np.ndarray:
        return np.all([labels[name] == word for name, word in words.items()], 0)

    hopper = np.isin(labels["chip"], ("h100-sxm", "h200-sxm"))
    reasons[uneven & hopper & rows(model="Llama-4-Scout", library="trtllm", precision="bfloat16")] = SLOW
    blocks = rows(model="DeepSeek-V3/R1", precision="fp8_block")
    reasons[blocks & (labels["library"] != "trtllm")] = GROUPED
    flashinfer = np.char.find(labels["kernel"], "flashinfer_cutlass") >= 0
    reasons[flashinfer & rows(library="vllm", precision="fp8")] = UNTUNED
    reasons[rows(library="sglang", precision="w4a16_mxfp4")] = WIDENED
    reasons[rows(library="vllm", version="0.19.0", precision="int4_wo")] = OLD
    reasons[rows(precision="w4afp8")] = FEW
    return reasons
