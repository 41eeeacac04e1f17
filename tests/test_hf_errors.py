"""Bad configs: each gives one line that names the file, the field, what was given and what was expected."""

import copy
import math
from pathlib import Path
from typing import Any

import jax
import pytest
from hypothesis import given, settings, strategies as st
from ruamel.yaml import YAML

from jaxcost.edge.hf.fields import KNOWN, Fields
from jaxcost.edge.hf.reader import read_hf_config
from jaxcost.edge.io.errors import InputError

CATALOG = Path(__file__).parents[1] / "configs" / "models"
CONFIGS = {
    path.stem: YAML(typ="safe", pure=True).load(path)["config"] for path in sorted(CATALOG.glob("*.yaml"))
}
DROP = object()


def changed(name: str, changes: dict[str, Any]) -> dict:
    """Copy a catalogue config with dotted fields set, or dropped."""
    config = copy.deepcopy(CONFIGS[name])
    for path, value in changes.items():
        *outer, last = path.split(".")
        target = config
        for part in outer:
            target = target[part]
        if value is DROP:
            del target[last]
        else:
            target[last] = value
    return config


# model, what is wrong with it, the field the error names, and words its line holds
BAD = [
    ("llama-3.1-8b", {"hidden_size": DROP}, "hidden_size", "missing"),
    ("llama-3.1-8b", {"hidden_size": None}, "hidden_size", "null"),
    ("llama-3.1-8b", {"hidden_size": "4096"}, "hidden_size", "got '4096'"),
    ("llama-3.1-8b", {"hidden_size": 4096.5}, "hidden_size", "got 4096.5"),
    ("llama-3.1-8b", {"hidden_size": True}, "hidden_size", "got True"),
    ("llama-3.1-8b", {"hidden_size": 0}, "hidden_size", "got 0"),
    ("llama-3.1-8b", {"hidden_size": 4097}, "hidden_size", "multiple of num_attention_heads 32"),
    ("llama-3.1-8b", {"hidden_size": [4096]}, "hidden_size", "got [4096]"),
    ("llama-3.1-8b", {"num_hidden_layers": -1}, "num_hidden_layers", "got -1"),
    ("llama-3.1-8b", {"num_hidden_layers": 10**9}, "num_hidden_layers", "to 10000"),
    ("llama-3.1-8b", {"vocab_size": 10**30}, "vocab_size", "a whole number"),
    ("llama-3.1-8b", {"vocab_size": DROP}, "vocab_size", "missing"),
    ("llama-3.1-8b", {"num_key_value_heads": 5}, "num_key_value_heads", "a divisor of the 32"),
    ("llama-3.1-8b", {"num_key_value_heads": 64}, "num_key_value_heads", "a divisor of the 32"),
    (
        "llama-3.1-8b",
        {"num_key_value_heads": DROP, "num_key_value_head": 8},
        "num_key_value_head",
        "did you mean 'num_key_value_heads'?",
    ),
    (
        "llama-3.1-8b",
        {"intermediate_size": DROP, "intermediate": 14336},
        "intermediate_size",
        "did you mean 'intermediate'?",
    ),
    ("llama-3.1-8b", {"hidden_act": "silou"}, "hidden_act", "did you mean 'silu'?"),
    ("llama-3.1-8b", {"tie_word_embeddings": "no"}, "tie_word_embeddings", "true or false"),
    ("llama-3.1-8b", {"tie_word_embeddings": 1}, "tie_word_embeddings", "true or false"),
    ("llama-3.1-8b", {"attention_bias": 0}, "attention_bias", "true or false"),
    ("llama-3.1-8b", {"model_type": "lama"}, "model_type", "did you mean 'llama'?"),
    ("llama-3.1-8b", {"model_type": 3}, "model_type", "got 3"),
    ("llama-3.1-8b", {"model_type": ["llama"]}, "model_type", "got ['llama']"),
    (
        "llama-3.1-8b",
        {"model_type": DROP, "architectures": ["LlamaForCasualLM"]},
        "architectures",
        "did you mean 'LlamaForCausalLM'?",
    ),
    ("llama-3.1-8b", {"model_type": DROP, "architectures": []}, "architectures", "one class name"),
    ("llama-3.1-8b", {"model_type": DROP, "architectures": DROP}, "model_type", "config.json"),
    ("llama-3.1-8b", {"vision_config": {"model_type": "clip"}}, "vision_config", "got 'clip'"),
    ("mistral-7b", {"sliding_window": DROP}, "sliding_window", "or null, but the field is missing"),
    ("mistral-7b", {"num_key_value_heads": DROP}, "num_key_value_heads", "missing"),
    ("mistral-7b", {"sliding_window": -4096}, "sliding_window", "got -4096"),
    ("qwen2.5-7b", {"use_sliding_window": True}, "max_window_layers", "missing"),
    (
        "qwen2.5-7b",
        {"layer_types": ["sliding_attention"] * 28},
        "sliding_window",
        "missing",
    ),
    ("qwen2.5-7b", {"layer_types": ["full_attention"] * 27}, "layer_types", "28 entries"),
    ("qwen2.5-7b", {"layer_types": ["full_atention"] * 28}, "layer_types", "'full_attention'?"),
    ("qwen2.5-7b", {"layer_types": ["linear_attention"] * 28}, "layer_types", "linear_attention"),
    ("qwen2.5-7b", {"layer_types": [None] * 28}, "layer_types", "entries among"),
    ("qwen3-30b-a3b", {"num_experts_per_tok": 129}, "num_experts_per_tok", "at most num_experts, 128"),
    ("qwen3-30b-a3b", {"num_experts": 0}, "num_experts", "got 0"),
    ("qwen3-30b-a3b", {"decoder_sparse_step": 0}, "decoder_sparse_step", "got 0"),
    ("qwen3-30b-a3b", {"mlp_only_layers": [48]}, "mlp_only_layers", "from 0 to 47"),
    ("qwen3-30b-a3b", {"mlp_only_layers": [0]}, "intermediate_size", "missing"),
    ("mixtral-8x7b", {"num_local_experts": DROP}, "num_local_experts", "missing"),
    ("deepseek-v3", {"kv_lora_rank": DROP}, "kv_lora_rank", "field is missing"),
    ("deepseek-v3", {"q_lora_rank": DROP}, "q_lora_rank", "or null, but the field is missing"),
    ("deepseek-v3", {"n_shared_experts": DROP}, "n_shared_experts", "missing"),
    ("deepseek-v3", {"moe_layer_freq": 0}, "moe_layer_freq", "got 0"),
    ("deepseek-v3", {"first_k_dense_replace": -1}, "first_k_dense_replace", "got -1"),
    ("deepseek-v3", {"n_shared_experts": "one"}, "n_shared_experts", "got 'one'"),
    ("gpt-oss-20b", {"sliding_window": None}, "sliding_window", "null"),
    ("gemma-3-27b", {"text_config": 5}, "text_config", "a mapping"),
    ("gemma-3-27b", {"text_config.num_hidden_layers": DROP}, "text_config.num_hidden_layers", "missing"),
    ("gemma-3-27b", {"text_config.model_type": "llama"}, "text_config.model_type", "gemma3_text"),
    ("gemma-3-27b", {"vision_config.patch_size": 15}, "vision_config.patch_size", "a divisor"),
    ("gemma-3-27b", {"vision_config.hidden_size": None}, "vision_config.hidden_size", "null"),
    ("gemma-3n-e4b", {"text_config.num_kv_shared_layers": 35}, "text_config.num_kv_shared_layers", "got 35"),
    (
        "gemma-3n-e4b",
        {"text_config.intermediate_size": [16384] * 34 + [8192]},
        "text_config.intermediate_size",
        "the same in every layer",
    ),
    ("llama-4-scout", {"text_config.attention_chunk_size": DROP}, "text_config.attention_chunk_size", "null"),
    ("llama-4-scout", {"text_config.no_rope_layers": [1] * 47}, "text_config.no_rope_layers", "48 entries"),
    ("llama-4-scout", {"text_config.no_rope_layers": [2] * 48}, "text_config.no_rope_layers", "among 0, 1"),
    ("llama-4-scout", {"text_config.moe_layers": [-1]}, "text_config.moe_layers", "from 0 to 47"),
    ("llama-4-scout", {"vision_config.pixel_shuffle_ratio": 0}, "vision_config.pixel_shuffle_ratio", "got 0"),
    ("jamba-1.5-mini", {"attn_layer_offset": 8}, "attn_layer_offset", "below attn_layer_period 8"),
    ("jamba-1.5-mini", {"mamba_proj_bias": "yes"}, "mamba_proj_bias", "true or false"),
    ("mamba-2-2.7b", {"expand": 3}, "expand", "5120 / 2560"),
    ("mamba-2-2.7b", {"n_groups": 3}, "n_groups", "a divisor of the 80"),
    ("nemotron-h-8b", {"hybrid_override_pattern": "M*-"}, "hybrid_override_pattern", "52 letters"),
    ("nemotron-h-8b", {"hybrid_override_pattern": "X" * 52}, "hybrid_override_pattern", "M * - E"),
    ("nemotron-h-8b", {"hybrid_override_pattern": DROP}, "hybrid_override_pattern", "missing"),
    ("nemotron-3-nano-30b-a3b", {"moe_latent_size": -1}, "moe_latent_size", "got -1"),
    ("minimax-text-01", {"attn_type_list": [0, 1]}, "attn_type_list", "got '2 entries'"),
    ("minimax-text-01", {"attn_type_list": [2] * 80}, "attn_type_list", "among 0, 1"),
    ("minimax-m2", {"attn_type_list": [0] * 62}, "attn_type_list", "among 1"),
    ("minimax-m2", {"qk_norm_type": "per_token"}, "qk_norm_type", "per_layer, per_head"),
    ("qwen3.5-397b-a17b", {"text_config.attn_output_gate": False}, "text_config.attn_output_gate", "true"),
    ("qwen3-next-80b-a3b", {"linear_num_key_heads": 5}, "linear_num_key_heads", "a divisor of the 32"),
    ("opt-66b", {"word_embed_proj_dim": 512}, "word_embed_proj_dim", "the hidden size"),
    ("opt-66b", {"max_position_embeddings": DROP}, "max_position_embeddings", "missing"),
    ("falcon-180b", {"num_kv_heads": 7}, "num_kv_heads", "a divisor of the 232"),
    ("gpt-3-175b", {"n_layer": "96"}, "n_layer", "got '96'"),
    ("llada-8b", {"d_model": DROP}, "d_model", "missing"),
    ("phi-2", {"qk_layernorm": True}, "qk_layernorm", "the only variant"),
]


@pytest.mark.parametrize(("name", "changes", "field", "words"), BAD)
def test_bad_config(name: str, changes: dict, field: str, words: str) -> None:
    """The error is one line that begins with the file and the field."""
    with pytest.raises(InputError) as caught:
        read_hf_config(changed(name, changes), file="config.json")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"config.json: {field}: ")
    assert "expected" in line
    assert words in line


@pytest.mark.parametrize("config", [None, 5, "llama", [], {}, {"quantization_config": {"bits": 4}}])
def test_not_a_model_config(config: Any) -> None:
    """What is no model's config at all is refused in one line too."""
    with pytest.raises(InputError) as caught:
        read_hf_config(config, file="config.json")
    assert str(caught.value).startswith("config.json: ")
    assert "\n" not in str(caught.value)


def test_quantised_model_is_read() -> None:
    """A quantisation beside the sizes changes no count."""
    config = {**CONFIGS["llama-3.1-8b"], "quantization_config": {"quant_method": "fp8"}}
    plain = read_hf_config(CONFIGS["llama-3.1-8b"], file="c")
    leaves = jax.tree_util.tree_leaves
    assert leaves(read_hf_config(config, file="c")) == leaves(plain)


def test_every_field_read_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of fields that are no misspellings holds every field the catalogue is asked for."""
    asked = set()
    name = Fields.name
    monkeypatch.setattr(Fields, "name", lambda self, field: asked.add(name(self, field)) or name(self, field))
    for config in CONFIGS.values():
        read_hf_config(config, file="c")
    assert asked <= KNOWN


def test_input_is_not_changed() -> None:
    """Reading leaves the mapping as it was."""
    for config in CONFIGS.values():
        before = copy.deepcopy(config)
        read_hf_config(config, file="c")
        assert config == before


def fields_of(config: dict, prefix: str = "") -> list[str]:
    """List the dotted fields of a config."""
    inner = [p for k, v in config.items() if isinstance(v, dict) for p in fields_of(v, f"{prefix}{k}.")]
    return [f"{prefix}{k}" for k in config] + inner


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.integers(),
    st.floats(),
    st.sampled_from(["", "llama", "relu2", "auto", "full_attention", "M" * 52]),
    st.text(max_size=3),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.text(max_size=3), SCALARS, max_size=2),
    st.just(DROP),
)


@settings(derandomize=True, max_examples=200, deadline=None, database=None)
@given(data=st.data())
def test_mutations_give_a_model_or_one_line(data: st.DataObject) -> None:
    """Any field dropped or replaced gives a model of finite numbers or an InputError, and nothing else."""
    name = data.draw(st.sampled_from(sorted(CONFIGS)))
    paths = data.draw(
        st.lists(st.sampled_from(fields_of(CONFIGS[name])), min_size=1, max_size=3, unique=True)
    )
    apart = [p for p in paths if not any(p.startswith(f"{q}.") for q in paths)]
    config = changed(name, {path: data.draw(VALUES) for path in apart})
    try:
        model = read_hf_config(config, file="config.json")
    except InputError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("config.json: ")
        return
    assert all(math.isfinite(leaf) and leaf >= 0 for leaf in jax.tree_util.tree_leaves(model))
    assert model.hidden > 0
    assert model.vocabulary > 0
