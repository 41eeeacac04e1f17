"""The load of a step, summed over its sequences: tokens, keys and query-key pairs.

Symbols: B sequences of a group, q new tokens of each, c tokens already in its cache; of a shape of attention W the
window, r the tokens of one entry of the whole context, k the entries that a query selects.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import clip, stack, unstack, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.compute.attention import SHAPES
from jaxcost.spec.model import Attention, Model

__all__ = ["Attended", "Group", "StepLoad", "attention_pairs", "step_load", "window_pairs"]

_ALL = 1e12  # tokens, more than any context has


@pytree
class Attended:
    """What the queries of a step attend to in a layer."""

    keys: Scalar = field("token", "keys that any query attends to")
    pairs: Scalar = field("1", "query-key pairs of one head")


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
    full: Attended = field(doc="of attention to the whole context")
    window: Attended = field(doc="of attention within a window")
    sparse: Attended = field(doc="of attention to selected or compressed context")
    latent: Attended = field(doc="of latent attention")
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


def _attended(group: Group, model: Model, pairs: Scalar, rank: int) -> dict[str, Attended]:
    """Return what queries attend to, by the kind of attention.

    Within the window these are min(c + q, W + q - 1) keys; beyond it (c + q) / r entries, of which q queries select at
    most q k. The pairs with selected entries are those of a window of k r tokens, over r. Only sparse and latent
    attention select.
    """
    q, c = group.new, group.context
    sparse, latent = model.sparse_attention, model.latent.selected
    limits = [sparse.selected * where(sparse.compression > 0, sparse.compression, 1), latent]
    limits = [where(limit > 0, limit, _ALL) for limit in limits]
    windows = [getattr(model, name).window for name in SHAPES]
    far_sparse, far_latent, *near = unstack(
        window_pairs(group, stack([*limits, *windows], rank), model.diffusion_block)
    )

    def reached(shape: Attention, far: Scalar, selected: Scalar | None, near: Scalar) -> Attended:
        per_token = smooth.safe_div(1.0, shape.compression)
        entries = (c + q) * per_token
        if selected is not None:
            entries = jnp.minimum(entries, q * where(selected > 0, selected, _ALL))
        last = jnp.minimum(c + q, shape.window + (q - 1) * jnp.sign(shape.window))
        return Attended(keys=group.sequences * (entries + last), pairs=far * per_token + near)

    return {
        "full": reached(model.attention, pairs, None, near[0]),
        "window": reached(model.window_attention, pairs, None, near[1]),
        "sparse": reached(sparse, far_sparse, sparse.selected, near[2]),
        "latent": Attended(
            keys=group.sequences * jnp.minimum(c + q, q * where(latent > 0, latent, _ALL)), pairs=far_latent
        ),
    }


def step_load(model: Model, groups: tuple[Group, ...]) -> StepLoad:
    """Sum the groups of one step."""
    bidirectional = model.diffusion_block
    rank = max(np.ndim(x) for x in jax.tree.leaves((groups, bidirectional)))
    parts = []
    for g in groups:
        pairs = attention_pairs(g, bidirectional)
        keys = g.sequences * (g.context + g.new)
        tokens = g.sequences * g.new
        drafted = g.drafts * g.sequences * g.draft_new
        attended = _attended(g, model, pairs, rank)
        parts.append(
            StepLoad(
                sequences=g.sequences,
                tokens=tokens,
                logits=g.sequences * g.logits,
                keys=keys,
                pairs=pairs,
                **attended,
                absorbed_pairs=g.absorbed * attended["latent"].pairs,
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
