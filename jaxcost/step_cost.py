"""The time and energy of one step of a serving engine: sequences that decode, and prompt tokens computed along.

`evaluate` costs the steps of a batch of equal requests. A replay forms its steps as requests come, and asks for

    S decoding sequences with c tokens each in the cache, and P prompt tokens that attend to r keys each on average

Query-key pairs are then P r, as they are for chunks of any requests together: r = sum p (a + (p + 1) / 2) / P over
chunks of p tokens whose requests have a tokens in the cache. For r >= (P + 1) / 2 it is the load of one chunk with
r - (P + 1) / 2 tokens in the cache, below that of several prompts of 2 r - 1 tokens.

A pipeline of p stages and M microbatches takes max(M, p) intervals until a sequence returns; prompt tokens are in one
of its microbatches. Data-parallel ranks run in lockstep, with equal shares of sequences and prompt tokens.
"""

import jax.numpy as jnp

from jaxcost.core.arrays import align, batch_shape, materialize_once, row, spread, stack, where
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree, replace
from jaxcost.evaluation import design_features, place_data, run_steps, time_messages
from jaxcost.physics.compute.load import Group, step_load
from jaxcost.physics.compute.shards import complete_plan, layer_count, microbatches, shard
from jaxcost.schedule import Steps, schedule_steps
from jaxcost.spec.kernels import EngineOverheads
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["StepCost", "StepMix", "is_narrow", "prompt_seconds", "step_cost"]

_NARROW = 8.0  # bits of activations


@pytree
class StepMix:
    """What a step of a replica computes, all data-parallel ranks together."""

    sequences: Scalar = field("1", "sequences that decode")
    context: Scalar = field("token", "tokens in the cache of each of them, on average")
    tokens: Scalar = field("token", "prompt tokens")
    keys: Scalar = field("token", "keys that a prompt token attends to, on average")


@pytree
class StepCost:
    """A step of a replica that computes prompt tokens along with decoding, and one that only decodes."""

    mixed_seconds: Scalar = field("s", "time of the step with prompt tokens")
    mixed_joules: Scalar = field("J", "its dynamic energy on all chips of the replica")
    decode_seconds: Scalar = field("s", "time of the step of at least one sequence without prompt tokens")
    decode_joules: Scalar = field("J", "its dynamic energy on all chips of the replica")


def step_cost(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    mix: StepMix,
    *,
    knobs: Knobs | None = None,
) -> StepCost:
    """Return the time and dynamic energy of steps of a replica.

    Pure, traceable, differentiable and native over a batch of designs, as `evaluate`. The data are placed in memory
    tiers as for `traffic`. Times include the overheads of `system.chip.efficiency.kernels.engine` per layer and
    sequence; the prompts of a step take at least their eager launch floor, as in `closed_loop`.

    Args:
        system: chips, links and hosts.
        model: the language model; without diffusion blocks.
        traffic: the requests for which data are placed in tiers.
        plan: degrees, precisions, drafts and engine of the replica; its chunk is ignored.
        mix: what the step computes.
        knobs: as for `evaluate`.
    """
    arguments = canonical((system, model, traffic, plan, mix, knobs or Knobs()))
    return _step_cost(*arguments, features=design_features(system, traffic, plan, arguments[-1]))


@program(static_argnames=("features",))
def _step_cost(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    mix: StepMix,
    knobs: Knobs,
    *,
    features: tuple[str, ...],
) -> StepCost:
    shape = batch_shape((system, model, traffic, plan, mix, knobs))
    system, model, traffic, plan, mix, knobs = align((system, model, traffic, plan, mix, knobs))
    knobs = replace(knobs, tau=0.0) if "exact" in features else knobs
    plan = replace(complete_plan(plan), chunk=jnp.zeros_like(plan.chunk))
    shards = materialize_once(shard(model, plan, knobs.tau))
    expected, schedule = materialize_once(schedule_steps(model, traffic, plan, shards, knobs))
    placed = place_data(system, model, traffic, plan, shards, expected, schedule, knobs, features)
    parts = jnp.minimum(microbatches(plan), jnp.maximum(mix.sequences / plan.dp, 1))
    steps = _groups(plan, mix, parts)
    system = replace(system, chip=placed.chip)
    load = materialize_once(step_load(model, (steps.main, steps.mixed)))
    messages, _ = time_messages(system, model, plan, shards, steps, load, placed.unit, knobs.tau)
    results = run_steps(
        system, model, traffic, plan, shards, steps, load, placed, messages, knobs.tau, features
    )
    seconds = results.times.total + results.clock.lost + results.heat.lost
    mixed, decode = row(seconds, 0), row(seconds, 1)
    prompts = jnp.maximum(mixed - where(mix.sequences > 0, decode, 0), 0)
    kernels = system.chip.efficiency.kernels
    engine = EngineOverheads() if kernels is None else kernels.engine
    prompts = prompt_seconds(engine, prompts, layer_count(model), is_narrow(plan))
    interval = jnp.maximum(parts, plan.pp) * shards.stage_share
    decoding = where(mix.sequences > 0, decode, 0)
    spent, decoded = row(results.joules.dynamic, 0), row(results.joules.dynamic, 1)
    chips, others = schedule.chips / plan.pp, where(mix.sequences > 0, (parts - 1) * decoded, 0)
    cost = StepCost(
        mixed_seconds=interval * (decoding + prompts / parts),
        mixed_joules=chips * (spent + others),
        decode_seconds=interval * decode,
        decode_joules=chips * parts * decoded,
    )
    return spread(cost, shape)


def prompt_seconds(engine: EngineOverheads, seconds: Scalar, layers: Scalar, narrow: Scalar) -> Scalar:
    """Return the time that prompts add to a step: their kernels, and launches that no graph has captured.

        s seconds + eager_launch_floor L,   s = narrow_prefill where narrow is 1, else 1

    Args:
        engine: constants of the engine.
        seconds: time of the kernels, s.
        layers: layers L of the model.
        narrow: 1 where prompts are computed in 8 bits or fewer, else 0.
    """
    return seconds * (1 + narrow * (engine.narrow_prefill - 1)) + engine.eager_launch_floor * layers


def is_narrow(plan: Plan) -> Scalar:
    """Return 1 where a plan computes prompts in 8 bits or fewer, else 0."""
    return where(plan.activation_bits <= _NARROW, 1.0, 0.0)


def _groups(plan: Plan, mix: StepMix, parts: Scalar) -> Steps:
    """Return the sequences on one rank of a step with prompt tokens and of one without."""
    decoding = mix.sequences / (plan.dp * parts)
    tokens = jnp.maximum(mix.tokens / plan.dp, 1)
    keys = jnp.maximum(mix.keys, 1)
    several = 2 * keys - 1 < tokens
    chunk = where(several, 2 * keys - 1, tokens)
    before = where(several, 0, keys - (tokens + 1) / 2)
    new = 1 + plan.draft_length
    drafted = where(plan.draft_length > 0, 1.0, 0.0)
    one = jnp.ones_like(chunk)
    main = Group(
        sequences=stack([tokens / chunk, jnp.maximum(decoding, 1 / plan.dp)]),
        new=stack([chunk, new]),
        context=stack([before, mix.context]),
        logits=stack([one, new]),
        absorbed=stack([plan.absorb_prefill, plan.absorb_decode]),
        encoder_positions=0.0,
        drafts=stack([drafted, plan.draft_length]),
        draft_new=stack([chunk, one]),
    )
    zero = jnp.zeros_like(decoding)
    mixed = Group(
        sequences=stack([decoding, zero]),
        new=new,
        context=mix.context,
        logits=new,
        absorbed=plan.absorb_decode,
        encoder_positions=0.0,
        drafts=stack([where(decoding > 0, plan.draft_length, 0), zero]),
    )
    return Steps(main=main, mixed=mixed)
