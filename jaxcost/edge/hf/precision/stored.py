"""The precision in which a checkpoint is stored, read from its config.json and hf_quant_config.json."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType

from jaxcost.edge.hf.multimodal.wrappers import TEXT_PARTS
from jaxcost.edge.hf.precision.formats import Quantization, QuantizationFields, WeightFormat
from jaxcost.edge.hf.precision.methods import METHODS, UNREADABLE
from jaxcost.edge.hf.precision.modules import WeightMatrix, list_matrices, text_config
from jaxcost.edge.hf.precision.schemes import SCHEMES
from jaxcost.edge.io.errors import InputError, not_among

__all__ = ["RECIPES", "StoredPrecision", "apply_recipe", "is_quantized", "read_precision"]

_READERS = METHODS | SCHEMES
_TYPES = {"bfloat16": 16.0, "float16": 16.0, "float32": 32.0}
_SERVED = 16.0  # bits at which engines serve a 32-bit model by default (vLLM and SGLang, `--dtype auto`)
_SHORT_TYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
}
_CLASSES = {"weight": "weight_bits", "mixer": "mixer_bits", "expert": "expert_bits", "wide": "wide_bits"}
_CLASSES |= {"draft": "draft_bits"}
_EXPERT = re.compile(r"(.*\bexperts)\.(\d+)(.*)")
_LIKE = {"weight": ("mixer", "expert"), "mixer": ("weight", "expert"), "expert": ("weight", "mixer")}
# compressed-tensors once wrote the second, and MLX the third.
_BLOCKS = ("quantization_config", "compression_config", "quantization")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredPrecision:
    """Bits of each class of tensors of a checkpoint, and where each value comes from.

    Attributes:
        method: short name of the method: "fp8", "compressed-tensors W4A16 g32", "none: bfloat16".
        weight_bits: bits of a weight of dense feed-forwards and shared experts, scales included.
        mixer_bits: bits of a weight of attention and recurrence, scales included.
        expert_bits: bits of a weight of routed experts, scales included.
        wide_bits: bits of a weight of embedding, output head, routers, norms, biases and encoders.
        kv_bits: bits of a cached element.
        matmul_bits: bits of an element of the inputs of matmuls with quantized weights.
        activation_bits: bits of an element of the residual stream.
        message_bits: bits of an element of messages between chips.
        attention_bits: bits of an element of the inputs of attention's matmuls.
        draft_bits: bits of a weight of the multi-token-prediction module, which is no field of `Plan`.
        sources: where each of these values comes from, by name.
        notes: what the values leave out.
    """

    method: str
    weight_bits: float
    mixer_bits: float
    expert_bits: float
    wide_bits: float
    kv_bits: float
    matmul_bits: float
    activation_bits: float
    message_bits: float
    attention_bits: float
    draft_bits: float
    sources: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def plan_options(self) -> dict[str, float]:
        """Return the values that are fields of `Plan`, by name."""
        names = [
            f.name for f in dataclasses.fields(self) if f.name.endswith("_bits") and f.name != "draft_bits"
        ]
        return {name: getattr(self, name) for name in names}


def read_precision(config: Mapping, quantization: Mapping | None, *, file: str) -> StoredPrecision:
    """Read the precision of a checkpoint.

    Where one class holds several formats, its value is their mean, weighted by the parameters of each matrix.

    Args:
        config: a parsed config.json.
        quantization: a parsed hf_quant_config.json, which counts where `config` has no quantization config, or None.
        file: name of config.json, for errors.

    Raises:
        InputError: the method is unknown, its bits do not follow from the files, or the files contradict themselves.
    """
    return _read(config, *_find(config, quantization, file), file=file)


def is_quantized(config: Mapping, quantization: Mapping | None) -> bool:
    """Tell whether the files of a checkpoint declare a quantization."""
    parts = (config, *(config.get(name) for name in TEXT_PARTS))
    blocks = (part.get(b) for part in parts if isinstance(part, Mapping) for b in _BLOCKS)
    return quantization is not None or any(block not in (None, {}) for block in blocks)


def apply_recipe(name: str, config: Mapping, *, file: str) -> StoredPrecision:
    """Return the precision of a model after quantization by one of `RECIPES`; one that the file declares is dropped.

    Raises:
        InputError: there is no such recipe.
    """
    if name not in RECIPES:
        raise not_among(RECIPES, name, path="quantization")
    recipe = RECIPES[name]
    matrices = list_matrices(config)
    if name == "mxfp4" and any(m.kind == "expert" for m in matrices):
        recipe = {"quant_method": "mxfp4"}
    fields = QuantizationFields(recipe, file=file, path="quantization")
    return _read(config, fields, f"recipe {name}", file=file)


_ENCODERS = ["re:.*visual.*", "re:.*vision_.*"]


def _linear(weights: Mapping, inputs: Mapping | None = None) -> Mapping:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "ignore": ["lm_head", *_ENCODERS],
        "config_groups": {"g": group},
    }


_FLOAT4 = {"num_bits": 4, "type": "float"}

# Quantizations of a 16-bit model, as the quantization config of a checkpoint that has them. Embedding, head, routers,
# norms and encoders keep 16 bits. fp8 is vLLM's `--quantization fp8`: a scale a tensor. w4a16, w8a8 and nvfp4 are the
# schemes of LLM Compressor of the same names. mxfp4 is weight-only in the experts, as gpt-oss is released; a model
# without experts has it in all linear modules, as MXFP4 checkpoints of dense models have.
RECIPES: Mapping[str, Mapping] = MappingProxyType(
    {
        "fp8": {"quant_method": "fp8", "modules_to_not_convert": _ENCODERS},
        "w4a16": _linear({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}),
        "w8a8": _linear(
            {"num_bits": 8, "type": "int", "strategy": "channel"}, {"num_bits": 8, "type": "int"}
        ),
        "nvfp4": _linear(_FLOAT4 | {"strategy": "tensor_group", "group_size": 16}, _FLOAT4),
        "mxfp4": _linear(_FLOAT4 | {"strategy": "group", "group_size": 32}),
    }
)


# Finding the quantization config ---------------------------------------------------------------------


def _find(config: Mapping, quantization: Mapping | None, file: str) -> tuple[QuantizationFields | None, str]:
    """Return the quantization config and the name of the place it is in."""
    blocks = {}
    for prefix in ("", *(f"{name}." for name in TEXT_PARTS)):
        part = config.get(prefix[:-1]) if prefix else config
        if isinstance(part, Mapping):
            blocks |= {f"{prefix}{b}": part[b] for b in _BLOCKS if part.get(b) not in (None, {})}
    places = [QuantizationFields(block, file=file, path=path) for path, block in blocks.items()]
    for other in places[1:]:
        if other.fields != places[0].fields:
            raise other.error("", f"the same as {places[0].path}, or none")
    separate = _hf_quant_config(quantization, file)
    if not places:
        return separate, "hf_quant_config.json"
    first = places[0]
    if separate is None:
        return first, first.path
    names = [p.fields.get("quant_algo") or p.fields.get("quant_method") for p in (first, separate)]
    if str(names[0]).lower() not in (str(names[1]).lower(), "modelopt"):
        raise separate.error("quant_algo", f"{names[0]}, that of config.json", names[1])
    fields = {"kv_cache_quant_algo": separate.fields.get("kv_cache_quant_algo"), **first.fields}
    return QuantizationFields(fields, file=file, path=first.path), first.path


def _hf_quant_config(quantization: Mapping | None, file: str) -> QuantizationFields | None:
    if quantization is None:
        return None
    name = str(PurePath(file).with_name("hf_quant_config.json"))
    if not isinstance(quantization, Mapping) or "quantization" not in quantization:
        raise InputError(
            "a mapping with quant_algo, but the field is missing", file=name, path="quantization"
        )
    q = QuantizationFields(quantization["quantization"], file=name, path="quantization")
    return QuantizationFields({"quant_method": "modelopt", **q.fields}, file=name, path=q.path)


def _method_name(q: QuantizationFields) -> str:
    """Return the method; bitsandbytes and MLX once left out its name."""
    method = q.fields.get("quant_method")
    if method is None and any(k in q.fields for k in ("load_in_4bit", "load_in_8bit")):
        return "bitsandbytes"
    if method is None and "config_groups" in q.fields:
        return "compressed-tensors"
    if method is None and {"bits", "group_size"} <= q.fields.keys():
        return "mlx"
    expected = "a method whose bits are read, among " + ", ".join(_READERS)
    if not isinstance(method, str):
        raise q.error("quant_method", expected + ("" if method else ", but the field is missing"), method)
    if method.lower() in UNREADABLE:
        raise q.error(
            "quant_method", f"a method whose bits follow from its config; state {method}'s by hand", method
        )
    name = method.lower().replace("compressed_tensors", "compressed-tensors")
    if name not in _READERS:
        near = not_among(_READERS, method).suggestion
        raise q.error("quant_method", expected, method, near)
    return name


# Bits of each class ----------------------------------------------------------------------------------


def _model_type(config: Mapping, file: str) -> tuple[str, str]:
    """Return the type of the model's own weights, and where it is stated."""
    text = text_config(config)
    for field in ("dtype", "torch_dtype"):
        value = text.get(field)
        if value in (None, "auto"):
            continue
        name = str(value).removeprefix("torch.")
        name = _SHORT_TYPES.get(name, name)
        if name not in _TYPES:
            raise InputError("one of " + ", ".join(_TYPES), file=file, path=field, given=value)
        return name, f"config.json: {field} {name}"
    return "bfloat16", "default: 16 bits, as the file states no dtype"


def _read(config: Mapping, q: QuantizationFields | None, place: str, *, file: str) -> StoredPrecision:
    dtype, type_source = _model_type(config, file)
    served = min(_TYPES[dtype], _SERVED)
    if served < _TYPES[dtype]:
        type_source += f", which engines serve in {served:g} bits"
    if q is None:
        names = [f.name for f in dataclasses.fields(StoredPrecision) if f.name.endswith("_bits")]
        return StoredPrecision(
            method=f"none: {dtype}",
            sources=MappingProxyType(dict.fromkeys(names, type_source)),
            **dict.fromkeys(names, served),  # pyright: ignore[reportArgumentType]
        )
    quantized = _READERS[_method_name(q)](q, config)
    every_expert = _distinguishes_experts(q.fields, config)
    stored = WeightFormat(dtype, served, served)
    formats = [
        (m, quantized.format_of(m) or stored) for m in list_matrices(config, every_expert=every_expert)
    ]
    for group, weights in quantized.groups:
        if not any(f is weights for _, f in formats):
            raise group.error("targets", "modules that the model has", group.fields.get("targets"))
    if quantized.kv_bits is None and all(f is stored for _, f in formats):
        raise q.error(
            "", f"a quantized module; {quantized.method} with these lists of modules quantizes none"
        )
    bits, sources = {}, {}
    for tensor_class, name in _CLASSES.items():
        members = [(m, f) for m, f in formats if m.tensor_class == tensor_class]
        if members:
            bits[name], sources[name] = _mean_bits(members, stored, place, type_source)
    for tensor_class, others in _LIKE.items():
        name = _CLASSES[tensor_class]
        if name not in bits:
            like = next(_CLASSES[o] for o in others if _CLASSES[o] in bits)
            bits[name], sources[name] = bits[like], f"no such weights; as {like}"
    bits.setdefault("draft_bits", bits["wide_bits"])
    sources.setdefault("draft_bits", "no such module; as wide_bits")
    bits["matmul_bits"], sources["matmul_bits"] = _matmul_bits(formats, stored, place, type_source)
    for name in ("activation_bits", "message_bits"):
        bits[name], sources[name] = stored.bits, type_source
    for name, declared in (("kv_bits", quantized.kv_bits), ("attention_bits", quantized.attention_bits)):
        sources[name] = f"{place}: {declared:g} bits" if declared else f"not declared; {type_source}"
        bits[name] = declared or stored.bits
    return StoredPrecision(
        method=quantized.method, sources=MappingProxyType(sources), notes=_notes(quantized, formats), **bits
    )


def _notes(quantized: Quantization, formats: list[tuple[WeightMatrix, WeightFormat]]) -> tuple[str, ...]:
    """Return a note on listed modules that are none of the matrices."""
    if not quantized.listed:
        return ()
    parts = (name.split(".") for matrix, _ in formats for name in matrix.names)
    known = {".".join(p[:end]) for p in parts for end in range(1, len(p) + 1)}
    unknown = sorted({_EXPERT.sub(r"\1.0\3", name) for name in quantized.listed} - known)
    if not unknown:
        return ()
    return (f"listed modules that are not weighed: {', '.join(unknown[:3])}{', ...' * (len(unknown) > 3)}",)


def _distinguishes_experts(fields: Mapping, config: Mapping) -> bool:
    """Return whether modules of some experts of a layer are listed, and those of others are not."""
    listed: dict[tuple, set[str]] = {}

    def visit(tree: Mapping | list | tuple, place: tuple) -> None:
        entries = (
            tree.items() if isinstance(tree, Mapping) else [(n, None) for n in tree if isinstance(n, str)]
        )
        for name, value in entries:
            found = _EXPERT.match(str(name))
            if found:
                listed.setdefault((place, found[1], found[3], str(value)), set()).add(found[2])
            elif isinstance(value, Mapping | list | tuple):
                visit(value, (*place, name))

    visit(fields, ())
    experts = max((m.count for m in list_matrices(config) if m.kind == "expert"), default=0)
    return any(len(numbers) != experts for numbers in listed.values())


def _mean_bits(
    members: list[tuple[WeightMatrix, WeightFormat]], stored: WeightFormat, place: str, type_source: str
) -> tuple[float, str]:
    """Return the mean bits of a class's weights, and where they come from."""
    sizes: dict[str, float] = {}
    total = 0.0
    for matrix, weights in members:
        size = matrix.inputs * matrix.outputs * matrix.count
        sizes[weights.name] = sizes.get(weights.name, 0) + size
        total += size * weights.bits_of(matrix)
    parameters = sum(sizes.values())
    if sizes.keys() == {stored.name}:
        return stored.bits, type_source
    if len(sizes) == 1:
        return total / parameters, f"{place}: {next(iter(sizes))}"
    shares = ", ".join(f"{name} ({size / parameters:.1%})" for name, size in sizes.items())
    return total / parameters, f"{place}: mean by parameters of {shares}"


def _matmul_bits(
    formats: list[tuple[WeightMatrix, WeightFormat]], stored: WeightFormat, place: str, type_source: str
) -> tuple[float, str]:
    """Return the bits of the inputs of matmuls with quantized weights.

    A matmul runs at the rate of its wider operand, max(weight, input). Of several inputs, the value that gives the
    largest share of a token's multiplications the right rate is returned, and the wider of two equal ones.
    """
    layers = [
        (m, f) for m, f in formats if f is not stored and m.tensor_class in ("weight", "mixer", "expert")
    ]
    if not layers:
        return stored.inputs, type_source
    products = [m.inputs * m.outputs * m.active for m, _ in layers]

    def share(inputs: float) -> float:
        right = (
            p
            for p, (_, f) in zip(products, layers, strict=True)
            if max(inputs, f.bits) == max(f.inputs, f.bits)
        )
        return sum(right) / sum(products)

    candidates = sorted({f.inputs for _, f in layers}, reverse=True)
    best = max(candidates, key=share)
    if len(candidates) == 1:
        return float(best), f"{place}: inputs of {best:g} bits"
    others = ", ".join(f"{c:g}" for c in candidates if c != best)
    source = (
        f"{place}: inputs of {best:g} bits, right for {share(best):.0%} of products; others have {others}"
    )
    return float(best), source
