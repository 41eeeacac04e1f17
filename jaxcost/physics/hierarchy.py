"""A chip's memory hierarchy under a plan: where data lie, what a byte costs, what tiers hold and how they wear."""

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.fence import once
from jaxcost.core.loop import over
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.capacity import MemoryUse
from jaxcost.physics.near_memory import NearStream, engines, near_stream
from jaxcost.physics.ops import add
from jaxcost.physics.placement import CLASSES, Holdings, Layout, lay_out, touched
from jaxcost.physics.roofline import Rates, rates
from jaxcost.physics.shards import Shards
from jaxcost.physics.tiers import BESIDE, main_stream, prefetch_buffer, read_seconds, stream, tier_costs
from jaxcost.physics.wear import rewrites, wear_share
from jaxcost.spec.chip import Chip
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["TierUse", "Tiers", "held", "hold", "place", "tier_uses"]


@pytree
class TierUse:
    """One memory tier of the fullest chip."""

    used: Scalar = field("B", "bytes it holds", default=0.0)
    bandwidth: Scalar = field(
        "B/s", "reads it streams, with its latency, queue and prefetch buffer", default=0.0
    )
    buffer: Scalar = field(
        "B", "prefetch buffer it needs for its full bandwidth; 0 where none is given", default=0.0
    )
    written: Scalar = field("B/s", "bytes written while serving", default=0.0)
    wear: Scalar = field(
        "1", "share of its cycles used up in the hardware's life; 0 for no limit", default=0.0
    )


@pytree
class Tiers:
    """Memory tiers by name; those that a chip lacks hold nothing."""

    sram: TierUse = field(doc="on-chip memory", default=TierUse)
    memory: TierUse = field(doc="main memory", default=TierUse)
    hbf: TierUse = field(doc="flash stacks", default=TierUse)
    host: TierUse = field(doc="host memory", default=TierUse)
    cxl: TierUse = field(doc="memory behind CXL", default=TierUse)
    ssd: TierUse = field(doc="drives", default=TierUse)


def hold(memory: MemoryUse, shared: Scalar, old: Scalar) -> Holdings:
    """Sort a chip's bytes into the classes that are placed.

    Args:
        memory: bytes by kind.
        shared: bytes of shared experts among its weights.
        old: share of the cache that was there before the requests came.
    """
    return Holdings(
        weights=memory.weights - shared,
        shared=shared,
        experts=memory.experts,
        recent=memory.kv * (1 - old),
        state=memory.state,
        old=memory.kv * old,
        activations=memory.activations + memory.communication,
        corpus=memory.corpus,
    )


def place(
    chip: Chip,
    model: Model,
    plan: Plan,
    shards: Shards,
    holdings: Holdings,
    old: Scalar,
    tokens: Scalar,
    present: tuple[str, ...],
    tau: Scalar,
    one: jax.Array,
) -> tuple[Layout, Rates]:
    """Decide where every class of data lies, and cost a byte of each.

    Args:
        chip: the chip, its capacities as usable.
        model: the language model.
        plan: precisions, degrees and placement.
        shards: the part of the model that one chip holds.
        holdings: bytes by class.
        old: share of the cache that was there before the requests came.
        tokens: of a decode step, by which experts' popularity counts.
        present: what the chip has, of `features`.
        tau: softness.
        one: an `opaque_one`.
    """
    x, how = model.experts, plan.placement
    beside = tuple(name for name in BESIDE if name in present)
    top_share = smooth.safe_div(x.top_k, x.experts, 1.0)
    reads = touched(x.skew, top_share, tokens * shards.joined_replicas) if beside else ()
    layout = lay_out(chip, how, holdings, reads, beside)
    cache = {t: old * layout.read["old"][t] + (1 - old) * layout.read["recent"][t] for t in beside}
    allowed = {
        "weights": how.near_weights,
        "shared": how.near_weights,
        "experts": how.near_experts,
        "cache": how.near_cache,
    }
    # Each computed once, however many rows use it.
    shares, costs, there, own = once(
        (
            layout.read | {"cache": cache},
            tier_costs(chip, beside, tau),
            engines(chip, present, model.hidden, tau),
            main_stream(chip),
        ),
        one,
    )
    names = tuple(shares)
    if beside:
        found = over(lambda of: stream(costs, own, of, how.in_turn), [shares[name] for name in names])
        streams = dict(zip(names, found, strict=True))
    else:
        streams = dict.fromkeys(names, own)
    near: dict[str, NearStream | None] = dict.fromkeys(allowed)
    if there:
        items = [(shares[name], share, _divided(name, model)) for name, share in allowed.items()]
        near = dict(zip(allowed, over(lambda of: near_stream(costs, there, *of), items), strict=True))
    return layout, rates(chip, plan, shares, streams, near, one)


def _divided(name: str, model: Model) -> Scalar:
    """Outputs over which the units of a tier spread a class: of matrices their width, of the cache a row's own."""
    return jnp.ones_like(jnp.asarray(model.hidden)) if name == "cache" else model.hidden


def held(holdings: Holdings, layout: Layout, tier: str) -> Scalar:
    """Bytes that a tier beside main memory holds on the fullest chip."""
    classes = {name: getattr(holdings, name) for name in CLASSES} | {
        "recent": holdings.recent + holdings.state
    }
    return add(*(size * layout.stored[name][tier] for name, size in classes.items()))


def tier_uses(
    chip: Chip,
    use: dict[str, Scalar],
    holdings: Holdings,
    layout: Layout,
    *,
    batch_seconds: Scalar,
    step_seconds: Scalar,
    updates: Scalar,
    served: Scalar,
    tau: Scalar,
) -> Tiers:
    """What every tier holds, how fast it streams, and how fast it wears.

    A request's cache is written once in the time of its batch, states and buffers in every step, the rest when it
    is renewed.

    Args:
        chip: the chip, its capacities as usable.
        use: bytes held, by tier.
        holdings: bytes by class.
        layout: shares of the classes by tier.
        batch_seconds: time of one batch of requests.
        step_seconds: time between two decode steps of a sequence.
        updates: times a second that weights, old cache and corpus are renewed.
        served: seconds of service in the hardware's life.
        tau: softness.
    """
    found = {}
    for name, used in use.items():
        tier = getattr(chip, name)
        written = rewrites(tier, used)
        if name != "memory":
            share = {c: layout.stored[c][name] for c in CLASSES}
            renewed = ("weights", "shared", "experts", "old", "corpus")
            written = (
                written
                + add(*(getattr(holdings, c) * share[c] for c in renewed)) * updates
                + share["recent"] * (holdings.recent / batch_seconds + holdings.state / step_seconds)
                + share["activations"] * holdings.activations / step_seconds
            )
        found[name] = TierUse(
            used=used,
            bandwidth=smooth.safe_div(1.0, read_seconds(tier, chip.efficiency.memory, tau)),
            buffer=jnp.where(tier.buffer > 0, prefetch_buffer(tier), 0),
            written=written,
            wear=wear_share(tier, written, served),
        )
    return Tiers(**found)
