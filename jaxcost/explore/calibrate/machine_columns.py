"""The datasheet numbers of the chips of measured rows, as the columns that every form of kernels reads."""

from collections.abc import Mapping

import numpy as np

from jaxcost.explore.calibrate.fit import Columns
from jaxcost.physics.compute.roofline import math_rate
from jaxcost.physics.kernels.matmul import Machine
from jaxcost.spec.chip import Chip
from jaxcost.spec.measurement import Measurements

__all__ = ["machine_columns", "machine_of"]


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


def machine_of(columns: Columns) -> Machine:
    """Build a `Machine` from the columns of `machine_columns`."""
    names = ("rate", "bandwidth", "cores", "cache", "exponentials")
    return Machine(**{name: columns[name] for name in names})
