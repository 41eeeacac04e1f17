"""Which data lie in which tier: by a closed form, hottest bytes first, or as given.

Symbols: S_c bytes of class c, h_c how often each of them is read in a step, C_t and B_t capacity and bandwidth of
tier t, y_ct bytes of class c in tier t. Tiers that stream at once take h_c max_t y_ct / B_t seconds a class, tiers in
turn h_c sum_t y_ct / B_t. The least total over all y with sum_c y_ct <= C_t is reached by placing the classes by
falling h_c, each

    at once:  spread over all tiers with room, y_ct = min(B_t theta, room_t) with sum_t y_ct = S_c,
    in turn:  into the tier with the largest B_t with room, then the next.

Proof, at once: let theta_j be the time of classes 1..j together. A tier holds at most min(B_t theta_j, C_t) of them,
so theta_j >= theta(S_1 + .. + S_j), which the spreading attains for every j; and the total is
sum_j (h_j - h_j+1) theta_j. In turn, it is the fractional knapsack. What has no room is left to main memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import ndtr

from jaxcost.core import smooth
from jaxcost.core.loop import carry
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.ops import add
from jaxcost.physics.tiers import Shares, main_share
from jaxcost.spec.chip import Chip
from jaxcost.spec.memory import TIERS
from jaxcost.spec.plan import Placement, Split

__all__ = ["BANDS", "CLASSES", "Holdings", "Layout", "allot", "fill", "hit_rate", "lay_out", "popularity"]

# Shares of a layer's routed experts, the most popular first, that are placed as one.
BANDS = (1 / 16, 3 / 16, 3 / 4)
# Standard normal quantiles at 1 - 1/16 and 1 - 1/4, where the bands meet.
_QUANTILES = (1.5341205443525463, 0.6744897501960817)
_HEADROOM = (
    1e-5  # of a tier's capacity left free, so that a tier filled to the brim never looks overfull in f32
)
CLASSES = ("weights", "shared", "experts", "recent", "old", "activations", "corpus")


@pytree
class Holdings:
    """Bytes of each class on the fullest chip."""

    weights: Scalar = field("B", "dense weights")
    shared: Scalar = field("B", "shared experts")
    experts: Scalar = field("B", "routed experts")
    recent: Scalar = field("B", "cache that the requests write")
    state: Scalar = field("B", "recurrent states, placed as the recent cache is")
    old: Scalar = field("B", "cache there before the request")
    activations: Scalar = field("B", "working and message buffers")
    corpus: Scalar = field("B", "retrieval corpus")


@pytree
class Layout:
    """Shares of every class in the tiers beside main memory."""

    stored: dict[str, Shares] = field(doc="of its bytes")
    read: dict[str, Shares] = field(doc="of its traffic: other than of the bytes for experts")


def fill(size: Scalar, room: Sequence[Scalar], bandwidth: Sequence[Scalar], in_turn: Scalar) -> list[Scalar]:
    """Place one class: bytes in each tier, with the room there is.

    At once, theta = max over t of (S - room of the tiers that fill up before t) / (bandwidth of the others), tiers
    filling up in the order of room_t / B_t: S(theta) is concave, and its inverse the largest of its tangents.
    """
    tiers = range(len(room))

    def before(a: int, b: int) -> tuple[Any, Any]:
        """Tell whether tier a fills up before tier b, at once and in turn; ties by place."""
        earlier, wider = room[a] * bandwidth[b], room[b] * bandwidth[a]
        if a < b:
            return earlier <= wider, bandwidth[a] >= bandwidth[b]
        return earlier < wider, bandwidth[a] > bandwidth[b]

    order = {(a, b): before(a, b) for a in tiers for b in tiers if a != b}
    theta, sooner = jnp.zeros_like(size), []
    for t in tiers:
        others = [u for u in tiers if u != t]
        full = add(*(jnp.where(order[u, t][0], room[u], 0) for u in others))
        open_ = add(bandwidth[t], *(jnp.where(order[u, t][0], 0, bandwidth[u]) for u in others))
        theta = jnp.maximum(theta, smooth.safe_div(size - full, open_))
        sooner.append(add(*(jnp.where(order[u, t][1], room[u], 0) for u in others)))
    # Chosen, not mixed: between the two orders there is no placement in between that would be better.
    return [
        in_turn * jnp.clip(size - sooner[t], 0, room[t])
        + (1 - in_turn) * jnp.minimum(bandwidth[t] * theta, room[t])
        for t in tiers
    ]


def allot(
    sizes: Sequence[Scalar],
    capacity: Sequence[Scalar],
    bandwidth: Sequence[Scalar],
    in_turn: Scalar,
    allowed: Sequence[Sequence[Scalar]] | None = None,
) -> list[list[Scalar]]:
    """Place classes by falling heat: bytes of each class in each tier, shape [classes][tiers].

    Args:
        sizes: bytes of each class, the hottest first.
        capacity: bytes of each tier.
        bandwidth: B/s of each tier.
        in_turn: 1 where tiers stream in turn, 0 at once.
        allowed: 1 for each class and tier where the class may lie there, 0 where not; everywhere when absent.
    """
    width = len(capacity)
    allowed = [[1.0] * width for _ in sizes] if allowed is None else allowed
    items = [{"size": s, "allowed": list(a)} for s, a in zip(sizes, allowed, strict=True)]

    def place(room: list[Scalar], item: dict[str, Any]) -> tuple[list[Scalar], list[Scalar]]:
        usable = [r * a for r, a in zip(room, item["allowed"], strict=True)]
        found = fill(
            item["size"], usable, [b * a for b, a in zip(bandwidth, item["allowed"], strict=True)], in_turn
        )
        return [r - y for r, y in zip(room, found, strict=True)], found

    # Within a sharded sweep the room must vary from the start as the sizes do that are taken from it.
    return carry(place, [c + 0 * add(*sizes) for c in capacity], items)


def popularity(skew: Scalar) -> list[Scalar]:
    """Share of all picks that fall on each of `BANDS`, expert popularity taken log-normal with CoV^2 = skew.

    The most popular share x gets  1 - Phi(Phi^-1(1 - x) - sigma),  sigma^2 = ln(1 + skew)  (its Lorenz curve).
    """
    even = skew <= 0
    sigma = jnp.where(even, 0, jnp.sqrt(jnp.log1p(jnp.where(even, 1, skew))))
    first, second = (ndtr(sigma - q) for q in _QUANTILES)
    return [first, second - first, 1 - second]


def touched(skew: Scalar, top_share: Scalar, tokens: Scalar) -> list[Scalar]:
    """Share of a step's expert reads that fall on each of `BANDS`: of band j, 1 - (1 - k/E)^(m g_j) are touched.

    g_j is its mean popularity; one token reads by popularity, many read all experts alike.
    """
    missed = jnp.log1p(-jnp.clip(top_share, 0, 1 - 1e-6))
    reads = [
        band * -jnp.expm1(tokens * missed * picks / band)
        for band, picks in zip(BANDS, popularity(skew), strict=True)
    ]
    total = add(*reads)
    return [smooth.safe_div(r, total, band) for r, band in zip(reads, BANDS, strict=True)]


def hit_rate(cached: Scalar, reads: Sequence[Scalar]) -> Scalar:
    """Share of expert reads that the most popular share `cached` of the experts serves, linear within a band."""
    served, low = [], 0.0
    for band, share in zip(BANDS, reads, strict=True):
        served.append(share * jnp.clip((cached - low) / band, 0, 1))
        low += band
    return add(*served)


def lay_out(
    chip: Chip,
    placement: Placement,
    holdings: Holdings,
    reads: Sequence[Scalar],
    beside: tuple[str, ...],
) -> Layout:
    """Decide the shares of every class in the tiers beside main memory that are present.

    By the closed form, buffers and the requests' own cache come first and stay off tiers that wear; then dense and
    shared weights and old cache, which every step reads whole, the experts by popularity, and the corpus last.
    """
    if not beside:
        return Layout(stored={name: {} for name in CLASSES}, read={name: {} for name in CLASSES})
    tiers = [name for name in TIERS if name == "memory" or name in beside]
    memories = [getattr(chip, name) for name in tiers]
    reserved = add(*(getattr(chip, name).buffer for name in beside))
    capacity = [
        (1 - _HEADROOM) * (jnp.maximum(m.capacity - reserved, 0) if name == "sram" else m.capacity)
        for name, m in zip(tiers, memories, strict=True)
    ]
    durable = [jnp.where(m.endurance > 0, 0.0, 1.0) for m in memories]
    anywhere = [jnp.ones_like(d) for d in durable]
    dense = holdings.weights + holdings.shared
    parts = {
        "activations": holdings.activations,
        "recent": holdings.recent + holdings.state,
        "dense": dense,
        "old": holdings.old,
        **{f"band {j}": holdings.experts * band for j, band in enumerate(BANDS)},
        "corpus": holdings.corpus,
    }
    placed = allot(
        list(parts.values()),
        capacity,
        [m.bandwidth for m in memories],
        placement.in_turn,
        [durable if name in ("activations", "recent") else anywhere for name in parts],
    )
    share: dict[str, Shares] = {
        name: {
            tier: smooth.safe_div(y, size) for tier, y in zip(tiers, found, strict=True) if tier != "memory"
        }
        for (name, size), found in zip(parts.items(), placed, strict=True)
    }
    bands = [share.pop(f"band {j}") for j in range(len(BANDS))]
    share |= {"weights": share["dense"], "shared": share.pop("dense")}

    def mixed(weights: Sequence[Scalar]) -> Shares:
        return {t: add(*(w * band[t] for w, band in zip(weights, bands, strict=True))) for t in beside}

    def blend(found: Shares, given: Mapping[str, Scalar]) -> Shares:
        automatic = placement.automatic
        return {t: automatic * found[t] + (1 - automatic) * given[t] for t in beside}

    given = {name: _given(getattr(placement, name), beside) for name in CLASSES}
    stored = {
        name: blend(share[name] if name != "experts" else mixed(BANDS), given[name]) for name in CLASSES
    }
    read = stored | {"experts": blend(mixed(reads), _by_popularity(given["experts"], tiers, reads))}
    return Layout(stored=stored, read=read)


def _given(split: Split, beside: tuple[str, ...]) -> Shares:
    return {name: getattr(split, name) for name in beside}


def _by_popularity(shares: Shares, tiers: Sequence[str], reads: Sequence[Scalar]) -> Shares:
    """Turn shares of experts into shares of their reads, the most popular experts in the first tier."""
    out, low = {}, 0.0
    for name in tiers:
        high = low + (main_share(shares) if name == "memory" else shares[name])
        if name != "memory":
            out[name] = hit_rate(high, reads) - hit_rate(low, reads)
        low = high
    return out
