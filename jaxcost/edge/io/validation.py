"""Check the content of files by pydantic models, and turn the first error into one line."""

from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from jaxcost.edge.io.errors import InputError, nearest, not_among

__all__ = ["StrictModel", "as_list", "known_name", "validate", "whole_number"]

M = TypeVar("M", bound=BaseModel)
_EXPECTED = {
    "dict_type": "a mapping of names to values",
    "list_type": "a list",
    "bool_type": "true or false",
    "string_type": "text",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length:,}",
}


class StrictModel(BaseModel):
    """A mapping whose keys are all known.

    Validators may raise `InputError`: its text, path and suggestion become those of the error of the whole file.
    """

    # Built when a file of the kind is first checked: a call checks few kinds.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
    expected: ClassVar[str] = "a mapping"  # what errors about another value say

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise InputError(cls.expected, given=data)
        fields = cls.model_fields
        unknown = [
            str(key) for key in data if key not in fields and cls.model_config.get("extra") == "forbid"
        ]
        if unknown:
            expected = "one of " + ", ".join(fields)
            raise InputError(expected, path=unknown[0], suggestion=nearest(unknown[0], fields))
        for name, field in fields.items():
            if field.is_required() and name not in data:
                raise InputError(field.description or "this key, which is missing", path=name)
        return data


def validate(model: type[M], data: Any, *, file: object) -> M:
    """Return the content of a file as a model.

    Raises:
        InputError: the first part of the content that does not fit the model, with its dotted path.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _first_error(error, data, file) from None


def _first_error(error: ValidationError, data: Any, file: object) -> InputError:
    problem = error.errors()[0]
    kind, given, context = problem["type"], problem["input"], problem.get("ctx", {})
    cause = context.get("error")
    path = []
    for part in problem[
        "loc"
    ]:  # skips the parts that are not in the file, such as the index of an item without a list
        if _has(data, part):
            parent, data = data, data[part]
            path.append(str(int(part) + 1) if isinstance(parent, list) else str(part))
    if isinstance(cause, InputError):
        path = ".".join(name for name in (*path, cause.path) if name)
        return InputError(
            cause.expected, file=file, path=path, given=cause.given, suggestion=cause.suggestion
        )
    expected = _EXPECTED.get(kind, problem["msg"].removeprefix("Input should be ")).format(**context)
    if problem["loc"][-1:] == ("[key]",):
        expected = "a name as key"
    return InputError(
        expected, file=file, path=".".join(path), given=len(given) if kind == "too_long" else given
    )


def _has(data: Any, part: int | str) -> bool:
    return part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int)


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and anything else as a list of one."""
    return value if isinstance(value, list) else [value]


def whole_number(low: int, high: int) -> BeforeValidator:
    """Return the check of a whole number from `low` to `high`."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"a whole number from {low} to {high:,}", given=value)
        return value

    return BeforeValidator(check)


def known_name(names: Iterable[str]) -> BeforeValidator:
    """Return the check of a name that is one of `names`."""

    def check(value: Any) -> str:
        if value not in names:
            raise not_among(names, str(value))
        return value

    return BeforeValidator(check)
