"""Hybrid families: counts against transformers, and caches and states against plain counts of each mixer."""

import csv
import json
from pathlib import Path

import jax
import pytest

import jaxcost as jc
from jaxcost.edge.hf.reader import read_hf_config
from jaxcost.edge.io.errors import InputError
from jaxcost.physics.compute.shards import active_parameters, shard, stored_parameters
from jaxcost.spec.model import Model

SHARED = Path(jc.__file__).parents[1].parent / "shared" / "data"
# Small shapes of every family; counts by transformers 5.24, without weights.
SHAPES = json.loads((Path(__file__).parent / "configs" / "hybrid_families.json").read_text())
BY_NAME = {entry["name"]: entry for entry in SHAPES}
CONTEXTS = (8192, 131072, 1048576)

WHOLE = (
    "deepseek-v3.2-fp8",
    "deepseek-v4-flash",
    "glm-5",
    "mimo-v2-flash",
    "gemma-4-26b-a4b",
    "nemotron-3-super-120b-a12b",
    "nemotron-h-56b",
    "qwen3-next-80b-a3b",
    "qwen3.5-35b-a3b",
    "qwen3.6-27b-nvfp4",
    "minimax-m2.5-fp8",
    "falcon-h1-7b-partial",
    "llama-3.2-11b-vision",
    "tiny/jamba",
    "tiny/laguna",
    "tiny/nemotron_h",
    "tiny/gemma4_text",
)
# Files of types that transformers does not build, with counts by hand of the released modules.
UNBUILT = {
    "nemotron-super-49b": 49.9e9,
    "tiny/granitemoehybrid": 2_298_288,
    "tiny/kimi_linear": 924_870,
    "tiny/lfm2": 623_616,
    "tiny/longcat_flash_ngram": 1_137_040,
    "tiny/mamba2": 465_632,
    "tiny/rwkv7": 720_768,
    "tiny/baichuan_m1": 847_008,
}


def counts(model: Model) -> tuple[float, float]:
    """Return all parameters, and those of routed experts."""
    stored = stored_parameters(model, shard(model, jc.Plan(), 0.0))
    return float(stored.total), float(stored.experts)


def shared_config(name: str) -> dict:
    """Read a published config."""
    path = SHARED / "configs" / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return json.loads(path.read_text())


def sources() -> dict[str, dict[str, str]]:
    """Return the published counts by name of the file."""
    path = SHARED / "configs" / "SOURCES.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with path.open() as lines:
        return {row["name"]: row for row in csv.DictReader(lines)}


@pytest.mark.parametrize("entry", SHAPES, ids=list(BY_NAME))
def test_small_shapes_count(entry: dict) -> None:
    """All variants of a family have the parameters that transformers gives them."""
    total, routed = counts(read_hf_config(entry["config"], file="c"))
    # The router's corrections are no parameters there; means of widths are rounded in f32.
    assert total == pytest.approx(entry["total"], rel=1e-4)
    assert routed == entry["routed"]


@pytest.mark.parametrize("name", WHOLE)
def test_published_files_count(name: str) -> None:
    """Published files have the parameters that transformers counts, encoders only where it counts them."""
    row, config = sources()[name], shared_config(name)
    model = read_hf_config(config, file=name)
    total, routed = counts(model)
    text = total - (model.encoder_parameters if row["transformers_vision"] == "0" else 0)
    assert text == pytest.approx(float(row["transformers_total"]), rel=1e-3)
    assert routed == pytest.approx(float(row["transformers_routed_experts"]), rel=1e-3)


@pytest.mark.parametrize(("name", "total"), UNBUILT.items())
def test_other_files_count(name: str, total: float) -> None:
    """Files that transformers does not build have the published or hand-counted parameters."""
    assert counts(read_hf_config(shared_config(name), file=name))[0] == pytest.approx(total, rel=1e-3)


def test_multi_token_module() -> None:
    """DeepSeek-V3.2 with its module has 685e9 parameters, two tables shared with the model included."""
    model = read_hf_config(shared_config("deepseek-v3.2-fp8"), file="c")
    tables = 2 * model.vocabulary * model.hidden
    assert counts(model)[0] + model.draft_parameters + tables == pytest.approx(685e9, rel=2e-3)


# Caches and states, counted plainly from a config's fields -------------------------------------------

BYTES = 2  # of a key, a value, or a convolution's input
STATE_BYTES = 4
INDEX_KEY_BYTES = 8.25 / 8


def grouped(c: dict, layers: int, heads: str = "num_key_value_heads", dim: int = 0, tokens: int = 1) -> float:
    """Return the bytes of keys and values of some layers."""
    return 2 * layers * c[heads] * (dim or c["head_dim"]) * tokens * BYTES


def gemma4(c: dict, n: int) -> tuple[float, float]:
    """Keys and values of layers that do not reuse those of others, two shapes."""
    own = c["layer_types"][: len(c["layer_types"]) - c["num_kv_shared_layers"]]
    full, window = own.count("full_attention"), own.count("sliding_attention")
    k_eq_v = c.get("attention_k_eq_v", False)
    heads = c["num_global_key_value_heads"] if k_eq_v else c["num_key_value_heads"]
    far = 2 * full * heads * c["global_head_dim"] * n * BYTES
    return far + grouped(c, window, tokens=min(n, c["sliding_window"])), 0


def mimo(c: dict, n: int) -> tuple[float, float]:
    """Heads and widths of values of their own in window layers."""
    window = sum(c["hybrid_layer_pattern"])
    full = len(c["hybrid_layer_pattern"]) - window
    far = full * c["num_key_value_heads"] * (c["head_dim"] + c["v_head_dim"]) * n
    near = window * c["swa_num_key_value_heads"] * (c["swa_head_dim"] + c["swa_v_head_dim"])
    return (far + near * min(n, c["sliding_window"])) * BYTES, 0


def sparse_latent(c: dict, n: int) -> tuple[float, float]:
    """Latents, and keys of the indexers that select for themselves."""
    types = c.get("indexer_types", ["full"] * c["num_hidden_layers"])
    latents = c["num_hidden_layers"] * (c["kv_lora_rank"] + c["qk_rope_head_dim"]) * n * BYTES
    return latents + types.count("full") * c["index_head_dim"] * INDEX_KEY_BYTES * n, 0


def compressed(c: dict, n: int) -> tuple[float, float]:
    """A window in every layer, entries of 4 or 128 tokens, index keys of entries of 4."""
    ratios = c["compress_ratios"][: c["num_hidden_layers"]]
    entries = sum(min(n, c["sliding_window"]) + (n / r if r else 0) for r in ratios)
    index = ratios.count(4) * n / 4 * c["index_head_dim"] * INDEX_KEY_BYTES
    return entries * c["head_dim"] * BYTES + index, 0


def minimax_m3(c: dict, n: int) -> tuple[float, float]:
    """All keys and values; one index key of a token in sparse layers."""
    index = c["sparse_attention_config"]
    keys = sum(index["sparse_attention_freq"]) * index["sparse_index_dim"] * INDEX_KEY_BYTES * n
    return grouped(c, c["num_hidden_layers"], tokens=n) + keys, 0


def mamba2_state(layers: int, inner: int, state: int, groups: int, kernel: int) -> float:
    """Return the bytes of the states of Mamba-2, and of the last inputs of its convolution."""
    tail = (inner + 2 * groups * state) * (kernel - 1)
    return layers * (inner * state * STATE_BYTES + tail * BYTES)


def nemotron(c: dict, n: int) -> tuple[float, float]:
    """Attention in the starred layers, Mamba-2 in those of M."""
    pattern = c["hybrid_override_pattern"]
    inner, kernel = c["mamba_num_heads"] * c["mamba_head_dim"], c.get("conv_kernel", 4)
    state = mamba2_state(pattern.count("M"), inner, c["ssm_state_size"], c["n_groups"], kernel)
    return grouped(c, pattern.count("*"), tokens=n), state


def falcon_h1(c: dict, n: int) -> tuple[float, float]:
    """Attention and Mamba-2 in every layer."""
    layers = c["num_hidden_layers"]
    state = mamba2_state(layers, c["mamba_d_ssm"], c["mamba_d_state"], c["mamba_n_groups"], 4)
    return grouped(c, layers, tokens=n), state


def granite(c: dict, n: int) -> tuple[float, float]:
    """Attention in a few layers, Mamba-2 twice as wide as the stream in the others."""
    types = c["layer_types"]
    full = types.count("attention") + types.count("full_attention")
    dim = c["hidden_size"] // c["num_attention_heads"]
    state = mamba2_state(len(types) - full, 2 * c["hidden_size"], c["mamba_d_state"], 1, 4)
    return grouped(c, full, dim=dim, tokens=n), state


def jamba(c: dict, n: int) -> tuple[float, float]:
    """One attention layer of a period, Mamba-1 with 16 states of a channel in the others."""
    layers, period, offset = c["num_hidden_layers"], c["attn_layer_period"], c["attn_layer_offset"]
    full = sum(i % period == offset for i in range(layers))
    inner = 2 * c["hidden_size"]
    state = (layers - full) * inner * (16 * STATE_BYTES + 3 * BYTES)
    return grouped(c, full, dim=c["hidden_size"] // c["num_attention_heads"], tokens=n), state


def zamba2(c: dict, n: int) -> tuple[float, float]:
    """A cache of its own in every layer that uses a shared block, twice the stream wide; Mamba-2 in all layers."""
    hybrid = c["layers_block_type"].count("hybrid")
    state = mamba2_state(
        c["num_hidden_layers"], 2 * c["hidden_size"], c["mamba_d_state"], c["mamba_ngroups"], 4
    )
    return 2 * hybrid * 2 * c["hidden_size"] * n * BYTES, state


def delta(c: dict, n: int) -> tuple[float, float]:
    """Gated delta rule: one matrix of key x value width per value head."""
    layers, every = c["num_hidden_layers"], c.get("full_attention_interval", 4)
    types = c.get("layer_types") or [
        "linear_attention" if (i + 1) % every else "full_attention" for i in range(layers)
    ]
    keys = c["linear_num_key_heads"] * c["linear_key_head_dim"]
    values = c["linear_num_value_heads"] * c["linear_value_head_dim"]
    one = values * c["linear_key_head_dim"] * STATE_BYTES
    one += (2 * keys + values) * (c["linear_conv_kernel_dim"] - 1) * BYTES
    cache = grouped(c, types.count("full_attention"), tokens=n)
    near = grouped(c, types.count("sliding_attention"), tokens=min(n, c.get("sliding_window", 0)))
    return cache + near, types.count("linear_attention") * one


def kimi(c: dict, n: int) -> tuple[float, float]:
    """Latents of few layers, one square matrix per head of Kimi delta attention in the others."""
    kda = c["linear_attn_config"]
    layers = len(kda["kda_layers"])
    inner = kda["num_heads"] * kda["head_dim"]
    one = inner * kda["head_dim"] * STATE_BYTES + 3 * inner * (kda["short_conv_kernel_size"] - 1) * BYTES
    latents = (c["num_hidden_layers"] - layers) * (c["kv_lora_rank"] + c["qk_rope_head_dim"])
    return latents * n * BYTES, layers * one


def lfm2(c: dict, n: int) -> tuple[float, float]:
    """Attention in the listed layers; the others keep the last two inputs of a convolution."""
    full = len(c["full_attn_idxs"])
    state = (c["num_hidden_layers"] - full) * c["hidden_size"] * 2 * BYTES
    return grouped(c, full, dim=c["hidden_size"] // c["num_attention_heads"], tokens=n), state


def griffin(c: dict, n: int) -> tuple[float, float]:
    """A window of 2048 in every third layer; one number of a channel, and a convolution of 4, in the others."""
    layers = c["num_hidden_layers"]
    window, dim = layers // 3, c["hidden_size"] // c["num_attention_heads"]
    state = (layers - window) * c["hidden_size"] * (STATE_BYTES + 3 * BYTES)
    return grouped(c, window, dim=dim, tokens=min(n, 2048)), state


def mamba1(c: dict, n: int) -> tuple[float, float]:
    """No cache."""
    return 0, c["num_hidden_layers"] * 2 * c["hidden_size"] * (16 * STATE_BYTES + 3 * BYTES)


def rwkv7(c: dict, n: int) -> tuple[float, float]:
    """One square matrix per head, and the last token of both mixers."""
    d = c["hidden_size"]
    return 0, c["num_hidden_layers"] * (d * c["head_dim"] * STATE_BYTES + 2 * d * BYTES)


def longcat(c: dict, n: int) -> tuple[float, float]:
    """Two latent attentions a layer."""
    return 2 * c["num_layers"] * (c["kv_lora_rank"] + c["qk_rope_head_dim"]) * n * BYTES, 0


def laguna(c: dict, n: int) -> tuple[float, float]:
    """Layers differ in query heads alone."""
    full = c["layer_types"].count("full_attention")
    far = grouped(c, full, tokens=n)
    near = grouped(c, len(c["layer_types"]) - full, tokens=min(n, c["sliding_window"]))
    return far + near, 0


def blocks(c: dict, n: int) -> tuple[float, float]:
    """Key-value heads of every block that has attention."""
    entries = 0.0
    for attention in (block["attention"] for block in c["block_configs"]):
        group, heads = attention.get("n_heads_in_group"), attention.get("num_key_value_heads", 0)
        tokens = min(n, attention.get("window_length") or n)
        entries += (c["num_attention_heads"] / group if group else heads) * tokens
    return 2 * entries * c["hidden_size"] // c["num_attention_heads"] * BYTES, 0


RWKV7 = {
    "model_type": "rwkv7",
    "vocab_size": 65536,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "head_dim": 64,
    "num_hidden_layers": 24,
    "a_low_rank_dim": 96,
    "v_low_rank_dim": 64,
    "gate_low_rank_dim": 256,
    "decay_low_rank_dim": 96,
}
UNEVEN_BLOCKS = {
    "model_type": "nemotron-nas",
    "vocab_size": 1000,
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "block_configs": [
        {"attention": {"no_op": False, "n_heads_in_group": 4}, "ffn": {"ffn_mult": 1.5}},
        {"attention": {"no_op": False, "n_heads_in_group": 8}, "ffn": {"no_op": True}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 0.5}},
        {"attention": {"replace_with_linear": True}, "ffn": {"replace_with_linear": True}},
        {"attention": {"num_key_value_heads": 4}, "ffn": {"intermediate_size": 1000}},
        {"attention": {"n_heads_in_group": 8, "window_length": 64}, "ffn": {"no_op": True}},
    ],
}
MIXERS = {
    "gemma4_text-0": gemma4,
    "gemma4_text-2": gemma4,
    "deepseek_v32-0": sparse_latent,
    "glm_moe_dsa-2": sparse_latent,
    "deepseek_v4-1": compressed,
    "mimo_v2_flash-0": mimo,
    "minimax_m3_vl_text-1": minimax_m3,
    "nemotron_h-0": nemotron,
    "falcon_h1-0": falcon_h1,
    "granitemoehybrid-0": granite,
    "granitemoehybrid-2": granite,
    "jamba-0": jamba,
    "zamba2-0": zamba2,
    "qwen3_next-0": delta,
    "qwen3_5_text-1": delta,
    "qwen3_5_moe_text-0": delta,
    "lara_mini-0": delta,
    "kimi_linear-0": kimi,
    "lfm2-0": lfm2,
    "recurrent_gemma-0": griffin,
    "mamba-0": mamba1,
    "falcon_mamba-0": mamba1,
    "laguna-1": laguna,
}
FILES = {
    "deepseek-v4-flash": compressed,
    "mimo-v2-flash": mimo,
    "nemotron-super-49b": blocks,
    "nemotron-3-super-120b-a12b": nemotron,
    "gemma-4-26b-a4b": gemma4,
    "qwen3.6-27b-nvfp4": delta,
}


def check(config: dict, count, system) -> None:
    """Compare cache and state of one request at several lengths with a plain count."""
    model, inner = read_hf_config(config, file="c"), config.get("text_config", config)
    for n in CONTEXTS:
        report = jc.evaluate(system, model, jc.Traffic(prompt=n - 1, output=1, batch=1), jc.Plan())
        cache, state = count(inner, n)
        assert float(report.memory.kv) == pytest.approx(cache, rel=1e-5)
        assert float(report.memory.state) == pytest.approx(state, rel=1e-5)
        assert float(report.tpot) > 0
    token = count(inner, 1)[0]
    assert float(jc.kv_bytes_per_token(model)) == pytest.approx(token, rel=1e-5)


@pytest.fixture(scope="module")
def system():
    """Return one chip; its capacity does not matter."""
    return jc.load_system("h100-sxm")


@pytest.mark.parametrize(("name", "count"), MIXERS.items(), ids=list(MIXERS))
def test_cache_and_state(name: str, count, system) -> None:
    """Cache and state of a request are those of a count from the config's fields."""
    config = BY_NAME[name]["config"]
    if name == "gemma4_text-2":
        types = ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(60)]
        config = {**config, "layer_types": types, "num_kv_shared_layers": 0}
    if name == "mimo_v2_flash-0":
        config = {**config, "hybrid_layer_pattern": [0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0]}
    check(config, count, system)


@pytest.mark.parametrize(("name", "count"), FILES.items(), ids=list(FILES))
def test_cache_and_state_of_published_files(name: str, count, system) -> None:
    """The same for published files."""
    config = shared_config(name)
    config.pop("vision_config", None)
    check(config, count, system)


@pytest.mark.parametrize(
    ("config", "count"), [(RWKV7, rwkv7), (UNEVEN_BLOCKS, blocks)], ids=["rwkv7", "uneven-blocks"]
)
def test_cache_and_state_of_types_without_a_builder(config: dict, count, system) -> None:
    """The same for types that transformers does not have."""
    check(config, count, system)


def test_cache_of_longcat(system) -> None:
    """Two latent attentions and two feed-forwards a layer; zero experts take a third of the choices."""
    config = {
        "model_type": "longcat_flash",
        "hidden_size": 512,
        "num_layers": 3,
        "num_attention_heads": 8,
        "ffn_hidden_size": 1024,
        "q_lora_rank": 96,
        "kv_lora_rank": 64,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32,
        "v_head_dim": 64,
        "moe_topk": 12,
        "n_routed_experts": 16,
        "zero_expert_num": 8,
        "expert_ffn_hidden_size": 128,
        "vocab_size": 2000,
    }
    check(config, longcat, system)
    model = read_hf_config(config, file="c")
    assert (model.latent.layers, model.feed_forward.layers, model.experts.layers) == (6, 6, 3)
    assert model.experts.top_k == pytest.approx(8)
    assert model.blocks == 3


def test_parameters_of_blocks_that_differ() -> None:
    """Means of key-value heads and widths give the sum over the blocks."""
    d, heads, dim = 512, 8, 64
    attention = sum(2 * d * d + 2 * d * heads // group * dim for group in (4, 8, 2, 8))
    # 2/3 of 1.5 x 512 and of 0.5 x 512, rounded up to 256; a stated width; two linear layers.
    feed_forward = 3 * d * (512 + 256 + 1000) + 2 * d * d
    norms = (4 + 5 + 1) * d
    total = counts(read_hf_config(UNEVEN_BLOCKS, file="c"))[0]
    assert total == pytest.approx(attention + feed_forward + norms + 2 * 1000 * d, rel=1e-6)


def test_deci_7b() -> None:
    """DeciLM-7B, whose layers differ in key-value heads, 67 in all, has 7.04e9 parameters."""
    config = {
        "model_type": "deci",
        "architectures": ["DeciLMForCausalLM"],
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads_per_layer": [4] * 7 + [2] * 14 + [1] * 11,
    }
    heads = sum(config["num_key_value_heads_per_layer"])
    model = read_hf_config(config, file="c")
    assert counts(model)[0] == pytest.approx(7.04e9, rel=2e-3)
    assert float(jc.kv_bytes_per_token(model)) == pytest.approx(2 * heads * 128 * BYTES, rel=1e-6)


def test_parameters_of_rwkv7() -> None:
    """A 1.5B model as released has 1.527e9 parameters."""
    d, layers, ranks = 2048, 24, 96 + 96 + 256
    first = 64 * 2 * d + d  # the mix of values that the first layer lacks
    token = 4 * d * d + 2 * d * (ranks + 64) + 6 * d + 3 * d + 3 * d + 2 * d
    channel = 2 * d * 8192 + d
    total = layers * (token + channel + 4 * d) - first + 2 * 65536 * d + 4 * d
    assert counts(read_hf_config(RWKV7, file="c"))[0] == pytest.approx(total, rel=1e-6)
    assert total == pytest.approx(1.527e9, rel=2e-3)


def test_cross_layer_attention() -> None:
    """Every second layer of Hunyuan-Large, of 389e9 parameters, reuses the keys and values of the one before."""
    config = {
        "model_type": "hunyuan",
        "vocab_size": 129024,
        "hidden_size": 6400,
        "intermediate_size": 18304,
        "num_hidden_layers": 64,
        "num_attention_heads": 80,
        "num_key_value_heads": 8,
        "num_experts": 16,
        "moe_topk": 1,
        "num_shared_expert": 1,
        "use_cla": True,
        "cla_share_factor": 2,
        "use_qk_norm": True,
        "tie_word_embeddings": True,
    }
    model = read_hf_config(config, file="c")
    assert counts(model)[0] == pytest.approx(389e9, rel=2e-3)
    assert float(jc.kv_bytes_per_token(model)) == 32 * 2 * 8 * 80 * BYTES


GRANITE_SMALL = {
    "model_type": "granitemoehybrid",
    "vocab_size": 100352,
    "hidden_size": 4096,
    "intermediate_size": 768,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 72,
    "num_experts_per_tok": 10,
    "shared_intermediate_size": 1536,
    "mamba_n_heads": 128,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "tie_word_embeddings": True,
    "layer_types": ["attention" if i % 10 == 5 else "mamba" for i in range(40)],
}


def test_granite_4_small() -> None:
    """Parameters, active parameters and cache of a worked example (memory.csv, m072 and m073)."""
    model = read_hf_config(GRANITE_SMALL, file="c")
    assert counts(model)[0] == pytest.approx(32_188_252_160, rel=1e-3)
    assert float(active_parameters(model)) == pytest.approx(8_784_035_840, rel=3e-3)
    assert float(jc.kv_bytes_per_token(model)) == 16384


def test_falcon_h1_7b() -> None:
    """Cache of a token, and state of a layer with the convolution in 32 bits (memory.csv, m075)."""
    model = read_hf_config(shared_config("falcon-h1-7b-partial"), file="c")
    assert float(jc.kv_bytes_per_token(model)) == 45056
    state = model.recurrence.state * model.recurrence.state_bits / 8
    assert state + model.recurrence.convolution_state * 4 == 3_188_736


BAD = [
    ("nemotron_h-0", {"hybrid_override_pattern": "M-M*-M-X"}, "hybrid_override_pattern", "M * - E"),
    ("nemotron_h-0", {"hybrid_override_pattern": ["M"]}, "hybrid_override_pattern", "8 entries"),
    ("deepseek_v4-1", {"compress_ratios": [0, 7] * 5}, "compress_ratios", "among 0, 4, 128"),
    ("glm_moe_dsa-1", {"index_topk_pattern": "FSX"}, "index_topk_pattern", "letters among F S"),
    ("kimi_linear-0", {"linear_attn_config": {"kda_layers": [0]}}, "kda_layers", "from 1 to 8"),
    ("laguna-1", {"num_attention_heads_per_layer": [8]}, "num_attention_heads_per_layer", "every layer"),
    ("lfm2-2", {"block_ffn_dim_multiplier": -1}, "block_ffn_dim_multiplier", "a positive number"),
    ("falcon_h1-0", {"mamba_d_ssm": 1000}, "mamba_d_ssm", "1536"),
    ("minimax_m3_vl_text-0", {"layer_types": ["sparse"] * 4}, "layer_types", "minimax_m3_sparse"),
    ("step3p7-0", {"text_config": {"moe_layers_enum": "3,x"}}, "moe_layers_enum", "joined by commas"),
    ("recurrent_gemma-0", {"block_types": ["mlp"]}, "block_types", "recurrent, attention"),
]


@pytest.mark.parametrize(("name", "changes", "field", "words"), BAD, ids=[f"{b[0]}-{b[2]}" for b in BAD])
def test_bad_fields(name: str, changes: dict, field: str, words: str) -> None:
    """A malformed field is refused by its name."""
    config = BY_NAME[name]["config"]
    for key, value in changes.items():
        inner = {**config.get(key, {}), **value} if isinstance(value, dict) else value
        config = {**config, key: inner}
    with pytest.raises(InputError) as error:
        read_hf_config(config, file="c")
    assert field in str(error.value)
    assert words in str(error.value)


def test_bad_blocks() -> None:
    """A block without a width, or with groups that do not divide the heads, is refused."""
    first, *rest = UNEVEN_BLOCKS["block_configs"]
    for broken in ({**first, "ffn": {}}, {**first, "attention": {"n_heads_in_group": 3}}, {"ffn": {}}, 7):
        with pytest.raises(InputError, match="block_configs"):
            read_hf_config({**UNEVEN_BLOCKS, "block_configs": [broken, *rest]}, file="c")


@pytest.mark.parametrize(
    "name", sorted({entry["config"]["model_type"]: n for n, entry in BY_NAME.items()}.values())
)
def test_odd_values_give_a_model_or_one_line(name: str) -> None:
    """Any field with a value of another type, or left out, gives a model of finite numbers or an error of the field."""
    config = BY_NAME[name]["config"]
    fields = [field for field in config if field != "model_type"]
    for field in fields:
        for value in (None, "x", -1, 1.5, [], [None], {"a": 1}):
            try:
                model = read_hf_config({**config, field: value}, file="c")
            except InputError as error:
                assert "\n" not in str(error)
            else:
                assert all(0 <= leaf < float("inf") for leaf in jax.tree.leaves(model))
