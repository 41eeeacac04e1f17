"""The times of a recorded schedule under other hardware: what makes a replay differentiable.

A replay decides which requests are in which step; the times follow from that. `retime` computes them again from the
step tables of any system, with the schedule held fixed. Let d_e be the seconds of iteration e, a_w the arrival that
ended the last idle time of its replica before e, in iteration w. The end of iteration e is

    T_e = a_w + sum over w < i <= e of d_i
    TTFT = T(first token) - arrival,   TPOT = (T(last token) - T(first token)) / (o - 1)

Everything but d_e (and a_w behind a prefill pool) is a constant, so with `arrivals="fixed"` the derivative is that
along the path: what an infinitesimal change of the hardware does (infinitesimal perturbation analysis: Ho and
Cassandras 1983). A finite change moves requests to other steps. Delays add up over a busy period, so that a step ends
before an arrival instead of after it; the wait for the step in progress then jumps, by up to a step, and the mean of
the jumps cancels the delays that added up. With `arrivals="in_step"`, the default, an arrival therefore keeps its place
within the step in progress: let A be the request, i or an earlier one, at whose arrival the queue was last empty, and
x(t) how much later than recorded the replica reaches what it did at t. Then

    TTFT = recorded + x(first token of i) - x(arrival of A)

Delays count from where the queue began. `docs/replay.md` compares both with differences over many traces.

Times are sums of recorded times in 64 bits and of differences from them, so that 32 bits suffice.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.arrays import batch_shape
from jaxcost.core.pytree import Scalar, replace
from jaxcost.explore.replay.engine_state import Recording
from jaxcost.explore.replay.pools import Workload, swap_seconds
from jaxcost.explore.replay.results import Replay
from jaxcost.explore.replay.step_tables import Grid, StepTables, interpolate, make_tables
from jaxcost.explore.serve import fit, transfer_seconds
from jaxcost.physics.compute.shards import complete_plan
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs
from jaxcost.spec.system import System

__all__ = ["Latencies", "RecordedPool", "Schedule", "retime"]


class RecordedPool(NamedTuple):
    """What the replicas of a pool did. Steps are `[iterations, replicas, designs]`, requests `[requests, designs]`."""

    workload: Workload
    grid: Grid
    recording: Any  # Recording
    durations: Any  # s
    starts: Any  # s
    arrival: np.ndarray  # s, at the pool
    admitted: np.ndarray  # s, -inf where rejected
    first_event: np.ndarray  # iteration of the first token
    last_event: np.ndarray
    lane: np.ndarray  # replica
    swap_seconds: np.ndarray  # s per token, [designs]
    load_seconds: np.ndarray
    joules: np.ndarray  # [designs]


class Schedule(NamedTuple):
    """The recorded pools, the one that decodes first."""

    pools: tuple[RecordedPool, ...]
    moved: np.ndarray  # s per prompt token from pool to pool
    released_by: np.ndarray  # request at whose end a request of a closed loop was sent, -1 for none


class Latencies(NamedTuple):
    """Times of the requests of a replay, `[requests, *batch]`, and totals, `[*batch]`; NaN for rejected requests."""

    ttft: Any  # s
    tpot: Any  # s, NaN for requests of one token
    e2e: Any  # s
    duration: Any  # s, until the last token
    joules: jax.Array  # J, dynamic energy of the chips

    def mean(self, metric: str) -> jax.Array:
        """Return the mean of "ttft", "tpot" or "e2e" over the requests that have it."""
        x = getattr(self, metric)
        valid = jnp.isfinite(jax.lax.stop_gradient(x))
        return jnp.sum(jnp.where(valid, x, 0), 0) / jnp.maximum(jnp.sum(valid, 0), 1)

    def percentile(self, metric: str, q: float, *, width: float = 1.0) -> jax.Array:
        """Return a percentile as the mean of the requests near it, for a derivative that does not hang on one request.

        Requests in ascending order have the ranks 0 to 100, and the weights of a normal density about q:

            P_q = sum_i w_i x_i / sum_i w_i,   w_i = exp(-((rank_i - q) / width)^2 / 2)

        The weights have no derivative: a request keeps its weight as its time moves.

        Args:
            metric: "ttft", "tpot" or "e2e".
            q: percentile, 0 to 100.
            width: standard deviation of the weights, percentage points.
        """
        x = getattr(self, metric)
        fixed = jax.lax.stop_gradient(x)
        valid = jnp.isfinite(fixed)
        place = jnp.argsort(jnp.argsort(jnp.where(valid, fixed, jnp.inf), 0), 0)
        rank = 100 * (place + 0.5) / jnp.maximum(jnp.sum(valid, 0), 1)
        weights = jnp.where(valid, jnp.exp(-(((rank - q) / width) ** 2) / 2), 0)
        return jnp.sum(weights * jnp.where(valid, x, 0), 0) / jnp.sum(weights, 0)

    def goodput(self, *, ttft: float, tpot: float, width: float = 0.1) -> jax.Array:
        """Return requests a second within limits, s, smoothed: a request counts by how far it is from them.

            sum_i s(ln(ttft / TTFT_i) / width) s(ln(tpot / TPOT_i) / width) / duration,   s(x) = 1 / (1 + exp(-x))

        Rejected requests count as 0, and requests of one token have no TPOT to miss.
        """
        fixed = jax.lax.stop_gradient((self.ttft, self.tpot))
        valid = jnp.isfinite(fixed[0])

        def within(x: jax.Array, limit: float, has: jax.Array) -> jax.Array:
            safe = jnp.where(has, jnp.maximum(x, 1e-12), limit)
            return jnp.where(has, jax.nn.sigmoid(jnp.log(limit / safe) / width), 1)

        both = within(self.ttft, ttft, valid) * within(self.tpot, tpot, jnp.isfinite(fixed[1]))
        return jnp.sum(jnp.where(valid, both, 0), 0) / self.duration


def retime(
    replayed: Replay,
    system: System,
    model: Model,
    plan: Plan,
    *,
    prefill: tuple[System, Plan] | None = None,
    knobs: Knobs | None = None,
    arrivals: Literal["in_step", "fixed"] = "in_step",
) -> Latencies:
    """Return the times of the requests of a recorded replay on a system, with its schedule held fixed.

    Pure, traceable and differentiable in every leaf. At the design of the replay the times are those of the replay.

    Args:
        replayed: result of `replay` with `record=True`.
        system: as for `replay`, with the same batch.
        model: the language model.
        plan: as for `replay`; the schedule followed its engine.
        prefill: system and plan of the prefill pool, where the replay had one.
        knobs: as for `evaluate`.
        arrivals: "fixed" for the derivative along the path; "in_step" for requests that arrive at the same place within
            the step in progress, whose derivative is that of means over many traces. Requests of a closed loop are
            sent at the end of a step, where both are the same.

    Raises:
        ValueError: the schedule was not recorded, or `prefill` is given where the replay had none, or the reverse.
    """
    schedule = replayed.schedule
    if schedule is None:
        raise ValueError("the schedule was not recorded; replay with record=True")
    if (prefill is not None) != (len(schedule.pools) > 1):
        raise ValueError("`prefill` is expected where the replay had a prefill pool, and only there")
    designs = schedule.released_by.shape[1]
    kept = arrivals == "in_step" and not (schedule.released_by >= 0).any()
    came = jnp.zeros((len(replayed.prompt), designs))
    if prefill is None:
        first, finish, joules = _shifts(schedule.pools[0], system, model, plan, knobs, came, kept)
    else:
        _, ready, before = _shifts(schedule.pools[1], prefill[0], model, prefill[1], knobs, came, kept)
        prompt = replayed.prompt[:, None]
        traffic = schedule.pools[0].workload.traffic
        moved = transfer_seconds(model, traffic, (system, plan), prefill) / traffic.prompt
        arrived = ready + prompt * (jnp.reshape(moved, (1, -1)) - schedule.moved)
        first, finish, after = _shifts(schedule.pools[0], system, model, plan, knobs, arrived, kept)
        alone = jnp.asarray(replayed.output[:, None] <= 1)
        first, finish = jnp.where(alone, ready, first), jnp.where(alone, ready, finish)
        joules = before + after
    sent = jnp.take_along_axis(finish, jnp.maximum(schedule.released_by, 0), 0)
    sent = jnp.where(schedule.released_by >= 0, sent, 0)
    return _latencies(replayed, first, finish, sent, joules)


def _latencies(
    replayed: Replay, first: jax.Array, finish: jax.Array, sent: jax.Array, joules: jax.Array
) -> Latencies:
    """Add what times differ, `[requests, designs]`, to the recorded ones."""
    shape = replayed.batch
    first, finish, sent = (x.reshape(-1, *shape) for x in (first, finish, sent))
    others = np.reshape(replayed.output - 1.0, (-1, *(1 for _ in shape)))
    tpot = replayed.tpot + (finish - first) / np.maximum(others, 1)
    last = np.nanargmax(np.where(replayed.rejected, -np.inf, replayed.finish), 0)
    ended = jnp.take_along_axis(finish, last[None], 0)[0]
    return Latencies(
        ttft=replayed.ttft + first - sent,
        tpot=tpot,
        e2e=replayed.e2e + finish - sent,
        duration=replayed.duration + ended,
        joules=joules.reshape(shape),
    )


def _shifts(
    pool: RecordedPool,
    system: System,
    model: Model,
    plan: Plan,
    knobs: Knobs | None,
    came: jax.Array,
    kept: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return by how much first and last tokens, `[requests, designs]`, are later than recorded, and the joules.

    Args:
        pool: what its replicas did.
        system: as for `retime`.
        model: as for `retime`.
        plan: as for `retime`.
        knobs: as for `retime`.
        came: by how much requests arrive later than recorded, `[requests, designs]`.
        kept: whether arrivals keep their place within the step in progress.
    """
    designs = came.shape[1]
    lanes = pool.durations.shape[1] * designs
    batched = bool(batch_shape((system, model, plan, knobs)))
    ranks = complete_plan(plan).dp
    traffic = replace(pool.workload.traffic, batch=ranks)
    tables = make_tables(system, model, traffic, plan, pool.grid, knobs=knobs)

    def by_lane(x: Scalar) -> jax.Array:
        x = jnp.asarray(x)
        x = x if batched else jnp.broadcast_to(x[..., None], (*x.shape, designs))
        every = (*x.shape[:-1], lanes // designs, designs)
        return jnp.broadcast_to(x[..., None, :], every).reshape(*x.shape[:-1], lanes)

    dtype = jnp.result_type(tables.decode)
    flat = [jnp.asarray(x.reshape(len(x), lanes), dtype) for x in (*pool.recording, pool.durations)]
    recording, durations = Recording(*flat[:-1]), flat[-1]
    cost = _step_costs(recording, jax.tree.map(by_lane, tables), pool.grid)
    memory = fit(system, model, plan, context=pool.workload.mean_context)
    swap = by_lane(jnp.broadcast_to(swap_seconds(system, memory), (designs,) * batched))
    load = jnp.asarray(np.tile(np.broadcast_to(pool.load_seconds, (designs,)), lanes // designs), dtype)
    seconds = cost[0] + recording.swapped * swap + recording.loaded * load
    done = recording.steps > 0
    late = jnp.cumsum(jnp.where(done, seconds - durations, 0), 0)
    # The last iteration at or before each in which an idle time ended.
    rows = np.arange(len(late))[:, None]
    woken = np.asarray(pool.recording.waits).reshape(len(late), lanes)
    reset = np.maximum.accumulate(np.where(woken >= 0, rows, -1), 0)
    column = np.arange(lanes)
    request = woken[np.maximum(reset, 0), column]
    begun = came[np.maximum(request, 0), column % designs] - late[np.maximum(reset, 0), column]
    shift = late + jnp.where(reset >= 0, begun, 0)
    lane = pool.lane * designs + np.arange(designs)
    joules = jnp.sum(jnp.where(done, cost[1], 0), 0).reshape(-1, designs).sum(0)
    first, finish = shift[pool.first_event, lane], shift[pool.last_event, lane]
    if kept:
        late = _lateness_at_arrival(pool, shift, came, lane)
        first, finish = first - late, finish - late
    return first, finish, joules


def _lateness_at_arrival(
    pool: RecordedPool, shift: jax.Array, came: jax.Array, lane: np.ndarray
) -> jax.Array:
    """Return how late a replica was at the arrival of the request that began the queue of each, `[requests, designs]`.

    It is interpolated within the step in progress, and 0 where that request found the replica idle.
    """
    n, designs = lane.shape
    starts, durations = (x.reshape(len(x), -1) for x in (pool.starts, pool.durations))
    begins, event = np.zeros((n, designs), int), np.zeros((n, designs), int)
    for design in range(designs):
        for one in np.unique(lane[:, design]):
            mine = np.flatnonzero((lane[:, design] == one) & np.isfinite(pool.arrival[:, design]))
            mine = mine[np.argsort(pool.arrival[mine, design], kind="stable")]
            came_at = pool.arrival[mine, design]
            before = np.maximum.accumulate(pool.admitted[mine, design])
            opens = np.concatenate([[True], before[:-1] <= came_at[1:]])
            at = np.maximum.accumulate(np.where(opens, np.arange(len(mine)), 0))
            begins[mine, design] = mine[at]
            event[mine, design] = np.searchsorted(starts[:, one], came_at[at], side="right") - 1
    column = np.arange(designs)
    event = np.maximum(event, 0)
    length = durations[event, lane]
    busy = length > 0
    reached = (pool.arrival[begins, column] - starts[event, lane]) / np.where(busy, length, 1)
    share = np.clip(np.where(busy, reached, 0), 0, 1)
    start = jnp.where(event > 0, shift[np.maximum(event - 1, 0), lane], 0)
    late = start + share * (shift[event, lane] - start) - came[begins, column]
    return jnp.where(busy, late, 0)


def _step_costs(recording: Recording, tables: StepTables, grid: Grid) -> jax.Array:
    """Return seconds and joules of all iterations, `[2, iterations, lanes]`, without transfers."""
    r = recording
    plain = interpolate(tables.decode, grid.decode, (jnp.maximum(r.sequences, 1), r.context)) * r.steps
    context = jnp.where(r.sequences > 0, r.context, grid.mixed_context[0])
    along = interpolate(tables.mixed, grid.mixed, (r.sequences, context, r.tokens, r.keys))
    return jnp.where(r.tokens > 0, along, jnp.where(r.sequences > 0, plain, 0))
