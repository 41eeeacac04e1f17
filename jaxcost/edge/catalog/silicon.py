"""Logic processes and packages: from files to trees."""

import math
from pathlib import Path
from typing import Any

from jaxcost.edge.catalog.parts import load_part
from jaxcost.edge.catalog.reading import leaves_of, quantities, shown
from jaxcost.edge.io.errors import within
from jaxcost.spec.chip import Chip
from jaxcost.spec.silicon import YIELD_MODELS, Package, Process

__all__ = ["DAY", "YEAR", "load_package", "load_process", "trend", "with_silicon"]

DAY = 86400.0  # s
YEAR = 365.25 * DAY


def with_silicon(chip: Chip, part: Any, path: Path, *, on_die: bool) -> dict[str, Any]:
    """Read the process and the package that a chip's file names.

    Args:
        chip: the chip so far: its area, its 16-bit rate, its main memory.
        part: the checked file.
        path: where it stands.
        on_die: whether main memory is part of the dies.

    Returns:
        The changes of the chip.
    """
    process, area_per_byte = within(shown(path), "silicon", load_process, part.silicon)
    package = within(shown(path), "packaging", load_package, part.packaging)
    own = quantities(part, path)
    held = chip.memory.capacity if on_die else 0.0
    engines = own.get("engine_share", 0.0) * chip.die_area
    return {
        "process": process,
        "package": Package(
            **package | leaves_of(Package, own) | {"cache": own.get("cache", 0.0) + held},
            area_per_flop=engines / chip.compute.flops_16,
            area_per_byte=area_per_byte,
        ),
    }


def load_process(name: str) -> tuple[Process, float]:
    """Load a logic process, and the area that a byte of its on-chip memory takes."""
    part, path = load_part("silicon", name)
    q = quantities(part, path)
    area_per_byte = q.pop("area_per_byte")
    return Process(**q, yield_model=float(YIELD_MODELS.index(part.yield_model))), area_per_byte


def load_package(name: str) -> dict[str, float]:
    """Load how dies and memories are joined: the leaves of `Package` that say so."""
    part, path = load_part("packages", name)
    return quantities(part, path)


def trend(values: dict[str, float]) -> dict[str, float]:
    """Turn a yearly price factor into a continuous rate: ln(factor) / year."""
    factor = values.pop("price_factor", 1.0)
    return values | {"price_trend": math.log(factor) / YEAR}
