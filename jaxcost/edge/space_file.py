"""Read a space of designs from YAML: models, systems, fixed settings, and axes over dotted paths."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import canonical, leaf_fields, replace
from jaxcost.edge.catalog import configs_root, load_efficiency, load_model, load_prices, load_system, names
from jaxcost.edge.config import read_yaml
from jaxcost.edge.errors import InputError, nearest, not_among, within
from jaxcost.edge.formats import read_bits
from jaxcost.edge.quantity import parse_quantity
from jaxcost.explore.space import Axis, Design, Space, stack
from jaxcost.explore.sweep import METRICS
from jaxcost.spec.fabric import TOPOLOGIES, topology_id
from jaxcost.spec.plan import Plan
from jaxcost.spec.traffic import Traffic

__all__ = ["leaf_units", "load_space", "read_space"]

_KEYS = ("title", "models", "systems", "efficiency", "prices", "traffic", "plan", "axes", "objective")
_MOST_VALUES = 1_000_000
_LIMIT = 2**31 - 2**21


def load_space(name: str) -> Space:
    """Load a space by the name of a file in configs/spaces, or by a YAML path."""
    return read_space(name)[0]


def read_space(name: str) -> tuple[Space, str, str]:
    """Load (space, objective, title).

    Raises:
        InputError: an unknown name, key, path or part, or no whole grid of values.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else configs_root() / "spaces" / f"{name}.yaml"
    if not name.endswith((".yaml", ".yml")) and (len(name) > 200 or not path.exists()):
        raise InputError(
            "a space among configs/spaces, or a YAML path",
            given=name,
            suggestion=nearest(name, names("spaces")),
        )
    data = read_yaml(path)
    shown = path.name
    for key in data:
        if key not in _KEYS:
            raise InputError(
                "one of " + ", ".join(_KEYS), file=shown, path=key, suggestion=nearest(key, _KEYS)
            )
    systems, models = _names(data, "systems", shown), _names(data, "models", shown)
    efficiency = str(data.get("efficiency", "ideal"))
    within(shown, "efficiency", load_efficiency, efficiency)
    base = Design(
        system=stack([within(shown, "systems", load_system, s, efficiency=efficiency) for s in systems]),
        model=stack([within(shown, "models", load_model, m) for m in models]),
        traffic=_settings(Traffic(), data.get("traffic", {}), "traffic", shown),
        plan=_settings(Plan(), data.get("plan", {}), "plan", shown),
        prices=within(shown, "prices", load_prices, str(data.get("prices", "default"))),
    )
    axes = data.get("axes", {})
    if not isinstance(axes, dict):
        raise InputError("a mapping from dotted paths to values", file=shown, path="axes", given=axes)
    space = Space(
        base=canonical(base),
        axes=tuple(_axis(p, values, base, shown) for p, values in axes.items()),
        systems=tuple(systems),
        models=tuple(models),
    )
    if space.size > _LIMIT:
        raise InputError(f"at most {_LIMIT:,} designs", file=shown, given=f"{space.size:,}")
    objective = str(data.get("objective", "usd_per_mtok"))
    if objective not in METRICS:
        raise not_among(METRICS, objective, file=shown, path="objective")
    return space, objective, str(data.get("title", shown))


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
        else:
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
        changes[key] = _number(value, units[key], path, file)
    return replace(tree, **changes)


def _number(value: Any, unit: str, path: str, file: str) -> float:
    if unit != "bit" and isinstance(value, int | float) and not isinstance(value, bool):
        return parse_quantity(value, "1", file=file, path=path)
    if unit == "bit":
        return within(file, path, read_bits, value)
    return parse_quantity(value, unit, file=file, path=path)


def _topology(value: Any, path: str, file: str) -> float:
    if value not in TOPOLOGIES:
        raise not_among(TOPOLOGIES, str(value), file=file, path=path)
    return topology_id(value)


def _axis(path: str, given: Any, base: Design, file: str) -> Axis:
    units = leaf_units(base)
    where = f"axes.{path}"
    if path not in units:
        raise InputError(
            "a dotted path of system, model, traffic, plan or prices",
            file=file,
            path=where,
            suggestion=nearest(path, units),
        )
    relative = isinstance(given, dict) and set(given) == {"scale"}
    values = given["scale"] if relative else given
    unit = "1" if relative else units[path]
    if isinstance(values, dict):
        values = _range(values, unit, where, file)
    if not isinstance(values, list) or not values:
        raise InputError(
            "a list of values, {log: [low, high, count]}, {linear: [low, high, count]}, or {scale: ...}",
            file=file,
            path=where,
            given=values,
        )
    names = path.endswith(".topology") and not relative
    numbers = [_topology(v, where, file) if names else _number(v, unit, where, file) for v in values]
    return Axis(path=path, values=jnp.asarray(numbers, jnp.result_type(float)), relative=relative)


def _range(given: dict[str, Any], unit: str, where: str, file: str) -> list[float]:
    kind = next(iter(given), "")
    parts = given.get(kind)
    if kind not in {"log", "linear"} or len(given) != 1 or not isinstance(parts, list) or len(parts) != 3:
        raise InputError(
            "{log: [low, high, count]} or {linear: [low, high, count]}",
            file=file,
            path=where,
            given=repr(given),
        )
    low, high = (_number(v, unit, where, file) for v in parts[:2])
    count = parts[2]
    if (
        not isinstance(count, int)
        or not 2 <= count <= _MOST_VALUES
        or high <= low
        or (kind == "log" and low <= 0)
    ):
        raise InputError(
            "0 < low < high and a whole count from 2 to 1,000,000", file=file, path=where, given=repr(parts)
        )
    steps = np.geomspace(low, high, count) if kind == "log" else np.linspace(low, high, count)
    return [float(x) for x in steps]
