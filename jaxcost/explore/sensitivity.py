"""How much a result moves with each number of the hardware: exact derivatives, as elasticities."""

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar, canonical, totals
from jaxcost.evaluate import evaluate
from jaxcost.report import Report
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["elasticities", "metric_names"]

_DEFAULT_TAU = 0.05


def metric_names() -> tuple[str, ...]:
    """Return the names of the Report's totals, which are what `elasticities` takes."""
    return tuple(totals(Report))


def elasticities(
    metric: str,
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
) -> list[tuple[str, float]]:
    """Differentiate one total of the Report by every number of a system.

    The elasticity e = d ln(metric) / d ln(x) is the percentage by which the metric moves when x grows by one
    percent. Limits blend over a width of tau, so that a resource about to bind already shows.

    Args:
        metric: name of a total of `Report`, such as "tpot".
        system: chips, links and hosts, whose leaves are moved.
        model: the language model.
        traffic: the requests.
        plan: the sharding and precisions.
        prices: as for `evaluate`.
        knobs: softness; tau = 0.05 when absent.

    Returns:
        (dotted path, elasticity) of every leaf, the largest in size first; 0 for a leaf that is 0.

    Raises:
        ValueError: no such total.
    """
    if metric not in metric_names():
        raise ValueError(f"no total {metric!r} in a Report; there are {', '.join(metric_names())}")
    knobs = Knobs(tau=_DEFAULT_TAU) if knobs is None else knobs
    system = canonical(system)

    def log_metric(s: System) -> Scalar:
        return jnp.log(getattr(evaluate(s, model, traffic, plan, prices=prices, knobs=knobs), metric))

    slopes = jax.grad(log_metric)(system)
    relative = jax.device_get(jax.tree.map(lambda slope, x: slope * x, slopes, system))
    leaves = jax.tree_util.tree_leaves_with_path(relative)
    named = [(".".join(key.name for key in path), float(value)) for path, value in leaves]
    return sorted(named, key=lambda pair: (-abs(pair[1]), pair[0]))
