"""Families with linear attention: the gated delta rule, Kimi delta attention and RWKV-7.

Facts: the configuration and modelling files of the same names in transformers 5.24 and vLLM, November 2026,
and of `fla` for RWKV-7.
"""

from typing import Any

from jaxcost.edge.hf.fields import ModelFamily
from jaxcost.edge.hf.rules import layers as plan, recurrent as rule

__all__ = ["LINEAR_FAMILIES"]

_BIAS: dict[str, Any] = {"qkv_bias": "attention_bias", "out_bias": "attention_bias"}
_EXPERTS_AFTER_DENSE = plan.listed_channels(plan.deepseek_channels)
_DELTA: dict[str, Any] = {
    **_BIAS,
    "mixers": plan.linear_layers,
    "recurrence": "gated_delta",
    "query_outputs": 2,
    "qk_norm": "head",
}
_KIMI: dict[str, Any] = {
    "mixers": rule.kimi_mixers,
    "channels": _EXPERTS_AFTER_DENSE,
    "router_bias": True,
    "shared_width": rule.shared_or_none,
    "names": {
        "moe_latent_size": ("routed_expert_hidden_size",),
        "kda_layers": ("linear_attn_config.kda_layers",),
        "use_full_rank_gate": ("linear_attn_config.use_full_rank_gate",),
        "linear_num_heads": ("linear_attn_config.num_heads", "linear_num_heads"),
        "linear_head_dim": ("linear_attn_config.head_dim", "linear_head_dim"),
        "linear_conv_kernel_dim": (
            "linear_attn_config.short_conv_kernel_size",
            "linear_conv_kernel_dim",
            "short_conv_kernel_size",
        ),
    },
}
_DELTA_DEFAULTS = {"full_attention_interval": 4, "head_dim": 256}
_KIMI_DEFAULTS: dict[str, Any] = {
    "q_lora_rank": 0,
    "n_shared_experts": 0,
    "num_experts_per_tok": lambda f: min(8, f.size("num_experts")),
    "mla_use_output_gate": False,
    "latent_moe_use_norm": False,
    "use_full_rank_gate": False,
    "linear_conv_kernel_dim": 4,
    "first_k_dense_replace": 1,
}

LINEAR_FAMILIES: dict[str, ModelFamily] = {
    "qwen3_next": ModelFamily(
        architectures=("Qwen3NextForCausalLM",),
        channels=plan.qwen_channels,
        shared_gate=True,
        shared_width=plan.stated_shared,
        **_DELTA,
        defaults=_DELTA_DEFAULTS,
    ),
    "qwen3_5_moe_text": ModelFamily(
        architectures=("Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"),
        channels=plan.qwen_channels,
        shared_gate=True,
        shared_width=plan.stated_shared,
        **_DELTA,
        defaults=_DELTA_DEFAULTS,
    ),
    "qwen3_5_text": ModelFamily(
        architectures=("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"),
        channels=plan.all_layers("dense"),
        **_DELTA,
        defaults=_DELTA_DEFAULTS,
    ),
    "qwen4_exp_text": ModelFamily(
        architectures=("Qwen4ExpForConditionalGeneration", "Qwen4ExpForCausalLM"),
        **{
            **_DELTA,
            "mixers": rule.qwen4_mixers,
            "channels": rule.qwen4_channels,
            "dense_width": rule.qwen4_width,
            "attention": rule.qwen4_attention,
            "indexer": rule.qwen4_indexer,
            "extras": rule.qwen4_extras,
            # Those of four residual streams, around both mixers and before the head.
            "norms_per_block": lambda f: 2 * f.size("hc_count"),
            "further_norms": 4,
            "shared_gate": True,
            "shared_width": plan.stated_shared,
            "draft": lambda f: ("sparse", "experts"),
        },
        note="the maps of hyper-connections are counted as narrow feed-forward layers",
        defaults={
            "full_attention_interval": 4,
            "head_dim": 256,
            "hc_count": 4,
            "hc_lowrank": 320,
            "ple_layer_ids": (),
            "ple_conv_kernel_size": 4,
            "ngram_size": 3,
            "heads_per_ngram": 8,
            "ngram_vocab_size_base": 20_000_000,
            "indexer_kv_heads": 1,
        },
    ),
    "glm5_next_text": ModelFamily(
        architectures=("Glm5NextForConditionalGeneration", "Glm5NextForCausalLM"),
        mixers=rule.glm_next_mixers,
        channels=_EXPERTS_AFTER_DENSE,
        shared_width=plan.counted_shared,
        recurrence="kda",
        indexer=rule.glm_next_indexer,
        router_bias=True,
        extras=rule.glm_next_extras,
        note="the work of the hyper-connections between residual streams is neglected, their weights are counted",
        defaults={
            "index_topk_freq": 1,
            "index_skip_topk_offset": 2,
            "index_kpool": 16,
            "first_k_dense_replace": 3,
            "hc_mult": 4,
            "linear_conv_kernel_dim": 4,
            "use_full_rank_gate": False,
        },
    ),
    "lara_mini": ModelFamily(
        architectures=("LaraMiniForCausalLM",),
        mixers=plan.linear_layers,
        channels=plan.all_layers("experts"),
        shared_width=plan.stated_shared,
        recurrence="gated_delta",
        qk_norm="head",
        **_BIAS,
        defaults={"tie_word_embeddings": True, "head_dim": 128, "full_attention_interval": 4},
    ),
    "olmo_hybrid": ModelFamily(
        architectures=("OlmoHybridForCausalLM",),
        kv_heads=plan.as_many_kv_heads,
        mixers=plan.linear_layers,
        channels=plan.all_layers("dense"),
        recurrence="gated_delta",
        qk_norm="width",
        **_BIAS,
        defaults={
            "full_attention_interval": 4,
            "linear_conv_kernel_dim": 4,
            "linear_num_key_heads": lambda f: f.size("num_attention_heads"),
            "linear_num_value_heads": lambda f: f.size("num_attention_heads"),
            "linear_key_head_dim": lambda f: (
                3 * f.size("hidden_size") // (4 * f.size("linear_num_key_heads"))
            ),
            "linear_value_head_dim": lambda f: 2 * f.size("linear_key_head_dim"),
        },
    ),
    "kimi_linear": ModelFamily(
        architectures=("KimiLinearForCausalLM", "KimiK3ForConditionalGeneration"),
        recurrence="kda",
        extras=rule.kimi_extras,
        note="the work of Kimi-K3's gates of latent attention is neglected, their weights are counted",
        **_KIMI,
        defaults=_KIMI_DEFAULTS,
    ),
    "bailing_hybrid": ModelFamily(
        architectures=("BailingHybridForCausalLM",),
        recurrence="kda_full_gates",
        extras=rule.latent_gate_extras,
        **_KIMI,
        defaults={
            **_KIMI_DEFAULTS,
            "linear_head_dim": lambda f: f.size("head_dim"),
            "linear_num_heads": lambda f: f.size("num_attention_heads"),
            "head_dim": 128,
            "layer_group_size": 6,
            "first_k_dense_replace": 2,
            "num_nextn_predict_layers": 1,
        },
    ),
    "rwkv7": ModelFamily(
        architectures=("RWKV7ForCausalLM",),
        mixers=plan.all_layers("recurrent"),
        channels=plan.all_layers("dense"),
        recurrence="rwkv7",
        norm_bias=True,
        gated=False,
        extras=rule.rwkv_extras,
        defaults={
            "hidden_act": "relu2",
            "norm_bias": True,
            "norm_first": True,
            "head_dim": 64,
            "hidden_ratio": 4,
            "intermediate_size": rule.rwkv_width,
        },
    ),
}
