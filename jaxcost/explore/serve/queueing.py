"""Queues with Poisson arrivals, in closed form, finite at zero load and at overload.

Symbols: lambda requests per second (Poisson), S mean seconds of service, c servers, rho = lambda S / c their
utilisation, v the squared coefficient of variation of S.
"""

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar, derived, field, pytree

__all__ = ["Wait", "busy_share", "number_in_system", "poisson_at_most", "queue"]

_BUSIEST = (
    0.9999  # beyond this utilisation the delay continues along its tangent, so that it is finite at overload
)


@pytree
class Wait:
    """The wait of a request: 0, or with some probability an exponentially distributed time."""

    probability: Scalar = field("1", "probability of waiting")
    delay: Scalar = field("s", "mean wait of the requests that wait")

    @derived("s")
    def mean(self) -> Scalar:
        """Mean wait of all requests."""
        return self.probability * self.delay

    def longer_than(self, seconds: Scalar) -> jax.Array:
        """Return P(W > t) = P(wait) exp(-t / delay), and 1 for t < 0; exact for M/M/c."""
        scaled = jnp.maximum(seconds, 0) / jnp.where(self.delay > 0, self.delay, 1)
        waits = jnp.where(self.delay > 0, self.probability * jnp.exp(-scaled), 0)
        return jnp.where(seconds < 0, 1, waits)


def number_in_system(rate: Scalar, seconds: Scalar) -> Scalar:
    """Return the mean number of requests in a system: L = lambda W (Little 1961), for any distributions."""
    return rate * seconds


def busy_share(rate: Scalar, service: Scalar, servers: Scalar = 1.0) -> Scalar:
    """Return the utilisation of a server: rho = lambda S / c; from 1 on the queue grows without bound."""
    return rate * service / servers


def queue(rate: Scalar, service: Scalar, servers: Scalar = 1.0, variation: Scalar = 1.0) -> Wait:
    """Return the wait for the first free of c servers, in order of arrival (M/G/c, first come first served).

        P(wait) = rho^(sqrt(2 (c + 1)) - 1),   delay = S (1 + v) / 2 / (c (1 - rho)),   W = P(wait) x delay

    With one server W is exact: rho S (1 + v) / 2 / (1 - rho) (Pollaczek-Khinchine). With more servers it is the
    Allen-Cunneen formula (Allen 1990) over M/M/c after Sakasegawa (1977), whose delay is exact and whose P(wait) is
    within 0.052 of Erlang's C. Beyond rho = 0.9999, 1 / (1 - rho) continues along its tangent and P(wait) stays at 1.

    Args:
        rate: requests per second.
        service: mean seconds that a request occupies a server.
        servers: number of servers, at least 1; may be a fraction.
        variation: squared coefficient of variation of the service time: 0 for equal times, 1 for exponential ones.
    """
    rho = busy_share(rate, service, servers)
    below = jnp.clip(rho, 1e-30, 1)
    probability = jnp.where(rho > 0, jnp.exp((jnp.sqrt(2 * (servers + 1)) - 1) * jnp.log(below)), 0)
    room = 1 - _BUSIEST
    slowed = 1 / (1 - jnp.minimum(rho, _BUSIEST)) + jnp.maximum(rho - _BUSIEST, 0) / (room * room)
    return Wait(probability=probability, delay=service * (1 + variation) / (2 * servers) * slowed)


def poisson_at_most(most: Scalar, mean: Scalar) -> jax.Array:
    """Return P(N <= n) of a Poisson number of mean m: Phi((n + 1/2 - m) / sqrt(m)), a normal approximation."""
    spread = jnp.sqrt(jnp.maximum(mean, 1e-6))
    return jax.scipy.stats.norm.cdf((most + 0.5 - mean) / spread)
