"""The quantization methods with one format for all linear modules, or one set of fields a format.

Scales and zero points a group: 16 + `bits` in GPTQ and AWQ, which quantize decoder layers alone; a 16-bit scale and a
16-bit zero in HQQ, torchao's int4 and MLX. A block of FP8 has a scale of 32 bits, of 8 where `scale_fmt` is ue8m0. None
of these methods quantizes routers or norms.
"""

from collections.abc import Callable, Mapping

from jaxcost.edge.hf.precision.formats import (
    WIDE_INPUTS,
    ModulePatterns,
    Quantization,
    QuantizationFields,
    WeightFormat,
    grouped,
    quantize_all,
)
from jaxcost.edge.hf.precision.modules import WeightMatrix
from jaxcost.edge.io.errors import InputError

__all__ = ["METHODS", "NVFP4_SCALE", "UNREADABLE", "fp8_blocks"]

_MXFP4 = WeightFormat("MXFP4", 4 + 8 / 32)  # an 8-bit scale a group of 32; inputs of 16 bits
NVFP4_SCALE = 8  # bits of the E4M3 scale of a group of 16
_ROW_SCALE = 32  # bits of the scale of an output channel
_NONE = ModulePatterns(())


def fp8_blocks(rows: int, columns: int, scale: int) -> WeightFormat:
    """Return the format of FP8 weights in blocks with one scale each, and inputs in FP8."""
    return WeightFormat(f"FP8 in blocks of {rows}x{columns}", 8 + scale / (rows * columns), 8)


def _fp8(q: QuantizationFields, config: Mapping) -> Quantization:
    """FP8: vLLM's loader quantizes linear modules and experts, never the head."""
    q.word("activation_scheme", ("dynamic", "static"), "dynamic")
    scale = 8 if q.word("scale_fmt", ("float", "ue8m0"), "float") == "ue8m0" else 32
    weights = WeightFormat("FP8 per tensor", 8, 8)
    if q.fields.get("weight_block_size") is not None:
        weights = fp8_blocks(*q.block("weight_block_size"), scale)
    experts, converted = _fp8_experts(q, config), q.patterns("modules_to_convert")
    linear = quantize_all(weights, q.patterns("ignored_layers", "modules_to_not_convert"), experts=experts)

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        return weights if converted.matches(matrix) else linear(matrix)

    cache = q.fields.get("kv_cache_scheme")  # a name in AutoFP8, else a format
    kv_bits = 8.0 if isinstance(cache, str) else q.cache_bits()
    return Quantization(
        f"fp8 with experts in {experts.name}" if experts else "fp8", format_of, kv_bits=kv_bits
    )


def _fp8_experts(q: QuantizationFields, config: Mapping) -> WeightFormat | None:
    """Return the format of experts that differ: `expert_dtype` of DeepSeek-V4 is fp4 where the file omits it."""
    default = "fp4" if str(config.get("model_type")).startswith("deepseek_v4") else "fp8"
    stated = q.fields.get("expert_dtype") or config.get("expert_dtype") or default
    if stated not in ("fp4", "fp8"):
        raise InputError("fp4 or fp8", file=q.file, path="expert_dtype", given=stated)
    if str(q.fields.get("moe_quant_algo")).upper() == "NVFP4":
        return WeightFormat("NVFP4", 4 + NVFP4_SCALE / 16, 4)
    if stated == "fp4" or q.fields.get("store_dtype") == "mxfp4":
        return WeightFormat("FP4 g32", 4 + 8 / 32, 8)  # an 8-bit scale a group; inputs in FP8
    return None


def _fbgemm_fp8(q: QuantizationFields, config: Mapping) -> Quantization:
    """FP8 per output channel; not the head."""
    weights = WeightFormat("FP8 per channel", 8, 8, row=_ROW_SCALE)
    return Quantization("fbgemm_fp8", quantize_all(weights, q.patterns("modules_to_not_convert")))


def _mxfp4(q: QuantizationFields, config: Mapping) -> Quantization:
    """MXFP4: both loaders quantize the experts alone; every linear module stays wide."""
    return Quantization("mxfp4", quantize_all(_MXFP4, q.patterns("modules_to_not_convert"), others=False))


def _gptq_format(q: QuantizationFields, outer: QuantizationFields) -> WeightFormat:
    """A scale of 16 bits and a packed zero point a group; with `desc_act` an index an input feature."""
    merged = QuantizationFields({**outer.fields, **q.fields}, file=q.file, path=q.path)
    bits = merged.bits()
    weights = grouped(f"W{bits}A16", bits, merged.group(default=128), scale=16 + bits)
    if merged.flag("desc_act", False):
        return WeightFormat(weights.name, weights.bits, row=weights.row, column=32)
    return weights


def _gptq(q: QuantizationFields, config: Mapping) -> Quantization:
    """GPTQ: the head where `lm_head` is true; `dynamic` changes or skips modules (-:) by regular expression."""
    weights, rules = _gptq_format(q, q), []
    dynamic = q.part("dynamic")
    for pattern, change in dynamic.fields.items() if dynamic else ():
        skip = pattern.startswith("-:")
        fields = QuantizationFields({} if skip else change, file=q.file, path=f"{q.path}.dynamic.{pattern}")
        modules = q.compile([f"re:{pattern.removeprefix('-:').removeprefix('+:')}"], "dynamic")
        rules.append((modules, None if skip else _gptq_format(fields, q)))
    listed = q.fields.get("modules_in_block_to_quantize")
    chosen = _flat_names(q, listed) if listed else None
    skipped = q.patterns("modules_to_not_convert")
    default = quantize_all(weights, skipped, head=q.flag("lm_head", False), encoder=False)

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        base = default(matrix)
        if base is None or (chosen and matrix.kind != "head" and not chosen.matches(matrix)):
            return None
        return next((found for modules, found in rules if modules.matches(matrix)), base)

    return Quantization(f"gptq {weights.name}", format_of)


def _flat_names(q: QuantizationFields, listed: object) -> ModulePatterns:
    """Read a list of module names, or of lists of them."""
    field = "modules_in_block_to_quantize"
    if not isinstance(listed, list | tuple):
        raise q.error(field, "a list of module names", listed)
    names = [n for entry in listed for n in (entry if isinstance(entry, list | tuple) else [entry])]
    return QuantizationFields({field: names}, file=q.file, path=q.path).patterns(field)


def _awq(q: QuantizationFields, config: Mapping) -> Quantization:
    """AWQ: a scale of 16 bits and, with `zero_point`, a packed zero point a group; the head with `lm_head`."""
    bits = q.bits("w_bit") if "w_bit" in q.fields else q.bits(default=4)
    group = q.group("q_group_size") if "q_group_size" in q.fields else q.group(default=128)
    weights = grouped(f"W{bits}A16", bits, group, scale=16 + bits * q.flag("zero_point", True))
    skipped = q.patterns("modules_to_not_convert")
    format_of = quantize_all(weights, skipped, head=q.flag("lm_head", False), encoder=False)
    return Quantization(f"awq {weights.name}", format_of)


def _auto_round(q: QuantizationFields, config: Mapping) -> Quantization:
    """AutoRound, which packs as GPTQ or AWQ; `extra_config` changes modules, those of 16 bits stay wide."""
    kind = str(q.fields.get("data_type", "int"))
    inputs = float(q.size("act_bits", most=16, default=16))

    def read(fields: QuantizationFields) -> WeightFormat | None:
        merged = QuantizationFields({**q.fields, **fields.fields}, file=q.file, path=fields.path)
        bits, group = merged.bits(default=4), merged.group(default=128)
        scale = 16 + bits if kind.startswith("int") else 8
        return (
            None
            if bits >= WIDE_INPUTS
            else grouped(f"W{bits}A{inputs:g}", bits, group, scale=scale, inputs=inputs)
        )

    if not kind.startswith(("int", "mx_fp", "nv_fp")):
        raise q.error("data_type", "int, mx_fp or nv_fp", kind)
    base, rules = read(QuantizationFields({}, file=q.file, path=q.path)), []
    for name, change in q.parts("extra_config").items():
        pattern = f"re:{name}" if set(name) & set("*\\[(") else name
        rules.append((q.compile([pattern], "extra_config"), read(change)))
    if base is None:
        raise q.error("bits", "fewer than 16 bits", q.fields.get("bits"))
    default = quantize_all(base, q.patterns("modules_to_not_convert"), encoder=False)

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        rule = next((found for modules, found in rules if modules.matches(matrix)), default(matrix))
        return rule if matrix.kind != "router" else None

    return Quantization(f"auto-round {base.name}", format_of)


def _bitsandbytes(q: QuantizationFields, config: Mapping) -> Quantization:
    """A 32-bit scale a block of 64, or with double quantization an 8-bit one and 32 bits a 256 blocks; not the head."""
    four = q.flag("load_in_4bit", False) or q.flag("_load_in_4bit", False)
    eight = q.flag("load_in_8bit", False) or q.flag("_load_in_8bit", False)
    if four == eight:
        raise q.error("load_in_4bit", "either load_in_4bit or load_in_8bit to be true", four)
    weights = WeightFormat("INT8 per channel", 8, 8, row=_ROW_SCALE)
    if four:
        kind = q.word("bnb_4bit_quant_type", ("nf4", "fp4"), "fp4").upper()
        double = q.flag("bnb_4bit_use_double_quant", False)
        scale = 8 / 64 + 32 / (64 * 256) if double else 32 / 64
        weights = WeightFormat(f"{kind} g64" + " with double quantization" * double, 4 + scale)
    return Quantization(
        f"bitsandbytes {weights.name}", quantize_all(weights, q.patterns("llm_int8_skip_modules"))
    )


def _hqq(q: QuantizationFields, config: Mapping) -> Quantization:
    """HQQ: a scale and a zero of 16 bits a group; all linear modules but `skip_modules`, the head by default."""
    scheme = q.part("quant_config") or q
    scheme = scheme.part("weight_quant_params") or scheme
    bits = scheme.bits("nbits")
    weights = grouped(f"W{bits}A16", bits, scheme.group(default=64), scale=32)
    head = "skip_modules" in q.fields
    return Quantization(f"hqq {weights.name}", quantize_all(weights, q.patterns("skip_modules"), head=head))


# bits of a weight, default group (0 for a scale per channel), bits of scale and zero a group, bits of inputs
_TORCHAO = {
    "int4weightonly": (4, 128, 32, WIDE_INPUTS),
    "int8weightonly": (8, 0, 16, WIDE_INPUTS),
    "int8dynamicactivationint8weight": (8, 0, 16, 8),
    "int8dynamicactivationint4weight": (4, 32, 32, 8),
    "float8weightonly": (8, 0, 32, WIDE_INPUTS),
    "float8dynamicactivationfloat8weight": (8, 0, 32, 8),
    "float8dynamicactivationint4weight": (4, 128, 16, 8),
}


def _torchao(q: QuantizationFields, config: Mapping) -> Quantization:
    """torchao: all linear modules but `modules_to_not_convert`; the head and the embedding where the file says so."""
    kind, options = q.fields.get("quant_type"), q.part("quant_type_kwargs")
    if isinstance(kind, Mapping):
        default = (q.part("quant_type") or q).part("default")
        kind, options = (default.fields.get("_type"), default.part("_data")) if default else (None, None)
    word = str(kind).lower().replace("_", "").removesuffix("config")
    if word not in _TORCHAO:
        raise q.error("quant_type", "a scheme with one format, such as Int4WeightOnlyConfig", kind)
    bits, group, scale, inputs = _TORCHAO[word]
    if group and options is not None:
        group = options.group(default=group)
    weights = grouped(f"W{bits}A{inputs:g}", bits, group, scale=scale, inputs=inputs)
    ends, skipped = q.flag("include_input_output_embeddings", False), q.patterns("modules_to_not_convert")
    linear = quantize_all(weights, skipped, head=ends)

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        embeds = ends and matrix.kind == "embedding" and not skipped.matches(matrix)
        return weights if embeds else linear(matrix)

    return Quantization(f"torchao {weights.name}", format_of)


def _mlx(q: QuantizationFields, config: Mapping) -> Quantization:
    """MLX: a scale and an offset of 16 bits a group, in the embedding and the head too; `false` skips a module."""
    mode = q.word("mode", ("affine", "mxfp4", "mxfp8", "nvfp4"), "affine")
    scale = 32 if mode == "affine" else 8

    def read(fields: Mapping, path: str) -> WeightFormat:
        merged = QuantizationFields({**q.fields, **fields}, file=q.file, path=path)
        return grouped(f"W{merged.bits()}A16", merged.bits(), merged.group(), scale=scale)

    rules = [
        (q.compile([k], k), read(v, f"{q.path}.{k}") if isinstance(v, Mapping) else None)
        for k, v in q.fields.items()
        if isinstance(v, Mapping) or v is False
    ]
    base = read({}, q.path)

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        default = None if matrix.kind in ("router", "encoder") else base
        return next((found for modules, found in rules if modules.matches(matrix)), default)

    return Quantization(f"mlx {base.name}", format_of)


def _fixed(
    name: str, weights: WeightFormat, *skipped: str, others: bool = True
) -> Callable[[QuantizationFields, Mapping], Quantization]:
    """Return a method without fields that change the format; it does not quantize the head."""

    def read(q: QuantizationFields, config: Mapping) -> Quantization:
        patterns = q.patterns(*skipped) if skipped else _NONE
        return Quantization(name, quantize_all(weights, patterns, others=others))

    return read


def _named_dtype(field: str, formats: Mapping[str, WeightFormat], default: str) -> Callable:
    """Return a method whose format is the name in a field."""

    def read(q: QuantizationFields, config: Mapping) -> Quantization:
        weights = formats[q.word(field, formats, default)]
        name = f"{q.fields.get('quant_method')} {weights.name}"
        return Quantization(name, quantize_all(weights, q.patterns("modules_to_not_convert")))

    return read


_QUANTO = {
    "float8": WeightFormat("FP8 per channel", 8, row=16),
    "int8": WeightFormat("W8A16 per channel", 8, row=16),
    "int4": grouped("W4A16", 4, 128, scale=32),
    "int2": grouped("W2A16", 2, 128, scale=32),
}
_FP_QUANT = {
    "nvfp4": WeightFormat("NVFP4", 4 + NVFP4_SCALE / 16, 4),
    "mxfp4": WeightFormat("MXFP4", 4 + 8 / 32, 4),
}
_SKIPPED = "modules_to_not_convert"

METHODS: dict[str, Callable[[QuantizationFields, Mapping], Quantization]] = {
    "fp8": _fp8,
    "deepseek_v4_fp8": _fp8,
    "fbgemm_fp8": _fbgemm_fp8,
    "mxfp4": _mxfp4,
    "gpt_oss_mxfp4": _mxfp4,
    "gptq": _gptq,
    "gptq_marlin": _gptq,
    "auto_gptq": _gptq,
    "awq": _awq,
    "awq_marlin": _awq,
    "auto_awq": _awq,
    "auto-round": _auto_round,
    "intel/auto-round": _auto_round,
    "inc": _auto_round,
    "bitsandbytes": _bitsandbytes,
    "hqq": _hqq,
    "torchao": _torchao,
    "mlx": _mlx,
    "quanto": _named_dtype("weights", _QUANTO, "int8"),
    "fp_quant": _named_dtype("forward_dtype", _FP_QUANT, "nvfp4"),
    "nvfp4": _fixed("nvfp4", _FP_QUANT["nvfp4"], _SKIPPED),
    "mxfp8": _fixed("mxfp8", WeightFormat("MXFP8", 8 + 8 / 32, 8), _SKIPPED),
    "eetq": _fixed("eetq", WeightFormat("W8A16 per channel", 8, row=16), _SKIPPED),
    "experts_int8": _fixed(
        "experts_int8", WeightFormat("W8A16 per channel", 8, row=_ROW_SCALE), others=False
    ),
    "bitnet": _fixed("bitnet", WeightFormat("ternary, four in a byte", 2, 8), _SKIPPED),
}

# Methods that are known, but whose bits do not follow from a config: codebooks, types by tensor.
UNREADABLE = (
    "aqlm",
    "vptq",
    "spqr",
    "higgs",
    "gguf",
    "quip",
    "exl2",
    "exl3",
    "metal",
    "sinq",
    "gemma",
    "humming",
)
