"""What a replica does next: the sums over its slots, the head of its queue, and the action that follows."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.explore.replay.engine_state import (
    FREE,
    RUNNING,
    WAITING,
    Lanes,
    Requests,
    Slots,
    State,
    count_slots,
    pages_of,
    take,
)

__all__ = ["Action", "Head", "Totals", "decide", "find_head", "route_request", "sum_slots"]


class Head(NamedTuple):
    """The request that is admitted next, `[lanes]`."""

    exists: jax.Array
    again: jax.Array  # whether it was preempted
    slot: jax.Array  # where it was preempted: its slot, as a mask `[slots, lanes]`
    request: jax.Array
    arrival: jax.Array
    released: jax.Array  # whether the concurrency allows it
    need: jax.Array  # prompt tokens to compute after its hit
    length: jax.Array  # tokens in the cache on admission
    pages: jax.Array
    charge: jax.Array
    final: jax.Array  # pages at its end
    swapped: jax.Array  # tokens to swap in
    loaded: jax.Array  # tokens to read from the slower tier


def find_head(state: State, requests: Requests, lanes: Lanes, routed: bool) -> Head:
    """Return the request that is admitted next: the first of the preempted ones, else of the queue."""
    s, block = state.slots, lanes.block
    waiting = s.phase == WAITING
    again = jnp.any(waiting, 0)
    lowest = jnp.min(jnp.where(waiting, s.position, np.iinfo(np.int32).max), 0)
    slot = waiting & (s.position == lowest)
    pick = functools.partial(count_slots, slot)
    queued = take(state.queue, state.head % len(state.queue)) if routed else take(requests.order, state.head)
    index = jnp.where(again, pick(s.request), queued)
    at = functools.partial(take, index=jnp.where(again, 0, queued))
    prompt, output, cached, slow = (
        jnp.where(again, pick(ours), at(theirs))
        for ours, theirs in (
            (s.prompt, requests.prompt),
            (s.output, requests.output),
            (s.cached, requests.cached),
            (s.slow, requests.slow),
        )
    )
    ready = (requests.ready[0] > 0) & ~again
    emitted = jnp.where(again, pick(s.emitted), jnp.where(ready, 1, 0))
    kept = jnp.where(again & (lanes.swap > 0), pick(s.length), 0)
    tokens = jnp.where(kept > 0, kept, jnp.where(ready, prompt, prompt + emitted))
    final = pages_of(jnp.maximum(prompt + output - 1, 1), block)
    expected = pages_of(prompt + emitted + lanes.reserve * (output - emitted), block)
    restored = (kept > 0) | ready
    return Head(
        exists=again | (state.head < state.tail),
        again=again,
        slot=slot,
        request=index,
        arrival=jnp.maximum(at(requests.arrival), _release_time(state, lanes)),
        released=again | (lanes.concurrency <= 0) | (state.head < lanes.concurrency + state.done),
        need=jnp.where(restored, 0, tokens - cached),
        length=jnp.where(restored, tokens, cached),
        pages=pages_of(tokens, block),
        charge=jnp.maximum(pages_of(tokens, block), jnp.minimum(expected, final)),
        final=final,
        swapped=kept,
        loaded=jnp.where(restored, 0, slow),
    )


def _release_time(state: State, lanes: Lanes) -> jax.Array:
    """Return when the user of the head of the queue sends it: after the end of the request that made room for it."""
    before = state.head - lanes.concurrency
    ended = take(state.ends, jnp.maximum(before, 0) % len(state.ends))
    return jnp.where((lanes.concurrency > 0) & (before >= 0), ended + lanes.frontend, 0)


class Totals(NamedTuple):
    """Sums over the slots of a lane, `[lanes]`."""

    running: jax.Array
    decoding: jax.Array  # decoding sequences
    context: jax.Array  # their tokens in the cache
    least: jax.Array  # fewest tokens that one of them has to emit
    used: jax.Array  # pages
    grow: jax.Array  # pages that they need for the next step
    charges: jax.Array  # pages that admission counts: those after growth, or those to be kept free
    tokens: jax.Array  # prompt tokens of the step
    pairs: jax.Array
    joined: jax.Array
    partial: jax.Array  # prompt tokens to compute of a request that has not joined this step


def sum_slots(s: Slots, lanes: Lanes) -> tuple[Totals, jax.Array]:
    """Return the totals, and the slots that decode, `[slots, lanes]`."""
    dtype, running = lanes.block.dtype, s.phase == RUNNING
    decoding = running & (s.need == 0) & (s.joined == 0)
    last = s.prompt + s.output - 1
    after = jnp.minimum(s.length + 1 + lanes.drafts.astype(jnp.int32), last)
    growth = jnp.where(decoding, jnp.maximum(pages_of(after, lanes.block) - s.pages, 0), 0)
    left = s.output - s.emitted
    expected = pages_of(s.length + s.need + lanes.reserve * left, lanes.block)
    expected = jnp.minimum(expected, pages_of(last, lanes.block))
    chunk = s.chunk.astype(dtype)
    return Totals(
        running=count_slots(running),
        decoding=count_slots(decoding),
        context=count_slots(decoding, s.length),
        least=jnp.min(jnp.where(decoding, left, np.iinfo(np.int32).max), 0),
        used=count_slots(running, s.pages),
        grow=jnp.sum(growth, 0, dtype=jnp.int32),
        charges=count_slots(running, jnp.maximum(s.pages + growth, expected)),
        tokens=jnp.sum(s.chunk, 0, dtype=jnp.int32),
        pairs=jnp.sum(chunk * (s.length.astype(dtype) + (chunk + 1) / 2), 0),
        joined=count_slots(running, s.joined),
        partial=count_slots(running & (s.joined == 0), s.need),
    ), decoding


class Action(NamedTuple):
    """What a lane does in an iteration; at most one is true, `[lanes]`."""

    reject: jax.Array
    preempt: jax.Array
    extend: jax.Array  # continue a partly computed prompt
    admit: jax.Array
    execute: jax.Array
    idle: jax.Array


def decide(
    state: State, lanes: Lanes, head: Head, sums: Totals, held: jax.Array, slots: int
) -> tuple[Action, jax.Array, jax.Array]:
    """Return the actions, the prompt tokens that the step can still take, and where slots are exhausted."""
    mixed, blocked = lanes.mixed > 0, state.blocked > 0
    room = jnp.where(mixed, jnp.maximum(lanes.budget - sums.decoding, 0), lanes.budget)
    room = room - sums.tokens
    short = sums.grow > lanes.pages - sums.used
    arrived = head.exists & head.released & (head.again | (head.arrival <= state.now))
    reject = arrived & ~head.again & (head.final > lanes.pages)
    extend = (sums.partial > 0) & (sums.tokens == 0) & (room > 0)
    fits = sums.charges + head.charge <= lanes.pages
    admissible = arrived & fits & (room > 0) & (sums.running < lanes.sequences) & ~blocked & ~reject
    occupied = count_slots(state.slots.phase != FREE)
    full = admissible & ~head.again & (occupied >= slots)
    admit = admissible & ~full
    composed = (sums.tokens > 0) | (sums.joined > 0)
    decodes = (sums.decoding > 0) & (mixed | ~composed)
    free = ~held
    order = {}
    for name, wanted in (
        ("reject", reject),
        ("preempt", mixed & short),
        ("extend", extend),
        ("admit", admit),
        ("late", decodes & short),  # steps of their own go first, so a decode step finds no room only now
        ("execute", composed | decodes),
        ("idle", head.exists & head.released & ~arrived),
    ):
        order[name] = free & wanted
        free = free & ~wanted
    late = order.pop("late")
    order["preempt"] = order["preempt"] | late
    return Action(**order), room, full & ~held


def route_request(
    state: State, requests: Requests, held: jax.Array, designs: int
) -> tuple[State, jax.Array, jax.Array, jax.Array]:
    """Send the next request to the replica with the fewest outstanding ones, once all have reached its arrival.

    Returns:
        The state, the arrival of the next request, the lanes that wait for others to reach it, and the request that
        ends the idle time of a lane, -1 for none.
    """
    lanes = len(state.now)
    total = requests.number[:designs]
    more = state.route < total

    def find(position: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the request at a position of the order, and its arrival, `[designs]`."""
        index = take(requests.order[:, :designs], position)
        at = take(requests.arrival[:, :designs], index)
        return index, jnp.where(position < total, at, jnp.inf)

    routed, arrival = find(state.route)
    by_lane = jnp.tile(arrival, lanes // designs)
    resting = state.done == state.tail
    reached = resting | (state.now >= by_lane)
    ready = more & jnp.all(reached.reshape(-1, designs), 0)
    # Requests that finish in a step that runs at the arrival still count.
    outstanding = state.tail - state.done + jnp.where(state.now > by_lane, state.finished_last, 0)
    grid = outstanding.reshape(-1, designs)
    least = jnp.min(grid, 0)
    numbers = jnp.arange(grid.shape[0])[:, None]
    chosen = jnp.min(jnp.where(grid == least, numbers, grid.shape[0]), 0)
    receives = ((numbers == chosen) & ready).reshape(-1)
    request = jnp.tile(routed, lanes // designs)
    wakes = receives & resting & (by_lane > state.now)
    places = len(state.queue)
    at = (jnp.arange(places)[:, None] == state.tail % places) & receives
    state = state._replace(
        queue=jnp.where(at, request, state.queue),
        full=jnp.where(receives & (state.tail - state.head >= places), 1, state.full),
        tail=state.tail + receives,
        route=state.route + ready,
        now=jnp.where(receives & resting, jnp.maximum(state.now, by_lane), state.now),
    )
    after = jnp.tile(find(state.route)[1], lanes // designs)
    waits = held | (state.done == state.tail) | (state.now >= after)
    return state, after, waits, jnp.where(wakes, request, -1)
