"""Which entries of the catalogue's files are read while something loads, and other values in their place.

A leaf of a tree may be a product of several entries, so what a constant moves is found by loading again with another
value for its entry: this is where the loaders ask for the value.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from jaxcost.core import pytree
from jaxcost.edge.errors import InputError
from jaxcost.edge.quantity import parse_quantity
from jaxcost.edge.schema import Entry

__all__ = ["Found", "Key", "Reading", "canonical", "reading", "value_of"]

T = TypeVar("T")
Key = tuple[Path, str]  # a file, and the dotted path of an entry in it


@dataclasses.dataclass(frozen=True)
class Found:
    """An entry that was read, in SI units; low and high are absent where the file gives none."""

    entry: Entry
    unit: str
    file: str
    value: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Reading:
    """What has been read so far, and what is put in its place."""

    values: Mapping[Key, float]
    found: dict[Key, Found] = dataclasses.field(default_factory=dict)


_CURRENT: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextlib.contextmanager
def reading(values: Mapping[Key, float] | None = None) -> Iterator[Reading]:
    """Note every entry that loads within, and load `values`, in SI units, in place of what their files say."""
    current = Reading({} if values is None else values)
    token = _CURRENT.set(current)
    try:
        yield current
    finally:
        _CURRENT.reset(token)


def canonical(tree: T) -> T:
    """Turn the leaves of what was loaded into JAX arrays; left as they are within `reading`, to load often."""
    return pytree.canonical(tree) if _CURRENT.get() is None else tree


def value_of(entry: Entry, unit: str, file: Path, shown: str, path: str) -> float:
    """Read an entry in SI units.

    Args:
        entry: the number.
        unit: the SI unit wanted.
        file: where it stands.
        shown: the file as errors name it.
        path: its dotted path in the file.

    Raises:
        InputError: no quantity in that unit, or not between its low and high.
    """
    value = parse_quantity(entry.value, unit, file=shown, path=f"{path}.value")
    bounds: dict[str, float | None] = {}
    for bound in ("low", "high"):
        given = getattr(entry, bound)
        edge = bounds[bound] = (
            None if given is None else parse_quantity(given, unit, file=shown, path=f"{path}.{bound}")
        )
        if edge is not None and ((edge > value) if bound == "low" else (edge < value)):
            raise InputError("low <= value <= high", file=shown, path=f"{path}.{bound}", given=str(given))
    current = _CURRENT.get()
    if current is None:
        return value
    current.found[file, path] = Found(entry, unit, shown, value, bounds["low"], bounds["high"])
    return current.values.get((file, path), value)
