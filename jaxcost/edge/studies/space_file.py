"""Read a space of designs from YAML: models, systems, fixed settings, and axes over dotted paths.

The order of the axes of a space is systems, models, axes, tied, sample.
"""

import dataclasses
from pathlib import Path
from typing import Any

from jaxcost.core.pytree import canonical, leaf_fields, replace_at
from jaxcost.edge.catalog.loaders import (
    configs_root,
    list_names,
    load_efficiency,
    load_model,
    load_prices,
    load_system,
)
from jaxcost.edge.catalog.parts import LONGEST_NAME, expanded, read_part
from jaxcost.edge.io.errors import InputError, nearest, within
from jaxcost.edge.io.validation import validate
from jaxcost.edge.studies.axis_file import AxisReader, parse_number
from jaxcost.edge.studies.space_schema import SpaceFile, SpaceSections
from jaxcost.edge.studies.study_schema import StudyFile
from jaxcost.explore.space import Space, stack
from jaxcost.physics.economics.area import by_parts
from jaxcost.spec.design import Design
from jaxcost.spec.memory import TIERS
from jaxcost.spec.plan import Plan
from jaxcost.spec.traffic import Traffic

__all__ = ["build_space", "leaf_units", "load_space", "read_space", "read_space_data"]

_SINGULAR = {"spaces": "space", "studies": "study"}


def load_space(name: str) -> Space:
    """Load a space by the name of a file in configs/spaces, or by a YAML path."""
    return read_space(name)[0]


def read_space_data(name: str, kind: str = "spaces") -> tuple[dict[str, Any], str, Path]:
    """Read the file of a space or a study.

    Returns:
        Its content as written, its name in errors, and its path.

    Raises:
        InputError: an unknown name, or no YAML mapping.
    """
    in_catalogue = not name.endswith((".yaml", ".yml"))
    path = configs_root() / kind / f"{name}.yaml" if in_catalogue else expanded(name)
    if in_catalogue and (len(name) > LONGEST_NAME or not path.exists()):
        raise InputError(
            f"a {_SINGULAR[kind]} among configs/{kind}, or a YAML path",
            given=name,
            suggestion=nearest(name, list_names(kind)),
        )
    return read_part(path), path.name, path


def read_space(name: str) -> tuple[Space, str, str]:
    """Read a space, its objective and its title; `read_reducers` reads its section `reduce`.

    Raises:
        InputError: an unknown name, key, path or part, no whole grid of values, or axes that undo each other.
    """
    data, file, _ = read_space_data(name)
    sections = validate(SpaceFile, data, file=file)
    return build_space(sections, file), sections.objective, sections.title or file


def build_space(sections: SpaceSections, file: str) -> Space:
    """Build a space from its sections; the knobs of a study are its sample.

    Raises:
        InputError: as `read_space`.
    """
    efficiency = sections.efficiency
    within(file, "efficiency", load_efficiency, efficiency)  # its errors name the key of the space
    systems = [within(file, "systems", load_system, name, efficiency=efficiency) for name in sections.systems]
    base = Design(
        system=stack([by_parts(system) for system in systems] if sections.by_parts else systems),
        model=stack([within(file, "models", load_model, name) for name in sections.models]),
        traffic=_set_leaves(Traffic(), sections.traffic, "traffic", file),
        plan=_set_leaves(Plan(), sections.plan, "plan", file),
        prices=within(file, "prices", load_prices, sections.prices),
    )
    reader = AxisReader(
        file=file,
        units=leaf_units(base),
        names={"system": sections.systems, "model": sections.models},
        tiers={f"system.chip.{tier}": getattr(base.system.chip, tier).stacks for tier in TIERS},
    )
    for path, section in sections.axes.items():
        reader.add_axis(path, section)
    for i, section in enumerate(sections.tied, 1):
        reader.add_tied(section, f"tied.{i}")
    for i, section in enumerate(getattr(sections, "sample", ()), 1):
        reader.add_sample(section, "sample" if i == 1 else f"sample.{i}")
    if isinstance(sections, StudyFile):
        reader.add_knobs(sections.knobs, "knobs")
    space = Space(
        base=canonical(base),
        axes=tuple(reader.parts),
        systems=tuple(sections.systems),
        models=tuple(sections.models),
    )
    try:
        _ = space.subgrids
    except ValueError as error:
        raise InputError(f"conditions on fewer values ({error})", file=file, path="axes") from None
    return space


def leaf_units(tree: Any, prefix: str = "") -> dict[str, str]:
    """Return the unit of every leaf of a tree by its dotted path."""
    units: dict[str, str] = {}
    for f in leaf_fields(type(tree)):
        value = getattr(tree, f.name)
        if dataclasses.is_dataclass(value):
            units |= leaf_units(value, f"{prefix}{f.name}.")
        elif value is not None:
            units[f"{prefix}{f.name}"] = f.metadata["unit"]
    return units


def _set_leaves(tree: Any, settings: dict[str, Any], where: str, file: str) -> Any:
    units = leaf_units(tree)
    for key, value in settings.items():
        path = f"{where}.{key}"
        if key not in units:
            raise InputError(
                "one of " + ", ".join(units), file=file, path=path, suggestion=nearest(key, units)
            )
        tree = replace_at(tree, key, parse_number(value, units[key], path, file))
    return tree
