"""Compilation of each program over many designs: number of designs evaluated together, and options of XLA.

The measurement behind every number is in its comment. No other module sets compiler options.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

__all__ = ["Compilation", "chunk_of", "compilation", "map_chunks"]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Compilation:
    """Number of designs in one evaluation, and options of XLA."""

    chunk: int
    options: dict[str, str] | None = None


# LLVM at full optimisation takes three times as long to compile, which exceeds the time that the runs save. Fusion
# recomputes shared parts of a backward pass many times: with it, the gradient in every leaf did not compile in 400 s,
# without it in 46 s. Level 0 is correct only without fusion: with it, one f32 result was 2.19 ms instead of 3.49 ms.
_QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "True",
    "xla_disable_hlo_passes": "fusion",
}
# XLA passes sums over a short axis to a library whose calls take longer than the sums. With everything traced and
# chunks of 64, a design takes 3.4 us without that library and 16-19 us with it.
_OWN_SUMS = {"xla_cpu_experimental_ynn_fusion_type": ""}
# XLA simplifies quotients of scalars in an order that differs between programs for one device and for several, so that
# the cost of a design differed by one unit in the last place. Without this pass, space `million` runs as fast, and
# compiles in 12.5 s instead of 14.3 s.
_SAME_BITS = {"xla_disable_hlo_passes": "algsimp"}
_CPU = {
    # Tables of 64 designs fit into the caches of a core. Spaces `million`, `billion` and `sobol`, million designs/s on
    # two cores: 7.0, 2.5, 1.8 at 64; 6.6, 1.8, 1.8 at 128; 7.8, 1.6, 1.4 at 256.
    "sweep": Compilation(64, {"xla_cpu_prefer_vector_width": "512", **_OWN_SUMS, **_SAME_BITS}),
    "draws": Compilation(64, _OWN_SUMS),
    # Gradients of designs in every leaf: 52 s to compile and 78 us per design. With fusion it does not compile in
    # 400 s, and with `_QUICK` it takes 27 s and 290 us.
    "gradient": Compilation(256, {"xla_disable_hlo_passes": "fusion"}),
    # Problem instances of a co-design, times scenarios where there are several.
    "codesign": Compilation(32, _QUICK),
    # Candidate plans of a design; more of them are evaluated in chunks of this size, which are compiled once.
    "plans": Compilation(64),
    "points": Compilation(64),
}
_ACCELERATOR = {
    "sweep": Compilation(65536),
    "draws": Compilation(8192),
    "gradient": Compilation(8192),
    "codesign": Compilation(1024),
    "plans": Compilation(8192),
    "points": Compilation(8192),
}


def compilation(program: str, platform: str) -> Compilation:
    """Return the settings of a program of the tables above on a platform."""
    settings = (_CPU if platform == "cpu" else _ACCELERATOR)[program]
    options = {name: value for name, value in (settings.options or {}).items() if _is_known(name, value)}
    return dataclasses.replace(settings, options=options or None)


@functools.cache
def _is_known(name: str, value: str) -> bool:
    """Return whether the installed version of XLA has an option."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def chunk_of(program: str, batch: tuple[int, ...] = ()) -> int:
    """Return the number of rows to evaluate together, where each row is a batch of designs."""
    return max(compilation(program, jax.default_backend()).chunk // math.prod(batch), 1)


def map_chunks(function: Callable[[jax.Array], T], rows: jax.Array, chunk: int) -> T:
    """Apply a vectorized function, [n, ...] to leaves [n, ...], to at most `chunk` rows at a time."""
    count = rows.shape[0]
    if count <= chunk:
        return function(rows)
    # The last chunk is padded with its last row, and the padding is removed from the result.
    index = np.minimum(np.arange(-(-count // chunk) * chunk), count - 1).reshape(-1, chunk)
    flat: Any = lambda x: x.reshape(-1, *x.shape[2:])[:count]  # noqa: E731
    return jax.tree.map(flat, jax.lax.map(function, rows[index]))
