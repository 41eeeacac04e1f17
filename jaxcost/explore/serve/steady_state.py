"""Continuous batching in steady state: latencies and utilisations of one replica at a rate of requests, in closed form.

A replica is one copy of a plan's chips. It decodes in g = dp x microbatches groups in parallel. Symbols: x requests
in flight in a group as seen by one of them, itself included; D(x) seconds to decode a request among x without prefill;
w seconds of decoding time that the prefill of one request takes from the replica; lambda requests per second and
replica.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import stack
from jaxcost.core.derivative import value_and_slopes
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.evaluation import evaluate
from jaxcost.explore.serve.queueing import Wait, busy_share, number_in_system, poisson_at_most, queue
from jaxcost.physics.compute.shards import complete_plan, layer_count, microbatches
from jaxcost.physics.economics.carbon import Carbon
from jaxcost.physics.economics.tco import Cost
from jaxcost.report import Report
from jaxcost.spec.memory import TIERS
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "Bill",
    "LoadPoint",
    "Replica",
    "SteadyState",
    "between",
    "crossing",
    "evaluate_point",
    "memory_margin",
    "rate_at",
    "solve_steady_state",
]

_GRID = 64


@pytree
class Bill:
    """Cost and carbon of a plan's chips per second and per joule of work; facility and unused hours are included."""

    idle: Scalar = field("W", "idle power of a chip")
    host: Scalar = field("W", "power of its host, without the part in proportion to the chip")
    overhead: Scalar = field("1", "fans and power supplies of the host, over what the chip draws")
    usd: Cost = field(doc="dollars per million chip-seconds, busy or idle")
    carbon: Carbon = field(doc="grams of CO2e per million chip-seconds, busy or idle")
    usd_of_work: Scalar = field("USD/MJ", "electricity per million joules of dynamic energy")
    water_of_work: Scalar = field("USD/MJ", "water per million joules of dynamic energy")
    carbon_of_work: Scalar = field("g/MJ", "CO2e per million joules of dynamic energy")


@pytree
class LoadPoint:
    """One request at a load: with a given number of requests in flight in each group."""

    decode: Scalar = field("s", "time to decode all its tokens without prefills of others; at least one step")
    token: Scalar = field("s", "time to decode one token, likewise")
    step: Scalar = field("s", "time between two of its steps, likewise")
    block: Scalar = field("s", "passes over the first block of a diffusion model")
    prefill: Scalar = field("s", "its prefill")
    service: Scalar = field("s", "time that its prefill occupies a prefill server")
    work: Scalar = field("s", "decoding time that its prefill takes from the replica")
    frontend: Scalar = field("s", "time outside of steps before its first token")
    memory: Scalar = field("1", "margin of the fullest memory tier")
    power: Scalar = field("1", "margin of power")
    hardware: Scalar = field("1", "worst margin of chips, plan, temperature, shoreline, endurance")
    prefill_joules: Scalar = field("J", "dynamic energy of its prefill")
    decode_joules: Scalar = field("J", "dynamic energy of its decoding")
    bill: Bill = field(doc="cost of the chips")


@pytree
class Replica:
    """The properties of a replica that do not depend on its load."""

    groups: Scalar = field("1", "groups that decode in parallel: dp x microbatches")
    servers: Scalar = field("1", "prefills that run in parallel: dp, with chunked prefill one per group")
    slots: Scalar = field("1", "requests that fit in memory")
    full: Scalar = field("s", "time to decode a request with all slots taken, without prefills of others")
    variation: Scalar = field("1", "squared coefficient of variation of a request's work")
    burst: Scalar = field(
        "1",
        "q: servers per group where prefill has priority over decoding; 0 with chunked or disaggregated prefill",
    )
    separate: Scalar = field("1", "1 where prefill is disaggregated into its own pool")
    before: Scalar = field(
        "s", "front end, prefill and transfer of a request, where prefill is disaggregated"
    )
    ttft_target: Scalar = field("s", "longest acceptable time to first token, 0 for none")
    tpot_target: Scalar = field("s", "longest acceptable time per output token, 0 for none")


@pytree
class SteadyState:
    """A replica in steady state at a rate of requests."""

    tpot: Scalar = field("s", "mean time per output token")
    residence: Scalar = field("s", "mean time from prefill to last token")
    prefill_wait: Wait = field(doc="wait for a free prefill server")
    step_wait: Scalar = field("s", "wait for the end of the current step on arrival")
    slot_wait: Wait = field(doc="wait for memory")
    prefill_busy: Scalar = field("1", "utilisation of prefill")
    slots_busy: Scalar = field("1", "utilisation of the slots")
    slots_margin: Scalar = field("1", "1 - utilisation of the slots at the decoding speed of full slots")
    tpot_met: Scalar = field("1", "probability that a request's TPOT is within its target")
    ttft: Scalar = field("s", "mean time to first token, without the wait in a prefill pool")
    tpot_margin: Scalar = field("1", "time per output token against its target")
    worst: Scalar = field("1", "smallest margin of memory, targets and utilisations")


def memory_margin(report: Report) -> Scalar:
    """Return the smallest margin of all memory tiers."""
    margins = [jnp.asarray(getattr(report.margins, name)) for name in TIERS]
    return jnp.min(jnp.stack(margins), axis=0)


def evaluate_point(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    prices: Prices,
    knobs: Knobs,
    features: tuple[str, ...],
    requests: Scalar,
) -> LoadPoint:
    """Evaluate a plan with `requests` in flight in each group.

    With chunked prefill, the prefill of a request is its mixed steps, and its work is their excess over decode steps,
    divided by the groups. Without, both are the prefill step.
    """
    complete = complete_plan(plan)
    groups = complete.dp * microbatches(complete)
    batch = replace(traffic, batch=requests * groups)
    report = evaluate(system, model, batch, plan, prices=prices, knobs=knobs, features=features)
    s = report.schedule
    chunked = plan.chunk > 0
    step = s.interval * report.decode.total
    prefill = s.prefill_runs * report.prefill.total
    joules = report.energy.dynamic * s.billed
    # Decoding is part of mixed steps. Where there are more of them than decode steps, each decode step counts once.
    decode_joules = (1 - report.split.energy) * joules / (s.mixed_share + s.pure_share)
    m = report.margins
    others = [m.chips, m.plan, m.temperature, m.shoreline, m.endurance]
    return LoadPoint(
        decode=jnp.maximum(s.decode_steps, 1) * step,
        token=step / s.tokens_per_step,
        step=step,
        block=s.block_runs * report.decode.total,
        prefill=prefill,
        service=jnp.where(chunked, prefill, prefill / microbatches(complete)),
        frontend=_frontend(system, model),
        work=(prefill - jnp.where(chunked, s.prefill_runs * report.decode.total, 0)) / groups,
        memory=memory_margin(report),
        power=m.power,
        hardware=jnp.min(jnp.stack([jnp.asarray(x) for x in others]), axis=0),
        prefill_joules=report.split.energy * joules,
        decode_joules=decode_joules,
        bill=_bill(report, prices),
    )


def _frontend(system: System, model: Model) -> Scalar:
    """Return the time of a request outside of the kernels of its steps: of the front end, and of eager launches."""
    kernels = system.chip.efficiency.kernels
    if kernels is None:
        return jnp.zeros_like(system.chips)
    return kernels.engine.frontend_latency + kernels.engine.eager_launch_floor * layer_count(model)


def _bill(report: Report, prices: Prices) -> Bill:
    """Split the cost of a report, which is linear in chip-seconds and in joules of dynamic energy."""
    e, s = report.energy, report.schedule
    seconds = s.chips / (s.requests * s.billed / report.batch_seconds)
    owned = report.reliability.chips_per_working_chip / prices.utilization
    overhead = smooth.safe_div(e.fans, e.chips)
    standing = (e.idle * (1 + overhead) + e.host) * owned
    all_joules = e.dynamic * (1 + overhead) + standing
    usd = smooth.safe_div(report.usd.electricity, all_joules)
    water = smooth.safe_div(report.usd.water, all_joules)
    carbon = smooth.safe_div(report.carbon.operation, all_joules)
    per_second = lambda tree: jax.tree.map(lambda x: x / seconds, tree)  # noqa: E731
    return Bill(
        idle=e.idle / seconds,
        host=e.host / seconds,
        overhead=overhead,
        usd=per_second(replace(report.usd, electricity=usd * standing, water=water * standing)),
        carbon=per_second(replace(report.carbon, operation=carbon * standing)),
        usd_of_work=usd * (1 + overhead),
        water_of_work=water * (1 + overhead),
        carbon_of_work=carbon * (1 + overhead),
    )


def between(below: Any, above: Any, share: Scalar) -> Any:
    """Interpolate two trees linearly."""
    return jax.tree.map(lambda a, b: a + share * (b - a), below, above)


def rate_at(requests: Scalar, point: LoadPoint, replica: Replica) -> Scalar:
    """Return the requests per second at which a request sees x in flight in its group.

        x - 1 = lambda D(x) / (g (1 - rho)) + q ((1 + rho^2 v) / (1 - rho)^2 - 1),   rho = lambda w

    This is Little's law over the time that prefill leaves for decoding; by the arrival theorem a request sees itself
    and the others in flight. For D linear in x the first term is exact for any distribution of work, up to whole steps
    (processor sharing: Kelly 1979). The second term applies where prefill has priority: all requests that arrive during
    a busy period of prefill start to decode together, and the variance of their number is (1 + rho^2 v) / (1 - rho)^2
    times its mean (Borel 1942 for v = 0; the same recursion gives any v). With n = x - 1 and u = g w,

        lambda = 2 n g / (2 (n + q) u + D + sqrt(D^2 + 4 q u D + 4 q u^2 (q + n (1 + v))))
    """
    others, q = requests - 1, replica.burst
    taken = replica.groups * point.work
    alone = point.decode + point.block
    more = 4 * q * taken * (alone + taken * (q + others * (1 + replica.variation)))
    return 2 * others * replica.groups / (2 * (others + q) * taken + alone + jnp.sqrt(alone * alone + more))


def solve_steady_state(rate: Scalar, point: LoadPoint, slope: Scalar, replica: Replica) -> SteadyState:
    """Return the steady state of a replica at a rate of requests.

        TTFT = wait for the current step, for prefill and for a slot + prefill
        TPOT = W / tokens,   W = D + lambda w (W + T)

    Prefill is first come first served with one request per server: M/G/1 with vacations (Doshi 1986), which adds half
    a step to the wait where other requests are in flight. While a request decodes, the requests that arrive are
    prefilled; where prefill has priority, so are those that arrived in the time T before its own prefill ended. A slot
    is a server that is occupied from prefill to last token. A request waits for one when all are taken, so the wait
    follows from the decoding speed of full slots. TPOT misses its target where a request meets more others than the
    target allows: their number is Poisson distributed, and each adds its share of longer steps and its prefill.

    Args:
        rate: requests per second.
        point: one request at this load.
        slope: seconds per token that one more request in a group adds.
        replica: the properties that do not depend on the load.
    """
    r = replica
    prefill_wait = queue(rate, point.service, r.servers, r.variation)
    idle = jnp.exp(-number_in_system(rate, point.decode + point.block))
    step_wait = (1 - r.separate) * (1 - idle) * point.step / 2
    before = prefill_wait.mean + step_wait + point.prefill
    stalls = jnp.where(r.burst > 0, rate * point.work * before, 0)
    share, tokens = 1 - rate * point.work, point.decode / point.token
    decoding = (point.decode + point.block + stalls) / share
    tpot = (point.decode + stalls) / share / tokens
    met = number_in_system(rate, decoding + jnp.where(r.burst > 0, before, 0))
    residence = decoding + point.prefill
    crowded = (r.full + stalls) / share + point.prefill
    slot_wait = queue(rate, crowded, r.slots, r.variation)
    prefill_busy = busy_share(rate, point.service, r.servers)
    slots_busy = busy_share(rate, residence, r.slots)
    ttft = r.before + before + slot_wait.mean + point.block + (1 - r.separate) * point.frontend
    # With disaggregated prefill, each pool may use half of the waiting time that the target leaves.
    strict = ttft + r.separate * slot_wait.mean
    each = slope / r.groups + point.work / tokens
    allowed = met + (r.tpot_target - tpot) / jnp.maximum(each, 1e-12)
    slots_margin = 1 - busy_share(rate, crowded, r.slots)
    tpot_margin = 1 - smooth.safe_div(tpot, r.tpot_target)
    margins = [
        point.memory,
        1 - prefill_busy,
        slots_margin,
        1 - smooth.safe_div(strict, r.ttft_target),
        tpot_margin,
    ]
    return SteadyState(
        tpot=tpot,
        residence=residence,
        prefill_wait=prefill_wait,
        step_wait=step_wait,
        slot_wait=slot_wait,
        prefill_busy=prefill_busy,
        slots_busy=slots_busy,
        tpot_met=jnp.where(r.tpot_target > 0, poisson_at_most(allowed - 0.5, met), 1),
        ttft=ttft,
        slots_margin=slots_margin,
        tpot_margin=tpot_margin,
        worst=jnp.min(stack(margins), axis=0),
    )


def crossing(function: Callable[[Scalar, Any], Scalar], parameters: Any, low: Scalar, high: Scalar) -> Scalar:
    """Return the roots of decreasing functions of x, [*batch], between two bounds; the nearer bound without a root.

    Two nested grids find the root without gradients. One Newton step from there has the correct derivative with
    respect to the parameters, by the implicit function theorem.
    """
    fixed, low, high = jax.lax.stop_gradient((parameters, jnp.asarray(low), jnp.asarray(high)))
    lowest, highest = function(low, fixed), function(high, fixed)
    shape = jnp.shape(lowest)
    first, last = (jnp.broadcast_to(x, shape) for x in (low, high))
    steps = jnp.arange(_GRID + 1, dtype=high.dtype).reshape(-1, *(1 for _ in shape)) / _GRID
    for _ in range(2):
        values = function(first + (last - first) * steps, fixed)
        place = jnp.clip(jnp.sum(jnp.cumprod(jnp.where(values >= 0, 1, 0), 0), 0) - 1, 0, _GRID - 1)
        width = (last - first) / _GRID
        first = first + width * place
        last = first + width
    _, slope, _ = value_and_slopes(lambda x: (function(x[0], fixed), None), first[None])
    step = -smooth.safe_div(function(first, parameters), jax.lax.stop_gradient(slope[0]))
    inside, edge = (lowest >= 0) & (highest < 0), jnp.where(lowest < 0, low, high)
    return jnp.where(inside, first + step, edge)
