"""How a model is laid out on a system, and how it is run."""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Plan"]


@pytree
class Plan:
    """Degrees of sharding, precisions by tensor class, and the schedule.

    A replica is `tp * pp * cp` chips and holds the whole model; `dp` replicas share the batch. Experts are
    spread over `ep` ranks: the first of them inside a tensor-parallel group, further ones over replicas.
    """

    tp: Scalar = field("1", "tensor-parallel degree", default=1.0)
    pp: Scalar = field("1", "pipeline stages", default=1.0)
    ep: Scalar = field("1", "expert-parallel degree", default=1.0)
    dp: Scalar = field("1", "data-parallel replicas", default=1.0)
    cp: Scalar = field("1", "context-parallel degree: shards of the cache along the sequence", default=1.0)
    microbatches: Scalar = field(
        "1", "parts that a replica's batch is cut into for its pipeline; 0 for one a stage", default=0.0
    )
    sequence_parallel: Scalar = field(
        "1",
        "1 where norms are cut along the sequence: reduce-scatter and all-gather for each all-reduce",
        default=0.0,
    )
    weight_bits: Scalar = field(
        "bit", "bits of a weight, scales included: 16, 8, 4.25 (MXFP4), 1.6", default=16.0
    )
    expert_bits: Scalar = field("bit", "bits of a routed expert's weight", default=16.0)
    kv_bits: Scalar = field("bit", "bits of a cached key or value element", default=16.0)
    activation_bits: Scalar = field("bit", "bits of an activation", default=16.0)
    weight_sparsity: Scalar = field(
        "1", "share of weights that are zero, neither stored nor multiplied", default=0.0
    )
    activation_sparsity: Scalar = field("1", "share of feed-forward neurons a token skips", default=0.0)
    draft_length: Scalar = field("token", "tokens drafted before each verification, 0 for none", default=0.0)
    acceptance: Scalar = field("1", "probability that a drafted token is accepted", default=0.7)
    draft_parameters: Scalar = field(
        "1", "weights of the draft model; 0 takes the model's own multi-token-prediction module", default=0.0
    )
    chunk: Scalar = field(
        "token", "prompt tokens prefilled along with each decode step, 0 for none", default=0.0
    )
    absorb_prefill: Scalar = field("1", "1 where latent attention is absorbed during prefill", default=0.0)
    absorb_decode: Scalar = field("1", "1 where latent attention is absorbed during decode", default=1.0)
