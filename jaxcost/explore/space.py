"""A space of designs: catalogue choices and axes of values, a design for every index.

Symbols: axis k has n_k values; a design's index is its mixed-radix number, the last axis running fastest.
"""

import math
import operator
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import Scalar, field, pytree, replace_at
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

T = TypeVar("T")

__all__ = ["Axis", "Design", "Space", "design_at", "digits", "stack"]


@pytree
class Design:
    """Everything one evaluation takes."""

    system: System = field(doc="chips, links and hosts")
    model: Model = field(doc="the language model")
    traffic: Traffic = field(doc="what the users ask for", default=Traffic)
    plan: Plan = field(doc="how the model is laid out", default=Plan)
    prices: Prices = field(doc="costs of energy, building and carbon", default=Prices)
    knobs: Knobs = field(doc="numerical softness", default=Knobs)


@pytree
class Axis:
    """One dotted path of a Design and the values it takes, absolute or as factors on what is there."""

    values: jax.Array = field("1", "values, in the unit of the leaf, or factors")
    path: str = field(doc='dotted path, such as "system.chip.memory.bandwidth"', static=True)
    relative: bool = field(doc="whether the values multiply the leaf", static=True, default=False)


@pytree
class Space:
    """All combinations of the stacked systems and models with the values of every axis."""

    base: Design = field(doc="the design; systems and models have a leading axis of choices")
    axes: tuple[Axis, ...] = field(doc="what else varies")
    systems: tuple[str, ...] = field(doc="names of the stacked systems", static=True)
    models: tuple[str, ...] = field(doc="names of the stacked models", static=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of systems, of models, and of values of each axis."""
        return (len(self.systems), len(self.models), *(axis.values.shape[0] for axis in self.axes))

    @property
    def size(self) -> int:
        """Number of designs."""
        return math.prod(self.shape)


def stack(trees: list[T]) -> T:
    """Stack trees of one structure along a new leading axis, for a traced choice among them."""
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *trees)


def digits(index: Scalar | np.ndarray, shape: tuple[int, ...]) -> tuple:
    """Split an index into one digit an axis; works on JAX and NumPy integers alike."""
    out = []
    for n in reversed(shape):
        out.append(index % n)
        index = index // n
    return tuple(reversed(out))


def design_at(space: Space, index: Scalar) -> Design:
    """Build the design of an index, inside jit."""
    system, model, *rest = digits(index, space.shape)
    design = Design(
        system=jax.tree.map(lambda x: x[system], space.base.system),
        model=jax.tree.map(lambda x: x[model], space.base.model),
        traffic=space.base.traffic,
        plan=space.base.plan,
        prices=space.base.prices,
        knobs=space.base.knobs,
    )
    for axis, digit in zip(space.axes, rest, strict=True):
        value = axis.values[digit]
        if axis.relative:
            value = value * operator.attrgetter(axis.path)(design)
        design = replace_at(design, axis.path, value)
    return design
