"""The operator table of a step: FLOPs and bytes of every operator of a model, one row per operator.

Symbols: B sequences in the step, q new tokens of each, c tokens already in its context, m = B q tokens; d width of the
residual stream; t the tensor-parallel degree; b(x) = bits(x) / 8 bytes per element. A row is the work of one chip in
one layer, and `count` the number of layers; an operator that the model does not have has count 0. A matmul of m tokens
with a K x N matrix takes 2 m K N FLOPs, reads K N b(w) bytes of weights and moves m (K + N) b(a) bytes of activations.

Operators are addressed by name; their columns are arrays `[operators, *batch]`, and the following stages are array
arithmetic. Numbers that differ between the steps (prefill, decode) have the steps as an axis in front of the batch.

Sources: Kaplan et al. 2020 (arXiv:2001.08361); latent attention, DeepSeek-V2 (arXiv:2405.04434); state spaces,
Mamba-2 (arXiv:2405.21060).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import clip, row, stack, unstack, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.compute.attention import SHAPES, cache_entries
from jaxcost.physics.compute.draft import LAYER_OPERATORS
from jaxcost.physics.compute.load import StepLoad
from jaxcost.physics.compute.shards import Shards, expert_input, sequence_ranks
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = [
    "ATTENTION_OPERATORS",
    "CACHED",
    "CACHE_OPERATORS",
    "MATH",
    "NEAR_OPERATORS",
    "OPERANDS",
    "OPERATORS",
    "PARAMETERS",
    "WRITES",
    "Op",
    "OpTable",
    "by_class",
    "distinct_experts",
    "matmul_work",
    "named",
    "step_table",
]

OPERATORS = (
    "embedding",
    "attention_qkv",
    "attention_full",
    "attention_window",
    "attention_sparse",
    "attention_out",
    "indexer",
    "latent_qkv",
    "latent_attention",
    "latent_out",
    "recurrence_projections",
    "recurrence_state",
    "feed_forward",
    "router",
    "routed_experts",
    "shared_experts",
    "norms",
    "output_head",
    "sampling",
    "encoder",
    "draft",
    "retrieval",
)
# Operators that attend with softmax, in the order of `SHAPES`.
ATTENTION_OPERATORS = ("attention_full", "attention_window", "attention_sparse")
# Operators whose matmul reads the cache.
CACHE_OPERATORS = (*ATTENTION_OPERATORS, "latent_attention")
# Class of the weights by which they are placed in tiers; others: dense weights.
PARAMETERS = {"routed_experts": "experts", "shared_experts": "shared"}
# Class of the operand that a matmul reads once, of `OPERAND_CLASSES`; others: dense weights.
OPERANDS = {**dict.fromkeys((*CACHE_OPERATORS, "indexer"), "cache"), **PARAMETERS}
# Class of `MATH_CLASSES` whose bits, with those of the inputs, set the matmul rate; others: dense weights.
MATH = {
    **dict.fromkeys(CACHE_OPERATORS, "cache"),
    "indexer": "index",
    **dict.fromkeys(
        ("attention_qkv", "attention_out", "latent_qkv", "latent_out", "recurrence_projections"), "mixers"
    ),
    **dict.fromkeys(("router", "output_head", "encoder", "draft"), "wide"),
    "routed_experts": "experts",
}
# Class of the cached bytes; those of other operators are the cache that the requests write themselves.
CACHED = {**dict.fromkeys((*CACHE_OPERATORS, "indexer", "draft"), "cache"), "retrieval": "corpus"}
# Share of the cached bytes that is written.
WRITES = {"attention_qkv": 1.0, "latent_qkv": 1.0, "recurrence_state": 0.5}
# Operators whose matmul reads its operand from memory, and may run near that memory.
NEAR_OPERATORS = tuple(
    name
    for name in OPERATORS
    if name not in ("embedding", "recurrence_state", "norms", "sampling", "retrieval", "indexer")
)
_CHANNEL_MIXERS = ("feed_forward", "shared_experts")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Op:
    """One row: the work of one operator in one layer on one chip, in the units of `OpTable`."""

    count: Scalar = 1.0
    matmul_flops: Scalar = 0.0
    vector_flops: Scalar = 0.0
    exponentials: Scalar = 0.0
    parameter_bytes: Scalar = 0.0
    cached_bytes: Scalar = 0.0
    activation_bytes: Scalar = 0.0


@pytree
class OpTable:
    """The rows of a step: columns `[operators, *batch]`, in the order of `OPERATORS` for every model."""

    count: jax.Array = field("1", "number of times that the operator runs in a step")
    matmul_flops: jax.Array = field("FLOP", "matmul work")
    vector_flops: jax.Array = field("FLOP", "element-wise work")
    exponentials: jax.Array = field("1", "exponentials")
    parameter_bytes: jax.Array = field("B", "weights read, of the class in `OPERANDS`")
    cached_bytes: jax.Array = field(
        "B", "keys, values, latents, states and corpora read and written, of the class in `CACHED`"
    )
    activation_bytes: jax.Array = field("B", "activations read and written")
    kept: jax.Array = field("1", "share of the weights that stays in main memory from earlier steps")
    slices: jax.Array = field(
        "1", "independent rows of the cache over which units near memory are spread, else 1"
    )

    @property
    def operand_bytes(self) -> jax.Array:
        """Bytes of the operand that the matmul reads once: weights, or cached keys and values."""
        cached = named(self.count, *CACHE_OPERATORS)
        return where(cached, self.cached_bytes, self.parameter_bytes)


def named(like: Scalar, *names: str) -> Any:
    """Return a constant bool column `[operators, 1, ...]` of the rank of `like`, true for the named operators."""
    marks = np.isin(OPERATORS, names)
    return marks.reshape((-1,) + (1,) * (np.ndim(like) - 1))


def by_class(
    values: jax.Array, classes: tuple[str, ...], of: Mapping[str, str], otherwise: str, like: jax.Array
) -> jax.Array:
    """Gather the value of each operator's class.

    Args:
        values: one value per class, `[classes, *batch]`.
        classes: names of the classes.
        of: class of an operator by its name.
        otherwise: class of all other operators.
        like: a table of the operators, with whose axes the result lines up.

    Returns:
        `[operators, *batch]`, or `[operators, 1, *batch]` where `like` has an axis of steps.
    """
    out = row(values, classes.index(otherwise))
    for kind in dict.fromkeys(of.values()):
        if kind != otherwise:
            members = named(like, *(name for name in OPERATORS if of.get(name) == kind))
            out = where(members, row(values, classes.index(kind)), out)
    return out


def matmul_work(table: OpTable) -> jax.Array:
    """Sum the matmul FLOPs of one chip in a step."""
    return jnp.sum(table.matmul_flops * table.count, 0)


def distinct_experts(experts: Scalar, top_k: Scalar, tokens: Scalar, skew: Scalar) -> jax.Array:
    """Return the expected number of distinct experts that m tokens reach.

    With uniform routing (skew s = 0) over E experts, of which each token picks k:  E (1 - (1 - k/E)^m).

    With uneven popularity, the rate at which an expert is picked is Gamma distributed with squared coefficient of
    variation s. The average is a negative binomial, scaled so that one token reaches exactly k experts:

        E (1 - (1 + m ((1 - k/E)^-s - 1))^(-1/s))

    It tends to the uniform formula as s -> 0, falls with s for m > 1, and is k at m = 1 for every s. For fractions of
    a token it goes to 0 with m.
    """
    share = smooth.safe_div(top_k, experts, 1.0)
    all_used = share >= 1
    log_missed = jnp.log1p(
        -where(all_used, 0.5, share)
    )  # log of the probability that a token does not pick an expert
    uniform = tokens * log_missed
    even = skew <= 0
    s = where(even, 1, skew)
    uneven = -jnp.log1p(tokens * jnp.expm1(-s * log_missed)) / s
    touched = -experts * jnp.expm1(where(even, uniform, uneven))
    return where(all_used, experts * clip(tokens, 0, 1), touched)


def step_table(
    model: Model,
    plan: Plan,
    shards: Shards,
    load: StepLoad,
    corpus_read: Scalar = 0.0,
    *,
    window: bool = False,
) -> OpTable:
    """Build the operator table of a step that runs all sequences of a load together, mixed steps included.

    Args:
        model: the language model.
        plan: precisions and degrees.
        shards: the part of the model on one chip.
        load: sums over the sequences of the step.
        corpus_read: bytes of the corpus that a request reads from all chips of its replica.
        window: whether `plan.neuron_window` is used; otherwise no neurons stay in memory from step to step.
    """
    d, m = model.hidden, load.tokens
    each = jax.tree.map(lambda bits: bits / 8, shards.precision)
    act = each.stream
    dense = 1 - plan.weight_sparsity
    cut = m / sequence_ranks(plan)
    per_context_rank, per_expert_rank = 1 / plan.cp, 1 / plan.ep

    def matmul(
        count: Scalar, tokens: Scalar, parameters: Scalar, inputs: Scalar, outputs: Scalar, **more: Scalar
    ) -> Op:
        """Return a matmul whose weights are those of token mixers."""
        return Op(
            count=count,
            matmul_flops=2 * tokens * parameters * dense,
            parameter_bytes=parameters * each.mixers * dense,
            activation_bytes=tokens * (inputs * each.inputs + outputs * act),
            **more,
        )

    def wide_matmul(
        count: Scalar, tokens: Scalar, parameters: Scalar, inputs: Scalar, outputs: Scalar, **more: Scalar
    ) -> Op:
        """Return a matmul whose weights quantization leaves wide."""
        return Op(
            count=count,
            matmul_flops=2 * tokens * parameters * dense,
            parameter_bytes=parameters * each.wide * dense,
            activation_bytes=tokens * (inputs + outputs) * act,
            **more,
        )

    # --- softmax attention: projections of a mean layer, and attention of each shape ---
    a = shards.attention
    attention_layers, value_width = jnp.sum(a.layers, 0), a.mean(a.value_width)
    written = smooth.safe_div(a.own_layers, a.layers) * a.cached_width * cache_entries(a.shape, 1.0)

    def attend(shape: int) -> Op:
        heads, query, value, cached = (
            row(x, shape) for x in (a.heads, a.query_width, a.value_width, a.cached_width)
        )
        pairs = row(load.attended_pairs, shape) * per_context_rank
        return Op(
            count=row(a.layers, shape),
            matmul_flops=2 * (query + value) * pairs,
            vector_flops=4 * heads * pairs,
            exponentials=heads * pairs,
            cached_bytes=row(load.attended_keys, shape) * cached * each.cache * per_context_rank,
            activation_bytes=m * (query + value) * act,
        )

    # --- indexers: projections, and a score of every entry by every head; all tensor-parallel ranks compute all ---
    indexer = model.indexer
    scored = load.pairs / indexer.compression * per_context_rank
    index_keys = (load.keys + m) / indexer.compression * per_context_rank

    # --- latent attention: absorbed (queries attend to latents) or expanded (latents become keys and values) ---
    latent = model.latent
    latent_pairs, latent_keys = row(load.attended_pairs, len(SHAPES)), row(load.attended_keys, len(SHAPES))
    up = shards.latent_up
    expanded_width = shards.latent_heads * (latent.nope_dim + latent.value_dim)
    pair_flops = (2 * shards.latent_heads) * (
        load.absorbed_pairs * (2 * latent.kv_rank + latent.rope_dim)
        + (latent_pairs - load.absorbed_pairs) * (latent.nope_dim + latent.rope_dim + latent.value_dim)
    )
    latent_width = latent.kv_rank + latent.rope_dim
    latent_value_width = shards.latent_heads * latent.value_dim

    # --- recurrence ---
    recurrence = model.recurrence
    inner = recurrence.inner_dim * shards.state_share
    state = recurrence.state * shards.state_share
    state_bytes = state * recurrence.state_bits / 8 + recurrence.convolution_state * shards.state_share * act

    # --- channel mixers ---
    feed_forward, experts = model.feed_forward, model.experts
    kept = 1 - plan.activation_sparsity
    # Different tokens skip different neurons: m tokens together use a share 1 - a^m.
    skips = plan.activation_sparsity > 0
    log_skipped = m * jnp.log(where(skips, plan.activation_sparsity, 0.5))
    touched = where(skips, 1 - jnp.exp(log_skipped), 1)
    # A neuron must be loaded where no token of the window's k steps used it: a share a^(m k).
    resident = where(skips, -jnp.expm1(plan.neuron_window * log_skipped), 0) if window else 0.0
    group_tokens = m * shards.joined_replicas
    routed_tokens = group_tokens * experts.top_k * per_expert_rank
    # --- draft: its passes, in runs of one operator of a layer ---
    draft, draft_group_tokens = shards.draft, load.draft_pass_tokens * shards.joined_replicas
    draft_runs = load.draft_passes * (LAYER_OPERATORS * draft.layers)
    per_run = smooth.safe_div(1.0, draft_runs)
    distinct, draft_distinct = unstack(
        distinct_experts(
            experts.experts, experts.top_k, stack([group_tokens, draft_group_tokens]), experts.skew
        )
        * per_expert_rank
    )
    draft_routed = load.draft_tokens * shards.joined_replicas * experts.top_k * per_expert_rank
    draft_products = load.draft_tokens * draft.parameters + draft_routed * draft.expert_parameters
    draft_read = draft.parameters + draft_distinct * draft.expert_parameters

    def mix(count: Scalar, width: Scalar, matrices: Scalar) -> Op:
        parameters = matrices * d * width
        return Op(
            count=count,
            matmul_flops=2 * m * parameters * dense * kept,
            vector_flops=2 * m * width * kept,
            exponentials=m * width * kept * model.activation_exponentials,
            parameter_bytes=parameters * each.weights * dense * touched,
            activation_bytes=m * (d * (each.inputs + act) + matrices * width * kept * act),
        )

    table = {
        "embedding": Op(parameter_bytes=m * d * each.wide, activation_bytes=m * d * act),
        "attention_qkv": matmul(
            attention_layers,
            m,
            a.mean(a.input_parameters),
            d,
            a.mean(a.projected),
            cached_bytes=m * a.mean(written) * each.cache * per_context_rank,
        ),
        **{name: attend(shape) for shape, name in enumerate(ATTENTION_OPERATORS)},
        "attention_out": matmul(attention_layers, m, a.mean(a.output_parameters), value_width, d),
        "indexer": Op(
            count=indexer.layers,
            matmul_flops=2 * (m * indexer.parameters * dense + indexer.heads * indexer.head_dim * scored),
            vector_flops=3 * indexer.heads * scored,
            parameter_bytes=indexer.parameters * each.mixers * dense,
            cached_bytes=index_keys * indexer.head_dim * indexer.key_bits / 8,
            activation_bytes=m * (d + indexer.heads * indexer.head_dim) * act,
        ),
        "latent_qkv": Op(
            count=latent.layers,
            matmul_flops=2
            * (m * shards.latent_down + (load.absorbed_tokens + load.expanded_keys) * up)
            * dense,
            parameter_bytes=(shards.latent_down + up) * each.mixers * dense,
            cached_bytes=m * latent_width * each.cache * per_context_rank,
            activation_bytes=m * d * each.inputs
            + (m * (d + shards.latent_query_width) + 2 * load.expanded_keys * expanded_width) * act,
        ),
        "latent_attention": Op(
            count=latent.layers,
            matmul_flops=pair_flops * per_context_rank,
            vector_flops=4 * shards.latent_heads * latent_pairs * per_context_rank,
            exponentials=shards.latent_heads * latent_pairs * per_context_rank,
            cached_bytes=latent_keys * latent_width * each.cache * per_context_rank,
            activation_bytes=m * (shards.latent_query_width + latent_value_width) * act,
        ),
        "latent_out": matmul(latent.layers, m, latent_value_width * d, latent_value_width, d),
        "recurrence_projections": matmul(
            recurrence.layers, m, recurrence.parameters * shards.state_share, 2 * d, 3 * inner
        ),
        "recurrence_state": Op(
            count=recurrence.layers,
            matmul_flops=m * state * recurrence.matmul_flops,
            vector_flops=m * state * recurrence.vector_flops,
            exponentials=m * state * recurrence.exponentials,
            cached_bytes=2 * load.sequences * state_bytes,
            activation_bytes=3 * m * inner * act,
        ),
        "feed_forward": mix(feed_forward.layers, shards.feed_forward_width, feed_forward.matrices),
        "router": wide_matmul(
            experts.layers,
            m,
            d * (experts.experts + 2 * experts.latent),
            d,
            experts.experts + 2 * experts.latent,
            exponentials=m * experts.experts,
        ),
        "routed_experts": Op(
            count=experts.layers,
            matmul_flops=2 * routed_tokens * shards.expert_parameters * dense * kept,
            vector_flops=2 * routed_tokens * shards.expert_width * kept,
            exponentials=routed_tokens * shards.expert_width * kept * model.activation_exponentials,
            parameter_bytes=distinct * shards.expert_parameters * each.experts * dense * touched,
            activation_bytes=routed_tokens
            * (
                expert_input(model) * (each.inputs + act)
                + experts.matrices * shards.expert_width * kept * act
            ),
        ),
        "shared_experts": mix(
            experts.layers * jnp.sign(experts.shared_width), shards.shared_width, experts.matrices
        ),
        "norms": Op(count=model.norms, vector_flops=6 * cut * d, activation_bytes=4 * cut * d * act),
        "output_head": wide_matmul(1.0, load.logits, d * shards.vocabulary, d, shards.vocabulary),
        "sampling": Op(
            vector_flops=4 * load.logits * shards.vocabulary,
            exponentials=load.logits * shards.vocabulary,
            activation_bytes=load.logits * shards.vocabulary * act,
        ),
        "encoder": wide_matmul(
            clip(load.encoder_positions, 0, 1), load.encoder_positions, shards.encoder, 2 * d, 2 * d
        ),
        "draft": Op(
            count=draft_runs,
            matmul_flops=2
            * (draft_products * dense + load.draft_pairs * draft.pair_width * per_context_rank)
            * per_run,
            parameter_bytes=load.draft_passes * draft_read * each.wide * dense * per_run,
            cached_bytes=load.draft_keys * draft.cache * each.cache * per_context_rank * per_run,
            activation_bytes=2 * load.draft_pass_tokens * draft.width * act,
        ),
        "retrieval": Op(
            count=clip(load.retrievals, 0, 1) * jnp.sign(corpus_read),
            cached_bytes=corpus_read * (load.retrievals / (plan.tp * plan.cp * plan.pp)),
        ),
    }
    rank = jnp.ndim(m)
    columns = {
        name: stack([getattr(table[operator], name) for operator in OPERATORS], rank)
        for name in (each.name for each in dataclasses.fields(Op))
    }
    like = columns["count"]
    kv_heads: dict[str, Scalar] = dict(zip(ATTENTION_OPERATORS, unstack(a.kv_heads), strict=True))
    cached_rows = stack([kv_heads.get(name, 1.0) for name in OPERATORS], rank) * load.sequences
    return OpTable(
        **columns,
        kept=where(named(like, *_CHANNEL_MIXERS), resident, 0),
        slices=where(named(like, *CACHE_OPERATORS), cached_rows, 1),
    )
