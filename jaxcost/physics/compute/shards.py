"""The shard of a model on one chip of a plan, and the number of parameters of a model.

Symbols: d width of the residual stream, t the tensor-parallel degree. A width that t does not divide is padded: the
chip with the largest shard sets the time, so a shard is ceil(width / t). Fewer key-value heads than t are replicated,
which is the same ceiling.

Sources: Shoeybi et al. 2019 (arXiv:1909.08053); experts, Lepikhin et al. 2020 (arXiv:2006.16668).
"""

import functools

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import stack, unstack, where
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.compute.attention import (
    SHAPES,
    AttentionShards,
    attention_layers,
    attention_shards,
    shard_mean,
)
from jaxcost.physics.compute.draft import DraftShards, draft_shards
from jaxcost.physics.compute.precision import Precision, precision_of
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = [
    "Shards",
    "StoredParameters",
    "active_parameters",
    "can_shard",
    "complete_plan",
    "expert_input",
    "layer_count",
    "microbatches",
    "parameter_count",
    "router_parameters",
    "sequence_ranks",
    "shard",
    "stored_parameters",
    "total_parameters",
]

_DEGREES = ("tp", "pp", "ep", "dp", "cp")


@pytree
class Shards:
    """Widths and parameters of one layer on one chip."""

    precision: Precision = field(doc="bits of every class of numbers")
    attention: AttentionShards = field(doc="softmax attention")
    latent_heads: Scalar = field("1", "query heads of latent attention")
    latent_query_width: Scalar = field("1", "outputs of the latent query projection")
    latent_down: Scalar = field("1", "parameters of the query projection and the latent's compression")
    latent_up: Scalar = field("1", "parameters of the latent's expansion to keys and values")
    state_share: Scalar = field("1", "share of a recurrent layer")
    feed_forward_width: Scalar = field("1", "intermediate width of a dense feed-forward layer")
    expert_width: Scalar = field("1", "intermediate width of a routed expert")
    expert_parameters: Scalar = field("1", "parameters of one routed expert, or of its shard")
    local_experts: Scalar = field("1", "routed experts on the chip, whole or sharded")
    shared_width: Scalar = field("1", "intermediate width of the shared experts")
    vocabulary: Scalar = field("1", "rows of the output head")
    encoder: Scalar = field("1", "parameters of the encoder")
    draft: DraftShards = field(doc="draft of speculative decoding")
    joined_replicas: Scalar = field("1", "replicas that share one set of experts")
    stage_share: Scalar = field("1", "share of the layers in the largest pipeline stage")


def shard(model: Model, plan: Plan, tau: Scalar) -> Shards:
    """Return the shard of the model on one chip of the plan.

    Experts: e = `ep` ranks. For e <= t the ranks are inside a tensor-parallel group and each expert is sharded t / e
    ways; for e > t, e / t replicas share one set of whole experts.
    """
    t, d = plan.tp, model.hidden

    def cut(width: Scalar, degree: Scalar = t) -> Scalar:
        return smooth.ceil_div(width, degree, tau)

    latent, experts = model.latent, model.experts
    latent_heads = cut(latent.heads)
    query_width = latent_heads * (latent.nope_dim + latent.rope_dim)
    compressed = latent.query_rank > 0
    query_down = where(compressed, d * latent.query_rank, 0) + d * (latent.kv_rank + latent.rope_dim)
    query_up = where(compressed, latent.query_rank, d) * query_width
    # A kernel may store padded experts, and multiplies the padding too.
    expert_width, padded_input = unstack(
        _pad(
            stack([cut(experts.width, jnp.maximum(t / plan.ep, 1)), expert_input(model)]),
            stack([plan.expert_width_multiple, plan.expert_input_multiple]),
            tau,
        )
    )
    layers = layer_count(model)
    expert_parameters = experts.matrices * padded_input * expert_width
    local_experts, vocabulary = cut(experts.experts, plan.ep), cut(model.vocabulary)
    attention = attention_shards(model, t, tau)
    return Shards(
        precision=precision_of(plan, model),
        attention=attention,
        latent_heads=latent_heads,
        latent_query_width=query_width,
        latent_down=query_down + query_up,
        latent_up=latent.kv_rank * latent_heads * (latent.nope_dim + latent.value_dim),
        state_share=cut(model.recurrence.heads) / model.recurrence.heads,
        feed_forward_width=shard_mean(model.feed_forward.width, t, tau),
        expert_width=expert_width,
        expert_parameters=expert_parameters,
        local_experts=local_experts,
        shared_width=cut(experts.shared_width),
        vocabulary=vocabulary,
        encoder=model.encoder_parameters / t,
        draft=draft_shards(
            model,
            plan,
            attention=attention,
            latent_heads=latent_heads,
            vocabulary=vocabulary,
            routed=experts.experts * experts.matrices * expert_input(model) * experts.width,
            expert_parameters=expert_parameters,
            local_experts=local_experts,
        ),
        joined_replicas=jnp.maximum(plan.ep / t, 1),
        stage_share=smooth.safe_div(smooth.ceil_div(layers, plan.pp, tau), layers, 1.0),
    )


def _pad(width: jax.Array, multiple: jax.Array, tau: Scalar) -> jax.Array:
    """Round widths up to a multiple; one of 0 leaves them."""
    step = where(multiple > 0, multiple, 1)
    return where(multiple > 0, smooth.ceil_div(width, step, tau) * step, width)


def can_shard(model: Model, plan: Plan) -> jax.Array:
    """Return whether a model can be cut by the degrees of a plan, bool [*batch].

    Degrees are at least 1; tp divides the heads; there are at least as many layers as stages; ep divides the experts
    and is at most tp x dp; cp is 1 without attention, whose cache it shards. `shard` pads what it cannot divide, so
    that a plan which breaks a rule has a time too.
    """
    latent, recurrence, experts = model.latent, model.recurrence, model.experts
    shapes = [getattr(model, name) for name in SHAPES]

    def divides(degree: Scalar, width: Scalar) -> jax.Array:
        return jnp.equal(jnp.round(width / degree) * degree, width)

    without_attention = jnp.equal(attention_layers(model) + latent.layers, 0)
    spread = jnp.greater(experts.layers, 0) & divides(plan.ep, experts.experts)
    least = functools.reduce(jnp.minimum, (plan.tp, plan.pp, plan.ep, plan.dp, plan.cp))
    rules = (
        jnp.greater_equal(least, 1),
        *(jnp.equal(shape.layers, 0) | divides(plan.tp, shape.heads) for shape in shapes),
        jnp.equal(latent.layers, 0) | divides(plan.tp, latent.heads),
        ~without_attention | divides(plan.tp, recurrence.heads),
        ~without_attention | jnp.equal(plan.cp, 1),
        jnp.less_equal(plan.pp, layer_count(model)),
        jnp.equal(plan.ep, 1) | (spread & jnp.less_equal(plan.ep, plan.tp * plan.dp)),
    )
    return functools.reduce(jnp.logical_and, rules)


def complete_plan(plan: Plan) -> Plan:
    """Return a plan with degrees and pages of at least 1, which has finite numbers where the given one may not."""
    degrees = {name: where(getattr(plan, name) < 1, 1, getattr(plan, name)) for name in _DEGREES}
    engine = replace(plan.engine, block=where(plan.engine.block > 0, plan.engine.block, 1))
    return replace(plan, **degrees, engine=engine)


def sequence_ranks(plan: Plan) -> Scalar:
    """Return the ranks over which norms and the residual stream are sharded: tp with sequence parallelism, else 1."""
    return where(plan.sequence_parallel > 0.5, plan.tp, 1)


def microbatches(plan: Plan) -> Scalar:
    """Return the microbatches of a replica: `plan.microbatches`, or one per pipeline stage where that is 0."""
    return where(plan.microbatches > 0, plan.microbatches, plan.pp)


def layer_count(model: Model) -> Scalar:
    """Count the blocks, which pipeline stages divide: as stated, or the larger number of token and channel mixers."""
    mixers = attention_layers(model) + model.latent.layers + model.recurrence.layers
    larger = jnp.maximum(mixers, model.feed_forward.layers + model.experts.layers)
    return where(model.blocks > 0, model.blocks, larger)


def expert_input(model: Model) -> Scalar:
    """Return the width of the input and output of a routed expert."""
    return where(model.experts.latent > 0, model.experts.latent, model.hidden)


def router_parameters(model: Model) -> Scalar:
    """Count the weights of a layer's router, and of its projections into the experts' latent space and back."""
    x = model.experts
    return model.hidden * (x.experts * (x.experts > 1) + 2 * x.latent)


@pytree
class StoredParameters:
    """Parameters by tensor class."""

    mixers: Scalar = field("1", "attention and recurrence")
    feed_forward: Scalar = field("1", "dense feed-forward layers and shared experts")
    routers: Scalar = field("1", "routers, and the projections of latent experts")
    experts: Scalar = field("1", "routed experts")
    tables: Scalar = field("1", "embedding, position and output tables")
    other: Scalar = field("1", "norms, biases, encoder, draft model and what text does not use")

    @property
    def total(self) -> Scalar:
        """All parameters."""
        return self.mixers + self.feed_forward + self.routers + self.experts + self.tables + self.other


def stored_parameters(model: Model, shards: Shards) -> StoredParameters:
    """Count the parameters of one chip's shard over the whole depth of the model, before pipeline stages."""
    d, a, x = model.hidden, shards.attention, model.experts
    stored = a.layers * a.shape.stored_share
    attention = jnp.sum(stored * (a.input_parameters + a.output_parameters), 0)
    latent_out = shards.latent_heads * model.latent.value_dim * d
    latent = model.latent.layers * (shards.latent_down + shards.latent_up + latent_out)
    indexer = model.indexer.layers * model.indexer.parameters
    recurrence = model.recurrence.layers * model.recurrence.parameters * shards.state_share
    ff = model.feed_forward
    dense = ff.layers * ff.stored_share * ff.matrices * d * shards.feed_forward_width
    return StoredParameters(
        mixers=attention + latent + indexer + recurrence,
        feed_forward=dense + x.layers * x.matrices * d * shards.shared_width,
        routers=x.layers * router_parameters(model),
        experts=x.layers * shards.local_experts * shards.expert_parameters,
        tables=shards.vocabulary * d * (2 - model.tied) + model.table_parameters,
        other=model.small_parameters + model.unused_parameters + shards.encoder + shards.draft.stored,
    )


@program
def total_parameters(model: Model) -> Scalar:
    """Count all parameters of the model except those of the built-in draft module."""
    return stored_parameters(model, shard(model, Plan(), 0.0)).total


@program
def active_parameters(model: Model) -> Scalar:
    """Count the parameters that one token uses: all but encoder, unpicked experts and what text does not use."""
    x = model.experts
    stored = stored_parameters(model, shard(model, Plan(), 0.0))
    used = smooth.safe_div(x.top_k, x.experts, 1.0)
    return stored.total - stored.experts * (1 - used) - model.encoder_parameters - model.unused_parameters


def parameter_count(model: Model) -> tuple[Scalar, Scalar]:
    """Return (total, active) parameters of a model."""
    return total_parameters(model), active_parameters(model)
