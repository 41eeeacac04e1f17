"""The schedule of a batch of requests: how prefill and decode steps make up its service."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from jaxcost.core import smooth
from jaxcost.core.arrays import clip, row, stack, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.compute.load import Group
from jaxcost.physics.compute.shards import Shards, microbatches
from jaxcost.report import Schedule, Shares, Timing
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs
from jaxcost.spec.traffic import Traffic

__all__ = [
    "Steps",
    "billed_tokens",
    "context_tokens",
    "group_size",
    "per_token",
    "prefill_shares",
    "schedule_steps",
]


@pytree
class Steps:
    """The sequences of the prefill and the decode step, along the first axis of every leaf that differs."""

    main: Group = field(doc="sequences that each step is for")
    mixed: Group = field(doc="sequences that decode along in a mixed prefill step")

    @property
    def tokens(self) -> jax.Array:
        """Tokens of each step, `[steps, *batch]`."""
        return jnp.asarray(self.main.sequences * self.main.new + self.mixed.sequences * self.mixed.new)

    @property
    def logits(self) -> jax.Array:
        """Tokens of each step whose logits are computed, `[steps, *batch]`."""
        return jnp.asarray(self.main.sequences * self.main.logits + self.mixed.sequences * self.mixed.logits)


def context_tokens(traffic: Traffic) -> Scalar:
    """Return the tokens of a request before its first output: prompt, retrieved and encoder tokens."""
    return traffic.prompt + traffic.retrieved + traffic.encoder_tokens


def billed_tokens(traffic: Traffic) -> Scalar:
    """Return the tokens of a request that share its energy and cost: its output, or without output its prompt."""
    return where(traffic.output > 0, traffic.output, jnp.maximum(traffic.prompt, 1))


def group_size(batch: Scalar, groups: Scalar, knobs: Knobs) -> Scalar:
    """Return the requests in the fullest of a number of groups."""
    whole = smooth.ceil_div(batch, groups, knobs.tau)
    return where(knobs.fractional > 0, jnp.maximum(batch / groups, 1), whole)


def schedule_steps(
    model: Model, traffic: Traffic, plan: Plan, shards: Shards, knobs: Knobs
) -> tuple[Steps, Schedule]:
    """Return the sequences of the prefill and the decode step, and the schedule of a batch.

    A decode step yields 1 token; with a draft of g tokens, each accepted with probability p, it yields
    (1 - p^(g+1)) / (1 - p) (Leviathan et al. 2023), or `plan.accepted` tokens, at most g + 1; a diffusion block of S
    tokens in k passes yields S / k per pass.
    Decode is evaluated at the mean context: the context at its start plus half of the tokens it adds.

    Without a chunk, the prompts of a microbatch, n tokens in all, are computed in r = ceil(n / budget) equal steps of
    n / r tokens before decoding: of several prompts, or of a part of one.

    A pipeline of p stages processes M microbatches, at most one for each request of a replica. Every stage takes as
    long as the largest, T / p x balance, with T the time of a step through all layers: the last of M r prefill steps
    leaves after M r + p - 1 such intervals, and a sequence returns every max(M, p) intervals.
    """
    parts = jnp.minimum(microbatches(plan), group_size(traffic.batch, plan.dp, knobs))
    balance = shards.stage_share
    interval = jnp.maximum(parts, plan.pp) * balance
    sequences = group_size(traffic.batch, plan.dp * parts, knobs)
    context = context_tokens(traffic)
    cached = traffic.prompt * traffic.prefix_hit + traffic.retrieved
    computed = jnp.maximum(context - cached, 1)  # an engine computes at least the last token of a prompt
    diffusing = model.diffusion_block > 0
    first = where(diffusing, model.diffusion_block, 1)
    new = where(diffusing, model.diffusion_block, 1 + plan.draft_length)
    tokens_per_step = where(
        diffusing, model.diffusion_block / model.diffusion_steps, _accepted_tokens(plan, shards)
    )
    decode_steps = jnp.maximum(traffic.output - first, 0) / tokens_per_step

    chunked = plan.chunk > 0
    prompts = sequences * computed
    limited = ~chunked & (plan.engine.step_tokens > 0)
    most = where(chunked, jnp.minimum(plan.chunk, computed), where(limited, plan.engine.step_tokens, prompts))
    runs = _count_steps(where(chunked, computed, prompts), most, chunked, knobs)
    tokens = where(chunked, most, prompts / runs)
    chunk = jnp.minimum(tokens, computed)
    share = chunk / computed
    is_mixed = where(chunked, 1.0, 0.0)
    decode_context = context + jnp.maximum(traffic.output - first - 1, 0) / 2
    prompt_passes = where(plan.draft_length > 0, 1.0, 0.0)
    main = Group(
        sequences=stack([tokens / chunk, sequences]),
        new=stack([chunk, new]),
        context=stack([cached + (computed - chunk) / 2, decode_context]),
        logits=stack([1.0, new], jnp.ndim(new)),
        absorbed=stack([plan.absorb_prefill, plan.absorb_decode]),
        encoder_positions=stack([traffic.encoder_tokens * model.encoder_ratio * share, 0.0]),
        drafts=stack([prompt_passes, plan.draft_length]),
        draft_new=stack([chunk, 1.0]),
        retrievals=stack([share, 0.0]),
    )
    mixed = Group(
        sequences=stack([is_mixed * sequences, 0.0]),
        new=new,
        context=decode_context,
        logits=new,
        absorbed=plan.absorb_decode,
        encoder_positions=0.0,
        drafts=stack([is_mixed * plan.draft_length, 0.0]),
    )
    per_step = is_mixed * sequences * runs / jnp.maximum(decode_steps, 1)
    pipeline = (parts * runs + plan.pp - 1) * balance
    schedule = Schedule(
        requests=traffic.batch,
        prompt=traffic.prompt,
        output=traffic.output,
        billed=billed_tokens(traffic),
        tokens_per_step=tokens_per_step,
        decode_steps=where(chunked, jnp.maximum(decode_steps, 1), decode_steps),
        prefill_steps=runs,
        prefill_runs=where(chunked, runs * interval, pipeline),
        block_runs=where(diffusing, model.diffusion_steps * interval, 0),
        interval=interval,
        passes=parts / plan.pp,
        mixed_share=per_step,
        pure_share=jnp.maximum(1 - per_step, 0),
        separate_prefill=where(chunked, 0, pipeline),
        chips=plan.tp * plan.pp * plan.cp * plan.dp,
    )
    return Steps(main=main, mixed=mixed), schedule


def _count_steps(prompts: Scalar, most: Scalar, chunked: Scalar, knobs: Knobs) -> jax.Array:
    """Return the prefill steps of a microbatch, or of a prompt in chunks: whole, at tau = 0.

    Above, steps of a token budget are not rounded: their work is the same however many there are, and a staircase would
    give it a slope that no whole design has. For the same reason a whole number of them has no derivative.
    """
    whole = smooth.ceil_div(prompts, most, knobs.tau)
    relaxed = where(
        (knobs.tau > 0) | (knobs.fractional > 0), jnp.maximum(prompts / most, 1), stop_gradient(whole)
    )
    return where(chunked, whole, relaxed)


def _accepted_tokens(plan: Plan, shards: Shards) -> jax.Array:
    """Return the mean tokens per decode step with a draft: `plan.accepted`, or (1 - p^(g+1)) / (1 - p).

    Where nothing drafts, as the model has no module and the plan no draft model, nothing is accepted: 1 token.
    """
    certain = plan.acceptance >= 1
    p = where(certain, 0.5, jnp.maximum(plan.acceptance, 1e-6))
    longest = plan.draft_length + 1
    expected = where(certain, longest, -jnp.expm1(longest * jnp.log(p)) / (1 - p))
    stated = clip(plan.accepted, 1, longest)
    return where(shards.draft.layers > 0, where(plan.accepted > 0, stated, expected), 1)


def per_token(s: Schedule) -> jax.Array:
    """Return the chip-runs of each step per output token, `[steps, *batch]`."""
    prefill_runs = where(s.separate_prefill > 0, s.prefill_steps, s.decode_steps * s.mixed_share)
    decode_runs = s.decode_steps * s.pure_share + s.block_runs / s.interval
    return stack([prefill_runs, decode_runs]) * (s.passes * s.chips / (s.requests * s.billed))


def prefill_shares(timing: Timing, joules: jax.Array) -> Shares:
    """Return the shares of a batch's time and dynamic energy due to prefill, from the joules of the steps."""
    s = timing.schedule
    prefill, decode = row(joules, 0), row(joules, 1)
    mixed, separate = s.decode_steps * s.mixed_share, where(s.separate_prefill > 0, s.prefill_steps, 0)
    more = timing.prefill.total - timing.decode.total
    seconds = s.separate_prefill * timing.prefill.total + s.interval * mixed * more
    spent = separate * prefill + mixed * (prefill - decode)
    decoded = s.decode_steps * (s.mixed_share + s.pure_share) + s.block_runs / s.interval
    return Shares(
        seconds=seconds / timing.batch_seconds, energy=smooth.safe_div(spent, spent + decoded * decode)
    )
