"""The fitted forms of dense matmul and attention kernels: free parameters with bounds, and the columns of a row.

The parameters of a form are those of its kernel in `spec/kernels.py`; the ones that are not fitted are constants.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcost.explore.calibrate.cross_validation import Form
from jaxcost.explore.calibrate.fit import Bounds, Columns
from jaxcost.physics.compute.roofline import math_rate
from jaxcost.physics.kernels.attention import AttentionWork, attention_bytes, attention_timing
from jaxcost.physics.kernels.matmul import Machine, MatmulWork, matmul_bytes, matmul_timing, timing_seconds
from jaxcost.spec.chip import Chip
from jaxcost.spec.kernels import AttentionKernel, MatmulKernel
from jaxcost.spec.measurement import Measurements

__all__ = [
    "ATTENTION_DECODE",
    "ATTENTION_PREFILL",
    "LATENT_DECODE",
    "LATENT_PREFILL",
    "MATMUL",
    "attention_columns",
    "latent_columns",
    "machine_columns",
    "machine_of",
    "matmul_columns",
]

_LAUNCH = Bounds(1e-6, 4e-5, 8e-6)
_SHARE = Bounds(0.3, 1.0, 0.85)
_CACHE = {"cache": Bounds(5.0, 80.0, 25.0), "capacity": Bounds(0.2, 1.5, 0.9)}
# DeepSeek-V3, the only latent attention among the measurements: latent rank; rotary, other and value widths of a head.
_RANK, _ROPE, _NOPE, _VALUE = 512, 64, 128, 128


def machine_columns(measurements: Measurements, chips: Mapping[str, Chip], bits: np.ndarray) -> Columns:
    """Return the datasheet numbers of every row's chip, [R] each, with the matmul peak at `bits` [R]."""
    names = measurements.labels["chip"]
    out = {
        name: np.empty(len(measurements)) for name in ("rate", "bandwidth", "cores", "cache", "exponentials")
    }
    for name, width in {*zip(names.tolist(), bits.tolist(), strict=True)}:
        at, chip = (names == name) & (bits == width), chips[name]
        values = (
            math_rate(chip, width),
            chip.memory.bandwidth,
            chip.compute.cores,
            chip.package.cache,
            chip.compute.exponentials,
        )
        for column, value in zip(out.values(), values, strict=True):
            column[at] = float(value)
    return out


def matmul_columns(measurements: Measurements, chips: Mapping[str, Chip]) -> Columns:
    """Return the columns of matmuls, [R] each."""
    work = measurements.work
    bits = np.maximum(work["weight_bits"], work["activation_bits"])
    return {**work, **machine_columns(measurements, chips, bits)}


def attention_columns(measurements: Measurements, chips: Mapping[str, Chip]) -> Columns:
    """Return the columns of softmax attention, [R] each."""
    work = measurements.work
    kept = {name: work[name] for name in ("sequences", "queries", "keys", "heads", "kv_heads", "window")}
    return {
        **kept,
        "key_dim": work["head_dim"],
        "value_dim": work["head_dim"],
        "row_bytes": 2 * work["head_dim"] * work["kv_bits"] / 8,
        "query_bytes": work["compute_bits"] / 8,
        **machine_columns(measurements, chips, work["compute_bits"]),
    }


def latent_columns(measurements: Measurements, chips: Mapping[str, Chip]) -> Columns:
    """Return the columns of latent attention, [R] each.

    It is absorbed for one new token per sequence, and expanded to 16-bit keys and values otherwise.
    """
    work = measurements.work
    absorbed = work["queries"] == 1
    key = np.where(absorbed, _RANK + _ROPE, _NOPE + _ROPE)
    value = np.where(absorbed, _RANK, _VALUE)
    return {
        **{name: work[name] for name in ("sequences", "queries", "keys", "heads")},
        "kv_heads": np.where(absorbed, 1.0, work["heads"]),
        "window": np.zeros(len(measurements)),
        "key_dim": key,
        "value_dim": value,
        "row_bytes": np.where(absorbed, (_RANK + _ROPE) * work["kv_bits"] / 8, (key + value) * 2),
        "query_bytes": np.full(len(measurements), 2.0),
        **machine_columns(measurements, chips, np.full(len(measurements), 16.0)),
    }


def machine_of(columns: Columns) -> Machine:
    """Build a `Machine` from the columns of `machine_columns`."""
    names = ("rate", "bandwidth", "cores", "cache", "exponentials")
    return Machine(**{name: columns[name] for name in names})


def _matmul_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    names = ("rows", "columns", "inner", "weight_bits", "activation_bits")
    work, machine = MatmulWork(**{name: columns[name] for name in names}), machine_of(columns)
    timing = matmul_timing(machine, MatmulKernel(**parameters), work)
    return timing_seconds(timing, matmul_bytes(work) / machine.bandwidth)


def _attention_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    names = ("sequences", "queries", "keys", "heads", "kv_heads", "window", "key_dim", "value_dim")
    sizes = {name: columns[name] for name in (*names, "row_bytes", "query_bytes")}
    work, machine = AttentionWork(**sizes, replayed=jnp.ones_like(columns["keys"])), machine_of(columns)
    timing = attention_timing(machine, AttentionKernel(**parameters), work)
    return timing_seconds(timing, attention_bytes(work) / machine.bandwidth)


MATMUL = Form(
    "matmul",
    _matmul_seconds,
    {
        "launch": Bounds(1e-7, 3e-5, 3e-6),
        "depth": Bounds(0.0, 3e-9, 3e-10),
        "memory": Bounds(0.2, 1.0, 0.8),
        "matmul": Bounds(0.1, 1.0, 0.75),
        "serial": Bounds(0.0, 1.0, 0.2),
        "rows": Bounds(1.0, 256.0, 64.0),
        "waves": Bounds(0.0, 1.0, 0.3),
        "quantise": Bounds(0.0, 10.0, 1.0),
    },
)
_SPLIT = {
    "launch": _LAUNCH,
    "reduce": Bounds(1e-8, 2e-5, 2e-6),
    "memory": _SHARE,
    **_CACHE,
    "fill": Bounds(0.3, 6.0, 1.2),
    "splits": Bounds(1.0, 256.0, 32.0),
    "block": Bounds(16.0, 2048.0, 128.0),
    "prologue": Bounds(1e-8, 2e-5, 1e-6),
    "serial": Bounds(0.0, 1.0, 0.3),
    "matmul": Bounds(0.02, 1.0, 0.7),
}
_WHOLE = {
    "launch": _LAUNCH,
    "memory": _SHARE,
    **_CACHE,
    "prologue": Bounds(1e-8, 2e-5, 1e-6),
    "matmul": Bounds(0.02, 1.0, 0.7),
    "pad": Bounds(1.0, 2048.0, 64.0),
    "traffic": Bounds(1.0, 20.0, 1.3),
    "serial": Bounds(0.0, 1.0, 0.3),
}
_WAVES = {"waves": Bounds(0.0, 1.0, 0.5)}
_ONE = Bounds(1.0, 1.0, 1.0)
_TILED = {**_WAVES, "rows": Bounds(64.0, 128.0, 128.0), "splits": _ONE, "slots": _ONE}
_FILLED = {"slots": "fill"}  # a core runs as many tasks concurrently as splitting aims at
ATTENTION_DECODE = Form(
    "attention_decode",
    _attention_seconds,
    {
        **_SPLIT,
        "aware": Bounds(0.0, 1.0, 0.8),
        "pad": Bounds(1.0, 2048.0, 64.0),
        "packed_window": Bounds(0.0, 1.0, 0.9),
    },
    {**_WAVES, "rows": Bounds(16.0, 128.0, 64.0)},
    _FILLED,
)
ATTENTION_PREFILL = Form(
    "attention_prefill",
    _attention_seconds,
    {**_WHOLE, "exponentials": Bounds(0.1, 50.0, 1.2), "unskipped": Bounds(1e-4, 1.0, 0.01)},
    _TILED,
)
LATENT_DECODE = Form(
    "latent_decode",
    _attention_seconds,
    {**_SPLIT, "traffic": Bounds(1.0, 20.0, 1.3), "rows": Bounds(16.0, 64.0, 32.0)},
    _WAVES,
    _FILLED,
)
LATENT_PREFILL = Form("latent_prefill", _attention_seconds, _WHOLE, _TILED)
