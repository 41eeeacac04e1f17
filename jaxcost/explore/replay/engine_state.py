"""The state of the replicas of a replay, and what they log: arrays with the lanes in the last axis."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar

__all__ = [
    "FREE",
    "RUNNING",
    "WAITING",
    "Lanes",
    "Log",
    "Recording",
    "Requests",
    "Slots",
    "State",
    "count_slots",
    "empty_slot",
    "has_requests",
    "pages_of",
    "start",
    "take",
]

Table = Any  # jax.Array in the program, numpy.ndarray outside of it

FREE, RUNNING, WAITING = 0, 1, 2  # phase of a slot; waiting: preempted


class Requests(NamedTuple):
    """The requests of a trace. Numbers are `[requests, 1]` or, where they differ by lane, `[requests, lanes]`."""

    arrival: Table  # s
    prompt: Table  # tokens
    output: Table  # tokens
    cached: Table  # prompt tokens found in the prefix cache
    slow: Table  # those of them in the slower tier
    order: (
        jax.Array
    )  # requests of every lane in order of arrival, or all where they are routed, [positions, lanes]
    number: Table  # their number, [lanes]; that of all requests where they are routed
    ready: Table  # 1 where the prompt is cached and its first token emitted elsewhere, [1, lanes]


class Lanes(NamedTuple):
    """Limits of the replicas, `[lanes]`."""

    budget: Table  # tokens of a step
    sequences: Table  # running requests
    mixed: Table  # 1 for mixed steps
    block: Table  # tokens of a page
    pages: Table  # pages of the pool
    reserve: Table  # share of the output to come that admission keeps free
    swap: Table  # 1 for preemption by swap
    swap_seconds: Table  # s per token, each way
    load_seconds: Table  # s per token of a cached prefix in the slower tier
    drafts: Table  # drafted tokens
    acceptance: Table  # probability that a drafted token is accepted
    concurrency: Table  # outstanding requests, 0 for no limit
    frontend: Table  # s from the last token to the next request of a closed loop
    seed: Table  # of the acceptance


class Slots(NamedTuple):
    """Requests in slots, `[slots, lanes]`."""

    request: Table  # of the request; in a free slot that of the last one
    position: Table  # in the order of arrival at the lane
    phase: Table
    prompt: Table
    output: Table
    cached: Table
    slow: Table
    length: Table  # tokens in the cache
    emitted: Table  # output tokens
    need: Table  # prompt tokens to compute, 0 while decoding
    chunk: Table  # prompt tokens in the step that is formed
    joined: Table  # 1 where admitted to the step that is formed
    pages: Table
    preempted: Table  # times
    admitted: Table  # s
    first: Table  # s, of the first token
    last: Table  # s, of the last token so far
    gap: Table  # s, longest between two tokens
    first_event: Table  # iteration of the first token
    last_event: Table


class Recording(NamedTuple):
    """The steps of every iteration, `[iterations, lanes]`: what `retime` needs to compute their times again."""

    steps: Table  # k, 0 without a step
    sequences: Table
    context: Table  # mean over the k steps
    tokens: Table
    keys: Table
    swapped: Table  # tokens moved by swaps
    loaded: Table  # tokens read from the slower tier
    waits: Table  # request whose arrival ends an idle time, -1 for none


class Log(NamedTuple):
    """What every iteration leaves behind, `[iterations, lanes]`."""

    request: Table  # request that left its slot, -1 for none
    rejected: Table  # request that was rejected, -1 for none
    admitted: Table
    first: Table
    last: Table
    gap: Table
    preempted: Table
    first_event: Table
    last_event: Table
    start: Table  # s, of the steps that were executed
    seconds: Table  # all of them together, 0 for none
    opened: Table  # s, from the last decode step to the end of the first of them, 0 where nothing decodes
    others: Table  # s, mean of the others
    steps: Table
    sequences: Table  # that decode
    running: Table  # requests
    pages: Table  # in use
    recording: Recording | None


class State(NamedTuple):
    """The replicas between two iterations."""

    slots: Slots
    now: Table
    head: Table  # position in the order of arrival
    tail: Table  # requests routed to the lane
    done: Table  # finished or rejected
    extra_swap: Table  # tokens to swap in the step that is formed
    extra_load: Table
    blocked: Table  # 1 after a preemption, until the step is executed
    joules: Table
    busy: Table  # s
    steps: Table
    last_decode: Table  # s, end of the last step that decoded
    queue: Table  # ring of the requests that were routed to the lane, [places, lanes]
    ends: Table  # ring of the times at which requests were done, in order, [users, lanes]
    route: Table  # next request to route, [designs]
    finished_last: Table  # requests that finished in the last step, which ends at `now`
    full: Table  # 1 where slots or places of the queue, not the engine, were too few
    iteration: Table
    unfinished: Table  # whether a lane has requests to serve


@functools.partial(jax.jit, static_argnames=("slots", "places", "users", "designs", "routed"))
def start(requests: Requests, *, slots: int, places: int, users: int, designs: int, routed: bool) -> State:
    """Return idle replicas.

    Args:
        requests: the trace.
        slots: most running and preempted requests of a replica.
        places: most waiting requests of a replica, where requests are routed.
        users: places for the concurrency of a closed loop, at least 1.
        designs: number of designs.
        routed: as for `advance`.
    """
    lanes, dtype = len(requests.number), requests.arrival.dtype
    integers, times = jnp.zeros((slots, lanes), jnp.int32), jnp.zeros((slots, lanes), dtype)
    fields = {name: integers for name in Slots._fields}
    fields |= {name: times for name in ("admitted", "first", "last", "gap")}
    none, zero = jnp.zeros(lanes, jnp.int32), jnp.zeros(lanes, dtype)
    state = State(
        slots=Slots(**fields)._replace(request=jnp.full((slots, lanes), -1, jnp.int32)),
        now=zero,
        head=none,
        tail=none if routed else requests.number,
        done=none,
        extra_swap=zero,
        extra_load=zero,
        blocked=none,
        joules=zero,
        busy=zero,
        steps=zero,
        last_decode=zero,
        queue=jnp.zeros((places if routed else 1, lanes), jnp.int32),
        ends=jnp.zeros((users, lanes), dtype),
        route=jnp.zeros(designs, jnp.int32),
        finished_last=none,
        full=none,
        iteration=jnp.zeros((), jnp.int32),
        unfinished=none > 0,
    )
    return state._replace(unfinished=has_requests(state, requests, routed, designs))


def has_requests(state: State, requests: Requests, routed: bool, designs: int) -> jax.Array:
    """Return whether a lane has requests to serve, `[lanes]`."""
    if routed:
        more = state.route < requests.number[:designs]
        return (state.done < state.tail) | jnp.tile(more, len(state.tail) // designs)
    return state.done < requests.number


def take(table: jax.Array, index: jax.Array) -> jax.Array:
    """Return the row of each lane, `[lanes]`, of a table `[rows, 1]` or `[rows, lanes]`."""
    column = jnp.zeros_like(index) if table.shape[1] == 1 else jnp.arange(table.shape[1])
    return table[jnp.minimum(index, table.shape[0] - 1), column]


def count_slots(mask: jax.Array, x: Scalar = 1) -> jax.Array:
    """Sum whole numbers over the slots of a mask: `[slots, lanes]` to `[lanes]`."""
    return jnp.sum(jnp.where(mask, x, 0), 0, dtype=jnp.int32)


def pages_of(tokens: jax.Array, block: jax.Array) -> jax.Array:
    """Return the pages that tokens take. Quotients of whole numbers below 2^24 round to whole numbers exactly."""
    return jnp.ceil(tokens.astype(block.dtype) / block).astype(jnp.int32)


def empty_slot(s: Slots) -> jax.Array:
    """Return the first free slot, `[lanes]`."""
    numbers = jnp.arange(s.request.shape[0], dtype=jnp.int32)[:, None]
    return jnp.min(jnp.where(s.phase == FREE, numbers, len(numbers)), 0)
