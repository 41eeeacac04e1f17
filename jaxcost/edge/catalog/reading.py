"""Which entries of the catalogue's files are read while something loads, and other values in their place.

A leaf of a tree may be a product of several entries, so what a constant moves is found by loading again with another
value for its entry: this is where the loaders ask for the value.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from jaxcost.core import pytree
from jaxcost.edge.catalog.kernel_entry import entry_at
from jaxcost.edge.catalog.schema import Entry, quantity_of
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.quantity import parse_quantity

__all__ = [
    "Key",
    "ReadEntry",
    "Reading",
    "canonical",
    "configs_root",
    "leaves_of",
    "quantities",
    "reading",
    "shown",
    "value_of",
]

T = TypeVar("T")
Key = tuple[Path, str]  # a file, and the dotted path of an entry in it


@dataclasses.dataclass(frozen=True)
class ReadEntry:
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
    entries: dict[Key, ReadEntry] = dataclasses.field(default_factory=dict)


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
    current.entries[file, path] = ReadEntry(entry, unit, shown, value, bounds["low"], bounds["high"])
    return current.values.get((file, path), value)


def configs_root() -> Path:
    """Return the folder of the catalogue: beside the package in a checkout, inside it once installed."""
    package = Path(__file__).parents[2]
    checkout = package.parent / "configs"
    return checkout if (checkout / "chips").is_dir() else package / "configs"


def shown(path: Path) -> str:
    """Name a file as the user knows it: catalogue files from configs/ on."""
    try:
        return str(path.relative_to(configs_root().parent))
    except ValueError:
        return str(path)


def quantities(part: BaseModel, file: Path, prefix: str = "", keys: Sequence[str] = ()) -> dict[str, float]:
    """Read every entry of a section in SI units, by the name of its leaf; absent ones are left out.

    Args:
        part: the section.
        file: where it stands.
        prefix: its dotted path, with a dot at the end.
        keys: a chip and its architecture, whose numbers are read where an entry has some.

    Raises:
        InputError: no quantity of its unit, or one out of its bounds.
    """
    out, name = {}, shown(file)
    for field in type(part).model_fields:
        entry, quantity = getattr(part, field), quantity_of(type(part), field)
        if isinstance(entry, Entry) and quantity is not None:
            entry, path = entry_at(entry, f"{prefix}{field}", keys)
            value = value_of(entry, quantity.unit, file, name, path)
            if not quantity.bounds.admit(value):
                raise InputError(str(quantity.bounds), file=name, path=path, given=value)
            out[quantity.leaf or field] = value
    return out


def leaves_of(tree: type, values: Mapping[str, float]) -> dict[str, float]:
    """Return those of some values that are leaves of a tree."""
    names = {f.name for f in pytree.leaf_fields(tree)}
    return {name: value for name, value in values.items() if name in names}
