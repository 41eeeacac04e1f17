"""Types that no family of the reader names: read by their fields, refused with strict or where a field contradicts."""

import json
from pathlib import Path
from typing import Any

import pytest

from jaxcost.edge.hf.reader import read_checkpoint
from jaxcost.edge.io.errors import InputError
from jaxcost.physics.compute.shards import total_parameters

RELEASED = Path(__file__).parent / "configs"


def released(name: str) -> dict[str, Any]:
    """Return a config of the tests' folder."""
    return json.loads((RELEASED / f"{name}.json").read_text())


PLAIN = {
    "model_type": "someone_new",
    "architectures": ["SomeoneNewForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "hidden_act": "silu",
    "rope_theta": 5e5,
    "bos_token_id": 1,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 8192,
    "unheard_of_factor": 3,
}
SPARSE = {
    **PLAIN,
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "vocab_size": 151936,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "use_qk_norm": True,
}
LATENT = {
    **released("kimi-vl-a3b")["text_config"],
    "model_type": "someone_new",
}


@pytest.mark.parametrize(
    ("config", "like"),
    [
        (PLAIN, {"model_type": "llama"}),
        (SPARSE, {"model_type": "qwen3_moe"}),
        (LATENT, {"model_type": "deepseek_v3"}),
    ],
)
def test_unknown_type_is_read_by_its_fields(config: dict, like: dict) -> None:
    """A type that no family names is read like the family whose fields it has."""
    read = read_checkpoint(config, file="c")
    twin = read_checkpoint({**config, **like}, file="c").model
    assert read.family == ""
    assert float(total_parameters(read.model)) == pytest.approx(float(total_parameters(twin)), rel=1e-6)
    assert read.notes[0].startswith("'someone_new' is not known; read as ")
    assert "compare with the published count" in read.notes[0]


def test_ignored_fields_are_listed() -> None:
    """Fields that change no weights of the layout are named; fields of tokens and positions are not."""
    assert read_checkpoint(PLAIN, file="c").notes[1] == "ignored fields: unheard_of_factor"


def test_assumptions_are_said() -> None:
    """What a config leaves out, and what is taken for it, is said."""
    bare = {k: v for k, v in PLAIN.items() if k != "num_key_value_heads"}
    assert read_checkpoint(bare, file="c").notes[2:] == (
        "num_key_value_heads is not stated: taken as the number of query heads",
        "tie_word_embeddings is not stated: taken as false",
    )


def test_count_is_in_the_note() -> None:
    """The count to compare is that of the model."""
    assert "8.03B parameters, 8.03B of them active" in read_checkpoint(PLAIN, file="c").notes[0]


def test_strict_refuses_an_unknown_type() -> None:
    """With strict, the type is an error; a known type is not."""
    with pytest.raises(InputError, match="model_type: got 'someone_new'; expected one of"):
        read_checkpoint(PLAIN, file="c", strict=True)
    assert read_checkpoint(released("olmo-2-7b"), file="c", strict=True).family == "olmo2"


def test_known_class_of_an_unknown_type() -> None:
    """The class names the family where the type does not, and that is said."""
    config = {**PLAIN, "architectures": ["LlamaForCausalLM"]}
    read = read_checkpoint(config, file="c")
    assert (read.family, read.notes) == (
        "llama",
        ("model_type 'someone_new' is not known; read as llama, by the class LlamaForCausalLM",),
    )


def test_known_text_of_an_unknown_type() -> None:
    """A known language model is read from an unknown multimodal type, and what is left out is said."""
    text = {k: v for k, v in released("olmo-2-7b").items() if k != "architectures"}
    config = {"model_type": "someone_vl", "text_config": text, "vision_config": {"hidden_size": 8}}
    read = read_checkpoint(config, file="c")
    assert read.family == "olmo2"
    assert read.notes == (
        "model_type 'someone_vl' is not known; its text_config is read as olmo2",
        "vision_config is not counted: its encoder is not described",
    )
    assert float(total_parameters(read.model)) == pytest.approx(7.2986e9, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": 4097}, "hidden_size"),
        ({"num_key_value_heads": 7}, "num_key_value_heads"),
        ({"layer_types": ["full_attention"] * 31 + ["linear_attention"]}, "layer_types"),
        ({"mamba_d_state": 128}, "mamba_d_state"),
        ({"index_topk": 2048}, "index_topk"),
        ({"conv_kernel": 4}, "conv_kernel"),
        ({"memory_config": {"slots": 4}}, "memory_config"),
        ({"experts": {"count": 4}}, "experts"),
        ({"num_experts": 8}, "num_experts_per_tok"),
        ({"kv_lora_rank": 512}, "q_lora_rank"),
        ({"model_type": "jetmoe"}, "model_type"),
        ({"hidden_act": "someone_act"}, "hidden_act"),
    ],
)
def test_field_that_contradicts_the_layout(changes: dict, field: str) -> None:
    """An unknown type with a field of another layout, or without a size, is refused with that field."""
    with pytest.raises(InputError) as caught:
        read_checkpoint({**PLAIN, **changes}, file="config.json")
    assert str(caught.value).startswith(f"config.json: {field}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["lama", "mistarl", "quen3", "gemm", "deepsek_v3"])
def test_misspelled_type_is_refused(name: str) -> None:
    """A type that differs from a known one in a letter is a misspelling."""
    with pytest.raises(InputError, match="did you mean"):
        read_checkpoint({**PLAIN, "model_type": name}, file="c")


@pytest.mark.parametrize("name", ["llama5", "qwen9", "gemma7_text", "olmo12", "minicpmv"])
def test_next_version_is_read(name: str) -> None:
    """A type that differs from a known one in digits is another version, not a misspelling."""
    assert read_checkpoint({**PLAIN, "model_type": name}, file="c").family == ""
