"""Entries of kernels: a library's number, and its numbers on chips and on generations of chips."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from jaxcost.edge.catalog.schema import Entry
from jaxcost.edge.io.errors import InputError

__all__ = ["KernelEntry", "entry_at", "listed_entries"]

Number = str | int | float


class KernelEntry(Entry):
    """One number of a kernel: `value` where neither the chip nor its architecture was measured, and others in `by`.

    `by` maps the name of a chip, or of an architecture of chips, to a value or to [value, low, high].
    """

    by: Mapping[str, Number | list[Number]] = Field(default_factory=dict)

    @field_validator("by", mode="before")
    @classmethod
    def _numbers(cls, by: Any) -> Any:
        if not isinstance(by, Mapping):
            raise InputError("names of chips and architectures, each with [value, low, high]", given=by)
        for name, given in by.items():
            numbers = given if isinstance(given, list) else [given]
            plain = all(isinstance(x, Number) and not isinstance(x, bool) for x in numbers)
            if not plain or (isinstance(given, list) and len(given) != 3):
                raise InputError("a value, or [value, low, high]", path=str(name), given=given)
        return by


def entry_at(entry: Entry, path: str, keys: Sequence[str]) -> tuple[Entry, str]:
    """Return the entry of the first of several keys that it has a number for, with its path; else the entry itself.

    Args:
        entry: an entry, with or without numbers by chip.
        path: its dotted path.
        keys: a chip and its architecture.
    """
    by = entry.by if isinstance(entry, KernelEntry) else {}
    key = next((key for key in keys if key in by), None)
    if key is None:
        return entry, path
    given = by[key]
    value, low, high = given if isinstance(given, list) else (given, None, None)
    return entry.model_copy(update={"value": value, "low": low, "high": high, "by": {}}), f"{path}.by.{key}"


def listed_entries(entry: Entry, path: str, keys: Sequence[str] | None = None) -> Iterator[tuple[str, Entry]]:
    """Yield an entry and those of chips and architectures, with their paths; with `keys` the one that these get."""
    if keys is not None:
        chosen, at = entry_at(entry, path, keys)
        yield at, chosen
        return
    yield path, entry
    for key in entry.by if isinstance(entry, KernelEntry) else ():
        chosen, at = entry_at(entry, path, (key,))
        yield at, chosen
