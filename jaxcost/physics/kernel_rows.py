"""Which kernels the rows of the op table run, and what they make of the rows' legs.

A row's legs at the datasheet's rates come from the roofline, where tiers, placement and sparsity have already counted.
A kernel is paced by the shape of its work; its legs are then scaled so that those of a row's kernels add up to the
row's own:

    seconds = sum over kernels of fixed + S(stretch x memory_i, busy_i, serial),   sum of memory_i = the row's leg
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.attention_kernel import AttentionWork, attention_bytes, attention_pace
from jaxcost.physics.kernels import Machine, MatmulWork, Pace, matmul_bytes, matmul_pace
from jaxcost.physics.load import Group, Load
from jaxcost.physics.ops import add
from jaxcost.physics.shards import Shards
from jaxcost.spec.kernels import Attention, Kernels, Matmul
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["KernelRow", "Legs", "kernel_rows", "kernel_seconds"]

_FEW = 16.0  # new tokens of a sequence up to which attention is that of decoding: drafts are checked so
T = TypeVar("T")


@pytree
class Run:
    """One kernel of a row, with its legs at the datasheet's rates."""

    pace: Pace = field(doc="how it goes through them")
    memory: Scalar = field("s", "bytes at the bandwidth")
    runs: Scalar = field("1", "0 where there is nothing to do", default=1.0)


@pytree
class KernelRow:
    """The kernels of one row."""

    runs: tuple[Run, ...] = field(doc="one after the other")
    matmul: Scalar = field("s", "matmul work of all of them at the peak; 0 to take it as it is", default=0.0)


@pytree
class Legs:
    """What a row takes of memory and of the cores, beside what nothing hides."""

    memory: Scalar = field("s", "memory")
    busy: Scalar = field("s", "cores")
    seconds: Scalar = field("s", "the row")


def kernel_seconds(row: KernelRow, memory: Scalar, matmul: Scalar) -> Legs:
    """Time a row's kernels, given its memory and matmul legs at the datasheet's rates."""
    whole = add(*(run.memory * run.runs for run in row.runs))
    longer = smooth.safe_div(memory, whole, 1.0)
    denser = smooth.safe_div(matmul, row.matmul, 1.0)
    moving = [run.pace.stretch * run.memory * longer for run in row.runs]
    computing = [run.pace.busy * denser for run in row.runs]
    seconds = [
        (run.pace.fixed + smooth.maximum(m, c, run.pace.serial)) * run.runs
        for run, m, c in zip(row.runs, moving, computing, strict=True)
    ]
    return Legs(memory=add(*moving), busy=add(*computing), seconds=add(*seconds))


def kernel_rows(
    model: Model,
    plan: Plan,
    shards: Shards,
    groups: tuple[Group, Group],
    load: Load,
    kernels: Kernels,
    machine: Callable[[str], Machine],
) -> dict[str, KernelRow]:
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
    weights, cache = machine("weights"), machine("cache")
    dense = _by_bits(kernels.matmul, jnp.maximum(plan.weight_bits, plan.activation_bits))

    def matmuls(*shapes: tuple[Scalar, Scalar, Scalar]) -> KernelRow:
        works = [
            MatmulWork(
                rows=rows,
                columns=columns,
                inner=inner,
                weight_bits=plan.weight_bits,
                activation_bits=plan.activation_bits,
            )
            for rows, columns, inner in shapes
        ]
        peak = add(*(2 * w.rows * w.columns * w.inner for w in works)) / weights.rate
        runs = tuple(
            Run(
                pace=matmul_pace(weights, dense, w),
                memory=matmul_bytes(w) / weights.bandwidth,
                runs=jnp.where(w.columns * w.inner * w.rows > 0, 1, 0),
            )
            for w in works
        )
        return KernelRow(runs=runs, matmul=peak)

    attention, latent, experts = model.attention, model.latent, model.experts
    query_width = shards.heads * attention.head_dim
    own_kv = 1 - smooth.safe_div(attention.shared_layers, attention.full_layers + attention.window_layers)
    qkv_width = query_width * attention.query_outputs + 2 * shards.kv_heads * attention.head_dim * own_kv
    softmax = _phases(kernels.attention_prefill, kernels.attention_decode, plan.kv_bits)
    compressed = _phases(kernels.latent_prefill, kernels.latent_decode, plan.kv_bits)

    def attend(window: Scalar) -> KernelRow:
        return KernelRow(
            runs=tuple(
                _attention(
                    cache,
                    softmax(group),
                    group,
                    heads=shards.heads,
                    kv_heads=shards.kv_heads,
                    window=window,
                    key_dim=attention.head_dim,
                    value_dim=attention.head_dim,
                    row_bytes=2 * attention.head_dim * plan.kv_bits / 8,
                    query_bytes=plan.activation_bits / 8,
                )
                for group in groups
            )
        )

    def attend_latents(group: Group) -> Run:
        absorbed = group.absorbed > 0
        wide = latent.kv_rank + latent.rope_dim
        key = jnp.where(absorbed, wide, latent.nope_dim + latent.rope_dim)
        value = jnp.where(absorbed, latent.kv_rank, latent.value_dim)
        return _attention(
            cache,
            compressed(group),
            group,
            heads=shards.latent_heads,
            kv_heads=jnp.where(absorbed, 1, shards.latent_heads),
            window=0.0,
            key_dim=key,
            value_dim=value,
            # Absorbed, one latent is key and value of all heads; expanded, they are written out in 16 bits.
            row_bytes=jnp.where(absorbed, wide * plan.kv_bits / 8, (key + value) * 2),
            query_bytes=plan.activation_bits / 8,
        )

    def gated(width: Scalar, matrices: Scalar) -> KernelRow:
        return matmuls((m, (matrices - 1) * width, d), (m, d, width))

    rank = jnp.where(latent.query_rank > 0, latent.query_rank, 0)
    into_latents = rank + latent.kv_rank + latent.rope_dim
    expanded = load.absorbed_tokens + load.expanded_keys
    return {
        "attention_qkv": matmuls((m, qkv_width, d)),
        "attention_full": attend(0.0),
        "attention_window": attend(attention.window),
        "attention_out": matmuls((m, d, query_width)),
        "latent_qkv": matmuls(
            (m, into_latents, d),
            (m, shards.latent_query_width, jnp.where(rank > 0, rank, d)),
            (expanded, shards.latent_heads * (latent.nope_dim + latent.value_dim), latent.kv_rank),
        ),
        "latent_attention": KernelRow(runs=tuple(attend_latents(group) for group in groups)),
        "latent_out": matmuls((m, d, shards.latent_heads * latent.value_dim)),
        "recurrence_projections": matmuls((m, model.recurrence.parameters * shards.state_share / d, d)),
        "feed_forward": gated(shards.feed_forward_width, model.feed_forward.matrices),
        "router": matmuls((m, experts.experts, d)),
        "shared_experts": gated(shards.shared_width, experts.matrices),
        "output_head": matmuls((load.logits, shards.vocabulary, d)),
    }


def _attention(machine: Machine, kernel: Any, group: Group, **shape: Scalar) -> Run:
    there = group.sequences > 0
    work = AttentionWork(
        sequences=jnp.where(there, group.sequences, 1),
        queries=jnp.where(there, group.new, 1),
        keys=jnp.where(there, group.context + group.new, 1),
        **{name: jnp.maximum(value, 1) if name != "window" else value for name, value in shape.items()},
    )
    return Run(
        pace=attention_pace(machine, kernel, work),
        memory=attention_bytes(work) / machine.bandwidth,
        runs=jnp.where(there, 1, 0),
    )


def _by_bits(kernels: Matmul | Attention, bits: Scalar) -> Any:
    """Take the kernel of a width of operands: 16 bits above 10, 8 below."""
    return jax.tree.map(lambda wide, narrow: jnp.where(bits > 10, wide, narrow), kernels.bits_16, kernels.bits_8)


def _phases(prefill: Attention, decode: Attention, bits: Scalar) -> Callable[[Group], Any]:
    many, few = _by_bits(prefill, bits), _by_bits(decode, bits)
    return lambda group: jax.tree.map(lambda a, b: jnp.where(group.new > _FEW, a, b), many, few)
