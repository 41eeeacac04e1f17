"""Published measurements of memory, each computed from the model, the plan and the engine of its row.

`compute(rows)` takes the rows of a table with columns id, source, model, chip, tp, pp, weight_bits, kv_bits, prompt,
output, concurrency, engine, quantity, value, unit. What a row says of its engine is in `SETUPS`.
"""

import csv
import dataclasses
import functools
import math
import re
from collections.abc import Iterable
from pathlib import Path

import jax

import jaxcost as jc
from jaxcost.core.pytree import replace, replace_at
from jaxcost.physics.compute.shards import total_parameters
from jaxcost.physics.memory.allocation import allotted_kinds
from jaxcost.physics.memory.capacity import kv_bytes_per_token

GIB = 2**30
UNITS = {"GiB": GIB, "MiB": 2**20, "B": 1, "tokens": 1, "requests": 1, "1": 1}
WEIGHTS, ACTIVATIONS, RESERVE = "Weights", "Working buffers", "Runtime and communicators"
GIVEN, DEFAULTS = "KV capacity, the rest measured", "KV capacity, all computed"
REQUEST, COUNT = "Cache of requests", "Parameters and bytes of a token"
# Largest error that is wanted of every row of a kind; of working buffers, of the median.
BARS = {WEIGHTS: 0.01, ACTIVATIONS: 0.25, GIVEN: 0.03, DEFAULTS: 0.06, REQUEST: 0.0, COUNT: 0.001}
_H100 = 79.19 * GIB
# Text in the column `engine`: the engine of the catalogue, its changes, the memory of the card, the context profiled.
SETUPS: tuple[tuple[str, str, dict[str, float], float], ...] = (
    (r"vllm 0\.(19|17)\.0", "vllm-0.19", {"memory_share": 0.95}, _H100),
    (r"vllm 0\.15-0\.19", "vllm-0.19", {"memory_share": 0.95}, _H100),
    (r"vllm 0\.16\.0", "vllm-0.10", {"memory_share": 0.95}, _H100),
    (r"vllm 0\.14\.1", "vllm-0.10", {}, _H100),
    (r"vllm of 2025-10.*tokens 1024", "vllm-0.10", {"memory_share": 0.95, "step_tokens": 1024.0}, _H100),
    (r"vllm of 2025-10", "vllm-0.10", {"memory_share": 0.95, "step_tokens": 1024.0}, _H100),
    (r"vllm of 2025-08", "vllm-0.10", {}, _H100),
    (r"vllm of 2024-12.*79\.22", "vllm-0.6", {}, 79.22 * GIB),
    (r"vllm of 2024-12", "vllm-0.6", {}, 23.58 * GIB),
    (r"vllm of 2025-02", "vllm-0.6", {"memory_share": 0.98}, 23.53 * GIB),
)
# Rows whose engine profiles a step as long as the context, which is then stated.
_CONTEXTS = {"m038": 20000.0, "m039": 29000.0, "m055": 8192.0}
# Kernel of MXFP4 experts: multiples of the width of an expert's shard and of its input.
_KERNELS = {"m045": (128, 256), "m046": (128, 256), "m047": (128, 256), "m048": (0, 256)}
# Measured with a row: bytes of weights, buffers, runtime.
_MEASURED: dict[str, tuple[float, float, float]] = {
    **dict.fromkeys(("m008", "m009", "m010", "m011"), (14.99, 1.89, 0.25)),
    "m013": (8.49, 1.89, 0.25),
    **dict.fromkeys(("m022", "m023"), (14.25, 2.21, 0.25)),
    "m026": (27.52, 5.64, 0.25),
    "m027": (27.52, 2.23, 0.25),
    "m037": (14.96, 1.26, 1.79),
}
_BUFFERS = {"m026": 5.64, "m027": 2.23, "m035": 1.26}  # stated along with other quantities of these rows
# Rows beyond the bar, and why.
MISSES = {
    "m018": "computed are the buffers of the last stage, which has the logits; the row is of a stage without them",
    "m054": "the allocator rounds tensors above 10 MiB up to 2 MiB, 168 MiB of 48 layers, which is not modelled",
    "m055": "the two GPUs differ by 1.2 GiB; the capacity is that of the fuller one, 7.46 GiB, of which 7.1 are computed",
    "m076": "the row says about 44 KB, without the keys of the indexer; 43.9 KiB are computed",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A measurement and what is computed for it, in the unit of the measurement."""

    row: dict[str, str]
    kind: str
    measured: float
    computed: float
    unit: str
    engine: str
    decimals: int = 2

    @property
    def name(self) -> str:
        """The id of the row."""
        return self.row["id"]

    @property
    def error(self) -> float:
        """The relative error of what is computed."""
        return self.computed / self.measured - 1

    @property
    def within(self) -> bool:
        """Whether the error is within the bar of its kind, or of the last digit of the measurement."""
        rounding = 0.501 * 10.0**-self.decimals
        return (
            abs(self.error) <= BARS.get(self.kind, math.inf) or abs(self.computed - self.measured) <= rounding
        )


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compute(rows: Iterable[dict[str, str]]) -> list[Case]:
    """Return the cases of all rows; a KV capacity has two, with the rest measured and with all computed."""
    return [case for row in rows for case in _cases(row)]


def _cases(row: dict[str, str]) -> list[Case]:
    quantity, name = row["quantity"], row["id"]
    value = float(row["value"])
    decimals = len(row["value"].partition(".")[2])
    case = functools.partial(Case, row, measured=value, unit=row["unit"], decimals=decimals)
    if quantity == "parameters":
        return [case(COUNT, computed=float(total_parameters(jc.load_model(row["model"]))), engine="")]
    if quantity == "KV cache of a token":
        return [case(COUNT, computed=_token_bytes(row), engine="")]
    if quantity == "file size":
        bits = float(row["weight_bits"])
        plan = jc.Plan(weight_bits=bits, expert_bits=bits)
        size = jc.fit(jc.load_system("h100-sxm"), jc.load_model(row["model"]), plan).weights_bytes
        return [case(WEIGHTS, computed=float(size) / GIB, engine="")]
    if quantity.startswith("KV cache of"):
        return [case(REQUEST, computed=_request_bytes(row) / UNITS[row["unit"]], engine=_setup(row)[0])]
    system, model, plan, context, engine = _design(row)
    run = functools.partial(jc.fit, system, model, plan, context=context)
    computed = jax.tree.map(float, jax.device_get(run()))
    if quantity.startswith("weights"):
        out = [case(WEIGHTS, computed=computed.weights_bytes / GIB, engine=engine)]
    elif quantity.startswith("non-torch"):
        out = [case(RESERVE, computed=computed.reserved_bytes / GIB, engine=engine)]
    elif quantity.startswith("peak activation"):
        out = [case(ACTIVATIONS, computed=computed.activation_bytes / GIB, engine=engine)]
    else:
        out = [case(DEFAULTS, computed=_capacity(row, computed), engine=engine)]
        if name in _MEASURED:
            sizes = dict(
                zip(("weights_bytes", "activation_bytes", "reserved_bytes"), _MEASURED[name], strict=True)
            )
            with_measured = run(measured={key: size * GIB for key, size in sizes.items()})
            out.append(
                case(GIVEN, computed=_capacity(row, jax.tree.map(float, with_measured)), engine=engine)
            )
    if name in _BUFFERS:
        size = computed.activation_bytes / GIB
        out.append(Case(row, ACTIVATIONS, _BUFFERS[name], size, "GiB", engine))
    return out


def _setup(row: dict[str, str]) -> tuple[str, dict[str, float], float]:
    for pattern, engine, changes, memory in SETUPS:
        if re.search(pattern, row["engine"]):
            return engine, changes, memory
    return "llamacpp" if "llama.cpp" in row["engine"] else "none", {}, 0.0


def _design(row: dict[str, str]) -> tuple[jc.System, jc.Model, jc.Plan, float, str]:
    """Return system, model, plan, context and the name of the engine of a row."""
    name, engine_text = row["id"], row["engine"]
    engine, changes, memory = _setup(row)
    chips = int(row["tp"]) * int(row["pp"])
    chip = row["chip"] or "h100-sxm"
    system = replace_at(jc.load_system(f"{chip}-x{chips}"), "chip.memory.capacity", memory)
    quantization = "fp8" if "quantization fp8" in engine_text else None
    quantization = "mxfp4" if row["weight_bits"] == "4.25" else quantization
    checkpoint = jc.load_checkpoint(_model(row), quantization=quantization)
    bits = {"kv_bits": float(row["kv_bits"])}
    if row["weight_bits"] == "32":
        bits |= {"weight_bits": 32.0, "activation_bits": 32.0}
    width, width_input = _KERNELS.get(name, (0, 0))
    plan = checkpoint.plan(
        tp=float(row["tp"]),
        pp=float(row["pp"]),
        expert_width_multiple=float(width),
        expert_input_multiple=float(width_input),
        engine=jc.load_engine(engine, f"{chip}-x1", **changes),
        **bits,
    )
    context = float(row["prompt"] or 0) + float(row["output"] or 0) or _CONTEXTS.get(name, 8192.0)
    return system, checkpoint.model, plan, context, engine


def _model(row: dict[str, str]) -> str:
    return {"llama-3-8b": "llama-3.1-8b"}.get(row["model"], row["model"])


def _capacity(row: dict[str, str], computed: jc.MemoryFit) -> float:
    if row["unit"] == "GiB":
        return float(computed.kv_bytes) / GIB
    return float(computed.kv_tokens if row["unit"] == "tokens" else computed.requests)


def _token_bytes(row: dict[str, str]) -> float:
    """Return the bytes of a token of keys and values, or latents, without an indexer's keys."""
    model = jc.load_model(row["model"])
    model = replace(model, indexer=replace(model.indexer, layers=0.0))
    return float(kv_bytes_per_token(model, jc.Plan(kv_bits=float(row["kv_bits"]))))


def _request_bytes(row: dict[str, str]) -> float:
    """Return the bytes of all concurrent requests of a row, or of one kind of layers where it names one."""
    engine, changes, _ = _setup(row)
    if "window" in row["quantity"]:
        changes = {"step_tokens": 1024.0}  # 128 + 1024 tokens in 1280 cells of 256 each
    model = jc.load_model(_model(row))
    engine = "none" if row["unit"] == "MiB" and "layers" not in row["quantity"] else engine
    plan = jc.Plan(kv_bits=float(row["kv_bits"]), engine=jc.load_engine(engine, None, **changes))
    context = float(row["prompt"]) + float(row["output"])
    requests = float(row["concurrency"] or 1)
    if "layers" in row["quantity"]:
        kinds = jax.tree.map(float, allotted_kinds(*jc.canonical((model, plan, context))))
        width = float(kv_bytes_per_token(model, plan)) / (kinds.full_layers + kinds.window_layers)
        near = kinds.window_layers * kinds.window_tokens
        tokens = near if "window" in row["quantity"] else kinds.full_layers * kinds.full_tokens
        return requests * tokens * width
    fit = jc.fit(jc.load_system("h100-sxm"), model, plan, context=context)
    return requests * float(fit.request_bytes)
