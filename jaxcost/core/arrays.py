"""Arithmetic on tables with the batch in the last axes, in few equations.

Symbols: a leaf has shape `[*batch]`, often `[]`; a table has rows in front, `[rows, *batch]`. Leaves and tables
broadcast against each other from the right, as in NumPy, so a formula serves one design or many. All leaves of one
evaluation have the same number of axes (`align`), so that a table `[rows, 1]` of numbers shared by all designs
broadcasts against `[rows, designs]` row by row.

`where`, `clip` and `stack` equal their namesakes in `jax.numpy`, but trace to one equation each besides broadcasts, not
to a nested program: tracing, lowering and compiling cost 2-4 ms per equation.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcost.core.pytree import Scalar

__all__ = [
    "align",
    "batch_shape",
    "clip",
    "column",
    "materialize_once",
    "round_",
    "row",
    "spread",
    "stack",
    "total",
    "unstack",
    "where",
]

T = TypeVar("T")


def batch_shape(tree: Any) -> tuple[int, ...]:
    """Return the shape that all leaves of a tree broadcast to."""
    return np.broadcast_shapes(*(np.shape(x) for x in jax.tree.leaves(tree)))


def align(tree: T) -> T:
    """Insert leading axes of length 1 until all leaves have the same number of axes."""
    rank = max((np.ndim(x) for x in jax.tree.leaves(tree)), default=0)
    return jax.tree.map(
        lambda x: x if np.ndim(x) == rank else jnp.reshape(x, (1,) * (rank - np.ndim(x)) + np.shape(x)), tree
    )


def spread(tree: T, shape: tuple[int, ...]) -> T:
    """Broadcast every leaf to a shape; a leaf whose shape starts with it is unchanged."""
    rank = len(shape)
    return jax.tree.map(lambda x: x if np.shape(x)[:rank] == shape else jnp.broadcast_to(x, shape), tree)


def stack(parts: Sequence[Scalar], rank: int = 0) -> jax.Array:
    """Stack numbers of broadcastable shapes along a new leading axis: `[len(parts), *batch]`.

    The batch has at least `rank` axes, with leading axes of length 1 inserted, so that a table of numbers shared by all
    steps broadcasts against one that differs between them.
    """
    dtype = jnp.result_type(*parts)
    shape = np.broadcast_shapes((1,) * rank, *(np.shape(x) for x in parts))
    # A number in several rows, most often 0, is broadcast once.
    full = {id(x): _filled(x, dtype, shape) for x in parts}
    return jnp.stack([full[id(x)] for x in parts])


def unstack(table: jax.Array) -> tuple[jax.Array, ...]:
    """Split a table `[rows, *batch]` into a tuple of rows `[*batch]`."""
    return jnp.unstack(table)


def total(parts: Iterable[Scalar]) -> Scalar:
    """Sum a few numbers without starting from 0, which would be another equation."""
    first, *others = parts
    for part in others:
        first = first + part
    return first


def row(table: Scalar, index: int) -> jax.Array:
    """Return one row of a table: `[rows, *batch]` to `[*batch]`."""
    return lax.index_in_dim(jnp.asarray(table), index, 0, keepdims=False)


def column(values: Sequence[float], like: Scalar) -> jax.Array:
    """Return a column of constants, one per row, with the rank and the dtype of a table `like`."""
    # NumPy, so that arithmetic on constants is not traced.
    constants = np.reshape(np.asarray(values, jnp.result_type(like)), (-1,) + (1,) * (np.ndim(like) - 1))
    return cast(jax.Array, constants)


def where(condition: Any, a: Scalar, b: Scalar) -> jax.Array:
    """Select `a` where the condition is true, else `b`."""
    dtype = jnp.result_type(a, b)
    shape = np.broadcast_shapes(np.shape(condition), np.shape(a), np.shape(b))
    return lax.select(
        *(_filled(x, kind, shape) for x, kind in ((condition, jnp.bool_), (a, dtype), (b, dtype)))
    )


def _filled(x: Scalar, dtype: Any, shape: tuple[int, ...]) -> jax.Array:
    x = lax.convert_element_type(x, dtype)
    if x.shape == shape:
        return x
    return lax.broadcast_in_dim(x, shape, tuple(range(len(shape) - x.ndim, len(shape))))


def materialize_once(tree: T) -> T:
    """Return a tree whose arrays are computed once each, however many operations use them.

    XLA on CPUs fuses a value into each of its consumers and recomputes it there, in gradients too. An optimization
    barrier per array prevents that; one barrier for all would also make them wait for each other.
    """
    return jax.tree.map(lambda x: lax.optimization_barrier(x) if isinstance(x, jax.Array) else x, tree)


def clip(x: Scalar, low: Scalar, high: Scalar) -> jax.Array:
    """Bound a number from below and from above."""
    return jnp.minimum(jnp.maximum(x, low), high)


def round_(x: Scalar) -> jax.Array:
    """Round to the nearest whole number, halves to even."""
    return lax.round(jnp.asarray(x), lax.RoundingMethod.TO_NEAREST_EVEN)
