"""How each program over many designs is compiled: designs evaluated together, and options of the compiler.

Every number stands beside its measurement; nothing else in the package sets either.
"""

import dataclasses

__all__ = ["Compilation", "compilation"]


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
    "plans": Compilation(512),
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
