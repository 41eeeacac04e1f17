"""Checked access to the fields of one Hugging Face config, and what a family of configs is."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxcost.edge.errors import InputError, nearest

__all__ = ["Family", "Fields"]

_LARGEST = 2**40  # no size of a model is larger, and every one below is exact as a float
_MOST_LAYERS = 10_000
_TYPO = 0.93  # an absent field beside one spelt this alike is a slip of the pen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """What sets one family apart. A string where a bool may stand names the field that decides.

    Attributes:
        architectures: names in `architectures` that mean this family.
        names: this family's own names of a field, by the name the reader uses.
        mixers: the token mixer of every layer: full, window, latent, recurrent or "" for none.
        channels: the channel mixer of every layer: dense, experts or "" for none.
        recurrence: the kind of its recurrent layers.
        norms_per_block: normalisations of the residual stream in one layer.
        norm_bias: whether a norm has a bias besides its scale (LayerNorm).
        gated: whether the feed-forward has a gate, so 3 matrices instead of 2.
        query_outputs: outputs of the query projection per query element.
        qkv_bias: biases of the query, key and value projections.
        out_bias: a bias of the attention's output projection.
        mlp_bias: biases of the feed-forward.
        qk_norm: scales that normalise queries and keys: "head", "width" (over all heads at once) or "".
        qk_norm_field: the field that decides whether there are any.
        router_bias: a bias or correction of every routed expert's score.
        expert_bias: biases inside the experts.
        shared_gate: a gate of the shared expert, one vector.
        head_bias: a bias of the output head.
        sinks: one learned attention sink a head.
        position_rows: the field that counts learned positions, and the rows beyond it.
        shared_width: the width of all shared experts together.
        kv_heads: the rule for key-value heads, where they are not simply given or as many as query heads.
    """

    architectures: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
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
    """A config of one family, read with checks: nothing is guessed but what `defaults` says."""

    def __init__(
        self, config: Mapping, row: Family, defaults: Mapping, *, file: str, prefix: str = ""
    ) -> None:
        """Wrap the mapping; `prefix` is the dotted path to it inside the file."""
        self.config, self.row, self.file, self.prefix = config, row, file, prefix
        self._defaults = defaults

    def name(self, field: str) -> str:
        """Return the name the config uses for a field: the first of the family's names that is present."""
        names = self.row.names.get(field, (field,))
        return next((n for n in names if self.config.get(n) is not None), names[0])

    def given(self, field: str) -> Any:
        """Return the value, the family's default, or None; a near miss of an absent name is refused."""
        name = self.name(field)
        value = self.config.get(name)
        if value is not None:
            return value
        if name not in self.config:
            others = [k for k in self.config if isinstance(k, str)]
            close = difflib.get_close_matches(name, others, n=1, cutoff=_TYPO)
            if close:
                raise InputError(
                    f"a field this family has, such as {name!r}",
                    file=self.file,
                    path=self.prefix + close[0],
                    given=close[0],
                    suggestion=name,
                )
        return self._defaults.get(field)

    def error(
        self, field: str, expected: str, given: Any = None, suggestion: str | None = None
    ) -> InputError:
        """Make the error of a field."""
        path = self.prefix + self.name(field)
        return InputError(expected, file=self.file, path=path, given=given, suggestion=suggestion)

    def missing(self, field: str, expected: str) -> InputError:
        """Make the error of a field that is absent or null."""
        names = [k for k in self.config if isinstance(k, str)]
        state = "null" if self.name(field) in self.config else "missing"
        near = None if state == "null" else nearest(self.name(field), names)
        return self.error(field, f"{expected}, but the field is {state}", suggestion=near)

    def size(self, field: str, *, least: int = 1, most: int = _LARGEST) -> int:
        """Read a whole number that must be there."""
        expected = f"a whole number from {least} to {most}"
        value = self.given(field)
        if value is None:
            raise self.missing(field, expected)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(field, expected, value)
        return value

    def optional_size(self, field: str, *, least: int = 1) -> int | None:
        """Read a whole number, or None where the config leaves it out or nulls it."""
        return None if self.given(field) is None else self.size(field, least=least)

    def flag(self, field: bool | str) -> bool:
        """Read a boolean; a trait that is already a boolean is returned as it is."""
        if isinstance(field, bool):
            return field
        value = self.given(field)
        if value is None:
            raise self.missing(field, "true or false")
        if not isinstance(value, bool):
            raise self.error(field, "true or false", value)
        return value

    def word(self, field: str, valid: Mapping[str, Any]) -> Any:
        """Read a name and return what it stands for."""
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
        """Read a list of one known name or number per layer, and return what each stands for."""
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
        """Read the width of a head, or derive it as the configuration classes do: hidden_size / heads."""
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
        """Read the key-value heads by the family's rule."""
        if self.row.kv_heads is not None:
            return self.row.kv_heads(self)
        return self.divisor_of_heads("num_key_value_heads")

    def divisor_of_heads(self, field: str) -> int:
        """Read a number of heads that share the query heads evenly; as many as those where it is left out."""
        heads = self.size("num_attention_heads")
        given = self.optional_size(field)
        if given is not None and heads % given:
            raise self.error(field, f"a divisor of the {heads} query heads", given)
        return heads if given is None else given
