"""Frozen dataclasses that are JAX pytrees, with the unit of every leaf in its declaration.

`@pytree` makes a keyword-only frozen dataclass and registers it with JAX. Nothing is validated here: JAX rebuilds trees
with tracers, `None` and `object()` in place of numbers, so a validating constructor would break `jit`, `vmap` and
`tree.map`. Validation happens once, at the edge, where a config becomes a tree.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

from jaxcost.core.bounds import NON_NEGATIVE, Bounds

__all__ = [
    "Scalar",
    "canonical",
    "current_path",
    "derived",
    "field",
    "leaf_fields",
    "pytree",
    "replace",
    "replace_at",
    "rows",
]

T = TypeVar("T")

if TYPE_CHECKING:
    Scalar: TypeAlias = jax.Array | float
else:
    Scalar: TypeAlias = Any

_STATIC_TYPES = (str, int, bool, tuple)


def field(
    unit: str = "",
    doc: str = "",
    *,
    default: Any = dataclasses.MISSING,
    bounds: Bounds = NON_NEGATIVE,
    static: bool = False,
    table: bool = False,
    formerly: str = "",
) -> Any:
    """Declare one field: its SI unit ("1" for a ratio or a count), what it means, its default and its bounds.

    Files, `--set`, labels and the page of knobs follow from this declaration. Nothing checks bounds under JAX.

    A default that is itself a tree is given as a zero-argument factory (a class or a function). A `table` is a tree
    whose leaves have one row for each of the class's static `names` in their last axis. `formerly` is a deprecated
    name of the field, which the constructor, attribute access and `replace_at` accept with a `DeprecationWarning`.
    """
    metadata = {
        "unit": unit,
        "doc": doc,
        "bounds": bounds,
        "static": static,
        "table": table,
        "formerly": formerly,
    }
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=False, field_specifiers=(field,))
def pytree(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass and a JAX tree node."""
    made = dataclasses.dataclass(frozen=True, kw_only=True, eq=False)(cls)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]
    tables = [f.name for f in fields if f.metadata.get("table")]
    if tables:
        made.__getattr__ = functools.partialmethod(_row, tables[0])  # type: ignore[attr-defined]
    jax.tree_util.register_dataclass(
        made,
        data_fields=[f.name for f in fields if not f.metadata.get("static")],
        meta_fields=[f.name for f in fields if f.metadata.get("static")],
    )
    if former_names(made):
        _accept_former_names(made)
    return made


def _row(self: Any, table: str, name: str) -> Any:
    """Return a row of a table as an attribute: `report.decode.attention_full`."""
    names = self.__dict__.get("names", ())
    if name not in names:
        raise AttributeError(
            f"{type(self).__name__} has no field or operator {name!r}; operators: {', '.join(names)}"
        )
    index = names.index(name)
    return jax.tree.map(lambda x: x[..., index], getattr(self, table))


def former_names(cls: type) -> dict[str, str]:
    """Map the deprecated names of a tree class's fields to their current names."""
    return {f.metadata["formerly"]: f.name for f in dataclasses.fields(cls) if f.metadata.get("formerly")}


def current_name(cls: type, name: str) -> str:
    """Return the current name of a field; a deprecated one is replaced, with a `DeprecationWarning`."""
    current = former_names(cls).get(name)
    if current is None:
        return name
    warnings.warn(f"{cls.__name__}.{name} is now {current}", DeprecationWarning, stacklevel=3)
    return current


def current_path(tree: Any, path: str) -> str:
    """Return a dotted path into a tree with deprecated names of fields replaced, with a `DeprecationWarning` each.

    From a part on that names no field the path is returned as it is.
    """
    head, dot, rest = path.partition(".")
    if not dataclasses.is_dataclass(tree):
        return path
    head = current_name(type(tree), head)
    below = getattr(tree, head, None)
    return f"{head}{dot}{current_path(below, rest) if rest else rest}"


def _accept_former_names(cls: Any) -> None:
    """Let the constructor and attribute access of a tree class take deprecated names of its fields."""
    construct = cls.__init__

    @functools.wraps(construct)
    def __init__(self: Any, **values: Any) -> None:
        former = {name: values.pop(name) for name in former_names(cls) if name in values}
        construct(self, **(values | {current_name(cls, name): value for name, value in former.items()}))

    def __getattr__(self: Any, name: str) -> Any:
        if name not in former_names(type(self)):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self, current_name(type(self), name))

    cls.__init__, cls.__getattr__ = __init__, __getattr__


def leaf_fields(cls: type) -> Iterator[dataclasses.Field]:
    """Yield the fields of a tree class that JAX traces, in order."""
    return (f for f in dataclasses.fields(cls) if not f.metadata.get("static"))


def replace(tree: T, **changes: Any) -> T:
    """Return a copy of `tree` with the named fields replaced."""
    return dataclasses.replace(tree, **changes)  # type: ignore[type-var]


def replace_at(tree: T, path: str, value: Any) -> T:
    """Return a copy of `tree` with the leaf or branch at a dotted `path` replaced: `replace_at(s, "chip.tdp", 500.0)`.

    Raises:
        AttributeError: a part of the path is not a field; the message lists the fields.
    """
    head, _, rest = path.partition(".")
    head = current_name(type(tree), head) if dataclasses.is_dataclass(tree) else head
    names = [f.name for f in dataclasses.fields(tree)] if dataclasses.is_dataclass(tree) else []
    if head not in names:
        raise AttributeError(
            f"{type(tree).__name__} has no field {head!r}; it has {', '.join(names) or 'none'}"
        )
    return replace(tree, **{head: replace_at(getattr(tree, head), rest, value) if rest else value})


def canonical(tree: T, dtype: Any = None) -> T:
    """Convert every leaf to a floating JAX array of one dtype, so that equal structures share one compilation.

    Python ints, floats and NumPy scalars in leaves would each cause another trace. With `dtype=None` the dtype is the
    result type of the floating array leaves, or JAX's default without any.

    Raises:
        TypeError: a static field has a mutable value, which could match a stale compilation.
    """
    leaves, structure = jax.tree.flatten(tree)
    _check_static(tree)
    if dtype is None:
        floating = [x.dtype for x in leaves if _is_floating_array(x)]
        dtype = jnp.result_type(*floating) if floating else jnp.result_type(float)
    return jax.tree.unflatten(structure, [jnp.asarray(x, dtype) for x in leaves])


def _is_floating_array(x: Any) -> bool:
    # Only JAX arrays decide: a NumPy float64 must not request 64 bits, which JAX may have disabled.
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating) and not x.aval.weak_type


def _check_static(tree: Any) -> None:
    if not dataclasses.is_dataclass(tree):
        if isinstance(tree, tuple | list):
            for item in tree:
                _check_static(item)
        return
    for f in dataclasses.fields(tree):
        value = getattr(tree, f.name)
        if not f.metadata.get("static"):
            _check_static(value)
        elif not _is_static_value(value):
            raise TypeError(
                f"{type(tree).__name__}.{f.name} is static and must be a string, an int, a bool or a tuple "
                f"of those, not {type(value).__name__}"
            )


def _is_static_value(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_static_value(v) for v in value)
    return value is None or isinstance(value, _STATIC_TYPES)


def rows(tree: Any, prefix: str = "") -> list[tuple[str, str, Any]]:
    """List `(dotted path, unit, value)` of every leaf and of every total declared with `derived`.

    A table, whose leaves have rows in the last axis, is listed row by row under the static `names` of its class.
    """
    out: list[tuple[str, str, Any]] = []
    for f in leaf_fields(type(tree)):
        value = getattr(tree, f.name)
        path = f"{prefix}{f.name}"
        if value is None:  # an optional branch
            continue
        if f.metadata.get("table"):
            for index, name in enumerate(tree.names):
                out += rows(jax.tree.map(lambda x, i=index: x[..., i], value), f"{prefix}{name}.")
        elif dataclasses.is_dataclass(value):
            out += rows(value, path + ".")
        else:
            out.append((path, f.metadata["unit"], value))
    for name, total in totals(type(tree)).items():
        out.append((f"{prefix}{name}", total.unit, getattr(tree, name)))
    return out


def totals(cls: type) -> dict[str, "derived"]:
    """Map names to the `derived` totals of a tree class, inherited ones first."""
    return {
        name: member
        for base in reversed(cls.__mro__)
        for name, member in vars(base).items()
        if isinstance(member, derived)
    }


class derived(functools.cached_property):
    """A total over the leaves of a tree with its unit, computed once per instance: `@derived("s")`."""

    def __init__(self, unit: str) -> None:
        """Note the unit; the function follows by decoration."""
        self.unit = unit

    def __call__(self, function: Callable[[Any], Any]) -> "derived":
        """Take the function that computes the total."""
        super().__init__(function)
        return self
