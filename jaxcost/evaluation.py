"""Compose the physics into one pure function from a design to its Report.

The stages in order: schedule, placement of data, messages, time of the steps, power, cost and carbon, margins.

Every leaf of a design is `[*batch]`, and leaves broadcast, so one call serves one design or many. The two steps
(prefill, decode) are an axis of length 2 in front of the batch; tables have their rows in front of that.
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
    where,
)
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, replace
from jaxcost.margins import check_margins
from jaxcost.physics.compute.load import StepLoad, of_prompts, step_load
from jaxcost.physics.compute.operators import matmul_work, step_table
from jaxcost.physics.compute.precision import MATH_CLASSES
from jaxcost.physics.compute.roofline import Rates, StepTimes, op_times, rates, report_times
from jaxcost.physics.compute.shards import Shards, complete_plan, layer_count, shard
from jaxcost.physics.economics.area import Build, build
from jaxcost.physics.economics.carbon import carbon_per_token, embodied
from jaxcost.physics.economics.energy import Energy, StepEnergy, energy_parts, step_energy
from jaxcost.physics.economics.power import Clock, clock_of
from jaxcost.physics.economics.tco import cost_per_token, metered_energy, supplied_power, water_per_token
from jaxcost.physics.economics.thermal import Heat, heat_of
from jaxcost.physics.kernels.collective import collective_backend, shares_bus
from jaxcost.physics.kernels.matmul import Machine
from jaxcost.physics.kernels.rows import kernel_rows
from jaxcost.physics.memory.allocation import buffered_tokens, engine_features
from jaxcost.physics.memory.capacity import (
    MemoryUse,
    allot_memory,
    kept_neurons,
    memory_use,
    shared_bytes,
)
from jaxcost.physics.memory.hierarchy import (
    Hierarchy,
    build_hierarchy,
    classify_bytes,
    tier_bytes,
    tier_uses,
)
from jaxcost.physics.memory.placement import CLASSES
from jaxcost.physics.memory.tiers import chip_features, is_known, main_column, usable_chip
from jaxcost.physics.memory.wear import standby_power
from jaxcost.physics.network.levels import system_levels
from jaxcost.physics.network.messages import (
    Messages,
    collectives_per_token,
    communication_buffers,
    plan_groups,
    step_messages,
)
from jaxcost.physics.network.reliability import Reliability, availability, late_share
from jaxcost.report import CachePool, Power, Report, Schedule, Thermal, Timing
from jaxcost.schedule import Steps, context_tokens, group_size, per_token, prefill_shares, schedule_steps
from jaxcost.spec.chip import Chip
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["design_features", "evaluate"]

T = TypeVar("T")


class PlacedData(NamedTuple):
    """The data of a design in the tiers of a chip."""

    chip: Chip  # with usable capacities, and an idle power that includes its tiers
    memory: MemoryUse  # bytes on the fullest chip by kind
    pool: CachePool  # memory for the cache
    prefix: Scalar  # share of the cache that existed before the requests
    sizes: jax.Array  # bytes by class, [classes, *batch]
    hierarchy: Hierarchy  # memory tiers and the shares of data in them
    used: jax.Array  # bytes in every tier, [tiers, *batch]
    unit: Rates  # time and energy per unit of work


class StepResults(NamedTuple):
    """Time, energy and heat of the steps on one chip, with the steps in front of the batch."""

    times: StepTimes  # operator by operator
    joules: StepEnergy  # dynamic energy
    flops: jax.Array  # matmul work
    heat: Heat  # temperature, and the time lost to it
    clock: Clock  # clock under a power cap


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
    """Evaluate a model on a system under a traffic and a plan: `jaxcost.evaluate` without "auto".

    Args:
        system: chips, links and hosts.
        model: the language model.
        traffic: the requests.
        plan: degrees of sharding, precisions and schedule.
        prices: costs of energy, building and carbon; None for the defaults.
        knobs: numerical softness; None for exact results.
        features: result of `design_features`, for a caller that traces leaves whose values it knows; None to find it
            here.

    Returns:
        The report; every leaf has the shape `[*batch]` that the leaves of the arguments broadcast to.
    """
    prices = Prices() if prices is None else prices
    knobs = Knobs() if knobs is None else knobs
    features = design_features(system, traffic, plan, knobs) if features is None else features
    return _evaluate(*canonical((system, model, traffic, plan, prices, knobs)), features)


def design_features(
    system: System, traffic: Traffic, plan: Plan, knobs: Knobs | None = None
) -> tuple[str, ...]:
    """Name the optional features of a design; the physics of other features is not traced.

    Features are auxiliary tiers, engines near memory, stacking, cooling, a power cap, pages of the cache, a retrieval
    corpus and a neuron window, and "exact" where the softness is known to be 0. A feature whose number is traced is
    included, so that the result never depends on which leaves are traced.
    """
    optional = {"corpus": traffic.corpus, "corpus_read": traffic.corpus_read, "window": plan.neuron_window}
    names = chip_features(system.chip) + engine_features(plan.engine)
    names += tuple(n for n, leaf in optional.items() if not is_known(leaf, 0))
    return (*names, "exact") if knobs is not None and is_known(knobs.tau, 0) else names


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
    asked = plan, traffic
    # No chips count as half a chip, which no plan fits on.
    system = replace(system, chips=jnp.maximum(system.chips, 0.5))
    # A plan or a batch below 1 has a negative margin, and the finite numbers of 1.
    plan, traffic = complete_plan(plan), replace(traffic, batch=where(traffic.batch < 1, 1, traffic.batch))
    shards = materialize_once(shard(model, plan, knobs.tau))
    steps, schedule = materialize_once(schedule_steps(model, traffic, plan, shards, knobs))
    placed = place_data(system, model, traffic, plan, shards, steps, schedule, knobs, features)
    auxiliary = tuple(name for name in placed.hierarchy.shares.tiers if name != "memory")
    chip_build = build(system.chip, system.fabric, auxiliary, prices.since)
    as_built, system = system.chip, replace(system, chip=placed.chip)
    load = materialize_once(step_load(model, (steps.main, steps.mixed)))
    messages, waiting_ranks = time_messages(system, model, plan, shards, steps, load, placed.unit, knobs.tau)
    results = run_steps(
        system, model, traffic, plan, shards, steps, load, placed, messages, knobs.tau, features
    )
    prefill, decode = report_times(
        results.times,
        messages.names,
        shape,
        capped=jnp.asarray(results.clock.lost),
        heat=jnp.asarray(results.heat.lost),
    )
    timing = Timing(prefill=prefill, decode=decode, schedule=schedule)
    reliability = Reliability(
        stale_tokens=late_share(waiting_ranks, system.fabric.jitter, system.fabric.timeout),
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
        pool=placed.pool,
        tiers=tiers,
        thermal=Thermal(**_by_step(results.heat)),
        energy=energy,
        power=power,
        **price(as_built, system, prices, chip_build, auxiliary, owned_seconds, metered),
        flops=flops,
        battery_share=smooth.safe_div(energy.total * schedule.billed, system.battery),
        split=prefill_shares(timing, results.joules.dynamic),
        reliability=reliability,
        margins=check_margins(
            system,
            model,
            asked,
            timing,
            power,
            chip_build,
            placed.hierarchy,
            placed.used,
            tiers,
            results.heat,
            knobs.tau,
        ),
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
) -> PlacedData:
    """Count the bytes of the fullest chip, place them in its tiers, and cost a unit of work."""
    decoded, context = row(steps.tokens, 1), context_tokens(traffic) + traffic.output
    largest, logits = buffered_tokens(plan.engine, jnp.max(steps.tokens, 0), jnp.max(steps.logits, 0))
    sequences = group_size(traffic.batch, plan.dp, knobs)
    memory = memory_use(
        model,
        plan,
        shards,
        sequences=sequences,
        context=context,
        step_tokens=largest,
        logits=logits,
        communication=communication_buffers(model, plan, shards, largest),
        corpus=traffic.corpus / schedule.chips,
        tau=knobs.tau,
        features=features,
    )
    cached = traffic.prompt * traffic.prefix_hit + traffic.retrieved
    prefix = smooth.safe_div(cached, context)
    chip = usable_chip(system.chip, features)
    chip, pool = allot_memory(plan, chip, memory, features)
    requests = plan.dp * sequences * smooth.safe_div(pool, memory.kv + memory.state)
    sizes = classify_bytes(memory, shared_bytes(model, plan, shards), prefix)
    hierarchy = build_hierarchy(chip, model, plan, shards, sizes, prefix, decoded, features, knobs.tau)
    shares = hierarchy.shares
    used = tier_bytes(sizes, shares)
    if len(shares.tiers) > 1 and "window" in features:
        main = main_column(shares.tiers, used)
        outside = 1 - jnp.sum(row(shares.stored, CLASSES.index("weights")) * main, 0)
        used = used + main * kept_neurons(model, plan, shards, decoded, outside)
    standby = jnp.sum(standby_power(hierarchy.memory, used), 0)
    return PlacedData(
        chip=replace(chip, idle_power=chip.idle_power + standby),
        memory=memory,
        pool=CachePool(
            size=pool, available=memory.fixed + pool, requests=requests, kv_tokens=requests * context
        ),
        prefix=prefix,
        sizes=sizes,
        hierarchy=hierarchy,
        used=used,
        unit=materialize_once(rates(chip, plan, shards.precision, hierarchy.traffic, hierarchy.near)),
    )


def time_messages(
    system: System,
    model: Model,
    plan: Plan,
    shards: Shards,
    steps: Steps,
    load: StepLoad,
    unit: Rates,
    tau: Scalar,
) -> tuple[Messages, Scalar]:
    """Time the messages of the steps, and count the ranks that wait for each other per token."""
    chip, fabric = system.chip, system.fabric
    levels = system_levels(system)
    levels, groups = materialize_once((levels, plan_groups(plan, shards, fabric, levels)))
    backend = collective_backend(
        unit.kernels,
        unit.seconds_per_byte,
        chip.compute.cores,
        shared_bus=shares_bus(fabric),
        clock=chip.compute.clock,
    )
    mixed = of_prompts(steps.mixed) & jnp.greater(steps.mixed.sequences, 0)
    messages = step_messages(
        model, plan, shards, load, levels, groups, tau, backend, prompts=of_prompts(steps.main) | mixed
    )
    messages = materialize_once(messages)
    return messages, collectives_per_token(model, plan, shards, groups)


def run_steps(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    shards: Shards,
    steps: Steps,
    load: StepLoad,
    placed: PlacedData,
    messages: Messages,
    tau: Scalar,
    features: tuple[str, ...],
) -> StepResults:
    """Time the operators of the steps, sum their energy, and slow them for a power cap and for heat."""
    chip, unit = system.chip, placed.unit
    table = step_table(model, plan, shards, load, traffic.corpus_read, window="window" in features)
    kernels, engine = None, None
    if unit.kernels is not None:
        machine = functools.partial(_machine, chip, unit)
        kernels = kernel_rows(model, plan, shards, (steps.main, steps.mixed), load, unit.kernels, machine)
        host = unit.kernels.engine
        engine = jnp.asarray(host.layer * layer_count(model) + host.sequence * load.sequences)
    hot, capped = "cooling" in features, "cap" in features
    overlap = chip.efficiency.overlap
    times = op_times(table, messages, unit, overlap, tau, kernels=kernels, engine=engine, heat=hot)
    joules = step_energy(table, times.near, messages, chip, system.fabric, placed.hierarchy, unit)
    seconds, zero = times.total, jnp.zeros_like(times.total)
    clock = Clock(share=zero + 1, lost=zero, saved=zero)
    if capped:
        clock = clock_of(chip, times.operators, seconds, joules.engines, joules.others)
        seconds, joules = seconds + clock.lost, joules.slowed(clock.saved)
    heat = Heat(temperature=zero, refresh=zero, throttling=zero)
    if hot:
        heat = heat_of(chip, joules.dynamic, seconds, times.hot)
    return StepResults(times=times, joules=joules, flops=matmul_work(table), heat=heat, clock=clock)


def draw_power(
    system: System, prices: Prices, timing: Timing, results: StepResults, reliability: Reliability
) -> tuple[Energy, Power, Scalar, Scalar]:
    """Return energy per output token, power, and the owned chip-seconds and metered joules per output token."""
    schedule, chip = timing.schedule, system.chip
    chip_seconds = schedule.chips * timing.batch_seconds / (schedule.requests * schedule.billed)
    runs = per_token(schedule)
    energy = replace(
        energy_parts(jax.tree.map(lambda x: jnp.sum(x * runs, -1 - len(runs.shape[1:])), results.joules)),
        idle=chip_seconds * chip.idle_power,
        host=chip_seconds * system.host.power,
    )
    energy = replace(energy, fans=system.host.overhead * energy.chips)
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
        chips=energy.chips / chip_seconds * schedule.chips,
        hosts=energy.servers / chip_seconds * schedule.chips,
        pue=prices.pue,
        provisioned=supplied,
        racks=supplied / prices.rack_power,
    )
    return energy, power, owned_seconds, metered


def price(
    as_built: Chip,
    system: System,
    prices: Prices,
    chip_build: Build,
    auxiliary: tuple[str, ...],
    owned_seconds: Scalar,
    metered: Scalar,
) -> dict[str, Any]:
    """Price `owned_seconds` chip-seconds and `metered` joules per token: dollars, rent, carbon and water by field."""
    one_chip = embodied(as_built, chip_build, auxiliary)
    return {
        "build": chip_build,
        "usd": cost_per_token(system, prices, chip_build, owned_seconds=owned_seconds, metered=metered),
        "rent": 1e6 * owned_seconds / prices.utilization * system.chip.rental,
        "embodied": one_chip,
        "carbon": carbon_per_token(system, prices, one_chip, owned_seconds=owned_seconds, metered=metered),
        "water": water_per_token(prices, metered),
    }


def _machine(chip: Chip, unit: Rates, operands: str) -> Machine:
    """Return the datasheet numbers of a chip for kernels on a class of operands."""
    return Machine(
        rate=1 / row(unit.seconds_per_flop, MATH_CLASSES.index(operands)),
        bandwidth=1 / unit.seconds_per_byte,
        cores=chip.compute.cores,
        cache=chip.package.cache,
        exponentials=1 / unit.seconds_per_exponential,
    )


def _by_step(table: T) -> dict[str, T]:
    """Split a tree with a leading axis of steps into {"prefill": ..., "decode": ...}."""
    return {
        name: jax.tree.map(lambda x, k=k: row(x, k), table) for k, name in enumerate(("prefill", "decode"))
    }
