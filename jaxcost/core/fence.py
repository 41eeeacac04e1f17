"""Keep the backward pass from being computed many times over.

XLA fuses a cheap value that several others need into each of them, so a chain of products that fans out is
recomputed once a consumer, and chains of fans multiply. The backward pass of a cost model is such a chain: with
every leaf differentiated it grew fourfold, and so did its compile time. Of the operations that are nearly free
in a vector unit, a division by a value the compiler does not know is one it never duplicates. `fence` puts
such a division, by exactly one, on the gradients that pass through it; values pass untouched.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar

__all__ = ["fence", "once", "opaque_one"]

T = TypeVar("T")


def opaque_one(*leaves: Scalar) -> jax.Array:
    """Return 1.0 in a way the compiler cannot see through, batched as any of the non-negative leaves is."""
    return jnp.where(sum(leaves) >= 0, 1.0, 2.0).astype(jnp.result_type(*leaves))


def once(tree: T, one: jax.Array) -> T:
    """Return `tree`, each number of it computed once however many use it: divided by an `opaque_one`.

    One that is divided again is not: the compiler makes x / one / y into x / (one y). Multiply by 1 / y.
    """
    return jax.tree.map(lambda x: x / one if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x, tree)


def fence(tree: T, one: jax.Array) -> T:
    """Return `tree` unchanged, its gradients fenced; Python numbers in it are left alone."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [
        i for i, x in enumerate(leaves) if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
    ]
    for i, x in zip(arrays, _fence([leaves[i] for i in arrays], one), strict=True):
        leaves[i] = x
    return jax.tree.unflatten(structure, leaves)


@jax.custom_jvp
def _fence(values: list[jax.Array], one: jax.Array) -> list[jax.Array]:
    return [_as_varied(x, one) for x in values]


def _as_varied(x: jax.Array, one: jax.Array) -> jax.Array:
    # Within shard_map a value must be declared to vary where its gradient does; XLA drops the choice again.
    return jnp.where(one > 0, x, x)


@_fence.defjvp
def _fence_jvp(primals: Any, tangents: Any) -> Any:
    (values, one), (changes, _) = primals, tangents
    return _fence(values, one), [change / one for change in changes]
