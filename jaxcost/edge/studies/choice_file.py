"""Parts of the catalogue as choices of a space, by name: memories, engines near them, links, prices, grids."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import replace, rows
from jaxcost.edge.catalog.loaders import (
    chip_of_system,
    grid_leaves,
    list_names,
    load_efficiency,
    load_host,
    load_link,
    load_memory,
    load_prices,
)
from jaxcost.edge.catalog.silicon import load_package, load_process
from jaxcost.edge.catalog.tiers import load_near
from jaxcost.edge.io.errors import InputError, not_among, within
from jaxcost.explore.space import ChoiceAxis, stack
from jaxcost.spec.chip import Efficiency
from jaxcost.spec.fabric import TOPOLOGIES, topology_id
from jaxcost.spec.memory import ENGINE_PER_STACK, TIERS, Memory, NearMemory

__all__ = ["NONE", "choosable_paths", "read_choice"]

NONE = "none"
_MAX_STACKS = 1e6
_TIERS = {f"system.chip.{tier}": tier for tier in TIERS}
_NEAR = {f"{path}.near": path for path in _TIERS}
_GRID = "prices.grid"
_LINKS = tuple(f"system.fabric.{level}" for level in ("package", "scale_up", "scale_out"))
_EFFICIENCY = "system.chip.efficiency"
_TOPOLOGIES = tuple(f"{level}.topology" for level in _LINKS)


def _load_grid(name: str) -> dict[str, Any]:
    return {f"prices.{leaf}": value for leaf, value in grid_leaves(name).items()}


def _load_process(name: str) -> dict[str, Any]:
    process, area_per_byte = load_process(name)
    return {"system.chip.process": process, "system.chip.package.area_per_byte": area_per_byte}


def _load_package(name: str) -> dict[str, Any]:
    return {f"system.chip.package.{leaf}": value for leaf, value in load_package(name).items()}


# Loader of a branch, or of leaves by their paths, and the kind of its files.
_LOADERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "prices": (load_prices, "prices"),
    _GRID: (_load_grid, "grids"),
    "system.chip.process": (_load_process, "silicon"),
    "system.chip.package": (_load_package, "packages"),
    "system.host": (load_host, "hosts"),
    **dict.fromkeys(_LINKS, (load_link, "fabrics")),
}


def choosable_paths() -> tuple[str, ...]:
    """Return the paths whose values are names of parts of the catalogue."""
    return (*_TIERS, *_NEAR, *_LOADERS, *_TOPOLOGIES, _EFFICIENCY)


def read_choice(
    path: str, given: list[Any], where: str, file: str, systems: Sequence[str] = ()
) -> ChoiceAxis:
    """Load the parts of the catalogue that an axis names.

    Args:
        path: one of `choosable_paths()`.
        given: list of names.
        where: dotted path of the list in the file.
        file: the file that errors name.
        systems: names of the systems of the space, whose chips an efficiency file may distinguish.

    Raises:
        InputError: `given` has something other than names, a name is unknown or repeated, or an efficiency file has
            other numbers for the chip of another system of the space.
    """
    if not given or not all(isinstance(x, str) for x in given):
        raise InputError("a list of names to choose among", file=file, path=where, given=given)
    for name in given:
        if given.count(name) > 1:
            raise InputError("every name once", file=file, path=where, given=name)
    trees = stack([_as_floats(_load(path, name, where, file, systems)) for name in given])
    if path in _NEAR:
        return ChoiceAxis(
            path=path,
            trees=trees,
            names=tuple(given),
            count=f"{_NEAR[path]}.stacks",
            counted=ENGINE_PER_STACK,
        )
    return ChoiceAxis(path=path, trees=trees, names=tuple(given))


def _load(path: str, name: str, where: str, file: str, systems: Sequence[str]) -> Any:
    if path == _EFFICIENCY:
        return _load_efficiency(name, where, file, systems)
    if path in _TOPOLOGIES:
        if name not in TOPOLOGIES:
            raise not_among(TOPOLOGIES, name, file=file, path=where)
        return topology_id(name)
    if path in _NEAR:
        return NearMemory() if name == NONE else within(file, where, load_near, name)
    if path in _TIERS:
        return _load_memory(path, name, where, file)
    load, kind = _LOADERS[path]
    if name == NONE and NONE not in list_names(kind):
        raise InputError(f"a name listed by `jaxcost list {kind}`", file=file, path=where, given=name)
    return within(file, where, load, name)


def _load_efficiency(name: str, where: str, file: str, systems: Sequence[str]) -> Efficiency:
    chips = [*dict.fromkeys(map(chip_of_system, systems))] or [None]
    first, *others = (within(file, where, load_efficiency, name, chip) for chip in chips)
    for chip, other in zip(chips[1:], others, strict=True):
        if rows(other) != rows(first):
            expected = f"systems of one chip, or the numbers of one chip for all, such as {chips[0]}-{name}"
            raise InputError(expected, file=file, path=where, given=f"{name}, which differs on {chip}")
    return first


def _load_memory(path: str, text: str, where: str, file: str) -> Memory:
    if text == NONE:
        if _TIERS[path] == "memory":
            raise InputError("a memory: every chip has a main one", file=file, path=where, given=text)
        return Memory()
    name, _, tail = text.partition(":")
    count, _, wiring = tail.partition(":")
    try:
        stacks = float(count or "1")
    except ValueError:
        stacks = float("nan")
    if not 0 < stacks <= _MAX_STACKS or wiring not in ("", "chained"):
        raise InputError("TYPE:N[:chained], such as hbf:4", file=file, path=where, given=text)
    memory = within(file, where, lambda part: load_memory(part, stacks=stacks), name)
    return replace(memory, chained=1.0) if wiring else memory


def _as_floats(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), tree)
