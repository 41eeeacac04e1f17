"""The clock at which a step stays within a power cap.

Symbols: f clock over the nominal clock, V supply voltage over nominal, s its slope; E_e joules of the engines at
nominal voltage, E_r of everything else, P_0 idle power, P_c the cap; t_r seconds of operator r, c_r the compute time of
its engines at nominal clock.

    V(f) = 1 - s (1 - f)        E(f) = E_r + E_e V(f)^2        T(f) = sum_r max(t_r, t_r - busy_r + c_r / f)

The clock is the highest f <= 1 with  E(f) + P_0 T(f) <= P_c T(f):  memory and links keep their speed, engines slow down
and take less energy per operation. At the lowest clock the engines pause instead, which lowers power but not energy.
Source of E ~ V^2: Chandrakasan, Sheng and Brodersen 1992 (doi 10.1109/4.126534).
"""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from jaxcost.core import smooth
from jaxcost.core.arrays import clip, materialize_once, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.compute.roofline import OpTime
from jaxcost.spec.chip import Chip

__all__ = ["Clock", "clock_of", "voltage"]

_HALVINGS = 30
# Units in the last place of the cap that are kept free: a clock that meets the cap never exceeds it.
_ROUNDING = 6


@pytree
class Clock:
    """The clock of a step under a power cap, and the time lost to it."""

    share: Scalar = field("1", "clock of the engines over the nominal clock", default=1.0)
    lost: Scalar = field("s", "time that the step takes longer", default=0.0)
    saved: Scalar = field("1", "share of the engines' energy that the lower voltage saves", default=0.0)


def voltage(chip: Chip, clock: Scalar) -> Scalar:
    """Return the supply voltage over nominal at a clock over nominal: 1 - slope (1 - f)."""
    return 1 - chip.voltage_slope * (1 - clock)


def clock_of(chip: Chip, operators: OpTime, seconds: Scalar, engines: Scalar, others: Scalar) -> Clock:
    """Return the clock of every step under the power cap.

    Args:
        chip: the chip; its idle power includes that of its tiers.
        operators: times at nominal clock, `[operators, *batch]`.
        seconds: time of the step at nominal clock, after overlap, `[*batch]`.
        engines: dynamic joules of the engines at nominal clock.
        others: dynamic joules of all other components.
    """
    computing = jnp.maximum(jnp.maximum(operators.matmul, operators.vector), operators.exponential)
    longest = jnp.maximum(jnp.maximum(computing, operators.memory), operators.near)
    computing, longest, seconds, engines, others = materialize_once(
        (computing, longest, seconds, engines, others)
    )

    def time(f: Scalar) -> Scalar:
        return seconds + jnp.sum(jnp.maximum(computing / f - longest, 0), 0)

    dtype = jnp.result_type(seconds, chip.power_cap)
    cap = jnp.asarray(chip.power_cap, dtype) * (1 - _ROUNDING * float(jnp.finfo(dtype).eps))

    def excess(f: Scalar) -> Scalar:
        return others + engines * voltage(chip, f) ** 2 - (cap - chip.idle_power) * time(f)

    capped = chip.power_cap > 0
    lowest = jnp.asarray(chip.clock_floor, jnp.result_type(seconds))
    floor = jnp.broadcast_to(lowest, jnp.shape(excess(lowest)))  # the cap alone may be batched

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        over = stop_gradient(excess(middle)) > 0
        return where(over, low, middle), where(over, middle, high)

    low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (stop_gradient(floor), jnp.ones_like(floor)))
    root = stop_gradient((low + high) / 2)
    # One Newton step gives the root its gradient: df = -d(excess) / (d excess / d f).
    _, slope = jax.jvp(excess, (root,), (jnp.ones_like(root),))
    refined = root - excess(root) / stop_gradient(where(slope > 0, slope, 1))
    free = excess(jnp.ones_like(floor)) <= 0
    stuck = excess(floor) >= 0
    share = where(free | ~capped, 1, where(stuck, floor, clip(refined, floor, 1)))
    spent = others + engines * voltage(chip, share) ** 2
    running = time(share)
    allowed = where(cap > chip.idle_power, cap - chip.idle_power, 0.01 * cap)
    pausing = jnp.maximum(smooth.safe_div(spent, allowed) - running, 0)
    return Clock(
        share=share,
        lost=where(capped, running - seconds + where(stuck, pausing, 0), 0),
        saved=where(capped, 1 - voltage(chip, share) ** 2, 0),
    )
