"""The load of a step, summed over its sequences: tokens, keys and query-key pairs.

Symbols: B sequences of a group, q new tokens of each, c tokens already in its cache; of a shape of attention W the
window, r the tokens of one entry of the whole context, k the entries that a query selects.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcost.core import smooth
from jaxcost.core.arrays import clip, row, spread, stack, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.compute.attention import SHAPES
from jaxcost.spec.model import Model

__all__ = [
    "Group",
    "Reach",
    "StepLoad",
    "attention_pairs",
    "of_prompts",
    "reaches",
    "step_load",
    "window_pairs",
]

_FEW = 16.0  # new tokens per sequence up to which a step decodes, so that it covers drafts
_ALL = 1e12  # tokens, more than any context has


@pytree
class Reach:
    """What a query of each shape of attention, and of latent attention last, attends to: `[shapes + 1, *batch]`."""

    window: jax.Array = field("token", "last tokens W, 0 for none")
    compression: jax.Array = field("token", "tokens r of one entry of the whole context, 0 for none")
    selected: jax.Array = field("1", "entries k of the whole context, 0 for all")


@pytree
class Group:
    """Sequences of equal shape in a step."""

    sequences: Scalar = field("1", "sequences B")
    new: Scalar = field("token", "new tokens q of each sequence")
    context: Scalar = field("token", "tokens c of each sequence already in the cache")
    logits: Scalar = field("token", "tokens of each sequence that need logits")
    absorbed: Scalar = field("1", "1 where latent attention is absorbed")
    encoder_positions: Scalar = field("1", "positions of each sequence in the encoder")
    drafts: Scalar = field("1", "passes of the draft")
    draft_new: Scalar = field("token", "tokens of each sequence in a pass of the draft", default=1.0)
    retrievals: Scalar = field("1", "corpus searches per sequence", default=0.0)


@pytree
class StepLoad:
    """Sums over all groups of a step."""

    sequences: Scalar = field("1", "sequences, sum of B")
    tokens: Scalar = field("token", "new tokens m, sum of B q")
    logits: Scalar = field("token", "tokens that need logits")
    keys: Scalar = field("token", "keys of the whole context, sum of B (c + q)")
    pairs: Scalar = field("1", "query-key pairs of one head over the whole context")
    attended_keys: jax.Array = field(
        "token", "keys that any query attends to, by shape of attention: `[shapes + 1, *batch]`"
    )
    attended_pairs: jax.Array = field("1", "query-key pairs of one head, by shape: `[shapes + 1, *batch]`")
    absorbed_pairs: Scalar = field("1", "query-key pairs with absorbed latent attention")
    expanded_keys: Scalar = field("token", "keys expanded from latents")
    absorbed_tokens: Scalar = field("token", "new tokens with absorbed latent attention")
    encoder_positions: Scalar = field("1", "positions in the encoder")
    draft_passes: Scalar = field("1", "passes of the draft")
    draft_tokens: Scalar = field("token", "tokens of all passes of the draft")
    draft_keys: Scalar = field("token", "keys that the draft reads in all passes")
    draft_pairs: Scalar = field("1", "query-key pairs of one head in all passes of the draft")
    retrievals: Scalar = field("1", "corpus searches")

    @property
    def draft_pass_tokens(self) -> jax.Array:
        """Tokens of a pass of the draft, the mean where prompts are computed along with decode steps."""
        return smooth.safe_div(self.draft_tokens, self.draft_passes)


def of_prompts(group: Group) -> jax.Array:
    """Return true where the new tokens of a group are those of prompts, not of decoding or of drafts."""
    return jnp.greater(group.new, _FEW)


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


def reaches(model: Model, rank: int = 0) -> Reach:
    """Return the reach of every shape of attention, and of latent attention as the last row."""
    shapes = [getattr(model, name) for name in SHAPES]
    return Reach(
        window=stack([*(shape.window for shape in shapes), 0.0], rank),
        compression=stack([*(shape.compression for shape in shapes), 1.0], rank),
        selected=stack([*(shape.selected for shape in shapes), model.latent.selected], rank),
    )


def _attended(group: Group, reach: Reach, bidirectional: Scalar) -> tuple[jax.Array, jax.Array]:
    """Return the keys that any query attends to, and the pairs, of every shape of attention.

    Within the window these are min(c + q, W + q - 1) keys; beyond it (c + q) / r entries, of which q queries select at
    most q k. The pairs with selected entries are those of a window of k r tokens, over r.
    """
    q, c = group.new, group.context
    ratio = where(reach.compression > 0, reach.compression, 1)
    per_token = smooth.safe_div(1.0, reach.compression)
    chosen = reach.selected > 0
    limits = where(chosen, reach.selected * ratio, _ALL), reach.window
    limits = lax.concatenate(spread(limits, np.broadcast_shapes(*(x.shape for x in limits))), 0)
    pairs = window_pairs(group, limits, bidirectional)
    far, near = lax.split(pairs, (pairs.shape[0] // 2,) * 2)
    entries = jnp.minimum((c + q) * per_token, where(chosen, q * reach.selected, _ALL))
    last = jnp.minimum(c + q, reach.window + (q - 1) * jnp.sign(reach.window))
    return group.sequences * (entries + last), far * per_token + near


def step_load(model: Model, groups: tuple[Group, ...]) -> StepLoad:
    """Sum the groups of one step."""
    bidirectional = model.diffusion_block
    rank = max(np.ndim(x) for x in jax.tree.leaves((groups, bidirectional)))
    reach = reaches(model, rank)
    parts = []
    for g in groups:
        pairs = attention_pairs(g, bidirectional)
        keys = g.sequences * (g.context + g.new)
        tokens = g.sequences * g.new
        drafted = g.drafts * g.sequences * g.draft_new
        attended_keys, attended_pairs = _attended(g, reach, bidirectional)
        parts.append(
            StepLoad(
                sequences=g.sequences,
                tokens=tokens,
                logits=g.sequences * g.logits,
                keys=keys,
                pairs=pairs,
                attended_keys=attended_keys,
                attended_pairs=attended_pairs,
                absorbed_pairs=g.absorbed * row(attended_pairs, len(SHAPES)),
                expanded_keys=(1 - g.absorbed) * keys,
                absorbed_tokens=g.absorbed * tokens,
                encoder_positions=g.sequences * g.encoder_positions,
                draft_passes=g.drafts,
                draft_tokens=drafted,
                draft_keys=g.drafts * g.sequences * (g.context + g.draft_new),
                draft_pairs=drafted * (g.context + (g.draft_new + 1) / 2),
                retrievals=g.sequences * g.retrievals,
            )
        )
    return jax.tree.map(lambda *x: functools.reduce(operator.add, x), *parts)
