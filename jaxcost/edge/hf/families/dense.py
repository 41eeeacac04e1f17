"""Families of decoders with one kind of attention and a dense feed-forward; a row states what differs from Llama."""

from typing import Any

from jaxcost.edge.hf.fields import Fields, ModelFamily
from jaxcost.edge.hf.rules import common as rules, layers as plan
from jaxcost.spec.model import Model

__all__ = ["DECODER", "DENSE_FAMILIES", "decoder"]

# Llama's layout: two norms, grouped heads, a gated feed-forward, biases as stated.
DECODER: dict[str, Any] = {
    "mixers": plan.full_layers,
    "channels": plan.all_layers("dense"),
    "kv_heads": plan.as_many_kv_heads,
    "qkv_bias": "attention_bias",
    "out_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
}


def decoder(*architectures: str, **differences: Any) -> ModelFamily:
    """Return a family that differs from Llama's layout in the given properties."""
    return ModelFamily(architectures=architectures, **{**DECODER, **differences})


_TIED = {"tie_word_embeddings": True}
_BIASED: dict[str, Any] = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
_NO_BIAS: dict[str, Any] = {"qkv_bias": False, "out_bias": False, "mlp_bias": False}
_NO_MLP_BIAS: dict[str, Any] = {"mlp_bias": False}
_LAYER_NORM: dict[str, Any] = {"norm_bias": True, "gated": False}
_LATENT: dict[str, Any] = {"mixers": plan.all_layers("latent")}
# GPT-J and its kin run attention and feed-forward in parallel on one norm; only the feed-forward has biases.
_GPTJ: dict[str, Any] = {
    **_LAYER_NORM,
    "norms_per_block": 1,
    "qkv_bias": False,
    "out_bias": False,
    "mlp_bias": True,
    "head_bias": True,
    "defaults": {"hidden_act": "gelu_new", "intermediate_size": rules.times_hidden(4)},
}


def _heads(f: Fields) -> int:
    return f.size("num_attention_heads")


def _sublayer_norms(f: Fields, model: Model) -> dict[str, float]:
    """Count BitNet's scales before the output projections of attention and feed-forward."""
    return {"small_parameters": f.layers() * (f.size("hidden_size") + f.size("intermediate_size"))}


def _peri_norms(f: Fields) -> int:
    return 4 if f.flag("use_post_norm") else 2


DENSE_FAMILIES: dict[str, ModelFamily] = {
    "apertus": decoder(
        "ApertusForCausalLM",
        **_NO_MLP_BIAS,
        gated=False,
        qk_norm="head",
        extras=lambda f, model: {"small_parameters": 2 * model.feed_forward.layers},  # slopes of xIELU
        defaults={"hidden_act": "xielu"},
    ),
    "arcee": decoder("ArceeForCausalLM", gated=False, defaults={"hidden_act": "relu2"}),
    "baichuan": decoder("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    "biogpt": decoder(
        "BioGptForCausalLM",
        **_BIASED,
        **_LAYER_NORM,
        position_rows=("max_position_embeddings", 2),
        defaults={**_TIED, "hidden_act": "gelu"},
    ),
    "bitnet": decoder(
        "BitNetForCausalLM",
        "BitnetForCausalLM",
        **_NO_MLP_BIAS,
        extras=_sublayer_norms,
        defaults={"num_key_value_heads": 5, "hidden_act": "relu2"},
    ),
    # A norm follows the embedding.
    "bloom": decoder(
        "BloomForCausalLM",
        **_BIASED,
        **_LAYER_NORM,
        further_norms=2,
        names={"num_key_value_heads": ()},
        defaults={**_TIED, "hidden_act": "gelu", "intermediate_size": rules.times_hidden(4)},
    ),
    "chatglm": decoder(
        "ChatGLMModel",
        "ChatGLMForConditionalGeneration",
        names={"num_key_value_heads": ("multi_query_group_num",)},
        kv_heads=lambda f: f.size("multi_query_group_num") if f.flag("multi_query_attention") else _heads(f),
        qkv_bias="add_qkv_bias",
        out_bias="add_bias_linear",
        mlp_bias="add_bias_linear",
        only={"rmsnorm": True, "post_layer_norm": True},
        defaults={"add_qkv_bias": False, "add_bias_linear": False, "multi_query_attention": False},
    ),
    "codegen": decoder("CodeGenForCausalLM", **_GPTJ),
    "cohere": decoder(
        "CohereForCausalLM",
        **_NO_MLP_BIAS,
        norms_per_block=1,
        qk_norm="width",
        qk_norm_field="use_qk_norm",
        defaults={**_TIED, "use_qk_norm": False},
    ),
    "cohere2": decoder(
        "Cohere2ForCausalLM",
        **_NO_MLP_BIAS,
        norms_per_block=1,
        mixers=rules.patterned_windows,
        defaults={"sliding_window": 4096, **_TIED, "sliding_window_pattern": 4},
    ),
    "cwm": decoder(
        "CwmForCausalLM",
        qkv_bias=False,
        out_bias=False,
        mixers=rules.first_of_period(4),
        defaults={"sliding_window": 8192, "num_key_value_heads": 8, "head_dim": 128},
    ),
    "ernie4_5": decoder(
        "Ernie4_5ForCausalLM",
        "Ernie4_5_ForCausalLM",
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        defaults={"num_key_value_heads": 2, **_TIED, "use_bias": False, "head_dim": 128},
    ),
    "exaone": decoder(
        "ExaoneForCausalLM",
        defaults={"num_key_value_heads": 8},
    ),
    "exaone4": decoder(
        "Exaone4ForCausalLM",
        **_NO_BIAS,
        mixers=rules.patterned_windows,
        qk_norm="head",
        defaults={"sliding_window": 4096, "num_key_value_heads": 32, "sliding_window_pattern": 4},
    ),
    "gemma": decoder(
        "GemmaForCausalLM",
        **_NO_MLP_BIAS,
        defaults={"num_key_value_heads": 16, **_TIED, "hidden_act": "gelu_pytorch_tanh", "head_dim": 256},
        nested_defaults={
            "vocab_size": 256000,
            "hidden_size": 3072,
            "intermediate_size": 24576,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
        },
    ),
    "glm": decoder(
        "GlmForCausalLM",
        out_bias=False,
        mlp_bias=False,
        defaults={"num_key_value_heads": 2, "attention_bias": True},
    ),
    "glm4": decoder(
        "Glm4ForCausalLM",
        norms_per_block=4,
        out_bias=False,
        mlp_bias=False,
        defaults={"num_key_value_heads": 2, "attention_bias": True},
    ),
    "gpt_neo": decoder(
        "GPTNeoForCausalLM",
        **_LAYER_NORM,
        mixers=rules.neo_layers,
        qkv_bias=False,
        out_bias=True,
        mlp_bias=True,
        names={"sliding_window": ("window_size",), "num_key_value_heads": ()},
        position_rows=("max_position_embeddings", 0),
        defaults={**_TIED, "hidden_act": "gelu_new", "intermediate_size": rules.times_hidden(4)},
    ),
    "gptj": decoder("GPTJForCausalLM", **_GPTJ),
    "granite": decoder("GraniteForCausalLM"),
    "granite_swa": decoder(
        "GraniteSWAForCausalLM",
        mixers=rules.first_of_period(4),
        sinks=True,
        defaults={"sliding_window": 128, **_TIED, "num_key_value_heads": 4},
    ),
    "helium": decoder(
        "HeliumForCausalLM", out_bias=False, defaults={"num_key_value_heads": 20, "head_dim": 128}
    ),
    "hunyuan_v1_dense": decoder(
        "HunYuanDenseV1ForCausalLM",
        **_NO_MLP_BIAS,
        qk_norm="head",
        qk_norm_field="use_qk_norm",
        defaults={"use_qk_norm": True},
    ),
    "hyperclovax": decoder(
        "HyperCLOVAXForCausalLM", norms_per_block=_peri_norms, defaults={"use_post_norm": True}
    ),
    "internlm": decoder(
        "InternLMForCausalLM", qkv_bias="bias", out_bias="bias", mlp_bias=False, defaults={"bias": True}
    ),
    "internlm2": decoder(
        "InternLM2ForCausalLM", qkv_bias="bias", out_bias="bias", mlp_bias=False, defaults={"bias": True}
    ),
    "internlm3": decoder(
        "InternLM3ForCausalLM",
        qkv_bias="qkv_bias",
        out_bias="bias",
        mlp_bias="bias",
        defaults={"num_key_value_heads": 2, "qkv_bias": False, "bias": False, "head_dim": 128},
    ),
    "iquestcoder": decoder("IQuestCoderForCausalLM", defaults={"num_key_value_heads": 8, "head_dim": 128}),
    "jais2": decoder(
        "Jais2ForCausalLM",
        **_LAYER_NORM,
        defaults={"hidden_act": "relu2", "attention_bias": True, "mlp_bias": True},
    ),
    "mimo": decoder(
        "MiMoForCausalLM",
        mixers=plan.upper_windowed_layers,
        out_bias=False,
        mlp_bias=False,
        defaults={"attention_bias": True, "use_sliding_window": False},
    ),
    "minicpm": decoder("MiniCPMForCausalLM", only={"num_experts": 0}, defaults=_TIED),
    "minicpm3": decoder(
        "MiniCPM3ForCausalLM", **_LATENT, defaults={**_TIED, "v_head_dim": rules.hidden_over_heads}
    ),
    "ministral": decoder(
        "MinistralForCausalLM",
        defaults={"sliding_window": 4096, "num_key_value_heads": 8},
        **_NO_BIAS,
        mixers=rules.windowed_layers,
    ),
    "ministral3": decoder(
        "Ministral3ForCausalLM",
        **_NO_BIAS,
        mixers=rules.windowed_layers,
        defaults={"num_key_value_heads": 8, "head_dim": 128},
    ),
    "mpt": decoder(
        "MPTForCausalLM",
        "MptForCausalLM",
        gated=False,
        **_NO_BIAS,
        names={"intermediate_size": (), "num_key_value_heads": ()},
        only={
            "no_bias": True,
            "attn_config.alibi": True,
            "attn_config.qk_ln": False,
            "attn_config.attn_type": "multihead_attention",
        },
        defaults={
            **_TIED,
            "hidden_act": "gelu",
            "expansion_ratio": 4,
            "intermediate_size": rules.times_hidden("expansion_ratio"),
        },
    ),
    "nanochat": decoder(
        "NanoChatForCausalLM", **_NO_MLP_BIAS, gated=False, norm_scale=False, defaults={"hidden_act": "relu2"}
    ),
    "nemotron": decoder("NemotronForCausalLM", **_LAYER_NORM, defaults={"hidden_act": "relu2"}),
    "olmo": decoder("OlmoForCausalLM", **_NO_MLP_BIAS, norm_scale=False),
    "olmo2": decoder("Olmo2ForCausalLM", **_NO_MLP_BIAS, qk_norm="width"),
    "olmo3": decoder(
        "Olmo3ForCausalLM",
        **_NO_MLP_BIAS,
        qk_norm="width",
        mixers=rules.patterned_windows,
        defaults={"sliding_window": 4096, "sliding_window_pattern": 4},
    ),
    "orion": decoder("OrionForCausalLM", norm_bias=True),
    "persimmon": decoder(
        "PersimmonForCausalLM",
        **_BIASED,
        **_LAYER_NORM,
        qk_norm="head_bias",
        qk_norm_field="qk_layernorm",
        names={"head_dim": (), "num_key_value_heads": ()},
        defaults={"hidden_act": "relu2", "qk_layernorm": True},
    ),
    "phi3small": decoder(
        "Phi3SmallForCausalLM",
        **_BIASED,
        norm_bias=True,
        defaults={**_TIED, "hidden_act": "gegelu"},
        note="its block-sparse attention is read as full attention: the cache is the same, the work more",
    ),
    "qwen": decoder(
        "QWenLMHeadModel",
        qkv_bias=True,
        out_bias=False,
        mlp_bias=False,
        names={"intermediate_size": (), "num_key_value_heads": ()},
        only={"no_bias": True},
        defaults={"intermediate_size": rules.half("intermediate_size")},
    ),
    "seed_oss": decoder(
        "SeedOssForCausalLM",
        out_bias="attention_out_bias",
        defaults={
            "num_key_value_heads": 8,
            "attention_bias": True,
            "attention_out_bias": False,
            "head_dim": 128,
        },
    ),
    "smollm3": decoder(
        "SmolLM3ForCausalLM",
        defaults={**_TIED, "num_key_value_heads": 4},
        nested_defaults={**_TIED, "num_key_value_heads": 4},
    ),
    "stablelm": decoder(
        "StableLmForCausalLM",
        "StableLMEpochForCausalLM",
        names={"head_dim": ()},
        norm_bias=True,
        norms_per_block=rules.parallel_norms,
        qkv_bias="use_qkv_bias",
        out_bias=False,
        mlp_bias=False,
        qk_norm="width",
        qk_norm_field="qk_layernorm",
        defaults={
            "num_key_value_heads": 32,
            "use_qkv_bias": False,
            "qk_layernorm": False,
            "use_parallel_residual": False,
        },
    ),
    "starcoder2": decoder(
        "Starcoder2ForCausalLM",
        **_LAYER_NORM,
        mixers=rules.windowed_layers,
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        defaults={"num_key_value_heads": 2, **_TIED, "hidden_act": "gelu_pytorch_tanh", "use_bias": True},
    ),
    "vaultgemma": decoder(
        "VaultGemmaForCausalLM",
        **_NO_MLP_BIAS,
        mixers=plan.alternating_layers,
        defaults={
            "sliding_window": 4096,
            "num_key_value_heads": 4,
            **_TIED,
            "hidden_act": "gelu_pytorch_tanh",
            "head_dim": 256,
        },
    ),
    "xglm": decoder("XGLMForCausalLM", **_BIASED, **_LAYER_NORM, defaults={**_TIED, "hidden_act": "gelu"}),
    "xverse": decoder("XverseForCausalLM"),
    # The released config of Youtu-LLM leaves out what its class has as defaults.
    "youtu": decoder(
        "YoutuForCausalLM",
        "YoutuLLMForCausalLM",
        **_LATENT,
        defaults={
            **_TIED,
            "num_attention_heads": 16,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
        },
    ),
}
