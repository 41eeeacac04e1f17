"""The arguments of a serving engine that express a plan and its settings, and what they do not express.

The names of the settings are those of the `options` of the engine's file in `configs/engines`. The names of the degrees
were read in vLLM 0.33 (`engine/arg_utils.py`), SGLang 0.5.23 (`srt/arg_groups/fields`) and TensorRT-LLM 1
(`tensorrt_llm/commands/serve.py` at 0020914), in November 2026.
"""

import dataclasses
import json
from typing import Any

from jaxcost.edge.catalog.engines import engine_file
from jaxcost.edge.io.formats import FORMATS
from jaxcost.edge.launch.deployment import Deployment, ServerPool

__all__ = ["Arguments", "server_arguments"]

# Bits of the cache with scales: the type by that name, as of the sources above.
_CACHE_TYPES = {
    "vllm": {8.0: "fp8", 4.5: "nvfp4"},
    "sglang": {8.0: "fp8_e4m3", 8.25: "mxfp8", 4.5: "nvfp4"},
    "trtllm": {8.0: "fp8", 4.5: "nvfp4"},
}
# Recipes that an engine applies to a 16-bit checkpoint while it loads.
_ONLINE = {"vllm": ("fp8",), "sglang": ("fp8",), "trtllm": ()}
_TRANSFER = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}


@dataclasses.dataclass
class Arguments:
    """The command line of one server.

    Attributes:
        options: options in order, each with its values.
        config: entries of the extra YAML file of TensorRT-LLM; empty for other engines.
        comments: what the options do not express.
    """

    options: list[tuple[str, ...]] = dataclasses.field(default_factory=list)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    comments: list[str] = dataclasses.field(default_factory=list)

    def add(self, name: str, *values: Any) -> None:
        """Append an option; whole numbers are written without a decimal point."""
        self.options.append((f"--{name}", *map(_text, values)))

    @property
    def words(self) -> list[str]:
        """The options as a list of words."""
        return [word for option in self.options for word in option]


def server_arguments(engine: str, deployment: Deployment, pool: ServerPool) -> Arguments:
    """Return the arguments of a server of a pool.

    Args:
        engine: "vllm", "sglang" or "trtllm".
        deployment: the deployment.
        pool: one of its pools.
    """
    arguments = Arguments()
    _DEGREES[engine](arguments, pool)
    scale = _ranks_in_limits(engine, pool)
    _add_settings(engine, arguments, deployment, pool, scale)
    _add_precision(engine, arguments, deployment, pool)
    _add_draft(engine, arguments, deployment, pool)
    if pool.role != "serve":
        _add_role(engine, arguments, deployment, pool)
    if 0 < deployment.domain < pool.chips:
        arguments.comments.append(
            f"a server spans {pool.chips} chips, more than the {deployment.domain} of a scale-up domain: "
            "options of nodes, such as addresses, are not written here"
        )
    if pool.plan.cp > 1:
        arguments.comments.append(f"context parallelism of {pool.plan.cp:g} is not written here")
    arguments.comments += deployment.notes
    return arguments


def _add_vllm_degrees(arguments: Arguments, pool: ServerPool) -> None:
    p = pool.plan
    arguments.add("tensor-parallel-size", p.tp)
    if p.pp > 1:
        arguments.add("pipeline-parallel-size", p.pp)
    if p.dp > 1:
        arguments.add("data-parallel-size", p.dp)
    if p.ep > 1:
        arguments.add("enable-expert-parallel")
        if p.ep != p.tp * p.dp:
            arguments.comments.append(
                f"the plan distributes experts over {p.ep:g} ranks; vLLM distributes them over all {p.tp * p.dp:g}"
            )


def _add_sglang_degrees(arguments: Arguments, pool: ServerPool) -> None:
    p = pool.plan
    across = (
        p.ep > p.tp
    )  # experts over several data-parallel ranks: attention data parallelism inside the tp group
    arguments.add("tp-size", p.tp * p.dp if across else p.tp)
    if p.pp > 1:
        arguments.add("pp-size", p.pp)
    if across:
        arguments.add("attn-dp-size", p.dp)
        arguments.comments.append(
            f"attention of tp {p.tp:g} on {p.dp:g} data-parallel ranks inside --tp-size; limits of tokens and requests "
            "are those of all ranks"
        )
    elif p.dp > 1:
        arguments.add("dp-size", p.dp)
    if p.ep > 1:
        arguments.add("ep-size", p.ep)


def _add_trtllm_degrees(arguments: Arguments, pool: ServerPool) -> None:
    p = pool.plan
    across = p.ep > p.tp
    arguments.add("tp_size", p.tp * p.dp if across else p.tp)
    if p.pp > 1:
        arguments.add("pp_size", p.pp)
    if p.ep > 1:
        arguments.add("ep_size", p.ep)
    if across:
        arguments.config["enable_attention_dp"] = True
        if p.tp > 1:
            arguments.comments.append(
                f"attention data parallelism of TensorRT-LLM runs attention on single chips; the plan has tp {p.tp:g}"
            )
    elif p.dp > 1:
        arguments.comments.append(f"dp {p.dp:g} is not an option of trtllm-serve: start as many servers each")


_DEGREES = {"vllm": _add_vllm_degrees, "sglang": _add_sglang_degrees, "trtllm": _add_trtllm_degrees}


def _ranks_in_limits(engine: str, pool: ServerPool) -> float:
    """Return the ranks whose limits one option states together: those of SGLang's attention data parallelism."""
    return float(pool.plan.dp) if engine == "sglang" and pool.plan.ep > pool.plan.tp else 1.0


def _add_settings(
    engine: str, arguments: Arguments, deployment: Deployment, pool: ServerPool, ranks: float
) -> None:
    names = engine_file(engine)[1].options
    assert names is not None, f"the file of {engine} lists no options"

    def add(field: str, *values: Any) -> None:
        name = getattr(names, field)
        if name:
            arguments.add(name.replace("-", "_") if engine == "trtllm" else name, *values)

    e = pool.plan.engine
    if e.step_tokens > 0:
        add("step_tokens", e.step_tokens * ranks)
    if e.sequences > 0:
        add("sequences", e.sequences * ranks)
    else:
        arguments.comments.append("no limit of sequences: that of the engine holds")
    for field in ("memory_share", "cache_share"):
        if getattr(e, field) < 1:
            add(field, getattr(e, field))
    if "block" in deployment.stated:
        add("block", e.block)
    if not deployment.graphs:
        add("without_graphs")
    if deployment.max_context > 0:
        add("context", deployment.max_context)
    else:
        arguments.comments.append(
            f"--{names.context} is not set: an engine whose cache is smaller than the longest context of the model "
            "does not start"
        )
    if engine == "sglang" and e.mixed > 0.5:
        arguments.add("enable-mixed-chunk")
    if engine == "trtllm":
        arguments.add("enable_chunked_prefill")
    if engine != "sglang" and e.mixed < 0.5 and pool.role == "serve":
        arguments.comments.append(
            "the plan computes prompts in steps of their own; this engine mixes them with decoding"
        )


def _add_precision(engine: str, arguments: Arguments, deployment: Deployment, pool: ServerPool) -> None:
    bits = float(pool.plan.kv_bits)
    kind = _CACHE_TYPES[engine].get(bits)
    if kind and engine == "trtllm":
        arguments.config.setdefault("kv_cache_config", {})["dtype"] = kind
    elif kind:
        arguments.add("kv-cache-dtype", kind)
    elif bits != FORMATS["bf16"]:
        arguments.comments.append(f"a KV cache of {bits:g} bits is no type of this engine")
    recipe = deployment.quantization
    if recipe and recipe in _ONLINE[engine]:
        arguments.add("quantization", recipe)
    elif recipe:
        arguments.comments.append(f"the weights are those of a checkpoint quantized by {recipe}")


def _add_draft(engine: str, arguments: Arguments, deployment: Deployment, pool: ServerPool) -> None:
    length = int(pool.plan.draft_length)
    if length == 0 or pool.role == "prefill":
        return
    if engine == "vllm":
        how = {"model": deployment.draft_model} if deployment.draft_model else {"method": "mtp"}
        arguments.add("speculative-config", json.dumps(how | {"num_speculative_tokens": length}))
        return
    arguments.comments.append(f"speculative decoding of {length} tokens is not written here")


def _add_role(engine: str, arguments: Arguments, deployment: Deployment, pool: ServerPool) -> None:
    if engine == "vllm":
        arguments.add("kv-transfer-config", json.dumps(_TRANSFER))
        arguments.comments.append("a proxy sends prompts to prefill first, then to decode")
    elif engine == "sglang":
        arguments.add("disaggregation-mode", pool.role)
        arguments.comments.append("a router with prefill-decode disaggregation is in front")
    else:
        # The buffer holds the longest prompt; a server of prompts alone has no overlapped steps.
        buffer = {"max_tokens_in_buffer": deployment.max_context} if deployment.max_context else {}
        arguments.config["cache_transceiver_config"] = {"backend": "DEFAULT", **buffer}
        if pool.role == "prefill":
            arguments.config["disable_overlap_scheduler"] = True
        arguments.comments.append("`trtllm-serve disaggregated` with the addresses of both pools is in front")


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
