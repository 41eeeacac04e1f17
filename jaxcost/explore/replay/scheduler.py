"""A continuous-batching engine as a JAX program: slots in fixed arrays, time in a `while_loop`, replicas in the last
axis.

Lanes are replicas of designs, `[lanes]`; a replica has slots `[slots, lanes]` for its running and preempted requests.
An iteration does one thing in every lane: it rejects, preempts or admits one request, continues a partly computed
prompt, executes the step that is complete, or waits for the next arrival. Steps between which nothing changes are
executed at once. With S sequences and t(c) linear in the mean context c between two knots of the table, k steps take

    k t(c + (k - 1) / 2) seconds,   k = min(steps to the next finish, to the next arrival, to the next knot,
                                            with the pages that are free)

The policy is that of `tests/replay_simulator.py`, which takes it step by step:

- Waiting requests are served in order of arrival; preempted ones first. The victim is the running request that arrived
  last, so waiting requests always arrived later than running ones.
- A decoding request takes pages as it grows. Where they do not suffice, victims give up theirs: their cache is
  computed again, or swapped out and in.
- The head of the queue is admitted where pages for its prompt, for what running requests are to keep free, and for the
  growth of the next step suffice, and neither the token budget nor the sequences of the step are exhausted. At most
  one request is partly computed.
- With mixed steps, prompts take what decoding sequences leave of the token budget; otherwise prompts have steps of
  their own, which go first.

A program runs a number of iterations and returns a log with a row for each: what is written once, a row at a time, is
never copied. Requests are logged when their slot is taken by another one; those left are in the slots at the end.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.arrays import materialize_once
from jaxcost.explore.replay.admission import (
    Action,
    Head,
    Totals,
    decide,
    find_head,
    route_request,
    sum_slots,
)
from jaxcost.explore.replay.engine_state import (
    FREE,
    RUNNING,
    WAITING,
    Lanes,
    Log,
    Recording,
    Requests,
    Slots,
    State,
    count_slots,
    empty_slot,
    has_requests,
    pages_of,
    take,
)
from jaxcost.explore.replay.randomness import uniform
from jaxcost.explore.replay.step_tables import Grid, StepTables, interpolate

__all__ = ["advance"]

_LADDER = (2, 4, 8)  # numbers of steps that are tried where not every sequence can have another page


@functools.partial(
    jax.jit, static_argnames=("designs", "routed", "most_drafts", "rows", "record"), donate_argnums=0
)
def advance(
    state: State,
    requests: Requests,
    lanes: Lanes,
    tables: StepTables,
    grid: Grid,
    *,
    designs: int,
    routed: bool,
    most_drafts: int,
    rows: int,
    record: bool,
) -> tuple[State, Log]:
    """Serve requests for a number of iterations, or until all are served.

    Args:
        state: of `start`, or of the last call.
        requests: the trace.
        lanes: limits of the replicas; lane = replica x designs + design.
        tables: step tables by lane, `[2, *knots, lanes]`.
        grid: knots of the tables.
        designs: number of designs.
        routed: whether requests are sent to the replica with the fewest outstanding ones when they arrive; otherwise
            `requests.order` says where.
        most_drafts: largest `lanes.drafts`.
        rows: most iterations.
        record: whether to record the steps.
    """
    began = state.iteration
    width, dtype = len(state.now), state.now.dtype
    none = jnp.full((rows, width), -1, jnp.int32)
    blank = jnp.zeros((rows, width), dtype)
    recording = Recording(*([blank] * 7), waits=none) if record else None
    kinds = {name: none for name in ("request", "rejected", "preempted", "first_event", "last_event")}
    kinds |= {name: none for name in ("steps", "sequences", "running", "pages")}
    log = Log(**{name: kinds.get(name, blank) for name in Log._fields[:-1]}, recording=recording)

    def active(carry: tuple[State, Log]) -> jax.Array:
        return (carry[0].iteration < began + rows) & jnp.any(carry[0].unfinished)

    def iterate(carry: tuple[State, Log]) -> tuple[State, Log]:
        state, log = carry
        row = state.iteration - began
        state, written = _iterate(requests, lanes, tables, grid, designs, routed, most_drafts, record, state)
        return state, jax.tree.map(lambda x, y: x.at[row].set(y.astype(x.dtype)), log, written)

    return jax.lax.while_loop(active, iterate, (state, log))


def _iterate(
    requests: Requests,
    lanes: Lanes,
    tables: StepTables,
    grid: Grid,
    designs: int,
    routed: bool,
    most_drafts: int,
    record: bool,
    state: State,
) -> tuple[State, Log]:
    slots = state.slots.request.shape[0]
    held = ~state.unfinished
    coming, woken = jnp.full_like(state.now, jnp.inf), jnp.full_like(state.head, -1)
    if routed:
        state, coming, held, woken = route_request(state, requests, held, designs)
    # What is [lanes] is computed once, not again for every slot that it is compared with.
    head = materialize_once(find_head(state, requests, lanes, routed))
    sums, decoding = materialize_once(sum_slots(state.slots, lanes))
    act, room, full = materialize_once(decide(state, lanes, head, sums, held, slots))
    state = state._replace(full=jnp.maximum(state.full, full.astype(jnp.int32)))
    event = materialize_once(_plan_step(state, lanes, tables, grid, head, sums, coming))
    log = _write_log(state, act, event, sums, head, woken, record)
    state = _change_slots(state, requests, lanes, head, sums, act, room, decoding, event, most_drafts)
    state = _advance_time(state, head, act, event)
    return state._replace(unfinished=has_requests(state, requests, routed, designs)), log


class _Event(NamedTuple):
    """The steps that a lane executes if it does, `[lanes]`."""

    steps: jax.Array
    decodes: jax.Array  # whether sequences decode
    seconds: jax.Array
    first_seconds: jax.Array  # of the first of the steps
    last_seconds: jax.Array  # of the last
    joules: jax.Array
    sequences: jax.Array
    context: jax.Array  # mean over the steps
    keys: jax.Array


def _plan_step(
    state: State,
    lanes: Lanes,
    tables: StepTables,
    grid: Grid,
    head: Head,
    sums: Totals,
    coming: jax.Array,
) -> _Event:
    """Return the steps that are executed at once, and what they take."""
    dtype = state.now.dtype
    composed = (sums.tokens > 0) | (sums.joined > 0)
    decodes = (sums.decoding > 0) & ((lanes.mixed > 0) | ~composed)
    number = jnp.where(decodes, sums.decoding, 0).astype(dtype)
    context = jnp.where(decodes, sums.context.astype(dtype) / jnp.maximum(number, 1), grid.context[0])
    pure = tuple(jnp.maximum(number, 1) if k == 0 else context for k in range(2))
    at_once = lambda c: interpolate(tables.decode, grid.decode, (pure[0], c))  # noqa: E731
    knots = jnp.asarray(grid.context, dtype)
    ends = jnp.concatenate([knots, jnp.full(1, np.inf, dtype)])
    next_knot = ends[jnp.sum(knots[:, None] <= context, 0)]
    to_knot = jnp.where(jnp.isfinite(next_knot), jnp.floor(next_knot - context) + 1, np.inf)
    free = lanes.pages - sums.used
    within = _affordable_steps(state.slots, lanes, free, sums.decoding, jnp.maximum(sums.least, 1))
    most = jnp.minimum(jnp.minimum(to_knot, within.astype(dtype)), sums.least.astype(dtype))
    single = composed | (lanes.drafts > 0) | (state.extra_swap > 0)
    most = jnp.where(single, 1, jnp.maximum(most, 1))
    # The step in which the next request arrives is the last one.
    awaited = head.exists & ~head.again & head.released & (head.arrival > state.now)
    until = jnp.minimum(jnp.where(awaited, head.arrival, jnp.inf), coming)
    start = at_once(context)[0]
    rise = jnp.where(most > 1, (at_once(context + most - 1)[0] - start) / jnp.maximum(most - 1, 1), 0)
    steps = jnp.minimum(most, _steps_until(until - state.now, start, rise))
    middle = context + (steps - 1) / 2
    plain = at_once(middle) * steps
    # A step with prompt tokens.
    tokens = sums.tokens.astype(dtype)
    keys = jnp.where(tokens > 0, sums.pairs / jnp.maximum(tokens, 1), 1)
    beside = jnp.where(number > 0, context, grid.mixed_context[0])
    along = interpolate(tables.mixed, grid.mixed, (number, beside, tokens, keys))
    cost = jnp.where(tokens > 0, along, jnp.where(number > 0, plain, 0))
    extra = state.extra_swap * lanes.swap_seconds + state.extra_load * lanes.load_seconds
    return _Event(
        steps=steps.astype(jnp.int32),
        decodes=decodes,
        seconds=cost[0] + extra,
        first_seconds=jnp.where(steps > 1, start, cost[0] + extra),
        last_seconds=jnp.where(steps > 1, start + rise * (steps - 1), cost[0] + extra),
        joules=cost[1],
        sequences=number,
        context=middle,
        keys=keys,
    )


def _affordable_steps(s: Slots, lanes: Lanes, free: jax.Array, sequences: jax.Array, least: jax.Array):
    """Return a number of steps whose new pages are free: at least 1, as the growth of one step was checked."""
    block = lanes.block
    pages_each = jnp.floor(free / jnp.maximum(sequences, 1))
    many = (pages_each * block).astype(jnp.int32)
    decoding = (s.phase == RUNNING) & (s.need == 0) & (s.joined == 0)
    best = jnp.ones_like(free)
    for k in _LADDER:
        new = jnp.where(decoding, pages_of(s.length + k, block) - s.pages, 0)
        best = jnp.where(jnp.sum(jnp.maximum(new, 0), 0) <= free, k, best)
    return jnp.minimum(jnp.maximum(many, best), least)


def _steps_until(gap: jax.Array, start: jax.Array, rise: jax.Array) -> jax.Array:
    """Return the fewest steps that take at least `gap` seconds: k start + rise k (k - 1) / 2 >= gap, k >= 1."""
    finite = jnp.where(jnp.isfinite(gap), jnp.maximum(gap, 0), 0)
    b = start - rise / 2
    root = 2 * finite / (b + jnp.sqrt(jnp.maximum(b * b + 2 * rise * finite, 0)))
    k = jnp.maximum(jnp.ceil(root), 1)
    taken = lambda k: k * start + rise * k * (k - 1) / 2  # noqa: E731
    k = jnp.where((k > 1) & (taken(k - 1) >= finite), k - 1, k)
    k = jnp.where(taken(k) < finite, k + 1, k)
    return jnp.where(jnp.isfinite(gap), k, jnp.inf)


def _change_slots(
    state: State,
    requests: Requests,
    lanes: Lanes,
    head: Head,
    sums: Totals,
    act: Action,
    room: jax.Array,
    decoding: jax.Array,
    event: _Event,
    most_drafts: int,
) -> State:
    s, end = state.slots, state.now + event.seconds
    running = s.phase == RUNNING
    numbers = jnp.arange(s.request.shape[0])[:, None]
    # Preempt the running request that arrived last.
    highest = jnp.max(jnp.where(running, s.position, -1), 0)
    victim = running & (s.position == highest) & act.preempt
    keeps = victim & (lanes.swap > 0) & (s.need == 0) & (s.emitted > 0)
    swapped_out = count_slots(keeps, s.length)
    # Admit the head: to its slot, or to the first free one.
    place = jnp.where(head.again, head.slot, numbers == empty_slot(s)) & act.admit
    fresh = place & ~head.again
    queued = jnp.where(head.again, 0, head.request)
    new = functools.partial(take, index=queued)
    ready = requests.ready[0] > 0
    chunk = jnp.minimum(head.need, room)
    extended = running & (s.need > 0) & (s.joined == 0) & act.extend
    s = s._replace(
        request=jnp.where(fresh, head.request, s.request),
        position=jnp.where(fresh, state.head, s.position),
        phase=jnp.where(place, RUNNING, jnp.where(victim, WAITING, s.phase)),
        prompt=jnp.where(fresh, new(requests.prompt), s.prompt),
        output=jnp.where(fresh, new(requests.output), s.output),
        cached=jnp.where(fresh, new(requests.cached), s.cached),
        slow=jnp.where(fresh, new(requests.slow), s.slow),
        length=jnp.where(place, head.length, jnp.where(victim & ~keeps, 0, s.length)),
        emitted=jnp.where(fresh, jnp.where(ready, 1, 0), s.emitted),
        need=jnp.where(place, head.need, jnp.where(victim, 0, s.need)),
        chunk=jnp.where(
            place, chunk, jnp.where(extended, jnp.minimum(s.need, room), jnp.where(victim, 0, s.chunk))
        ),
        joined=jnp.where(place, 1, jnp.where(victim, 0, s.joined)),
        pages=jnp.where(place, head.pages, jnp.where(victim, 0, s.pages)),
        preempted=jnp.where(fresh, 0, s.preempted + victim),
        admitted=jnp.where(fresh, state.now, s.admitted),
        first=jnp.where(fresh, jnp.where(ready, state.now, -1.0), s.first),
        last=jnp.where(fresh, state.now, s.last),
        gap=jnp.where(fresh, 0, s.gap),
        first_event=jnp.where(fresh, state.iteration, s.first_event),
    )
    # Execute the step.
    emits = decoding & event.decodes & act.execute
    gained = event.steps if most_drafts == 0 else _accepted(s, lanes, most_drafts)
    gained = jnp.where(emits, jnp.minimum(gained, s.output - s.emitted), 0)
    completes = (s.chunk > 0) & (s.chunk == s.need) & act.execute
    emitted = s.emitted + gained + completes
    token = emits | completes
    ends = token & (emitted >= s.output)
    # Of several steps at once the first or the last takes longest.
    wait = state.now + event.first_seconds - s.last
    longest = jnp.maximum(wait, jnp.where(event.steps > 1, event.last_seconds, 0))
    gap = jnp.where(token & (s.first >= 0), jnp.maximum(s.gap, longest), s.gap)
    is_first = token & (s.first < 0)
    length = s.length + gained + jnp.where(act.execute, s.chunk, 0)
    written = event.steps if most_drafts == 0 else event.steps + lanes.drafts.astype(jnp.int32)
    reached = jnp.minimum(s.length + written, s.prompt + s.output - 1)
    grown = jnp.maximum(s.pages, pages_of(reached, lanes.block))
    s = s._replace(
        phase=jnp.where(ends, FREE, s.phase),
        length=length,
        emitted=emitted,
        need=s.need - jnp.where(act.execute, s.chunk, 0),
        chunk=jnp.where(act.execute, 0, s.chunk),
        joined=jnp.where(act.execute, 0, s.joined),
        pages=jnp.where(ends, 0, jnp.where(emits, grown, s.pages)),
        first=jnp.where(is_first, end, s.first),
        last=jnp.where(token, end, s.last),
        gap=gap,
        first_event=jnp.where(is_first, state.iteration, s.first_event),
        last_event=jnp.where(token, state.iteration, s.last_event),
    )
    finished = count_slots(ends)
    return state._replace(
        slots=s,
        head=state.head + act.reject + (act.admit & ~head.again),
        done=state.done + finished + act.reject,
        extra_swap=jnp.where(
            act.execute, 0, state.extra_swap + swapped_out + jnp.where(act.admit, head.swapped, 0)
        ),
        extra_load=jnp.where(act.execute, 0, state.extra_load + jnp.where(act.admit, head.loaded, 0)),
        blocked=jnp.where(act.execute, 0, jnp.maximum(state.blocked, act.preempt)),
        ends=_note_ends(state, finished + act.reject, jnp.where(act.execute, end, state.now)),
        finished_last=jnp.where(act.execute, finished, state.finished_last),
    )


def _note_ends(state: State, count: jax.Array, time: jax.Array) -> jax.Array:
    """Return the ring of ends with `count` more at a time, `[lanes]`."""
    users = len(state.ends)
    place = (jnp.arange(users, dtype=jnp.int32)[:, None] - state.done) % users
    return jnp.where(place < count, time, state.ends)


def _accepted(s: Slots, lanes: Lanes, most: int) -> jax.Array:
    """Return the tokens of a speculative step, 1 and those accepted, `[slots, lanes]`."""
    draw = uniform(lanes.seed, s.request, s.emitted, xp=jnp).astype(lanes.acceptance.dtype)
    tokens, power = jnp.ones_like(s.request), jnp.ones_like(lanes.acceptance)
    for j in range(1, most + 1):
        power = power * lanes.acceptance
        tokens = tokens + ((draw < power) & (j <= lanes.drafts))
    return tokens


def _write_log(
    state: State, act: Action, event: _Event, sums: Totals, head: Head, woken: jax.Array, record: bool
) -> Log:
    """Return the row of an iteration: the last request of the slot that is taken, and the step."""
    s, done = state.slots, act.execute
    at = jnp.minimum(empty_slot(s), s.request.shape[0] - 1), jnp.arange(len(state.now))
    leaves = act.admit & ~head.again
    recording = None
    if record:
        recording = Recording(
            steps=jnp.where(done, event.steps, 0),
            sequences=event.sequences,
            context=event.context,
            tokens=jnp.where(done, sums.tokens, 0),
            keys=event.keys,
            swapped=jnp.where(done, state.extra_swap, 0),
            loaded=jnp.where(done, state.extra_load, 0),
            waits=jnp.where(act.idle, head.request, woken),
        )
    return Log(
        request=jnp.where(leaves, s.request[at], -1),
        rejected=jnp.where(act.reject, head.request, -1),
        admitted=s.admitted[at],
        first=s.first[at],
        last=s.last[at],
        gap=s.gap[at],
        preempted=s.preempted[at],
        first_event=s.first_event[at],
        last_event=s.last_event[at],
        start=state.now,
        seconds=jnp.where(done, event.seconds, 0),
        opened=jnp.where(done & event.decodes, state.now + event.first_seconds - state.last_decode, 0),
        others=(event.seconds - event.first_seconds) / jnp.maximum(event.steps - 1, 1),
        steps=event.steps,
        sequences=event.sequences,
        running=sums.running,
        pages=sums.used,
        recording=recording,
    )


def _advance_time(state: State, head: Head, act: Action, event: _Event) -> State:
    """Move time, and add up energy and steps."""
    done = act.execute
    end = state.now + jnp.where(done, event.seconds, 0)
    return state._replace(
        now=jnp.where(act.idle, jnp.maximum(state.now, head.arrival), end),
        joules=state.joules + jnp.where(done, event.joules, 0),
        busy=state.busy + jnp.where(done, event.seconds, 0),
        steps=state.steps + jnp.where(done, event.steps, 0),
        last_decode=jnp.where(done & event.decodes, end, state.last_decode),
        iteration=state.iteration + 1,
    )
