"""The calibrated kernels of the rows of the operator table, and the rows' times with them.

A row's legs at datasheet rates come from the roofline, with tiers, placement and sparsity applied. A kernel is timed by
the shape of its work; its legs are then scaled so that the legs of a row's kernels sum to those of the row:

    seconds = sum over kernels of fixed + S(overhead x memory_i, busy_i, serial),   sum of memory_i = the row's leg
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcost.core import smooth
from jaxcost.core.arrays import row, stack, total, unstack, where
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.compute.attention import AttentionShards
from jaxcost.physics.compute.load import Group, StepLoad, of_prompts
from jaxcost.physics.compute.operators import (
    ATTENTION_OPERATORS,
    MATH,
    OPERATORS,
    distinct_experts,
    named,
)
from jaxcost.physics.compute.precision import Precision, operand_bits
from jaxcost.physics.compute.shards import Shards, expert_input
from jaxcost.physics.kernels.attention import AttentionWork, attention_bytes, attention_timing
from jaxcost.physics.kernels.matmul import KernelTiming, Machine, MatmulWork, matmul_bytes, matmul_timing
from jaxcost.physics.kernels.mixture import MixtureWork, mixture_bytes, mixture_flops, mixture_timing
from jaxcost.physics.network.messages import touched_groups
from jaxcost.spec.kernels import AttentionKernels, Kernels, MatmulKernels, MixtureKernels
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["KernelRuns", "Legs", "kernel_rows", "kernel_seconds"]

_UNQUANTIZED = ("router",)
_BLOCK = (8.0, 8.3)  # bits of an 8-bit weight with its share of the scale of its block
Shape = tuple[Scalar, Scalar, Scalar]


@pytree
class KernelRuns:
    """The calibrated kernels of a step, `[kernels, *batch]`, with their legs at datasheet rates."""

    timing: KernelTiming = field(doc="timing of each kernel")
    memory: jax.Array = field("s", "bytes at the memory bandwidth")
    matmul: jax.Array = field("s", "matmul work at the peak; 0 to leave `timing.busy` unscaled")
    runs: jax.Array = field("1", "1 where the kernel runs, 0 where it has no work")
    names: tuple[str, ...] = field(doc="operator of each kernel", static=True)

    @property
    def calibrated(self) -> Any:
        """Return a bool column of the operators that have calibrated kernels."""
        return named(self.memory, *self.names)


@pytree
class Legs:
    """The times of operators, `[operators, *batch]`."""

    memory: jax.Array = field("s", "memory leg")
    busy: jax.Array = field("s", "time of the cores")
    seconds: jax.Array = field("s", "time of the operator")


def kernel_seconds(kernels: KernelRuns, memory: Scalar, matmul: Scalar) -> Legs:
    """Time the operators with their kernels, from their memory and matmul legs at datasheet rates."""

    def sums(x: jax.Array) -> jax.Array:
        """Sum the kernels of each operator."""
        parts: dict[str, list[jax.Array]] = {name: [] for name in OPERATORS}
        for name, part in zip(kernels.names, unstack(x), strict=True):
            parts[name].append(part)
        return stack([total(of) if of else 0.0 for of in parts.values()])

    def shared(x: jax.Array) -> jax.Array:
        """Gather for each kernel the value of its operator."""
        rows = unstack(x)
        return stack([rows[OPERATORS.index(name)] for name in kernels.names])

    timing, runs = kernels.timing, kernels.runs
    longer = smooth.safe_div(memory, sums(kernels.memory * runs), 1.0)
    denser = smooth.safe_div(matmul, sums(kernels.matmul * runs), 1.0)
    moving = timing.bandwidth_overhead * kernels.memory * shared(longer) * runs
    computing = timing.busy * shared(denser) * runs
    seconds = timing.fixed * runs + smooth.maximum(moving, computing, timing.serial)
    return Legs(memory=sums(moving), busy=sums(computing), seconds=sums(seconds))


def kernel_rows(
    model: Model,
    plan: Plan,
    shards: Shards,
    groups: tuple[Group, Group],
    load: StepLoad,
    kernels: Kernels,
    machine: Callable[[str], Machine],
) -> KernelRuns:
    """List the calibrated kernels of all operators with their timing; other operators run element-wise kernels.

    Args:
        model: the language model.
        plan: precisions and degrees.
        shards: the part of the model on one chip.
        groups: the main sequences of the steps, and the sequences that decode along in mixed steps.
        load: sums over both.
        kernels: the kernels of the library.
        machine: function of an operand class that returns the chip's datasheet numbers for it.
    """
    d, m, each = model.hidden, load.tokens, shards.precision
    a, latent, experts, indexer = shards.attention, model.latent, model.experts, model.indexer
    rank = where(latent.query_rank > 0, latent.query_rank, 0)
    expanded_width = shards.latent_heads * (latent.nope_dim + latent.value_dim)

    def gated(width: Scalar, matrices: Scalar) -> list[Shape]:
        return [(m, (matrices - 1) * width, d), (m, d, width)]

    matmuls = {
        # A matrix of as many weights as the projections have, low-rank ones included.
        "attention_qkv": [(m, a.mean(a.input_parameters) / d, d)],
        "attention_out": [(m, d, a.mean(a.output_parameters) / d)],
        "indexer": [(m * where(indexer.layers > 0, 1, 0), indexer.parameters / d, d)],
        "latent_qkv": [
            (m, rank + latent.kv_rank + latent.rope_dim, d),
            (m, shards.latent_query_width, where(rank > 0, rank, d)),
            (load.absorbed_tokens + load.expanded_keys, expanded_width, latent.kv_rank),
        ],
        "latent_out": [(m, d, shards.latent_heads * latent.value_dim)],
        "recurrence_projections": [(m, model.recurrence.parameters * shards.state_share / d, d)],
        "feed_forward": gated(shards.feed_forward_width, model.feed_forward.matrices),
        "router": [(m, experts.experts + 2 * experts.latent, d)],
        "shared_experts": gated(shards.shared_width, experts.matrices),
        "output_head": [(load.logits, shards.vocabulary, d)],
    }
    attending = {
        name: [_softmax_work(a, k, each, group) for group in groups]
        for k, name in enumerate(ATTENTION_OPERATORS)
    }
    latents = {"latent_attention": [_latent_work(model, each, shards, group) for group in groups]}
    prompts = [of_prompts(group) for group in groups]
    bits, like = (plan.kv_bits, each.attention), jnp.asarray(m)
    parts = (
        _matmuls(matmuls, each, kernels.matmul, machine, like),
        _attend(
            attending,
            prompts * len(attending),
            (kernels.attention_prefill, kernels.attention_decode),
            bits,
            machine,
        ),
        _attend(latents, prompts, (kernels.latent_prefill, kernels.latent_decode), bits, machine),
        _mix(model, plan, shards, m, kernels.mixture, machine("experts")),
    )
    return _join(parts)


def _join(parts: tuple[KernelRuns, ...]) -> KernelRuns:
    """Concatenate the kernels of all families into one table."""
    shape = np.broadcast_shapes(*(np.shape(part.memory)[1:] for part in parts))

    def join(*leaves: Scalar) -> jax.Array:
        sizes = [len(part.names) for part in parts]
        wide = [jnp.broadcast_to(x, (n, *shape)) for x, n in zip(leaves, sizes, strict=True)]
        return lax.concatenate(wide, 0)

    names = tuple(name for part in parts for name in part.names)
    return jax.tree.map(join, *(replace(part, names=names) for part in parts))


def _matmuls(
    rows: dict[str, list[Shape]],
    each: Precision,
    kernels: MatmulKernels,
    machine: Callable[[str], Machine],
    like: jax.Array,
) -> KernelRuns:
    """Time all matmuls."""
    names = tuple(name for name, shapes in rows.items() for _ in shapes)
    m, n, k = (
        stack(side, np.ndim(like))
        for side in zip(*(s for shapes in rows.values() for s in shapes), strict=True)
    )
    # Routers have 16 bits at any precision of the plan.
    wide = np.isin(names, _UNQUANTIZED).reshape((-1,) + (1,) * np.ndim(like))
    # An indexer has the projections of a mixer.
    classes = ["mixers" if name == "indexer" else MATH.get(name, "weights") for name in names]
    bits_of = operand_bits(each)
    weight_bits, activation_bits = (
        where(wide, jnp.maximum(bits, 16), bits)
        for bits in (stack(side, np.ndim(like)) for side in zip(*(bits_of[c] for c in classes), strict=True))
    )
    chip = machine("weights")
    chip = replace(chip, rate=stack([machine(c).rate for c in classes], np.ndim(like)))
    kernel = _matmul_kernel(kernels, weight_bits, activation_bits)
    works = m * n * k > 0
    work = MatmulWork(
        rows=where(works, m, 1),
        columns=where(works, n, 1),
        inner=where(works, k, 1),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
    )
    return KernelRuns(
        timing=matmul_timing(chip, kernel, work),
        memory=matmul_bytes(work) / chip.bandwidth,
        matmul=jnp.asarray(2 * work.rows * work.columns * work.inner / chip.rate),
        runs=where(works, 1.0, 0.0),
        names=names,
    )


def _matmul_kernel(kernels: MatmulKernels, weight_bits: Scalar, activation_bits: Scalar) -> Any:
    """Select the kernel by the bits of weights and inputs; only the wider operand's bits set the matmul rate."""
    block = (weight_bits > _BLOCK[0]) & (weight_bits <= _BLOCK[1])

    def select(
        both_16: Scalar, both_8: Scalar, blocks: Scalar, w_8: Scalar, w_4: Scalar, both_4: Scalar
    ) -> Any:
        narrow = where(block, blocks, where((weight_bits <= 5) & (activation_bits <= 5), both_4, both_8))
        weights = where(weight_bits <= 5, w_4, w_8)
        return where(weight_bits > 10, both_16, where(activation_bits > 10, weights, narrow))

    each = (
        getattr(kernels, f) for f in ("bits_16", "bits_8", "bits_8_block", "weights_8", "weights_4", "bits_4")
    )
    return jax.tree.map(select, *each)


def _attend(
    rows: dict[str, list[AttentionWork]],
    prompts: list[jax.Array],
    kernels: tuple[AttentionKernels, AttentionKernels],
    bits: tuple[Scalar, Scalar],
    machine: Callable[[str], Machine],
) -> KernelRuns:
    """Time all attention.

    `prompts` is true where a group's queries are those of a prompt; `bits` are of the cache and of the arithmetic.
    """
    works = [work for group in rows.values() for work in group]
    rank = max(np.ndim(x) for x in jax.tree.leaves(works))
    runs = stack([work.sequences for work in works], rank) > 0
    work = jax.tree.map(lambda *x: where(runs, stack(x, rank), 1), *works)
    many, few = (_attention_kernel(kernel, *bits) for kernel in kernels)
    prompt = stack(prompts, rank)
    kernel = jax.tree.map(lambda a, b: where(prompt, a, b), many, few)
    chip = machine("cache")
    return KernelRuns(
        timing=attention_timing(chip, kernel, work),
        memory=attention_bytes(work) / chip.bandwidth,
        matmul=jnp.zeros_like(work.keys),
        runs=where(runs, 1.0, 0.0),
        names=tuple(name for name, group in rows.items() for _ in group),
    )


def _softmax_work(shards: AttentionShards, index: int, each: Precision, group: Group) -> AttentionWork:
    """Return the work of one shape of attention; selected entries are timed as the last ones."""
    shape = jax.tree.map(lambda x: row(x, index), shards.shape)
    heads, kv_heads, cached = (row(x, index) for x in (shards.heads, shards.kv_heads, shards.cached_width))
    beyond = shape.compression > 0
    ratio = where(beyond, shape.compression, 1)
    chosen = where(shape.selected > 0, shape.selected + shape.window, 0)
    return AttentionWork(
        sequences=group.sequences * where(shape.layers > 0, 1, 0),
        queries=group.new,
        keys=jnp.maximum((group.context + group.new) / ratio + (ratio > 1) * shape.window, group.new),
        heads=heads,
        kv_heads=kv_heads,
        window=where(beyond, chosen, shape.window),
        key_dim=shape.head_dim,
        value_dim=shape.value_dim,
        row_bytes=cached / kv_heads * each.cache / 8,
        query_bytes=each.attention / 8,
    )


def _latent_work(model: Model, each: Precision, shards: Shards, group: Group) -> AttentionWork:
    """Return the work of latent attention: one latent for all heads if absorbed, else 16-bit keys and values."""
    latent, absorbed = model.latent, group.absorbed > 0
    wide = latent.kv_rank + latent.rope_dim
    key = where(absorbed, wide, latent.nope_dim + latent.rope_dim)
    value = where(absorbed, latent.kv_rank, latent.value_dim)
    return AttentionWork(
        sequences=group.sequences * where(shards.latent_heads * wide > 0, 1, 0),
        queries=group.new,
        keys=group.context + group.new,
        heads=shards.latent_heads,
        kv_heads=where(absorbed, 1, shards.latent_heads),
        window=latent.selected,
        key_dim=key,
        value_dim=value,
        row_bytes=where(absorbed, wide * each.cache / 8, (key + value) * 2),
        query_bytes=each.attention / 8,
    )


def _mix(
    model: Model, plan: Plan, shards: Shards, tokens: Scalar, kernels: MixtureKernels, machine: Machine
) -> KernelRuns:
    """Time the routed experts of an average rank, as in the operator table."""
    x, each = model.experts, shards.precision
    group_tokens = tokens * shards.joined_replicas
    rows = group_tokens * x.top_k / plan.ep
    there = rows * shards.expert_width > 0
    # A token's experts are on `touched_groups` ranks, and each rank is among them equally often.
    seen = group_tokens * touched_groups(plan.ep, x.experts, x.top_k) / plan.ep
    work = MixtureWork(
        rows=rows,
        experts=distinct_experts(x.experts, x.top_k, group_tokens, x.skew) / plan.ep,
        held=shards.local_experts,
        slots=jnp.maximum(seen * x.top_k, rows),
        hidden=expert_input(model),
        inner=shards.expert_width,
        weight_bytes=each.experts / 8,
        activation_bytes=each.inputs / 8,
        matrices=x.matrices,
    )
    work = jax.tree.map(lambda value: where(there, value, 1), work)
    kernel = _mixture_kernel(kernels, plan.expert_bits)
    run = KernelRuns(
        timing=mixture_timing(machine, kernel, work),
        memory=mixture_bytes(work) / machine.bandwidth,
        matmul=mixture_flops(work) / machine.rate,
        runs=where(there, 1.0, 0.0),
        names=("routed_experts",),
    )
    return jax.tree.map(lambda x: stack([x], np.ndim(tokens)), run)


def _mixture_kernel(kernels: MixtureKernels, bits: Scalar) -> Any:
    """Select the kernel of routed experts by the bits of a weight, scales included.

    The bits of the inputs set only the matmul rate of `machine("experts")`: 4-bit integers with 8-bit inputs have no
    kernel of their own and take that of 4-bit integers with 16-bit inputs.
    """

    def chosen(wide: Any, middle: Any, blocks: Any, narrow: Any, integers: Any) -> Any:
        eight = where((bits > _BLOCK[0]) & (bits <= _BLOCK[1]), blocks, middle)
        four = where(bits > 4.2, narrow, integers)
        return where(bits > 10, wide, where(bits > 5, eight, four))

    k = kernels
    return jax.tree.map(chosen, k.bits_16, k.bits_8, k.bits_8_block, k.bits_4, k.bits_4_group)


def _attention_kernel(kernels: AttentionKernels, bits: Scalar, arithmetic: Scalar) -> Any:
    """Select the kernel of attention by the bits of a cached element and those of queries and scores."""

    def chosen(wide: Any, narrow: Any, computed: Any) -> Any:
        return where(bits > 10, wide, where(arithmetic > 10, narrow, computed))

    return jax.tree.map(chosen, kernels.bits_16, kernels.bits_8, kernels.compute_8)
