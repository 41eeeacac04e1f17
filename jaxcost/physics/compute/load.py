"""The load of a step, summed over its sequences: tokens, keys and query-key pairs.

Symbols: B sequences of a group, q new tokens of each, c tokens already in its cache, W the window.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from jaxcost.core.arrays import clip, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.model import Model

__all__ = ["Group", "StepLoad", "attention_pairs", "step_load", "window_pairs"]


@pytree
class Group:
    """Sequences of equal shape in a step."""

    sequences: Scalar = field("1", "sequences B")
    new: Scalar = field("token", "new tokens q of each sequence")
    context: Scalar = field("token", "tokens c of each sequence already in the cache")
    logits: Scalar = field("token", "tokens of each sequence that need logits")
    absorbed: Scalar = field("1", "1 where latent attention is absorbed")
    encoder_positions: Scalar = field("1", "positions of each sequence in the encoder")
    drafts: Scalar = field("1", "passes of the draft model before the step")
    retrievals: Scalar = field("1", "corpus searches per sequence", default=0.0)


@pytree
class StepLoad:
    """Sums over all groups of a step."""

    sequences: Scalar = field("1", "sequences, sum of B")
    tokens: Scalar = field("token", "new tokens m, sum of B q")
    logits: Scalar = field("token", "tokens that need logits")
    keys: Scalar = field("token", "keys that any query attends to, sum of B (c + q)")
    pairs: Scalar = field("1", "query-key pairs of one head")
    window_keys: Scalar = field("token", "keys that any query attends to within the window")
    window_pairs: Scalar = field("1", "query-key pairs of one head within the window")
    absorbed_pairs: Scalar = field("1", "query-key pairs with absorbed latent attention")
    expanded_keys: Scalar = field("token", "keys expanded from latents")
    absorbed_tokens: Scalar = field("token", "new tokens with absorbed latent attention")
    encoder_positions: Scalar = field("1", "positions in the encoder")
    draft_passes: Scalar = field("1", "passes of the draft model")
    draft_tokens: Scalar = field("token", "tokens per pass of the draft model")
    retrievals: Scalar = field("1", "corpus searches")


def attention_pairs(group: Group, bidirectional: Scalar) -> jax.Array:
    """Count the query-key pairs of one head over the whole context: B q (c + (q + 1) / 2), or B q (c + q) unmasked."""
    q, c = group.new, group.context
    return group.sequences * q * (c + where(bidirectional > 0, q, (q + 1) / 2))


def window_pairs(group: Group, window: Scalar, bidirectional: Scalar) -> jax.Array:
    """Count the query-key pairs of one head within a window of W tokens.

    B times the sum over i = 1..q of min(c + i, W) = n c + n (n + 1) / 2 + (q - n) W,  n = min(max(W - c, 0), q);
    without a causal mask every query attends to min(c + q, W).
    """
    q, c = group.new, group.context
    n = clip(window - c, 0, q)
    causal = n * c + n * (n + 1) / 2 + (q - n) * window
    both = q * jnp.minimum(c + q, window)
    return group.sequences * where(bidirectional > 0, both, causal)


def step_load(model: Model, groups: tuple[Group, ...]) -> StepLoad:
    """Sum the groups of one step."""
    bidirectional, window = model.diffusion_block, model.attention.window
    parts = []
    for g in groups:
        pairs = attention_pairs(g, bidirectional)
        keys = g.sequences * (g.context + g.new)
        tokens = g.sequences * g.new
        parts.append(
            StepLoad(
                sequences=g.sequences,
                tokens=tokens,
                logits=g.sequences * g.logits,
                keys=keys,
                pairs=pairs,
                window_keys=g.sequences * jnp.minimum(g.context + g.new, window + g.new - 1),
                window_pairs=window_pairs(g, window, bidirectional),
                absorbed_pairs=g.absorbed * pairs,
                expanded_keys=(1 - g.absorbed) * keys,
                absorbed_tokens=g.absorbed * tokens,
                encoder_positions=g.sequences * g.encoder_positions,
                draft_passes=g.drafts,
                draft_tokens=g.sequences * where(g.drafts > 0, 1, 0),
                retrievals=g.sequences * g.retrievals,
            )
        )
    return jax.tree.map(lambda *x: functools.reduce(operator.add, x), *parts)
