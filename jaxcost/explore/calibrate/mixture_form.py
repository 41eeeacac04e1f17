"""The fitted form of the kernels of routed experts, and the columns of measured rows.

A row is all routed experts of one layer on one rank. Benchmarks replay it, so small weights stay in the last-level
cache. Three parameters of the kernel are constants: fitting them does not lower the errors of held-out models.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcost.explore.calibrate.cross_validation import Form, labelled
from jaxcost.explore.calibrate.fit import Bounds, Columns
from jaxcost.explore.calibrate.kernel_forms import machine_columns, machine_of
from jaxcost.explore.calibrate.routing import routing
from jaxcost.physics.kernels.matmul import timing_seconds
from jaxcost.physics.kernels.mixture import MixtureWork, mixture_bytes, mixture_timing
from jaxcost.spec.chip import Chip
from jaxcost.spec.kernels import MixtureKernel
from jaxcost.spec.measurement import Measurements

__all__ = ["MIXTURE", "axis", "columns", "groups", "left_out"]

_FIXED = {
    "cache": Bounds(1.0, 30.0, 4.0),
    "resident": Bounds(0.2, 1.2, 0.8),
    "padding": Bounds(0.0, 1.0, 0.5),
}
_WORK = ("rows", "experts", "held", "slots", "hidden", "inner", "weight_bytes", "activation_bytes")
_UNROUTED_VERSIONS = {("trtllm", "1.0.0"), ("trtllm", "1.3.0rc10"), ("vllm", "0.14.0")}
_FEW = 32  # tokens

GROUPED = "routing differs from its label: faster than reading the experts that balanced routing reaches"
UNROUTED = "unknown routing: a rank with few tokens takes as long as one with several experts per token"
SLOW = "five times as slow as the nearest models and plans at every size"


def columns(measured: Measurements, chips: Mapping[str, Chip]) -> dict[str, np.ndarray]:
    """Return the columns of measurements of the family "mixture", [R] each.

    Args:
        measured: the rows.
        chips: the chips of all rows, by name.
    """
    work = measured.work
    bits = np.maximum(work["weight_bits"], work["activation_bits"])
    return routing(measured) | {
        "hidden": work["hidden"],
        "inner": work["width"] / work["tensor_parallel"],
        "weight_bytes": work["weight_bits"] / 8,
        "activation_bytes": work["activation_bits"] / 8,
        **machine_columns(measured, chips, bits),
    }


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
        "memory": Bounds(0.1, 1, 0.85),
        "matmul": Bounds(0.03, 1, 0.6),
        "rows": Bounds(1, 256, 32),
        "depth": Bounds(0, 2000, 100),
        "serial": Bounds(0, 1, 0.3),
        "passes": Bounds(0, 10, 1),
        "remote_fraction": Bounds(0, 1, 0.3),
    },
    _FIXED,
)


def groups(measured: Measurements) -> np.ndarray:
    """Return the key of the rows that share parameters, [R]: chip, library, precision, and which kernel vLLM used."""
    other = ["cutlass" if "flashinfer_cutlass" in str(word) else "" for word in measured.labels["kernel"]]
    names = ("chip", "library", "precision")
    keys = labelled([*(measured.labels[name] for name in names), np.asarray(other, object)])
    return np.char.rstrip(keys)


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
    series = {"model": "Llama-4-Scout", "library": "trtllm", "precision": "bfloat16", "chip": "h100-sxm"}
    for name, word in series.items():
        uneven = uneven & (labels[name] == word)
    reasons[uneven] = SLOW
    blocks = (labels["model"] == "DeepSeek-V3/R1") & (labels["precision"] == "fp8_block")
    reasons[blocks & (labels["library"] != "trtllm")] = GROUPED
    return reasons
