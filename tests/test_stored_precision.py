"""The precision of checkpoints: expected bits are counted by hand from the definition of each format."""

import copy
import csv
import json
import math
import random
from pathlib import Path

import pytest

import jaxcost
from jaxcost.edge.hf.precision.modules import list_matrices
from jaxcost.edge.hf.precision.stored import RECIPES, apply_recipe, read_precision
from jaxcost.edge.io.errors import InputError

SHARED = Path(jaxcost.__file__).parents[1].parent / "shared" / "data" / "configs"
GIB = 2**30

DENSE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
MIXTURE = {
    **DENSE,
    "model_type": "qwen3_moe",
    "hidden_size": 2048,
    "head_dim": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 768,
    "shared_expert_intermediate_size": 512,
}


def read(quantization, model=DENSE, **fields):
    return read_precision({**model, **fields, "quantization_config": quantization}, None, file="config.json")


def config(name):
    path = SHARED / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    return json.loads(path.read_text())


def classes(precision):
    return tuple(getattr(precision, f"{name}_bits") for name in ("weight", "mixer", "expert", "wide"))


# Real files ------------------------------------------------------------------------------------------

BLOCK = 8 + 32 / (128 * 128)
EXPONENT = 8 + 8 / (128 * 128)

# file: weight, mixer, expert, wide, kv, matmul
REAL = {
    "deepseek-r1-fp8": (BLOCK, BLOCK, BLOCK, 16, 16, 8),
    "deepseek-v3.2-fp8": (EXPONENT, EXPONENT, EXPONENT, 16, 16, 8),
    "deepseek-v4-flash": (EXPONENT, EXPONENT, 4.25, 16, 16, 8),
    "gpt-oss-120b-mxfp4": (16, 16, 4.25, 16, 16, 16),
    "kimi-k2.5": (16, 16, 4.5, 16, 16, 16),
    "mimo-v2-flash": (BLOCK, BLOCK, BLOCK, 16, 16, 8),
    "minimax-m2.5-fp8": (BLOCK, BLOCK, BLOCK, 16, 16, 8),
    "qwen3-30b-a3b-fp8": (BLOCK, BLOCK, BLOCK, 16, 16, 8),
    "qwen3-32b-fp8": (BLOCK, BLOCK, BLOCK, 16, 16, 8),
    "qwen3-8b-fp8": (BLOCK, BLOCK, BLOCK, 16, 16, 8),
}
OTHERS = {"llama-4-scout-fp8-dynamic", "qwen3.6-27b-nvfp4", "smollm-1.7b"}


@pytest.mark.parametrize("name", REAL)
def test_released_files(name):
    p = read_precision(config(name), None, file=name)
    assert (*classes(p), p.kv_bits, p.matmul_bits) == REAL[name]
    assert (p.activation_bits, p.message_bits, p.attention_bits) == (16, 16, 16)
    assert p.sources["expert_bits"].startswith(("quantization_config: ", "text_config.", "no such weights"))
    assert p.notes == ()


@pytest.mark.parametrize(
    "path", sorted(SHARED.rglob("*.json")) or [None], ids=lambda p: "none" if p is None else p.stem
)
def test_files_without_quantization_have_16_bits(path):
    if path is None:
        pytest.skip(f"needs {SHARED}")
    if path.stem in REAL or path.stem in OTHERS:
        pytest.skip("tested on its own")
    p = read_precision(json.loads(path.read_text()), None, file=path.name)
    assert set(p.plan_options().values()) == {16}
    assert p.method in ("none: bfloat16", "none: float16")
    stated = p.sources["wide_bits"]
    assert stated.startswith("config.json: ") or stated == "default: 16 bits, as the file states no dtype"


def test_listed_attention_stays_wide_and_channels_have_scales():
    """Llama 4 Scout: all 48 layers' attention is listed; feed-forwards are 5120 x 8192 with a 16-bit scale a row."""
    p = read_precision(config("llama-4-scout-fp8-dynamic"), None, file="")
    gate_up, down = 16 / 5120, 16 / 8192
    assert p.expert_bits == pytest.approx(8 + (2 * gate_up + down) / 3, rel=1e-12)
    assert (p.mixer_bits, p.wide_bits, p.kv_bits, p.matmul_bits) == (16, 16, 16, 8)


def test_bits_differ_by_module_and_layer():
    """Qwen3.6-27B NVFP4: feed-forwards and head in 4.5 bits, projections in 8, in_proj_a and in_proj_b in 16."""
    p = read_precision(config("qwen3.6-27b-nvfp4"), None, file="")
    hidden, keys, values = 5120, 16 * 128, 48 * 128
    linear = hidden * (2 * keys + values) + hidden * values + values * hidden  # qkv, z, out
    gates = 2 * hidden * 48
    full = hidden * (2 * 24 * 256 + 2 * 4 * 256) + 24 * 256 * hidden  # with an output gate
    mixers = 48 * (linear + gates) + 16 * full
    assert p.mixer_bits == pytest.approx((8 * (mixers - 48 * gates) + 16 * 48 * gates) / mixers, rel=1e-12)
    table, encoder = 248320 * hidden, 27 * (4 * 1152**2 + 2 * 1152 * 4304)
    assert p.wide_bits == pytest.approx(
        (4.5 * table + 16 * (table + encoder)) / (2 * table + encoder), rel=1e-12
    )
    assert (p.weight_bits, p.kv_bits, p.draft_bits) == (4.5, 8, 16)
    # Feed-forwards, 3 x 5120 x 17408 a layer, have inputs of 16 bits; they are most of a token's products.
    share = 64 * 3 * hidden * 17408 / (64 * 3 * hidden * 17408 + mixers - 48 * gates)
    assert p.matmul_bits == 16
    assert f"{share:.0%}" in p.sources["matmul_bits"]
    assert "FP8 per tensor (99.7%), bfloat16 (0.3%)" in p.sources["mixer_bits"]


def test_the_quantization_of_a_folder_counts_where_the_config_has_none():
    separate = {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    }
    p = read_precision(config("llama-3.1-70b-fp8-modelopt"), separate, file="folder/config.json")
    assert (*classes(p), p.kv_bits, p.matmul_bits) == (8, 8, 8, 16, 8, 8)
    assert p.sources["kv_bits"] == "hf_quant_config.json: 8 bits"
    assert p.sources["weight_bits"] == "hf_quant_config.json: FP8 per tensor"


def test_both_files():
    separate = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    p = read_precision({**DENSE, "quantization_config": modelopt("FP8")}, separate, file="config.json")
    assert (*classes(p), p.kv_bits) == (8, 8, 8, 16, 8)
    nested = {"quant_method": "modelopt", **separate}
    assert read(nested).kv_bits == 8


def test_a_model_in_32_bits():
    p = read_precision({**DENSE, "torch_dtype": "float32"}, None, file="")
    assert set(p.plan_options().values()) == {16}
    assert p.method == "none: float32"
    assert "float32, which engines serve in 16 bits" in p.sources["weight_bits"]


# Methods ---------------------------------------------------------------------------------------------

GROUP = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}


def compressed(weights, inputs=None, ignore=("lm_head",), targets=("Linear",), **fields):
    group = {"weights": weights, "input_activations": inputs, "targets": list(targets)}
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": group},
        "ignore": list(ignore),
        **fields,
    }


def modelopt(algorithm, **fields):
    return {"quant_method": "modelopt", "quant_algo": algorithm, "ignore": ["lm_head"], **fields}


INT8, INT8_CHANNEL = {"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "int", "strategy": "channel"}
FLOAT4 = {"num_bits": 4, "type": "float"}
FLOAT8 = {"num_bits": 8, "type": "float"}
BNB4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
QUARK4 = {
    "weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32},
    "input_tensors": {"dtype": "fp4"},
}
INT4_AO = {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}
FLOAT8_AO = {"_type": "Float8DynamicActivationFloat8WeightConfig", "_data": {}}

# quantization config, bits of a weight without scales per channel, bits of inputs, words of the method
UNIFORM = [
    ({"quant_method": "fp8", "activation_scheme": "static"}, 8, 8, "fp8"),
    ({"quant_method": "fp8", "weight_block_size": [64, 256]}, 8 + 32 / (64 * 256), 8, "fp8"),
    ({"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}, EXPONENT, 8, "fp8"),
    (compressed(GROUP), 4 + 16 / 32, 16, "compressed-tensors W4A16 g32"),
    (compressed({**GROUP, "symmetric": False}), 4 + (16 + 4) / 32, 16, "compressed-tensors W4A16 g32"),
    (compressed(GROUP, FLOAT8), 4.5, 8, "W4A8"),
    (compressed({**FLOAT4, "strategy": "tensor_group", "group_size": 16}, FLOAT4), 4.5, 4, "NVFP4 W4A4"),
    (compressed({**FLOAT4, "strategy": "tensor_group", "group_size": 16}), 4.5, 16, "NVFP4 W4A16"),
    (compressed({**FLOAT4, "group_size": 32}), 4.25, 16, "MXFP4 W4A16 g32"),
    (compressed({**FLOAT8, "group_size": 32}, FLOAT8), 8.25, 8, "MXFP8"),
    (compressed({**FLOAT8, "strategy": "tensor"}, FLOAT8), 8, 8, "FP8 W8A8 per tensor"),
    (compressed({**FLOAT8, "strategy": "block", "block_structure": [128, 128]}, FLOAT8), BLOCK, 8, "FP8"),
    (modelopt("FP8"), 8, 8, "modelopt FP8"),
    (modelopt("fp8_pb_wo"), BLOCK, 8, "modelopt FP8 in blocks"),
    (modelopt("NVFP4", group_size=16), 4.5, 4, "modelopt NVFP4"),
    (modelopt("W4A8_AWQ", group_size=128), 4 + 16 / 128, 8, "modelopt W4A8"),
    (modelopt("MXFP8"), 8.25, 8, "modelopt MXFP8"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + (16 + 4) / 128, 16, "gptq W4A16 g128"),
    ({"quant_method": "gptq", "bits": 8, "group_size": 32}, 8 + (16 + 8) / 32, 16, "gptq W8A16 g32"),
    ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + (16 + 4) / 128, 16, "awq W4A16 g128"),
    ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": False}, 4 + 16 / 64, 16, "awq"),
    ({"quant_method": "auto-round", "bits": 4, "group_size": 128}, 4 + 20 / 128, 16, "auto-round W4A16"),
    (BNB4, 4 + 32 / 64, 16, "bitsandbytes NF4"),
    ({**BNB4, "bnb_4bit_use_double_quant": True}, 4 + 8 / 64 + 32 / (64 * 256), 16, "double quantization"),
    (
        {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
        4.5,
        16,
        "hqq",
    ),
    ({"quant_method": "torchao", "quant_type": {"default": INT4_AO}}, 4 + 32 / 64, 16, "torchao W4A16 g64"),
    ({"quant_method": "quanto", "weights": "int4"}, 4 + 32 / 128, 16, "quanto W4A16"),
    ({"quant_method": "quark", "global_quant_config": QUARK4}, 4.25, 4, "quark"),
    ({"quant_method": "nvfp4"}, 4.5, 4, "nvfp4"),
]


@pytest.mark.parametrize(("quantization", "bits", "inputs", "method"), UNIFORM, ids=lambda v: str(v)[:40])
def test_methods(quantization, bits, inputs, method):
    p = read(quantization)
    assert classes(p) == (bits, bits, bits, 16)
    assert (p.matmul_bits, p.kv_bits, p.activation_bits, p.message_bits) == (inputs, 16, 16, 16)
    assert method in p.method


# quantization config and the bits of one scale of an output channel
PER_CHANNEL = [
    ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, 8, 32, 8),
    (compressed(INT8_CHANNEL, INT8), 8, 16, 8),
    (compressed({**INT8, "group_size": -1}, INT8), 8, 16, 8),
    (modelopt("FP8_PER_CHANNEL_PER_TOKEN"), 8, 32, 8),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8, 32, 8),
    ({"quant_method": "gptq", "bits": 4, "group_size": -1}, 4, 16 + 4, 16),
    ({"quant_method": "torchao", "quant_type": {"default": FLOAT8_AO}}, 8, 32, 8),
    ({"quant_method": "eetq"}, 8, 16, 16),
]


@pytest.mark.parametrize(("quantization", "bits", "scale", "inputs"), PER_CHANNEL, ids=lambda v: str(v)[:30])
def test_a_channel_has_a_scale(quantization, bits, scale, inputs):
    """Of 4096 inputs in gate and up, of 14336 in down; the three matrices have equally many weights."""
    p = read(quantization)
    assert p.weight_bits == pytest.approx(bits + scale * (2 / 4096 + 1 / 14336) / 3, rel=1e-12)
    assert p.mixer_bits == pytest.approx(bits + scale / 4096, rel=1e-12)
    assert p.matmul_bits == inputs


def test_the_order_of_gptq_is_an_index_of_each_input():
    plain = read({"quant_method": "gptq", "bits": 4, "group_size": 128})
    ordered = read({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True})
    assert ordered.weight_bits - plain.weight_bits == pytest.approx(32 * (2 / 14336 + 1 / 4096) / 3)


def test_gptq_changes_modules_by_expression():
    rules = {"-:.*self_attn.*": {}, r"+:.*\.(?:2|3)\.mlp\..*": {"bits": 8}}
    p = read({"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": rules})
    assert p.mixer_bits == 16
    assert p.weight_bits == pytest.approx((4 + 20 / 128 + 8 + 24 / 128) / 2)
    p = read(
        {
            "quant_method": "gptq",
            "bits": 4,
            "modules_in_block_to_quantize": [["mlp.gate_proj"], ["mlp.up_proj"]],
        }
    )
    assert p.weight_bits == pytest.approx((2 * (4 + 20 / 128) + 16) / 3)


def test_mxfp4_holds_experts_alone():
    p = read({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, MIXTURE)
    assert classes(p) == (16, 16, 4.25, 16)
    assert p.matmul_bits == 16


def test_experts_of_deepseek_v4():
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    v4 = {**MIXTURE, "model_type": "deepseek_v4"}
    assert read(quantization, v4).expert_bits == 4.25  # where the file omits the field
    assert read(quantization, v4, expert_dtype="fp8").expert_bits == BLOCK
    assert read(quantization, MIXTURE, expert_dtype="fp4").expert_bits == 4.25
    assert read({**quantization, "moe_quant_algo": "NVFP4"}, v4).expert_bits == 4.5


@pytest.mark.parametrize(
    ("ignored", "expected"),
    [
        (["model.layers.0.mlp.down_proj"], (1, 12)),
        (["model.layers.*.mlp.down_proj"], (1, 3)),
        (["model.language_model.layers.0.mlp", "layers.1.mlp"], (1, 2)),
        (["re:.*layers\\.[01]\\.mlp.*"], (1, 2)),
        (["down_proj"], (1, 3)),
        (["mlp.gate", "gate", "lm_head", "model.layers.11", "norm"], (0, 1)),
        (["mlp*"], (0, 1)),
        (["*mlp*"], (1, 1)),
    ],
)
def test_lists_of_modules(ignored, expected):
    """Names count from a dot to a dot, wildcards and expressions over the whole name."""
    part, of = expected
    p = read({"quant_method": "fp8", "activation_scheme": "dynamic", "modules_to_not_convert": ignored})
    assert p.weight_bits == pytest.approx(8 + 8 * part / of)
    assert p.mixer_bits == 8


def test_means_are_weighted_by_parameters():
    """k and v have 1024 outputs, q and o 4096."""
    p = read({"quant_method": "fp8", "modules_to_not_convert": ["k_proj", "v_proj"]})
    assert p.mixer_bits == pytest.approx((16 * 2 * 1024 + 8 * 2 * 4096) / (2 * 1024 + 2 * 4096))
    assert "mean by parameters" in p.sources["mixer_bits"]


@pytest.mark.parametrize(
    ("quantization", "head"),
    [
        ({"quant_method": "fp8"}, 16),
        (modelopt("FP8", ignore=[]), 8),
        (modelopt("FP8"), 16),
        (compressed({**FLOAT8, "strategy": "tensor"}, ignore=()), 8),
        ({"quant_method": "gptq", "bits": 4, "group_size": 16}, 16),
        ({"quant_method": "gptq", "bits": 4, "group_size": 16, "lm_head": True}, 4 + 20 / 16),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 16),
        ({"quant_method": "hqq", "nbits": 4, "group_size": 64, "skip_modules": []}, 4.5),
    ],
)
def test_who_quantizes_the_head(quantization, head):
    assert read(quantization).wide_bits == (head + 16) / 2
    assert read(quantization, tie_word_embeddings=True).wide_bits == 16


def test_routers_stay_wide_and_experts_may_be_listed_one_by_one():
    p = read(modelopt("FP8"), MIXTURE)
    assert classes(p) == (8, 8, 8, 16)
    assert classes(read(compressed(GROUP, targets=["re:.*mlp.*"]), MIXTURE)) == (4.5, 16, 4.5, 16)
    layers = {
        f"model.layers.{i}.mlp.experts.{e}.{name}": {"quant_algo": "NVFP4", "group_size": 16}
        for i in range(4)
        for e in range(6)
        for name in ("gate_proj", "up_proj", "down_proj")
    }
    p = read(modelopt("MIXED_PRECISION", quantized_layers=layers), MIXTURE)
    assert classes(p) == (16, 16, (6 * 4.5 + 2 * 16) / 8, 16)
    assert p.notes == ()
    every = {
        name.replace(f"experts.{e}", f"experts.{e + 2}"): f for name, f in layers.items() for e in range(6)
    }
    p = read(modelopt("MIXED_PRECISION", quantized_layers=layers | every), MIXTURE)
    assert (p.expert_bits, p.notes) == (4.5, ())
    layers["model.layers.0.mlp.unknown"] = {"quant_algo": "FP8"}
    p = read(modelopt("MIXED_PRECISION", quantized_layers=layers), MIXTURE)
    assert p.notes == ("listed modules that are not weighed: layers.0.mlp.unknown",)


def test_groups_of_compressed_tensors():
    """A name or an expression decides before a class."""
    groups = {
        "group_0": {
            "targets": ["Linear"],
            "weights": {**FLOAT8, "strategy": "tensor"},
            "input_activations": FLOAT8,
        },
        "group_1": {"targets": ["re:.*experts.*"], "weights": GROUP},
        "group_2": {"targets": ["Qwen3MoeAttention"], "weights": None, "input_activations": FLOAT8},
    }
    cache = {"num_bits": 8, "type": "float"}
    quantization = compressed(GROUP, kv_cache_scheme=cache) | {"config_groups": groups}
    p = read(quantization, MIXTURE)
    assert classes(p) == (8, 8, 4.5, 16)
    assert (p.kv_bits, p.attention_bits) == (8, 8)


def test_a_narrow_input_does_not_slow_wider_weights():
    """NVFP4 experts take inputs of 4 bits; attention in FP8 runs at max(8, 4), which is right too."""
    layers = {f"model.layers.{i}.self_attn": {"quant_algo": "FP8"} for i in range(4)}
    layers |= {f"model.layers.{i}.mlp": {"quant_algo": "NVFP4"} for i in range(4)}
    p = read(modelopt("MIXED_PRECISION", quantized_layers=layers, kv_cache_quant_algo="NVFP4"), MIXTURE)
    assert (*classes(p), p.matmul_bits, p.kv_bits) == (4.5, 8, 4.5, 16, 4, 4.5)


def test_layers_of_two_mixers():
    """Kimi-Linear: `kda_layers` counts from 1, so layers 0 to 2 have KDA of 4096 and layer 3 has attention."""
    kda = {"kda_layers": [1, 2, 3], "full_attn_layers": [4], "num_heads": 32, "head_dim": 128}
    p = read(
        {"quant_method": "fp8", "modules_to_not_convert": ["model.layers.3.self_attn"]},
        linear_attn_config=kda,
    )
    recurrent, attention = 3 * 4, 2 + 2 / 4  # in squares of 4096
    assert p.mixer_bits == pytest.approx((8 * recurrent + 16 * attention) / (recurrent + attention))


def test_encoders():
    """GPTQ and recipes leave encoders wide; FP8 quantizes those that the file does not list."""
    model = {**DENSE, "vision_config": {"depth": 2, "hidden_size": 1024, "intermediate_size": 4096}}
    assert read({"quant_method": "gptq", "bits": 4}, model).wide_bits == 16
    assert read(modelopt("FP8"), model).wide_bits == 16
    assert read({"quant_method": "fp8", "modules_to_not_convert": ["visual"]}, model).wide_bits == 16
    encoder, tables = 2 * 12 * 1024**2, 2 * 4096 * 128256
    mean = (8 * encoder + 16 * tables) / (encoder + tables)
    assert read({"quant_method": "fp8"}, model).wide_bits == pytest.approx(mean, rel=1e-12)
    for name in RECIPES:
        assert apply_recipe(name, model, file="").wide_bits == 16


def test_mlx_quantizes_the_tables_too():
    p = read_precision(
        {**DENSE, "quantization": {"bits": 4, "group_size": 64, "lm_head": False}}, None, file=""
    )
    assert classes(p) == (4.5, 4.5, 4.5, (16 + 4.5) / 2)


def test_a_cache_in_fp8():
    assert read({"quant_method": "fp8", "kv_cache_scheme": "static"}).kv_bits == 8
    assert read({"quant_method": "fp8", "kv_cache_scheme": None}).kv_bits == 16
    layers = {"*k_proj": {"output_tensors": {"dtype": "fp8_e4m3"}, **QUARK4}}
    quark = {
        "global_quant_config": QUARK4,
        "layer_quant_config": layers,
        "export": {"kv_cache_group": ["*k_proj"]},
    }
    assert read({"quant_method": "quark", **quark}).kv_bits == 8


def test_the_cache_alone():
    separate = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    p = read_precision(DENSE, separate, file="config.json")
    assert (*classes(p), p.kv_bits) == (16, 16, 16, 16, 8)


# Recipes ---------------------------------------------------------------------------------------------

# dense and expert bits of a model of 4096 or 2048 inputs, without scales per channel, and bits of inputs
EXPECTED = {
    "fp8": (8, 8, 8),
    "w4a16": (4 + 16 / 128, 4 + 16 / 128, 16),
    "w8a8": (8, 8, 8),
    "nvfp4": (4.5, 4.5, 4),
    "mxfp4": (4.25, 4.25, 16),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name):
    dense, experts, inputs = EXPECTED[name]
    p = apply_recipe(name, {**DENSE, "quantization_config": {"quant_method": "gptq"}}, file="")
    assert classes(p) == pytest.approx((dense, dense, dense, 16), abs=0.005 if name == "w8a8" else 0)
    assert (p.matmul_bits, p.kv_bits, p.message_bits) == (inputs, 16, 16)
    assert p.sources["weight_bits"].startswith(f"recipe {name}: ")
    p = apply_recipe(name, MIXTURE, file="")
    others = 16 if name == "mxfp4" else dense  # gpt-oss: the experts alone
    assert classes(p) == pytest.approx((others, others, experts, 16), abs=0.03 if name == "w8a8" else 0)


def test_no_such_recipe():
    with pytest.raises(InputError, match=r"quantization: got 'fp9'.*did you mean 'fp8'"):
        apply_recipe("fp9", DENSE, file="")


# Sizes ----------------------------------------------------------------------------------------------

COUNTED = """deepseek-r1-fp8 deepseek-v3.2-fp8 glm-5 kimi-k2.5 minimax-m2.5-fp8 gpt-oss-120b-mxfp4 qwen3-32b-fp8
    qwen3-30b-a3b-fp8 qwen3-8b-fp8 llama-3.1-70b-fp8-modelopt qwen3-next-80b-a3b mimo-v2-flash phi-3.5-moe
    deepseek-v2-lite ernie-4.5-21b-a3b-partial gemma-7b command-r-35b smollm-1.7b""".split()


@pytest.mark.parametrize("name", COUNTED)
def test_the_matrices_are_the_model(name):
    """Their weights are those that transformers counts, to 0.2%: vectors are left out."""
    c = config(name)
    with (SHARED / "SOURCES.csv").open() as file:
        total = next(float(r["transformers_total"]) for r in csv.DictReader(file) if r["name"] == name)
    counted = sum(m.inputs * m.outputs * m.count for m in list_matrices(c) if m.tensor_class != "draft")
    assert counted == pytest.approx(total, rel=0.002)


# Bytes -----------------------------------------------------------------------------------------------


def test_bytes_of_llama_in_fp8():
    """vLLM reports 8.49 GiB with `--quantization fp8`."""
    layer = 4096 * (4096 + 2 * 1024 + 4096) + 3 * 4096 * 14336
    table, norms = 128256 * 4096, 65 * 4096
    p = apply_recipe("fp8", {**DENSE, "num_hidden_layers": 32}, file="")
    stored = (32 * layer * p.weight_bits + (2 * table + norms) * p.wide_bits) / 8
    assert stored / GIB == pytest.approx(8.49, rel=0.005)


def test_bytes_of_deepseek_r1():
    """671.03e9 parameters, all but tables, routers and norms in FP8: 79 GiB on each of 8."""
    c = config("deepseek-r1-fp8")
    d, heads = c["hidden_size"], c["num_attention_heads"]
    attention = d * 1536 + 1536 * heads * 192 + d * 576 + 512 * heads * 256 + heads * 128 * d
    expert = 3 * d * 2048
    dense, shared, routed = 3 * 3 * d * 18432, 58 * expert, 58 * 256 * expert
    wide = 2 * 129280 * d + 58 * (d + 1) * 256 + 61 * (2 * d + 1536 + 512) + d
    assert (
        61 * attention + dense + shared + routed + wide == 671_026_419_200
    )  # transformers, and the routers' biases
    p = read_precision(c, None, file="")
    bits = (dense + shared) * p.weight_bits + 61 * attention * p.mixer_bits + routed * p.expert_bits
    assert (bits + wide * p.wide_bits) / 8 / 8 / GIB == pytest.approx(79, rel=0.01)


def test_bytes_of_gpt_oss():
    """114.66e9 weights of experts in 4.25 bits, 2.17e9 others in 16: 60.8 GiB."""
    p = read_precision(config("gpt-oss-120b-mxfp4"), None, file="")
    experts = 36 * 128 * (2880 * 5760 + 2880 * 2880)
    table, attention = 201088 * 2880, 36 * (2880 * (64 + 2 * 8) * 64 + 64 * 64 * 2880)
    biases = 36 * 128 * (5760 + 2880)
    wide = (2 * table + biases) * p.wide_bits + attention * p.mixer_bits
    assert (experts * p.expert_bits + wide) / 8 / GIB == pytest.approx(60.8, rel=0.002)


# Bad input -------------------------------------------------------------------------------------------

# quantization config, the path the error names, words of its line
BAD = [
    ({"quant_method": "fp9"}, "quant_method", "got 'fp9'"),
    ({"quant_method": "aqlm"}, "quant_method", "'aqlm'"),
    ({"quant_method": "gguf"}, "quant_method", "by hand"),
    ({"quant_method": 8}, "quant_method", "got 8"),
    ({"weight_block_size": [128, 128]}, "quant_method", "missing"),
    ({"quant_method": "gptq", "group_size": 128}, "bits", "missing"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 0}, "group_size", "got 0"),
    ({"quant_method": "gptq", "bits": "4"}, "bits", "got '4'"),
    ({"quant_method": "gptq", "bits": 4, "dynamic": {"+:(": {"bits": 8}}}, "dynamic", "regular expressions"),
    ({"quant_method": "awq", "bits": True}, "bits", "got True"),
    ({"quant_method": "awq", "group_size": -2}, "group_size", "got -2"),
    ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size", "two whole numbers"),
    ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "weight_block_size", "two whole numbers"),
    ({"quant_method": "fp8", "activation_scheme": "off"}, "activation_scheme", "dynamic, static"),
    ({"quant_method": "fp8", "modules_to_not_convert": "lm_head"}, "modules_to_not_convert", "a list"),
    (
        {"quant_method": "fp8", "modules_to_not_convert": ["re:("]},
        "modules_to_not_convert",
        "regular expressions",
    ),
    ({"quant_method": "fp8", "modules_to_not_convert": ["layers"]}, "", "quantizes none"),
    ({"quant_method": "mxfp4"}, "", "quantizes none"),  # a model without experts
    ({"quant_method": "bitsandbytes"}, "load_in_4bit", "either"),
    ({**BNB4, "load_in_8bit": True}, "load_in_4bit", "either"),
    (compressed({"type": "int", "group_size": 32}), "config_groups.group_0.weights.num_bits", "missing"),
    (compressed({**GROUP, "group_size": 0}), "config_groups.group_0.weights.group_size", "got 0"),
    (compressed({**GROUP, "group_size": None}), "config_groups.group_0.weights.group_size", "missing"),
    (compressed(FLOAT4), "config_groups.group_0.weights.group_size", "NVFP4"),
    (compressed({**GROUP, "type": "complex"}), "config_groups.group_0.weights.type", "int, float"),
    (compressed({**GROUP, "strategy": "row"}), "config_groups.group_0.weights.strategy", "channel"),
    (compressed(GROUP, targets=["Conv2d"]), "config_groups.group_0.targets", "Linear"),
    (compressed(GROUP, targets=["re:.*experts.*"]), "config_groups.group_0.targets", "the model has"),
    (compressed(GROUP, targets=["re:.*mlp.*", "lm_head"]), "config_groups.group_0.targets", "does not list"),
    (
        {**compressed(GROUP), "sparsity_config": {"format": "sparse-24-bitmask"}},
        "sparsity_config.format",
        "zeros",
    ),
    ({**compressed(GROUP), "config_groups": {}}, "config_groups", "a group"),
    (modelopt("FP9"), "quant_algo", "got 'FP9'"),
    ({"quant_method": "modelopt"}, "quant_algo", "missing"),
    (modelopt("MIXED_PRECISION"), "quantized_layers", "missing"),
    (
        modelopt("MIXED_PRECISION", quantized_layers={"lm_head": {"quant_algo": "FP8"}}),
        "quantized_layers.lm_head",
        "excl",
    ),
    (modelopt("MIXED_PRECISION", quantized_layers={"x": {}}), "quantized_layers.x.quant_algo", "missing"),
    (modelopt("FP8", kv_cache_quant_algo="FP5"), "kv_cache_quant_algo", "got 'FP5'"),
    (modelopt("NVFP4", group_size=0), "group_size", "got 0"),
    ({"quant_method": "quark"}, "global_quant_config", "missing"),
    ({"quant_method": "torchao", "quant_type": "int3_weight_only"}, "quant_type", "int3"),
]


@pytest.mark.parametrize(("quantization", "path", "words"), BAD, ids=lambda v: str(v)[:40])
def test_bad_quantization(quantization, path, words):
    with pytest.raises(InputError) as caught:
        read(quantization)
    assert caught.value.path == f"quantization_config.{path}".rstrip(".")
    assert caught.value.file == "config.json"
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_formats_of_one_module():
    group = {"targets": ["model.layers.0.mlp.up_proj"], "weights": GROUP}
    other = {**group, "weights": {**GROUP, "num_bits": 8}}
    quantization = compressed(GROUP) | {"config_groups": {"a": group, "b": other}}
    with pytest.raises(InputError, match=r"config_groups\.b\.targets.*another format"):
        read(quantization)


def test_files_that_contradict_each_other():
    separate = {"quantization": {"quant_algo": "NVFP4"}}
    c = {**DENSE, "quantization_config": modelopt("FP8")}
    with pytest.raises(
        InputError, match=r"folder/hf_quant_config\.json: quantization\.quant_algo: got 'NVFP4'"
    ):
        read_precision(c, separate, file="folder/config.json")
    c = {**DENSE, "quantization_config": {"quant_method": "fp8"}}
    with pytest.raises(InputError, match=r"quant_algo: got 'NVFP4'; expected fp8"):
        read_precision(c, separate, file="config.json")
    nested = {"text_config": {**DENSE, "quantization_config": modelopt("FP8")}, "quantization_config": BNB4}
    with pytest.raises(InputError, match=r"text_config\.quantization_config"):
        read_precision(nested, None, file="config.json")
    with pytest.raises(InputError, match=r"expert_dtype: got 'int2'"):
        read({"quant_method": "fp8"}, MIXTURE, expert_dtype="int2")
    with pytest.raises(InputError, match=r"torch_dtype: got 'float8'"):
        read_precision({**DENSE, "torch_dtype": "float8"}, None, file="config.json")
    with pytest.raises(InputError, match=r"quantization: expected a mapping with quant_algo"):
        read_precision(DENSE, {"producer": {}}, file="config.json")


JUNK = [
    None,
    True,
    0,
    -1,
    3.5,
    10**30,
    math.nan,
    "",
    "x",
    "re:(",
    [],
    [1],
    ["x", None],
    {},
    {"x": 1},
    {"x": {"x": []}},
]


def paths(tree, path=()):
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from paths(value, (*path, key))


@pytest.mark.parametrize(
    ("quantization", "index"), [(u[0], i) for i, u in enumerate(UNIFORM)], ids=lambda v: str(v)[:30]
)
def test_junk_is_an_error_of_input_or_harmless(quantization, index):
    """No value of any field, of the model or of its quantization, causes another error, or bits that are no number."""
    draw = random.Random(index)
    model = {**MIXTURE, "quantization_config": quantization, "vision_config": {"depth": 2}, "moe_layers": [0]}
    for path in paths(model):
        for value in draw.sample(JUNK, 3):
            bad = copy.deepcopy(model)
            target = bad
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
            try:
                p = read_precision(bad, None, file="config.json")
            except InputError:
                continue
            assert all(0 < bits <= 32 for bits in p.plan_options().values()), (path, value)
