"""How each program over many designs is compiled: designs evaluated together, and options of the compiler.

Every number stands beside its measurement; nothing else in the package sets either.
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
    """Designs in one evaluation, and options of the compiler."""

    chunk: int
    options: dict[str, str] | None = None


# LLVM at full effort takes three times as long, and more than the runs that it would hurry along. A backward pass fans
# out, and fused it is computed over and over: the gradient of everything did not compile in 400 s, unfused in 46 s.
# Level 0 is only right unfused: fused, it was seen to answer 2.19 ms in place of 3.49 ms in f32.
_QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "True",
    "xla_disable_hlo_passes": "fusion",
}
# Sums over a short axis of a table go to a library whose calls take longer than the sums: everything traced, chunk
# of 64, 3.4 us a design without it and 16-19 us with.
_OWN_SUMS = {"xla_cpu_experimental_ynn_fusion_type": ""}
# XLA simplifies quotients of scalars in an order that differs between programs for one device and for several: so a
# design's dollars differed by a unit in the last place. Without, space `million` is as fast, and compiles in 12.5 s in
# place of 14.3 s.
_SAME_BITS = {"xla_disable_hlo_passes": "algsimp"}
_CPU = {
    # Tables of 64 designs stay in a core's caches. Space `million` / `billion` / `sobol`, million designs a second on
    # two cores: 7.0, 2.5, 1.8 at 64; 6.6, 1.8, 1.8 at 128; 7.8, 1.6, 1.4 at 256.
    "sweep": Compilation(64, {"xla_cpu_prefer_vector_width": "512", **_OWN_SUMS, **_SAME_BITS}),
    "draws": Compilation(64, _OWN_SUMS),
    # Slopes of a user's designs in every leaf: 52 s to compile and 78 us a design. Fused it does not compile in 400 s,
    # and with `_QUICK` it takes 27 s and 290 us.
    "gradient": Compilation(256, {"xla_disable_hlo_passes": "fusion"}),
    # Attempts of a co-design, or scenarios times attempts where there are several.
    "codesign": Compilation(32, _QUICK),
    # Candidates of a design, whose evaluation is compiled once for all chips' counts of plans beyond.
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
    """Return how a program is compiled on a platform: a name of the tables above."""
    found = (_CPU if platform == "cpu" else _ACCELERATOR)[program]
    options = {name: value for name, value in (found.options or {}).items() if _is_known(name, value)}
    return dataclasses.replace(found, options=options or None)


@functools.cache
def _is_known(name: str, value: str) -> bool:
    """Tell whether the compiler at hand has an option: they come and go with its versions."""
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def chunk_of(program: str, batch: tuple[int, ...] = ()) -> int:
    """Return how many rows are evaluated together where each is a batch of designs."""
    return max(compilation(program, jax.default_backend()).chunk // math.prod(batch), 1)


def map_chunks(function: Callable[[jax.Array], T], rows: jax.Array, chunk: int) -> T:
    """Apply a function of many rows at once, [n, ...] to leaves [n, ...], to at most `chunk` of them at a time."""
    count = rows.shape[0]
    if count <= chunk:
        return function(rows)
    # The last chunk is as long as the others: its end is repeated, and cut off again.
    index = np.minimum(np.arange(-(-count // chunk) * chunk), count - 1).reshape(-1, chunk)
    flat: Any = lambda x: x.reshape(-1, *x.shape[2:])[:count]  # noqa: E731
    return jax.tree.map(flat, jax.lax.map(function, rows[index]))
