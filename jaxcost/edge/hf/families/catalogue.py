"""The model families: names and defaults of their fields, and the kinds of their layers.

A family is an entry of `FAMILIES`, keyed by Hugging Face's `model_type`; `jaxcost.edge.hf.reader` reads a config by its
entry.
"""

from typing import Any

from jaxcost.edge.hf.families.attention import ATTENTION_FAMILIES
from jaxcost.edge.hf.families.dense import DENSE_FAMILIES
from jaxcost.edge.hf.families.linear import LINEAR_FAMILIES
from jaxcost.edge.hf.families.mixture import MIXTURE_FAMILIES
from jaxcost.edge.hf.families.recurrent import RECURRENT_FAMILIES
from jaxcost.edge.hf.fields import ModelFamily
from jaxcost.edge.hf.rules import common as rules, layers as plan

__all__ = ["ALIASES", "DEFAULTS", "FAMILIES"]

# Defaults of Hugging Face's configuration classes (transformers 4.57, `configuration_<model_type>.py`) for missing
# fields. A size has a default here only where released checkpoints omit it, or where it is a head width that the class
# does not derive. Any other size is required, because the default size of a class is that of one checkpoint.
DEFAULTS: dict[str, dict[str, Any]] = {
    "": {
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "moe_layer_freq": 1,
        "decoder_sparse_step": 1,
        "mlp_only_layers": (),
        "num_nextn_predict_layers": 0,
        "zero_expert_num": 0,
        "mamba_rms_norm": True,
        "qk_norm_type": "per_layer",
    },
    "falcon": {
        "tie_word_embeddings": True,
        "hidden_act": "gelu",
        "bias": False,
        "new_decoder_architecture": False,
        "multi_query": True,
        "parallel_attn": True,
    },
    "gemma2": {"tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh", "head_dim": 256},
    # Gemma 3 4B's config.json names neither its heads nor its vocabulary.
    "gemma3_text": {
        "tie_word_embeddings": True,
        "hidden_act": "gelu_pytorch_tanh",
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "sliding_window_pattern": 6,
    },
    "glm4_moe": {"use_qk_norm": False},
    "gpt2": {"tie_word_embeddings": True, "hidden_act": "gelu_new"},
    "gpt_bigcode": {"tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh", "multi_query": True},
    "gpt_neox": {"attention_bias": True, "hidden_act": "gelu"},
    "gpt_oss": {"attention_bias": True, "head_dim": 64},
    "llada": {"include_bias": False, "include_qkv_bias": False, "tie_word_embeddings": True},
    "llama4_text": {"head_dim": 128, "no_rope_layer_interval": 4, "interleave_moe_layer_step": 1},
    "minimax": {"shared_intermediate_size": 0},
    "minimax_m2": {
        "shared_intermediate_size": 0,
        "use_qk_norm": True,
        "qk_norm_type": "per_layer",
        "use_routing_bias": True,
    },
    "opt": {
        "tie_word_embeddings": True,
        "hidden_act": "relu",
        "enable_bias": True,
        "do_layer_norm_before": True,
    },
    "palm": {"tie_word_embeddings": True},
    "phi": {"hidden_act": "gelu_new"},
    "qwen2": {"use_sliding_window": False},
    "qwen2_moe": {"use_sliding_window": False, "qkv_bias": True},
    "qwen3": {"use_sliding_window": False, "head_dim": 128},
    "qwen3_moe": {"use_sliding_window": False},
}


# The reader's names of fields, and the names in families that differ.
_MIXTRAL_NAMES = {
    "num_experts": ("num_local_experts",),
    "moe_intermediate_size": ("intermediate_size",),
}
_ROUTED_NAMES = {"num_experts": ("n_routed_experts",)}
_GEMMA_NAMES = {
    "hidden_act": ("hidden_activation", "hidden_act"),
    "sliding_window_pattern": ("sliding_window_pattern", "_sliding_window_pattern"),
}
_GPT2_NAMES = {
    "hidden_size": ("n_embd",),
    "intermediate_size": ("n_inner",),
    "num_hidden_layers": ("n_layer",),
    "num_attention_heads": ("n_head",),
    "hidden_act": ("activation_function",),
}
_ATTENTION_BIAS: dict[str, Any] = {"qkv_bias": "attention_bias", "out_bias": "attention_bias"}
_LAYER_NORM: dict[str, Any] = {"norm_bias": True, "gated": False}
_GPT2: dict[str, Any] = {
    **_LAYER_NORM,
    "names": _GPT2_NAMES,
    "mixers": plan.full_layers,
    "channels": plan.all_layers("dense"),
    "qkv_bias": True,
    "out_bias": True,
    "mlp_bias": True,
    "position_rows": ("n_positions", 0),
}
_GEMMA: dict[str, Any] = {**_ATTENTION_BIAS, "names": _GEMMA_NAMES, "channels": plan.all_layers("dense")}
_DEEPSEEK: dict[str, Any] = {
    "names": _ROUTED_NAMES,
    "shapes": {"full": {"head_dim": (), "v_head_dim": ()}},
    "mixers": rules.latent_layers,
    "channels": plan.deepseek_channels,
    "shared_width": plan.counted_shared,
}

FAMILIES: dict[str, ModelFamily] = {
    "llama": ModelFamily(
        architectures=("LlamaForCausalLM",),
        kv_heads=plan.as_many_kv_heads,
        mixers=plan.full_layers,
        channels=plan.all_layers("dense"),
        mlp_bias="mlp_bias",
        **_ATTENTION_BIAS,
    ),
    "mistral": ModelFamily(
        architectures=("MistralForCausalLM",),
        mixers=plan.stated_window_layers,
        channels=plan.all_layers("dense"),
    ),
    "mixtral": ModelFamily(
        architectures=("MixtralForCausalLM",),
        names=_MIXTRAL_NAMES,
        mixers=plan.windowed_layers,
        channels=plan.all_layers("experts"),
    ),
    "qwen2": ModelFamily(
        architectures=("Qwen2ForCausalLM",),
        mixers=plan.upper_windowed_layers,
        channels=plan.all_layers("dense"),
        qkv_bias=True,
    ),
    "qwen3": ModelFamily(
        architectures=("Qwen3ForCausalLM",),
        mixers=plan.upper_windowed_layers,
        channels=plan.all_layers("dense"),
        qk_norm="head",
        **_ATTENTION_BIAS,
    ),
    "qwen2_moe": ModelFamily(
        architectures=("Qwen2MoeForCausalLM",),
        mixers=plan.upper_windowed_layers,
        channels=plan.qwen_channels,
        qkv_bias="qkv_bias",
        shared_gate=True,
        shared_width=plan.stated_shared,
    ),
    "qwen3_moe": ModelFamily(
        architectures=("Qwen3MoeForCausalLM",),
        mixers=plan.upper_windowed_layers,
        channels=plan.qwen_channels,
        qk_norm="head",
        **_ATTENTION_BIAS,
    ),
    "deepseek_v2": ModelFamily(architectures=("DeepseekV2ForCausalLM",), **_DEEPSEEK),
    "deepseek_v3": ModelFamily(architectures=("DeepseekV3ForCausalLM",), router_bias=True, **_DEEPSEEK),
    "glm4_moe": ModelFamily(
        architectures=("Glm4MoeForCausalLM",),
        names=_ROUTED_NAMES,
        mixers=plan.full_layers,
        channels=plan.deepseek_channels,
        shared_width=plan.counted_shared,
        qkv_bias="attention_bias",
        qk_norm="head",
        qk_norm_field="use_qk_norm",
        router_bias=True,
    ),
    "gpt_oss": ModelFamily(
        architectures=("GptOssForCausalLM",),
        names={**_MIXTRAL_NAMES, "num_experts_per_tok": ("num_experts_per_tok", "experts_per_token")},
        mixers=plan.alternating_layers,
        channels=plan.all_layers("experts"),
        router_bias=True,
        expert_bias=True,
        sinks=True,
        **_ATTENTION_BIAS,
    ),
    "gemma2": ModelFamily(
        architectures=("Gemma2ForCausalLM",), mixers=plan.alternating_layers, norms_per_block=4, **_GEMMA
    ),
    "gemma3_text": ModelFamily(
        architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"),
        mixers=plan.patterned_layers,
        norms_per_block=4,
        qk_norm="head",
        **_GEMMA,
    ),
    "phi3": ModelFamily(
        architectures=("Phi3ForCausalLM",),
        kv_heads=plan.as_many_kv_heads,
        mixers=plan.windowed_layers,
        channels=plan.all_layers("dense"),
    ),
    "phi": ModelFamily(
        architectures=("PhiForCausalLM",),
        kv_heads=plan.as_many_kv_heads,
        mixers=plan.full_layers,
        channels=plan.all_layers("dense"),
        norms_per_block=1,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        head_bias=True,
        only={"qk_layernorm": False},
        **_LAYER_NORM,
    ),
    "falcon": ModelFamily(
        architectures=("FalconForCausalLM", "RWForCausalLM"),
        names={"intermediate_size": ("ffn_hidden_size",), "hidden_act": ("activation",)},
        mixers=plan.full_layers,
        channels=plan.all_layers("dense"),
        norms_per_block=plan.falcon_norms,
        kv_heads=plan.falcon_kv_heads,
        qkv_bias="bias",
        out_bias="bias",
        mlp_bias="bias",
        **_LAYER_NORM,
    ),
    "opt": ModelFamily(
        architectures=("OPTForCausalLM",),
        kv_heads=plan.as_many_kv_heads,
        names={"intermediate_size": ("ffn_dim",), "hidden_act": ("activation_function",)},
        mixers=plan.full_layers,
        channels=plan.all_layers("dense"),
        qkv_bias="enable_bias",
        out_bias="enable_bias",
        mlp_bias="enable_bias",
        position_rows=("max_position_embeddings", 2),
        **_LAYER_NORM,
    ),
    "gpt2": ModelFamily(architectures=("GPT2LMHeadModel",), kv_heads=plan.as_many_kv_heads, **_GPT2),
    "gpt_bigcode": ModelFamily(
        architectures=("GPTBigCodeForCausalLM",), kv_heads=plan.bigcode_kv_heads, **_GPT2
    ),
    "gpt_neox": ModelFamily(
        architectures=("GPTNeoXForCausalLM",),
        kv_heads=plan.as_many_kv_heads,
        mixers=plan.full_layers,
        channels=plan.all_layers("dense"),
        mlp_bias=True,
        **_ATTENTION_BIAS,
        **_LAYER_NORM,
    ),
    "minimax": ModelFamily(
        architectures=("MiniMaxForCausalLM", "MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"),
        names=_MIXTRAL_NAMES,
        mixers=plan.minimax_mixers,
        shared_width=plan.minimax_shared,
        channels=plan.all_layers("experts"),
        recurrence="lightning",
    ),
    "minimax_m2": ModelFamily(
        architectures=("MiniMaxM2ForCausalLM",),
        names={**_MIXTRAL_NAMES, "num_nextn_predict_layers": ("num_mtp_modules",)},
        mixers=plan.minimax_m2_mixers,
        shared_width=plan.minimax_shared,
        channels=plan.all_layers("experts"),
        qk_norm="width",
        qk_norm_field="use_qk_norm",
        router_bias="use_routing_bias",
    ),
    "llama4_text": ModelFamily(
        architectures=("Llama4ForCausalLM", "Llama4ForConditionalGeneration"),
        names={
            **_MIXTRAL_NAMES,
            "sliding_window": ("attention_chunk_size",),
            "intermediate_size": ("intermediate_size_mlp",),
        },
        mixers=plan.llama4_mixers,
        channels=plan.llama4_channels,
        shared_width=plan.one_shared,
        **_ATTENTION_BIAS,
    ),
    "llada": ModelFamily(
        architectures=("LLaDAModelLM",),
        kv_heads=plan.as_many_kv_heads,
        names={
            "hidden_size": ("d_model",),
            "intermediate_size": ("mlp_hidden_size",),
            "num_hidden_layers": ("n_layers",),
            "num_attention_heads": ("n_heads",),
            "num_key_value_heads": ("n_kv_heads",),
            "vocab_size": ("embedding_size", "vocab_size"),
            "tie_word_embeddings": ("weight_tying",),
            "hidden_act": ("activation_type",),
        },
        mixers=plan.full_layers,
        channels=plan.all_layers("dense"),
        qkv_bias="include_qkv_bias",
        out_bias="include_bias",
        mlp_bias="include_bias",
    ),
    # Without a release: the fields of Llama with PaLM's parallel block of one norm without bias (arXiv:2204.02311).
    "palm": ModelFamily(
        architectures=("PaLMForCausalLM",),
        kv_heads=plan.as_many_kv_heads,
        mixers=plan.full_layers,
        channels=plan.all_layers("dense"),
        norms_per_block=1,
    ),
    **DENSE_FAMILIES,
    **MIXTURE_FAMILIES,
    **ATTENTION_FAMILIES,
    **RECURRENT_FAMILIES,
    **LINEAR_FAMILIES,
}

ALIASES = {
    "RefinedWebModel": "falcon",
    "Yi": "llama",
    "aquila": "llama",
    "skywork": "llama",
    "stablelm_epoch": "stablelm",
    "apertus1p5_text": "apertus",
    "deepseek_vl_v2_text": "deepseek_v2",
    "emu3_text_model": "llama",
    "glm46v_text": "glm4",
    "glm4v_moe_text": "glm4_moe",
    "glm4v_text": "glm4",
    "qwen2_5_omni_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_omni_moe_text": "qwen3_moe",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_vl_text": "qwen3",
    "bailing_moe_v2": "bailing_moe",
    "gpt-sw3": "gpt2",
    "youtu_llm": "youtu",
    "gemma3": "gemma3_text",
    "kimi_k2": "deepseek_v3",
    "llama4": "llama4_text",
    "minimax_m1": "minimax",
    "minimax_text_01": "minimax",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "kimi_k3": "kimi_linear",
    "mimo_v2": "mimo_v2_flash",
    "minimax_m3": "minimax_m3_vl_text",
    "minimax_m3_text": "minimax_m3_vl_text",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "mllama_text_model": "mllama",
    "muse_glimmer": "muse_glimmer_text",
    "muse_spark": "muse_spark_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "step3p7": "step3p5",
    "hunyuan": "hunyuan_v1_moe",
    "gemma4_unified": "gemma4_unified_text",
    "glm5_next": "glm5_next_text",
    "qwen4_exp": "qwen4_exp_text",
}
