"""Logic processes and packages: from files to trees."""

import math
from pathlib import Path
from typing import Any

from jaxcost.edge.errors import within
from jaxcost.edge.parts import in_shares, load_part, positive, quantities, shown
from jaxcost.spec.chip import Chip
from jaxcost.spec.silicon import YIELD_MODELS, Package, Process

__all__ = ["DAY", "YEAR", "trend", "with_silicon"]

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
    silicon, silicon_path = within(shown(path), "silicon", load_part, "silicon", part.silicon)
    q = positive(
        quantities(silicon, silicon_path),
        ("wafer_price", "clustering", "area_per_byte", "fab_energy"),
        silicon_path,
        "",
    )
    area_per_byte = q.pop("area_per_byte")
    packaging, packaging_path = within(shown(path), "packaging", load_part, "packages", part.packaging)
    package = positive(quantities(packaging, packaging_path), ("assembly_yield",), packaging_path, "")
    in_shares(package, ("assembly_yield",), packaging_path, "")
    own = positive(quantities(part, path), ("dies", "engine_share"), path, "")
    in_shares(own, ("critical", "engine_share"), path, "")
    held = chip.memory.capacity if on_die else 0.0
    engines = own.get("engine_share", 0.0) * chip.die_area
    return {
        "process": Process(**q, yield_model=float(YIELD_MODELS.index(silicon.yield_model))),
        "package": Package(
            **package,
            dies=own.get("dies", 1.0),
            critical=own.get("critical", 1.0),
            area_per_flop=engines / chip.compute.flops_16,
            cache=own.get("cache", 0.0) + held,
            area_per_byte=area_per_byte,
        ),
        "rental": own.get("rental", 0.0),
    }


def trend(values: dict[str, float]) -> dict[str, float]:
    """Turn a yearly price factor into a continuous rate: ln(factor) / year."""
    factor = values.pop("price_factor", 1.0)
    return values | {"price_trend": math.log(factor) / YEAR}
