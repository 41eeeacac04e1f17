"""What a number may be, declared beside its unit."""

import math
from typing import NamedTuple

__all__ = ["NON_NEGATIVE", "POSITIVE", "SHARE", "Bounds"]


class Bounds(NamedTuple):
    """The least and the largest value of a number, and whether the least itself is excluded."""

    low: float = 0.0
    high: float = math.inf
    above: bool = False

    def admit(self, value: float) -> bool:
        """Tell whether a value is within the bounds; NaN is not."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        """Say the bounds as an error message expects them."""
        if self == POSITIVE:
            return "more than zero"
        if self == SHARE:
            return "a share from 0 to 1"
        least = f"{'more than' if self.above else 'at least'} {self.low:g}"
        return least if self.high == math.inf else f"{least} and at most {self.high:g}"


NON_NEGATIVE = Bounds()
POSITIVE = Bounds(above=True)
SHARE = Bounds(high=1.0)
