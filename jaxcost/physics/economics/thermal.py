"""Junction temperature, and time lost to heat: doubled refresh above 85 C, and throttling at the temperature limit.

Symbols: T temperature, P power of the chip, R = (sink + layers x layer) / area its thermal resistance,
T = coolant + P R. All power passes all layers, so memory above logic is as hot as the logic.

Source: conduction in one dimension; refresh twice as often above 85 C, JEDEC JESD79-4.
"""

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import clip, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.chip import Chip

__all__ = ["Heat", "heat_of", "limit", "refresh_share", "resistance", "temperature", "throttle"]

_REFRESH = 358.15  # K: above 85 C DRAM refreshes twice as often (JEDEC JESD79-4, JESD235)
_RAMP = 5.0  # K over which refresh doubles, for a finite gradient
_LEAST = (
    0.01  # least share of the allowed rise that is left for dynamic power where idle power alone is too hot
)


@pytree
class Heat:
    """The temperature in a step, and the time lost to heat."""

    temperature: Scalar = field("K", "temperature of the junction; 0 where heat is not modelled", default=0.0)
    refresh: Scalar = field("s", "time lost to the doubled refresh of hot memory", default=0.0)
    throttling: Scalar = field("s", "time lost to throttling at the temperature limit", default=0.0)

    @property
    def lost(self) -> Scalar:
        """All time lost to heat."""
        return self.refresh + self.throttling


def resistance(chip: Chip) -> Scalar:
    """Return the thermal resistance R, K/W: (sink + layers x layer) / area; 0 where the area is 0."""
    c = chip.cooling
    return smooth.safe_div(c.sink + c.layers * c.layer, c.area)


def temperature(chip: Chip, power: Scalar) -> Scalar:
    """Return the temperature T, K, at a power: coolant + P R."""
    return chip.cooling.coolant + power * resistance(chip)


def limit(chip: Chip) -> Scalar:
    """Return the temperature limit, K: of the junction, or of main memory where it is stacked; 0 for none."""
    c = chip.cooling
    stacked = (c.layers > 0) & (chip.memory.temperature_limit > 0)
    cells = where(stacked, chip.memory.temperature_limit, c.limit)
    return where(c.limit > 0, jnp.minimum(c.limit, cells), cells)


def refresh_share(at: Scalar) -> Scalar:
    """Return how far refresh has doubled at a temperature: 0 up to 85 C, rising linearly to 1 at 90 C."""
    return clip((at - _REFRESH) / _RAMP, 0, 1)


def throttle(chip: Chip, idle: Scalar, joules: Scalar, seconds: Scalar) -> Scalar:
    """Return the factor by which a step of `joules` must take longer for T to stay within the limit.

        k = max(1, R P_dynamic / (T_limit - coolant - R P_idle))

    The dynamic energy is taken as independent of the clock: savings by a lower voltage are neglected.
    """
    r, top = resistance(chip), limit(chip)
    rise = top - chip.cooling.coolant
    allowed = jnp.maximum(rise - r * idle, _LEAST * rise)
    limited = (top > 0) & (allowed > 0)
    return where(
        limited, jnp.maximum(1, r * smooth.safe_div(joules, seconds) / where(limited, allowed, 1)), 1
    )


def heat_of(chip: Chip, joules: Scalar, seconds: Scalar, hot_seconds: Scalar) -> Heat:
    """Return the temperature in a step, and the time lost to heat.

    Args:
        chip: the chip; its idle power includes that of its tiers.
        joules: dynamic energy of the step.
        seconds: time of the step without heat.
        hot_seconds: extra time where refresh has doubled.
    """
    at_first = temperature(chip, chip.idle_power + smooth.safe_div(joules, seconds))
    refresh = hot_seconds * refresh_share(at_first)
    slower = throttle(chip, chip.idle_power, joules, seconds + refresh)
    total = (seconds + refresh) * slower
    return Heat(
        temperature=temperature(chip, chip.idle_power + smooth.safe_div(joules, total)),
        refresh=refresh,
        throttling=total - seconds - refresh,
    )
