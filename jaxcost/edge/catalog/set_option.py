"""`--set PATH=VALUE`: any number of what is evaluated, by its dotted path."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax.numpy as jnp

from jaxcost.core.bounds import NON_NEGATIVE, Bounds
from jaxcost.core.pytree import current_path, leaf_fields, replace, replace_at
from jaxcost.edge.catalog.loaders import grid_leaves
from jaxcost.edge.catalog.parts import load_part
from jaxcost.edge.io.errors import InputError, nearest, not_among, within
from jaxcost.edge.io.formats import FORMATS, read_bits
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.explore.space import Space
from jaxcost.spec.fabric import TOPOLOGIES, topology_id
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "Setting",
    "add_set_argument",
    "current_leaf",
    "described_settings",
    "read_settings",
    "set_in_space",
    "settable",
    "settings_line",
    "with_settings",
]

T = TypeVar("T")

_ROOTS = {"system": System, "model": Model, "traffic": Traffic, "plan": Plan, "prices": Prices}
_GRID = "prices.grid"
_BARE = ("1", "token")  # written as numbers alone
_MOST_NAMED = 12


@dataclasses.dataclass(frozen=True)
class Setting:
    """A leaf by its path and what it is set to: a number in the leaf's unit, or the name of a grid."""

    path: str
    value: float | str
    text: str  # as given


def add_set_argument(parser: Any) -> None:
    """Add the option to a parser or a group of it."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="PATH=VALUE",
        help="set one number, such as system.chip.tdp='500 W' or prices.grid=norway; repeatable, the last of a "
        "path counts, after every other option (paths: `jaxcost list leaves`)",
    )


@functools.cache
def _fields() -> dict[str, dataclasses.Field]:
    """Map the path of every number to its declaration."""
    return {path: f for root, tree in _ROOTS.items() for path, f in _leaves(tree(), f"{root}.")}


def settable() -> dict[str, tuple[str, str]]:
    """Map every path that can be set to (unit, meaning); the grid is set by its name and has no unit."""
    return {path: (f.metadata["unit"], f.metadata["doc"]) for path, f in _fields().items()} | {
        _GRID: ("", "name of a grid (`jaxcost list grids`): sets grid_carbon, grid_swing and grid_peak")
    }


def current_leaf(path: str) -> str:
    """Return the path of a leaf with deprecated names replaced, with a `DeprecationWarning` each."""
    root, _, rest = path.partition(".")
    return f"{root}.{current_path(_ROOTS[root](), rest)}" if root in _ROOTS and rest else path


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, dataclasses.Field]]:
    for f in leaf_fields(type(tree)):
        value, path = getattr(tree, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{path}.")
        elif value is not None:
            yield path, f


def described_settings(settings: Sequence[Setting]) -> dict[str, dict[str, str]]:
    """Put what is set into a mapping for JSON; an empty one where nothing is."""
    return {"set": {setting.path: setting.text for setting in settings}} if settings else {}


def settings_line(settings: Sequence[Setting]) -> str:
    """Say what is set, to follow other words in a line."""
    return "".join(f"; {setting.path} = {setting.text}" for setting in settings)


def read_settings(texts: Sequence[str]) -> tuple[Setting, ...]:
    """Read the texts of `--set`.

    Raises:
        InputError: no `PATH=VALUE`, no path of a number, or no value in its unit.
    """
    return tuple(map(_setting, texts))


def _setting(text: str) -> Setting:
    path, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not path or not value:
        raise InputError("PATH=VALUE, such as system.chip.tdp='500 W'", path="--set", given=text)
    path, known = current_leaf(path), settable()
    if path not in known:
        raise _unknown(path, list(known))
    number = _value(path, value, known[path][0])
    bounds: Bounds = NON_NEGATIVE if path == _GRID else _fields()[path].metadata["bounds"]
    if isinstance(number, float) and not bounds.admit(number):
        raise InputError(str(bounds), path=f"--set {path}", given=value)
    return Setting(path, number, value)


def _unknown(path: str, known: list[str]) -> InputError:
    inner = path.rstrip(".") + "."
    below = list(dict.fromkeys(p.removeprefix(inner).split(".")[0] for p in known if p.startswith(inner)))
    if below:
        more = f" and {len(below) - _MOST_NAMED} more" if len(below) > _MOST_NAMED else ""
        under = f"a number under this branch: {', '.join(below[:_MOST_NAMED])}{more}"
        return InputError(f"{under} (`jaxcost list leaves {path}`)", path="--set", given=path)
    ends = [p for p in known if p.endswith(f".{path}")]
    return InputError(
        "a path of `jaxcost list leaves`, under " + ", ".join(_ROOTS),
        path="--set",
        given=path,
        suggestion=min(ends, key=lambda p: p.count(".")) if ends else nearest(path, known),
    )


def _value(path: str, text: str, unit: str) -> float | str:
    where = f"--set {path}"
    if path == _GRID:
        within(None, where, load_part, "grids", text)
        return text
    if path.endswith(".topology"):
        if text not in TOPOLOGIES:
            raise not_among(TOPOLOGIES, text, path=where)
        return topology_id(text)
    if unit == "bit" and (text.lower() in FORMATS or not text.endswith(("bit", "B"))):
        return read_bits(text, where)
    try:
        return parse_quantity(text, "1" if unit in _BARE else unit, path=where)
    except InputError:
        if unit != "token":
            raise
        return parse_quantity(text, unit, path=where)


def with_settings(root: str, tree: T, settings: Sequence[Setting]) -> T:
    """Set the leaves of one tree, of the name `root`; a leaf of several choices is set in all of them."""
    for setting in settings:
        head, _, path = setting.path.partition(".")
        if head == root:
            value = setting.value
            for name, number in (grid_leaves(value) if isinstance(value, str) else {path: value}).items():
                tree = replace_at(tree, name, _like(tree, name, number))
    return tree


def _targets(setting: Setting) -> list[str]:
    if isinstance(setting.value, str):
        return [f"prices.{leaf}" for leaf in grid_leaves(setting.value)]
    return [setting.path]


def set_in_space(space: Space, settings: Sequence[Setting]) -> Space:
    """Set numbers in all designs of a space.

    Raises:
        InputError: a number that the space itself varies.
    """
    varied = {path for axis in space.axes for path in axis.sets}  # what only scales keeps what is set
    for setting in settings:
        if any(f"{leaf}.".startswith(f"{path}.") for leaf in _targets(setting) for path in varied):
            raise InputError("a number that is no axis of the space", path="--set", given=setting.path)
    changed = {root: with_settings(root, getattr(space.base, root), settings) for root in _ROOTS}
    return replace(space, base=replace(space.base, **changed))


def _like(tree: Any, path: str, value: float) -> Any:
    for name in path.split("."):
        tree = getattr(tree, name)
    return value if isinstance(tree, int | float) else jnp.full_like(tree, value)
