"""The front of tokens per second and chip against tokens per second and user: what a system can serve at which speed.

A candidate is a plan, a precision and a number of sequences of each data-parallel rank. All are evaluated together, in
the steady state of users who wait for each answer (`closed_loop`), where prompts are mixed into decode steps:

    tokens per second and user = 1 / TPOT
    tokens per second and chip = users x output / (TTFT + (output - 1) TPOT) / chips

With separate pools for prefill and decode (`split_pools`) every candidate decodes without prompts, and the chips of the
prefill pool that serves it count too. Candidates whose sequences do not fit in memory at full length are left out.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, replace
from jaxcost.evaluation import design_features, evaluate
from jaxcost.explore.analysis import DEGREES, divisors, with_degrees
from jaxcost.explore.serve.closed_loops import ClosedLoop, closed_loop
from jaxcost.explore.serve.memory_fit import whole_requests
from jaxcost.explore.serve.serving_points import LIMITS, ServingFront
from jaxcost.explore.serve.split_pools import Pool, PrefillStep, evaluate_prefill, match_pools
from jaxcost.physics.compute.draft import require_draft
from jaxcost.physics.compute.roofline import LEGS
from jaxcost.physics.compute.shards import can_shard
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["DECODE_UTILIZATION", "PREFILL_UTILIZATION", "serving_front", "serving_plans"]

# Shares of the rates that pools reach on their own, by which NVIDIA AIConfigurator matches them ("rate-matching
# degradation factors" of aiconfigurator/sdk/picking.py, 2026): prefill for gaps between prompts, decode for batches
# that are not full.
PREFILL_UTILIZATION = 0.9
DECODE_UTILIZATION = 0.92

# Candidates of one call. Padded to one size, as every size is traced anew in 1.6 s; a call of 1,024 takes 45 ms on two
# cores.
_CHUNK = 1024
_FRONT_CHUNK = 64
_LOWER = (1.0, 0.75, 0.5)  # shares of the utilisation of a prefill pool that are tried under a TTFT target
_STEPS = (1.0, 1.5)  # batches of each octave


def serving_plans(
    chips: int, *, fixed: Mapping[str, float] | None = None, experts: bool = True
) -> np.ndarray:
    """List the degrees (tp, pp, cp, dp, ep) of one replica on a divisor of a number of chips, shape [plans, 5].

    The data-parallel ranks of a replica share experts: dp is 1, or ep = tp x dp. More ranks are replicas, which change
    neither the tokens per second of a user nor of a chip. Without a fixed number cp is 1. The fewest chips come first.

    Args:
        chips: chips of the system.
        fixed: degrees that all plans have, by name.
        experts: whether the model has routed experts; without, dp and ep are 1.
    """
    fixed = dict(fixed or {})
    if unknown := set(fixed) - set(DEGREES):
        raise ValueError(f"no degree {min(unknown)!r}; there are {', '.join(DEGREES)}")
    plans = []
    for used in divisors(chips):
        for tp in divisors(used):
            for pp in divisors(used // tp):
                for cp in divisors(used // tp // pp):
                    dp = used // (tp * pp * cp)
                    for ep in divisors(tp * dp):
                        plan: dict[str, int] = dict(zip(DEGREES, (tp, pp, cp, dp, ep), strict=True))
                        shared = dp == 1 or ep == tp * dp or "dp" in fixed
                        allowed = shared and (cp == 1 or "cp" in fixed)
                        if not experts:
                            allowed &= ep == 1 and (dp == 1 or "dp" in fixed)
                        if allowed and all(plan[name] == value for name, value in fixed.items()):
                            plans.append(tuple(plan.values()))
    ordered = sorted(plans, key=lambda p: (p[0] * p[1] * p[2] * p[3], p[1], p[2], p[3], p[4]))
    return np.asarray(ordered, np.float64).reshape(-1, len(DEGREES))


def serving_front(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan | Mapping[str, Plan] | None = None,
    *,
    degrees: np.ndarray | None = None,
    max_batch: int = 1024,
    split: bool = False,
    chips: float | None = None,
    prefill_utilization: float = PREFILL_UTILIZATION,
    decode_utilization: float = DECODE_UTILIZATION,
) -> ServingFront:
    """Return the front of tokens per second and chip against tokens per second and user.

    Batches are 1, 2, 3, 4, 6, 8, 12, ... sequences of a data-parallel rank up to `max_batch`, the engine's limit and
    memory, and the largest that fits. A host function of one system; the evaluations in it are batched. A thousand
    candidates take about 0.05 s, after about 4 s of tracing in a process.

    Args:
        system: chips, links and hosts; plans use its chips or a divisor of their number.
        model: the language model.
        traffic: prompt and output lengths, variation; points beyond its targets of TTFT and TPOT are not on the front.
            Batch and rate are ignored.
        plan: precisions and engine: one plan, or several by the name of the precision. Degrees and chunk are ignored.
        degrees: tp, pp, cp, dp, ep of each plan [plans, 5]; None for all of `serving_plans`.
        max_batch: most sequences of a data-parallel rank.
        split: whether to add separate prefill and decode pools, each of replicas of these plans.
        chips: most chips of a deployment with separate pools, whose replicas are then whole numbers; None for the ratio
            of the pools of a large deployment, with a fraction of a prefill replica for each decode replica.
        prefill_utilization: largest share of time that prefill pools are busy, in (0, 1).
        decode_utilization: mean sequences of a decode pool over its batches, in (0, 1]; steps take the time of
            full batches.

    Raises:
        ValueError: fewer than 2 output tokens, no plan, or a number out of range.
    """
    named = {"": Plan()} if plan is None else {"": plan} if isinstance(plan, Plan) else dict(plan)
    _check(traffic, named, model, max_batch, prefill_utilization, decode_utilization)
    if degrees is None:
        degrees = serving_plans(max(round(float(system.chips)), 1), experts=float(model.experts.layers) > 0)
    degrees = np.asarray(degrees, np.float64).reshape(-1, len(DEGREES))
    search = _Search(system, model, traffic, tuple(named), tuple(named.values()))
    valid = search.shardable(degrees)
    degrees, precisions = degrees[valid], len(named)
    layouts = _Layouts(np.tile(degrees, (precisions, 1)), np.repeat(np.arange(precisions), len(degrees)))
    alone = search.loops(layouts, layouts.ranks)
    slots = np.where(alone.memory >= 0, whole_requests(alone.slots, layouts.ranks) / layouts.ranks, 0)
    engine = float(next(iter(named.values())).engine.sequences)
    limit = min(max_batch, engine) if engine > 0 else max_batch
    at, batch, unfit = _batches(slots, limit)
    mixed, points = search.mixed(layouts.take(at), batch, slots[at])
    unpaired, evaluated = 0, len(layouts.ranks) + len(batch)
    if split and len(points["batch"]):
        added, unpaired, pairs = search.split(
            mixed, points, layouts, (prefill_utilization, decode_utilization), chips
        )
        points = {name: np.concatenate([points[name], added[name]]) for name in points}
        evaluated += pairs
    within = np.ones(len(points["batch"]), bool)
    for name in ("ttft", "tpot"):
        target = float(getattr(traffic, f"{name}_target"))
        within &= (points[name] <= target) | (target <= 0)
    result = ServingFront(
        precisions=tuple(named),
        plans=tuple(named.values()),
        **points,
        front=np.zeros(0, int),
        limits=(),
        in_time=within,
        invalid=int(np.sum(~valid)),
        unfit=unfit,
        unpaired=unpaired,
        evaluated=evaluated,
    )
    front = result.front_of(np.ones_like(within))
    return dataclasses.replace(result, front=front, limits=search.limits(result, front))


def _check(
    traffic: Traffic, plans: Mapping[str, Plan], model: Model, max_batch: int, prefill: float, decode: float
) -> None:
    if not plans:
        raise ValueError("a serving front needs a plan")
    for plan in plans.values():
        require_draft(model, plan)
    if float(traffic.output) < 2:
        raise ValueError("the time per output token needs at least 2 output tokens")
    if max_batch < 1:
        raise ValueError(f"max_batch must be at least 1, not {max_batch}")
    if not 0 < prefill < 1:
        raise ValueError(f"prefill_utilization must be in (0, 1), not {prefill}")
    if not 0 < decode <= 1:
        raise ValueError(f"decode_utilization must be in (0, 1], not {decode}")


def _batches(slots: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the batches of every layout up to its slots, as (index of the layout, batch), and how many do not fit."""
    octaves = 2.0 ** np.arange(np.ceil(np.log2(limit)) + 1)
    grid = np.unique(np.floor(np.outer(octaves, _STEPS)))
    grid = np.unique(np.append(grid[grid <= limit], np.floor(limit)))
    unfit = int(np.sum(grid > slots[:, None]))
    rows = [
        np.unique(np.append(grid[grid <= s], min(s, np.floor(limit)))) if s >= 1 else grid[:0] for s in slots
    ]
    at = np.repeat(np.arange(len(slots)), [len(row) for row in rows])
    return at, np.concatenate(rows) if rows else np.zeros(0), unfit


@dataclasses.dataclass(frozen=True)
class _Layouts:
    """Degrees and precision of replicas, along the first axis."""

    degrees: np.ndarray
    precision: np.ndarray

    @property
    def ranks(self) -> np.ndarray:
        return self.degrees[:, DEGREES.index("dp")]

    @property
    def chips(self) -> np.ndarray:
        return np.prod(self.degrees[:, :4], 1)  # all but ep

    def take(self, index: np.ndarray) -> "_Layouts":
        return _Layouts(self.degrees[index], self.precision[index])


class _Search:
    """The evaluations of candidates on one system, in chunks of one size."""

    def __init__(
        self, system: System, model: Model, traffic: Traffic, names: Sequence[str], plans: Sequence[Plan]
    ) -> None:
        self.system, self.model, self.names, self.plans = system, model, names, plans
        self.traffic = replace(traffic, batch=1.0, rate=0.0)
        self.features = design_features(system, traffic, plans[0], Knobs())

    def plan(self, layouts: _Layouts) -> Plan:
        """Return the plans of layouts as one, with leaves [layouts]."""
        leaves = lambda *x: x[0] if len(set(map(float, x))) == 1 else np.asarray(x)[layouts.precision]  # noqa: E731
        plan = replace(jax.tree.map(leaves, *self.plans), chunk=0.0)
        # Every leaf that precisions may set is one for each layout, so that one trace serves any set of them.
        wide = {
            f.name: np.broadcast_to(np.asarray(getattr(plan, f.name), float), len(layouts.precision))
            for f in dataclasses.fields(Plan)
            if f.name.endswith("_bits")
        }
        degrees: Any = layouts.degrees.T
        return with_degrees(replace(plan, **wide), degrees)

    def shardable(self, degrees: np.ndarray) -> np.ndarray:
        """Return whether the model can be cut by each row of degrees, on the chips of the system."""
        plan = self.plan(_Layouts(degrees, np.zeros(len(degrees), int)))
        enough = np.prod(degrees[:, :4], 1) <= round(float(self.system.chips))
        return np.asarray(_can_shard(*canonical((self.model, plan)))) & enough

    def loops(self, layouts: _Layouts, users: Any) -> Any:
        """Return the closed loops of layouts with a number of users each: a `ClosedLoop` of NumPy arrays."""

        def evaluate_rows(rows: np.ndarray) -> ClosedLoop:
            plan = self.plan(layouts.take(rows))
            return closed_loop(self.system, self.model, self.traffic, plan, users=users[rows])

        return _in_chunks(evaluate_rows, len(users), _CHUNK) if len(users) else _NO_LOOPS

    def mixed(
        self, layouts: _Layouts, batch: np.ndarray, slots: np.ndarray
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Return the closed loops of candidates without separate pools, and the columns of their points."""
        users = batch * layouts.ranks
        loops = self.loops(layouts, users)
        none = np.zeros(len(batch))
        return loops, {
            "precision": layouts.precision,
            "degrees": layouts.degrees,
            "batch": batch,
            "users": users,
            "chips": layouts.chips,
            "replicas": none + 1,
            "prefill_degrees": np.zeros_like(layouts.degrees),
            "prefill_replicas": none,
            "prefill_prompts": none,
            "ttft": loops.ttft,
            "tpot": loops.tpot,
            "decode_tpot": loops.decode_tpot,
            "tokens_per_second": loops.tokens_per_second,
            "slots": slots,
        }

    def split(
        self,
        loops: Any,
        points: Mapping[str, np.ndarray],
        layouts: _Layouts,
        utilizations: tuple[float, float],
        chips: float | None,
    ) -> tuple[dict[str, np.ndarray], int, int]:
        """Return the columns of points with separate pools, the candidates left without a pool, and the pairs tried."""
        decode = _Layouts(points["degrees"], points["precision"])
        target = float(self.traffic.ttft_target)
        pools, prompts, at, steps = self.prefill_pools(layouts, utilizations[0], target)
        of_layout = {
            (*d, p): t for d, p, t in zip(map(tuple, layouts.degrees), layouts.precision, steps, strict=True)
        }
        transfer = [
            of_layout[*d, p] for d, p in zip(map(tuple, decode.degrees), decode.precision, strict=True)
        ]
        output = float(self.traffic.output)
        pairs = match_pools(
            Pool(
                chips=decode.chips,
                ranks=decode.ranks,
                seconds=(output - 1) * loops.decode_tpot / points["batch"],
                transfer=np.asarray(transfer),
                latency=np.zeros(len(transfer)),
                precision=decode.precision,
                utilization=np.full(len(transfer), utilizations[1]),
            ),
            pools,
            variation=float(self.traffic.variation),
            ttft_target=target,
            chips=chips,
        )
        kept = np.flatnonzero(pairs.prefill >= 0)
        prefill = layouts.take(at[pairs.prefill[kept]])
        rate, ttft, tpot = pairs.rate[kept], pairs.ttft[kept], loops.decode_tpot[kept]
        columns = {name: column[kept] for name, column in points.items()} | {
            "users": rate * (ttft + (output - 1) * tpot),
            "chips": pairs.chips[kept],
            "replicas": pairs.replicas[kept],
            "prefill_degrees": prefill.degrees,
            "prefill_replicas": pairs.prefill_replicas[kept],
            "prefill_prompts": prompts[pairs.prefill[kept]],
            "ttft": ttft,
            "tpot": tpot,
            "tokens_per_second": rate * output,
        }
        return columns, len(pairs.prefill) - len(kept), pairs.pairs

    def prefill_pools(
        self, layouts: _Layouts, utilization: float, target: float
    ) -> tuple[Pool, np.ndarray, np.ndarray, np.ndarray]:
        """Return the candidates for a prefill pool, the prompts of their steps, and the layout of each.

        The last array is the time to transfer the cache of a request, of every layout.
        """
        budget = float(self.plans[0].engine.step_tokens)
        t = self.traffic
        length = float(t.prompt) * (1 - float(t.prefix_hit)) + float(t.encoder_tokens)
        doublings = max(int(np.log2(budget / max(length, 1))), 0) if budget > length else 0
        count = len(layouts.precision)
        at = np.tile(np.arange(count), doublings + 1)
        prompts = np.repeat(2.0 ** np.arange(doublings + 1), count)
        arguments = canonical((self.system, self.model, self.traffic))

        def evaluate_rows(rows: np.ndarray) -> PrefillStep:
            plan, n = canonical((self.plan(layouts.take(at[rows])), prompts[rows]))
            return evaluate_prefill(*arguments, plan, n, features=self.features)

        steps = _in_chunks(evaluate_rows, len(at), _CHUNK)
        lower = _LOWER if target > 0 else _LOWER[:1]
        # The prompts of a step are in memory while the caches of the last ones are transferred.
        kept = np.tile(np.flatnonzero(steps.slots * (1 + 1e-6) >= 2 * prompts), len(lower))
        pool = layouts.take(at[kept])
        pools = Pool(
            chips=pool.chips,
            ranks=pool.ranks,
            seconds=(steps.interval / prompts)[kept],
            transfer=steps.transfer[kept],
            latency=(steps.latency + steps.frontend)[kept],
            precision=pool.precision,
            utilization=utilization * np.repeat(lower, len(kept) // len(lower)),
        )
        return pools, prompts[kept], at[kept], steps.transfer[:count]

    def limits(self, result: ServingFront, points: np.ndarray) -> tuple[str, ...]:
        """Return which of `LIMITS` takes most of the decode step of points."""
        if not len(points):
            return ()
        layouts = _Layouts(result.degrees[points], result.precision[points])
        batch = result.batch[points] * layouts.ranks
        arguments = canonical((self.system, self.model, self.traffic))

        def evaluate_rows(rows: np.ndarray) -> jax.Array:
            plan, n = canonical((self.plan(layouts.take(rows)), batch[rows]))
            return _decode_legs(*arguments, plan, n, features=self.features)

        seconds = _in_chunks(evaluate_rows, len(points), _FRONT_CHUNK)
        return tuple(LIMITS[leg] for leg in np.argmax(seconds, -1))


def _in_chunks(function: Callable[[np.ndarray], Any], count: int, size: int) -> Any:
    """Apply a function of row numbers [size] to all rows, the last chunk padded with its last row; NumPy results."""
    parts = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        parts.append(jax.device_get(function(rows)))
    return jax.tree.map(lambda *x: np.concatenate(x)[:count].astype(np.float64), *parts)


_can_shard = program(can_shard)
_NO_VALUES: dict[str, Any] = {f.name: np.zeros(0) for f in dataclasses.fields(ClosedLoop)}
_NO_LOOPS = ClosedLoop(**_NO_VALUES)


@program(static_argnames=("features",))
def _decode_legs(
    system: System, model: Model, traffic: Traffic, plan: Plan, batch: Scalar, features: tuple[str, ...]
) -> jax.Array:
    """Return the seconds of a decode step that each of `LIMITS` takes, [*batch, limits].

    The longest leg of an operator is attributed to its resource, and the rest of its time to overhead.
    """
    report = evaluate(system, model, replace(traffic, batch=batch), plan, features=features)
    table = report.decode.operators
    legs = jnp.stack([jnp.asarray(getattr(table, leg)) for leg in LEGS], -1)  # [*batch, operators, legs]
    longest = jnp.max(legs, -1, keepdims=True)
    bound = jnp.asarray(table.binding)[..., None] == np.arange(len(LEGS))
    taken = jnp.where(bound, longest, 0)
    overhead = jnp.maximum(jnp.asarray(table.seconds)[..., None] - longest, 0)
    return jnp.sum(jnp.concatenate([taken, overhead], -1), -2)
