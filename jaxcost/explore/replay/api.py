"""Replay a trace on a continuous-batching engine: many designs at once, every request with its own times.

The steps of a design are costed by `step_cost` on a grid (`step_tables.py`), the engine is a JAX program
(`scheduler.py`) that serves the trace on all designs together, in 64 bits, and statistics are over its requests.
"""

import functools
import heapq
import time
from typing import Any

import numpy as np

from jaxcost.core.arrays import batch_shape
from jaxcost.explore.replay.pools import Pool, Workload, build_pool
from jaxcost.explore.replay.prefix_cache import PrefixCache
from jaxcost.explore.replay.results import Replay, Timeline
from jaxcost.explore.replay.retiming import RecordedPool, Schedule
from jaxcost.explore.replay.serving import BINS, Served, join_pools, serve_stream
from jaxcost.explore.replay.streams import Stream, outside_stream, second_stream
from jaxcost.explore.serve import transfer_seconds
from jaxcost.physics.compute.draft import require_draft
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.trace import Trace

__all__ = ["ROUTERS", "replay"]

ROUTERS = ("round_robin", "prefix", "least_loaded")


def replay(
    system: System,
    model: Model,
    trace: Trace,
    plan: Plan,
    *,
    prefill: tuple[System, Plan] | tuple[System, Plan, int] | None = None,
    replicas: int = 1,
    router: str = "round_robin",
    prefix_cache: PrefixCache | None = None,
    rate: float | None = None,
    concurrency: int = 0,
    seed: int = 0,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
    most_sequences: int = 1024,
    fineness: int = 1,
    record: bool = False,
) -> Replay:
    """Serve a trace on replicas of a plan, request by request, for all designs of a batch at once.

    The policy of the engine is that of `plan.engine`: token budget, sequences, mixed steps or prompts first, pages,
    preemption, admission. Leaves of the trees may have one batch axis `[designs]`; the result has the same. The times
    of a step are interpolated in tables whose error the result states. Not traceable: gradients are those of `retime`
    along the schedule that `record` keeps.

    The hardware is paid for from the first arrival to the last token. The data-parallel ranks of a plan run in
    lockstep and share its work evenly; `plan.chunk` is ignored, as the engine's token budget sets the chunks. The pool
    counts tokens at the mean length of the trace. A request waits `frontend_latency` of calibrated kernels outside of
    the engine.

    Args:
        system: chips, links and hosts of a replica.
        model: the language model; without diffusion blocks.
        trace: the requests.
        plan: sharding, precisions, drafts and engine of a replica.
        prefill: system, plan and number of replicas (1 if left out) of a separate prefill pool. It computes prompts and
            first tokens; the cache is then moved to the decode pool, where the first token is sent on admission.
        replicas: number of replicas; of the decode pool where prefill is separate.
        router: "round_robin"; "prefix": to the replica that served the longest prefix, unless it is overloaded; or
            "least_loaded": to the replica with the fewest requests at the time of arrival.
        prefix_cache: memory for the blocks of earlier prompts, None for none.
        rate: requests a second to which the arrivals are scaled, None for those of the trace.
        concurrency: for a closed loop, most requests at a time: the next one is sent when one is finished, and not
            before it arrives. With several replicas each takes an equal share, by round robin.
        seed: of the acceptance of drafted tokens.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.
        most_sequences: most sequences of a replica at a time, in addition to the engine's limit.
        fineness: knots of the step tables: 2 for twice as many along each axis.
        record: whether to keep the schedule for `retime`.

    Raises:
        ValueError: an unknown router, a router that needs what the trace or the cache does not have, a diffusion model,
            drafts without a draft model, a concurrency that replicas cannot share, or leaves with two batch axes.
    """
    began = time.perf_counter()
    prices, knobs = prices or Prices(), knobs or Knobs()
    first: Any = None if prefill is None else (*prefill, 1)[:3]
    each = np.zeros(1)
    _check(model, plan, first, router, prefix_cache, concurrency, replicas)
    trace = trace if rate is None else trace.scaled_to(rate)
    trees = (system, model, plan, prices, knobs, prefill and prefill[:2])
    shape = batch_shape(trees)
    if len(shape) > 1:
        raise ValueError(f"leaves have the batch shape {shape}; at most one axis is expected")
    designs = shape[0] if shape else 1
    build = functools.partial(
        build_pool, prices=prices, knobs=knobs, most_sequences=most_sequences, fineness=fineness
    )
    pool = build(system, model, plan, Workload.of(trace), replicas=replicas)
    pools, parts = [pool], []
    run = functools.partial(
        serve_stream,
        designs=designs,
        concurrency=concurrency,
        seed=seed,
        record=record,
    )
    if first is None:
        stream = outside_stream(trace, pool, router, prefix_cache)
        parts.append(run(pool, stream, router=router, most=most_sequences))
    else:
        prompts = Workload.of(trace, decodes=False)
        before = build(first[0], model, first[1], prompts, replicas=first[2])
        pools.append(before)
        stream = outside_stream(trace, before, router, prefix_cache)
        alone = stream._replace(output=np.ones_like(stream.output))
        parts.append(run(before, alone, router=router, most=most_sequences))
        moved = transfer_seconds(
            model, Workload.of(trace).traffic, (system, plan), (first[0], first[1])
        ) / float(trace.prompt.mean())
        router = "round_robin" if router == "prefix" else router
        each = np.asarray(moved, np.float64).reshape(-1)
        after = second_stream(
            stream, parts[0].results["finish"], parts[0].results["rejected"], each, replicas, router
        )
        parts.insert(0, run(pool, after, router=router, most=most_sequences))
    return _result(trace, pools, parts, stream, each, shape, concurrency, began)


def _check(
    model: Model,
    plan: Plan,
    prefill: Any,
    router: str,
    cache: PrefixCache | None,
    concurrency: int,
    replicas: int,
) -> None:
    if np.any(np.asarray(model.diffusion_block) > 0):
        raise ValueError("a model that decodes blocks by diffusion cannot be replayed")
    require_draft(model, plan)
    if router not in ROUTERS:
        raise ValueError(f"no router {router!r}; there are {', '.join(ROUTERS)}")
    if router == "least_loaded" and cache is not None and replicas > 1:
        raise ValueError(
            'router "least_loaded" cannot be combined with a prefix cache, whose hits would depend on the times of '
            'the schedule; take "round_robin" or "prefix"'
        )
    if concurrency and prefill is not None:
        raise ValueError("a closed loop cannot be replayed on separate prefill and decode pools")
    if concurrency and replicas > 1 and (concurrency % replicas or router != "round_robin"):
        raise ValueError(
            f"concurrency {concurrency} cannot be shared by {replicas} replicas: a multiple of them, and router "
            '"round_robin", are expected'
        )


def _result(
    trace: Trace,
    pools: list[Pool],
    parts: list[Served],
    stream: Stream,
    moved: np.ndarray,
    shape: tuple[int, ...],
    concurrency: int,
    began: float,
) -> Replay:
    """Put the result together from the pool that decodes, first, and the one that computes prompts, if any."""
    pool, main, designs = pools[0], parts[0], parts[0].end.shape[-1]
    results = main.results if len(parts) == 1 else join_pools(stream.output, parts[1], main)
    rejected = results["rejected"] > 0
    times = {
        name: np.where(rejected, np.nan, results[name]) for name in ("admitted", "first", "finish", "gap")
    }
    gap = times.pop("gap")
    arrival = np.broadcast_to(trace.arrival[:, None], rejected.shape).copy()
    released_by = np.full(rejected.shape, -1)
    if concurrency:
        arrival, released_by = _sent(
            arrival, times["finish"] + pool.frontend, rejected, concurrency, pool.replicas
        )
    for name in ("first", "finish"):
        times[name] = times[name] + pools[-1].frontend
    duration = np.maximum(np.nanmax(np.where(rejected, 0, times["finish"]), 0), 1e-9)
    bills = [_pay(p, part, duration) for p, part in zip(pools, parts, strict=True)]
    totals = {name: sum(bill[name] for bill in bills) for name in bills[0]}
    batched = lambda x: np.reshape(x, (*np.shape(x)[:-1], *shape))  # noqa: E731
    cached = np.broadcast_to(np.minimum(stream.cached, stream.prompt - 1), (trace.requests, designs))
    return Replay(
        prompt=trace.prompt,
        output=trace.output,
        arrival=batched(arrival),
        **{name: batched(x) for name, x in times.items()},
        longest_gap=batched(gap),
        preemptions=batched(results["preempted"]),
        cached=batched(cached),
        rejected=batched(rejected),
        replica=batched(results["lane"]),
        duration=batched(duration),
        busy=batched(sum(p.busy for p in parts)),
        steps=batched(sum(p.steps for p in parts)),
        **{name: batched(x) for name, x in totals.items()},
        pool_tokens=batched(pool.pages * pool.block),
        gap_counts=batched(main.gaps),
        timeline=_timeline(main, pool, arrival, times["admitted"], batched),
        table_error=max(p.table_error for p in pools),
        iterations=sum(p.iterations for p in parts),
        seconds=time.perf_counter() - began,
        schedule=_schedule(trace, pools, parts, stream, moved, released_by) if main.recording else None,
    )


def _schedule(
    trace: Trace, pools: list[Pool], parts: list[Served], stream: Stream, moved: Any, released_by: np.ndarray
) -> Schedule:
    """Return what `retime` needs; the pool that decodes first."""
    workloads = [Workload.of(trace), Workload.of(trace, decodes=False)]
    loads = (
        [stream.load_seconds, stream.load_seconds] if len(pools) == 1 else [np.zeros(1), stream.load_seconds]
    )
    recorded = [
        RecordedPool(
            workload=workload,
            grid=pool.grid,
            recording=part.recording,
            durations=part.durations,
            starts=part.starts,
            arrival=part.results["arrival"],
            admitted=np.where(part.results["rejected"] > 0, -np.inf, part.results["admitted"]),
            first_event=part.results["first_event"],
            last_event=part.results["last_event"],
            lane=part.results["lane"],
            swap_seconds=pool.swap_seconds,
            load_seconds=load,
            joules=part.joules,
        )
        for workload, pool, part, load in zip(workloads, pools, parts, loads, strict=False)
    ]
    return Schedule(tuple(recorded), moved, released_by)


def _sent(
    arrival: np.ndarray,
    finish: np.ndarray,
    rejected: np.ndarray,
    concurrency: int,
    replicas: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return when the requests of a closed loop are sent, and the request at whose end that is, -1 for none.

    A rejected request makes room at once, when it is sent.
    """
    share, n = concurrency // replicas, len(arrival)
    out, released_by = arrival.copy(), np.full(arrival.shape, -1)
    for design in range(arrival.shape[1]):
        for replica in range(replicas):
            mine = np.arange(replica, n, replicas)
            done: list[tuple[float, int]] = []
            for position, request in enumerate(mine):
                if position >= share:
                    end, before = heapq.heappop(done)
                    if end > out[request, design]:
                        out[request, design], released_by[request, design] = end, before
                served = not rejected[request, design]
                end = finish[request, design] if served else out[request, design]
                heapq.heappush(done, (float(end), int(request) if served else -1))
    return out, released_by


def _pay(pool: Pool, part: Served, duration: np.ndarray) -> dict[str, np.ndarray]:
    """Return energy, dollars and carbon of a pool for the duration, `[designs]`."""
    bill, chips = pool.bill, pool.chips * pool.replicas
    seconds, fans = chips * duration, 1 + np.asarray(bill.overhead)
    work = part.joules * fans
    idle = seconds * bill.idle
    of_work = (np.asarray(bill.usd_of_work) + bill.water_of_work) * part.joules
    return {
        "chips": chips,
        "dynamic_joules": part.joules,
        "idle_joules": idle,
        "host_joules": (work - part.joules) + idle * (fans - 1) + seconds * bill.host,
        "usd": (seconds * np.asarray(bill.usd.total) + of_work) / 1e6,
        "gco2e": (seconds * np.asarray(bill.carbon.total) + np.asarray(bill.carbon_of_work) * part.joules)
        / 1e6,
    }


def _timeline(main: Served, pool: Pool, arrival: np.ndarray, admitted: np.ndarray, batched: Any) -> Timeline:
    """Return the averages over intervals of time, of equal length for a design."""
    edges = np.linspace(0, np.maximum(main.end, 1e-9), BINS + 1)
    width = np.diff(edges, axis=0)
    running, pages = main.timeline / width
    waiting = np.zeros_like(running)
    for design in range(running.shape[1]):
        # Time that requests wait in each bin: the integral of arrivals less admissions.
        came, went = np.sort(arrival[:, design]), np.sort(admitted[:, design])
        at = edges[:, design, None]
        inside = [np.maximum(at - t[np.isfinite(t)], 0).sum(1) for t in (came, went)]
        waiting[:, design] = np.diff(inside[0] - inside[1]) / width[:, design]
    return Timeline(
        batched(edges), batched(running), batched(pages * pool.block), batched(np.maximum(waiting, 0))
    )
