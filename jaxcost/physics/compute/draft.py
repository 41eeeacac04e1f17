"""The draft of speculative decoding: one pass per drafted token by a draft model or by the model's own module.

Symbols: g drafted tokens, P weights that a pass reads, L layers, w width, C cached elements of a token, t the
tensor-parallel degree. Before a decode step of B sequences the draft takes g passes of B tokens; during prefill it
takes one pass over the tokens that the model computes. A pass of m tokens over n keys and p query-key pairs takes

    FLOPs = 2 m P + 4 L w p,    bytes = P b(w) + n C b(kv),    messages = 2 L all-reduces of m w b(a) bytes where t > 1

A draft model has P without its embedding, which is a look-up. The model's own multi-token-prediction module is one
layer and the output head of the model, which it shares; of its routed experts a pass reads those that its tokens reach,
and it sends tokens to experts as a layer of the model does. Weights and cache of a draft model are divided evenly over
t ranks; its cache keeps all tokens, whatever its windows. An operator of the table is a sixth of a layer.

Sources: Leviathan et al. 2023 (arXiv:2211.17192); multi-token prediction, DeepSeek-V3 (arXiv:2412.19437).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcost.core import smooth
from jaxcost.core.arrays import unstack, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.compute.attention import AttentionShards
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["LAYER_OPERATORS", "DraftShards", "draft_shards", "require_draft"]

# Operators of a dense layer: two norms, projections before and after attention, attention, feed-forward.
LAYER_OPERATORS = 6.0


@pytree
class DraftShards:
    """The draft on one chip; zeros without drafts."""

    stored: Scalar = field("1", "parameters in memory")
    parameters: Scalar = field("1", "parameters that every pass reads and multiplies, routed experts apart")
    expert_parameters: Scalar = field("1", "parameters of a routed expert of the model's own module")
    layers: Scalar = field("1", "layers")
    cache: Scalar = field("1", "cached elements of a token, all layers")
    pair_width: Scalar = field("1", "width of the queries and outputs of attention, all layers")
    width: Scalar = field("1", "width of its residual stream, not divided")


def require_draft(model: Model, plan: Plan) -> None:
    """Refuse a plan that drafts with neither a draft model nor a module of the model, where the numbers are known.

    Raises:
        ValueError: any design of the batch drafts with nothing. Traced numbers are not checked: such a design accepts
            no drafted token.
    """
    numbers = (plan.draft_length, plan.draft_parameters, model.draft_parameters)
    if any(isinstance(x, Tracer) for x in numbers):
        return
    length, separate, own = map(np.asarray, numbers)
    if np.any((length > 0) & (separate == 0) & (own == 0)):
        raise ValueError(
            f"plan.draft_length is {np.max(length):g}, but nothing drafts: the model has no multi-token-prediction "
            "module and the plan no draft model (with_draft)"
        )


def draft_shards(
    model: Model,
    plan: Plan,
    *,
    attention: AttentionShards,
    latent_heads: Scalar,
    vocabulary: Scalar,
    routed: Scalar,
    expert_parameters: Scalar,
    local_experts: Scalar,
) -> DraftShards:
    """Return the draft on one chip of the plan.

    Args:
        model: the language model.
        plan: the draft and the degrees.
        attention: attention of the model on one chip.
        latent_heads: heads of latent attention on one chip.
        vocabulary: rows of the output head on one chip.
        routed: parameters of the routed experts of one layer.
        expert_parameters: parameters of one routed expert on one chip.
        local_experts: routed experts of a layer on one chip.
    """
    t, latent, own = plan.tp, model.latent, model.draft_parameters
    separate = plan.draft_parameters > 0
    exists = where((plan.draft_length > 0) & (separate | (own > 0)), 1.0, 0.0)
    # Routed experts of the module; its other weights are divided over the tensor-parallel ranks.
    share = where(model.experts.layers > 0, smooth.safe_div(jnp.minimum(routed, own), routed), 0)
    expert = share * expert_parameters
    rest = (own - share * routed) / t

    def of_layer(width_of_latent: Scalar, widths: jax.Array) -> Scalar:
        """Select the number of the module's mixer: latent attention, or the first shape of attention with layers."""
        full, window, sparse = unstack(widths)
        softmax = where(model.window_attention.layers > 0, window, sparse)
        softmax = where(model.attention.layers > 0, full, softmax)
        return where(latent.layers > 0, width_of_latent, softmax)

    layers = where(separate, plan.draft_layers, 1)
    cache = layers * of_layer(latent.kv_rank + latent.rope_dim, attention.cached_width)
    pair_width = layers * of_layer(
        latent_heads * (latent.nope_dim + latent.rope_dim + latent.value_dim),
        attention.query_width + attention.value_width,
    )
    named_width = separate & (plan.draft_width > 0)
    return DraftShards(
        stored=exists
        * where(separate, (plan.draft_parameters + plan.draft_embedding) / t, rest + local_experts * expert),
        parameters=exists * where(separate, plan.draft_parameters / t, rest + model.hidden * vocabulary),
        expert_parameters=where(separate, 0, exists * expert),
        layers=exists * layers,
        cache=exists * where(separate & (plan.draft_cache > 0), plan.draft_cache / t, cache),
        pair_width=exists * where(named_width, 2 * plan.draft_layers * plan.draft_width / t, pair_width),
        width=where(named_width, plan.draft_width, model.hidden),
    )
