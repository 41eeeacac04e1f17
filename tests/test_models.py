"""The model catalogue: counts against published ones, caches and layers against their papers."""

from pathlib import Path

import jax
import pytest
from ruamel.yaml import YAML

from jaxcost.edge.hf.reader import read_hf_config
from jaxcost.physics.compute.shards import active_parameters, total_parameters
from jaxcost.spec.model import Model

CATALOG = Path(__file__).parents[1] / "configs" / "models"
FILES = {path.stem: path for path in sorted(CATALOG.glob("*.yaml"))}
KIBI = 1024
BYTES = 2  # bf16

# Published totals that are no count to 0.5%, each with its reason and the error we find (ours / theirs - 1).
ROUNDED = {
    "gemma-3n-e2b": ("encoders taken at rounded sizes", -0.005),
    "gemma-3n-e4b": ("encoders taken at rounded sizes", -0.005),
    "glm-4.5": ("355B counts part of the multi-token-prediction block", -0.006),
    "glm-4.6": ("355B counts part of the multi-token-prediction block", -0.006),
    "glm-4.5-air": ("106B is rounded, and counts other tables than we do", 0.008),
    "kimi-k2": ("1T is one digit", 0.026),
    "nemotron-h-56b": ("56B is the name", 0.006),
    "qwen3-0.6b": ("0.6B is one digit", -0.007),
    "qwen3-1.7b": ("1.7B is two digits", 0.012),
}

# Published active counts leave out different tables: 0 counts the embedding and the head, 1 one of the two,
# 2 neither. The tolerance is that of the published digits.
ACTIVE = {
    "deepseek-r1": (0, 0.02),
    "deepseek-v2": (0, 0.02),
    "deepseek-v2-lite": (1, 0.03),
    "deepseek-v3": (0, 0.02),
    "deepseek-v3.2": (1, 0.02),
    "deepseek-v4-flash": (1, 0.03),
    "gemma-4-26b-a4b": (0, 0.05),
    "glm-4.5": (2, 0.01),
    "glm-4.5-air": (2, 0.02),
    "glm-4.6": (2, 0.01),
    "glm-5": (2, 0.01),
    "glm-5.2": (2, 0.01),
    "granite-4.0-h-small": (0, 0.003),
    "gpt-oss-120b": (1, 0.01),
    "gpt-oss-20b": (1, 0.01),
    "jamba-1.5-large": (0, 0.01),
    "jamba-1.5-mini": (0, 0.01),
    "kimi-k2": (0, 0.03),
    "kimi-k2.5": (1, 0.02),
    "llama-4-maverick": (0, 0.02),
    "llama-4-scout": (0, 0.02),
    "mimo-v2-flash": (1, 0.02),
    "minimax-m2": (2, 0.03),
    "minimax-text-01": (2, 0.005),
    "mixtral-8x22b": (0, 0.01),
    "mixtral-8x7b": (0, 0.005),
    "nemotron-3-nano-30b-a3b": (0, 0.01),
    "nemotron-3-super-120b-a12b": (1, 0.03),
    "phi-3.5-moe": (0, 0.01),
    "qwen1.5-moe-a2.7b": (0, 0.01),
    "qwen3-235b-a22b": (0, 0.01),
    "qwen3-30b-a3b": (0, 0.02),
    "qwen3-coder-480b-a35b": (0, 0.02),
    "qwen3-next-80b-a3b": (2, 0.1),
    "qwen3-vl-235b-a22b": (0, 0.01),
    "qwen3.5-35b-a3b": (1, 0.03),
    "qwen3.5-397b-a17b": (0, 0.025),
}


# Token and channel mixers of models whose blocks are not one of each.
UNEVEN = {
    "falcon-h1-7b": (88, 44),  # attention and a recurrence side by side in every block
    "gemma-4-26b-a4b": (30, 60),  # experts beside a dense feed-forward in every block
    "llama-3.2-11b-vision": (32, 32),  # 8 of 40 blocks attend to images, and text skips them
    "nemotron-super-49b": (49, 80),  # 31 blocks without attention
}


def entry(name: str) -> dict:
    """Parse one catalogue file."""
    return YAML(typ="safe", pure=True).load(FILES[name])


def model(name: str) -> Model:
    """Read one catalogue model."""
    return read_hf_config(entry(name)["config"], file=FILES[name].name)


def kv_bytes(m: Model) -> float:
    """Return the cache of one token where every layer keeps it, in bf16."""
    shapes = (m.attention, m.window_attention)
    heads = sum(a.kv_heads * (a.head_dim + a.value_dim) * (a.layers - a.shared_layers) for a in shapes)
    return BYTES * (heads + m.latent.layers * (m.latent.kv_rank + m.latent.rope_dim))


def test_catalogue_is_large_enough() -> None:
    """The catalogue covers dense, mixture, latent, hybrid and diffusion models."""
    assert len(FILES) >= 45


@pytest.mark.parametrize("name", FILES)
def test_entry_has_the_schema(name: str) -> None:
    """Every file says where its numbers come from."""
    e = entry(name)
    assert set(e) - {"aliases", "stored"} == {
        "title",
        "source",
        "date",
        "kind",
        "published",
        "note",
        "config",
    }
    assert e["kind"] in ("datasheet", "paper", "measured", "estimate")
    assert e["source"].startswith("https://")
    assert set(e["published"]) == {"total", "active", "exact", "source", "note"}
    assert isinstance(e["published"]["total"], float)
    assert isinstance(e["published"]["exact"], bool)
    assert e["published"]["exact"] or e["published"]["note"]


@pytest.mark.parametrize("name", FILES)
def test_leaves_are_finite_floats(name: str) -> None:
    """The reader gives plain numbers, none of them negative."""
    leaves = jax.tree_util.tree_leaves(model(name))
    assert all(type(leaf) is float and 0 <= leaf < float("inf") for leaf in leaves)


@pytest.mark.parametrize("name", FILES)
def test_total_count(name: str) -> None:
    """Counted parameters meet the published total, or miss it by what the table of exceptions says."""
    published = entry(name)["published"]
    error = float(total_parameters(model(name))) / published["total"] - 1
    if published["exact"]:
        assert abs(error) < 0.005
    else:
        assert error == pytest.approx(ROUNDED[name][1], abs=0.001)


def test_exceptions_are_the_inexact_entries() -> None:
    """No entry is excused in one place only."""
    assert set(ROUNDED) == {n for n in FILES if not entry(n)["published"]["exact"]}


@pytest.mark.parametrize("name", ACTIVE)
def test_active_count(name: str) -> None:
    """Parameters a token uses meet the published active count by its own convention."""
    m = model(name)
    tables, tolerance = ACTIVE[name]
    counted = float(active_parameters(m)) - tables * m.vocabulary * m.hidden
    assert counted == pytest.approx(entry(name)["published"]["active"], rel=tolerance)


def test_active_counts_are_complete() -> None:
    """Every mixture of experts has a published active count, and no dense model has one."""
    assert set(ACTIVE) == {n for n in FILES if entry(n)["published"]["active"] is not None}
    assert set(ACTIVE) == {n for n in FILES if model(n).experts.layers > 0}


@pytest.mark.parametrize(
    ("name", "kibibytes"),
    [
        ("deepseek-v2-lite", 30.375),
        ("deepseek-v3", 68.625),
        ("gemma-3-27b", 496.0),
        ("gpt-3-175b", 4608.0),
        ("gpt-oss-120b", 72.0),
        ("kimi-k2", 68.625),
        ("llada-8b", 512.0),
        ("llama-2-7b", 512.0),
        ("llama-3.1-405b", 504.0),
        ("llama-3.1-70b", 320.0),
        ("llama-3.1-8b", 128.0),
        ("mixtral-8x7b", 128.0),
        ("palm-540b", 118.0),
        ("phi-3-mini-4k", 384.0),
        ("qwen2.5-7b", 56.0),
        ("qwen3-235b-a22b", 188.0),
        ("starcoder-15b", 20.0),
    ],
)
def test_cache_of_a_token(name: str, kibibytes: float) -> None:
    """KV bytes per token are exact: 2 x kv heads x head_dim x layers, or (rank + rope) x layers."""
    assert kv_bytes(model(name)) == kibibytes * KIBI


@pytest.mark.parametrize("name", FILES)
def test_layers_add_up(name: str) -> None:
    """Every layer is one token mixer and one channel mixer, but in models of single-mixer layers."""
    config, m = entry(name)["config"], model(name)
    inner = config.get("text_config", config)
    names = ("num_hidden_layers", "n_layer", "n_layers")
    layers = next(inner[k] for k in names if k in inner)
    mixers = m.attention.layers + m.window_attention.layers + m.sparse_attention.layers
    mixers += m.latent.layers + m.recurrence.layers
    channels = m.feed_forward.layers + m.experts.layers
    if config["model_type"] == "nemotron_h":
        assert mixers + channels == layers
        assert m.norms == layers + 1
    elif config["model_type"] == "mamba2":
        assert (mixers, channels) == (layers, 0)
    elif name in UNEVEN:
        assert (mixers, channels) == UNEVEN[name]
    else:
        assert mixers == channels == layers
        assert (m.norms - 1) % layers == 0


@pytest.mark.parametrize(
    ("name", "full", "window_layers", "window"),
    [
        ("gemma-2-27b", 23, 23, 4096),
        ("gemma-3-1b", 4, 22, 512),
        ("gemma-3-27b", 10, 52, 1024),
        ("gemma-3n-e4b", 7, 28, 512),
        ("gpt-oss-120b", 18, 18, 128),
        ("gpt-oss-20b", 12, 12, 128),
        ("llama-4-maverick", 12, 36, 8192),
        ("mistral-7b", 0, 32, 4096),
        ("phi-3-mini-4k", 0, 32, 2047),
        ("phi-4", 40, 0, 0),
        ("qwen2.5-7b", 28, 0, 0),
    ],
)
def test_windows(name: str, full: int, window_layers: int, window: int) -> None:
    """Local layers are as many, and as wide, as the papers say."""
    full_attention, near = model(name).attention, model(name).window_attention
    assert (full_attention.layers, near.layers, near.window) == (full, window_layers, window)


@pytest.mark.parametrize(
    ("name", "dense", "sparse", "experts", "top_k", "shared_width"),
    [
        ("deepseek-v2-lite", 1, 26, 64, 6, 2816),
        ("deepseek-v3", 3, 58, 256, 8, 2048),
        ("glm-4.5", 3, 89, 160, 8, 1536),
        ("gpt-oss-120b", 0, 36, 128, 4, 0),
        ("jamba-1.5-mini", 16, 16, 16, 2, 0),
        ("kimi-k2", 1, 60, 384, 8, 2048),
        ("llama-4-maverick", 24, 24, 128, 1, 8192),
        ("llama-4-scout", 0, 48, 16, 1, 8192),
        ("minimax-text-01", 0, 80, 32, 2, 0),
        ("mixtral-8x7b", 0, 32, 8, 2, 0),
        ("nemotron-3-nano-30b-a3b", 0, 23, 128, 6, 3712),
        ("qwen1.5-moe-a2.7b", 0, 24, 60, 4, 5632),
        ("qwen3-next-80b-a3b", 0, 48, 512, 10, 512),
    ],
)
def test_experts(name: str, dense: int, sparse: int, experts: int, top_k: int, shared_width: int) -> None:
    """Dense and sparse layers, routed and shared experts are as the papers say."""
    m = model(name)
    x = m.experts
    assert (m.feed_forward.layers, x.layers, x.experts, x.top_k) == (dense, sparse, experts, top_k)
    assert x.shared_width == shared_width


@pytest.mark.parametrize(
    ("name", "layers", "state", "convolution_state"),
    [
        ("jamba-1.5-mini", 28, 8192 * 16, 8192 * 3),
        ("mamba-2-2.7b", 64, 655_360, (5120 + 2 * 128) * 3),
        ("minimax-text-01", 70, 64 * 128 * 128, 0),
        ("nemotron-3-nano-30b-a3b", 23, 64 * 64 * 128, (4096 + 2 * 8 * 128) * 3),
        ("nemotron-h-56b", 54, 256 * 64 * 256, (16384 + 2 * 8 * 256) * 3),
        ("qwen3-next-80b-a3b", 36, 32 * 128 * 128, (2 * 2048 + 4096) * 3),
        ("qwen3.5-397b-a17b", 45, 64 * 128 * 128, (2 * 2048 + 8192) * 3),
    ],
)
def test_recurrent_state(name: str, layers: int, state: int, convolution_state: int) -> None:
    """States are as large as the papers say, in 32 bits."""
    r = model(name).recurrence
    assert (r.layers, r.state, r.state_bits, r.convolution_state) == (layers, state, 32, convolution_state)


def test_recurrent_work() -> None:
    """Chunked recurrences run on matrix engines, the selective scan of Mamba-1 does not."""
    work = {n: model(n).recurrence for n in ("mamba-2-2.7b", "qwen3-next-80b-a3b", "jamba-1.5-mini")}
    found = {n: (r.matmul_flops, r.vector_flops, r.exponentials) for n, r in work.items()}
    assert found == {
        "mamba-2-2.7b": (5, 0, 0),
        "qwen3-next-80b-a3b": (7, 0, 0),
        "jamba-1.5-mini": (0, 6, 1),
    }


def test_gated_attention_projects_a_gate() -> None:
    """Qwen3-Next's query projection also makes the gate of the output."""
    assert model("qwen3-next-80b-a3b").attention.query_outputs == 2
    assert model("qwen3-8b").attention.query_outputs == 1


def test_latent_attention_of_deepseek() -> None:
    """DeepSeek-V3's ranks, and V2-Lite's uncompressed query."""
    latent = model("deepseek-v3").latent
    ranks = (latent.layers, latent.heads, latent.query_rank, latent.kv_rank, latent.rope_dim)
    assert ranks == (61, 128, 1536, 512, 64)
    assert model("deepseek-v2-lite").latent.query_rank == 0


def test_draft_of_deepseek() -> None:
    """The prediction module holds 14B (arXiv:2412.19437); its shared embedding and head are 1.85B."""
    m = model("deepseek-v3")
    shared = 2 * m.vocabulary * m.hidden
    assert m.draft_parameters + shared == pytest.approx(14e9, rel=0.05)
    assert model("kimi-k2").draft_parameters == 0


def test_encoders() -> None:
    """Gemma 3's SigLIP has 417M (arXiv:2503.19786); 4096 patches make 256 tokens."""
    m = model("gemma-3-27b")
    assert m.encoder_parameters == pytest.approx(0.417e9 + 1152 * 5376, rel=0.002)
    assert m.encoder_ratio == 16
    assert model("llama-4-scout").encoder_ratio == 4
    assert model("llama-3.1-8b").encoder_parameters == 0


def test_diffusion() -> None:
    """LLaDA denoises blocks of 32 tokens in 32 passes; others decode token by token."""
    m = model("llada-8b")
    assert (m.diffusion_block, m.diffusion_steps) == (32, 32)
    assert model("llama-3.1-8b").diffusion_block == 0


def test_small_and_table_parameters_are_exact() -> None:
    """Vectors and tables by hand: Llama's norms, OPT's biases and positions, gpt-oss's sinks and biases."""
    assert model("llama-3.1-8b").small_parameters == 4096 * 65
    opt = model("opt-66b")
    d, layers = 9216, 64
    assert opt.table_parameters == 2050 * d
    assert opt.small_parameters == layers * (4 * d + 5 * d + 4 * d) + 2 * d
    oss = model("gpt-oss-20b")
    attention = 64 * 64 + 2 * 8 * 64 + 2880 + 64
    experts = 32 + 32 * 3 * 2880
    assert oss.small_parameters == 24 * (attention + experts) + 2880 * 49


def test_activations() -> None:
    """ReLU and its square need no exponential, SiLU and GELU one."""
    exponentials = {n: model(n).activation_exponentials for n in ("opt-66b", "nemotron-h-8b", "gemma-2-9b")}
    assert exponentials == {"opt-66b": 0, "nemotron-h-8b": 0, "gemma-2-9b": 1}


def test_shared_caches_of_gemma_3n() -> None:
    """The last 15 of 35 layers reuse keys and values, and the per-layer embeddings are a table."""
    m = model("gemma-3n-e4b")
    assert (m.attention.shared_layers, m.window_attention.shared_layers) == (3, 12)
    assert m.table_parameters == 262144 * 256 * 35


def test_architecture_stands_in_for_model_type() -> None:
    """A config without `model_type` is known by its class."""
    config = {k: v for k, v in entry("llama-3.1-8b")["config"].items() if k != "model_type"}
    assert float(total_parameters(read_hf_config(config, file="c"))) == pytest.approx(8.03e9, rel=0.001)


def test_layer_types_decide_over_patterns() -> None:
    """Explicit `layer_types` and the family's own rule give the same model."""
    config = entry("gemma-3-1b")["config"]
    types = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(26)]
    explicit = read_hf_config({**config, "sliding_window_pattern": None, "layer_types": types}, file="c")
    assert jax.tree_util.tree_leaves(explicit) == jax.tree_util.tree_leaves(model("gemma-3-1b"))


def test_defaults_of_the_configuration_classes() -> None:
    """Left out, key-value heads are as many as query heads and a head is hidden / heads wide."""
    bare = {k: v for k, v in entry("llama-2-7b")["config"].items() if k not in ("num_key_value_heads",)}
    a = read_hf_config(bare, file="c").attention
    assert (a.kv_heads, a.head_dim) == (32, 128)
