"""Load levels of a benchmark client, predicted twice: in closed form, and by a replay request by request.

A closed loop of c users is that of `jc.closed_loop`, whose share of requests sent at once is c / requests. A rate is
that of `jc.serve`: the steady state of each replica at its part of the rate, where the capacity exceeds the rate.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import replace
from jaxcost.explore.replay.api import replay
from jaxcost.explore.replay.results import Replay
from jaxcost.explore.replay.workloads import synthetic_trace
from jaxcost.explore.serve import closed_loop, serve
from jaxcost.physics.compute.shards import complete_plan
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.trace import Trace, build_trace
from jaxcost.spec.traffic import Traffic

__all__ = ["BENCH_METRICS", "Bench", "bench"]

_TIMES = ("ttft", "tpot", "itl")
_RATES = ("requests_per_second", "tokens_per_second", "tokens_per_second_per_chip")
BENCH_METRICS = (*(f"{s}_{name}" for name in _TIMES for s in ("mean", "p50", "p99")), *_RATES)
_FEWEST, _MOST, _BY_RATE, _PER_USER = 100, 2000, 1000, 10  # requests of a level
_DRAWS = 4096  # pairs of lengths of which those of requests are drawn
_ENOUGH = {"concurrency": 0.9, "rate": 0.95}  # share of the best throughput, or of the rate, at the knee
_NEAR = 0.9  # share of the capacity from which waits depend on the number of requests

Values = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Bench:
    """Latencies and throughput at every load level, `[levels]`, in s and 1/s; NaN where there is none.

    The metrics are mean, p50 and p99 of TTFT, TPOT and ITL, such as `p99_ttft`; requests a second; and output tokens a
    second, in total and per chip. Closed forms have means alone; their ITL is TPOT.
    """

    kind: str  # "concurrency" or "rate"
    loads: np.ndarray  # users, or requests/s
    requests: int  # replayed at each level
    chips: float
    analytic: Values
    replayed: Values
    rejected: np.ndarray  # requests larger than the memory of a replica
    preemptions: np.ndarray
    notes: tuple[tuple[str, ...], ...]  # by level, where the closed form is outside its validity
    slots: float  # requests of mean length that fit in memory, all replicas
    capacity: float  # requests/s of all replicas in closed form; NaN for a closed loop
    table_error: float  # of the step times of the replay
    seconds: float  # that all levels took

    @property
    def ratio(self) -> Values:
        """Analytic over replayed, by metric."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: self.analytic[name] / self.replayed[name] for name in BENCH_METRICS}

    def within(self, *, ttft: float = math.inf, tpot: float = math.inf) -> np.ndarray:
        """Return by level whether the replayed p99 of TTFT and of TPOT are within limits, s, with none rejected."""
        late = (self.replayed["p99_ttft"] > ttft) | (self.replayed["p99_tpot"] > tpot)
        return ~late & np.isfinite(self.replayed["p99_ttft"]) & (self.rejected == 0)

    @property
    def knee(self) -> int | None:
        """Index of the knee of the replayed throughput; None where there is none.

        In a closed loop it is the lowest level with 90% of the largest throughput of all levels; by rate it is the
        highest level that serves 95% of its rate.
        """
        served = self.replayed["requests_per_second"]
        by_rate = self.kind == "rate"
        enough = served >= _ENOUGH[self.kind] * (self.loads if by_rate else np.nanmax(served))
        places = np.flatnonzero(enough)
        places = places[np.argsort(self.loads[places], kind="stable")]
        return int(places[-1 if by_rate else 0]) if len(places) else None


def bench(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    concurrency: Sequence[int] = (),
    rate: Sequence[float] = (),
    requests: int | None = None,
    range_ratio: float = 0.0,
    lengths: Trace | None = None,
    replicas: int = 1,
    seed: int = 0,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Bench:
    """Return what a benchmark client would report at every load level, in closed form and replayed.

    The leaves of all trees are scalars. With a concurrency all requests are sent as soon as fewer are outstanding; with
    a rate they arrive as a Poisson process, scaled so that its mean over the requests is the rate.

    Args:
        system: chips, links and hosts of a replica.
        model: the language model.
        traffic: `prompt` and `output` are the mean lengths, in whole tokens; all else is ignored. Closed forms take the
            means of the lengths that are drawn.
        plan: sharding, precisions and engine of a replica.
        concurrency: outstanding requests of each level of a closed loop.
        rate: requests a second of each level of an open loop, instead.
        requests: requests of every level; None for 10 times the largest concurrency, from 100 to 2000, or 1000 by
            rate. One number for all levels is one program.
        range_ratio: lengths are uniform from (1 - range_ratio) to (1 + range_ratio) times the means, in [0, 1).
        lengths: trace of which pairs of prompt and output are drawn instead.
        replicas: copies of the plan; requests go to them by round robin.
        seed: of lengths and arrivals.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.
        on_progress: function called with the number of levels that are done, from 0.

    Raises:
        ValueError: both or neither of concurrency and rate; a load, a number of requests or a length that is not
            positive, or not whole; a concurrency that replicas cannot share; or what `replay` refuses.
    """
    began = time.perf_counter()
    _check(concurrency, rate, requests, range_ratio, replicas, traffic)
    loads = np.asarray(concurrency or rate, np.float64)
    sizes = lengths or _draw_lengths(traffic, range_ratio, seed)
    count = requests or _default_requests(loads, bool(concurrency))
    complete = complete_plan(plan)
    chips = float(complete.tp * complete.pp * complete.cp * complete.dp) * replicas
    trees = (system, model, plan, knobs)
    closed = bool(concurrency)
    drawn = synthetic_trace(rate=1.0, requests=count, lengths=sizes, seed=seed)
    means = Traffic(prompt=float(drawn.prompt.mean()), output=float(drawn.output.mean()))
    traffic = replace(means, variation=_variation(drawn.output if closed else drawn.prompt))
    find = _closed if closed else _open
    analytic, slots, capacity, notes = find(trees, traffic, loads, count, replicas, chips)
    columns: list[dict[str, float]] = []
    rejected, preempted, error = [], [], 0.0
    for level, load in enumerate(loads):
        if on_progress is not None:
            on_progress(level)
        # Scaled, the arrivals have exactly the rate, so that levels differ by it alone.
        at_once = closed or count == 1
        trace = dataclasses.replace(drawn, arrival=np.zeros(count)) if at_once else drawn.scaled_to(load)
        result = replay(
            system,
            model,
            trace,
            plan,
            replicas=replicas,
            concurrency=int(load) if closed else 0,
            seed=seed,
            prices=prices,
            knobs=knobs,
        )
        columns.append(_measure(result))
        rejected.append(int(np.sum(result.rejected)))
        preempted.append(int(np.nansum(np.where(result.rejected, 0, result.preemptions))))
        error = max(error, float(result.table_error))
        notes[level].extend(_replay_notes(rejected[-1], preempted[-1]))
    return Bench(
        kind="concurrency" if closed else "rate",
        loads=loads,
        requests=count,
        chips=chips,
        analytic=analytic,
        replayed={name: np.asarray([column[name] for column in columns]) for name in BENCH_METRICS},
        rejected=np.asarray(rejected),
        preemptions=np.asarray(preempted),
        notes=tuple(map(tuple, notes)),
        slots=slots,
        capacity=capacity,
        table_error=error,
        seconds=time.perf_counter() - began,
    )


def _check(
    concurrency: Sequence[int],
    rate: Sequence[float],
    requests: int | None,
    range_ratio: float,
    replicas: int,
    traffic: Traffic,
) -> None:
    if bool(len(concurrency)) == bool(len(rate)):
        raise ValueError("either concurrency or rate is expected")
    if not 0 <= range_ratio < 1:
        raise ValueError(f"range_ratio is in [0, 1), not {range_ratio:g}")
    whole = {"replicas": [replicas], "requests": [requests or 1], "concurrency": concurrency}
    whole |= {"prompt": [float(traffic.prompt)], "output": [float(traffic.output)]}
    for name, values in whole.items():
        for value in values:
            if not (value >= 1 and value == int(value)):
                raise ValueError(f"{name} is a whole number of at least 1, not {value:g}")
    for users in concurrency:
        if users % replicas:
            raise ValueError(f"concurrency {users:g} is not a multiple of {replicas} replicas")
    for value in rate:
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"rate is a positive number, not {value:g}")


def _default_requests(loads: np.ndarray, closed: bool) -> int:
    most = float(loads.max())
    return int(min(max(_PER_USER * most, _FEWEST), max(_MOST, most))) if closed else _BY_RATE


def _draw_lengths(traffic: Traffic, ratio: float, seed: int) -> Trace:
    """Return requests with uniformly distributed lengths, whose arrivals are not used."""
    generator = np.random.default_rng(seed)
    lengths = []
    for mean in (float(traffic.prompt), float(traffic.output)):
        low, high = math.floor(mean * (1 - ratio)), math.ceil(mean * (1 + ratio))
        lengths.append(np.maximum(generator.integers(low, high + 1, _DRAWS), 1))
    return build_trace("lengths", np.zeros(_DRAWS), *lengths)


def _variation(lengths: np.ndarray) -> float:
    return float(np.var(lengths) / np.mean(lengths) ** 2)


def _none(levels: int) -> Values:
    return {name: np.full(levels, np.nan) for name in BENCH_METRICS}


def _closed(
    trees: tuple, traffic: Traffic, loads: np.ndarray, requests: int, replicas: int, chips: float
) -> tuple[Values, float, float, list[list[str]]]:
    """Return the metrics of closed loops, the slots of all replicas, no capacity, and notes by level."""
    system, model, plan, knobs = trees
    users, first = jnp.asarray(loads / replicas), jnp.asarray(np.minimum(loads / requests, 1.0))
    loop: Any = closed_loop(system, model, traffic, plan, users=users, first=first, knobs=knobs)
    loop = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(loop))
    values, slots = _none(len(loads)), float(np.max(loop.slots)) * replicas
    if np.min(loop.memory) < 0:
        return values, 0.0, math.nan, [["does not fit: weights and one request exceed memory"] for _ in loads]
    served = loop.tokens_per_second * replicas
    values |= {"mean_ttft": loop.ttft, "mean_tpot": loop.tpot, "mean_itl": loop.tpot}
    values |= _throughput(served / float(traffic.output), traffic, chips)
    notes: list[list[str]] = []
    most = float(np.max(np.asarray(plan.engine.sequences * complete_plan(plan).dp))) * replicas
    for load, waiting in zip(loads, np.broadcast_to(loop.waiting, loads.shape) * replicas, strict=True):
        texts = []
        if waiting >= 0.5:
            texts.append(f"memory is full: {waiting:,.0f} users wait in closed form")
        if 0 < most < min(load, slots):
            texts.append(f"the closed form has no limit of {most:,.0f} sequences, which the engine has")
        notes.append(texts)
    return values, slots, math.nan, notes


def _open(
    trees: tuple, traffic: Traffic, loads: np.ndarray, requests: int, replicas: int, chips: float
) -> tuple[Values, float, float, list[list[str]]]:
    """Return the metrics of rates in steady state, the slots and the capacity of all replicas, and notes by level."""
    del requests  # of a steady state
    system, model, plan, knobs = trees
    traffic = replace(traffic, rate=jnp.asarray(loads / replicas), ttft_target=0.0, tpot_target=0.0)
    service: Any = jax.device_get(serve(system, model, traffic, plan, knobs=knobs))
    spread = lambda x: np.broadcast_to(np.asarray(x, np.float64), loads.shape)  # noqa: E731
    values = _none(len(loads))
    capacity = float(np.min(spread(service.largest_rate))) * replicas
    slots = float(np.max(spread(service.slots))) * replicas
    if np.min(spread(service.margins.memory)) < -1e-4:
        return values, 0.0, 0.0, [["does not fit: weights and one request exceed memory"] for _ in loads]
    over = (spread(service.replicas) > 1) | (loads > capacity)
    ttft, tpot = (np.where(over, np.nan, spread(x)) for x in (service.ttft, service.tpot))
    values |= {"mean_ttft": ttft, "mean_tpot": tpot, "mean_itl": tpot}
    values |= _throughput(np.where(over, capacity, loads), traffic, chips)
    notes: list[list[str]] = []
    for load, beyond in zip(loads, over, strict=True):
        near = not beyond and load > _NEAR * capacity
        text = "overload: no steady state, the replay depends on the number of requests"
        close = "near capacity: waits depend on the number of requests"
        notes.append([text] if beyond else [close] if near else [])
    return values, slots, capacity, notes


def _throughput(requests_per_second: np.ndarray, traffic: Traffic, chips: float) -> Values:
    tokens = requests_per_second * float(traffic.output)
    return dict(zip(_RATES, (requests_per_second, tokens, tokens / chips), strict=True))


def _measure(result: Replay) -> dict[str, float]:
    """Return the metrics of a replay; NaN where it served no request."""
    if not int(result.completed):
        return dict.fromkeys(BENCH_METRICS, math.nan)
    values: dict[str, float] = {}
    for name in _TIMES:
        values[f"mean_{name}"] = float(result.mean(name))
        values |= {f"p{q}_{name}": float(result.percentile(name, q)) for q in (50, 99)}
    served = float(result.completed / result.duration)
    rates = (served, float(result.tokens_per_second), float(result.tokens_per_second_per_chip))
    values.update(zip(_RATES, rates, strict=True))
    return values


def _replay_notes(rejected: int, preemptions: int) -> list[str]:
    notes = [f"{rejected:,} requests are larger than memory"] if rejected else []
    return notes + ([f"{preemptions:,} preemptions, which the closed form has not"] if preemptions else [])
