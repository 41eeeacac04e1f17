"""Validated access to the fields of one Hugging Face config, and the description of a family of models."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxcost.edge.io.errors import InputError, nearest

__all__ = ["KNOWN", "Fields", "ModelFamily"]

_LARGEST = 2**40  # upper bound of any size; integers below it are exact as floats
_MOST_LAYERS = 10_000
_TYPO = 0.93  # similarity of an unknown name to an absent field above which it is reported as a misspelling

_READ = """
    _sliding_window_pattern activation activation_function activation_type altup_num_inputs
    architectures attention_bias attention_chunk_size attention_head_dim attn_layer_offset
    attn_layer_period attn_output_gate attn_type_list audio_config bias conv_kernel d_model
    decoder_sparse_step depth do_layer_norm_before embedding_size enable_bias expand expert_layer_offset
    expert_layer_period experts_per_token ffn_dim ffn_hidden_size first_k_dense_replace
    full_attention_interval head_dim hidden_act hidden_activation hidden_size
    hidden_size_per_layer_input hybrid_override_pattern image_size in_channels include_bias
    include_qkv_bias interleave_moe_layer_step intermediate_size intermediate_size_mlp kv_lora_rank
    laurel_rank layer_types layers_block_type linear_conv_kernel_dim linear_key_head_dim
    linear_num_key_heads linear_num_value_heads linear_value_head_dim mamba_conv_bias mamba_d_conv
    mamba_d_state mamba_dt_rank mamba_expand mamba_head_dim mamba_num_heads mamba_proj_bias
    max_position_embeddings max_window_layers mlp_bias mlp_hidden_act mlp_hidden_size mlp_only_layers
    mm_tokens_per_image model_type moe_intermediate_size moe_latent_size moe_layer_freq moe_layers
    moe_shared_expert_intermediate_size mtp_num_hidden_layers multi_query n_embd n_groups n_head n_heads
    n_inner n_kv_heads n_layer n_layers n_positions n_routed_experts n_shared_experts
    new_decoder_architecture no_rope_layer_interval no_rope_layers num_attention_heads num_channels
    num_experts num_experts_per_tok num_heads num_hidden_layers num_key_value_heads num_kv_heads
    num_kv_shared_layers num_local_experts num_mtp_modules num_nextn_predict_layers
    num_position_embeddings out_hidden_size parallel_attn patch_size pixel_shuffle_ratio
    projector_input_dim projector_output_dim q_lora_rank qk_layernorm qk_nope_head_dim qk_norm_type
    qk_rope_head_dim qkv_bias shared_expert_intermediate_size shared_intermediate_size sliding_window
    sliding_window_pattern spatial_merge_size ssm_state_size state_size temporal_patch_size text_config
    tie_word_embeddings use_bias use_conv_bias use_qk_norm use_routing_bias use_sliding_window
    v_head_dim vision_config vision_output_dim vocab_size vocab_size_per_layer_input weight_tying
    word_embed_proj_dim
    """

# Every field that some family reads; none of them is reported as a misspelling of another.
KNOWN = frozenset(_READ.split())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """The properties of a family of models. A string in place of a bool names the config field that decides.

    Attributes:
        architectures: values of `architectures` in configs of this family.
        names: the family's names of a field, by the name that the reader uses.
        shapes: further names of fields for the attention of one kind of layers, by the kind.
        mixers: function that returns the token mixer of every layer: full, window, latent, recurrent or "" for none.
        channels: function that returns the channel mixer of every layer: dense, experts or "" for none.
        recurrence: kind of its recurrent layers.
        norms_per_block: norms of the residual stream in one layer.
        norm_bias: whether a norm has a bias besides its scale (LayerNorm).
        gated: whether the feed-forward has a gate, so 3 matrices instead of 2.
        query_outputs: outputs of the query projection per query element.
        qkv_bias: biases of the query, key and value projections.
        out_bias: a bias of the attention's output projection.
        mlp_bias: biases of the feed-forward.
        qk_norm: norms of queries and keys: "head", "width" (over all heads together) or "" for none.
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
    shapes: Mapping[str, Mapping[str, tuple[str, ...]]] = dataclasses.field(default_factory=dict)
    mixers: Callable[["Fields"], list[str]]
    channels: Callable[["Fields"], list[str]]
    recurrence: str = ""
    norms_per_block: int | Callable[["Fields"], int] = 2
    norm_bias: bool = False
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
    head_bias: bool = False
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

    def of_shape(self, kind: str) -> "Fields":
        """Return these fields with the names that the attention of one kind of layers has."""
        names = self.row.shapes.get(kind)
        if not names:
            return self
        row = dataclasses.replace(self.row, names={**self.row.names, **names})
        return Fields(self.config, row, self._defaults, file=self.file, prefix=self.prefix)

    def name(self, field: str) -> str:
        """Return the config's name of a field: the first of the family's names that the config has."""
        names = self.row.names.get(field, (field,))
        return next((n for n in names if self.config.get(n) is not None), names[0])

    def given(self, field: str) -> Any:
        """Return the value, the family's default, or None; a misspelling of an absent field is an error."""
        name = self.name(field)
        value = self.config.get(name)
        if value is not None:
            return value
        if name not in self.config:
            close = difflib.get_close_matches(name, self._unknown(), n=1, cutoff=_TYPO)
            if close:
                raise InputError(
                    f"a field this family has, such as {name!r}",
                    file=self.file,
                    path=self.prefix + close[0],
                    given=close[0],
                    suggestion=name,
                )
        return self._defaults.get(field)

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
