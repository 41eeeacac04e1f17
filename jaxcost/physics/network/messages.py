"""The messages of one step of a model under a plan: kinds, counts, sizes and groups of ranks.

Symbols: m tokens of a step on a replica; d width of the residual stream; tp, cp, pp, ep degrees; E experts of which
a token picks k.

Sources: Shoeybi et al. 2019 (arXiv:1909.08053); Korthikanti et al. 2022 (arXiv:2205.05198) for sequence parallelism;
Lepikhin et al. 2020 (arXiv:2006.16668) for experts.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcost.core import arrays
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.compute.attention import attention_layers
from jaxcost.physics.compute.load import StepLoad
from jaxcost.physics.compute.shards import Shards, expert_input
from jaxcost.physics.kernels.collective import CollectiveBackend, Exchange, exchange_of, without_all_reduce
from jaxcost.physics.network.algorithms import AlgorithmCosts, algorithm_costs
from jaxcost.physics.network.collectives import (
    Communicator,
    Message,
    RankGroup,
    all_reduce,
    all_to_all,
    communicator,
    point_to_point,
)
from jaxcost.physics.network.levels import Level, level_axis, shift_levels, with_level_axis
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = [
    "Messages",
    "collectives_per_token",
    "communication_buffers",
    "hottest_rank",
    "plan_groups",
    "step_messages",
    "touched_groups",
]

_NAMES = (
    "tensor_all_reduce",
    "expert_dispatch",
    "expert_combine",
    "context_all_reduce",
    "draft_all_reduce",
    "pipeline_send",
)


@pytree
class Messages:
    """The messages of the steps, by kind."""

    counts: jax.Array = field("1", "messages per step, `[messages, steps, *batch]`")
    seconds: jax.Array = field("s", "duration of one message, `[messages, steps, *batch]`")
    level_bytes: jax.Array = field(
        "B", "bytes times hops of one message, `[levels, messages, steps, *batch]`"
    )
    names: tuple[str, ...] = field(doc="kinds of messages", default=_NAMES, static=True)


def touched_groups(groups: Scalar, experts: Scalar, top_k: Scalar) -> jax.Array:
    """Return the expected number of g equal groups of experts that contain the k experts of one token.

    g (1 - C(E - E/g, k) / C(E, k)), with the quotient of the binomials approximated by the middle of its k factors:
    (1 - (E/g) / (E - (k - 1) / 2))^k.
    """
    missed = 1 - experts / jnp.maximum(experts - (top_k - 1) / 2, 1) / groups
    return groups * (1 - jnp.exp(top_k * jnp.log(arrays.clip(missed, 1e-9, 1))))


def hottest_rank(ranks: Scalar, picks: Scalar, experts: Scalar, skew: Scalar) -> jax.Array:
    """Return the expected load of the busiest of e ranks over the average, for `picks` picks among E experts.

    The load of a rank has squared coefficient of variation c = (skew e / E + e / picks) (1 - 1/e), since experts differ
    in popularity and picks are random. For a Gamma distributed load, its quantile at the normal score z of the largest
    of e (Blom 1958) is (1 - c/9 + z sqrt(c/9))^3 (Wilson and Hilferty 1931).
    """
    several = ranks > 1
    e = arrays.where(several, ranks, 2)
    c = (skew * e / jnp.maximum(experts, 1) + e / jnp.maximum(picks, 1e-6)) * (1 - 1 / e) / 9
    # Normal score of 1 - tail, to 3e-3 (Abramowitz and Stegun 26.2.22).
    x = jnp.sqrt(-2 * jnp.log(0.625 / (e + 0.25)))
    z = x - (2.30753 + 0.27061 * x) / (1 + x * (0.99229 + 0.04481 * x))
    root = 1 - c + z * jnp.sqrt(c)
    # A rank can have at most all picks, e times the average.
    return arrays.where(several, arrays.clip(root * root * root, 1, e), 1)


def plan_groups(plan: Plan, shards: Shards, fabric: Fabric, levels: Level) -> Communicator:
    """Place the ranks of a plan: tensor-parallel ranks adjacent, then context, pipeline and data parallel ranks.

    The table `[groups, *batch]` has the tensor-parallel group, the context-parallel one, the tensor-parallel one of a
    draft, and the expert-parallel one.
    """
    stacked = RankGroup(
        ranks=arrays.stack([plan.tp, plan.cp, plan.tp, plan.tp]),
        stride=arrays.stack([1.0, plan.tp, 1.0, 1.0]),
        repeats=arrays.stack([1.0, 1.0, 1.0, shards.joined_replicas]),
        every=arrays.stack([1.0, 1.0, 1.0, plan.tp * plan.cp * plan.pp]),
    )
    return communicator(stacked, fabric, levels)


def step_messages(
    model: Model,
    plan: Plan,
    shards: Shards,
    load: StepLoad,
    levels: Level,
    groups: Communicator,
    tau: Scalar,
    backend: CollectiveBackend | None = None,
    *,
    prompts: Scalar = True,
) -> Messages:
    """Return the messages of the steps of a load, `[steps, *batch]` or `[*batch]`.

    - Tensor parallel: an all-reduce of the residual stream after every token and channel mixer; with sequence
      parallelism, a reduce-scatter and an all-gather instead.
    - Expert parallel beyond a tensor group: every rank sends its share of the tokens to the ranks of their experts,
      once per rank, package and domain, and receives the results in at least 16 bits. The busiest rank sets the time.
    - Context parallel: an all-reduce of partial attention outputs.
    - Draft: two all-reduces of its residual stream per layer and pass. The passes of a module with experts dispatch
      and combine messages of the size of the step's, since both wait for latency.
    - Pipeline parallel: the residual stream is sent to the next stage.

    Args:
        model: the language model.
        plan: precisions and degrees.
        shards: the part of the model on one chip.
        load: tokens of the steps.
        levels: the levels of the fabric.
        groups: the groups of ranks, of `plan_groups`.
        tau: softness.
        backend: calibrated kernels within a domain; None for closed forms. Kernels that send a token once per expert
            send more bytes.
        prompts: true for the steps with prompts, which use other exchanges than those that only decode.
    """
    element, tokens = shards.precision.messages / 8, load.tokens
    stream = tokens * (model.hidden * element)
    drafted = load.draft_pass_tokens * (shards.draft.width * element)
    outputs = tokens * (_attention_width(model, shards) * element)
    # The axis of steps, if any, follows that of groups.
    steps = tuple(range(1, 1 + jnp.ndim(tokens) - (np.ndim(levels.hop) - 1)))
    groups = jax.tree.map(lambda x: lax.expand_dims(x, steps), groups)
    costs, rank = algorithm_costs(levels, groups.counts), groups.counts.ndim
    costs = arrays.materialize_once(costs)
    leaves, structure = jax.tree.flatten(groups)
    reduced, routed = (
        structure.unflatten(x) for x in zip(*(lax.split(leaf, (3, 1)) for leaf in leaves), strict=True)
    )
    sizes = arrays.stack([stream, outputs, drafted])
    sums = all_reduce(
        sizes,
        reduced,
        levels,
        tau,
        scattered=plan.sequence_parallel * arrays.column([1, 0, 0], sizes),
        costs=_take(costs, rank, (0, 3)),
        backends=() if backend is None else (backend, without_all_reduce(backend), backend),
    )
    exchanges = _exchanges(
        model, plan, shards, tokens, levels, routed, _take(costs, rank, (3, 4)), backend, prompts
    )
    pipeline = point_to_point(stream, plan.tp * plan.cp * plan.pp, levels)
    return Messages(
        counts=arrays.stack(_counts(model, plan, shards, load.draft_passes)),
        seconds=_in_order(sums.seconds, exchanges.seconds, pipeline.seconds),
        level_bytes=_levels_first(
            _in_order(sums.level_bytes, exchanges.level_bytes, pipeline.level_bytes), levels
        ),
    )


def _take(tree: Any, rank: int, part: tuple[int, int]) -> Any:
    """Slice the leading axis of groups of all leaves of a rank; other leaves have no such axis and stay unchanged."""
    return jax.tree.map(lambda x: x if np.ndim(x) < rank else lax.slice_in_dim(x, *part, axis=0), tree)


def _in_order(sums: jax.Array, exchanges: jax.Array, pipeline: jax.Array) -> jax.Array:
    """Concatenate the messages in the order of their names."""
    parts = sums[:1], exchanges, sums[1:], lax.expand_dims(pipeline, (0,))
    shape = np.broadcast_shapes(*(part.shape[1:] for part in parts))
    return lax.concatenate([arrays.spread(part, (part.shape[0], *shape)) for part in parts], 0)


def _levels_first(x: jax.Array, levels: Level) -> jax.Array:
    axis = level_axis(x, levels)
    return lax.transpose(x, (axis, *range(axis), *range(axis + 1, x.ndim)))


def _exchanges(
    model: Model,
    plan: Plan,
    shards: Shards,
    tokens: Scalar,
    levels: Level,
    group: Communicator,
    costs: AlgorithmCosts,
    backend: CollectiveBackend | None,
    prompts: Scalar,
) -> Message:
    """Time dispatch and combine, `[phases, steps, *batch]`, in the expert-parallel group, `[1, ...]`."""
    x, n = model.experts, group.counts
    copies = touched_groups(with_level_axis(group.ranks, levels) * n / group.within, x.experts, x.top_k) * (
        1 - 1 / n
    )
    row = arrays.stack([shards.precision.messages, _combine_bits(shards)]) * (expert_input(model) / 8)
    exchanges: list[Exchange | None] = []
    if backend is not None:
        exchanges = [
            exchange_of(backend, phase, tokens / plan.tp, x.top_k, x.experts, row[k], prompts)
            for k, phase in enumerate(("dispatch", "combine"))
        ]
        copies = _copies_sent(copies, exchanges, x.top_k, group, levels)
    # Tokens and groups have further axes between those of phases and of the batch.
    row = lax.expand_dims(row, range(1, 1 + n.ndim - np.ndim(levels.hop) + 1))
    message = all_to_all(
        with_level_axis(tokens / plan.tp, levels) * row * copies,
        group,
        levels,
        costs=costs,
        peak=hottest_rank(plan.ep, tokens * shards.joined_replicas * x.top_k, x.experts, x.skew),
        exchanges=exchanges,
    )
    return jax.tree.map(lambda x: lax.squeeze(x, (1,)), message)


def _copies_sent(
    copies: jax.Array, exchanges: list[Exchange | None], top_k: Scalar, group: Communicator, levels: Level
) -> jax.Array:
    """Return the copies of a token that leave a rank, `[phases, ...]`: on every level one per expert or per rank."""
    there = (group.within - shift_levels(group.within, levels, 1.0)) / with_level_axis(group.ranks, levels)
    direct = with_level_axis(top_k, levels) * there
    sent = []
    for exchange in exchanges:
        every = with_level_axis(0.0 if exchange is None else exchange.every_expert, levels)
        sent.append(arrays.where(every > 0.5, direct, copies))
    return arrays.stack(sent)


def _counts(model: Model, plan: Plan, shards: Shards, draft_passes: Scalar) -> list[Scalar]:
    """Count the messages of a step by kind, in the order of their names."""
    x = model.experts
    attending = attention_layers(model) + model.latent.layers
    mixers = attending + model.recurrence.layers
    drafted = draft_passes * (shards.draft.expert_parameters > 0)
    routed = (x.layers + drafted) * (shards.joined_replicas > 1)
    return [
        (mixers + model.feed_forward.layers + x.layers) * (plan.tp > 1),
        routed,
        routed,
        attending * (plan.cp > 1),
        draft_passes * (2 * shards.draft.layers * (plan.tp > 1)),
        plan.pp - 1,
    ]


def collectives_per_token(model: Model, plan: Plan, shards: Shards, groups: Communicator) -> Scalar:
    """Count the ranks that wait for each other in one decode step, summed over its collectives."""
    counts = _counts(model, plan, shards, plan.draft_length)
    sums, dispatches, combinations, attentions, drafted, _ = counts
    tensor, context, _, experts = (arrays.row(groups.ranks, k) for k in range(4))
    return (
        sums * (1 + arrays.round_(plan.sequence_parallel)) * tensor
        + (dispatches + combinations) * experts
        + attentions * context
        + drafted * tensor
    )


def _attention_width(model: Model, shards: Shards) -> Scalar:
    return jnp.maximum(jnp.max(shards.attention.value_width, 0), shards.latent_heads * model.latent.value_dim)


def _combine_bits(shards: Shards) -> Scalar:
    return jnp.maximum(shards.precision.messages, 16)


def communication_buffers(model: Model, plan: Plan, shards: Shards, tokens: Scalar) -> Scalar:
    """Return the bytes of a rank's send and receive buffers for a step of m tokens.

    Buffered are the residual stream for tensor and pipeline parallelism, attention outputs for context parallelism, and
    the tokens that the experts of the average rank receive, with their results.
    """
    bits = shards.precision.messages
    element = bits / 8
    stream = 2 * tokens * model.hidden * element
    outputs = 2 * tokens * _attention_width(model, shards) * element
    received = tokens * shards.joined_replicas * model.experts.top_k / plan.ep * expert_input(model)
    routed = received * (bits + _combine_bits(shards)) / 8
    return (
        stream * ((plan.tp > 1) + 1.0 * (plan.pp > 1))
        + outputs * (plan.cp > 1)
        + routed * ((shards.joined_replicas > 1) & (model.experts.layers > 0))
    )
