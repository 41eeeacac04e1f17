"""Junction temperature, and what heat takes away: refresh above 85 C, and the clock above the limit.

Symbols: T temperature, P power of the chip, R = (sink + layers x layer) / area the resistance of its way out,
T = coolant + P R. All of the power passes all layers: memory above logic is as hot as the logic under it.

Source: conduction in one dimension; refresh twice as often above 85 C, JEDEC JESD79-4.
"""

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import clip, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.chip import Chip

__all__ = ["Heat", "heat_of", "limit", "refresh_share", "resistance", "temperature", "throttle"]

_REFRESH = 358.15  # K: above 85 C DRAM refreshes twice as often (JEDEC JESD79-4, JESD235)
_RAMP = 5.0  # K over which that sets in, so that a gradient sees it coming
_LEAST = 0.01  # share of the allowed rise that is left to work where idling alone is too hot


@pytree
class Heat:
    """How hot a step runs, and the time it loses by that."""

    temperature: Scalar = field("K", "of the junction; 0 where heat is left out", default=0.0)
    refresh: Scalar = field("s", "lost to the second refresh of hot memory", default=0.0)
    throttling: Scalar = field("s", "lost to a clock low enough for the temperature limit", default=0.0)

    @property
    def lost(self) -> Scalar:
        """Both."""
        return self.refresh + self.throttling


def resistance(chip: Chip) -> Scalar:
    """Return R, K/W; 0 where no area is given."""
    c = chip.cooling
    return smooth.safe_div(c.sink + c.layers * c.layer, c.area)


def temperature(chip: Chip, power: Scalar) -> Scalar:
    """Return T at a power."""
    return chip.cooling.coolant + power * resistance(chip)


def limit(chip: Chip) -> Scalar:
    """Return the highest temperature: of the junction, or of main memory where it is stacked; 0 for none."""
    c = chip.cooling
    stacked = (c.layers > 0) & (chip.memory.temperature_limit > 0)
    cells = where(stacked, chip.memory.temperature_limit, c.limit)
    return where(c.limit > 0, jnp.minimum(c.limit, cells), cells)


def refresh_share(at: Scalar) -> Scalar:
    """How far refresh has doubled at a temperature: 0 up to 85 C, 1 from 90 C on."""
    return clip((at - _REFRESH) / _RAMP, 0, 1)


def throttle(chip: Chip, idle: Scalar, joules: Scalar, seconds: Scalar) -> Scalar:
    """Factor by which a step of `joules` takes longer, so that T keeps within the limit.

        k = max(1, R P_dynamic / (T_limit - coolant - R P_idle))

    Work takes the same energy at a lower clock, so that power falls as time grows: no gain by a lower voltage.
    """
    r, top = resistance(chip), limit(chip)
    rise = top - chip.cooling.coolant
    allowed = jnp.maximum(rise - r * idle, _LEAST * rise)
    limited = (top > 0) & (allowed > 0)
    return where(
        limited, jnp.maximum(1, r * smooth.safe_div(joules, seconds) / where(limited, allowed, 1)), 1
    )


def heat_of(chip: Chip, joules: Scalar, seconds: Scalar, hot_seconds: Scalar) -> Heat:
    """How hot a step runs, and what it loses by that.

    Args:
        chip: the chip; its idle power is that of its tiers too.
        joules: dynamic energy of the step.
        seconds: its time while cool.
        hot_seconds: what it takes longer where refresh has doubled.
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
