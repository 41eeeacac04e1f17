"""Memories, the tiers a chip makes of them, engines near memory, stacking and cooling: from files to trees."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxcost.core.pytree import replace
from jaxcost.edge.catalog.parts import load_part
from jaxcost.edge.catalog.reading import canonical, leaves_of, quantities, shown
from jaxcost.edge.catalog.silicon import trend
from jaxcost.edge.io.errors import not_among, within
from jaxcost.spec.chip import Chip, Cooling, Stacking
from jaxcost.spec.memory import ENGINE_PER_STACK, PER_STACK, TIERS, Memory, NearMemory
from jaxcost.spec.system import System

__all__ = ["add_near", "add_tier", "load_memory", "load_near", "with_sections"]


def load_memory(name: str, *, stacks: float = 1) -> Memory:
    """Load a memory type: one stack, channel or module, or several together."""
    part, path = load_part("memories", name)
    q = trend(quantities(part, path))
    q.pop("power", None)
    return canonical(replace(Memory(stacks=float(stacks)), **_many(q, PER_STACK, stacks)))


def load_near(name: str, *, stacks: float = 1) -> NearMemory:
    """Load engines near memory: those of one stack, module or card, or of several together."""
    part, path = load_part("near", name)
    return canonical(NearMemory(**_many(quantities(part, path), ENGINE_PER_STACK, stacks)))


def add_tier(
    system: System, tier: str, memory: str, *, stacks: float = 1, chained: bool = False, buffer: float = 0.0
) -> System:
    """Put stacks of a memory type on every chip as one of its tiers, in place of what was there.

    Args:
        system: the system.
        tier: "sram", "hbf", "host", "cxl", "ssd", or "memory" for the main one.
        memory: name of the memory type.
        stacks: stacks, modules or devices a chip.
        chained: whether they stand behind the main memory rather than on edge of their own.
        buffer: bytes of on-chip buffer for reading ahead; 0 for as much as it takes.

    Raises:
        InputError: no such tier or memory.
    """
    found = load_memory(memory, stacks=stacks)
    found = replace(found, chained=float(chained), buffer=float(buffer))
    return replace(system, chip=replace(system.chip, **{_tier(tier): canonical(found)}))


def add_near(system: System, tier: str, engine: str, *, stacks: float | None = None) -> System:
    """Put engines in or beside one memory tier of every chip, as many as it has stacks unless told.

    Raises:
        InputError: no such tier or engine.
    """
    memory: Memory = getattr(system.chip, _tier(tier))
    count = max(float(memory.stacks), 1.0) if stacks is None else stacks
    changed = replace(memory, near=load_near(engine, stacks=count))
    return replace(system, chip=replace(system.chip, **{tier: changed}))


def _tier(name: str) -> str:
    if name not in TIERS:
        raise not_among(TIERS, name, path="tier")
    return name


def with_sections(chip: Chip, part: Any, path: Path, near: str | None, where: str) -> Chip:
    """Add what a chip's or a system's file says of tiers, engines, stacking, cooling and shoreline.

    Args:
        chip: the chip so far.
        part: the checked file.
        path: where it stands.
        near: name of the main memory's engines, if any.
        where: field that names them.
    """
    changed: dict[str, Any] = {}
    if near is not None:
        stacks = max(float(chip.memory.stacks), 1.0)
        engine = within(shown(path), where, lambda name: load_near(name, stacks=stacks), near)
        changed["memory"] = replace(chip.memory, near=engine)
    for tier in () if part.tiers is None else type(part.tiers).model_fields:
        section = getattr(part.tiers, tier)
        if section is not None:
            changed[tier] = _section(section, path, f"tiers.{tier}.")
    for name, tree in (("stacking", Stacking), ("cooling", Cooling)):
        section = getattr(part, name)
        if section is not None:
            changed[name] = tree(**quantities(section, path, f"{name}."))
    return replace(chip, **changed, **leaves_of(Chip, quantities(part, path)))


def _section(section: Any, path: Path, where: str) -> Memory:
    q = quantities(section, path, where)
    stacks = q.pop("stacks")
    memory = within(shown(path), f"{where}type", lambda name: load_memory(name, stacks=stacks), section.type)
    if section.near is not None:
        engine = within(
            shown(path), f"{where}near", lambda name: load_near(name, stacks=stacks), section.near
        )
        memory = replace(memory, near=engine)
    return replace(memory, **q)


def _many(one: Mapping[str, float], per_stack: tuple[str, ...], stacks: float) -> dict[str, float]:
    return {key: value * stacks if key in per_stack else value for key, value in one.items()}
