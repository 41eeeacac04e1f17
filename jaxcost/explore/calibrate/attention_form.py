"""The fitted forms of attention kernels: free parameters with bounds, and the columns of a row.

The parameters of a form are those of its kernel in `spec/kernels.py`; the ones that are not fitted are constants.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcost.explore.calibrate.cross_validation import Form
from jaxcost.explore.calibrate.fit import Bounds, Columns
from jaxcost.explore.calibrate.machine_columns import machine_columns, machine_of
from jaxcost.physics.kernels.attention import AttentionWork, attention_bytes, attention_timing
from jaxcost.physics.kernels.matmul import timing_seconds
from jaxcost.spec.chip import Chip
from jaxcost.spec.kernels import AttentionKernel
from jaxcost.spec.measurement import Measurements

__all__ = [
    "ATTENTION_DECODE",
    "ATTENTION_PREFILL",
    "LATENT_DECODE",
    "LATENT_PREFILL",
    "attention_columns",
    "latent_columns",
]

_LAUNCH = Bounds(1e-6, 4e-5, 8e-6)
_SHARE = Bounds(0.3, 1.0, 0.85)
_CACHE = {"cache": Bounds(5.0, 80.0, 25.0), "capacity": Bounds(0.2, 1.5, 0.9)}
# DeepSeek-V3, the only latent attention among the measurements: latent rank; rotary, other and value widths of a head.
_RANK, _ROPE, _NOPE, _VALUE = 512, 64, 128, 128


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


def _attention_seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    names = ("sequences", "queries", "keys", "heads", "kv_heads", "window", "key_dim", "value_dim")
    sizes = {name: columns[name] for name in (*names, "row_bytes", "query_bytes")}
    work, machine = AttentionWork(**sizes, replayed=jnp.ones_like(columns["keys"])), machine_of(columns)
    timing = attention_timing(machine, AttentionKernel(**parameters), work)
    return timing_seconds(timing, attention_bytes(work) / machine.bandwidth)


_SPLIT = {
    "launch": _LAUNCH,
    "reduce": Bounds(1e-8, 2e-5, 2e-6),
    "memory": _SHARE,
    **_CACHE,
    "fill": Bounds(0.3, 6.0, 1.2),
    "slots": Bounds(0.7, 8.0, 2.0),
    "splits": Bounds(1.0, 256.0, 32.0),
    "block": Bounds(16.0, 2048.0, 128.0),
    "prologue": Bounds(1e-8, 2e-5, 1e-6),
    "core": Bounds(2.0, 200.0, 10.0),
    "serial": Bounds(0.0, 1.0, 0.3),
}
_WHOLE = {
    "launch": _LAUNCH,
    "memory": _SHARE,
    **_CACHE,
    "prologue": Bounds(1e-8, 2e-5, 1e-6),
    "matmul": Bounds(0.02, 1.0, 0.5),
    "pad": Bounds(1.0, 2048.0, 64.0),
    "traffic": Bounds(1.0, 20.0, 1.3),
    "serial": Bounds(0.0, 1.0, 0.3),
}
_WAVES = {"waves": Bounds(0.0, 1.0, 0.5)}
_ONE = Bounds(1.0, 1.0, 1.0)
_TILED = {**_WAVES, "rows": Bounds(64.0, 128.0, 128.0), "splits": _ONE, "slots": _ONE}
ATTENTION_DECODE = Form(
    "attention_decode",
    _attention_seconds,
    {
        **_SPLIT,
        "aware": Bounds(0.0, 1.0, 0.8),
        "pad": Bounds(1.0, 2048.0, 64.0),
        "packed_window": Bounds(0.0, 1.0, 0.9),
    },
    {"rows": Bounds(16.0, 128.0, 16.0), "matmul": Bounds(0.3, 1.0, 0.7)},
)
ATTENTION_PREFILL = Form(
    "attention_prefill",
    _attention_seconds,
    {**_WHOLE, "unskipped": Bounds(1e-4, 1.0, 0.01)},
    {**_TILED, "exponentials": Bounds(0.1, 50.0, 4.0)},
)
LATENT_DECODE = Form(
    "latent_decode",
    _attention_seconds,
    {
        **_SPLIT,
        "convert": Bounds(0.3, 3000.0, 1000.0),
        "matmul": Bounds(0.3, 1.0, 0.7),
        "rows": Bounds(16.0, 64.0, 32.0),
    },
)
LATENT_PREFILL = Form("latent_prefill", _attention_seconds, _WHOLE, _TILED)
