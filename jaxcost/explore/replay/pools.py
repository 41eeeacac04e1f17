"""The engine replicas of a replay: limits, step tables and bills of every design, in NumPy, `[designs]`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import batch_shape
from jaxcost.core.pytree import Scalar, replace
from jaxcost.evaluation import design_features
from jaxcost.explore.replay.step_tables import Grid, StepTables, choose_grid, make_checked_tables
from jaxcost.explore.serve import Bill, MemoryFit, evaluate_point, fit
from jaxcost.physics.compute.shards import complete_plan
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.trace import Trace
from jaxcost.spec.traffic import Traffic

__all__ = ["Pool", "Workload", "build_pool", "swap_seconds"]

_UNLIMITED = 2**30


class Workload(NamedTuple):
    """What the step tables of a pool must cover."""

    traffic: Traffic  # mean lengths, for the placement of data
    context: tuple[float, float]  # fewest and most tokens of a sequence
    requests: int
    longest_step: float  # most prompt tokens that a step without a budget may have

    @property
    def mean_context(self) -> Scalar:
        """Mean tokens of a sequence at full length."""
        return self.traffic.prompt + self.traffic.output

    @classmethod
    def of(cls, trace: Trace, *, decodes: bool = True) -> "Workload":
        """Return the workload of a trace; with `decodes` false of its prompts alone."""
        output = trace.output if decodes else np.ones_like(trace.output)
        whole = trace.prompt + output
        return cls(
            traffic=Traffic(prompt=float(trace.prompt.mean()), output=float(output.mean())),
            context=(float(trace.prompt.min()), float(whole.max())),
            requests=trace.requests,
            longest_step=float(min(trace.prompt.sum(), 8 * trace.prompt.max())),
        )


class Pool(NamedTuple):
    """Replicas of one plan. Limits are `[designs]`; all data-parallel ranks of a replica run in lockstep."""

    replicas: int
    grid: Grid
    tables: StepTables  # by design, [2, *knots, designs]
    table_error: float
    budget: np.ndarray
    sequences: np.ndarray
    mixed: np.ndarray
    block: np.ndarray
    pages: np.ndarray
    reserve: np.ndarray
    swap: np.ndarray
    swap_seconds: np.ndarray
    drafts: np.ndarray
    acceptance: np.ndarray
    frontend: np.ndarray  # s that a request spends outside steps
    chips: np.ndarray  # of one replica
    bill: Bill


def build_pool(
    system: System,
    model: Model,
    plan: Plan,
    workload: Workload,
    *,
    replicas: int,
    prices: Prices,
    knobs: Knobs,
    most_sequences: int,
    fineness: int,
) -> Pool:
    """Evaluate what a replay needs to know of a pool.

    Args:
        system: chips, links and hosts; leaves `[]` or `[designs]`, as those of all trees.
        model: the language model.
        plan: plan of one replica.
        workload: what the tables must cover.
        replicas: number of replicas.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.
        most_sequences: most sequences of a step that the tables cover.
        fineness: of the tables, as in `choose_grid`.
    """
    shape = batch_shape((system, model, plan, prices, knobs))
    count = shape[0] if shape else 1

    def column(x: Any) -> np.ndarray:
        return np.broadcast_to(np.asarray(x, np.float64), (count,))

    engine, complete = plan.engine, complete_plan(plan)
    ranks = column(complete.dp)
    memory = jax.device_get(fit(system, model, plan, context=workload.mean_context))
    block = column(engine.block)
    pages = np.floor(np.maximum(column(memory.kv_tokens), 0) / block)
    limit = lambda x: np.where(column(x) > 0, column(x) * ranks, _UNLIMITED)  # noqa: E731
    budget, sequences = limit(engine.step_tokens), limit(engine.sequences)
    roomiest = float(np.max(np.minimum(sequences, np.maximum(pages * block / workload.context[0], 1))))
    grid = choose_grid(
        sequences=max(min(roomiest, most_sequences), 1),
        context=workload.context,
        tokens=float(np.max(np.minimum(budget, workload.longest_step))),
        fineness=fineness,
    )
    traffic = replace(workload.traffic, batch=ranks if shape else float(ranks[0]))
    tables, error = make_checked_tables(system, model, traffic, plan, grid, knobs=knobs)
    moves = column(swap_seconds(system, memory))
    if np.any((column(engine.swaps) > 0.5) & (moves == 0)):
        raise ValueError("the engine swaps preempted requests to host memory, but the chip has no host tier")
    features, kernels = design_features(system, traffic, plan, knobs), system.chip.efficiency.kernels
    point = evaluate_point(system, model, traffic, plan, prices, knobs, features, 1.0)
    return Pool(
        replicas=replicas,
        grid=grid,
        tables=jax.tree.map(lambda x: _by_design(x, bool(shape), count), tables),
        table_error=error,
        budget=budget,
        sequences=sequences,
        mixed=column(engine.mixed),
        block=block,
        pages=np.minimum(pages, _UNLIMITED),
        reserve=column(engine.reserved_output),
        swap=column(engine.swaps),
        swap_seconds=moves,
        drafts=column(plan.draft_length),
        acceptance=column(_acceptance(plan)),
        # Launches of prompts are part of the tables.
        frontend=column(0.0 if kernels is None else kernels.engine.frontend_latency),
        chips=column(complete.tp * complete.pp * complete.cp * complete.dp),
        bill=jax.tree.map(column, jax.device_get(point.bill)),
    )


def _by_design(table: Any, batched: bool, count: int) -> np.ndarray:
    table = np.asarray(table, np.float64)
    return table if batched else np.repeat(table[..., None], count, -1)


def swap_seconds(system: System, memory: MemoryFit) -> Scalar:
    """Return the seconds to move a token's cache on a chip to or from host memory; 0 where a chip has no such tier."""
    bandwidth = jnp.asarray(system.chip.host.bandwidth)
    return smooth.safe_div(memory.request_bytes / memory.context, bandwidth)


def _acceptance(plan: Plan) -> Any:
    """Return the probability that a draft is accepted, from `plan.accepted` where that is stated."""
    drafts, stated = np.asarray(plan.draft_length, float), np.asarray(plan.accepted, float)
    given = np.asarray(plan.acceptance, float)
    drafts, stated, given = np.broadcast_arrays(drafts, stated, given)
    low, high = np.zeros(drafts.shape), np.ones(drafts.shape)
    for _ in range(50):  # 1 + p + ... + p^drafts rises with p
        middle = (low + high) / 2
        tokens = sum(np.where(j <= drafts, middle**j, 0) for j in range(int(drafts.max(initial=0)) + 1))
        low, high = np.where(tokens < stated, middle, low), np.where(tokens < stated, high, middle)
    return np.where(stated > 0, (low + high) / 2, given)
