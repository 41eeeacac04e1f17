"""The messages of one step of a model under a plan: which there are, how many, of what size, between whom.

Symbols: m tokens of the step on a replica; d width of the residual stream; tp, cp, pp, ep degrees; E experts of which
a token picks k.

Sources: Shoeybi et al. 2019 (arXiv:1909.08053); Korthikanti et al. 2022 (arXiv:2205.05198), where norms are cut too;
Lepikhin et al. 2020 (arXiv:2006.16668) for experts.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.collective_kernel import Carrier, exchange_of, rings
from jaxcost.physics.collectives import (
    Communicator,
    Message,
    RankGroup,
    all_reduces,
    all_to_alls,
    communicator,
    point_to_point,
)
from jaxcost.physics.levels import Level
from jaxcost.physics.shards import Shards
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = [
    "Groups",
    "communication_buffers",
    "groups",
    "hottest_rank",
    "meetings",
    "step_messages",
    "touched_groups",
]


@pytree
class Groups:
    """The groups of ranks that a plan makes."""

    tensor: Communicator = field(doc="shards of one layer")
    context: Communicator = field(doc="shards of one cache")
    experts: Communicator = field(doc="holders of one set of experts")


def touched_groups(groups: Scalar, experts: Scalar, top_k: Scalar) -> jax.Array:
    """Expected number of g equal groups of experts that one token's k choices fall into.

    g (1 - C(E - E/g, k) / C(E, k)), with the binomials' quotient taken at the middle of its k factors:
    (1 - (E/g) / (E - (k - 1) / 2))^k.
    """
    missed = 1 - experts / groups / jnp.maximum(experts - (top_k - 1) / 2, 1)
    return groups * (1 - jnp.exp(top_k * jnp.log(jnp.clip(missed, 1e-9, 1))))


def hottest_rank(ranks: Scalar, picks: Scalar, experts: Scalar, skew: Scalar) -> jax.Array:
    """Expected load of the busiest of e ranks over the average one, where `picks` tokens choose among E experts.

    A rank's load has squared coefficient of variation c = (skew e / E + e / picks) (1 - 1/e): its experts differ in
    popularity, and choices are random. Taking it as Gamma distributed, its quantile at the normal score z of the
    largest of e (Blom 1958) is (1 - c/9 + z sqrt(c/9))^3 (Wilson and Hilferty 1931).
    """
    several = ranks > 1
    e = jnp.where(several, ranks, 2)
    c = (skew * e / jnp.maximum(experts, 1) + e / jnp.maximum(picks, 1e-6)) * (1 - 1 / e) / 9
    # Normal score of 1 - tail, to 3e-3 (Abramowitz and Stegun 26.2.22).
    x = jnp.sqrt(-2 * jnp.log(0.625 / (e + 0.25)))
    z = x - (2.30753 + 0.27061 * x) / (1 + x * (0.99229 + 0.04481 * x))
    root = 1 - c + z * jnp.sqrt(c)
    # No rank can have more than all: e times the average.
    return jnp.where(several, jnp.clip(root * root * root, 1, e), 1)


def groups(plan: Plan, shards: Shards, fabric: Fabric, on: tuple[Level, ...]) -> Groups:
    """Place a plan's ranks: tensor-parallel ones next to each other, then context, pipeline and data parallel."""
    replica = plan.tp * plan.cp * plan.pp
    experts = RankGroup(ranks=plan.tp, repeats=shards.joined_replicas, every=replica)
    return Groups(
        tensor=communicator(RankGroup(ranks=plan.tp), fabric, on),
        context=communicator(RankGroup(ranks=plan.cp, stride=plan.tp), fabric, on),
        experts=communicator(experts, fabric, on),
    )


def step_messages(
    model: Model,
    plan: Plan,
    shards: Shards,
    steps: Sequence[Scalar],
    fabric: Fabric,
    on: tuple[Level, ...],
    among: Groups,
    tau: Scalar,
    carrier: Carrier | None = None,
) -> list[dict[str, tuple[Scalar, Message]]]:
    """List the messages of each of several steps as {name: (count, message)}; a step is given by its tokens m.

    Tensor parallel: an all-reduce of the residual stream after every mixer and every channel mixer, or its two
    halves where norms are cut along the sequence. Experts beyond a tensor group: every rank sends its share of the
    tokens to the ranks that hold their experts, once to each, over each package and domain once, and gets the
    results back in at least 16 bits; the busiest rank sets the time. Context parallel: partial attention outputs are
    combined. Pipeline: the residual stream goes to the next stage. Within a domain, sums and exchanges go by the
    kernels of `carrier`, where there are; those that send a token once for every expert send more.
    """
    x = model.experts
    element = plan.activation_bits / 8
    streams = [tokens * (model.hidden * element) for tokens in steps]
    outputs = [tokens * (_attention_width(model, shards) * element) for tokens in steps]
    tensor, context = all_reduces(
        [(among.tensor, streams, plan.sequence_parallel), (among.context, outputs, 0.0)],
        on,
        tau,
        [carrier, None if carrier is None else rings(carrier)],
    )
    inner, middle, outer = among.experts.counts
    copies = [
        touched_groups(places, x.experts, x.top_k) * (n - 1) / n
        for places, n in ((inner * middle * outer, inner), (middle * outer, middle), (outer, outer))
    ]
    routed, peaks, carried = [], [], []
    for stream, tokens in zip(streams, steps, strict=True):
        peak = hottest_rank(plan.ep, tokens * shards.joined_replicas * x.top_k, x.experts, x.skew)
        for phase, widening in (("dispatch", 1.0), ("combine", _combine_bits(plan) / plan.activation_bits)):
            mine = list(copies)
            row = model.hidden * element * widening
            way = exchange_of(carrier, phase, tokens / plan.tp, x.top_k, x.experts, row)
            if way is not None:
                mine[1] = jnp.where(way.every_expert > 0.5, x.top_k * (middle - 1) / middle, mine[1])
            carried.append(way)
            routed.append([stream / plan.tp * (widening * share) for share in mine])
            peaks.append(peak)
    exchanges = all_to_alls(routed, among.experts, on, peaks, carried)
    span = plan.tp * plan.cp * plan.pp
    counts = _counts(model, plan, shards)
    found = [
        {
            "tensor_all_reduce": tensor[k],
            "expert_dispatch": exchanges[2 * k],
            "expert_combine": exchanges[2 * k + 1],
            "context_all_reduce": context[k],
            "pipeline_send": point_to_point(stream, span, fabric, on),
        }
        for k, stream in enumerate(streams)
    ]
    return [{name: (counts[name], message) for name, message in step.items()} for step in found]


def _counts(model: Model, plan: Plan, shards: Shards) -> dict[str, Scalar]:
    a, x = model.attention, model.experts
    attention_layers = a.full_layers + a.window_layers + model.latent.layers
    mixers = attention_layers + model.recurrence.layers
    routed = x.layers * (shards.joined_replicas > 1)
    return {
        "tensor_all_reduce": (mixers + model.feed_forward.layers + x.layers) * (plan.tp > 1),
        "expert_dispatch": routed,
        "expert_combine": routed,
        "context_all_reduce": attention_layers * (plan.cp > 1),
        "pipeline_send": plan.pp - 1,
    }


def meetings(model: Model, plan: Plan, shards: Shards, among: Groups) -> Scalar:
    """Ranks that wait for each other in one step, each collective counted by itself."""
    counts = _counts(model, plan, shards)
    return (
        counts["tensor_all_reduce"] * (1 + jnp.round(plan.sequence_parallel)) * among.tensor.ranks
        + (counts["expert_dispatch"] + counts["expert_combine"]) * among.experts.ranks
        + counts["context_all_reduce"] * among.context.ranks
    )


def _attention_width(model: Model, shards: Shards) -> Scalar:
    return jnp.maximum(shards.heads * model.attention.head_dim, shards.latent_heads * model.latent.value_dim)


def _combine_bits(plan: Plan) -> Scalar:
    return jnp.maximum(plan.activation_bits, 16)


def communication_buffers(model: Model, plan: Plan, shards: Shards, tokens: Scalar) -> Scalar:
    """Bytes that a rank keeps for messages of a step of m tokens: what it sends and what it receives, each kind.

    Residual stream for tensor and pipeline parallelism, attention outputs for context parallelism, and the tokens
    that the average rank's experts receive, with their results.
    """
    element = plan.activation_bits / 8
    stream = 2 * tokens * model.hidden * element
    outputs = 2 * tokens * _attention_width(model, shards) * element
    received = tokens * shards.joined_replicas * model.experts.top_k / plan.ep * model.hidden
    routed = received * (plan.activation_bits + _combine_bits(plan)) / 8
    return (
        stream * ((plan.tp > 1) + 1.0 * (plan.pp > 1))
        + outputs * (plan.cp > 1)
        + routed * ((shards.joined_replicas > 1) & (model.experts.layers > 0))
    )
