"""The options of a serving engine, under the names that the engine itself gives them."""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from rich.text import Text

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog.engines import DEFAULT_ENGINE, engine_file, load_engine, without_graphs
from jaxcost.edge.catalog.schema import EngineOptions
from jaxcost.edge.hf.precision.stored import StoredPrecision
from jaxcost.edge.io.errors import InputError, nearest, not_among
from jaxcost.physics.memory.allocation import kept_bytes
from jaxcost.spec.plan import Plan

__all__ = [
    "CONTEXT_FLAGS",
    "EngineChoice",
    "add_engine_arguments",
    "check_name",
    "describe_engine",
    "engine_document",
    "engine_lines",
    "read_cache_type",
    "read_engine",
    "set_engine",
    "with_expert_kernel",
]

CONTEXT_FLAGS = ("max-model-len", "context-length", "max-seq-len", "ctx-size")
# Leaf of `Engine`: the options that set it, and what they are.
_FLAGS: dict[str, tuple[tuple[str, ...], str]] = {
    "memory_share": (
        ("gpu-memory-utilization", "mem-fraction-static"),
        "share of the memory of a chip that the engine uses",
    ),
    "cache_share": (
        ("kv-cache-free-gpu-memory-fraction",),
        "share of the memory that weights and buffers leave, for the KV cache",
    ),
    "step_tokens": (
        ("max-num-batched-tokens", "chunked-prefill-size", "max-num-tokens", "ubatch-size"),
        "token budget of a step",
    ),
    "sequences": (
        ("max-num-seqs", "max-running-requests", "max-batch-size", "parallel"),
        "most sequences of a replica in flight",
    ),
    "block": (("block-size", "page-size", "tokens-per-block"), "tokens of a page of the KV cache"),
}
_GRAPH_FLAGS = ("enforce-eager", "disable-cuda-graph")
_SHARES = ("memory_share", "cache_share")
_NAMES_OF = "vllm"  # whose names engines have whose file lists none
_CACHE_FLAG = "--kv-cache-dtype"
# Bits of an element of the cache with its scales. vLLM 0.33, SGLang 0.5.23 and TensorRT-LLM 1: one scale per tensor
# of FP8, one byte per 16 elements of NVFP4. ggml's blocks of 32 elements with a scale of 16 bits, and with an offset
# of 16 bits in q4_1 and q5_1; as of November 2026.
_CACHE_BITS = {
    **dict.fromkeys(("f32", "float32"), 32.0),
    **dict.fromkeys(("bf16", "bfloat16", "f16", "fp16", "float16", "half"), 16.0),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_e5m2"), 8.0),
    "mxfp8": 8 + 8 / 32,
    **dict.fromkeys(("nvfp4", "fp4_e2m1"), 4 + 8 / 16),
    "q8_0": 8 + 16 / 32,
    "q5_1": 5 + 32 / 32,
    "q5_0": 5 + 16 / 32,
    "q4_1": 4 + 32 / 32,
    **dict.fromkeys(("q4_0", "iq4_nl"), 4 + 16 / 32),
}


@dataclasses.dataclass(frozen=True)
class EngineChoice:
    """An engine with the numbers that options set; its other limits depend on the chip."""

    name: str = DEFAULT_ENGINE
    version: str = ""
    changes: tuple[tuple[str, float], ...] = ()
    graphs: bool = True  # whether graphs are captured


def add_engine_arguments(
    parser: argparse.ArgumentParser, read_number: Callable[[str], float], default: str = DEFAULT_ENGINE
) -> None:
    """Add the options of a serving engine."""
    group = parser.add_argument_group(
        "serving engine",
        "Limits of a step and division of memory. Options have the engine's own names, those of vLLM where the "
        "engine is none in particular.",
    )
    group.add_argument(
        "--engine",
        metavar="NAME",
        default=default,
        help="such as vllm, sglang, trtllm, llamacpp, static or none (`jaxcost list engines`), or a YAML file "
        f"(default {default})",
    )
    for flags, text in _FLAGS.values():
        for flag in flags:
            group.add_argument(f"--{flag}", type=read_number, metavar="N", help=text)
    group.add_argument(
        _CACHE_FLAG,
        metavar="TYPE",
        help=f"type of the KV cache: auto (that of the model), {', '.join(_CACHE_BITS)}",
    )
    for flag in _GRAPH_FLAGS:
        group.add_argument(f"--{flag}", action="store_true", help="capture no CUDA graphs")
    group.add_argument(
        "--moe-backend",
        metavar="NAME",
        help="kernel of MXFP4 experts, whose padding weights have; one that the engine's file names, or none",
    )


def read_cache_type(args: argparse.Namespace) -> dict[str, float]:
    """Return the bits of the cache where --kv-cache-dtype states them, as {"kv_bits": bits}.

    Raises:
        InputError: an unknown type, or --kv-bits as well.
    """
    if args.kv_cache_dtype is None or args.kv_cache_dtype == "auto":
        return {}
    name = args.kv_cache_dtype.lower()
    if args.kv_bits is not None:
        raise InputError("either --kv-cache-dtype or --kv-bits", path=_CACHE_FLAG, given=name)
    if name not in _CACHE_BITS:
        raise not_among(("auto", *_CACHE_BITS), name, path=_CACHE_FLAG)
    return {"kv_bits": _CACHE_BITS[name]}


def read_engine(args: argparse.Namespace) -> EngineChoice:
    """Read the engine and the numbers that options set.

    Raises:
        InputError: no such engine, an option that it has under another name or not at all, or a number out of range.
    """
    name, file = engine_file(args.engine)
    changes: dict[str, float] = {}
    for leaf, (flags, _) in _FLAGS.items():
        for flag in flags:
            value = getattr(args, flag.replace("-", "_"))
            if value is None:
                continue
            check_name(args.engine, leaf, flag)
            changes[leaf] = _in_range(leaf, flag, value)
    graphs = True
    for flag in _GRAPH_FLAGS:
        if getattr(args, flag.replace("-", "_")):
            check_name(args.engine, "without_graphs", flag)
            graphs = False
    return EngineChoice(name, file.version, tuple(changes.items()), graphs)


def check_name(engine: str, leaf: str, flag: str) -> None:
    """Refuse an option that an engine has under another name, or not at all.

    Args:
        engine: name of the engine.
        leaf: what the option sets, a field of `EngineOptions`.
        flag: name of the option, without dashes in front.
    """
    name, file = engine_file(engine)
    options = (file.options or engine_file(_NAMES_OF)[1].options or EngineOptions()).model_dump()
    named = options[leaf]
    if named == flag:
        return
    has = [f"--{option}" for option in options.values() if option]
    raise InputError(
        f"--{named}, the option of {name}" if named else f"an option of {name}: {', '.join(has)}",
        path=f"--{flag}",
        suggestion=None if named else nearest(f"--{flag}", has),
    )


def _in_range(leaf: str, flag: str, value: float) -> float:
    if leaf in _SHARES:
        if not 0 < value <= 1:
            raise InputError("a share in (0, 1]", path=f"--{flag}", given=value)
    elif value < 1 or value != int(value):
        raise InputError("a whole number of at least 1", path=f"--{flag}", given=value)
    return value


def set_engine(plan: Plan, choice: EngineChoice, system: str) -> Plan:
    """Return the plan with the engine, whose limits are those on the chip of a system."""
    engine = load_engine(choice.name, system, **dict(choice.changes))
    return replace(plan, engine=engine if choice.graphs else without_graphs(engine))


def with_expert_kernel(
    args: argparse.Namespace, plan: Plan, precision: StoredPrecision
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan with the padding of the engine's kernel for MXFP4 experts, and a note that says so.

    Nothing is padded where the experts have other weights, or where a multiple is stated.
    """
    name, file = engine_file(args.engine)
    kernels = file.expert_kernels
    if args.moe_backend is not None and args.moe_backend != "none" and args.moe_backend not in kernels:
        if not kernels:
            raise InputError(
                f"no kernel of experts with {name}, whose file names none",
                path="--moe-backend",
                given=args.moe_backend,
            )
        raise not_among((*kernels, "none"), args.moe_backend, path="--moe-backend")
    stated = plan.expert_width_multiple != 0 or plan.expert_input_multiple != 0
    packed = "mxfp4" in precision.method.lower() and plan.expert_bits == 4 + 8 / 32
    kernel = args.moe_backend or next(iter(kernels), "none")
    if stated or not packed or kernel == "none":
        return plan, ()
    width, width_input = (
        0.0 if entry is None else float(entry.value)
        for entry in (kernels[kernel].expert_width_multiple, kernels[kernel].expert_input_multiple)
    )
    padded = [
        text
        for multiple, text in (
            (width, f"the width of an expert's shard to a multiple of {width:g}"),
            (width_input, f"its input to a multiple of {width_input:g}"),
        )
        if multiple
    ]
    note = f"{name} pads MXFP4 experts for the kernel {kernel}: {', '.join(padded)} (--moe-backend)"
    return replace(plan, expert_width_multiple=width, expert_input_multiple=width_input), (note,)


def describe_engine(choice: EngineChoice, plan: Plan) -> str:
    """Return the division of memory, the token budget and the pages of the engine of a plan, as text."""
    e = jax.tree.map(float, plan.engine)
    of = "the memory that the runtime leaves" if e.runtime_outside else "the memory the driver reports"
    memory = f"all of {of}" if e.memory_share == 1 else f"{100 * e.memory_share:.4g}% of {of}"
    if e.cache_share < 1:
        memory = f"{100 * e.cache_share:.4g}% of what weights and buffers leave for the cache"
    kept = float(kept_bytes(plan))
    parts = [memory + (f" less {kept / 2**30:.3g} GiB" if kept else "")]
    parts.append(f"steps of {e.step_tokens:,.0f} tokens" if e.step_tokens else "all prompts in one step")
    if e.block > 1:
        parts.append(f"pages of {e.block:g}")
    if not choice.graphs:
        parts.append("no CUDA graphs")
    return f"{choice.name}: {', '.join(parts)}"


def engine_lines(described: dict[str, str]) -> list[Text]:
    """Return the line of the engine as described on every system, or one for each system where its limits differ."""
    if len(set(described.values())) == 1:
        return [Text(f"Engine: {next(iter(described.values()))}")]
    return [Text(f"Engine, {name}: {text}") for name, text in described.items()]


def engine_document(choice: EngineChoice, plan: Plan) -> dict[str, Any]:
    """Return the name, the version and every number of an engine, for JSON."""
    leaves = {f.name: float(getattr(plan.engine, f.name)) for f in dataclasses.fields(plan.engine)}
    return {"engine": {"name": choice.name, "version": choice.version, **leaves}}
