"""Which kernels the rows of the op table run, and what they make of the rows' legs.

A row's legs at the datasheet's rates come from the roofline, where tiers, placement and sparsity have already counted.
A kernel is paced by the shape of its work; its legs are then scaled so that those of a row's kernels add up to the
row's own:

    seconds = sum over kernels of fixed + S(stretch x memory_i, busy_i, serial),   sum of memory_i = the row's leg
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import stack
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.attention_kernel import AttentionWork, attention_bytes, attention_pace
from jaxcost.physics.kernels import Machine, MatmulWork, Pace, matmul_bytes, matmul_pace
from jaxcost.physics.load import Group, Load
from jaxcost.physics.messages import touched_groups
from jaxcost.physics.mixture_kernel import MixtureWork, mixture_bytes, mixture_flops, mixture_pace
from jaxcost.physics.ops import distinct_experts
from jaxcost.physics.shards import Shards
from jaxcost.spec.kernels import Attention, Kernels, Matmul, Mixture
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["Legs", "Runs", "kernel_rows", "kernel_seconds"]

_FEW = 16.0  # new tokens of a sequence up to which attention is that of decoding: drafts are checked so
_UNNARROWED = ("router",)
Shape = tuple[Scalar, Scalar, Scalar]


@pytree
class Runs:
    """Kernels that run one after the other, [n] in every leaf, with their legs at the datasheet's rates."""

    pace: Pace = field(doc="how each goes through them")
    memory: Scalar = field("s", "bytes at the bandwidth")
    matmul: Scalar = field("s", "matmul work at the peak; 0 to take it as it is", default=0.0)
    runs: Scalar = field("1", "0 where there is nothing to do", default=1.0)


@pytree
class Legs:
    """What a row takes of memory and of the cores, and its time."""

    memory: Scalar = field("s", "memory")
    busy: Scalar = field("s", "cores")
    seconds: Scalar = field("s", "the row")


def kernel_seconds(row: Runs, memory: Scalar, matmul: Scalar) -> Legs:
    """Time a row's kernels, given its memory and matmul legs at the datasheet's rates."""
    longer = smooth.safe_div(memory, jnp.sum(row.memory * row.runs), 1.0)
    denser = smooth.safe_div(matmul, jnp.sum(row.matmul * row.runs), 1.0)
    moving = row.pace.stretch * row.memory * longer * row.runs
    computing = row.pace.busy * denser * row.runs
    seconds = row.pace.fixed * row.runs + smooth.maximum(moving, computing, row.pace.serial)
    return Legs(memory=jnp.sum(moving), busy=jnp.sum(computing), seconds=jnp.sum(seconds))


def kernel_rows(
    model: Model,
    plan: Plan,
    shards: Shards,
    groups: tuple[Group, Group],
    load: Load,
    kernels: Kernels,
    machine: Callable[[str], Machine],
) -> dict[str, Runs]:
    """Name the kernels of every row that has its own; the rest only pass data.

    Args:
        model: the language model.
        plan: precisions and degrees.
        shards: the part of the model that one chip holds.
        groups: the sequences of the step: those it is for, and those that ride along decoding.
        load: what they add up to.
        kernels: those of the library.
        machine: the chip as operands of a class of data meet it.
    """
    d, m = model.hidden, load.tokens
    attention, latent, experts = model.attention, model.latent, model.experts
    query_width = shards.heads * attention.head_dim
    own_kv = 1 - smooth.safe_div(attention.shared_layers, attention.full_layers + attention.window_layers)
    qkv_width = query_width * attention.query_outputs + 2 * shards.kv_heads * attention.head_dim * own_kv
    rank = jnp.where(latent.query_rank > 0, latent.query_rank, 0)
    expanded_width = shards.latent_heads * (latent.nope_dim + latent.value_dim)

    def gated(width: Scalar, matrices: Scalar) -> list[Shape]:
        return [(m, (matrices - 1) * width, d), (m, d, width)]

    matmuls = {
        "attention_qkv": [(m, qkv_width, d)],
        "attention_out": [(m, d, query_width)],
        "latent_qkv": [
            (m, rank + latent.kv_rank + latent.rope_dim, d),
            (m, shards.latent_query_width, jnp.where(rank > 0, rank, d)),
            (load.absorbed_tokens + load.expanded_keys, expanded_width, latent.kv_rank),
        ],
        "latent_out": [(m, d, shards.latent_heads * latent.value_dim)],
        "recurrence_projections": [(m, model.recurrence.parameters * shards.state_share / d, d)],
        "feed_forward": gated(shards.feed_forward_width, model.feed_forward.matrices),
        "router": [(m, experts.experts, d)],
        "shared_experts": gated(shards.shared_width, experts.matrices),
        "output_head": [(load.logits, shards.vocabulary, d)],
    }
    attending = {
        "attention_full": [_softmax_work(model, plan, shards, group, 0.0) for group in groups],
        "attention_window": [_softmax_work(model, plan, shards, group, attention.window) for group in groups],
    }
    latents = {"latent_attention": [_latent_work(model, plan, shards, group) for group in groups]}
    phases = [jnp.where(group.new > _FEW, 1, 0) for group in groups]
    bits = plan.kv_bits
    return (
        _matmuls(matmuls, plan, kernels.matmul, machine("weights"))
        | _attend(attending, phases * 2, (kernels.attention_prefill, kernels.attention_decode), bits, machine)
        | _attend(latents, phases, (kernels.latent_prefill, kernels.latent_decode), bits, machine)
        | {"routed_experts": _mix(model, plan, shards, m, kernels.mixture, machine("experts"))}
    )


def _matmuls(rows: dict[str, list[Shape]], plan: Plan, kernels: Matmul, machine: Machine) -> dict[str, Runs]:
    """Pace all matmuls at once: their formula is compiled once, however many there are."""
    m, n, k = (_stacked(side) for side in zip(*(s for shapes in rows.values() for s in shapes), strict=True))
    # Routers are kept in 16 bits whatever the plan's.
    kept = jnp.asarray([name in _UNNARROWED for name, shapes in rows.items() for _ in shapes])
    weight_bits, activation_bits = (
        jnp.where(kept, jnp.maximum(bits, 16), bits) for bits in (plan.weight_bits, plan.activation_bits)
    )
    kernel = _by_bits(kernels, jnp.maximum(weight_bits, activation_bits))
    there = m * n * k > 0
    work = MatmulWork(
        rows=jnp.where(there, m, 1),
        columns=jnp.where(there, n, 1),
        inner=jnp.where(there, k, 1),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
    )
    runs = Runs(
        pace=matmul_pace(machine, kernel, work),
        memory=matmul_bytes(work) / machine.bandwidth,
        matmul=2 * work.rows * work.columns * work.inner / machine.rate,
        runs=jnp.where(there, 1, 0),
    )
    return _split(runs, {name: len(shapes) for name, shapes in rows.items()})


def _attend(
    rows: dict[str, list[AttentionWork]],
    prompts: list[jax.Array],
    kernels: tuple[Attention, Attention],
    bits: Scalar,
    machine: Callable[[str], Machine],
) -> dict[str, Runs]:
    """Pace all attention at once. `prompts` is 1 where a group's queries are those of a prompt."""
    works = [work for group in rows.values() for work in group]
    there = _stacked([work.sequences for work in works]) > 0
    work = jax.tree.map(lambda *x: jnp.where(there, _stacked(x), 1), *works)
    many, few = (_by_bits(kernel, bits) for kernel in kernels)
    prompt = stack(prompts) > 0
    kernel = jax.tree.map(lambda a, b: jnp.where(prompt, a, b), many, few)
    on = machine("cache")
    runs = Runs(
        pace=attention_pace(on, kernel, work),
        memory=attention_bytes(work) / on.bandwidth,
        runs=jnp.where(there, 1, 0),
    )
    return _split(runs, {name: len(group) for name, group in rows.items()})


def _softmax_work(model: Model, plan: Plan, shards: Shards, group: Group, window: Scalar) -> AttentionWork:
    width = model.attention.head_dim
    return AttentionWork(
        sequences=group.sequences * jnp.where(shards.heads * width > 0, 1, 0),
        queries=group.new,
        keys=group.context + group.new,
        heads=shards.heads,
        kv_heads=shards.kv_heads,
        window=window,
        key_dim=width,
        value_dim=width,
        row_bytes=2 * width * plan.kv_bits / 8,
        query_bytes=plan.activation_bits / 8,
    )


def _latent_work(model: Model, plan: Plan, shards: Shards, group: Group) -> AttentionWork:
    """Absorbed, one latent is key and value of all heads; expanded, they are written out in 16 bits."""
    latent, absorbed = model.latent, group.absorbed > 0
    wide = latent.kv_rank + latent.rope_dim
    key = jnp.where(absorbed, wide, latent.nope_dim + latent.rope_dim)
    value = jnp.where(absorbed, latent.kv_rank, latent.value_dim)
    return AttentionWork(
        sequences=group.sequences * jnp.where(shards.latent_heads * wide > 0, 1, 0),
        queries=group.new,
        keys=group.context + group.new,
        heads=shards.latent_heads,
        kv_heads=jnp.where(absorbed, 1, shards.latent_heads),
        window=0.0,
        key_dim=key,
        value_dim=value,
        row_bytes=jnp.where(absorbed, wide * plan.kv_bits / 8, (key + value) * 2),
        query_bytes=plan.activation_bits / 8,
    )


def _mix(
    model: Model, plan: Plan, shards: Shards, tokens: Scalar, kernels: Mixture, machine: Machine
) -> Runs:
    """Pace the routed experts of an average rank, as the op table counts them."""
    x = model.experts
    together = tokens * shards.joined_replicas
    rows = together * x.top_k / plan.ep
    there = rows * shards.expert_width > 0
    # Of the places that a token's experts fall into, each rank is one as often as any other.
    seen = together * touched_groups(plan.ep, x.experts, x.top_k) / plan.ep
    work = MixtureWork(
        rows=rows,
        experts=distinct_experts(x.experts, x.top_k, together, x.skew) / plan.ep,
        held=shards.experts_held,
        slots=jnp.maximum(seen * x.top_k, rows),
        hidden=model.hidden,
        inner=shards.expert_width,
        weight_bytes=plan.expert_bits / 8,
        activation_bytes=plan.activation_bits / 8,
        matrices=x.matrices,
    )
    work = jax.tree.map(lambda value: jnp.where(there, value, 1), work)
    bits = plan.expert_bits
    kernel = jax.tree.map(
        lambda wide, middle, narrow: jnp.where(bits > 10, wide, jnp.where(bits > 5, middle, narrow)),
        kernels.bits_16,
        kernels.bits_8,
        kernels.bits_4,
    )
    return Runs(
        pace=mixture_pace(machine, kernel, work),
        memory=mixture_bytes(work) / machine.bandwidth,
        matmul=mixture_flops(work) / machine.rate,
        runs=jnp.where(there, 1, 0),
    )


def _stacked(values: Any) -> jax.Array:
    return stack(list(values))


def _split(runs: Runs, counts: dict[str, int]) -> dict[str, Runs]:
    """Give every row its own of the kernels that were paced together; what is shared by all stays as it is."""
    out, at = {}, 0
    for name, count in counts.items():
        part = slice(at, at + count)
        out[name] = jax.tree.map(lambda x, part=part: x[part] if jnp.ndim(x) else x, runs)
        at += count
    return out


def _by_bits(kernels: Matmul | Attention, bits: Scalar) -> Any:
    """Take the kernel of a width of operands: 16 bits above 10, 8 below."""
    return jax.tree.map(
        lambda wide, narrow: jnp.where(bits > 10, wide, narrow), kernels.bits_16, kernels.bits_8
    )
