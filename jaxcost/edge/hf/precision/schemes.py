"""The quantization methods that name modules: compressed-tensors, modelopt and quark."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping

from jaxcost.edge.hf.precision.formats import (
    WIDE_INPUTS,
    ModulePatterns,
    Quantization,
    QuantizationFields,
    WeightFormat,
    canonical_name,
    grouped,
    quantize_all,
)
from jaxcost.edge.hf.precision.methods import NVFP4_SCALE, fp8_blocks
from jaxcost.edge.hf.precision.modules import WeightMatrix
from jaxcost.edge.io.errors import not_among

__all__ = ["SCHEMES"]

# Kinds of matrices that a class of modules names.
_CLASSES = {
    "Linear": ("linear", "expert", "head", "encoder"),
    "RoutedExperts": ("expert",),
    "FusedMoE": ("expert",),
    "Embedding": ("embedding",),
    "ParallelLMHead": ("head",),
}
# Parts of the names of modules of other models than the language model.
_ELSEWHERE = ("vis", "mtp", "audio", "projector", "draft", "eagle")


# compressed-tensors ----------------------------------------------------------------------------------


def _compressed_tensors(q: QuantizationFields, config: Mapping) -> Quantization:
    """Groups of modules by class, name or expression, each with its own scheme.

    A name decides before a class, as in the library. The class Linear holds the head, so files ignore it by name.
    """
    sparse = q.part("sparsity_config")
    for fields in (sparse, q) if sparse else (q,):
        if str(fields.fields.get("format")).startswith(("sparse", "marlin")):
            raise fields.error("format", "weights without a compression of zeros", fields.fields["format"])
    ignored, groups, attention = q.patterns("ignore"), [], None
    for group in q.parts("config_groups").values():
        inputs, targets = group.part("input_activations"), group.strings("targets")
        input_bits = inputs.bits("num_bits", default=8) if inputs else WIDE_INPUTS
        if targets and all(t.endswith("Attention") for t in targets):
            attention = input_bits
        elif group.fields.get("weights") is not None:
            groups.append((group, targets, _arguments_format(group, q, input_bits)))
    if not groups:
        raise q.error(
            "config_groups", "a group of modules with a format of weights", q.fields.get("config_groups")
        )
    _refuse_contradictions(q, ignored, groups)
    rules = [(_Targets(group), weights) for group, _, weights in groups]
    names = dict.fromkeys(weights.name for _, weights in rules)

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        if matrix.kind == "router" or ignored.matches(matrix):
            return None
        named = next((w for t, w in rules if t.patterns.matches(matrix)), None)
        return named or next((w for t, w in rules if matrix.kind in t.kinds), None)

    method = str(q.fields.get("quant_method", "compressed-tensors"))
    cache = q.cache_bits()
    return Quantization(
        f"{method} {' + '.join(names)}",
        format_of,
        kv_bits=cache,
        attention_bits=attention,
        groups=tuple((g, w) for g, t, w in groups if not all(any(e in n for e in _ELSEWHERE) for n in t)),
        listed=frozenset(n for t, _ in rules for n in t.patterns.names),
    )


class _Targets:
    """The modules of one group."""

    def __init__(self, group: QuantizationFields) -> None:
        targets = group.strings("targets")
        classes = [t for t in targets if "." not in t and t[:1].isupper()]
        for name in classes:
            if name not in _CLASSES:
                raise not_among(_CLASSES, name, file=group.file, path=f"{group.path}.targets")
        self.kinds = {kind for name in classes for kind in _CLASSES[name]}
        named = QuantizationFields(
            {"targets": [t for t in targets if t not in classes]}, file=group.file, path=group.path
        )
        self.patterns = named.patterns("targets")


def _refuse_contradictions(q: QuantizationFields, ignored: ModulePatterns, groups: Iterable) -> None:
    """Raise the error of a module that is ignored and a target, or a target of two different formats."""
    formats: dict[str, WeightFormat] = {}
    for group, targets, weights in groups:
        for name in map(canonical_name, targets):
            if name in ignored.names:
                raise group.error("targets", f"modules that {q.path}.ignore does not list", name)
            if formats.setdefault(name, weights) != weights:
                raise group.error("targets", "modules that no other group lists with another format", name)


def _arguments_format(group: QuantizationFields, q: QuantizationFields, inputs: float) -> WeightFormat:
    """Return the format of a group's weights: strategy, bits, type, group size, scale type, zero points."""
    a = group.part("weights")
    assert a is not None
    bits, kind = a.bits("num_bits"), a.word("type", ("int", "float"), "int")
    size = None if a.fields.get("group_size") is None else a.group()
    stated = "tensor" if size is None else "channel" if size == 0 else "group"
    strategies = ("tensor", "channel", "group", "tensor_group", "block")
    strategy = a.word("strategy", strategies, stated)
    name = f"W{bits}A{inputs:g}"
    if kind == "float":
        if bits == 4 and not size:
            raise a.error("group_size", "the group of 4-bit floats, 16 (NVFP4) or 32 (MXFP4)", size)
        family = {4: {16: "NVFP4", 32: "MXFP4"}, 8: {32: "MXFP8"}}.get(bits, {}).get(size or 0, f"FP{bits}")
        name = f"{family} {name}"
    if strategy == "tensor":
        return WeightFormat(f"{name} per tensor", bits, inputs)
    if strategy == "block":
        block = (128, 128) if a.fields.get("block_structure") is None else a.block("block_structure")
        return WeightFormat(
            f"{name} in blocks of {block[0]}x{block[1]}", bits + 32 / (block[0] * block[1]), inputs
        )
    # A zero point is packed like a weight; a scale has 8 bits in the microscaling formats, else 16.
    zero = 0 if a.flag("symmetric", True) else bits
    scale = _dtype_bits(a.fields.get("scale_dtype")) or (
        8 if kind == "float" and (bits == 4 or size == 32) else 16
    )
    return grouped(name, bits, 0 if strategy == "channel" else a.group(), scale=scale + zero, inputs=inputs)


def _dtype_bits(name: object) -> int | None:
    """Return the bits of a torch type by name, None for no name."""
    if name is None:
        return None
    return 8 if "8" in str(name) else 32 if "32" in str(name) else 16


# modelopt --------------------------------------------------------------------------------------------


def _per_channel(name: str, inputs: float) -> Callable[[int], WeightFormat]:
    return lambda group: WeightFormat(name, 8, inputs, row=32)


def _float4(name: str, inputs: float) -> Callable[[int], WeightFormat]:
    return lambda group: grouped(name, 4, group or 16, scale=NVFP4_SCALE, inputs=inputs)


def _mx(name: str, bits: float, inputs: float) -> Callable[[int], WeightFormat]:
    return lambda group: WeightFormat(name, bits + 8 / 32, inputs)


def _int4(name: str, inputs: float) -> Callable[[int], WeightFormat]:
    return lambda group: grouped(name, 4, group or 128, scale=16, inputs=inputs)


def _block_fp8(group: int) -> WeightFormat:
    return fp8_blocks(group or 128, group or 128, 32)


# The format of an algorithm, by its group size, 0 for the default.
_ALGORITHMS: dict[str, Callable[[int], WeightFormat]] = {
    "FP8": lambda group: WeightFormat("FP8 per tensor", 8, 8),
    "FP8_PER_CHANNEL_PER_TOKEN": _per_channel("FP8 per channel", 8),
    "FP8_PB_WO": _block_fp8,
    "FP8_BLOCK_SCALES": _block_fp8,
    "NVFP4": _float4("NVFP4", 4),
    "NVFP4_AWQ": _float4("NVFP4 AWQ", 4),
    "W4A16_NVFP4": _float4("NVFP4 W4A16", WIDE_INPUTS),
    "W4A8_NVFP4_FP8": _float4("NVFP4 W4A8", 8),
    "W4A16_AWQ": _int4("W4A16", WIDE_INPUTS),
    "INT4_AWQ": _int4("W4A16", WIDE_INPUTS),
    "W4A8_AWQ": _int4("W4A8", 8),
    "W8A16": _per_channel("W8A16 per channel", WIDE_INPUTS),
    "W8A8_SQ_PER_CHANNEL": _per_channel("W8A8 per channel", 8),
    "INT8_SQ": _per_channel("W8A8 per channel", 8),
    "MXFP8": _mx("MXFP8", 8, 8),
    "MXFP4": _mx("MXFP4", 4, WIDE_INPUTS),
    "W4A8_MXFP4_FP8": _mx("MXFP4 W4A8", 4, 8),
}
_CACHES = {"FP8": 8.0, "INT8": 8.0, "NVFP4": 4 + NVFP4_SCALE / 16}


def _modelopt(q: QuantizationFields, config: Mapping) -> Quantization:
    """One algorithm for all linear modules with the head, or MIXED_PRECISION with one a module.

    Modules are excluded by `exclude_modules` in hf_quant_config.json and by `ignore` in config.json. The loader leaves
    encoders wide.
    """
    q = q.part("quantization") or q  # hf_quant_config.json inside config.json
    if q.fields.get("quant_algo") is None and q.fields.get("config_groups"):
        return _compressed_tensors(q, config)
    cache = q.cache_bits()
    if q.fields.get("kv_cache_quant_algo") not in (None, "", "None"):
        cache = _CACHES[q.word("kv_cache_quant_algo", _CACHES)]
    if "quant_algo" in q.fields and q.fields["quant_algo"] is None and cache is not None:
        return Quantization("modelopt, the cache alone", lambda matrix: None, kv_bits=cache)
    algorithm = q.word("quant_algo", (*_ALGORITHMS, "MIXED_PRECISION"))
    skipped = q.patterns("ignore", "exclude_modules")
    if algorithm != "MIXED_PRECISION":
        weights = _ALGORITHMS[algorithm](_optional_group(q))
        name, format_of, listed = weights.name, quantize_all(weights, skipped, head=True), frozenset()
    elif not q.fields.get("quantized_layers"):
        if not q.fields.get("config_groups"):
            raise q.error("quantized_layers", "the algorithm of each module, but the field is missing")
        return _compressed_tensors(q, config)
    else:
        name, format_of, listed = _mixed_precision(q, skipped)

    def wide_encoder(matrix: WeightMatrix) -> WeightFormat | None:
        return None if matrix.kind in ("encoder", "router") else format_of(matrix)

    return Quantization(f"modelopt {name}", wide_encoder, kv_bits=cache, listed=listed)


def _optional_group(q: QuantizationFields) -> int:
    return 0 if q.fields.get("group_size") is None else q.group()


def _mixed_precision(
    q: QuantizationFields, skipped: ModulePatterns
) -> tuple[str, Callable[[WeightMatrix], WeightFormat | None], frozenset[str]]:
    """Return the formats' names, the function of `quantized_layers`, and its modules; others stay wide."""
    formats: dict[str, WeightFormat] = {}
    for name, layer in q.parts("quantized_layers").items():
        if canonical_name(name) in skipped.names:
            raise layer.error("", "a module that the list of excluded modules does not hold", name)
        formats[canonical_name(name)] = _ALGORITHMS[layer.word("quant_algo", _ALGORITHMS)](
            _optional_group(layer)
        )

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        if skipped.matches(matrix):
            return None
        for name in matrix.names:
            parts = name.split(".")
            for end in range(len(parts), 0, -1):  # the module, else the nearest that holds it
                found = formats.get(".".join(parts[:end]))
                if found is not None:
                    return found
        return None

    name = "mixed: " + " + ".join(dict.fromkeys(f.name for f in formats.values()))
    return name, format_of, frozenset(formats)


# quark -----------------------------------------------------------------------------------------------

_QUARK_BITS = {
    "fp8_e4m3": 8,
    "fp8_e5m2": 8,
    "int8": 8,
    "uint8": 8,
    "int4": 4,
    "uint4": 4,
    "int2": 2,
    "fp4": 4,
}
_QUARK_BITS |= {"fp6_e3m2": 6, "fp6_e2m3": 6, "mxfp4": 4, "mxfp6": 6, "bfloat16": 16, "float16": 16}


def _quark(q: QuantizationFields, config: Mapping) -> Quantization:
    """A scheme for all linear modules, others by name pattern, and excluded modules; not the head."""
    export = q.part("export")
    cached = export.strings("kv_cache_group") if export else []
    skipped, rules, cache = q.patterns("exclude"), [], None
    for pattern, layer in q.parts("layer_quant_config").items():
        outputs = layer.part("output_tensors")
        if outputs and any(fnmatch.fnmatchcase(pattern, c) for c in cached):
            cache = float(_quark_bits(outputs))
        rules.append((q.compile([pattern], "layer_quant_config"), _quark_format(layer)))
    default = q.part("global_quant_config")
    if default is None:
        raise q.error("global_quant_config", "a mapping, but the field is missing")
    base = _quark_format(default)
    if base is None:
        raise default.error("weight", "the format of weights, but the field is missing")
    linear = quantize_all(base, skipped)

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        if linear(matrix) is None:
            return None
        return next((found for modules, found in rules if modules.matches(matrix)), base)

    return Quantization(f"quark {base.name}", format_of, kv_bits=cache)


def _quark_format(layer: QuantizationFields) -> WeightFormat | None:
    """Return the format of a scheme: weights in one step, or in two whose inner one stores them."""
    steps = [_quark_steps(layer, field) for field in ("weight", "input_tensors")]
    weights, inputs = (min(s, key=_quark_bits, default=None) for s in steps)
    if weights is None:
        return None
    bits = _quark_bits(weights)
    input_bits = float(_quark_bits(inputs)) if inputs else WIDE_INPUTS
    scheme = weights.word("qscheme", ("per_tensor", "per_channel", "per_group", "per_block"), "per_tensor")
    floats = str(weights.fields.get("dtype")).startswith(("fp", "mx"))
    name = f"{'FP' if floats else 'INT'}{bits} W{bits}A{input_bits:g}"
    if scheme == "per_tensor":
        return WeightFormat(f"{name} per tensor", bits, input_bits)
    if scheme == "per_block":
        rows, columns = weights.block("block_size")
        return WeightFormat(f"{name} in blocks of {rows}x{columns}", bits + 32 / (rows * columns), input_bits)
    zero = 0 if weights.flag("symmetric", True) or floats else bits
    scale = 8 if (floats and bits < 8) or "e8m0" in str(weights.fields.get("scale_format")) else 16
    group = 0 if scheme == "per_channel" else weights.group()
    return grouped(name, bits, group, scale=scale + zero, inputs=input_bits)


def _quark_steps(layer: QuantizationFields, field: str) -> list[QuantizationFields]:
    value = layer.fields.get(field)
    values = value if isinstance(value, list) else [] if value is None else [value]
    return [QuantizationFields(v, file=layer.file, path=f"{layer.path}.{field}") for v in values]


def _quark_bits(step: QuantizationFields) -> int:
    return _QUARK_BITS[step.word("dtype", _QUARK_BITS)]


SCHEMES: dict[str, Callable[[QuantizationFields, Mapping], Quantization]] = {
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "modelopt_mixed": _modelopt,
    "modelopt_mxfp8": _modelopt,
    "quark": _quark,
}
