"""The largest number of requests in flight that fits in memory and meets the latency targets."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import batch_shape
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, replace
from jaxcost.evaluation import design_features, evaluate
from jaxcost.explore.serve.operating_point import DOUBLINGS
from jaxcost.explore.serve.steady_state import memory_margin
from jaxcost.physics.compute.shards import complete_plan, microbatches
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["largest_batch"]


def largest_batch(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    relaxed: bool = False,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
) -> jax.Array:
    """Return the largest `traffic.batch` that fits in every memory tier and meets both latency targets in `evaluate`.

    The result is exact, by bisection over whole numbers, provided that no margin rises with the batch. It is 0 where
    the smallest batch, one request per replica, already violates a margin. Batches up to about 2^20 above the smallest
    are tried. All prompts are computed before decoding, as in `evaluate`; `serve` models continuous batching.

    The gradient is that of the relaxed solution: with u = dp x microbatches, or u = dp where fewer requests than
    microbatches fit, and k >= 1 the largest whole number for which the worst margin m(k u) is not negative,

        batch = u (k + m(k u) / (m(k u) - m((k + 1) u)))

    which is below u, or below 0, where no batch fits. Traceable as `evaluate`.

    Args:
        system: chips, links and hosts.
        model: the language model.
        traffic: prompt, output and targets; its batch is ignored.
        plan: the sharding, precisions and schedule.
        relaxed: whether to return the relaxed, fractional solution.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.

    Returns:
        Requests in flight, [*batch].
    """
    arguments = canonical((system, model, traffic, plan, prices or Prices(), knobs or Knobs()))
    return _largest_batch(
        *arguments, relaxed=relaxed, features=design_features(system, traffic, plan, arguments[-1])
    )


@program(static_argnames=("relaxed", "features"))
def _largest_batch(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    prices: Prices,
    knobs: Knobs,
    *,
    relaxed: bool,
    features: tuple[str, ...],
) -> jax.Array:
    shape = batch_shape((system, model, traffic, plan, prices, knobs))
    groups = complete_plan(plan)
    smallest = jnp.broadcast_to(groups.dp, shape)
    filled = groups.dp * microbatches(groups)

    def margin(batch: Scalar) -> Scalar:
        loaded = replace(traffic, batch=batch)
        report = evaluate(system, model, loaded, plan, prices=prices, knobs=knobs, features=features)
        return jnp.minimum(memory_margin(report), jnp.minimum(report.margins.ttft, report.margins.tpot))

    def unit_of(largest: Scalar) -> Scalar:
        return jnp.where(largest < filled, smallest, filled)

    def round_(low: Scalar, item: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
        """Try one bisection step; the last two rounds evaluate the margins on either side of the relaxed solution."""
        step, side = item
        unit = unit_of(low)
        units = jnp.maximum(jnp.floor(low / unit), 1)
        batch = jnp.where(step > 0, low + step, (units + side) * unit)
        slack = margin(jnp.maximum(batch, smallest))
        return jnp.where((step > 0) & (jax.lax.stop_gradient(slack) >= 0), batch, low), slack

    steps = np.asarray([2**k for k in reversed(range(DOUBLINGS + 1))] + [0, 0], float)
    sides = np.asarray([0] * (DOUBLINGS + 1) + [0, 1], float)
    rounds = (jnp.asarray(steps, jnp.result_type(smallest)), jnp.asarray(sides, jnp.result_type(smallest)))
    largest, slacks = jax.lax.scan(jax.checkpoint(round_), jax.lax.stop_gradient(smallest) - 1, rounds)
    whole, unit = jnp.where(largest < smallest, 0, largest), unit_of(largest)
    units = jax.lax.stop_gradient(jnp.maximum(jnp.floor(largest / unit), 1))
    fraction = unit * (units + smooth.safe_div(slacks[-2], slacks[-2] - slacks[-1]))
    return fraction if relaxed else whole + (fraction - jax.lax.stop_gradient(fraction))
