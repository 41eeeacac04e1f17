"""The clock that keeps a step within a power cap.

Symbols: f clock against the nominal one, V supply voltage against nominal, s its slope; E_e joules of the engines at
nominal voltage, E_r of all else, P_0 idle power, P_c the cap; t_r seconds of row r, c_r those its engines compute at
nominal clock.

    V(f) = 1 - s (1 - f)        E(f) = E_r + E_e V(f)^2        T(f) = sum_r max(t_r, t_r - busy_r + c_r / f)

The clock is the highest f <= 1 with  E(f) + P_0 T(f) <= P_c T(f):  memory and links keep their pace, engines slow down
and take less energy an operation. Below the lowest clock the engines pause, which saves time alone.
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


@pytree
class Clock:
    """The clock of a step under its power cap, and the time that is lost by it."""

    share: Scalar = field("1", "clock of the engines against the nominal one", default=1.0)
    lost: Scalar = field("s", "time the step takes longer", default=0.0)
    saved: Scalar = field("1", "share of the engines' energy that the lower voltage saves", default=0.0)


def voltage(chip: Chip, clock: Scalar) -> Scalar:
    """Supply voltage against the nominal one, at a clock against the nominal one."""
    return 1 - chip.voltage_slope * (1 - clock)


def clock_of(chip: Chip, operators: OpTime, seconds: Scalar, engines: Scalar, others: Scalar) -> Clock:
    """Find the clock of every step.

    Args:
        chip: the chip; its idle power is that of its tiers too.
        operators: times at nominal clock, `[operators, *batch]`.
        seconds: time of the step then, what messages hide taken off, `[*batch]`.
        engines: dynamic joules of the engines then.
        others: dynamic joules of all else.
    """
    computing = jnp.maximum(jnp.maximum(operators.matmul, operators.vector), operators.exponential)
    longest = jnp.maximum(jnp.maximum(computing, operators.memory), operators.near)
    computing, longest, seconds, engines, others = materialize_once(
        (computing, longest, seconds, engines, others)
    )

    def time(f: Scalar) -> Scalar:
        return seconds + jnp.sum(jnp.maximum(computing / f - longest, 0), 0)

    def excess(f: Scalar) -> Scalar:
        return others + engines * voltage(chip, f) ** 2 - (chip.power_cap - chip.idle_power) * time(f)

    capped = chip.power_cap > 0
    floor = jnp.broadcast_to(jnp.asarray(chip.clock_floor, jnp.result_type(seconds)), jnp.shape(seconds))

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        over = stop_gradient(excess(middle)) > 0
        return where(over, low, middle), where(over, middle, high)

    low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (stop_gradient(floor), jnp.ones_like(floor)))
    root = stop_gradient((low + high) / 2)
    # A step of Newton's gives the root its gradient: df = -d(excess) / (d excess / d f).
    _, slope = jax.jvp(excess, (root,), (jnp.ones_like(root),))
    refined = root - excess(root) / stop_gradient(where(slope > 0, slope, 1))
    free = excess(jnp.ones_like(floor)) <= 0
    stuck = excess(floor) >= 0
    share = where(free | ~capped, 1, where(stuck, floor, clip(refined, floor, 1)))
    spent = others + engines * voltage(chip, share) ** 2
    running = time(share)
    allowed = where(chip.power_cap > chip.idle_power, chip.power_cap - chip.idle_power, 0.01 * chip.power_cap)
    pausing = jnp.maximum(smooth.safe_div(spent, allowed) - running, 0)
    return Clock(
        share=share,
        lost=where(capped, running - seconds + where(stuck, pausing, 0), 0),
        saved=where(capped, 1 - voltage(chip, share) ** 2, 0),
    )
