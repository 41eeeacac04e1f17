"""Continuous batching in steady state: what one replica does at a rate of requests, in closed form.

A replica is one copy of a plan's chips. It decodes in g = dp x microbatches groups side by side. Symbols: x requests
in flight in a group as one of them sees it, itself included; D(x) seconds of decoding a request among x undisturbed;
w seconds of decoding that the prefill of one request takes from the replica; lambda requests a second and replica.
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
from jaxcost.physics.compute.shards import microbatches
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
    """What a plan's chips cost by the second and by the joule, the facility and hours without traffic included."""

    idle: Scalar = field("W", "idle power of a chip")
    host: Scalar = field("W", "power of its host")
    usd: Cost = field(doc="dollars per million seconds of a chip, whether it works or not")
    carbon: Carbon = field(doc="grams of CO2e per million seconds of a chip, likewise")
    usd_of_work: Scalar = field("USD/MJ", "electricity per million joules that only work costs")
    water_of_work: Scalar = field("USD/MJ", "water for them")
    carbon_of_work: Scalar = field("g/MJ", "grams of CO2e per million joules that only work costs")


@pytree
class LoadPoint:
    """What an evaluation says of one request, with a number of them in flight in each group."""

    decode: Scalar = field("s", "decoding all its tokens, undisturbed by prefill; at least one step")
    token: Scalar = field("s", "decoding one token, likewise")
    step: Scalar = field("s", "between two of its steps, likewise")
    block: Scalar = field("s", "passes over the first block of a diffusion model")
    prefill: Scalar = field("s", "its own prefill")
    service: Scalar = field("s", "how long its prefill keeps a server of prefills busy")
    work: Scalar = field("s", "decoding time that its prefill takes from the replica")
    memory: Scalar = field("1", "margin of the fullest memory tier")
    power: Scalar = field("1", "margin of power")
    hardware: Scalar = field("1", "worst margin of chips, temperature, shoreline, endurance")
    prefill_joules: Scalar = field("J", "dynamic energy of its prefill")
    decode_joules: Scalar = field("J", "dynamic energy of its decoding")
    bill: Bill = field(doc="what the chips cost")


@pytree
class Replica:
    """What does not change with the load of a replica."""

    groups: Scalar = field("1", "groups that decode side by side: dp x microbatches")
    servers: Scalar = field("1", "prefills that run side by side: dp, with chunks one a group")
    slots: Scalar = field("1", "requests that fit memory")
    full: Scalar = field("s", "decoding of a request with all slots taken, undisturbed")
    variation: Scalar = field("1", "squared coefficient of variation of a request's work")
    burst: Scalar = field(
        "1", "q: servers per group where prefill goes before decoding, 0 where it rides along or stands apart"
    )
    separate: Scalar = field("1", "1 where prefill has a pool of its own")
    before: Scalar = field("s", "prefill and transfer of a request, where prefill has a pool of its own")
    ttft_target: Scalar = field("s", "longest acceptable time to first token, 0 for none")
    tpot_target: Scalar = field("s", "longest acceptable time per output token, 0 for none")


@pytree
class SteadyState:
    """A replica in steady state."""

    tpot: Scalar = field("s", "mean time per output token")
    residence: Scalar = field("s", "mean time from its prefill to its last token")
    prefill_wait: Wait = field(doc="for a server of prefills to be free")
    step_wait: Scalar = field("s", "for the step under way when it comes to end")
    slot_wait: Wait = field(doc="for room in memory")
    prefill_busy: Scalar = field("1", "utilisation of prefill")
    slots_busy: Scalar = field("1", "utilisation of the slots")
    slots_margin: Scalar = field("1", "that of slots were all taken, when decoding is slowest, against 1")
    tpot_met: Scalar = field("1", "probability that a request's tokens come in time")
    ttft: Scalar = field("s", "mean time to first token, a pool's wait for prefill left out")
    tpot_margin: Scalar = field("1", "time per output token against its target")
    worst: Scalar = field("1", "smallest margin of memory, targets and utilisations")


def memory_margin(report: Report) -> Scalar:
    """Return the smallest margin of any memory tier."""
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
    """Evaluate a plan with a number of requests in each group, and keep what a steady state needs.

    With chunks a request's own prefill is its mixed steps, and what it takes from decoding is by how much they are
    longer than decode steps, shared among the groups. Without, it is the prefill step.
    """
    groups = plan.dp * microbatches(plan)
    batch = replace(traffic, batch=requests * groups)
    report = evaluate(system, model, batch, plan, prices=prices, knobs=knobs, features=features)
    s = report.schedule
    chunked = plan.chunk > 0
    step = s.interval * report.decode.total
    prefill = s.prefill_runs * report.prefill.total
    joules = report.energy.dynamic * s.output
    # Decoding rides in mixed steps; where these are more than the decode steps there are, each is paid for but once.
    decode_joules = (1 - report.split.energy) * joules / (s.mixed_share + s.pure_share)
    m = report.margins
    others = [m.chips, m.temperature, m.shoreline, m.endurance]
    return LoadPoint(
        decode=jnp.maximum(s.decode_steps, 1) * step,
        token=step / s.tokens_per_step,
        step=step,
        block=s.block_runs * report.decode.total,
        prefill=prefill,
        service=jnp.where(chunked, prefill, prefill / microbatches(plan)),
        work=(prefill - jnp.where(chunked, s.prefill_runs * report.decode.total, 0)) / groups,
        memory=memory_margin(report),
        power=m.power,
        hardware=jnp.min(jnp.stack([jnp.asarray(x) for x in others]), axis=0),
        prefill_joules=report.split.energy * joules,
        decode_joules=decode_joules,
        bill=_bill(report, prices),
    )


def _bill(report: Report, prices: Prices) -> Bill:
    """Take a report's cost apart: all of it is linear in the chips' seconds and the joules of work."""
    e, seconds = report.energy, report.schedule.chips / report.tokens_per_second
    owned = report.reliability.chips_per_working_chip / prices.utilization
    standing = (e.idle + e.host) * owned
    all_joules = e.dynamic + standing
    usd = smooth.safe_div(report.usd.electricity, all_joules)
    water = smooth.safe_div(report.usd.water, all_joules)
    carbon = smooth.safe_div(report.carbon.operation, all_joules)
    per_second = lambda tree: jax.tree.map(lambda x: x / seconds, tree)  # noqa: E731
    return Bill(
        idle=e.idle / seconds,
        host=e.host / seconds,
        usd=per_second(replace(report.usd, electricity=usd * standing, water=water * standing)),
        carbon=per_second(replace(report.carbon, operation=carbon * standing)),
        usd_of_work=usd,
        water_of_work=water,
        carbon_of_work=carbon,
    )


def between(below: Any, above: Any, share: Scalar) -> Any:
    """Interpolate two trees linearly."""
    return jax.tree.map(lambda a, b: a + share * (b - a), below, above)


def rate_at(requests: Scalar, point: LoadPoint, replica: Replica) -> Scalar:
    """Requests a second at which a request sees x in flight in its group.

        x - 1 = lambda D(x) / (g (1 - rho)) + q ((1 + rho^2 v) / (1 - rho)^2 - 1),   rho = lambda w

    By Little's law in the time that prefill leaves to decoding; that a request sees itself beside the others is the
    arrival theorem. For D linear in x the first term is exact whatever the distribution of work (processor sharing:
    Kelly 1979), steps apart. The second is there where prefill goes before decoding: all that came during a busy
    period of prefill begin to decode at once, and the number of these has a variance of (1 + rho^2 v) / (1 - rho)^2
    times its mean (Borel 1942 for v = 0, from the same recursion for any v). With n = x - 1 and u = g w,

        lambda = 2 n g / (2 (n + q) u + D + sqrt(D^2 + 4 q u D + 4 q u^2 (q + n (1 + v))))
    """
    others, q = requests - 1, replica.burst
    taken = replica.groups * point.work
    alone = point.decode + point.block
    more = 4 * q * taken * (alone + taken * (q + others * (1 + replica.variation)))
    return 2 * others * replica.groups / (2 * (others + q) * taken + alone + jnp.sqrt(alone * alone + more))


def solve_steady_state(rate: Scalar, point: LoadPoint, slope: Scalar, replica: Replica) -> SteadyState:
    """Work out the steady state of a replica.

        TTFT = wait for the step under way, for prefill and for a slot + prefill
        TPOT = W / tokens,   W = D + lambda w (W + T)

    Prefill goes first come first served, one request a server at a time: M/G/1 with vacations (Doshi 1986), which
    adds half a step to the wait where a request is in flight. While a request decodes, those are prefilled that
    come meanwhile, and where prefill goes before decoding also those that came in the time T until its own prefill
    was done. Slots are servers of all the time between prefill and last token; a request waits for one when all are
    taken, and it is that load that sets how soon one comes free. TPOT is late where a request meets
    more others than it may, a Poisson number of them, each costing its share of longer steps and its prefill.

    Args:
        rate: requests a second.
        point: one request at this load.
        slope: seconds per token that one more request in a group costs.
        replica: what does not change.
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
    ttft = r.before + before + slot_wait.mean + point.block
    # A pool leaves half of what its target allows for waiting to the other.
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
    """Find where falling functions of x, [*batch], cross 0 between two bounds: the nearer bound where one does not.

    The root is found without gradients, by two grids; one step of Newton from there has the right slope in the
    parameters (the implicit function theorem).
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
