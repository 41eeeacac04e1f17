"""Stragglers, chip failures, time-outs and spares.

Symbols: n ranks that wait for each other, each delayed by an exponential time of mean j; T the time-out; v the mean
number of chips under repair.
"""

import jax
import jax.numpy as jnp

from jaxcost.core import arrays
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.spec.system import System

__all__ = ["Reliability", "availability", "exponential_integral", "late_share", "straggler_wait"]

_EULER = 0.5772156649015329
_MOST_SPARES = 8


@pytree
class Reliability:
    """Effects of late ranks and failing chips."""

    stale_tokens: Scalar = field(
        "1", "share of tokens computed with stale data of a late rank after a time-out"
    )
    availability: Scalar = field("1", "share of the time in which enough chips work")
    spares: Scalar = field("1", "spare chips per chip in use")

    @derived("1")
    def chips_per_working_chip(self) -> Scalar:
        """Owned chips per working chip, on average over time."""
        return (1 + self.spares) / self.availability


def exponential_integral(x: Scalar) -> jax.Array:
    """Return E1(x) for x > 0, to 2e-7 (Abramowitz and Stegun 5.1.53 and 5.1.56)."""
    low, high = jnp.minimum(x, 1.0), jnp.maximum(x, 1.0)
    series = -jnp.log(low) - _EULER
    series += low * (
        0.99999193 + low * (-0.24991055 + low * (0.05519968 + low * (-0.00976004 + low * 0.00107857)))
    )
    over = 0.2677737343 + high * (8.6347608925 + high * (18.0590169730 + high * (8.5733287401 + high)))
    under = 3.9584969228 + high * (21.0996530827 + high * (25.6329561486 + high * (9.5733223454 + high)))
    return arrays.where(x < 1, series, jnp.exp(-high) / high * over / under)


def straggler_wait(ranks: Scalar, jitter: Scalar, timeout: Scalar) -> jax.Array:
    """Return the expected time that n ranks wait for the last of them, at most T.

        without time-out   j H_n,   H_n = 1 + 1/2 + ... + 1/n  =  gamma + ln m
        with time-out T    j sum_{k=1}^{n} u^k / k  =  T - j E1(m s),   u = 1 - e^(-T/j),  s = -ln u

    with the sum beyond n approximated by the midpoint rule, m = n + 1/2 + 1 / (24 n + 12): within 0.3% of j.
    """
    m = ranks + 0.5 + 1 / (24 * ranks + 12)
    never = timeout <= 0
    late = jitter > 0
    scaled = arrays.where(never | (jitter <= 0), 1.0, timeout / arrays.where(late, jitter, 1.0))
    waited = scaled - exponential_integral(m * _chance_log(scaled))
    waits = arrays.where(never, _EULER + jnp.log(m), jnp.maximum(waited, 0))
    return arrays.where(ranks > 1, jitter * waits, 0)


def _chance_log(scaled: Scalar) -> jax.Array:
    """Return -ln of the probability that one rank arrives within a time-out, given in mean delays."""
    missed = jnp.exp(-arrays.clip(scaled, 1e-6, 60))
    few = missed < 1e-3
    return arrays.where(few, missed * (1 + missed / 2), -jnp.log(1 - arrays.where(few, 0.5, missed)))


def late_share(collectives: Scalar, jitter: Scalar, timeout: Scalar) -> jax.Array:
    """Return the share of tokens with stale data: 1 - (1 - e^(-T/j))^m, for m ranks that wait for each other."""
    apply = (timeout > 0) & (jitter > 0)
    scaled = arrays.where(apply, timeout / arrays.where(jitter > 0, jitter, 1.0), 1.0)
    return arrays.where(apply, -jnp.expm1(-collectives * _chance_log(scaled)), 0)


def availability(system: System) -> jax.Array:
    """Return the share of the time in which a system with s spare chips serves.

    Chips fail at rate f each and take a time r to repair, so that v = chips f r are under repair on average; their
    number is Poisson distributed for any distribution of repair times (Palm's theorem). The system is down while more
    than s chips are under repair, and during the switch-over after every failure:

        P(at most s) / (1 + chips f switch-over),   P = sum_{k=0}^{s} e^-v v^k / k!,   s up to 8

    A fractional spare counts in proportion.
    """
    rate = system.chips * system.failure_rate
    away = rate * system.repair_time
    term = jnp.exp(-away)
    enough = term
    for k in range(1, _MOST_SPARES + 1):
        term = term * away / k
        enough = enough + term * arrays.clip(system.spares - k + 1, 0, 1)
    return arrays.clip(enough, 1e-6, 1) / (1 + rate * system.switchover_time)
