"""Compose all of the physics: one pure function from a design to its Report."""

import functools
from typing import TypeVar

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import align, batch_shape, spread, stack
from jaxcost.core.fence import fence, once, opaque_one
from jaxcost.core.loop import over
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree, replace
from jaxcost.physics.area import build
from jaxcost.physics.capacity import kept_neurons, memory_use, shared_bytes
from jaxcost.physics.carbon import carbon_per_token, embodied
from jaxcost.physics.collective_kernel import carrier_of
from jaxcost.physics.collectives import Message
from jaxcost.physics.energy import Energy, step_energy
from jaxcost.physics.hierarchy import Tiers, held, hold, place, tier_uses
from jaxcost.physics.kernel_rows import kernel_rows
from jaxcost.physics.kernels import Machine
from jaxcost.physics.levels import levels
from jaxcost.physics.load import Group, step_load
from jaxcost.physics.messages import communication_buffers, groups, meetings, step_messages
from jaxcost.physics.ops import add, matmul_work, step_table
from jaxcost.physics.power import Clock, clock_of
from jaxcost.physics.reliability import Reliability, availability, late_share
from jaxcost.physics.roofline import OpTimes, Rates, op_times
from jaxcost.physics.shards import Shards, layer_count, microbatches, shard
from jaxcost.physics.tco import cost_per_token, metered_energy, supplied_power, water_per_token
from jaxcost.physics.thermal import Heat, heat_of, limit, resistance
from jaxcost.physics.tiers import BESIDE, features, surely, usable_chip
from jaxcost.physics.wear import standby_power
from jaxcost.report import Margins, Power, Report, Schedule, Shares, Thermal, Timing
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.memory import TIERS, Memory
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["design_features", "evaluate"]

T = TypeVar("T")


@pytree
class _Step:
    """What one step takes of one chip."""

    times: OpTimes = field(doc="operator by operator")
    energy: Energy = field(doc="joules")
    flops: Scalar = field("FLOP", "matmul work")
    heat: Heat = field(doc="temperature, and what it costs")
    clock: Clock = field(doc="clock under a power cap")


def evaluate(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
    present: tuple[str, ...] | None = None,
) -> Report:
    """Evaluate a model on a system under a traffic and a given plan: `jaxcost.evaluate` without its "auto".

    `present` is what the design has, of `design_features`, where the caller knows better than tracing shows.
    """
    prices = Prices() if prices is None else prices
    knobs = Knobs() if knobs is None else knobs
    present = design_features(system, traffic, plan) if present is None else present
    return _evaluate(*canonical((system, model, traffic, plan, prices, knobs)), present)


def design_features(system: System, traffic: Traffic, plan: Plan) -> tuple[str, ...]:
    """Name what a design has that most have not, so that the rest is left out while tracing.

    Tiers beside main memory, engines near memory, stacking, cooling, a power cap, a retrieval corpus, neurons kept
    from step to step. What is traced counts as there, so that the result never depends on it.
    """
    asked = {"corpus": traffic.corpus, "corpus_read": traffic.corpus_read, "window": plan.neuron_window}
    return features(system.chip) + tuple(name for name, leaf in asked.items() if not surely(leaf, 0))


@program(static_argnames=("present",))
def _evaluate(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    prices: Prices,
    knobs: Knobs,
    present: tuple[str, ...],
) -> Report:
    shape = batch_shape((system, model, traffic, plan, prices, knobs))
    system, model, traffic, plan, prices, knobs = align((system, model, traffic, plan, prices, knobs))
    tau = knobs.tau
    shards = shard(model, plan, tau)
    prefill_group, decode_group, mixed_group, schedule = _steps(model, traffic, plan, shards, knobs)
    built = system.chip
    fabric = system.fabric
    one = opaque_one(built.memory.bandwidth, model.hidden, traffic.batch, plan.tp)
    chip = usable_chip(built, present, one)
    shards, prefill_group, decode_group, mixed_group, schedule = fence(
        (shards, prefill_group, decode_group, mixed_group, schedule), one
    )
    widths = [_tokens(prefill_group) + _tokens(mixed_group), _tokens(decode_group)]
    widest = jnp.maximum(*widths)
    memory = memory_use(
        model,
        plan,
        shards,
        sequences=_group_of(traffic.batch, plan.dp, knobs),
        context=_context(traffic) + traffic.output,
        step_tokens=widest,
        communication=communication_buffers(model, plan, shards, widest),
        corpus=traffic.corpus / schedule.chips if "corpus" in present else 0.0,
    )
    beside = tuple(name for name in BESIDE if name in present)
    old = _old_share(traffic)
    holdings = hold(memory, shared_bytes(model, plan, shards), old)
    layout, unit = place(chip, model, plan, shards, holdings, old, widths[1], present, tau, one)
    standing = {name: getattr(chip, name) for name in ("memory", *beside)}
    use = {name: held(holdings, layout, name) for name in beside}
    kept = (
        kept_neurons(model, plan, shards, widths[1], add(*layout.stored["weights"].values()))
        if beside and "window" in present
        else 0.0
    )
    in_main = add(memory.used - add(*use.values()), kept) if beside else memory.used
    use = once(use | {"memory": in_main}, one) if present else use | {"memory": in_main}
    resting = (standby_power(tier, use[name]) for name, tier in standing.items())
    chip = replace(chip, idle_power=once(add(chip.idle_power, *resting), one))
    system = replace(system, chip=chip)
    made = once(build(built, fabric, beside, prices.since), one)
    on = levels(
        fabric,
        system.chips,
        efficiency=chip.efficiency.link,
        memory=chip.memory,
    )
    among = fence(groups(plan, shards, fabric, on), one)
    carrier = carrier_of(unit.kernels, unit.seconds_per_byte, chip.compute.cores)
    messages = fence(step_messages(model, plan, shards, widths, fabric, on, among, tau, carrier), one)
    hot, capped = "cooling" in present, "cap" in present

    def run(step: tuple[Group, Group, dict[str, tuple[Scalar, Message]]]) -> _Step:
        *both, sent = step
        load = fence(step_load(model, tuple(both)), one)
        asked = traffic.corpus_read if "corpus_read" in present else 0.0
        table, cost = fence(
            (step_table(model, plan, shards, load, asked, window="window" in present), unit), one
        )
        own, host = None, None
        if cost.kernels is not None:
            own = kernel_rows(
                model,
                plan,
                shards,
                (both[0], both[1]),
                load,
                cost.kernels,
                functools.partial(_machine, chip, cost),
            )
            engine = cost.kernels.engine
            host = engine.layer * layer_count(model) + engine.sequence * load.sequences
        overlap = chip.efficiency.overlap
        timed = op_times(table, sent, cost, overlap, tau, kernels=own, engine=host, heat=hot)
        spent, times = step_energy(table, timed.near, sent, chip, fabric, cost), timed.times
        heat, clock = Heat(), Clock()
        if capped:
            work = (times.total, spent.engines, spent.dynamic - spent.engines)
            clock = once(clock_of(chip, times.rows, *once(work, one)), one)
            times, spent = replace(times, capped=clock.lost), spent.slowed(clock.saved)
        if hot:
            heat = heat_of(chip, *once((spent.dynamic, times.total, timed.hot), one))
        times = replace(times, heat=heat.lost)
        return _Step(times=times, energy=spent, flops=matmul_work(table), heat=heat, clock=clock)

    nobody = replace(mixed_group, sequences=0.0, drafts=0.0)
    steps = over(run, [(prefill_group, mixed_group, messages[0]), (decode_group, nobody, messages[1])])
    prefill, decode = fence(steps, one)
    timing = Timing(prefill=prefill.times, decode=decode.times, schedule=schedule)
    chip_seconds = schedule.chips / timing.tokens_per_second
    reliability = Reliability(
        stale_tokens=late_share(meetings(model, plan, shards, among), fabric.jitter, fabric.timeout),
        availability=availability(system),
        spares=system.spares / system.chips,
    )
    dynamic, flops = _per_token((prefill.energy, prefill.flops), (decode.energy, decode.flops), schedule)
    energy = replace(
        dynamic,
        idle=chip_seconds * chip.idle_power,
        host=chip_seconds * system.host.power,
    )
    owned_seconds = chip_seconds * reliability.chips_per_working_chip
    metered = metered_energy(
        system, prices, energy=energy.total, chip_seconds=chip_seconds, owned_seconds=owned_seconds
    )
    supplied = supplied_power(system) * schedule.chips
    power = Power(
        prefill=chip.idle_power + smooth.safe_div(prefill.energy.dynamic, prefill.times.total),
        decode=chip.idle_power + smooth.safe_div(decode.energy.dynamic, decode.times.total),
        prefill_clock=prefill.clock.share,
        decode_clock=decode.clock.share,
        chips=(energy.total - energy.host) / chip_seconds * schedule.chips,
        hosts=system.host.power * schedule.chips,
        pue=prices.pue,
        provisioned=supplied,
        racks=supplied / prices.rack_power,
    )
    one_chip = embodied(built, made, beside)
    served = prices.lifetime * prices.utilization
    tiers = tier_uses(
        chip,
        use,
        holdings,
        layout,
        batch_seconds=timing.batch_seconds,
        step_seconds=timing.tpot * schedule.tokens_per_step,
        updates=traffic.weight_updates,
        served=served,
        tau=tau,
    )
    report = Report(
        prefill=prefill.times,
        decode=decode.times,
        schedule=schedule,
        memory=memory,
        tiers=tiers,
        thermal=Thermal(prefill=prefill.heat, decode=decode.heat),
        energy=energy,
        power=power,
        build=made,
        usd=cost_per_token(system, prices, made, owned_seconds=owned_seconds, metered=metered),
        rent=1e6 * owned_seconds / prices.utilization * chip.rental,
        embodied=one_chip,
        carbon=carbon_per_token(system, prices, one_chip, owned_seconds=owned_seconds, metered=metered),
        water=water_per_token(prices, metered),
        flops=flops,
        battery_share=smooth.safe_div(energy.total * traffic.output, system.battery),
        split=_prefill_shares(timing, prefill.energy.dynamic, decode.energy.dynamic),
        reliability=reliability,
        margins=Margins(
            memory=1 - use["memory"] / chip.memory.capacity,
            chips=1 - schedule.chips / system.chips,
            power=1 - smooth.maximum(power.prefill, power.decode, tau) / chip.tdp,
            ttft=1 - smooth.safe_div(timing.ttft, traffic.ttft_target),
            tpot=1 - smooth.safe_div(timing.tpot, traffic.tpot_target),
            **{name: _room(getattr(chip, name), use[name]) for name in beside},
            area=1 - smooth.safe_div(made.die_area / chip.package.dies, chip.process.reticle),
            **_chip_margins(chip, fabric, tiers, prefill.heat, decode.heat, tau, hot=hot),
        ),
    )
    return spread(report, shape)


def _machine(chip: Chip, unit: Rates, operands: str) -> Machine:
    """What a kernel on operands of a class of data meets of the chip."""
    return Machine(
        rate=1 / unit.seconds_per_flop[operands],
        bandwidth=1 / unit.seconds_per_byte,
        cores=chip.compute.cores,
        cache=chip.package.cache,
        exponentials=1 / unit.seconds_per_exponential,
    )


def _room(tier: Memory, used: Scalar) -> Scalar:
    return 1 - used / jnp.where(tier.capacity > 0, tier.capacity, 1)


def _chip_margins(
    chip: Chip, fabric: Fabric, tiers: Tiers, prefill: Heat, decode: Heat, tau: Scalar, *, hot: bool
) -> dict[str, Scalar]:
    """Margins that only tiers, edges or heat can break; those that nothing here can break keep their default."""
    out = {}
    if hot:
        top, coolant = limit(chip), chip.cooling.coolant
        rise = smooth.maximum(prefill.temperature - coolant, decode.temperature - coolant, tau)
        cooled = (top > 0) & (resistance(chip) > 0)
        out["temperature"] = jnp.where(cooled, 1 - rise / jnp.where(cooled, top - coolant, 1), 1)
    memories = {name: getattr(chip, name) for name in TIERS}
    links = (fabric.package, fabric.scale_up, fabric.scale_out)
    edge = add(
        *(m.stacks * m.shoreline * (1 - m.chained) for m in memories.values()),
        *(link.bandwidth * link.interface_edge for link in links),
    )
    out["shoreline"] = 1 - smooth.safe_div(edge, chip.shoreline)
    worn = [getattr(tiers, name).wear for name in TIERS]
    out["endurance"] = 1 - jnp.max(stack(worn), axis=0)
    return out


def _context(traffic: Traffic) -> Scalar:
    return traffic.prompt + traffic.retrieved + traffic.encoder_tokens


def _old_share(traffic: Traffic) -> Scalar:
    """Share of a request's context that was cached before it came."""
    cached = traffic.prompt * traffic.prefix_hit + traffic.retrieved
    return cached / (_context(traffic) + traffic.output)


def _tokens(group: Group) -> Scalar:
    return group.sequences * group.new


def _group_of(batch: Scalar, groups: Scalar, knobs: Knobs) -> Scalar:
    """Requests in the fullest of so many groups."""
    whole = smooth.ceil_div(batch, groups, knobs.tau)
    return jnp.where(knobs.fractional > 0, jnp.maximum(batch / groups, 1), whole)


def _steps(
    model: Model, traffic: Traffic, plan: Plan, shards: Shards, knobs: Knobs
) -> tuple[Group, Group, Group, Schedule]:
    """Describe the prefill step, the decode step, the decoding that rides in a mixed step, and the schedule.

    A decode step yields 1 token; with a draft of g tokens accepted with probability p each it yields
    (1 - p^(g+1)) / (1 - p) (Leviathan et al. 2023); a diffusion block of S tokens in k passes yields S / k.
    Decode is evaluated at the mean context: what is there when it begins plus half of what it adds.

    A pipeline of p stages passes M microbatches, each stage at the pace of the largest, T / p x balance with T the
    step through all layers: the last microbatch leaves after M + p - 1 of these, and a sequence comes by again
    every max(M, p).
    """
    parts = microbatches(plan)
    balance = shards.stage_share
    interval = jnp.maximum(parts, plan.pp) * balance
    sequences = _group_of(traffic.batch, plan.dp * parts, knobs)
    context = _context(traffic)
    cached = traffic.prompt * traffic.prefix_hit + traffic.retrieved
    computed = context - cached
    diffusing = model.diffusion_block > 0
    certain = plan.acceptance >= 1
    p = jnp.where(certain, 0.5, jnp.maximum(plan.acceptance, 1e-6))
    accepted = jnp.where(
        certain, plan.draft_length + 1, -jnp.expm1((plan.draft_length + 1) * jnp.log(p)) / (1 - p)
    )
    first = jnp.where(diffusing, model.diffusion_block, 1)
    tokens_per_step = jnp.where(diffusing, model.diffusion_block / model.diffusion_steps, accepted)
    new = jnp.where(diffusing, model.diffusion_block, 1 + plan.draft_length)
    decode_steps = jnp.maximum(traffic.output - first, 0) / tokens_per_step

    chunked = plan.chunk > 0
    chunk = jnp.where(chunked, jnp.minimum(plan.chunk, computed), computed)
    chunks = jnp.where(chunked, smooth.ceil_div(computed, jnp.where(chunked, chunk, 1), knobs.tau), 1)
    positions = traffic.encoder_tokens * model.encoder_ratio
    prefill = Group(
        sequences=jnp.where(chunked, 1, sequences),
        new=chunk,
        context=cached + (computed - chunk) / 2,
        logits=1.0,
        absorbed=plan.absorb_prefill,
        encoder_positions=positions * chunk / computed,
        drafts=0.0,
        retrievals=chunk / computed,
    )
    decode = Group(
        sequences=sequences,
        new=new,
        context=context + jnp.maximum(traffic.output - first - 1, 0) / 2,
        logits=new,
        absorbed=plan.absorb_decode,
        encoder_positions=0.0,
        drafts=plan.draft_length,
    )
    riding = jnp.where(chunked, 1, 0)
    mixed = replace(decode, sequences=riding * sequences, drafts=riding * plan.draft_length)
    per_step = riding * sequences * chunks / jnp.maximum(decode_steps, 1)
    pipeline = (parts + plan.pp - 1) * balance
    schedule = Schedule(
        requests=traffic.batch,
        prompt=traffic.prompt,
        output=traffic.output,
        tokens_per_step=tokens_per_step,
        decode_steps=jnp.where(chunked, jnp.maximum(decode_steps, 1), decode_steps),
        prefill_runs=jnp.where(chunked, chunks * interval, pipeline),
        block_runs=jnp.where(diffusing, model.diffusion_steps * interval, 0),
        interval=interval,
        passes=parts / plan.pp,
        mixed_share=per_step,
        pure_share=jnp.maximum(1 - per_step, 0),
        separate_prefill=jnp.where(chunked, 0, pipeline),
        chips=plan.tp * plan.pp * plan.cp * plan.dp,
    )
    return prefill, decode, mixed, schedule


def _per_token(prefill: T, decode: T, s: Schedule) -> T:
    """Spread what the steps take over the tokens of one batch; a run takes all chips, for each microbatch."""
    prefill_runs = jnp.where(s.separate_prefill > 0, 1, s.decode_steps * s.mixed_share)
    decode_runs = s.decode_steps * s.pure_share + s.block_runs / s.interval
    each = s.passes * s.chips / (s.requests * s.output)
    return jax.tree.map(lambda a, b: (prefill_runs * a + decode_runs * b) * each, prefill, decode)


def _prefill_shares(timing: Timing, prefill: Scalar, decode: Scalar) -> Shares:
    """Share of a batch's time and dynamic energy, given those of a step, that goes to prefill."""
    s = timing.schedule
    mixed, separate = s.decode_steps * s.mixed_share, jnp.where(s.separate_prefill > 0, 1, 0)
    more = timing.prefill.total - timing.decode.total
    seconds = s.separate_prefill * timing.prefill.total + s.interval * mixed * more
    spent = separate * prefill + mixed * (prefill - decode)
    decoded = s.decode_steps * (s.mixed_share + s.pure_share) + s.block_runs / s.interval
    return Shares(
        seconds=seconds / timing.batch_seconds, energy=smooth.safe_div(spent, spent + decoded * decode)
    )
