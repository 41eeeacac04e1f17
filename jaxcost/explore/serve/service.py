"""Size a deployment for a rate of requests within latency targets, and evaluate its cost.

The largest rate of a replica within memory and targets gives the number of replicas. Their steady state at the rate
that each then receives gives latencies, utilisations and the cost of a token.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import align, batch_shape, spread
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree, replace
from jaxcost.evaluation import design_features
from jaxcost.explore.analysis import candidate_columns, is_valid, system_plans, take_candidate, with_degrees
from jaxcost.explore.compilation import chunk_of, map_chunks
from jaxcost.explore.serve.deployment import FirstToken, Joules, Service, ServiceMargins
from jaxcost.explore.serve.operating_point import OperatingPoint, find_operating_point
from jaxcost.explore.serve.queueing import Wait, busy_share, queue
from jaxcost.explore.serve.steady_state import (
    Bill,
    LoadPoint,
    Replica,
    SteadyState,
    crossing,
    evaluate_point,
    solve_steady_state,
)
from jaxcost.physics.compute.draft import require_draft
from jaxcost.physics.compute.shards import complete_plan, microbatches, shard
from jaxcost.physics.economics.carbon import Carbon
from jaxcost.physics.economics.tco import Cost
from jaxcost.physics.memory.capacity import memory_use
from jaxcost.schedule import billed_tokens
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["best_service", "serve", "transfer_seconds"]

_ROUNDING = 1e-4  # tolerance of a margin that is 0 at the largest rate
_MOST_SERVERS = 10.0  # most doublings of the number of servers that is needed without waiting


@pytree
class _Pool:
    """A prefill pool before it is sized."""

    point: LoadPoint = field(doc="one request in each server of a replica")
    servers: Scalar = field("1", "prefills that run in parallel in a replica: dp")
    chips: Scalar = field("1", "chips of a replica")
    transfer: Scalar = field("s", "transfer of the cache to the replica that decodes")


def serve(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan | Literal["auto"],
    *,
    prefill: tuple[System, Plan] | None = None,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
) -> Service:
    """Size a deployment for `traffic.rate` requests a second within the targets, and evaluate it at that load.

        replicas = ceil(rate / largest rate of a replica),   chip-seconds per token = chips / (rate x output)

    The hardware is owned for the whole time at this load. The dynamic energy of a request is that of its prefill and of
    its share of decode steps. The equations are in `steady_state.py` and `queueing.py`. Targets apply to the means;
    `goodput` counts the requests that meet them. Without a rate (0) the result is one replica at its largest rate.
    Without a target for the first token, only utilisation limits the waits.

    Where even an idle replica violates memory or a target, a margin is negative and the deployment is sized for one
    request at a time per replica. Pure and traceable as `evaluate`. The number of replicas is whole at tau = 0, with
    the gradient of the quotient.

    Args:
        system: chips, links and hosts of a replica; the deployment has as many replicas as needed.
        model: the language model.
        traffic: prompt and output lengths, rate, variation and targets; `batch` is ignored.
        plan: sharding and precisions of a replica. With a chunk, prefill is mixed into decode steps; without, it has
            priority over them. "auto" takes the plan of the system's chips with the least dollars per token, at 16 bits
            (`best_service`).
        prefill: system and plan of a separate prefill pool (disaggregated prefill). The chunks of both plans are then
            ignored.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.

    Raises:
        ValueError: `plan` is a string other than "auto", or drafts where neither it nor the model has what drafts.
    """
    if isinstance(plan, str):
        if plan != "auto":
            raise ValueError(f'plan must be a Plan or "auto", not {plan!r}')
        return best_service(system, model, traffic, prefill=prefill, prices=prices, knobs=knobs)
    require_draft(model, plan)
    return _prepared(system, model, traffic, plan, prefill, prices, knobs, None)


def best_service(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan | None = None,
    *,
    prefill: tuple[System, Plan] | None = None,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
) -> Service:
    """Serve with the cheapest of all plans of a system's chips: `serve` with "auto", at any precisions.

    Among the valid plans (`is_valid`), the one with the least dollars per token that satisfies all margins is chosen;
    where none does, the cheapest that satisfies all margins but power; else the one with the largest worst margin.
    Where no plan is valid, the result is that of the first plan and is meaningless.

    Args:
        system: the system of a replica; its plan uses all chips. A traced number of chips must be a power of two up
            to 64.
        model: the language model.
        traffic: as for `serve`.
        plan: everything but the degrees of sharding; None for the defaults of `Plan`.
        prefill: as for `serve`.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.
    """
    return _prepared(system, model, traffic, plan or Plan(), prefill, prices, knobs, system_plans(system))


def _prepared(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    prefill: tuple[System, Plan] | None,
    prices: Prices | None,
    knobs: Knobs | None,
    candidates: np.ndarray | None,
) -> Service:
    arguments = canonical((system, model, traffic, plan, prices or Prices(), knobs or Knobs(), prefill))
    dtype = jnp.result_type(arguments[0].chips)
    degrees = None if candidates is None else jnp.asarray(candidates, dtype)
    knobs = arguments[5]
    features = design_features(system, traffic, plan, knobs)
    in_pool = () if prefill is None else design_features(prefill[0], traffic, prefill[1], knobs)
    return _serve(*arguments, degrees, features=features, in_pool=in_pool)


@program(static_argnames=("features", "in_pool"))
def _serve(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    prices: Prices,
    knobs: Knobs,
    prefill: tuple[System, Plan] | None,
    candidates: jax.Array | None,
    *,
    features: tuple[str, ...],
    in_pool: tuple[str, ...],
) -> Service:
    point = None
    if prefill is not None:
        prefill = (prefill[0], replace(prefill[1], chunk=jnp.zeros_like(plan.chunk)))
        point = evaluate_point(prefill[0], model, traffic, prefill[1], prices, knobs, in_pool, 1.0)

    def with_plan(plan: Plan) -> Service:
        pool = None
        if prefill is not None and point is not None:
            pool = _Pool(
                point=point,
                servers=complete_plan(prefill[1]).dp,
                chips=_chips(complete_plan(prefill[1])),
                transfer=transfer_seconds(model, traffic, (system, plan), prefill),
            )

        def at(requests: Scalar, chunk: Scalar) -> LoadPoint:
            laid_out = replace(plan, chunk=chunk)
            return evaluate_point(system, model, traffic, laid_out, prices, knobs, features, requests)

        return _with_plan(traffic, complete_plan(plan), knobs.tau, at, pool)

    if candidates is None:
        return with_plan(plan)

    shape = batch_shape((system, model, traffic, plan, prices, knobs, prefill))

    def judge(degrees: jax.Array) -> tuple[Service, Scalar]:
        candidate = with_degrees(plan, candidate_columns(degrees, shape))
        fullest = replace(traffic, batch=candidate.dp * microbatches(candidate))
        valid = is_valid(*align((system, model, fullest, candidate)))
        return spread((with_plan(candidate), valid), (len(degrees), *shape))

    services, valid = map_chunks(judge, candidates, chunk_of("plans", shape))
    best = _choose(services, valid)
    return jax.tree.map(lambda x: take_candidate(x, best), services)


def _choose(services: Service, valid: Scalar) -> jax.Array:
    """Return the index of the best candidate along the first axis, in the order that `best_service` states."""
    largest = jnp.finfo(jnp.result_type(services.rate)).max
    m = services.margins
    cool = valid & (replace(m, power=jnp.ones_like(m.power)).worst >= -_ROUNDING)
    feasible = cool & (m.power >= -_ROUNDING)
    allowed = jnp.where(jnp.any(feasible, 0), feasible, cool)
    cheapest = jnp.where(allowed, services.usd_per_mtok, largest)
    least_wrong = jnp.where(valid, -m.worst, largest)
    return jnp.argmin(jnp.where(jnp.any(allowed, 0), cheapest, least_wrong), 0)


def _with_plan(
    traffic: Traffic, plan: Plan, tau: Scalar, at: Callable[[Scalar, Scalar], LoadPoint], pool: _Pool | None
) -> Service:
    parts = microbatches(plan)
    budget = plan.engine.step_tokens
    # An engine with mixed steps computes prompts in chunks of its token budget.
    if pool is None:
        mixes = (plan.chunk == 0) & (plan.engine.mixed > 0.5)
        plan = replace(plan, chunk=jnp.where(mixes, budget, plan.chunk))
    chunked = jnp.where(plan.chunk > 0, 1, 0)
    alone = jnp.zeros_like(plan.dp) if pool is None else jnp.ones_like(plan.dp)
    replica = Replica(
        groups=plan.dp * parts,
        servers=plan.dp * jnp.where(chunked, parts, 1),
        slots=plan.dp,
        full=jnp.zeros_like(plan.dp),
        variation=traffic.variation,
        burst=jnp.where(chunked, 0, 1 / parts) * (1 - alone),
        separate=alone,
        before=alone if pool is None else pool.point.frontend + pool.point.prefill + pool.transfer,
        ttft_target=traffic.ttft_target,
        tpot_target=traffic.tpot_target,
    )
    # Without chunked prefill the whole prompt, or what the token budget takes of it, is one chunk: memory holds the
    # buffers of one prefill step and of decoding.
    context = traffic.prompt + traffic.retrieved + traffic.encoder_tokens
    step = jnp.where(budget > 0, jnp.minimum(context, budget), context)
    chunk = jnp.where(chunked, plan.chunk, step)
    operating = find_operating_point(
        lambda requests, first: at(requests, jnp.where(first, plan.chunk, chunk)),
        replica,
        rate=traffic.rate,
        chunked=chunked,
        separate=pool is not None,
        tau=tau,
    )
    return _service(traffic, plan, operating, pool, tau)


def _service(
    traffic: Traffic, plan: Plan, operating: OperatingPoint, pool: _Pool | None, tau: Scalar
) -> Service:
    replica, point = operating.replica, operating.point
    load = solve_steady_state(operating.replica_rate, point, operating.slope, replica)
    waits, first = [load.prefill_wait, load.slot_wait], _first_token(load, point)
    prefill_busy, margins = load.prefill_busy, _margins(load, point)
    billed = billed_tokens(traffic)
    chips, tokens = _chips(plan), operating.rate * billed
    bills = [(point.bill, operating.replicas * chips / tokens, point.decode_joules / billed)]
    prefill_joules, pool_replicas, pool_selections = (
        point.prefill_joules,
        jnp.zeros_like(chips),
        jnp.zeros_like(chips),
    )
    if pool is None:
        bills = [(point.bill, bills[0][1], bills[0][2] + prefill_joules / billed)]
    else:
        pool_replicas, pool_selections = _pool_replicas(pool, operating, tau), pool.chips
        servers = pool_replicas * pool.servers
        wait = queue(operating.rate, pool.point.service, servers, traffic.variation)
        waits = [wait, load.slot_wait]
        first = replace(
            first,
            frontend=pool.point.frontend,
            prefill_wait=wait.mean,
            prefill=pool.point.prefill,
            transfer=pool.transfer,
        )
        prefill_busy = busy_share(operating.rate, pool.point.service, servers)
        margins = replace(
            margins,
            memory=jnp.minimum(margins.memory, pool.point.memory),
            power=jnp.minimum(margins.power, pool.point.power),
            hardware=jnp.minimum(margins.hardware, pool.point.hardware),
            prefill=1 - prefill_busy,
        )
        prefill_joules = pool.point.prefill_joules
        bills += [(pool.point.bill, pool_replicas * pool.chips / tokens, prefill_joules / billed)]
    usd, carbon = _billed(bills)
    return Service(
        plan=plan,
        rate=operating.rate,
        output=traffic.output,
        billed=billed,
        largest_rate=operating.largest_rate,
        replicas=operating.replicas,
        replica_chips=chips,
        prefill_replicas=pool_replicas,
        prefill_replica_chips=pool_selections,
        in_flight=operating.replica_rate * load.residence,
        slots=replica.slots,
        prefill_busy=prefill_busy,
        slots_busy=load.slots_busy,
        tpot=load.tpot,
        first=first,
        ttft_met=_in_time(waits, first, traffic.ttft_target),
        tpot_met=load.tpot_met,
        joules=Joules(
            prefill=prefill_joules / billed,
            decode=point.decode_joules / billed,
            idle=sum(bill.idle * seconds for bill, seconds, _ in bills),
            host=sum(
                (b.host + b.overhead * b.idle) * seconds + b.overhead * work for b, seconds, work in bills
            ),
        ),
        usd=usd,
        carbon=carbon,
        margins=replace(margins, ttft=1 - smooth.safe_div(first.total, traffic.ttft_target)),
    )


def _first_token(load: SteadyState, point: LoadPoint) -> FirstToken:
    return FirstToken(
        frontend=point.frontend,
        prefill_wait=load.prefill_wait.mean + load.step_wait,
        slot_wait=load.slot_wait.mean,
        prefill=point.prefill,
        transfer=jnp.zeros_like(point.prefill),
        block=point.block,
    )


def _margins(load: SteadyState, point: LoadPoint) -> ServiceMargins:
    return ServiceMargins(
        memory=point.memory,
        ttft=jnp.ones_like(load.ttft),
        tpot=load.tpot_margin,
        prefill=1 - load.prefill_busy,
        slots=load.slots_margin,
        power=point.power,
        hardware=point.hardware,
    )


def _in_time(waits: list[Wait], first: FirstToken, target: Scalar) -> Scalar:
    """Return P(TTFT <= target), with each wait evaluated at the mean of the other; exact where only one occurs."""
    one, other = waits
    slack = target - first.total + one.mean + other.mean
    late = one.longer_than(slack - other.mean), other.longer_than(slack - one.mean)
    return jnp.where(target > 0, (1 - late[0]) * (1 - late[1]), 1)


def _billed(bills: list[tuple[Bill, Scalar, Scalar]]) -> tuple[Cost, Carbon]:
    """Add up the cost and carbon of pools, given as (bill, chip-seconds per token, dynamic joules per token)."""

    def charged(bill: Bill, seconds: Scalar, joules: Scalar) -> tuple[Cost, Carbon]:
        usd, carbon = jax.tree.map(lambda x: x * seconds, (bill.usd, bill.carbon))
        electricity, water = bill.usd_of_work * joules, bill.water_of_work * joules
        return (
            replace(usd, electricity=usd.electricity + electricity, water=usd.water + water),
            replace(carbon, operation=carbon.operation + bill.carbon_of_work * joules),
        )

    parts = [charged(*bill) for bill in bills]
    return jax.tree.map(lambda *x: sum(x), *parts)


def _chips(plan: Plan) -> Scalar:
    return plan.tp * plan.pp * plan.cp * plan.dp


def transfer_seconds(
    model: Model, traffic: Traffic, decode: tuple[System, Plan], prefill: tuple[System, Plan]
) -> Scalar:
    """Return the seconds to move the cache of one request from the prefill pool to the decode pool.

    It is latency + bytes / (chips of a dp replica x scale-out bandwidth) of the slower pool. A bandwidth of 0 counts as
    unlimited.
    """
    model, traffic, decode, prefill = align((model, traffic, decode, prefill))
    bits = Plan(kv_bits=decode[1].kv_bits, activation_bits=decode[1].activation_bits)
    model, bits, one_chip = align((model, bits, Plan()))
    cache = memory_use(
        model,
        bits,
        shard(model, one_chip, 0.0),
        sequences=1.0,
        context=traffic.prompt + traffic.retrieved + traffic.encoder_tokens,
        step_tokens=0.0,
        logits=0.0,
        communication=0.0,
    )

    def seconds(system: System, plan: Plan) -> Scalar:
        link, internode = system.fabric.scale_out, system.chip.efficiency.internode
        bandwidth = link.bandwidth * system.chip.efficiency.link * _chips(plan) / plan.dp
        delay = link.launch + link.overhead + link.latency
        if internode is not None:
            bandwidth, delay = bandwidth * internode.share, delay + internode.round
        return delay + smooth.safe_div(cache.kv + cache.state, bandwidth)

    return jnp.maximum(seconds(*decode), seconds(*prefill))


def _pool_replicas(pool: _Pool, operating: OperatingPoint, tau: Scalar) -> Scalar:
    """Return the replicas of the prefill pool: enough to keep up, waiting at most half of the time left for it.

    The number of servers is rate x service times 2^z, with z the root of the wait against its bound.
    """
    target, before = operating.replica.ttft_target, operating.replica.before + operating.point.block
    allowed = (target - before) / 2
    least = jnp.maximum(operating.rate * pool.point.service, 1)
    parameters = (operating.rate, pool.point.service, least, operating.replica.variation, allowed)

    def too_long(doublings: Scalar, of: tuple) -> Scalar:
        rate, service, servers, variation, bound = of
        return queue(rate, service, servers * 2**doublings, variation).mean - bound

    z = crossing(too_long, parameters, jnp.zeros_like(least), jnp.full_like(least, _MOST_SERVERS))
    z = jnp.where((target > 0) & (allowed > 0) & (too_long(jnp.zeros_like(least), parameters) > 0), z, 0)
    relaxed = jnp.maximum(least * 2**z / pool.servers, 1)
    return smooth.ceil_div(relaxed, jnp.ones_like(relaxed), tau)
