"""Serving engines of the catalogue: the limits of a step and the memory policy of a released version."""

from typing import Any

import jax

from jaxcost.core.pytree import leaf_fields, replace
from jaxcost.edge.catalog.loaders import load_chip, load_system
from jaxcost.edge.catalog.parts import chip_of_alias, known, load_part
from jaxcost.edge.catalog.reading import canonical, leaves_of, quantities, shown
from jaxcost.edge.catalog.schema import EngineFile
from jaxcost.edge.io.errors import InputError, not_among, within
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.spec.engine import Engine

__all__ = ["DEFAULT_ENGINE", "engine_file", "load_engine", "without_graphs"]

DEFAULT_ENGINE = "typical"  # the defaults of `Engine`
# What an engine does not have where its file does not say; a typical engine has some of it.
_ABSENT = {"memory_share": 1.0}


def load_engine(name: str = DEFAULT_ENGINE, chip: str | None = None, **changes: Any) -> Engine:
    """Load a serving engine.

    Args:
        name: a name or alias of `jaxcost list engines`, such as "vllm" or "vllm-0.33", or a YAML path.
        chip: name of the chip or system that it runs on. Released engines choose limits by the memory of the chip;
            without a name they are those of the largest memory.
        changes: leaves of `Engine` in place of those of the file, such as `memory_share=0.95`. A stated memory share
            holds alone: what the engine would keep free by its own rule is then 0.

    Raises:
        InputError: no such name, a broken file, or no such leaf.
    """
    part, path = load_part("engines", name)
    values = _ABSENT | leaves_of(Engine, quantities(part, path))
    size, chip_name = _memory(chip)
    for index, tier in enumerate(part.by_memory):
        where = f"by_memory[{index}]."
        least = parse_quantity(tier.at_least, "B", file=shown(path), path=f"{where}at_least")
        if size >= least and not any(chip_name.startswith(prefix) for prefix in tier.except_chips):
            values |= leaves_of(Engine, quantities(tier, path, where))
    leaves = [f.name for f in leaf_fields(Engine)]
    for leaf in changes:
        if leaf not in leaves:
            raise not_among(leaves, leaf, path="engine")
    if "memory_share" in changes:
        values |= {"kept_bytes": 0.0, "kept_step_bytes": 0.0, "kept_rank_bytes": 0.0}
    return canonical(Engine(**(values | changes)))


def engine_file(name: str) -> tuple[str, EngineFile]:
    """Return the name of an engine without aliases, and its file."""
    part, path = within(None, "--engine", load_part, "engines", name)
    return path.stem, part


def without_graphs(engine: Engine) -> Engine:
    """Return an engine that captures no graphs."""
    return replace(engine, graph_bytes=0.0, graph_layer_bytes=0.0)


def _memory(name: str | None) -> tuple[float, str]:
    """Return the bytes of the main memory of a chip or of the chip of a system, and the name of the chip."""
    if name is None:
        return float("inf"), ""
    with jax.ensure_compile_time_eval():  # limits are chosen also while a function is traced
        if name in known("chips"):
            return float(load_chip(name).memory.capacity), chip_of_alias(name)
        try:
            system = load_system(name)
        except InputError as error:
            expected, near = error.expected, error.suggestion
            raise InputError(expected, path="chip", given=name, suggestion=near) from None
        return float(system.chip.memory.capacity), chip_of_alias(name.rsplit("-x", 1)[0])
