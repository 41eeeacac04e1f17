"""Arithmetic on tables with the batch in the last axes, in few equations.

Symbols: a leaf has shape `[*batch]`, often `[]`; a table puts its own axis in front, `[rows, *batch]`. Leaves and
tables broadcast against each other from the right, as in NumPy, so a formula serves one design or many. Every leaf
of one evaluation has the same number of axes (`align`): then a table `[rows, 1]` of numbers that all designs share
meets one of `[rows, designs]` row by row.

`where`, `clip` and `stack` do what their namesakes of `jax.numpy` do, but trace to one equation each beyond their
broadcasts, not to a nested program: tracing, lowering and compiling cost 2-4 ms an equation.
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
    """Give every leaf as many axes as the leaf with the most, new ones of length 1 in front."""
    rank = max((np.ndim(x) for x in jax.tree.leaves(tree)), default=0)
    return jax.tree.map(
        lambda x: x if np.ndim(x) == rank else jnp.reshape(x, (1,) * (rank - np.ndim(x)) + np.shape(x)), tree
    )


def spread(tree: T, shape: tuple[int, ...]) -> T:
    """Broadcast every leaf to a shape; those that have it, with axes of their own behind it, stay as they are."""
    rank = len(shape)
    return jax.tree.map(lambda x: x if np.shape(x)[:rank] == shape else jnp.broadcast_to(x, shape), tree)


def stack(parts: Sequence[Scalar], rank: int = 0) -> jax.Array:
    """Stack numbers of any broadcastable shapes along a new leading axis: `[len(parts), *batch]`.

    The batch has at least `rank` axes, new ones of length 1: a table of what all steps share lines up with theirs.
    """
    dtype = jnp.result_type(*parts)
    shape = np.broadcast_shapes((1,) * rank, *(np.shape(x) for x in parts))
    # Only what must is broadcast, and the same number in several rows, a zero above all, once.
    whole = {id(x): _filled(x, dtype, shape) for x in parts}
    return jnp.stack([whole[id(x)] for x in parts])


def unstack(table: jax.Array) -> tuple[jax.Array, ...]:
    """Take all rows of a table: `[rows, *batch]` to as many `[*batch]`."""
    return jnp.unstack(table)


def total(parts: Iterable[Scalar]) -> Scalar:
    """Add up a few numbers, without a zero to begin with."""
    first, *others = parts
    for part in others:
        first = first + part
    return first


def row(table: Scalar, index: int) -> jax.Array:
    """Take one row of a table: `[rows, *batch]` to `[*batch]`."""
    return lax.index_in_dim(jnp.asarray(table), index, 0, keepdims=False)


def column(values: Sequence[float], like: Scalar) -> jax.Array:
    """Make a table column of constants, one a row, with the axes and the precision of a table `like`."""
    # Of NumPy, so that arithmetic among constants is no equation.
    made = np.reshape(np.asarray(values, jnp.result_type(like)), (-1,) + (1,) * (np.ndim(like) - 1))
    return cast(jax.Array, made)


def where(condition: Any, a: Scalar, b: Scalar) -> jax.Array:
    """Choose `a` where the condition holds, else `b`."""
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
    """Return a tree of which each number is computed once, however many use it.

    XLA on a CPU fuses a value into each of its consumers and computes it there again, and gradients likewise. A barrier
    for each keeps it whole; one for all would also make them wait for each other.
    """
    return jax.tree.map(lambda x: lax.optimization_barrier(x) if isinstance(x, jax.Array) else x, tree)


def clip(x: Scalar, low: Scalar, high: Scalar) -> jax.Array:
    """Bound a number from below and from above."""
    return jnp.minimum(jnp.maximum(x, low), high)


def round_(x: Scalar) -> jax.Array:
    """Round to the nearest whole number, halves to even."""
    return lax.round(jnp.asarray(x), lax.RoundingMethod.TO_NEAREST_EVEN)
