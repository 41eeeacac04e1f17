"""Tables of the time and energy of an engine's steps, and their interpolation.

A replay takes thousands of steps for each design. `step_cost` is evaluated once on a grid per design:

    decode[S, c]          S sequences decode, with c tokens in the cache of each
    mixed[S, c, P, r]     P prompt tokens along, that attend to r keys each on average; S may be 0

Between knots the tables are multilinear; beyond the last knots they keep the value there, and the knots cover the
trace. Time is close to linear in c, in r and, once weights are read, in P: what the interpolation errs is the rounding
of tiles and waves and the change from bandwidth to compute between two knots. `make_checked_tables` measures it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.arrays import batch_shape, spread
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree
from jaxcost.explore.compilation import map_chunks
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic
from jaxcost.step_cost import StepCost, StepMix, step_cost

__all__ = ["Grid", "StepTables", "choose_grid", "interpolate", "make_checked_tables", "make_tables"]

Knots = np.ndarray | jax.Array

_TOGETHER = 4096  # points x designs of one evaluation: the tables of a design are interpreted at once


class Grid(NamedTuple):
    """The knots of the tables, ascending arrays; the same for all designs."""

    sequences: Knots  # of `decode`, from 1
    context: Knots  # of `decode`
    mixed_sequences: Knots  # from 0
    mixed_context: Knots
    tokens: Knots
    keys: Knots

    @property
    def decode(self) -> tuple[Knots, ...]:
        """Knots of `decode` by axis."""
        return self.sequences, self.context

    @property
    def mixed(self) -> tuple[Knots, ...]:
        """Knots of `mixed` by axis."""
        return self.mixed_sequences, self.mixed_context, self.tokens, self.keys


@pytree
class StepTables:
    """Seconds and joules of a step of a replica."""

    decode: Any = field("s, J", "steps without prompt tokens: [2, sequences, context, *batch]")
    mixed: Any = field("s, J", "steps with prompt tokens: [2, sequences, context, tokens, keys, *batch]")


def _geometric(first: float, last: float, ratio: float) -> list[float]:
    """Return whole numbers from `first` to `last` with about the given ratio."""
    last = max(first, last)
    count = max(math.ceil(math.log(last / first) / math.log(ratio) - 1e-9), 0)
    if count == 0:
        return [float(first)]
    return sorted({float(round(first * (last / first) ** (i / count))) for i in range(count + 1)})


def choose_grid(*, sequences: float, context: tuple[float, float], tokens: float, fineness: int = 1) -> Grid:
    """Return the knots that cover a replay.

    Args:
        sequences: most sequences of a step.
        context: fewest and most tokens of a sequence.
        tokens: most prompt tokens of a step.
        fineness: 1, or a larger number for that many knots in place of one.
    """
    low, high = max(context[0], 1.0), max(context[1], 2.0)
    few = {1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0}
    many = _geometric(32.0, max(sequences, 33.0), 2 ** (0.5 / fineness)) if sequences > 32 else []
    top = max(float(math.ceil(sequences)), 1.0)
    ratio = 4 ** (1 / fineness)
    axes = (
        sorted({x for x in few if x < top} | {x for x in many if x < top} | {top}),
        _geometric(low, high, 2 ** (1 / fineness)),
        [0.0, *_geometric(1.0, top, ratio)],
        _geometric(low, high, 16.0),
        _geometric(min(16.0, max(tokens - 1, 1)), max(tokens, 2.0), 2 ** (1 / fineness)),
        _geometric(min(16.0, high), high, 8 ** (1 / fineness)),
    )
    return Grid(*(np.asarray(knots) for knots in axes))


def make_tables(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    grid: Grid,
    *,
    knobs: Knobs | None = None,
) -> StepTables:
    """Evaluate `step_cost` at all knots: traceable, differentiable and native over designs `[*batch]`."""
    arguments = canonical((system, model, traffic, plan, knobs or Knobs()))
    points = _knots(grid)
    cost: Any = _costs_at(*arguments, jnp.asarray(points, jnp.result_type(arguments[0].chips)))
    return _arrange(cost, grid, batch_shape(arguments))


def make_checked_tables(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    grid: Grid,
    *,
    probes: int = 64,
    knobs: Knobs | None = None,
) -> tuple[StepTables, float]:
    """Return the tables, and the root mean square of their relative errors in time at random points.

    The points are uniform in the logarithm of every coordinate, between the first and the last knots; each is evaluated
    with and without its prompt tokens.
    """
    arguments = canonical((system, model, traffic, plan, knobs or Knobs()))
    shape, knots = batch_shape(arguments), _knots(grid)
    draws = np.random.default_rng(0).random((probes, 4))
    ends = [(max(axis[0], 1.0), axis[-1]) for axis in grid.mixed]
    at = np.stack([a * (b / a) ** u for (a, b), u in zip(ends, draws.T, strict=True)], -1)
    at[:, 0] = np.round(at[:, 0])
    points = jnp.asarray(np.concatenate([knots, at]), jnp.result_type(arguments[0].chips))
    cost: Any = _costs_at(*arguments, points)
    tables = _arrange(jax.tree.map(lambda x: x[: len(knots)], cost), grid, shape)
    lanes = math.prod(shape)
    where = tuple(jnp.asarray(np.broadcast_to(x[:, None], (probes, lanes)), points.dtype) for x in at.T)
    errors = []
    for table, axes, exact in (
        (tables.decode, grid.decode, cost.decode_seconds),
        (tables.mixed, grid.mixed, cost.mixed_seconds),
    ):
        flat = jnp.reshape(jnp.asarray(table), (2, *(len(x) for x in axes), lanes))
        near = interpolate(flat, axes, where[: len(axes)])[0]
        errors.append(np.asarray(near) / np.asarray(exact)[len(knots) :].reshape(probes, lanes) - 1)
    return tables, float(np.sqrt(np.mean(np.square(errors))))


def _knots(grid: Grid) -> np.ndarray:
    """Return all knots, `[points, 4]`; those of `decode` have the least prompt tokens and serve both tables."""
    decode, mixed = (
        np.stack([x.ravel() for x in np.meshgrid(*axes, indexing="ij")], -1)
        for axes in (grid.decode, grid.mixed)
    )
    return np.concatenate([np.pad(decode, ((0, 0), (0, 2)), constant_values=1.0), mixed])


def _arrange(cost: Any, grid: Grid, shape: tuple[int, ...]) -> StepTables:
    """Arrange costs at all knots, `[points, *batch]`, as tables."""
    count = math.prod(len(x) for x in grid.decode)

    def table(seconds: Any, joules: Any, axes: tuple[Knots, ...]) -> jax.Array:
        return jnp.stack([seconds, joules]).reshape(2, *(len(x) for x in axes), *shape)

    return StepTables(
        decode=table(cost.decode_seconds[:count], cost.decode_joules[:count], grid.decode),
        mixed=table(cost.mixed_seconds[count:], cost.mixed_joules[count:], grid.mixed),
    )


@program
def _costs_at(
    system: System, model: Model, traffic: Traffic, plan: Plan, knobs: Knobs, points: jax.Array
) -> StepCost:
    """Return the costs at points `[points, 4]` of (sequences, context, tokens, keys): leaves `[points, *batch]`."""
    shape = batch_shape((system, model, traffic, plan, knobs))

    def at(rows: jax.Array) -> StepCost:
        columns = rows.T.reshape(4, len(rows), *(1 for _ in shape))
        cost = step_cost(system, model, traffic, plan, StepMix(**_named(columns)), knobs=knobs)
        return spread(cost, (len(rows), *shape))

    return map_chunks(at, points, max(_TOGETHER // math.prod(shape), 1))


def _named(columns: Any) -> dict[str, Any]:
    return dict(zip(("sequences", "context", "tokens", "keys"), columns, strict=True))


def interpolate(table: jax.Array, axes: tuple[Knots, ...], at: tuple[Scalar, ...]) -> jax.Array:
    """Interpolate a table `[2, *knots, lanes]` at a point per lane, `[*rows, lanes]` each; multilinear, constant beyond
    the ends.

    Returns:
        `[2, *rows, lanes]`.
    """
    lanes = jnp.arange(table.shape[-1])
    corners = [_corner(knots, x) for knots, x in zip(axes, at, strict=True)]
    flat = table.reshape(2, -1, table.shape[-1])
    total = None
    for low_or_high in np.ndindex(*(min(len(knots), 2) for knots in axes)):
        index, weight = 0, 1.0
        for (low, share), knots, high in zip(corners, axes, low_or_high, strict=True):
            index = index * len(knots) + low + high
            if len(knots) > 1:
                weight = weight * (share if high else 1 - share)
        part = weight * flat[:, index, lanes]
        total = part if total is None else total + part
    assert total is not None
    return total


def _corner(knots: Knots, x: Scalar) -> tuple[jax.Array, jax.Array]:
    """Return the index of the knot below x, and the position of x between it and the next, 0 to 1."""
    x = jnp.asarray(x)
    if len(knots) == 1:
        return jnp.zeros(x.shape, jnp.int32), jnp.zeros_like(x)
    values = jnp.asarray(knots, x.dtype)
    inner = values[1:-1].reshape(-1, *(1 for _ in x.shape))
    low = jnp.sum(x >= inner, 0, dtype=jnp.int32)
    return low, jnp.clip((x - values[low]) / (values[low + 1] - values[low]), 0, 1)
