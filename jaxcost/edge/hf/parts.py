"""Find the language model in a config: its part of the file, and the family that its type or class names."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from jaxcost.edge.hf.families import ALIASES, DEFAULTS, FAMILIES
from jaxcost.edge.hf.fields import Fields, ModelFamily
from jaxcost.edge.hf.multimodal import NESTED_DEFAULTS, TEXT_PARTS, WRAPPERS
from jaxcost.edge.hf.unknown import UNKNOWN
from jaxcost.edge.io.errors import InputError, nearest

__all__ = ["TextPart", "find_text"]

_MISSPELLED = 0.8  # similarity of an unknown type to a known one above which it is a misspelling
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
    row = FAMILIES[family] if family else UNKNOWN
    fields = Fields(inner, row, _defaults(family, row, outer, nested=path != ""), file=file, prefix=path)
    return TextPart(
        family=family,
        fields=fields,
        outer=outer,
        whole=config,
        whole_prefix=prefix,
        given=given,
        notes=tuple(notes),
    )


def _defaults(family: str, row: ModelFamily, outer: str, *, nested: bool) -> dict[str, Any]:
    wrapper = WRAPPERS.get(outer)
    tied = {} if wrapper is None or wrapper.tied is None else {"tie_word_embeddings": wrapper.tied}
    part = {**NESTED_DEFAULTS.get(family, {}), **row.nested_defaults} if nested else {}
    return {**DEFAULTS[""], **DEFAULTS.get(family, {}), **row.defaults, **part, **tied}


def _tied(config: Mapping, inner: Mapping, outer: str) -> Any:
    """Return whether any part says that the head is tied; what is no boolean is left for its reader to refuse."""
    stated = [
        part["tie_word_embeddings"] for part in (config, inner) if part.get("tie_word_embeddings") is not None
    ]
    odd = [value for value in stated if not isinstance(value, bool)]
    if odd:
        return odd[0]
    return any(stated) if stated else None


def _nested_family(
    config: Mapping, inner: Mapping, file: str, prefix: str, path: str, strict: bool
) -> tuple[str, str, list[str]]:
    """Return the family of a part: of its type, or else of the type around it."""
    outer = config.get("model_type")
    known_outer = isinstance(outer, str) and (outer in WRAPPERS or outer in _FAMILY_OF)
    if not known_outer and (outer is not None or inner.get("model_type") is None):
        if outer is None and config.get("architectures") is None:
            _family(config, file, prefix, strict)
        family, given, notes = _family(config, file, prefix, strict)
    elif known_outer:
        text = WRAPPERS[outer].text if outer in WRAPPERS else _FAMILY_OF[outer]
        family, given, notes = _FAMILY_OF.get(text, ""), "", []
    else:
        family, given, notes = "", "", []
    if inner.get("model_type") is None:
        return family, given, notes
    found, unknown, more = _family(inner, file, path, strict)
    if isinstance(outer, str) and outer in ALIASES and found != family:
        raise InputError(
            f"the text model of {outer}, {family}",
            file=file,
            path=f"{path}model_type",
            given=inner["model_type"],
        )
    around = (
        [f"model_type {outer!r} is not known; its {path.rstrip('.')} is read as {found}"]
        if given and found
        else []
    )
    return found, unknown, around + more


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


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalpha())


def _misspelled(given: str, known: Mapping[str, Any]) -> bool:
    """Return whether a name is nearly a known one; one with the same letters is another version."""
    close = difflib.get_close_matches(given, list(known), n=1, cutoff=_MISSPELLED)
    return bool(close) and _letters(close[0]) != _letters(given)


def _unknown(given: Any, known: list[str], file: str, path: str) -> InputError:
    near = nearest(given, known) if isinstance(given, str) else None
    return InputError("one of " + ", ".join(known), file=file, path=path, given=given, suggestion=near)
