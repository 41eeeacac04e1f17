"""How each program over many designs is compiled: designs evaluated together, and options of the compiler.

Every number stands beside its measurement; nothing else in the package sets either.
"""

import dataclasses
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


# LLVM at full effort takes three times as long, and more than the runs that it would hurry along.
_QUICK = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": "True"}
_CPU = {
    # 256 designs keep all intermediates in a core's caches; 512-bit vectors give 1.6 times the rate of 256.
    "sweep": Compilation(256, {"xla_cpu_prefer_vector_width": "512"}),
    "draws": Compilation(256),
    # Attempts of a co-design, or scenarios times attempts where there are several.
    "codesign": Compilation(32, _QUICK),
    # Candidates of a design, whose evaluation is compiled once for all chips' counts of plans beyond.
    "plans": Compilation(64),
    "points": Compilation(64),
}
_ACCELERATOR = {
    "sweep": Compilation(65536),
    "draws": Compilation(8192),
    "codesign": Compilation(1024),
    "plans": Compilation(8192),
    "points": Compilation(8192),
}


def compilation(program: str, platform: str) -> Compilation:
    """Return how a program is compiled on a platform: "sweep", "draws", "codesign", "plans" or "points"."""
    return (_CPU if platform == "cpu" else _ACCELERATOR)[program]


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
