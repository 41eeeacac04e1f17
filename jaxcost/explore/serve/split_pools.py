"""Separate prefill and decode pools, sized so that both serve the same rate of requests.

Symbols: g_p and g_d data-parallel ranks of a replica of each pool; q prompts of a prefill step; I seconds between two
such steps of a rank, and L >= I seconds of one through all pipeline stages; b sequences that a rank decodes, d seconds
per token; o output tokens, the first of which is of the prefill pool; x and y replicas of the prefill and the decode
pool; u_p the largest utilisation of the prefill pool, and u_d that of the b places of a decode rank; K seconds to
transfer the cache of a prompt between two ranks.

    S = max(I / q, K),   lambda = u_d y g_d b / ((o - 1) d),   x = lambda S / (u_p g_p),   K lambda <= y g_d
    TTFT = frontend_latency + W + L + K,   TPOT = d

The time d is that of all b sequences. W is the wait of `queueing.queue` for one of x g_p servers that a prompt occupies
for S. Without a limit of chips, y = 1 and x is a fraction: the ratio of the pools of a large deployment, with the wait
of one decode replica. With a limit, x and y are whole, x rounded up, and y is that with the most tokens per second and
chip.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxcost.core.arrays import align, batch_shape, spread
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.evaluation import evaluate
from jaxcost.explore.serve.closed_loops import computed_tokens
from jaxcost.explore.serve.memory_fit import fill_requests
from jaxcost.explore.serve.queueing import queue
from jaxcost.explore.serve.service import transfer_seconds
from jaxcost.physics.compute.shards import layer_count
from jaxcost.schedule import context_tokens
from jaxcost.spec.kernels import EngineOverheads
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic
from jaxcost.step_cost import is_narrow, prompt_seconds

__all__ = ["Pool", "PoolPairs", "PrefillStep", "evaluate_prefill", "match_pools"]

_ROUNDING = 1e-6  # relative: a number of replicas this much above a whole one is that


@pytree
class PrefillStep:
    """A prefill step of one rank, all of whose sequences are prompts."""

    latency: Scalar = field("s", "time of the step through all pipeline stages")
    interval: Scalar = field("s", "time between two such steps")
    transfer: Scalar = field("s", "transfer of the cache of one prompt to or from a rank of the plan")
    frontend: Scalar = field("s", "time of a request outside steps")
    slots: Scalar = field("1", "prompts of a rank that fit in memory")


@dataclasses.dataclass(frozen=True)
class Pool:
    """Candidates for the replicas of a pool, each array [n].

    Attributes:
        chips: chips of a replica.
        ranks: data-parallel ranks of a replica.
        seconds: time that a request occupies a rank; of a decode pool, over the sequences that it decodes.
        transfer: time to transfer the cache of a request, s.
        latency: time of a prefill step and of the request outside steps, s; 0 in a decode pool.
        precision: number of the precision; only pools of equal precision are paired.
        utilization: largest share of time that ranks are busy; in a decode pool, mean share of its sequences.
    """

    chips: np.ndarray
    ranks: np.ndarray
    seconds: np.ndarray
    transfer: np.ndarray
    latency: np.ndarray
    precision: np.ndarray
    utilization: np.ndarray


@dataclasses.dataclass(frozen=True)
class PoolPairs:
    """The best prefill pool of every candidate for the decode pool, each array [decode candidates].

    Attributes:
        prefill: index of the candidate for the prefill pool, -1 where none can be paired.
        replicas: replicas of the decode pool.
        prefill_replicas: replicas of the prefill pool.
        rate: requests per second of the deployment.
        chips: chips of both pools.
        ttft: mean time to first token, s.
        pairs: number of pairs that were compared, with any number of replicas.
    """

    prefill: np.ndarray
    replicas: np.ndarray
    prefill_replicas: np.ndarray
    rate: np.ndarray
    chips: np.ndarray
    ttft: np.ndarray
    pairs: int


@program(static_argnames=("features",))
def evaluate_prefill(
    system: System, model: Model, traffic: Traffic, plan: Plan, prompts: Scalar, features: tuple[str, ...]
) -> PrefillStep:
    """Evaluate a step of a prefill pool with a number of prompts in every data-parallel rank, `[*batch]`."""
    shape = batch_shape((system, model, traffic, plan, prompts))
    system, model, traffic, plan, prompts = align((system, model, traffic, plan, prompts))
    kernels = system.chip.efficiency.kernels
    engine = EngineOverheads() if kernels is None else kernels.engine
    alone = replace(plan, chunk=jnp.zeros_like(plan.chunk), microbatches=jnp.ones_like(plan.microbatches))
    loaded = replace(traffic, batch=plan.dp * prompts, output=jnp.ones_like(traffic.output))
    report = evaluate(system, model, loaded, alone, features=features)
    s = report.schedule
    step = prompt_seconds(engine, report.prefill.total, layer_count(model), is_narrow(plan))
    pool = system, plan
    computed = computed_tokens(traffic)
    _, slots = fill_requests(
        system, model, alone, context=context_tokens(traffic), prompt=prompts * computed, features=features
    )
    step_of_rank = PrefillStep(
        latency=s.prefill_runs * step,
        interval=s.prefill_steps * s.interval / plan.pp * step,
        transfer=transfer_seconds(model, traffic, pool, pool),
        frontend=engine.frontend_latency,
        slots=slots,
    )
    return spread(step_of_rank, shape)


def match_pools(
    decode: Pool,
    prefill: Pool,
    *,
    variation: float,
    ttft_target: float = 0.0,
    chips: float | None = None,
) -> PoolPairs:
    """Choose the prefill pool and the replicas for every candidate of the decode pool.

    The choice has the most requests per second and chip among those within the TTFT target; where none is, the
    smallest TTFT.

    Args:
        decode: candidates for the decode pool.
        prefill: candidates for the prefill pool.
        variation: squared coefficient of variation of the time of a prefill.
        ttft_target: longest mean time to first token, s; 0 for none.
        chips: most chips of both pools, with whole replicas; None for a ratio of the pools, with one decode replica.
    """
    shape = len(decode.chips), len(prefill.chips)
    service = np.maximum(prefill.seconds, prefill.transfer)
    capacity = prefill.utilization * prefill.ranks / service  # requests/s of a prefill replica
    each = decode.utilization * decode.ranks / decode.seconds  # requests/s of a decode replica
    possible = decode.precision[:, None] == prefill.precision
    possible &= (decode.transfer <= decode.seconds)[:, None]
    transfer = np.maximum(decode.transfer[:, None], prefill.transfer)
    best = np.full(shape[0], -np.inf)
    index, replicas = np.full(shape[0], -1), np.zeros(shape[0])
    out = {name: np.zeros(shape[0]) for name in ("prefill_replicas", "rate", "chips", "ttft")}
    most = 1 if chips is None else int(chips // max(float(decode.chips.min(initial=chips)), 1.0))
    for count in range(1, most + 1):
        rate = np.broadcast_to((count * each)[:, None], shape)
        needed = rate / capacity
        if chips is not None:
            needed = np.maximum(np.ceil(needed * (1 - _ROUNDING)), 1)
        total = count * decode.chips[:, None] + needed * prefill.chips
        servers = np.maximum(needed * prefill.ranks, 1)
        load = rate / (needed * prefill.ranks) * servers  # of a fraction of a server, the load of one
        wait = np.asarray(
            _mean_wait(*(np.broadcast_to(x, shape) for x in (load, service, servers)), variation)
        )
        ttft = prefill.latency + wait + transfer
        fits = possible & (total <= (np.inf if chips is None else chips))
        in_time = (ttft <= ttft_target) | (ttft_target == 0)
        # Pairs that are too slow come after all others, the fastest first token first.
        score = np.where(fits, np.where(in_time, rate / total, -ttft), -np.inf)
        at = np.argmax(score, 1) if shape[1] else np.zeros(shape[0], int)
        rows = np.arange(shape[0])
        better = score[rows, at] > best
        best = np.where(better, score[rows, at], best)
        index, replicas = np.where(better, at, index), np.where(better, count, replicas)
        values = {"prefill_replicas": needed, "rate": rate, "chips": total, "ttft": ttft}
        out = {name: np.where(better, values[name][rows, at], out[name]) for name in out}
    return PoolPairs(prefill=index, replicas=replicas, pairs=int(possible.sum()), **out)


@program
def _mean_wait(rate: Scalar, service: Scalar, servers: Scalar, variation: Scalar) -> Scalar:
    return queue(rate, service, servers, variation).mean
