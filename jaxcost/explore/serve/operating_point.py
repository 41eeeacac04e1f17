"""Find the number of requests in flight in a replica: the most by memory, the most by targets, and that at a rate.

All evaluations are rounds of one loop, so that the evaluation is compiled once; replicas of many plans, leaves
[*batch], are searched in parallel. Numbers in flight are whole and found by bisection. Gradients pass only through the
six evaluations of the last rounds, on either side of the three numbers found.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import batch_shape, stack
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.explore.serve.steady_state import (
    LoadPoint,
    Replica,
    between,
    crossing,
    rate_at,
    solve_steady_state,
)

__all__ = ["DOUBLINGS", "OperatingPoint", "find_operating_point"]

DOUBLINGS = 20  # the largest number in flight that is tried is 2^20
_START, _MEMORY, _TARGETS, _RATE, _KEEP = range(5)  # purpose of a round of the loop
_LEAST = 1e-6  # least share of the time that a replica serves, where targets leave it almost idle


@pytree
class OperatingPoint:
    """The size of a deployment and the load of each replica."""

    replica: Replica = field(doc="the replica, with the slots that fit in memory")
    rate: Scalar = field("1/s", "offered requests; without a rate, the largest rate of one replica")
    largest_rate: Scalar = field("1/s", "largest rate of one replica")
    replicas: Scalar = field("1", "number of replicas")
    replica_rate: Scalar = field("1/s", "requests per second of each replica")
    point: LoadPoint = field(doc="a request at that load")
    slope: Scalar = field("s", "seconds per token that one more request in a group adds")


def find_operating_point(
    at: Callable[[Scalar, Scalar], LoadPoint],
    replica: Replica,
    *,
    rate: Scalar,
    chunked: Scalar,
    separate: bool,
    tau: Scalar,
) -> OperatingPoint:
    """Size a deployment and find the load of each replica.

    Args:
        at: function (requests in flight in each group, whether to use the plan's own chunk) that evaluates one request.
            The flag is true in the first round only.
        replica: the properties that do not depend on the load; its slots are found here.
        rate: requests per second, 0 for the largest rate of one replica.
        chunked: 1 where prefill is mixed into decode steps.
        separate: whether prefill is disaggregated into its own pool.
        tau: softness of the number of replicas.
    """

    def joined(point: LoadPoint, first: LoadPoint) -> LoadPoint:
        """Take prefill from the first round where it is not mixed into decode steps."""
        names = ("prefill", "service", "work", "prefill_joules")
        keep = 0.0 if separate else 1.0
        return replace(
            point,
            **{n: keep * jnp.where(chunked > 0, getattr(point, n), getattr(first, n)) for n in names},
        )

    fixed = jax.lax.stop_gradient((replica, rate))

    def round_(state: tuple, item: tuple) -> tuple[tuple, LoadPoint]:
        purpose, step = item
        first, low, below, above, numbers, sized, full = state
        asking = (purpose != _START) & (purpose != _KEEP)
        opens = asking & (step == 0)
        low = jnp.where(opens, 1, low)
        kept = numbers[step.astype(int) // 2] + step % 2
        requests = jnp.where(purpose == _KEEP, kept, jnp.where(asking, low + step, 1))
        evaluated = at(requests, purpose == _START)
        seen = jax.lax.stop_gradient(evaluated)
        first = _choose(purpose == _START, seen, first)
        seen = joined(seen, first)
        trial, offered = fixed
        trial = replace(trial, slots=trial.groups * numbers[0], full=full)
        replica_rate = rate_at(requests, seen, trial)
        holds = jnp.where(
            purpose == _MEMORY,
            seen.memory >= 0,
            jnp.where(
                purpose == _TARGETS,
                solve_steady_state(replica_rate, seen, jnp.zeros_like(low), trial).worst >= 0,
                replica_rate <= sized[1],
            ),
        )
        up, down = opens | (asking & holds), opens | (asking & ~holds)
        low = jnp.where(up, requests, low)
        below, above = _choose(up, seen, below), _choose(down, seen, above)
        numbers = jnp.where(asking & (questions == purpose - 1), low, numbers)
        full = jnp.where(purpose == _MEMORY, below.decode + below.block, full)
        most = _largest_rate(low, below, above, trial)
        total = jnp.where(offered > 0, offered, most)
        count = smooth.ceil_div(total, most, 0.0)
        sized = jnp.where(purpose == _TARGETS, stack([count, total / count]), sized)
        return (first, low, below, above, numbers, sized, full), evaluated

    like = jax.eval_shape(at, replica.groups, chunked > 0)
    shape = batch_shape((like, replica, rate, chunked))
    none = jax.tree.map(lambda x: jnp.zeros(shape, x.dtype), like)
    one = jnp.ones(shape, jnp.result_type(replica.groups))
    questions = jnp.arange(3).reshape(-1, *(1 for _ in shape))
    state = (none, one, none, none, stack([one] * 3), stack([one] * 2), one)
    (*_, numbers, sized, _), points = jax.lax.scan(jax.checkpoint(round_), state, _rounds(one.dtype))

    first = jax.tree.map(lambda x: x[0], points)
    pairs = [joined(jax.tree.map(lambda x, i=i: x[i], points), first) for i in range(-6, 0)]
    (fits, full), (below, above), (calm, busy) = pairs[:2], pairs[2:4], pairs[4:]
    slope = jax.lax.stop_gradient(fits.memory - full.memory)
    moved = smooth.safe_div(fits.memory - jax.lax.stop_gradient(fits.memory), slope)
    replica = replace(replica, slots=replica.groups * (numbers[0] + moved), full=fits.decode + fits.block)
    most = _largest_rate(numbers[1], below, above, replica)
    rate = jnp.where(rate > 0, rate, most)
    quotient = rate / most
    # At tau = 0 the count is whole and has the gradient of the quotient. It is that of the search: computed again,
    # rounding might give another.
    whole = sized[0] + (quotient - jax.lax.stop_gradient(quotient))
    replicas = jnp.where(tau > 0, smooth.ceil_div(rate, most, tau), whole)
    replica_rate = rate / replicas
    x = crossing(_too_slow, (replica_rate, numbers[2], calm, busy, replica), numbers[2], numbers[2] + 1)
    return OperatingPoint(
        replica=replica,
        rate=rate,
        largest_rate=most,
        replicas=replicas,
        replica_rate=replica_rate,
        point=between(calm, busy, x - numbers[2]),
        slope=busy.token - calm.token,
    )


def _rounds(dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """List the purpose and the step of each round: 0 starts a bisection at one in flight, then falling powers of 2."""
    halving = [0] + [2**k for k in reversed(range(DOUBLINGS))]
    rounds = [(_START, 0)]
    rounds += [(purpose, step) for purpose in (_MEMORY, _TARGETS, _RATE) for step in halving]
    rounds += [(_KEEP, i) for i in range(6)]
    purposes, steps = np.asarray(rounds).T
    return jnp.asarray(purposes), jnp.asarray(steps, dtype)


def _choose(condition: Scalar, yes: LoadPoint, no: LoadPoint) -> LoadPoint:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _slack(requests: Scalar, parameters: tuple[Scalar, LoadPoint, LoadPoint, Replica]) -> Scalar:
    low, below, above, replica = parameters
    point = between(below, above, requests - low)
    return solve_steady_state(rate_at(requests, point, replica), point, jnp.zeros_like(low), replica).worst


def _too_slow(requests: Scalar, parameters: tuple[Scalar, Scalar, LoadPoint, LoadPoint, Replica]) -> Scalar:
    rate, low, below, above, replica = parameters
    return rate - rate_at(requests, between(below, above, requests - low), replica)


def _largest_rate(low: Scalar, below: LoadPoint, above: LoadPoint, replica: Replica) -> Scalar:
    """Return the largest requests per second within memory and targets, linear between two whole numbers in flight.

    Where even an idle replica violates them, it is the rate of one request at a time.
    """
    parameters = (low, below, above, replica)
    x = crossing(_slack, parameters, low, low + 1)
    alone = 1 / (replica.before + below.prefill + below.decode + below.block)
    most = rate_at(x, between(below, above, x - low), replica)
    never = _slack(low, jax.lax.stop_gradient(parameters)) < 0
    return jnp.where(never, alone, jnp.maximum(most, _LEAST * alone))
