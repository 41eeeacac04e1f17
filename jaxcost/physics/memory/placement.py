"""Placement of data in memory tiers: by a closed form, hottest bytes first, or by shares set by hand.

Symbols: S_c bytes of class c, h_c reads of each of its bytes per step (heat), C_t and B_t capacity and bandwidth of
tier t, y_ct bytes of class c in tier t. Reading a class takes h_c max_t y_ct / B_t seconds where tiers stream
concurrently, and h_c sum_t y_ct / B_t where reads are serial. The minimum of the total over all y with
sum_c y_ct <= C_t is reached by placing the classes by falling h_c, each

    concurrent:  spread over all tiers with room, y_ct = min(B_t theta, room_t) with sum_t y_ct = S_c,
    serial:      into the tier of largest B_t with room, then the next.

Proof, concurrent: let theta_j be the time of classes 1..j together. A tier holds at most min(B_t theta_j, C_t) of their
bytes, so theta_j >= theta(S_1 + .. + S_j), which spreading attains for every j; and the total is
sum_j (h_j - h_j+1) theta_j. The serial case is the fractional knapsack. Bytes without room go to main memory.

The room for a class follows from the bytes of all hotter classes together, so all classes are placed in one table
`[classes, tiers, *batch]`.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcost.core import smooth
from jaxcost.core.arrays import clip, column, row, spread, stack, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.memory.tiers import AUXILIARY_TIERS, main_column
from jaxcost.spec.plan import Placement

__all__ = [
    "BANDS",
    "CLASSES",
    "TRAFFIC_CLASSES",
    "TierShares",
    "allot",
    "compute_tier_shares",
    "hit_rate",
    "popularity",
    "touched",
]

# Bands of a layer's routed experts, the most popular first, as shares of the experts; a band is placed as one part.
BANDS = (1 / 16, 3 / 16, 3 / 4)
# Standard normal quantiles at 1 - 0, 1 - 1/16, 1 - 1/4 and 1 - 1, the ends of the bands. The first and the last, which
# are infinite, are numbers beyond which the distribution is 0 in float64.
_QUANTILES = (1e3, 1.5341205443525463, 0.6744897501960817, -1e3)
_HEADROOM = (
    1e-5  # share of a tier's capacity that stays free, so that a full tier does not exceed it in float32
)
CLASSES = ("weights", "shared", "experts", "request_kv", "cached_prefix", "activations", "corpus")
TRAFFIC_CLASSES = (*CLASSES, "cache")
# The placed parts, the hottest first, as sums of classes: buffers and the cache of the requests, which are written
# continuously; dense and shared weights; the cached prefix; the experts by band; the corpus. The transpose maps shares
# of parts back to shares of classes.
_PARTS = np.array(
    [
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0],
        *([0, 0, band, 0, 0, 0, 0] for band in BANDS),
        [0, 0, 0, 0, 0, 0, 1],
    ]
)
_WRITTEN = 2  # number of leading parts that are not placed in tiers that wear
_FIRST_BAND = 4


@pytree
class TierShares:
    """Shares of every class of data in every tier; main memory has the rest."""

    stored: jax.Array = field("1", "shares of the bytes of a class, `[CLASSES, tiers, *batch]`")
    read: jax.Array = field("1", "shares of the traffic of a class, `[TRAFFIC_CLASSES, tiers, *batch]`")
    tiers: tuple[str, ...] = field(doc="names of the tiers", static=True)


def allot(
    sizes: jax.Array, capacity: jax.Array, bandwidth: jax.Array, serial_tier_reads: Scalar
) -> jax.Array:
    """Place classes by falling heat; return the bytes of each class in each tier, `[classes, tiers, *batch]`.

    Args:
        sizes: bytes of each class, the hottest first, `[classes, *batch]`.
        capacity: bytes of each tier, `[tiers, *batch]`.
        bandwidth: B/s of each tier, `[tiers, *batch]`.
        serial_tier_reads: 1 where tiers are read one after another, 0 where concurrently.
    """
    count = len(sizes)
    hotter, sizes = combine(np.tri(count, count, -1), sizes)[:, None], sizes[:, None]
    # Axes: a tier that comes before another, that other tier.
    first, second = (capacity[:, None], bandwidth[:, None]), (capacity[None], bandwidth[None])
    serial = _fill_by_bandwidth(sizes, hotter, first, second)
    concurrent = _spread_by_bandwidth(sizes, hotter, first, second)
    return serial_tier_reads * serial + (1 - serial_tier_reads) * concurrent


_Tiers = tuple[jax.Array, jax.Array]  # capacity and bandwidth


def _spread_by_bandwidth(sizes: jax.Array, hotter: jax.Array, first: _Tiers, second: _Tiers) -> jax.Array:
    """Spread each class over the tiers with room left by hotter classes, in proportion to bandwidth.

    theta(S) = max over t of (S - capacity of the tiers that fill up before t) / (bandwidth of the others), where tiers
    fill up in the order of C_t / B_t: S(theta) is concave, so its inverse is the maximum of its tangents.
    """
    (capacity, bandwidth), dtype = second, sizes.dtype
    before = (first[0] * bandwidth < capacity * first[1]).astype(dtype)
    speed = jnp.sum((1 - before) * first[1], 0)[None]
    speed = where(speed > 0, speed, 1)

    def theta(size: jax.Array, full: jax.Array) -> jax.Array:
        return jnp.max((size - full) / speed, 1)[:, None]

    passed = theta(hotter, jnp.sum(before * first[0], 0)[None])
    room = jnp.maximum(capacity - bandwidth * passed, 0)
    return jnp.minimum(bandwidth * theta(sizes, jnp.sum(before * room[:, :, None], 1)), room)


def _fill_by_bandwidth(sizes: jax.Array, hotter: jax.Array, first: _Tiers, second: _Tiers) -> jax.Array:
    """Fill the tiers one after another by falling bandwidth; ties in the order of the tiers."""
    capacity, bandwidth = second
    count = bandwidth.shape[1]
    earlier = np.reshape(np.tri(count, count, -1).T > 0, (count, count) + (1,) * (bandwidth.ndim - 2))
    wider = (first[1] > bandwidth) | ((first[1] == bandwidth) & earlier)
    reached = hotter - jnp.sum(wider * first[0], 0)[None]  # bytes of a tier that hotter classes occupy
    room = capacity - clip(reached, 0, capacity)
    return clip(sizes - jnp.maximum(-reached, 0), 0, room)


def combine(weights: np.ndarray, table: jax.Array) -> jax.Array:
    """Return weighted sums of the rows of a table: constants `[sums, rows]` x `[rows, *batch]` to `[sums, *batch]`."""
    factors = np.reshape(weights, weights.shape + (1,) * (table.ndim - 1)).astype(table.dtype)
    return jnp.sum(factors * table[None], 1)


def _constants(values: Sequence[float], like: Scalar) -> jax.Array:
    """Return constants along a new leading axis that broadcast against `like`."""
    made = np.asarray(values, jnp.result_type(like))
    return cast(jax.Array, np.reshape(made, (-1,) + (1,) * np.ndim(like)))


def popularity(skew: Scalar) -> jax.Array:
    """Return the share of all picks in each of `BANDS`, `[bands, ...]`, for log-normal popularity with CoV^2 = skew.

    The most popular share x gets  1 - Phi(Phi^-1(1 - x) - sigma),  sigma^2 = ln(1 + skew)  (its Lorenz curve).
    """
    even = skew <= 0
    sigma = where(even, 0, jnp.sqrt(jnp.log1p(where(even, 1, skew))))
    # Phi(x) = (1 + erf(x / sqrt 2)) / 2
    missed = lax.erf((_constants(_QUANTILES, sigma) - sigma) * math.sqrt(0.5)) / 2
    return missed[:-1] - missed[1:]


def touched(skew: Scalar, top_share: Scalar, tokens: Scalar) -> jax.Array:
    """Return the share of a step's expert reads in each of `BANDS`: a share 1 - (1 - k/E)^(m g_j) of band j is read.

    g_j is the mean popularity of the band. One token reads in proportion to popularity; many tokens read all experts.
    """
    missed = tokens * jnp.log1p(-clip(top_share, 0, 1 - 1e-6))
    picks = popularity(skew)
    bands = _constants(BANDS, top_share)
    reads = -bands * jnp.expm1(missed * picks / bands)
    return smooth.safe_div(reads, jnp.sum(reads, 0), bands)


def hit_rate(cached: jax.Array, reads: jax.Array) -> jax.Array:
    """Return the share of expert reads that go to the most popular share `cached` of the experts, linear in a band.

    Args:
        cached: share of the experts, of any shape.
        reads: share of the reads of each band, `[bands, ...]`, broadcastable to it.
    """
    sizes, low = _constants(BANDS, cached), _constants([0, *np.cumsum(BANDS)[:-1]], cached)
    return jnp.sum(reads * clip((cached - low) / sizes, 0, 1), 0)


def compute_tier_shares(
    memory: Any,
    tiers: tuple[str, ...],
    placement: Placement,
    sizes: jax.Array,
    reads: jax.Array,
    prefix: Scalar,
) -> TierShares:
    """Return the shares of every class in the tiers.

    The closed form places buffers and the cache of the requests first and outside tiers that wear; then dense and
    shared weights and the cached prefix, which every step reads completely; the experts by popularity; the corpus last.

    Args:
        memory: the tiers with usable capacities, of `stack_tiers`.
        tiers: names of the tiers.
        placement: the closed form, or shares set by hand.
        sizes: bytes of each class, `[CLASSES, *batch]`.
        reads: share of a step's expert reads in each of `BANDS`.
        prefix: share of the cache that existed before the requests.
    """
    main = main_column(tiers, memory.bandwidth)

    def complete(shares: jax.Array) -> jax.Array:
        """Set the share of main memory to the rest."""
        auxiliary = shares * (1 - main)
        return auxiliary + main * (1 - jnp.sum(auxiliary, 1)[:, None])

    buffers = jnp.sum(memory.buffer * (1 - main), 0)
    in_sram = column([name == "sram" for name in tiers], memory.bandwidth)
    capacity = (1 - _HEADROOM) * jnp.maximum(memory.capacity - in_sram * buffers, 0)
    parts = combine(_PARTS, sizes)
    # Continuously written parts are placed first, in tiers without wear; the others use the remaining room.
    durable, bandwidth, serial = memory.endurance <= 0, memory.bandwidth, placement.serial_tier_reads
    written = allot(parts[:_WRITTEN], capacity * durable, bandwidth * durable, serial)
    others = allot(parts[_WRITTEN:], capacity - jnp.sum(written, 0), bandwidth, serial)
    computed = complete(smooth.safe_div(_concatenate(written, others), parts[:, None]))
    manual, automatic = complete(_manual_shares(placement, tiers)), placement.automatic
    stored = automatic * combine(_PARTS.T, computed) + (1 - automatic) * manual
    # Shares of traffic differ from shares of bytes for experts, by popularity, and for the cache as a whole.
    experts_row, prefix_row, request_row = (
        CLASSES.index(name) for name in ("experts", "cached_prefix", "request_kv")
    )
    bands = computed[_FIRST_BAND : _FIRST_BAND + len(BANDS)]
    experts = automatic * jnp.sum(reads[:, None] * bands, 0) + (1 - automatic) * _by_popularity(
        row(manual, experts_row), reads[:, None]
    )
    cache = prefix * row(stored, prefix_row) + (1 - prefix) * row(stored, request_row)
    read = _concatenate(stored[:experts_row], experts[None], stored[experts_row + 1 :], cache[None])
    return TierShares(stored=stored, read=read, tiers=tiers)


def _concatenate(*tables: jax.Array) -> jax.Array:
    """Concatenate tables along their first axis, each broadcast to the batch of them all."""
    shape = np.broadcast_shapes(*(table.shape[1:] for table in tables))
    return lax.concatenate([spread(table, (len(table), *shape)) for table in tables], 0)


def _manual_shares(placement: Placement, tiers: Sequence[str]) -> jax.Array:
    """Stack the shares set by hand, `[CLASSES, tiers, *batch]`; the values of main memory are placeholders."""
    splits = [getattr(placement, name) for name in CLASSES]
    columns = [name if name in AUXILIARY_TIERS else AUXILIARY_TIERS[0] for name in tiers]
    shares = stack([getattr(split, name) for split in splits for name in columns])
    return jnp.reshape(shares, (len(splits), len(tiers), *shares.shape[1:]))


def _by_popularity(shares: jax.Array, reads: jax.Array) -> jax.Array:
    """Convert shares of experts to shares of their reads, with the most popular experts in the first tier."""
    count = len(shares)
    served = hit_rate(combine(np.tri(count), shares), reads)
    return combine(np.eye(count) - np.eye(count, k=-1), served)
