"""The fitted forms of dense matmul kernels: free parameters with bounds, and the columns of a row.

Benchmarks alternate a few copies of the weights, of which small ones stay in the last-level cache, and convert the
inputs of 8-bit matmuls by kernels of their own. What 8-bit matmuls take beyond the launch of 16-bit ones is taken for
that of the conversion: rows cannot tell the two apart, and held-out errors do not change.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxcost.explore.calibrate.cross_validation import Form
from jaxcost.explore.calibrate.fit import Bounds, Columns
from jaxcost.explore.calibrate.machine_columns import machine_columns, machine_of
from jaxcost.physics.kernels.matmul import MatmulWork, matmul_bytes, matmul_timing, timing_seconds
from jaxcost.spec.chip import Chip
from jaxcost.spec.kernels import MatmulKernel
from jaxcost.spec.measurement import Measurements

__all__ = ["MATMUL", "PLACES", "matmul_columns", "matmul_form"]

# Field of `MatmulKernels` by the precision of measured rows. SmoothQuant's 8-bit integers ("sq") are not placed: only
# an A100 has them, by an older kernel of TensorRT engines, and with them FP8 on other generations is predicted worse.
PLACES = {
    "bfloat16": "bits_16",
    "float16": "bits_16",
    "fp8": "bits_8",
    "fp8_block": "bits_8_block",
    "int8_wo": "weights_8",
    "int4_wo": "weights_4",
}
# Copies of the weights that the collectors of aiconfigurator alternate (collector/*/collect_gemm.py).
_COPIES = {"trtllm": 5.0}
_MOST_COPIES = 6.0
# Share of the benchmark's conversion of inputs that serving pays. vLLM fuses it into norms and activations
# (docs/design/fusions.md), and TensorRT-LLM into activations (GatedMLP), so that a quarter or less is a kernel of its
# own; SGLang fuses none (https://github.com/sgl-project/sglang/issues/31504). Served times do not show the saving: with
# the constants of engines fitted to other models, TPOT on H100 is off by 5.8% at the median for a share of 1, by 6.4%
# for 0.5, and by 8.1% for these shares.
_SHARE = {"vllm": Bounds(0.25, 1.0, 1.0), "trtllm": Bounds(0.17, 1.0, 1.0)}
_ALONE = Bounds(0.5, 1.0, 1.0)


def matmul_columns(measurements: Measurements, chips: Mapping[str, Chip]) -> Columns:
    """Return the columns of matmuls, [R] each."""
    work = measurements.work
    bits = np.maximum(work["weight_bits"], work["activation_bits"])
    libraries = measurements.labels.get("library", np.full(len(bits), ""))
    copies = np.asarray([_COPIES.get(name, _MOST_COPIES) for name in libraries.astype(str).tolist()])
    return {**work, "replayed": copies, **machine_columns(measurements, chips, bits)}


def _matmul_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    names = ("rows", "columns", "inner", "weight_bits", "activation_bits", "replayed")
    work, machine = MatmulWork(**{name: columns[name] for name in names}), machine_of(columns)
    timing = matmul_timing(machine, MatmulKernel(**parameters), work)
    return timing_seconds(timing, matmul_bytes(work) / machine.bandwidth)


_CACHE = {"cache": Bounds(20.0, 80.0, 40.0), "resident": Bounds(0.4, 1.2, 0.8)}
MATMUL = Form(
    "matmul",
    _matmul_seconds,
    {
        "launch": Bounds(1e-6, 1.2e-5, 3e-6),
        "steps": Bounds(0.0, 20.0, 0.5),
        "memory": Bounds(0.2, 1.0, 0.8),
        "matmul": Bounds(0.1, 1.0, 0.75),
        "serial": Bounds(0.0, 1.0, 0.2),
        "rows": Bounds(1.0, 64.0, 16.0),
        "ends": Bounds(0.0, 2000.0, 100.0),
        "waves": Bounds(0.0, 1.0, 0.3),
    },
    _CACHE,
)
_CONVERSION = {"quantise": Bounds(0.0, 10.0, 1.0), "quantise_launch": Bounds(1e-8, 2e-5, 2e-6)}
# Of 16-bit matmuls: 1.2 us on L40S, 3.2 on H100 and H200, 5.7 on A100.
_LAUNCH = {"launch": Bounds(1.2e-6, 5.7e-6, 3e-6)}


def matmul_form(form: Form, labels: Mapping[str, str]) -> Form:
    """Return the form of the matmuls of one library and precision: 8-bit inputs are converted first."""
    place = PLACES.get(labels["precision"], "bits_8")
    return form if place in ("bits_16", "weights_8", "weights_4") else _converting(labels["library"])


@functools.cache
def _converting(library: str) -> Form:
    bounds = {**MATMUL.bounds, **_CONVERSION}
    constants = {**_CACHE, **_LAUNCH, "quantise_share": _SHARE.get(library, _ALONE)}
    fitted = {name: bound for name, bound in bounds.items() if name not in constants}
    return dataclasses.replace(MATMUL, bounds=fitted, constants=constants)
