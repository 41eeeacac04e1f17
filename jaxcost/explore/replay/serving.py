"""Serve a stream of requests on a pool: some designs at a time, with as many slots as they turn out to need."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.explore.replay.engine_state import Lanes, Log, Recording, Requests, State, start
from jaxcost.explore.replay.pools import Pool
from jaxcost.explore.replay.results import GAP_EDGES, add_gaps, add_to_timeline
from jaxcost.explore.replay.scheduler import advance
from jaxcost.explore.replay.step_tables import Grid, StepTables
from jaxcost.explore.replay.streams import Stream, is_routed

__all__ = ["BINS", "Outcome", "Served", "join_pools", "serve_stream"]

BINS = 200  # of the timeline
_WORK = 8192  # slots x lanes of one program: its arrays stay in the caches of a core
_FEWEST_SLOTS, _FIRST_SLOTS, _FIRST_PLACES = 16, 64, 256
_DRAFTS = (0, 4, 16, 64)  # numbers of drafts that programs are compiled for
_ROWS = 4096  # iterations of a call; their logs are kept


class Outcome(NamedTuple):
    """What lanes did: requests by name `[requests, designs]`, the last state, and the steps if they were recorded."""

    results: dict[str, np.ndarray]
    state: State
    gaps: np.ndarray  # [bins, lanes]
    timeline: np.ndarray  # [2, bins, lanes]: running requests x s, pages x s
    recording: Recording | None
    durations: np.ndarray | None  # s, [iterations, lanes]
    starts: np.ndarray | None  # s


class Served(NamedTuple):
    """What the replicas of a pool did: requests `[requests, designs]`, totals `[designs]`."""

    results: dict[str, np.ndarray]
    end: np.ndarray
    joules: np.ndarray
    busy: np.ndarray
    steps: np.ndarray
    gaps: np.ndarray
    timeline: np.ndarray
    iterations: int
    recording: Recording | None  # `[iterations, replicas, designs]`
    durations: np.ndarray | None  # s, of every iteration, with the recording
    starts: np.ndarray | None  # s


def serve_stream(
    pool: Pool,
    stream: Stream,
    *,
    designs: int,
    concurrency: int,
    seed: int,
    record: bool,
    router: str,
    most: int,
) -> Served:
    """Serve a stream on a pool, some designs at a time, with as many slots as they turn out to need."""
    routed = is_routed(router, pool.replicas)
    n = len(stream.prompt)
    limits = [n, most, int(pool.sequences.max())] + ([concurrency] if concurrency else [])
    highest = max(min(limits), 1)
    likely = highest if concurrency else min(highest, _FIRST_SLOTS)
    lanes = _lanes(pool, stream.load_seconds, concurrency, seed)
    users = max(_power_of_two(concurrency // pool.replicas), 1)
    static: dict[str, Any] = {"routed": routed, "most_drafts": _rounded_up(int(pool.drafts.max()), _DRAFTS)}

    def serve(chosen: np.ndarray, slots: int, places: int) -> Outcome | None:
        """Serve some designs; None where slots or places were too few."""
        arguments = _arguments(pool, stream, lanes, chosen, routed)
        designs, logs = len(chosen), []
        state = start(arguments[0], slots=slots, places=places, users=users, designs=designs, routed=routed)
        while bool(state.unfinished.any()):
            state, log = advance(state, *arguments, designs=designs, rows=_ROWS, record=record, **static)
            logs.append(jax.device_get(log))
            if bool(state.full.any()) and (slots < highest or (routed and places < n)):
                return None
        return _collect(jax.device_get(state), logs, n, designs)

    def serve_enough(chosen: np.ndarray) -> Outcome:
        slots, places = max(_power_of_two(likely), _FEWEST_SLOTS), _FIRST_PLACES
        with jax.enable_x64(True):
            while (outcome := serve(chosen, slots, places)) is None:
                slots, places = min(2 * slots, _power_of_two(highest)), 4 * places
        return outcome

    size = max(_WORK // (min(_power_of_two(highest), 128) * pool.replicas), 1)
    size = min(size, designs)
    chunks = [np.arange(start, start + size) % designs for start in range(0, designs, size)]
    with ThreadPoolExecutor(max(len(jax.local_devices()), 2)) as threads:
        outcomes = list(threads.map(serve_enough, chunks))
    served = _joined(outcomes, designs, pool.replicas)
    served.results["arrival"] = np.broadcast_to(stream.arrival, (n, designs))
    return served


def _rounded_up(x: int, choices: tuple[int, ...]) -> int:
    """Return the smallest choice of at least x."""
    return next((choice for choice in choices if choice >= x), x)


def _power_of_two(x: int) -> int:
    return 1 << max(int(x) - 1, 0).bit_length()


def _lanes(pool: Pool, load_seconds: np.ndarray, concurrency: int, seed: int) -> Lanes:
    """Return the limits of a pool by design, NumPy."""
    whole = lambda x: np.asarray(np.minimum(x, 2**30), np.int32)  # noqa: E731
    same = lambda x: np.full(len(pool.budget), x, np.int32)  # noqa: E731
    return Lanes(
        budget=whole(pool.budget),
        sequences=whole(pool.sequences),
        mixed=whole(pool.mixed > 0.5),
        block=pool.block,
        pages=whole(pool.pages),
        reserve=pool.reserve,
        swap=whole(pool.swap > 0.5),
        swap_seconds=pool.swap_seconds,
        load_seconds=np.broadcast_to(load_seconds, pool.block.shape),
        drafts=whole(pool.drafts),
        acceptance=pool.acceptance,
        concurrency=same(concurrency // pool.replicas),
        frontend=pool.frontend,
        seed=same(seed),
    )


def _arguments(
    pool: Pool, stream: Stream, lanes: Lanes, chosen: np.ndarray, routed: bool
) -> tuple[Requests, Lanes, StepTables, Grid]:
    """Return the arguments of `simulate` for some designs; lane = replica x designs + design."""
    replicas, count = pool.replicas, len(chosen)

    def spread(x: np.ndarray) -> jax.Array:
        """Take designs in the last axis, `[rows, 1 or designs]`, for every lane if they differ."""
        x = np.asarray(x)
        if x.shape[-1] == 1:
            return jnp.asarray(x)
        return jnp.asarray(np.tile(x[..., chosen], (1,) * (x.ndim - 1) + (replicas,)))

    def by_lane(x: np.ndarray) -> np.ndarray:
        """Flatten `[..., replicas, 1 or designs]` to `[..., lanes]`."""
        x = x if x.shape[-1] == 1 else x[..., chosen]
        x = np.broadcast_to(x, (*x.shape[:-1], count))
        return x.reshape(*x.shape[:-2], replicas * count)

    small = lambda x: np.asarray(x, np.int32)  # noqa: E731
    requests = Requests(
        arrival=spread(stream.arrival),
        prompt=spread(small(stream.prompt)),
        output=spread(small(stream.output)),
        cached=spread(small(stream.cached)),
        slow=spread(small(stream.slow)),
        order=jnp.asarray(small(by_lane(stream.order))),
        number=jnp.asarray(small(by_lane(stream.number))),
        ready=jnp.full((1, replicas * count), int(stream.ready), jnp.int32),
    )
    tables = jax.tree.map(spread, pool.tables)
    return requests, Lanes(*(spread(x) for x in lanes)), tables, pool.grid


def _collect(state: State, logs: list[Log], requests: int, designs: int) -> Outcome:
    """Put the results of the requests together from the logs and from the slots at the end."""
    names = ("admitted", "first", "last", "gap", "preempted", "first_event", "last_event")
    results = {name: np.zeros((requests, designs), getattr(state.slots, name).dtype) for name in names}
    results |= {name: np.zeros((requests, designs), np.int32) for name in ("rejected", "lane")}
    for part in (*logs, state.slots):
        rows, lanes = np.nonzero(part.request >= 0)
        at = part.request[rows, lanes], lanes % designs
        results["lane"][at] = lanes // designs
        for name in names:
            results[name][at] = getattr(part, name)[rows, lanes]
    for log in logs:
        rows, lanes = np.nonzero(log.rejected >= 0)
        results["rejected"][log.rejected[rows, lanes], lanes % designs] = 1
    results["finish"] = results.pop("last")
    steps = [log.recording for log in logs if log.recording is not None]
    recording, durations, starts = None, None, None
    if steps:
        recording = Recording(*(np.concatenate(x)[: state.iteration] for x in zip(*steps, strict=True)))
        durations = np.concatenate([log.seconds for log in logs])[: state.iteration]
        starts = np.concatenate([log.start for log in logs])[: state.iteration]
    gaps, timeline = np.zeros((len(GAP_EDGES) - 1, len(state.now))), np.zeros((2, BINS, len(state.now)))
    horizon = np.tile(np.max(state.now.reshape(-1, designs), 0), len(state.now) // designs)
    for log in logs:
        add_gaps(gaps, log)
        add_to_timeline(timeline, log, horizon)
    return Outcome(results, state, gaps, timeline, recording, durations, starts)


def _joined(outcomes: list[Outcome], designs: int, replicas: int) -> Served:
    """Join the designs of all outcomes, and add up the replicas of each."""
    by_design = lambda x: x.reshape(*x.shape[:-1], replicas, -1)  # noqa: E731
    join = lambda parts: np.concatenate(parts, -1)[..., :designs]  # noqa: E731
    iterations = max(int(o.state.iteration) for o in outcomes)

    def steps(parts: list[Any], fill: float) -> np.ndarray:
        """Join recorded iterations `[iterations, lanes]` of chunks of unequal length."""
        whole = [
            np.pad(x, ((0, iterations - len(x)), (0, 0)), constant_values=fill).reshape(
                iterations, replicas, -1
            )
            for x in parts
        ]
        return join(whole)

    recording, durations, starts = None, None, None
    if outcomes[0].recording is not None:
        recordings = [o.recording for o in outcomes]
        recording = Recording(
            *(
                steps([getattr(r, n) for r in recordings], -1 if n == "waits" else 0)
                for n in Recording._fields
            )
        )
        durations = steps([o.durations for o in outcomes], 0)
        starts = steps([o.starts for o in outcomes], np.inf)
    total = lambda name: join([by_design(getattr(o.state, name)).sum(-2) for o in outcomes])  # noqa: E731
    return Served(
        results={name: join([o.results[name] for o in outcomes]) for name in outcomes[0].results},
        end=join([by_design(o.state.now).max(-2) for o in outcomes]),
        joules=total("joules"),
        busy=total("busy"),
        steps=total("steps"),
        gaps=join([by_design(o.gaps).sum(-2) for o in outcomes]),
        timeline=join([by_design(o.timeline).sum(-2) for o in outcomes]),
        iterations=iterations,
        recording=recording,
        durations=durations,
        starts=starts,
    )


def join_pools(output: np.ndarray, before: Served, after: Served) -> dict[str, np.ndarray]:
    """Return the requests of separate pools: admitted by the first, with the tokens of the second if there are any."""
    rejected = before.results["rejected"] > 0
    decoded = (output > 1) & ~rejected
    results = {name: np.where(decoded, after.results[name], x) for name, x in before.results.items()}
    results["admitted"] = before.results["admitted"]
    results["preempted"] = before.results["preempted"] + np.where(decoded, after.results["preempted"], 0)
    results["gap"] = np.where(decoded, after.results["gap"], 0)
    results["rejected"] = (rejected | (decoded & (after.results["rejected"] > 0))).astype(np.int32)
    return results
