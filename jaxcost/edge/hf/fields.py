"""Validated access to the fields of one Hugging Face config, and the description of a family of models."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxcost.core.pytree import Scalar
from jaxcost.edge.io.errors import InputError, nearest
from jaxcost.spec.model import Indexer, Model

__all__ = ["KNOWN", "Fields", "ModelFamily"]

_LARGEST = 2**40  # upper bound of any size; integers below it are exact as floats
_MOST_LAYERS = 10_000
_TYPO = 0.93  # similarity of an unknown name to an absent field above which it is reported as a misspelling

# Names of a field in the configs of different families, by the name that the reader uses; the first has priority.
SHARED_NAMES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "d_model", "n_embed"),
    "intermediate_size": (
        "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim", "mlp_hidden_size", "ff_intermediate_size",
    ),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"),
    "num_key_value_heads": (
        "num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_head_kv", "num_query_groups",
        "multi_query_group_num", "attn_config.kv_n_heads",
    ),
    "head_dim": ("head_dim", "kv_channels", "attention_head_dim"),
    "hidden_act": (
        "hidden_act", "hidden_activation", "activation_function", "activation", "mlp_hidden_act",
        "activation_type", "ffn_config.ffn_act_fn",
    ),
    "vocab_size": ("padded_vocab_size", "vocab_size"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"),
    "tie_word_embeddings": ("tie_word_embeddings", "weight_tying"),
    "num_experts": (
        "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "ffn_config.moe_num_experts",
    ),
    "num_experts_per_tok": (
        "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_topk", "moe_k", "moe_top_k",
        "top_k_experts", "ffn_config.moe_top_k",
    ),
    "moe_intermediate_size": (
        "moe_intermediate_size", "moe_ffn_hidden_size", "expert_ffn_hidden_size", "expert_hidden_dim",
        "ffn_config.ffn_hidden_size",
    ),
    "n_shared_experts": (
        "n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts",
    ),
    "shared_expert_intermediate_size": (
        "shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size",
    ),
    "first_k_dense_replace": ("first_k_dense_replace", "num_dense_layers"),
    "decoder_sparse_step": ("decoder_sparse_step", "moe_layer_interval"),
    "sliding_window_pattern": (
        "sliding_window_pattern", "_sliding_window_pattern", "global_attn_every_n_layers",
    ),
    "num_nextn_predict_layers": (
        "num_nextn_predict_layers", "num_mtp_layers", "num_mtp_modules", "mtp_num_hidden_layers",
    ),
}  # fmt: skip

_READ = """
    compress_rates compress_rates.compressed_sparse_attention compress_rates.heavily_compressed_attention
    max_num_tiles num_global_layers pooling_kernel_size position_embedding_size supported_aspect_ratios
    _block_types _sliding_window_pattern activation activation_function activation_type adapter_rank
    add_bias_linear add_full_attention_sink_bias add_qkv_bias add_swa_attention_sink_bias
    alignment_intermediate_size altup_num_inputs architectures attention_bias attention_chunk_size
    attention_head_dim attention_k_eq_v attention_layers attention_other_setting attention_out_bias
    attention_output_gate attention_types attention_window_size attn_config attn_layer_indices
    attn_layer_offset attn_layer_period attn_output_gate attn_res_block_size attn_type_list audio_config
    audio_processor bias bias_max_distance block_auto_adjust_ff_dim block_configs block_ff_dim
    block_ffn_dim_multiplier block_multiple_of block_types cca_time0 cca_time1 cla_share_factor
    compress_rate_csa compress_rate_hca compress_rates compress_ratios conv1d_width conv_bias conv_kernel
    conv_kernel_size conv_window cross_attention_layers d_model d_rel decoder_sparse_step
    deepstack_visual_indexes dense_intermediate_size depth do_layer_norm_before downsample_factor
    downsample_hidden_size downsample_ratio emb_neighbor_num emb_split_num embd_layer embed_dim embedding_size
    enable_bias enable_moe_block encoder_ffn_dim encoder_layers expand expansion_ratio expert_ffn_hidden_size
    expert_layer_offset expert_layer_period experts_per_token ffn_config ffn_dim ffn_hidden_size
    first_k_dense_replace full_attention_interval full_attn_idxs gate_and_up gating global_head_dim hc_mult
    head_dim hidden_act hidden_activation hidden_ratio hidden_size hidden_size_per_layer_input
    hybrid_layer_pattern hybrid_override_pattern image_size image_width img_processor in_channels in_chans
    include_bias include_qkv_bias index_block_size index_head_dim index_n_heads index_skip_topk_offset
    index_topk index_topk_blocks index_topk_freq index_topk_pattern indexer_types init_pos_emb_height
    init_pos_emb_width input_size interleave_moe_layer_step intermediate_size intermediate_size_mlp
    is_moe_layer kda_layers kernel_size kv_lora_rank language_config latent_moe_use_norm laurel_rank
    layer_group_size layer_types layers layers_block_type linear_attn_config linear_conv_kernel_dim
    linear_head_dim linear_key_head_dim linear_num_heads linear_num_key_heads linear_num_value_heads
    linear_value_head_dim llm_config lm_head_bias lru_width mamba_conv_bias mamba_d_conv mamba_d_head
    mamba_d_ssm mamba_d_state mamba_dt_rank mamba_expand mamba_head_dim mamba_headdim mamba_n_groups
    mamba_n_heads mamba_ngroups mamba_num_heads mamba_out_bias mamba_proj_bias mamba_rms_norm
    max_position_embeddings max_source_positions max_window_layers merge_kernel_size mla_use_output_gate
    mlp_bias mlp_hidden_act mlp_hidden_size mlp_layer_types mlp_only_layers mlp_ratio mm_tokens_per_image
    model_type moe_hidden_size moe_intermediate_size moe_latent_size moe_layer_end_index moe_layer_freq
    moe_layer_num_skipped moe_layer_start_index moe_layers moe_layers_enum moe_num_experts
    moe_router_enable_expert_bias moe_shared_expert_intermediate_size moe_top_k moe_topk
    mtp_hybrid_override_pattern mtp_num_hidden_layers multi_query multi_query_attention
    multimodal_projector_bias n_embd n_groups n_head n_heads n_inner n_kv_heads n_layer n_layers n_mamba_heads
    n_positions n_routed_experts n_shared_experts new_decoder_architecture ngram_vocab_size_ratio no_bias
    no_rope_layer_interval no_rope_layers norm_bias norm_first norm_type num_attention_groups
    num_attention_heads num_attention_heads_per_layer num_blocks num_channels num_dense_layers num_experts
    num_experts_per_tok num_experts_per_token num_global_key_value_heads num_heads num_hidden_layers
    num_key_value_heads num_key_value_heads_per_layer num_kv_heads num_kv_shared_layers num_layers
    num_local_experts num_mel_bins num_mem_blocks num_mtp_layers num_mtp_modules num_nextn_predict_layers
    num_position_embeddings num_shared_experts num_sliding_attention_heads o_groups o_lora_rank
    out_hidden_size output_dim parallel_attn patch_size per_layer_config pixel_shuffle_ratio pos_emb_height
    pos_emb_width post_layer_norm prefix_dense_intermediate_size projector_config projector_input_dim
    projector_norm projector_output_dim projector_patch_to_query_dict projectors_bias q_lora_rank qk_layernorm
    qk_nope_head_dim qk_norm qk_norm_type qk_normalization qk_rope_head_dim qkv_bias rel_extent rmsnorm
    routed_expert_hidden_size router_hidden_size scale_factor share_expert_dim share_expert_dims
    shared_expert_intermediate_size shared_intermediate_size short_conv_kernel_size sliding_window
    sliding_window_layers sliding_window_pattern sliding_window_size sparse_attention_config
    sparse_attention_freq spatial_merge_size ssm_state_size state_size swa_head_dim swa_num_attention_heads
    swa_num_key_value_heads swa_v_head_dim temporal_merge_size temporal_patch_size text_config thinker_config
    tie_embedding tie_word_embeddings time_reduction time_step_rank top_k_experts use_attention_gate use_bias
    use_cla use_conv_bias use_double_wide_mlp use_expert_bias use_full_rank_gate use_head_wise_attn_gate
    use_mla use_mlp_adapter use_parallel_residual use_post_norm use_qk_norm use_qkv_bias use_routing_bias
    use_sandwich_norm use_shared_attention_adapter use_sliding_window v_head_dim v_low_rank_dim vision_config
    vision_feature_layer vision_feature_layers vision_output_dim vision_use_head vocab_size
    vocab_size_per_layer_input vt_hidden_size vt_intermediate_size vt_num_hidden_layers weight_tying width
    window_size word_embed_proj_dim zero_expert_num
    """

# Every field that some family reads; none of them is reported as a misspelling of another.
KNOWN = frozenset(_READ.split()) | {name for names in SHARED_NAMES.values() for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """The properties of a family of models. A string in place of a bool names the config field that decides.

    Attributes:
        architectures: values of `architectures` in configs of this family.
        names: the family's names of a field, by the name that the reader uses, in place of `SHARED_NAMES`; a name
            may be a dotted path, and a field without names has only its default.
        defaults: values of fields that a config leaves out, or functions that derive them from other fields.
        nested_defaults: further values for a config that is part of another, which states only differences to
            its class.
        only: values of fields that all released checkpoints have, where others would change the weights.
        note: what the model leaves out of this family.
        shapes: further names of fields for the attention of one kind of layers, by the kind.
        mixers: function that returns the token mixer of every layer: full, window, sparse, latent, recurrent or "" for
            none; mixers side by side or one after another in a layer are joined by "+".
        channels: function that returns the channel mixer of every layer: dense, experts or "" for none, joined as well.
        attention: function that returns the numbers of the softmax attention of one kind, in the layers at some
            positions, that plain fields do not give.
        indexer: function that returns the indexers of sparse attention, and the vectors of one.
        dense_width: function that returns the mean width of the dense layers at some positions.
        extras: function that returns what the family adds to numbers of the finished model, by their names.
        draft: function that returns token and channel mixer of the multi-token-prediction module; None for those of
            the last layer.
        recurrence: kind of its recurrent layers.
        norms_per_block: norms of the residual stream in one layer.
        norm_bias: whether a norm has a bias besides its scale (LayerNorm).
        norm_scale: whether a norm has a scale.
        further_norms: norms of the residual stream besides those of the layers.
        gated: whether the feed-forward has a gate, so 3 matrices instead of 2.
        query_outputs: outputs of the query projection per query element.
        qkv_bias: biases of the query, key and value projections.
        out_bias: a bias of the attention's output projection.
        mlp_bias: biases of the feed-forward.
        qk_norm: norms of queries and keys: "head", "head_bias" (with a bias), "width" (a scale of each element of
            all heads) or "" for none.
        qk_norm_field: the field that decides whether there are such norms.
        router_bias: a bias or correction of every routed expert's score.
        expert_bias: biases inside the experts.
        shared_gate: a gate vector of the shared expert.
        head_bias: a bias of the output head.
        sinks: one learned attention sink per head.
        position_rows: the field with the number of learned positions, and the number of further rows.
        shared_width: function that returns the width of all shared experts together.
        kv_heads: function that returns the key-value heads; None where a field must give them.
    """

    architectures: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    nested_defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    only: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""
    shapes: Mapping[str, Mapping[str, tuple[str, ...]]] = dataclasses.field(default_factory=dict)
    mixers: Callable[["Fields"], list[str]]
    channels: Callable[["Fields"], list[str]]
    attention: Callable[["Fields", str, list[int]], Mapping[str, Scalar]] | None = None
    indexer: Callable[["Fields"], tuple[Indexer, Scalar]] | None = None
    dense_width: Callable[["Fields", list[int]], Scalar] | None = None
    extras: Callable[["Fields", Model], Mapping[str, Scalar]] | None = None
    draft: Callable[["Fields"], tuple[str, str]] | None = None
    recurrence: str = ""
    norms_per_block: float | Callable[["Fields"], float] = 2
    norm_bias: bool | str = False
    norm_scale: bool = True
    further_norms: int = 1
    gated: bool = True
    query_outputs: int = 1
    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: str = ""
    qk_norm_field: str = ""
    router_bias: bool | str = False
    expert_bias: bool = False
    shared_gate: bool = False
    head_bias: bool | str = False
    sinks: bool = False
    position_rows: tuple[str, int] | None = None
    shared_width: Callable[["Fields"], int] | None = None
    kv_heads: Callable[["Fields"], int] | None = None


class Fields:
    """A config of one family with validated access; only `defaults` replace missing fields."""

    def __init__(
        self, config: Mapping, row: ModelFamily, defaults: Mapping, *, file: str, prefix: str = ""
    ) -> None:
        """Wrap the mapping; `prefix` is the dotted path to it inside the file."""
        self.config, self.row, self.file, self.prefix = config, row, file, prefix
        self._defaults = defaults
        self.read: set[str] = set()  # the top-level names that were asked for

    def of_shape(self, kind: str) -> "Fields":
        """Return these fields with the names that the attention of one kind of layers has."""
        names = self.row.shapes.get(kind)
        if not names:
            return self
        row = dataclasses.replace(self.row, names={**self.row.names, **names})
        shaped = Fields(self.config, row, self._defaults, file=self.file, prefix=self.prefix)
        shaped.read = self.read
        return shaped

    def value(self, name: str) -> Any:
        """Return the value under a name of the config, dotted for a field of a section; None where it is missing."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def of_layers(self, kind: str, positions: list[int]) -> "Fields":
        """Return these fields as the attention of one kind has them in the layers at some positions.

        These are the fields of `per_layer_config` where the config has it, else those under the names of the kind.
        """
        layers = self.given("per_layer_config")
        if not isinstance(layers, Mapping):
            return self.of_shape(kind)
        by_layer = {int(k): v for k, v in layers.items() if str(k).isdecimal() and isinstance(v, Mapping)}
        own = [dict(by_layer.get(position, {})) for position in positions]
        if any(each != own[0] for each in own):
            raise self.error("per_layer_config", "the same fields in all layers of a kind", layers)
        config = {**self.config, **(own[0] if own else {})}
        merged = Fields(config, self.row, self._defaults, file=self.file, prefix=self.prefix)
        merged.read = self.read
        return merged

    def name(self, field: str) -> str:
        """Return the config's name of a field: the first of the family's, or else the shared, names that it has."""
        own = self.row.names.get(field)
        names = own if own is not None else SHARED_NAMES.get(field, (field,))
        self.read.update(n.split(".")[0] for n in names)
        absent = own[0] if own else field
        return next((n for n in names if self.value(n) is not None), absent)

    def given(self, field: str) -> Any:
        """Return the value, the family's default, or None; a misspelling of an absent field is an error."""
        name = self.name(field)
        if self.row.names.get(field) != ():
            value = self.value(name)
            if value is not None:
                return value
            if name not in self.config and "." not in name:
                self._refuse_misspelling(name)
        default = self._defaults.get(name, self._defaults.get(field))
        return default(self) if callable(default) else default

    def _refuse_misspelling(self, name: str) -> None:
        close = difflib.get_close_matches(name, self._unknown(), n=1, cutoff=_TYPO)
        if close:
            raise InputError(
                f"a field this family has, such as {name!r}",
                file=self.file,
                path=self.prefix + close[0],
                given=close[0],
                suggestion=name,
            )

    def _unknown(self) -> list[str]:
        return [k for k in self.config if isinstance(k, str) and k not in KNOWN]

    def error(
        self, field: str, expected: str, given: Any = None, suggestion: str | None = None
    ) -> InputError:
        """Return the error of a field."""
        path = self.prefix + self.name(field)
        return InputError(expected, file=self.file, path=path, given=given, suggestion=suggestion)

    def missing(self, field: str, expected: str) -> InputError:
        """Return the error of a field that is missing or null."""
        state = "null" if self.name(field) in self.config else "missing"
        near = None if state == "null" else nearest(self.name(field), self._unknown())
        return self.error(field, f"{expected}, but the field is {state}", suggestion=near)

    def size(self, field: str, *, least: int = 1, most: int = _LARGEST) -> int:
        """Read a required whole number."""
        expected = f"a whole number from {least} to {most}"
        value = self.given(field)
        if value is None:
            raise self.missing(field, expected)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(field, expected, value)
        return value

    def even_size(self, field: str, *, least: int = 1) -> int:
        """Read a required whole number that some configs list for every layer, the same for all."""
        value = self.given(field)
        if not isinstance(value, list | tuple) or not value:
            return self.size(field, least=least)
        first = value[0]
        whole = isinstance(first, int) and not isinstance(first, bool) and least <= first <= _LARGEST
        if not whole or any(entry != first for entry in value):
            raise self.error(field, "one whole number, the same in every layer", value)
        return first

    def optional_size(self, field: str, *, least: int = 1) -> int | None:
        """Read a whole number; None where the field is missing or null."""
        return None if self.given(field) is None else self.size(field, least=least)

    def stated_size(self, field: str, *, least: int = 1) -> int | None:
        """Read a required field that is a whole number or null; its class default would be that of one checkpoint."""
        if self.given(field) is None and self.name(field) not in self.config:
            raise self.missing(field, f"a whole number from {least}, or null")
        return self.optional_size(field, least=least)

    def flag(self, field: bool | str) -> bool:
        """Read a boolean field; a property of the family that is a boolean is returned unchanged."""
        if isinstance(field, bool):
            return field
        value = self.given(field)
        if value is None:
            raise self.missing(field, "true or false")
        if not isinstance(value, bool):
            raise self.error(field, "true or false", value)
        return value

    def word(self, field: str, valid: Mapping[str, Any]) -> Any:
        """Read a name and return its value in `valid`."""
        value = self.given(field)
        if value is None:
            raise self.missing(field, "one of " + ", ".join(valid))
        if not isinstance(value, str) or value not in valid:
            near = nearest(value, valid) if isinstance(value, str) else None
            raise self.error(field, "one of " + ", ".join(valid), value, near)
        return valid[value]

    def sequence(self, field: str, *, length: int | None = None) -> Sequence:
        """Read a list, of one entry per layer where `length` is given."""
        value = self.given(field)
        expected = "a list" if length is None else f"a list of {length} entries, one per layer"
        if value is None:
            raise self.missing(field, expected)
        if not isinstance(value, list | tuple) or length not in (None, len(value)):
            count = f"{len(value)} entries" if isinstance(value, list | tuple) else value
            raise self.error(field, expected, count)
        return value

    def entries(self, field: str, valid: Mapping[Any, str], *, length: int) -> list[str]:
        """Read a list of one known name or number per layer, and return their values in `valid`."""
        kinds = []
        for entry in self.sequence(field, length=length):
            known = isinstance(entry, str | int) and not isinstance(entry, bool) and entry in valid
            if not known:
                near = nearest(entry, map(str, valid)) if isinstance(entry, str) else None
                raise self.error(field, "entries among " + ", ".join(map(str, valid)), entry, near)
            kinds.append(valid[entry])
        return kinds

    def positions(self, field: str, layers: int) -> set[int]:
        """Read a list of layer numbers."""
        values = self.sequence(field)
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < layers:
                raise self.error(field, f"layer numbers from 0 to {layers - 1}", value)
        return set(values)

    def layers(self) -> int:
        """Read the number of layers."""
        return self.size("num_hidden_layers", most=_MOST_LAYERS)

    def head_dim(self) -> int:
        """Read the width of a head; hidden_size / heads where it is missing, as in the configuration classes."""
        given = self.optional_size("head_dim")
        if given is not None:
            return given
        hidden, heads = self.size("hidden_size"), self.size("num_attention_heads")
        if hidden % heads:
            field = self.name("num_attention_heads")
            raise self.error(
                "hidden_size", f"a multiple of {field} {heads}, as head_dim is not given", hidden
            )
        return hidden // heads

    def kv_heads(self) -> int:
        """Read the key-value heads by the family's rule; without one the field is required."""
        if self.row.kv_heads is not None:
            return self.row.kv_heads(self)
        self.size("num_key_value_heads")
        return self.divisor_of_heads("num_key_value_heads")

    def divisor_of_heads(self, field: str) -> int:
        """Read a number of heads that divides the query heads; as many as the query heads where it is missing."""
        heads = self.size("num_attention_heads")
        given = self.optional_size(field)
        if given is not None and heads % given:
            raise self.error(field, f"a divisor of the {heads} query heads", given)
        return heads if given is None else given
