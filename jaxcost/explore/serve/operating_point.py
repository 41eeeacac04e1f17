"""Find how many requests a replica may have in flight: by memory, by targets, and at a given rate.

All evaluations, those of the search and those that are kept, are rounds of one loop, so that the evaluation is compiled
once; replicas of many plans, leaves [*batch], search side by side. Numbers in flight are whole, found by halving;
gradients pass through the kept ones alone.
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
_START, _MEMORY, _TARGETS, _RATE, _KEEP = range(5)  # what a round of the loop is for
_LEAST = (
    1e-6  # a replica that must stay all but idle to meet its targets is taken to serve this share of the time
)


@pytree
class OperatingPoint:
    """Where a replica works, and the two whole numbers in flight beside it."""

    replica: Replica = field(doc="with the slots that fit memory")
    rate: Scalar = field("1/s", "requests offered; without a rate, the most that one replica serves")
    largest_rate: Scalar = field("1/s", "requests that one replica can serve")
    replicas: Scalar = field("1", "replicas that it takes")
    own_rate: Scalar = field("1/s", "requests that then come to each")
    point: LoadPoint = field(doc="a request at that load")
    slope: Scalar = field("s", "seconds per token that one more request in a group costs")


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
        at: what an evaluation says of one request with a number in flight in each group; true as second argument
            for the first look, which is at the plan as it is.
        replica: what does not change with the load; its slots are found here.
        rate: requests a second, 0 for the most that one replica serves.
        chunked: 1 where prefill rides in decode steps.
        separate: whether prefill has a pool of its own.
        tau: softness of the number of replicas.
    """

    def joined(point: LoadPoint, first: LoadPoint) -> LoadPoint:
        """Take prefill from the first look where it does not ride in decode steps."""
        own = ("prefill", "service", "work", "prefill_joules")
        keep = 0.0 if separate else 1.0
        return replace(
            point,
            **{n: keep * jnp.where(chunked > 0, getattr(point, n), getattr(first, n)) for n in own},
        )

    fixed = jax.lax.stop_gradient((replica, rate))

    def round_(state: tuple, item: tuple) -> tuple[tuple, LoadPoint]:
        purpose, step = item
        first, low, below, above, found, sized, full = state
        asking = (purpose != _START) & (purpose != _KEEP)
        opens = asking & (step == 0)
        low = jnp.where(opens, 1, low)
        kept = found[step.astype(int) // 2] + step % 2
        requests = jnp.where(purpose == _KEEP, kept, jnp.where(asking, low + step, 1))
        looked = at(requests, purpose == _START)
        seen = jax.lax.stop_gradient(looked)
        first = _choose(purpose == _START, seen, first)
        seen = joined(seen, first)
        mine, asked = fixed
        mine = replace(mine, slots=mine.groups * found[0], full=full)
        own_rate = rate_at(requests, seen, mine)
        holds = jnp.where(
            purpose == _MEMORY,
            seen.memory >= 0,
            jnp.where(
                purpose == _TARGETS,
                solve_steady_state(own_rate, seen, jnp.zeros_like(low), mine).worst >= 0,
                own_rate <= sized[1],
            ),
        )
        up, down = opens | (asking & holds), opens | (asking & ~holds)
        low = jnp.where(up, requests, low)
        below, above = _choose(up, seen, below), _choose(down, seen, above)
        found = jnp.where(asking & (numbers == purpose - 1), low, found)
        full = jnp.where(purpose == _MEMORY, below.decode + below.block, full)
        most = _largest_rate(low, below, above, mine)
        total = jnp.where(asked > 0, asked, most)
        count = smooth.ceil_div(total, most, 0.0)
        sized = jnp.where(purpose == _TARGETS, stack([count, total / count]), sized)
        return (first, low, below, above, found, sized, full), looked

    like = jax.eval_shape(at, replica.groups, chunked > 0)
    shape = batch_shape((like, replica, rate, chunked))
    none = jax.tree.map(lambda x: jnp.zeros(shape, x.dtype), like)
    one = jnp.ones(shape, jnp.result_type(replica.groups))
    numbers = jnp.arange(3).reshape(-1, *(1 for _ in shape))
    state = (none, one, none, none, stack([one] * 3), stack([one] * 2), one)
    (*_, found, sized, _), looks = jax.lax.scan(jax.checkpoint(round_), state, _rounds(one.dtype))

    first = jax.tree.map(lambda x: x[0], looks)
    pairs = [joined(jax.tree.map(lambda x, i=i: x[i], looks), first) for i in range(-6, 0)]
    (fits, full), (below, above), (calm, busy) = pairs[:2], pairs[2:4], pairs[4:]
    slope = jax.lax.stop_gradient(fits.memory - full.memory)
    moved = smooth.safe_div(fits.memory - jax.lax.stop_gradient(fits.memory), slope)
    replica = replace(replica, slots=replica.groups * (found[0] + moved), full=fits.decode + fits.block)
    most = _largest_rate(found[1], below, above, replica)
    rate = jnp.where(rate > 0, rate, most)
    quotient = rate / most
    # At tau = 0 whole, with the gradient of the quotient; the count of the search, lest rounding choose another.
    whole = sized[0] + (quotient - jax.lax.stop_gradient(quotient))
    replicas = jnp.where(tau > 0, smooth.ceil_div(rate, most, tau), whole)
    own_rate = rate / replicas
    x = crossing(_too_slow, (own_rate, found[2], calm, busy, replica), found[2], found[2] + 1)
    return OperatingPoint(
        replica=replica,
        rate=rate,
        largest_rate=most,
        replicas=replicas,
        own_rate=own_rate,
        point=between(calm, busy, x - found[2]),
        slope=busy.token - calm.token,
    )


def _rounds(dtype: jnp.dtype) -> tuple[jax.Array, jax.Array]:
    """List what each round is for and its step: 0 opens a question at one in flight, then powers of two descend."""
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
    """Requests a second within memory and targets, linear between two whole numbers in flight.

    Where not even an idle replica is within them: one request at a time.
    """
    parameters = (low, below, above, replica)
    x = crossing(_slack, parameters, low, low + 1)
    alone = 1 / (replica.before + below.prefill + below.decode + below.block)
    most = rate_at(x, between(below, above, x - low), replica)
    never = _slack(low, jax.lax.stop_gradient(parameters)) < 0
    return jnp.where(never, alone, jnp.maximum(most, _LEAST * alone))
