"""How a model is sharded over a system, placed in its memory tiers and scheduled."""

from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.engine import Engine

__all__ = ["Placement", "Plan", "Split"]


@pytree
class Split:
    """Shares of one class of data in the auxiliary tiers; main memory holds the rest."""

    sram: Scalar = field("1", "share in on-chip memory", default=0.0)
    hbf: Scalar = field("1", "share in flash stacks", default=0.0)
    host: Scalar = field("1", "share in host memory", default=0.0)
    cxl: Scalar = field("1", "share behind CXL", default=0.0)
    ssd: Scalar = field("1", "share on drives", default=0.0)


@pytree
class Placement:
    """Which tier holds which data and where operators run: by a closed form, or by shares set by hand.

    The closed form places frequently written data in tiers without wear, then the hottest bytes first: spread over
    all tiers with room in proportion to bandwidth where tiers stream concurrently, into the fastest tier with room
    where reads are serial. Values of `automatic` between 0 and 1 interpolate between the closed form and the shares.
    """

    automatic: Scalar = field("1", "1 for the closed form, 0 for the shares below", default=1.0)
    serial_tier_reads: Scalar = field(
        "1",
        "1 where an operator reads its tiers one after another, 0 where concurrently",
        default=0.0,
        formerly="in_turn",
    )
    near_weights: Scalar = field("1", "share of dense weights whose matmuls may run near memory", default=1.0)
    near_experts: Scalar = field("1", "share of routed experts that may run near memory", default=1.0)
    near_cache: Scalar = field("1", "share of attention over the cache that may run near memory", default=1.0)
    near_slack: Scalar = field(
        "1",
        "relative slowdown at which an operator still runs near memory, to save energy",
        default=0.0,
    )
    interleaved: Scalar = field(
        "1",
        "share of the shorter of near-memory time and chip time that overlaps with the longer",
        default=0.0,
    )
    weights: Split = field(doc="dense weights", default=Split)
    shared: Split = field(doc="shared experts' weights", default=Split)
    experts: Split = field(doc="routed experts, the most popular in the first tier", default=Split)
    request_kv: Split = field(
        doc="cache and recurrent states that the requests write themselves", default=Split, formerly="recent"
    )
    cached_prefix: Split = field(
        doc="cache that exists before the request: cached prefixes, retrieved context",
        default=Split,
        formerly="old",
    )
    activations: Split = field(doc="working and message buffers", default=Split)
    corpus: Split = field(doc="retrieval corpus", default=Split)


@pytree
class Plan:
    """Degrees of sharding, precisions by tensor class, and the schedule.

    A replica is `tp * pp * cp` chips with the whole model; `dp` replicas share the batch. Experts are distributed over
    `ep` ranks: first inside a tensor-parallel group, beyond it over replicas.
    """

    tp: Scalar = field("1", "tensor-parallel degree", default=1.0)
    pp: Scalar = field("1", "pipeline stages", default=1.0)
    ep: Scalar = field("1", "expert-parallel degree", default=1.0)
    dp: Scalar = field("1", "data-parallel replicas", default=1.0)
    cp: Scalar = field("1", "context-parallel degree: shards of the cache along the sequence", default=1.0)
    microbatches: Scalar = field(
        "1", "pipeline microbatches of a replica's batch; 0 for one per stage", default=0.0
    )
    sequence_parallel: Scalar = field(
        "1",
        "1 for sequence parallelism: norms sharded, reduce-scatter and all-gather instead of all-reduce",
        default=0.0,
    )
    weight_bits: Scalar = field(
        "bit", "bits of a weight, scales included: 16, 8, 4.25 (MXFP4), 1.6", default=16.0
    )
    expert_bits: Scalar = field("bit", "bits of a routed expert's weight", default=16.0)
    kv_bits: Scalar = field("bit", "bits of a cached key or value element", default=16.0)
    activation_bits: Scalar = field("bit", "bits of an activation of the residual stream", default=16.0)
    mixer_bits: Scalar = field(
        "bit", "bits of a weight of attention and recurrence, 0 for weight_bits", default=0.0
    )
    wide_bits: Scalar = field(
        "bit",
        "bits of what quantization leaves wide: embedding, output head, routers, norms, encoder, draft module; 0 for "
        "weight_bits",
        default=0.0,
    )
    matmul_bits: Scalar = field(
        "bit", "bits of the inputs of matmuls with quantized weights, 0 for activation_bits", default=0.0
    )
    attention_bits: Scalar = field(
        "bit", "bits of queries and attention scores, 0 for activation_bits", default=0.0
    )
    message_bits: Scalar = field("bit", "bits of an element of a message, 0 for activation_bits", default=0.0)
    expert_width_multiple: Scalar = field(
        "1",
        "multiple to which a kernel pads the width of a routed expert's shard, 0 for none: 128 in Marlin's MXFP4",
        default=0.0,
    )
    expert_input_multiple: Scalar = field(
        "1",
        "multiple to which a kernel pads the input width of a routed expert, 0 for none: 256 in Marlin's MXFP4",
        default=0.0,
    )
    weight_sparsity: Scalar = field(
        "1", "share of weights that are zero, and neither stored nor multiplied", default=0.0
    )
    activation_sparsity: Scalar = field("1", "share of feed-forward neurons a token skips", default=0.0)
    draft_length: Scalar = field("token", "tokens drafted before each verification, 0 for none", default=0.0)
    acceptance: Scalar = field("1", "probability that a drafted token is accepted", default=0.7)
    accepted: Scalar = field(
        "token",
        "mean tokens of a decode step with a draft, the token of the model included; 0 to compute it from acceptance",
        default=0.0,
    )
    draft_parameters: Scalar = field(
        "1",
        "weights that a pass of the draft model reads, all but its embedding; 0 for the model's own "
        "multi-token-prediction module",
        default=0.0,
    )
    draft_embedding: Scalar = field(
        "1", "weights of the draft model's embedding, 0 where it is tied or that of the model", default=0.0
    )
    draft_layers: Scalar = field("1", "layers of the draft model", default=1.0)
    draft_width: Scalar = field(
        "1",
        "width of the draft model: the larger of its residual stream and the heads of a layer together; 0 for that of "
        "the model",
        default=0.0,
    )
    draft_cache: Scalar = field(
        "1",
        "elements that a token adds to the draft model's cache, all layers; 0 for those of as many layers of the model",
        default=0.0,
    )
    chunk: Scalar = field(
        "token",
        "prompt tokens of a chunk that is mixed into each decode step; 0 for prefill in steps of its own",
        default=0.0,
    )
    absorb_prefill: Scalar = field("1", "1 where latent attention is absorbed during prefill", default=0.0)
    absorb_decode: Scalar = field("1", "1 where latent attention is absorbed during decode", default=1.0)
    neuron_window: Scalar = field(
        "token",
        "tokens whose feed-forward neurons stay in main memory, so that auxiliary tiers supply only new neurons",
        default=0.0,
    )
    placement: Placement = field(doc="data over memory tiers", default=Placement)
    engine: Engine = field(doc="limits of a step and memory policy of the serving engine", default=Engine)
