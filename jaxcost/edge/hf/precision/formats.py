"""What a quantization config of a checkpoint says: the format of each weight matrix, by method.

Every method is a function that returns a `Quantization`. Facts are those of the methods' definitions in transformers
(`utils/quantization_config.py`) and of the loaders in vLLM (`model_executor/layers/quantization`), versions of 2026.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxcost.edge.hf.precision.modules import WeightMatrix
from jaxcost.edge.io.errors import InputError

__all__ = ["ModulePatterns", "Quantization", "QuantizationFields", "WeightFormat"]

WIDE_INPUTS = 16.0
_PREFIXES = ("", "model.", "model.language_model.", "language_model.model.", "language_model.", "backbone.")
_PREFIX = re.compile(r"^(?:(?:model|language_model|backbone|transformer|text_model|thinker|llm)\.)+")
_LAYERS = re.compile(r"^(?:h|blocks|encoder\.layers)\.(?=\d)")


@dataclasses.dataclass(frozen=True)
class WeightFormat:
    """How one weight matrix is stored.

    Attributes:
        name: name of the format.
        bits: bits of a weight, group and block scales included.
        inputs: bits of an element of the matmul's input.
        row: further bits of every output feature: a scale per channel.
        column: further bits of every input feature: an index that orders them.
    """

    name: str
    bits: float
    inputs: float = WIDE_INPUTS
    row: float = 0
    column: float = 0

    def bits_of(self, matrix: WeightMatrix) -> float:
        """Return the bits of one weight of a matrix, scales included; a missing size (1) has no such scales."""
        row = self.row / matrix.inputs if matrix.inputs > 1 else 0
        column = self.column / matrix.outputs if matrix.outputs > 1 else 0
        return self.bits + row + column


class ModulePatterns:
    """A list of modules: dotted names or parts of them, wildcards, and regular expressions after `re:`.

    A name stands for the module and all inside it, and may lack leading parts: `mlp.gate`, or `model.layers.3`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        """Sort the patterns by kind."""
        self.names: set[str] = set()
        expressions, wildcards = [], []
        for pattern in patterns:
            if pattern.startswith("re:"):
                expressions.append(pattern[3:])
            elif "\\" in pattern:  # transformers reads every name as a regular expression
                expressions.append(f"(?:{pattern})(?:\\.|$)")
            elif set(pattern) & set("*?["):
                name = canonical_name(pattern)
                wildcards += [fnmatch.translate(name), fnmatch.translate(name + ".*")]
            else:
                self.names.add(canonical_name(pattern))
        self._parts = {name for name in self.names if not name.startswith("layers.")}
        self._expressions = [(e, _PREFIXES) for e in _join(expressions)] + [
            (e, ("", ".")) for e in _join(wildcards)
        ]

    def matches(self, matrix: WeightMatrix) -> bool:
        """Return whether the list holds a matrix under one of its names."""
        return any(self._holds(name) for name in matrix.names)

    def _holds(self, name: str) -> bool:
        if self.names:
            words = name.split(".")
            ends = range(1, len(words) + 1)
            if any(".".join(words[:end]) in self.names for end in ends):
                return True
            if self._parts and any(
                ".".join(words[i:end]) in self._parts for end in ends for i in range(1, end)
            ):
                return True
        return any(e.match(prefix + name) for e, prefixes in self._expressions for prefix in prefixes)


def _join(expressions: list[str]) -> list[re.Pattern]:
    """Compile expressions, as one where none has flags or refers to its own groups."""
    compiled = [re.compile(e) for e in expressions]
    if not expressions or any(re.search(r"\\\d|\(\?[aiLmsuxP(]", e) for e in expressions if "(?s:" not in e):
        return compiled
    return [re.compile("|".join(f"(?:{e})" for e in expressions))]


def canonical_name(name: str) -> str:
    """Return a module's name from the layer on."""
    return _LAYERS.sub("layers.", _PREFIX.sub("", name)).removesuffix(".weight")


class QuantizationFields:
    """A quantization config with validated access; errors name the file and the dotted path."""

    def __init__(self, fields: object, *, file: str, path: str) -> None:
        """Wrap the mapping at `path`."""
        if not isinstance(fields, Mapping):
            raise InputError("a mapping", file=file, path=path, given=fields)
        self.fields, self.file, self.path = fields, file, path

    def error(
        self, field: str, expected: str, given: Any = None, suggestion: str | None = None
    ) -> InputError:
        """Return the error of a field."""
        path = f"{self.path}.{field}" if field else self.path
        return InputError(expected, file=self.file, path=path, given=given, suggestion=suggestion)

    def part(self, field: str) -> "QuantizationFields | None":
        """Return a nested mapping, None where it is missing or null."""
        value = self.fields.get(field)
        return (
            None if value is None else QuantizationFields(value, file=self.file, path=f"{self.path}.{field}")
        )

    def parts(self, field: str) -> dict[str, "QuantizationFields"]:
        """Return the nested mappings of a mapping, by key."""
        outer = self.part(field)
        if outer is None:
            return {}
        inner = (
            (k, QuantizationFields(v, file=self.file, path=f"{outer.path}.{k}"))
            for k, v in outer.fields.items()
        )
        return dict(inner)

    def size(self, field: str, *, least: int = 1, most: int = 2**20, default: int | None = None) -> int:
        """Read a whole number."""
        value, expected = self.fields.get(field), f"a whole number from {least} to {most}"
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(field, f"{expected}, but the field is missing")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(field, expected, value)
        return value

    def bits(self, field: str = "bits", *, default: int | None = None) -> int:
        """Read the bits of a weight."""
        return self.size(field, most=16, default=default)

    def group(self, field: str = "group_size", *, default: int | None = None) -> int:
        """Read a group size; 0 for one group per output channel, which files write as -1."""
        if self.fields.get(field) == -1:
            return 0
        return self.size(field, default=default)

    def cache_bits(self) -> float | None:
        """Return the bits of `kv_cache_scheme`, None without one."""
        scheme = self.part("kv_cache_scheme")
        return None if scheme is None else float(scheme.bits("num_bits"))

    def flag(self, field: str, default: bool) -> bool:
        """Read a boolean."""
        value = self.fields.get(field)
        if value is not None and not isinstance(value, bool):
            raise self.error(field, "true or false", value)
        return default if value is None else value

    def word(self, field: str, valid: Iterable[str], default: str | None = None) -> str:
        """Read a name among the valid ones; letter case is ignored."""
        names = {name.lower(): name for name in valid}
        value = self.fields.get(field)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(field, f"one of {', '.join(names.values())}, but the field is missing")
        if not isinstance(value, str) or value.lower() not in names:
            raise self.error(field, "one of " + ", ".join(names.values()), value)
        return names[value.lower()]

    def strings(self, *fields: str) -> list[str]:
        """Read the first of the fields that is there as a list of strings; an empty list without any."""
        field = next((f for f in fields if self.fields.get(f) is not None), fields[0])
        value = self.fields.get(field) or []
        if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
            raise self.error(field, "a list of module names", value)
        return list(value)

    def patterns(self, *fields: str) -> ModulePatterns:
        """Read a list of modules."""
        return self.compile(self.strings(*fields), next((f for f in fields if self.fields.get(f)), fields[0]))

    def compile(self, names: Iterable[str], field: str) -> ModulePatterns:
        """Return the patterns of the names in a field."""
        try:
            return ModulePatterns(names)
        except re.error as error:
            raise self.error(field, f"valid regular expressions ({error})", list(names)) from None

    def block(self, field: str) -> tuple[int, int]:
        """Read the two sides of a block of weights."""
        value = self.fields.get(field)
        if (
            not isinstance(value, list | tuple)
            or len(value) != 2
            or not all(type(n) is int and n > 0 for n in value)
        ):
            raise self.error(field, "two whole numbers from 1", value)
        return value[0], value[1]


@dataclasses.dataclass(frozen=True)
class Quantization:
    """The quantization of a checkpoint.

    Attributes:
        method: short name.
        format_of: function that returns the format of a matrix, or None where it stays in the model's own type.
        kv_bits: bits of a cached element, or None where the file does not declare it.
        attention_bits: bits of the inputs of attention's matmuls, or None where the file does not declare it.
        groups: fields and formats that at least one matrix must have; else the names of modules are not understood.
        listed: names of modules that the config quantizes one by one.
    """

    method: str
    format_of: Callable[[WeightMatrix], WeightFormat | None]
    kv_bits: float | None = None
    attention_bits: float | None = None
    groups: tuple[tuple[QuantizationFields, WeightFormat], ...] = ()
    listed: frozenset[str] = frozenset()


def quantize_all(
    weights: WeightFormat,
    skipped: ModulePatterns,
    *,
    head: bool = False,
    experts: WeightFormat | None = None,
    others: bool = True,
    encoder: bool = True,
) -> Callable[[WeightMatrix], WeightFormat | None]:
    """Make the function of a method with one format for all linear modules, or two with that of experts.

    Args:
        weights: format of the linear modules.
        skipped: modules that stay wide.
        head: whether the method quantizes the output head.
        experts: format of routed experts, that of the others by default.
        others: whether modules other than experts are quantized.
        encoder: whether the method quantizes the linear modules of encoders.

    Returns:
        The function; routers and embeddings stay wide.
    """
    chosen = {"expert": True, "linear": others, "encoder": others and encoder, "head": head}
    kinds = {kind for kind, is_quantized in chosen.items() if is_quantized}

    def format_of(matrix: WeightMatrix) -> WeightFormat | None:
        if matrix.kind not in kinds or skipped.matches(matrix):
            return None
        return experts if experts is not None and matrix.kind == "expert" else weights

    return format_of


def grouped(name: str, bits: float, group: int, *, scale: float, inputs: float = WIDE_INPUTS) -> WeightFormat:
    """Return a format with `scale` bits of scale and zero point a group of weights; group 0 is a whole channel."""
    if group == 0:
        return WeightFormat(f"{name} per channel", bits, inputs, row=scale)
    return WeightFormat(f"{name} g{group}", bits + scale / group, inputs)
