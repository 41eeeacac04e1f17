"""Run one body over several equal trees, in a compiled loop."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxcost.core.arrays import batch_shape, spread, stack

__all__ = ["carry", "over"]

T = TypeVar("T")


def over(function: Callable[[Any], T], items: Sequence[Any]) -> tuple[T, ...]:
    """Apply a function to each of a few trees of one structure; the tuple of its results.

    The body is compiled once in place of once an item. With `checkpoint` the backward pass recomputes an item in
    place of storing all its intermediates, which costs less than moving them.
    """
    stacked = jax.tree.map(lambda *x: stack(x), *items)
    out = jax.lax.map(jax.checkpoint(function, prevent_cse=False), stacked)
    return tuple(jax.tree.map(lambda x, i=i: x[i], out) for i in range(len(items)))


def carry(function: Callable[[Any, Any], tuple[Any, T]], state: Any, items: Sequence[Any]) -> list[T]:
    """Apply a function to each of a few trees of one structure in turn, handing on a state; the list of its results."""
    leaves = jax.tree.leaves((state, list(items)))
    dtype, shape = jnp.result_type(*leaves), batch_shape((state, list(items)))
    vary = lambda tree: spread(jax.tree.map(lambda x: jnp.asarray(x, dtype), tree), shape)  # noqa: E731
    stacked = jax.tree.map(lambda *x: stack(x), *map(vary, items))
    _, out = jax.lax.scan(jax.checkpoint(function, prevent_cse=False), vary(state), stacked)
    return [jax.tree.map(lambda x, i=i: x[i], out) for i in range(len(items))]
