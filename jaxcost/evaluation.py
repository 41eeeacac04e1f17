"""Compose all of the physics: one pure function from a design to its Report.

The stages read as the argument goes: what runs (schedule), where data lie (placement), what is sent (network), how
long the steps take (steps), what they draw (power), what that costs (economics), and what limits it (margins).

Every leaf of a design is `[*batch]`, and leaves broadcast: one call serves one design or many. The two steps are an
axis of length 2 in front of the batch, tables have their rows in front of that.
"""

import functools
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import (
    align,
    batch_shape,
    materialize_once,
    row,
    spread,
    stack,
    total,
    unstack,
    where,
)
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, replace
from jaxcost.physics.compute.load import step_load
from jaxcost.physics.compute.operators import matmul_work, step_table
from jaxcost.physics.compute.roofline import Rates, StepTimes, op_times, rates, report_times
from jaxcost.physics.compute.shards import Shards, layer_count, shard
from jaxcost.physics.economics.area import Build, build
from jaxcost.physics.economics.carbon import carbon_per_token, embodied
from jaxcost.physics.economics.energy import Energy, StepEnergy, energy_parts, step_energy
from jaxcost.physics.economics.power import Clock, clock_of
from jaxcost.physics.economics.tco import cost_per_token, metered_energy, supplied_power, water_per_token
from jaxcost.physics.economics.thermal import Heat, heat_of, limit, resistance
from jaxcost.physics.kernels.collective import collective_backend
from jaxcost.physics.kernels.matmul import Machine
from jaxcost.physics.kernels.rows import kernel_rows
from jaxcost.physics.memory.capacity import MemoryUse, kept_neurons, memory_use, shared_bytes
from jaxcost.physics.memory.hierarchy import (
    Hierarchy,
    Tiers,
    build_hierarchy,
    classify_bytes,
    tier_bytes,
    tier_uses,
)
from jaxcost.physics.memory.near_memory import OPERAND_CLASSES
from jaxcost.physics.memory.placement import CLASSES
from jaxcost.physics.memory.tiers import chip_features, is_known, main_column, usable_chip
from jaxcost.physics.memory.wear import standby_power
from jaxcost.physics.network.levels import fabric_levels
from jaxcost.physics.network.messages import (
    Messages,
    collectives_per_token,
    communication_buffers,
    plan_groups,
    step_messages,
)
from jaxcost.physics.network.reliability import Reliability, availability, late_share
from jaxcost.report import Margins, Power, Report, Schedule, Thermal, Timing
from jaxcost.schedule import Steps, context_tokens, group_size, per_token, prefill_shares, schedule_steps
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.memory import TIERS
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["design_features", "evaluate"]

T = TypeVar("T")


class Placed(NamedTuple):
    """Where a design's data lie, and what the chip is with them."""

    chip: Chip  # its capacities as usable, its idle power with that of its tiers
    memory: MemoryUse  # bytes on the fullest chip by kind
    prefix: Scalar  # share of the cache that was there before the requests came
    sizes: jax.Array  # bytes by class, [classes, *batch]
    hierarchy: Hierarchy  # memory tiers with the data in them
    used: jax.Array  # bytes in every tier, [tiers, *batch]
    unit: Rates  # what a unit of work costs


class StepResults(NamedTuple):
    """What the steps take of one chip, the steps in front of the batch."""

    times: StepTimes  # operator by operator
    joules: StepEnergy  # dynamic
    flops: jax.Array  # matmul work
    heat: Heat  # temperature, and what it costs
    clock: Clock  # under a power cap


def evaluate(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
    features: tuple[str, ...] | None = None,
) -> Report:
    """Evaluate a model on a system under a traffic and a given plan: `jaxcost.evaluate` without its "auto".

    Leaves may have a batch, `[*batch]`, and broadcast; every leaf of the report then has the shape they broadcast to.
    `features` is what the design has, of `design_features`, where the caller knows better than tracing shows.
    """
    prices = Prices() if prices is None else prices
    knobs = Knobs() if knobs is None else knobs
    features = design_features(system, traffic, plan, knobs) if features is None else features
    return _evaluate(*canonical((system, model, traffic, plan, prices, knobs)), features)


def design_features(
    system: System, traffic: Traffic, plan: Plan, knobs: Knobs | None = None
) -> tuple[str, ...]:
    """Name what a design has that most have not, so that the rest is left out while tracing.

    Tiers beside main memory, engines near memory, stacking, cooling, a power cap, a retrieval corpus, neurons kept
    from step to step; and "exact" where a softness is given that is known to be 0. What is traced counts as there, so
    that the result never depends on it.
    """
    asked = {"corpus": traffic.corpus, "corpus_read": traffic.corpus_read, "window": plan.neuron_window}
    found = chip_features(system.chip) + tuple(name for name, leaf in asked.items() if not is_known(leaf, 0))
    return (*found, "exact") if knobs is not None and is_known(knobs.tau, 0) else found


@program(static_argnames=("features",))
def _evaluate(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    prices: Prices,
    knobs: Knobs,
    features: tuple[str, ...],
) -> Report:
    shape = batch_shape((system, model, traffic, plan, prices, knobs))
    system, model, traffic, plan, prices, knobs = align((system, model, traffic, plan, prices, knobs))
    knobs = replace(knobs, tau=0.0) if "exact" in features else knobs
    shards = materialize_once(shard(model, plan, knobs.tau))
    steps, schedule = materialize_once(schedule_steps(model, traffic, plan, shards, knobs))
    placed = place_data(system, model, traffic, plan, shards, steps, schedule, knobs, features)
    auxiliary = tuple(name for name in placed.hierarchy.shares.tiers if name != "memory")
    made = build(system.chip, system.fabric, auxiliary, prices.since)
    as_built, system = system.chip, replace(system, chip=placed.chip)
    messages, waiting = send_messages(system, model, plan, shards, steps, placed.unit, knobs.tau)
    results = run_steps(system, model, traffic, plan, shards, steps, placed, messages, knobs.tau, features)
    prefill, decode = report_times(
        results.times,
        messages.names,
        shape,
        capped=jnp.asarray(results.clock.lost),
        heat=jnp.asarray(results.heat.lost),
    )
    timing = Timing(prefill=prefill, decode=decode, schedule=schedule)
    reliability = Reliability(
        stale_tokens=late_share(waiting, system.fabric.jitter, system.fabric.timeout),
        availability=availability(system),
        spares=system.spares / system.chips,
    )
    energy, power, owned_seconds, metered = draw_power(system, prices, timing, results, reliability)
    tiers = tier_uses(
        placed.hierarchy,
        placed.used,
        placed.sizes,
        placed.memory,
        placed.prefix,
        batch_seconds=timing.batch_seconds,
        step_seconds=timing.tpot * schedule.tokens_per_step,
        updates=traffic.weight_updates,
        served=prices.lifetime * prices.utilization,
    )
    flops = jnp.sum(results.flops * per_token(schedule), 0)
    report = Report(
        **{name: getattr(timing, name) for name in ("prefill", "decode", "schedule")},
        memory=placed.memory,
        tiers=tiers,
        thermal=Thermal(**_by_step(results.heat)),
        energy=energy,
        power=power,
        **price(as_built, system, prices, made, auxiliary, owned_seconds, metered),
        flops=flops,
        battery_share=smooth.safe_div(energy.total * traffic.output, system.battery),
        split=prefill_shares(timing, results.joules.dynamic),
        reliability=reliability,
        margins=check_margins(system, traffic, timing, power, made, placed, tiers, results, knobs.tau),
    )
    return spread(report, shape)


def place_data(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    shards: Shards,
    steps: Steps,
    schedule: Schedule,
    knobs: Knobs,
    features: tuple[str, ...],
) -> Placed:
    """Count what the fullest chip holds, decide where it lies, and cost a unit of work there."""
    widest, decoded = jnp.max(steps.tokens, 0), row(steps.tokens, 1)
    memory = memory_use(
        model,
        plan,
        shards,
        sequences=group_size(traffic.batch, plan.dp, knobs),
        context=context_tokens(traffic) + traffic.output,
        step_tokens=widest,
        communication=communication_buffers(model, plan, shards, widest),
        corpus=traffic.corpus / schedule.chips,
    )
    cached = traffic.prompt * traffic.prefix_hit + traffic.retrieved
    prefix = cached / (context_tokens(traffic) + traffic.output)
    chip = usable_chip(system.chip, features)
    sizes = classify_bytes(memory, shared_bytes(model, plan, shards), prefix)
    hierarchy = build_hierarchy(chip, model, plan, shards, sizes, prefix, decoded, features, knobs.tau)
    shares = hierarchy.shares
    used = tier_bytes(sizes, shares)
    if len(shares.tiers) > 1 and "window" in features:
        main = main_column(shares.tiers, used)
        outside = 1 - jnp.sum(row(shares.stored, CLASSES.index("weights")) * main, 0)
        used = used + main * kept_neurons(model, plan, shards, decoded, outside)
    standby = jnp.sum(standby_power(hierarchy.memory, used), 0)
    return Placed(
        chip=replace(chip, idle_power=chip.idle_power + standby),
        memory=memory,
        prefix=prefix,
        sizes=sizes,
        hierarchy=hierarchy,
        used=used,
        unit=materialize_once(rates(chip, plan, hierarchy.traffic, hierarchy.near)),
    )


def send_messages(
    system: System, model: Model, plan: Plan, shards: Shards, steps: Steps, unit: Rates, tau: Scalar
) -> tuple[Messages, Scalar]:
    """Time the messages of the steps, and count the ranks that wait for each other in one."""
    chip, fabric = system.chip, system.fabric
    levels = fabric_levels(fabric, system.chips, efficiency=chip.efficiency.link, memory=chip.memory)
    levels, groups = materialize_once((levels, plan_groups(plan, shards, fabric, levels)))
    backend = collective_backend(unit.kernels, unit.seconds_per_byte, chip.compute.cores)
    messages = step_messages(model, plan, shards, steps.tokens, levels, groups, tau, backend)
    messages = materialize_once(messages)
    return messages, collectives_per_token(model, plan, shards, groups)


def run_steps(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    shards: Shards,
    steps: Steps,
    placed: Placed,
    messages: Messages,
    tau: Scalar,
    features: tuple[str, ...],
) -> StepResults:
    """Time the steps' operators, add up their energy, and slow them where power or heat asks for it."""
    chip, unit = system.chip, placed.unit
    load = materialize_once(step_load(model, (steps.main, steps.riding)))
    table = step_table(model, plan, shards, load, traffic.corpus_read, window="window" in features)
    kernels, engine = None, None
    if unit.kernels is not None:
        machine = functools.partial(_machine, chip, unit)
        kernels = kernel_rows(model, plan, shards, (steps.main, steps.riding), load, unit.kernels, machine)
        host = unit.kernels.engine
        engine = jnp.asarray(host.layer * layer_count(model) + host.sequence * load.sequences)
    hot, capped = "cooling" in features, "cap" in features
    overlap = chip.efficiency.overlap
    times = op_times(table, messages, unit, overlap, tau, kernels=kernels, engine=engine, heat=hot)
    joules = step_energy(table, times.near, messages, chip, system.fabric, placed.hierarchy, unit)
    seconds, none = times.total, jnp.zeros_like(times.total)
    clock = Clock(share=none + 1, lost=none, saved=none)
    if capped:
        clock = clock_of(chip, times.operators, seconds, joules.engines, joules.others)
        seconds, joules = seconds + clock.lost, joules.slowed(clock.saved)
    heat = Heat(temperature=none, refresh=none, throttling=none)
    if hot:
        heat = heat_of(chip, joules.dynamic, seconds, times.hot)
    return StepResults(times=times, joules=joules, flops=matmul_work(table), heat=heat, clock=clock)


def draw_power(
    system: System, prices: Prices, timing: Timing, results: StepResults, reliability: Reliability
) -> tuple[Energy, Power, Scalar, Scalar]:
    """Spread energy over output tokens, and watts over chips; with the chip-seconds and joules to be paid a token."""
    schedule, chip = timing.schedule, system.chip
    chip_seconds = schedule.chips / timing.tokens_per_second
    runs = per_token(schedule)
    energy = replace(
        energy_parts(jax.tree.map(lambda x: jnp.sum(x * runs, -1 - len(runs.shape[1:])), results.joules)),
        idle=chip_seconds * chip.idle_power,
        host=chip_seconds * system.host.power,
    )
    owned_seconds = chip_seconds * reliability.chips_per_working_chip
    metered = metered_energy(
        system, prices, energy=energy.total, chip_seconds=chip_seconds, owned_seconds=owned_seconds
    )
    supplied = supplied_power(system) * schedule.chips
    seconds = stack([timing.prefill.total, timing.decode.total])
    drawn = chip.idle_power + smooth.safe_div(results.joules.dynamic, seconds)
    power = Power(
        prefill=row(drawn, 0),
        decode=row(drawn, 1),
        prefill_clock=row(results.clock.share, 0),
        decode_clock=row(results.clock.share, 1),
        chips=(energy.total - energy.host) / chip_seconds * schedule.chips,
        hosts=system.host.power * schedule.chips,
        pue=prices.pue,
        provisioned=supplied,
        racks=supplied / prices.rack_power,
    )
    return energy, power, owned_seconds, metered


def price(
    as_built: Chip,
    system: System,
    prices: Prices,
    made: Build,
    auxiliary: tuple[str, ...],
    owned_seconds: Scalar,
    metered: Scalar,
) -> dict[str, Any]:
    """Price `owned_seconds` of chips and `metered` joules a token: dollars, rent, carbon and water, by report field."""
    one_chip = embodied(as_built, made, auxiliary)
    return {
        "build": made,
        "usd": cost_per_token(system, prices, made, owned_seconds=owned_seconds, metered=metered),
        "rent": 1e6 * owned_seconds / prices.utilization * system.chip.rental,
        "embodied": one_chip,
        "carbon": carbon_per_token(system, prices, one_chip, owned_seconds=owned_seconds, metered=metered),
        "water": water_per_token(prices, metered),
    }


def check_margins(
    system: System,
    traffic: Traffic,
    timing: Timing,
    power: Power,
    made: Build,
    placed: Placed,
    tiers: Tiers,
    results: StepResults,
    tau: Scalar,
) -> Margins:
    """Slack of every constraint; those that nothing of this design can break keep their default."""
    chip, tier_names = system.chip, placed.hierarchy.shares.tiers
    capacity = placed.hierarchy.memory.capacity
    # Main memory is always there: a chip without has a margin of minus infinity, not of the bytes it lacks.
    room = 1 - placed.used / where((capacity > 0) | (main_column(tier_names, capacity) > 0), capacity, 1)
    limits = dict(zip(tier_names, unstack(room), strict=True))
    return Margins(
        **limits,
        chips=1 - timing.schedule.chips / system.chips,
        power=1 - smooth.maximum(power.prefill, power.decode, tau) / chip.tdp,
        ttft=1 - smooth.safe_div(timing.ttft, traffic.ttft_target),
        tpot=1 - smooth.safe_div(timing.tpot, traffic.tpot_target),
        temperature=_heat_margin(chip, results.heat, tau),
        shoreline=1 - smooth.safe_div(_edge(chip, system.fabric), chip.shoreline),
        area=1 - smooth.safe_div(made.die_area / chip.package.dies, chip.process.reticle),
        endurance=1 - jnp.max(stack([getattr(tiers, name).wear for name in TIERS]), 0),
    )


def _machine(chip: Chip, unit: Rates, operands: str) -> Machine:
    """What a kernel on operands of a class of data meets of the chip."""
    return Machine(
        rate=1 / row(unit.seconds_per_flop, OPERAND_CLASSES.index(operands)),
        bandwidth=1 / unit.seconds_per_byte,
        cores=chip.compute.cores,
        cache=chip.package.cache,
        exponentials=1 / unit.seconds_per_exponential,
    )


def _by_step(table: T) -> dict[str, T]:
    """Take the steps of a tree apart."""
    return {
        name: jax.tree.map(lambda x, k=k: row(x, k), table) for k, name in enumerate(("prefill", "decode"))
    }


def _heat_margin(chip: Chip, heat: Heat, tau: Scalar) -> jax.Array:
    """Rise of the hotter step over the coolant against what the limit allows; 1 without cooling or limit."""
    top, coolant = limit(chip), chip.cooling.coolant
    rise = heat.temperature - coolant
    hotter = smooth.maximum(row(rise, 0), row(rise, 1), tau)
    cooled = (top > 0) & (resistance(chip) > 0)
    return where(cooled, 1 - hotter / where(cooled, top - coolant, 1), 1)


def _edge(chip: Chip, fabric: Fabric) -> Scalar:
    """Edge of the die that memories and links take."""
    memories = (getattr(chip, name) for name in TIERS)
    links = (fabric.package, fabric.scale_up, fabric.scale_out)
    return total(
        (
            *(m.stacks * m.shoreline * (1 - m.chained) for m in memories),
            *(link.bandwidth * link.interface_edge for link in links),
        )
    )
