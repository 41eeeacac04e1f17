"""Requests that come at random times and wait for each other: closed forms, finite at no load and at overload.

Symbols: lambda requests a second (Poisson), S seconds of service, c servers, rho = lambda S / c how busy each is,
v the squared coefficient of variation of S.
"""

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar, derived, field, pytree

__all__ = ["Wait", "busy_share", "number_in_system", "poisson_at_most", "queue"]

_BUSIEST = (
    0.9999  # past this the delay goes on along its tangent, so that overload is a number that still grows
)


@pytree
class Wait:
    """How long a request waits: not at all, or with some probability a time that is exponentially distributed."""

    probability: Scalar = field("1", "that it waits at all")
    delay: Scalar = field("s", "mean wait of those that wait")

    @derived("s")
    def mean(self) -> Scalar:
        """Mean wait of all."""
        return self.probability * self.delay

    def longer_than(self, seconds: Scalar) -> jax.Array:
        """P(W > t) = P(wait) exp(-t / delay), and 1 for t < 0: exact for M/M/c."""
        scaled = jnp.maximum(seconds, 0) / jnp.where(self.delay > 0, self.delay, 1)
        waits = jnp.where(self.delay > 0, self.probability * jnp.exp(-scaled), 0)
        return jnp.where(seconds < 0, 1, waits)


def number_in_system(rate: Scalar, seconds: Scalar) -> Scalar:
    """Mean number of requests there: L = lambda W (Little 1961), whatever the distributions."""
    return rate * seconds


def busy_share(rate: Scalar, service: Scalar, servers: Scalar = 1.0) -> Scalar:
    """Share of the time that a server works: rho = lambda S / c; at 1 and above the queue grows without end."""
    return rate * service / servers


def queue(rate: Scalar, service: Scalar, servers: Scalar = 1.0, variation: Scalar = 1.0) -> Wait:
    """Wait for the first free of c servers, in the order of arrival.

        P(wait) = rho^(sqrt(2 (c + 1)) - 1),   delay = S (1 + v) / 2 / (c (1 - rho)),   W = P(wait) x delay

    With one server W is exact: rho S (1 + v) / 2 / (1 - rho) (Pollaczek-Khinchine); with more it is the formula of
    Allen (1990) and Cunneen with M/M/c after Sakasegawa (1977), where the delay is exact and P(wait) within 0.052 of
    Erlang's C. From rho = 0.9999 on 1 / (1 - rho) goes on along its tangent, and P(wait) stays at 1.

    Args:
        rate: requests a second.
        service: mean seconds that one keeps a server busy.
        servers: how many there are, at least 1, fractions included.
        variation: squared coefficient of variation of the service: 0 for equal ones, 1 for exponential ones.
    """
    rho = busy_share(rate, service, servers)
    below = jnp.clip(rho, 1e-30, 1)
    probability = jnp.where(rho > 0, jnp.exp((jnp.sqrt(2 * (servers + 1)) - 1) * jnp.log(below)), 0)
    room = 1 - _BUSIEST
    slowed = 1 / (1 - jnp.minimum(rho, _BUSIEST)) + jnp.maximum(rho - _BUSIEST, 0) / (room * room)
    return Wait(probability=probability, delay=service * (1 + variation) / (2 * servers) * slowed)


def poisson_at_most(most: Scalar, mean: Scalar) -> jax.Array:
    """P(N <= n) of a Poisson number: Phi((n + 1/2 - m) / sqrt(m)), the normal law with its continuity correction."""
    spread = jnp.sqrt(jnp.maximum(mean, 1e-6))
    return jax.scipy.stats.norm.cdf((most + 0.5 - mean) / spread)
