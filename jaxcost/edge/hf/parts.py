"""Find the language model in a config: its part of the file, and the family that its type or class names."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from jaxcost.edge.hf.families.catalogue import ALIASES, DEFAULTS, FAMILIES
from jaxcost.edge.hf.fields import Fields, ModelFamily
from jaxcost.edge.hf.multimodal.wrappers import NESTED_DEFAULTS, TEXT_PARTS, WRAPPERS
from jaxcost.edge.hf.unknown import UNKNOWN
from jaxcost.edge.io.errors import InputError, nearest

__all__ = ["TextPart", "find_text"]

_MISSPELLED = 0.8  # similarity of an unknown type to a known one above which it may be a misspelling
_MOST_EDITS = 2  # letters in which a misspelling differs
_FAMILY_OF = {**{name: name for name in FAMILIES}, **ALIASES}
_FAMILY_OF_CLASS = {c: name for name, row in FAMILIES.items() for c in row.architectures}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPart:
    """The language model of a config.

    Attributes:
        family: its family; "" for a type that no family names.
        fields: its part of the config.
        outer: `model_type` of the config that has the encoders.
        whole: that config.
        whole_prefix: dotted path to that config.
        given: the type or class that is not known, "" where all are.
        notes: what is said about the choice.
    """

    family: str
    fields: Fields
    outer: str
    whole: Mapping
    whole_prefix: str
    given: str
    notes: tuple[str, ...]


def find_text(config: Mapping, *, file: str, strict: bool, prefix: str = "") -> TextPart:
    """Return the language model of a config.

    Raises:
        InputError: no type or class, one that is misspelled, or, where `strict`, one that is not known.
    """
    thinker = config.get("thinker_config")
    if isinstance(thinker, Mapping):
        part = find_text(thinker, file=file, strict=strict, prefix=f"{prefix}thinker_config.")
        note = "only thinker_config is read: the parts that speak are not counted"
        return dataclasses.replace(part, notes=(*part.notes, note))
    outer = config.get("model_type")
    outer = outer if isinstance(outer, str) else ""
    name = next((n for n in TEXT_PARTS if config.get(n) is not None), None)
    if name is None:
        family, given, notes = _family(config, file, prefix, strict)
        inner, path = config, prefix
    else:
        inner, path = config[name], f"{prefix}{name}."
        if not isinstance(inner, Mapping):
            raise InputError("a mapping", file=file, path=prefix + name, given=inner)
        family, given, notes = _nested_family(config, inner, file, prefix, path, strict)
        tied = _tied(config, inner, outer)
        if tied is not None:
            inner = {**inner, "tie_word_embeddings": tied}
        elif outer in WRAPPERS and WRAPPERS[outer].tied and not _is_tied_alone(family):
            notes = [*notes, f"tie_word_embeddings is not stated: taken as true, the default of {outer}"]
    row = FAMILIES[family] if family else UNKNOWN
    fields = Fields(
        inner, row, _defaults(family, row, outer, inner, nested=path != ""), file=file, prefix=path
    )
    return TextPart(
        family=family,
        fields=fields,
        outer=outer,
        whole=config,
        whole_prefix=prefix,
        given=given,
        notes=tuple(notes),
    )


def _is_tied_alone(family: str) -> bool:
    """Return whether a language model of a family, as a config of its own, is tied where nothing is stated."""
    row = FAMILIES[family] if family else UNKNOWN
    return bool({**DEFAULTS.get(family, {}), **row.defaults}.get("tie_word_embeddings"))


def _defaults(family: str, row: ModelFamily, outer: str, inner: Mapping, *, nested: bool) -> dict[str, Any]:
    """Return the defaults of a language model; those of a part of a config do not stand in for a stated null."""
    wrapper = WRAPPERS.get(outer)
    tied = {} if wrapper is None or wrapper.tied is None else {"tie_word_embeddings": wrapper.tied}
    part = {**NESTED_DEFAULTS.get(family, {}), **row.nested_defaults} if nested else {}
    part = {name: value for name, value in part.items() if name not in inner or inner[name] is not None}
    return {**DEFAULTS[""], **DEFAULTS.get(family, {}), **row.defaults, **part, **tied}


def _tied(config: Mapping, inner: Mapping, outer: str) -> Any:
    """Return what the config or, where it says nothing, its language model says about tied tables.

    Older configs of some types have the flag in the language model alone, and a false one around it.
    """
    around, within = config.get("tie_word_embeddings"), inner.get("tie_word_embeddings")
    wrapper = WRAPPERS.get(outer)
    if around is None or (around is False and wrapper is not None and wrapper.inherits_tie):
        return around if within is None else within
    return around


def _nested_family(
    config: Mapping, inner: Mapping, file: str, prefix: str, path: str, strict: bool
) -> tuple[str, str, list[str]]:
    """Return the family of a part: of its type, or else of the type around it."""
    outer, within = config.get("model_type"), inner.get("model_type")
    family, given, notes = "", "", []
    if outer is not None or within is None:
        family, given, notes = _family(config, file, prefix, strict)
    if within is None:
        return family, given, notes
    found, unknown, more = _family(inner, file, path, strict)
    if isinstance(outer, str) and outer in ALIASES and found != family:
        raise InputError(
            f"the text model of {outer}, {family}", file=file, path=f"{path}model_type", given=within
        )
    if given and found:
        more = [f"model_type {outer!r} is not known; its {path.rstrip('.')} is read as {found}", *more]
    return found, unknown, more


def _family(config: Mapping, file: str, prefix: str, strict: bool) -> tuple[str, str, list[str]]:
    """Return the family that `model_type`, or else `architectures`, names; "" and the name of one that is not known."""
    given, classes = config.get("model_type"), config.get("architectures")
    if isinstance(given, str) and given in _FAMILY_OF:
        return _FAMILY_OF[given], "", []
    if isinstance(given, str) and given in WRAPPERS:
        return _FAMILY_OF.get(WRAPPERS[given].text, ""), "", []
    one = classes[0] if isinstance(classes, list | tuple) and len(classes) == 1 else None
    if given is not None:
        path = prefix + "model_type"
        if not isinstance(given, str) or strict or _misspelled(given, _FAMILY_OF):
            raise _unknown(given, sorted(_FAMILY_OF), file, path)
        if isinstance(one, str) and one in _FAMILY_OF_CLASS:
            family = _FAMILY_OF_CLASS[one]
            return family, "", [f"{path} {given!r} is not known; read as {family}, by the class {one}"]
        return "", given, []
    if classes is None:
        keys = ", ".join(str(k) for k in list(config)[:3]) or "nothing"
        raise InputError(
            "model_type or architectures, as in a Hugging Face config.json",
            file=file,
            path=prefix + "model_type",
            given=f"only {keys}",
        )
    if not isinstance(one, str):
        raise InputError("a list of one class name", file=file, path=prefix + "architectures", given=classes)
    if one in _FAMILY_OF_CLASS:
        return _FAMILY_OF_CLASS[one], "", []
    if strict or _misspelled(one, _FAMILY_OF_CLASS):
        raise _unknown(one, sorted(_FAMILY_OF_CLASS), file, prefix + "architectures")
    return "", one, []


def _split(name: str) -> tuple[str, str]:
    """Return the letters and the digits of a name."""
    lowered = name.lower()
    return "".join(filter(str.isalpha, lowered)), "".join(filter(str.isdigit, lowered))


def _misspelled(given: str, known: Mapping[str, Any]) -> bool:
    """Return whether a name differs from a known one in one or two single letters but the first.

    A name with other digits or with more letters behind is another version, not a misspelling.
    """
    letters, digits = _split(given)
    for close in difflib.get_close_matches(given, list(known), n=3, cutoff=_MISSPELLED):
        target, version = _split(close)
        if digits != version or letters[:1] != target[:1] or letters.startswith(target):
            continue
        codes = difflib.SequenceMatcher(None, letters, target, autojunk=False).get_opcodes()
        edits = [max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in codes if tag != "equal"]
        if 0 < len(edits) <= _MOST_EDITS and max(edits) == 1:
            return True
    return False


_EXAMPLES = ("llama", "qwen3", "deepseek_v3", "LlamaForCausalLM", "Qwen3ForCausalLM", "DeepseekV3ForCausalLM")


def _unknown(given: Any, known: list[str], file: str, path: str) -> InputError:
    near = nearest(given, known) if isinstance(given, str) else None
    examples = ", ".join(name for name in known if name in _EXAMPLES)
    expected = f"one of {len(known)} known names, such as {examples}"
    return InputError(expected, file=file, path=path, given=given, suggestion=near)
