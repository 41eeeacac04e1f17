"""Read a space of designs from YAML: models, systems, fixed settings, and axes over dotted paths.

Digits come in the order systems, models, axes, tied, sample; how each is written is in `axis_file`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxcost.core.pytree import canonical, leaf_fields, replace
from jaxcost.edge.catalog.loaders import (
    configs_root,
    load_efficiency,
    load_model,
    load_prices,
    load_system,
    names,
)
from jaxcost.edge.catalog.parts import expanded, read_part
from jaxcost.edge.io.errors import InputError, nearest, not_among, within
from jaxcost.edge.studies.axis_file import AxisReader, mapping, number
from jaxcost.explore.space import Design, Space, stack
from jaxcost.explore.sweep import METRICS
from jaxcost.physics.economics.area import by_parts
from jaxcost.spec.memory import TIERS
from jaxcost.spec.plan import Plan
from jaxcost.spec.traffic import Traffic

__all__ = ["SPACE_KEYS", "leaf_units", "load_space", "read_space", "read_space_data", "space_of"]

SPACE_KEYS = (
    "title",
    "models",
    "systems",
    "efficiency",
    "by_parts",
    "prices",
    "traffic",
    "plan",
    "axes",
    "tied",
)
_ONE_OF = {"spaces": "space", "studies": "study"}
_KEYS = (*SPACE_KEYS, "sample", "objective", "reduce")


def load_space(name: str) -> Space:
    """Load a space by the name of a file in configs/spaces, or by a YAML path."""
    return read_space(name)[0]


def read_space_data(
    name: str, kind: str = "spaces", keys: Sequence[str] = _KEYS
) -> tuple[dict[str, Any], str, Path]:
    """Read the file of a space, or of another kind with keys of its own, once however often it is asked for.

    Returns:
        What it says, its top-level keys checked; the name errors show; where it stands.

    Raises:
        InputError: an unknown name or key, or no YAML mapping.
    """
    in_catalogue = not name.endswith((".yaml", ".yml"))
    path = configs_root() / kind / f"{name}.yaml" if in_catalogue else expanded(name)
    if in_catalogue and (len(name) > 200 or not path.exists()):
        raise InputError(
            f"a {_ONE_OF[kind]} among configs/{kind}, or a YAML path",
            given=name,
            suggestion=nearest(name, names(kind)),
        )
    data = read_part(path)
    for key in data:
        if key not in keys:
            raise InputError(
                "one of " + ", ".join(keys), file=path.name, path=key, suggestion=nearest(key, keys)
            )
    return data, path.name, path


def read_space(name: str) -> tuple[Space, str, str]:
    """Load (space, objective, title); what the file says of reducing is left to others.

    Raises:
        InputError: an unknown name, key, path or part, no whole grid of values, or axes that undo each other.
    """
    data, shown, _ = read_space_data(name)
    space = space_of(data, shown)
    objective = str(data.get("objective", "usd_per_mtok"))
    if objective not in METRICS:
        raise not_among(METRICS, objective, file=shown, path="objective")
    return space, objective, str(data.get("title", shown))


def space_of(data: dict[str, Any], shown: str) -> Space:
    """Make the space that the keys of a file say; of a study, its `knobs` are the sample.

    Raises:
        InputError: as `read_space`.
    """
    systems, models = _names(data, "systems", shown), _names(data, "models", shown)
    efficiency = str(data.get("efficiency", "ideal"))
    within(shown, "efficiency", load_efficiency, efficiency)
    loaded = [within(shown, "systems", load_system, s, efficiency=efficiency) for s in systems]
    free = data.get("by_parts", False)
    if not isinstance(free, bool):
        raise InputError("true or false", file=shown, path="by_parts", given=free)
    base = Design(
        system=stack([by_parts(system) for system in loaded] if free else loaded),
        model=stack([within(shown, "models", load_model, m) for m in models]),
        traffic=_settings(Traffic(), data.get("traffic", {}), "traffic", shown),
        plan=_settings(Plan(), data.get("plan", {}), "plan", shown),
        prices=within(shown, "prices", load_prices, str(data.get("prices", "default"))),
    )
    reader = AxisReader(
        file=shown,
        units=leaf_units(base),
        names={"system": systems, "model": models},
        tiers={f"system.chip.{tier}": getattr(base.system.chip, tier).stacks for tier in TIERS},
    )
    axes = mapping(data.get("axes", {}), "a mapping from dotted paths to values", "axes", shown)
    for path, values in axes.items():
        reader.add_axis(path, values)
    for i, group in enumerate(_groups(data, "tied", shown), 1):
        reader.add_tied(group, f"tied.{i}")
    for i, group in enumerate(_groups(data, "sample", shown), 1):
        reader.add_sample(group, "sample" if i == 1 else f"sample.{i}", "sample" if i == 1 else f"sample.{i}")
    if "knobs" in data:
        reader.add_knobs(data["knobs"], "knobs")
    space = Space(
        base=canonical(base), axes=tuple(reader.parts), systems=tuple(systems), models=tuple(models)
    )
    try:
        _ = space.subgrids
    except ValueError as error:
        raise InputError(f"conditions on fewer values ({error})", file=shown, path="axes") from None
    return space


def _groups(data: dict[str, Any], key: str, file: str) -> list[Any]:
    given = data.get(key, [])
    groups = given if isinstance(given, list) else [given]
    for group in groups:
        mapping(group, "a mapping, or a list of them", key, file)
    return groups


def _names(data: dict[str, Any], key: str, file: str) -> list[str]:
    given = data.get(key)
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not given or not all(isinstance(x, str) for x in given):
        raise InputError(f"a list of names of {key}", file=file, path=key, given=given)
    return given


def leaf_units(tree: Any, prefix: str = "") -> dict[str, str]:
    """Map every dotted path of a tree's leaves to its unit."""
    out: dict[str, str] = {}
    for f in leaf_fields(type(tree)):
        value = getattr(tree, f.name)
        if dataclasses.is_dataclass(value):
            out |= leaf_units(value, f"{prefix}{f.name}.")
        elif value is not None:
            out[f"{prefix}{f.name}"] = f.metadata["unit"]
    return out


def _settings(tree: Any, given: Any, where: str, file: str) -> Any:
    if not isinstance(given, dict):
        raise InputError("a mapping", file=file, path=where, given=given)
    units = leaf_units(tree)
    changes = {}
    for key, value in given.items():
        path = f"{where}.{key}"
        if key not in units:
            raise InputError(
                "one of " + ", ".join(units), file=file, path=path, suggestion=nearest(key, units)
            )
        changes[key] = number(value, units[key], path, file)
    return replace(tree, **changes)
