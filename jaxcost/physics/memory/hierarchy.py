"""The memory hierarchy of a chip under a plan: placement of data, cost of a byte, use and wear of tiers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcost.core import smooth
from jaxcost.core.arrays import column, materialize_once, stack, unstack, where
from jaxcost.core.pytree import Scalar, field, leaf_fields, pytree
from jaxcost.physics.compute.shards import Shards
from jaxcost.physics.memory.capacity import MemoryUse
from jaxcost.physics.memory.near_memory import NearMemoryCosts, near_memory_costs
from jaxcost.physics.memory.placement import (
    CLASSES,
    TRAFFIC_CLASSES,
    TierShares,
    compute_tier_shares,
    touched,
)
from jaxcost.physics.memory.tiers import (
    TierCosts,
    TrafficCosts,
    main_column,
    prefetch_buffer,
    stack_tiers,
    tier_costs,
    tiers_of,
    traffic_costs,
    write_energy,
)
from jaxcost.physics.memory.wear import rewrites, wear_share
from jaxcost.spec.chip import Chip
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = [
    "Hierarchy",
    "TierUse",
    "Tiers",
    "build_hierarchy",
    "classify_bytes",
    "memory_energy",
    "tier_bytes",
    "tier_uses",
]


@pytree
class TierUse:
    """One memory tier of the fullest chip."""

    used: Scalar = field("B", "bytes in use", default=0.0)
    bandwidth: Scalar = field(
        "B/s", "achieved read bandwidth, limited by latency, queue depth and prefetch buffer", default=0.0
    )
    buffer: Scalar = field(
        "B", "prefetch buffer that the full bandwidth needs; 0 where the tier has none", default=0.0
    )
    written: Scalar = field("B/s", "bytes written while serving", default=0.0)
    wear: Scalar = field(
        "1", "share of the endurance used over the hardware's life; 0 for no limit", default=0.0
    )


@pytree
class Tiers:
    """Memory tiers by name; tiers that a chip does not have are all zeros."""

    sram: TierUse = field(doc="on-chip memory", default=TierUse)
    memory: TierUse = field(doc="main memory", default=TierUse)
    hbf: TierUse = field(doc="flash stacks", default=TierUse)
    host: TierUse = field(doc="host memory", default=TierUse)
    cxl: TierUse = field(doc="memory behind CXL", default=TierUse)
    ssd: TierUse = field(doc="drives", default=TierUse)


def classify_bytes(memory: MemoryUse, shared: Scalar, prefix: Scalar) -> jax.Array:
    """Return the bytes of a chip by class of placed data, `[CLASSES, *batch]`.

    Recurrent states belong to the class of the cache that the requests write.

    Args:
        memory: bytes by kind.
        shared: bytes of shared experts among its weights.
        prefix: share of the cache that existed before the requests: cached prefixes and retrieved context.
    """
    classes = {
        "weights": memory.weights - shared,
        "shared": shared,
        "experts": memory.experts,
        "request_kv": memory.kv * (1 - prefix) + memory.state,
        "cached_prefix": memory.kv * prefix,
        "activations": memory.buffers + memory.runtime + memory.graphs,
        "corpus": memory.corpus,
    }
    return stack([classes[name] for name in CLASSES])


class Hierarchy(NamedTuple):
    """The memory tiers of a chip, the placement of data in them, and the cost of a byte."""

    memory: Any  # the tiers, of `stack_tiers`: each leaf is `[tiers, *batch]`
    costs: TierCosts
    shares: TierShares
    traffic: TrafficCosts
    near: NearMemoryCosts | None  # None where no tier has engines


def build_hierarchy(
    chip: Chip,
    model: Model,
    plan: Plan,
    shards: Shards,
    sizes: jax.Array,
    prefix: Scalar,
    tokens: Scalar,
    features: Sequence[str],
    tau: Scalar,
) -> Hierarchy:
    """Place every class of data in the tiers, and return the tiers with the cost of a byte of each class.

    Args:
        chip: the chip with usable capacities.
        model: the language model.
        plan: precisions, degrees and placement.
        shards: the part of the model on one chip.
        sizes: bytes of each class, of `classify_bytes`.
        prefix: share of the cache that existed before the requests.
        tokens: tokens of a decode step, on which the reads of popular experts depend.
        features: features of the chip, of `chip_features`.
        tau: softness.
    """
    tiers, placement, x = tiers_of(features), plan.placement, model.experts
    memory = stack_tiers(chip, tiers)
    costs = tier_costs(chip, tiers, memory, tau)
    if len(tiers) > 1:
        top_share = smooth.safe_div(x.top_k, x.experts, 1.0)
        reads = touched(x.skew, top_share, tokens * shards.joined_replicas)
        shares = compute_tier_shares(memory, tiers, placement, sizes, reads, prefix)
    else:
        ones = jnp.ones_like(costs.read, shape=(len(TRAFFIC_CLASSES), *(1,) * jnp.ndim(costs.read)))
        shares = TierShares(stored=ones[: len(CLASSES)], read=ones, tiers=tiers)
    shares, costs = materialize_once((shares, costs))
    near = None
    if any(f"{name}.near" in features for name in tiers):
        read = lax.concatenate([shares.read[:3], shares.read[-1:]], 0)  # of `OPERAND_CLASSES`
        allowed = stack(
            [placement.near_weights, placement.near_weights, placement.near_experts, placement.near_cache]
        )
        near = near_memory_costs(chip, tiers, memory, costs, read, allowed, model.hidden, tau)
    return Hierarchy(
        memory, costs, shares, traffic_costs(costs, tiers, shares.read, placement.serial_tier_reads), near
    )


def tier_bytes(sizes: jax.Array, shares: TierShares) -> jax.Array:
    """Return the bytes in each tier of the fullest chip, `[tiers, *batch]`."""
    return jnp.sum(sizes[:, None] * shares.stored, 0)


def memory_energy(
    chip: Chip, hierarchy: Hierarchy, moved: jax.Array, written: jax.Array, on_the_spot: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the joules of reads and of writes in each tier, `[tiers, ..., *batch]`, and of wires, `[..., *batch]`.

    A byte costs the energy of its tier and, unless it is in on-chip memory, that of the wires to the engines. Stacking
    scales both for main memory.

    Args:
        chip: energies of the wires and of stacking.
        hierarchy: tiers and shares.
        moved: bytes by class of data, `[TRAFFIC_CLASSES, ..., *batch]`; other axes such as steps precede the batch.
        written: written bytes among them, of the same shape.
        on_the_spot: bytes read by engines near memory, `[OPERAND_CLASSES, ..., *batch]`; None without engines.
    """
    memory, shares, near = hierarchy.memory, hierarchy.shares, hierarchy.near
    rank = moved.ndim

    def by_tier(amounts: jax.Array, shares: jax.Array) -> jax.Array:
        return jnp.sum(amounts[:, None] * _insert_axes(shares, 2, rank + 1), 0)

    passing, stored = by_tier(moved, shares.read), by_tier(written, shares.read)
    if near is not None and on_the_spot is not None:
        passing = passing - by_tier(on_the_spot, near.taken)
    main = main_column(shares.tiers, memory.energy_per_byte)
    stacking = main * chip.stacking.energy + (1 - main)
    outside = column([name != "sram" for name in shares.tiers], stacking) * stacking
    per_read, per_write, per_wire = (
        _insert_axes(x, 1, rank)
        for x in (
            memory.energy_per_byte * stacking,
            write_energy(memory) * stacking,
            outside * chip.on_chip_energy_per_byte,
        )
    )
    return (passing - stored) * per_read, stored * per_write, jnp.sum(passing * per_wire, 0)


def _insert_axes(table: jax.Array, leading: int, rank: int) -> jax.Array:
    """Insert axes of length 1 behind the leading ones, up to a rank."""
    missing = rank - table.ndim
    return jnp.expand_dims(table, tuple(range(leading, leading + missing))) if missing else table


def tier_uses(
    hierarchy: Hierarchy,
    used: jax.Array,
    sizes: jax.Array,
    memory: MemoryUse,
    prefix: Scalar,
    *,
    batch_seconds: Scalar,
    step_seconds: Scalar,
    updates: Scalar,
    served: Scalar,
) -> Tiers:
    """Return the use, achieved bandwidth and wear of every tier.

    The cache of a request is written once per batch, states and buffers once per step, and other data at every update.
    In main memory only rewrites before the retention time count.

    Args:
        hierarchy: tiers and shares.
        used: bytes in use, `[tiers, *batch]`.
        sizes: bytes of each class, of `classify_bytes`.
        memory: bytes by kind.
        prefix: share of the cache that existed before the requests.
        batch_seconds: time of one batch of requests.
        step_seconds: time between two decode steps of a sequence.
        updates: updates per second of weights, cached prefixes and corpus.
        served: seconds of service in the hardware's life.
    """
    table, shares = hierarchy.memory, hierarchy.shares
    written = rewrites(table, used)
    if len(shares.tiers) > 1:
        by_step, by_batch = (
            column([c == name for c in CLASSES], sizes) for name in ("activations", "request_kv")
        )
        renewed = (1 - by_step - by_batch) * updates
        cache = memory.kv * (1 - prefix) / batch_seconds + memory.state / step_seconds
        rates = sizes * (renewed + by_step / step_seconds) + by_batch * cache
        auxiliary = 1 - main_column(shares.tiers, used)
        written = written + auxiliary * jnp.sum(rates[:, None] * shares.stored, 0)
    columns = TierUse(
        used=used,
        bandwidth=smooth.safe_div(1.0, hierarchy.costs.read),
        buffer=where(table.buffer > 0, prefetch_buffer(table), 0),
        written=written,
        wear=wear_share(table, written, served),
    )
    rows = {f.name: unstack(getattr(columns, f.name)) for f in leaf_fields(TierUse)}
    return Tiers(
        **{name: TierUse(**{f: row[i] for f, row in rows.items()}) for i, name in enumerate(shares.tiers)}
    )
