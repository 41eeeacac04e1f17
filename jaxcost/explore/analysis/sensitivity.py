"""Sensitivity of a result to each number of a design: exact derivatives, as gradients and as elasticities."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core.program import Program
from jaxcost.core.pytree import Scalar, canonical, totals
from jaxcost.evaluation import design_features, evaluate
from jaxcost.report import Report
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["elasticities", "gradient", "metric_names"]

_DEFAULT_TAU = 0.05
_ARGUMENTS = ("system", "model", "traffic", "plan", "prices", "knobs")


def metric_names() -> tuple[str, ...]:
    """Return the names of the Report's totals, which `elasticities` and `gradient` accept."""
    return tuple(totals(Report))


def gradient(
    metric: str | Callable[[Report], Scalar],
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
    wrt: str = "system",
) -> tuple[jax.Array, Any]:
    """Evaluate one number of the Report and its gradient with respect to every leaf of one argument.

    Equals `jax.value_and_grad` of `evaluate`, without the wait for the compiler. With leaves of shape `[*batch]` the
    value has that shape too, and a leaf that all designs share has the sum of their derivatives.

    Args:
        metric: name of a total of `Report`, such as "tpot", or a function of a Report; the same function object is
            traced once.
        system: chips, links and hosts.
        model: the language model.
        traffic: the requests.
        plan: the sharding and precisions.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.
        wrt: the argument to differentiate by: "system", "model", "traffic", "plan", "prices" or "knobs".

    Returns:
        The value, and a tree like the argument with d value / d leaf, in the unit of the value over that of the leaf.

    Raises:
        ValueError: an unknown total or argument.
    """
    if isinstance(metric, str) and metric not in metric_names():
        raise ValueError(f"no total {metric!r} in a Report; there are {', '.join(metric_names())}")
    if wrt not in _ARGUMENTS:
        raise ValueError(f"no argument {wrt!r} to differentiate by; there are {', '.join(_ARGUMENTS)}")
    values = canonical((system, model, traffic, plan, prices or Prices(), knobs or Knobs()))
    design: dict[str, Any] = dict(zip(_ARGUMENTS, values, strict=True))
    return _gradient_program(metric, wrt)(design, _features(design, wrt))


def _features(design: dict[str, Any], wrt: str) -> tuple[str, ...]:
    """Return the features of a design whose argument `wrt` may take any value."""
    noted: list[tuple[str, ...]] = []

    def note(moved: Any) -> None:
        d = design | {wrt: moved}
        noted.append(design_features(d["system"], d["traffic"], d["plan"], d["knobs"]))

    jax.eval_shape(note, design[wrt])
    return noted[0]


@functools.lru_cache(maxsize=64)  # bounded, so that programs of short-lived lambdas are freed
def _gradient_program(metric: str | Callable[[Report], Scalar], wrt: str) -> Program:
    def value_and_slopes(design: dict[str, Any], features: tuple[str, ...]) -> tuple[jax.Array, Any]:
        def value(moved: Any) -> jax.Array:
            report = evaluate(**(design | {wrt: moved}), features=features)
            return jnp.asarray(getattr(report, metric) if isinstance(metric, str) else metric(report))

        result, pullback = jax.vjp(value, design[wrt])
        return result, pullback(jnp.ones_like(result))[0]

    return Program(value_and_slopes, static_argnames=("features",))


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
    """Return the elasticity of one total of the Report to every number of a system.

    The elasticity e = d ln(metric) / d ln(x) is the percentage by which the metric changes when x grows by one
    percent. Maxima and minima are smooth over a width of tau, so that a resource close to binding contributes.

    Args:
        metric: name of a total of `Report`, such as "tpot".
        system: chips, links and hosts, by whose leaves the total is differentiated.
        model: the language model.
        traffic: the requests.
        plan: the sharding and precisions.
        prices: as for `evaluate`.
        knobs: softness; tau = 0.05 when absent.

    Returns:
        (dotted path, elasticity) of every leaf, by falling absolute value; 0 for a leaf that is 0.

    Raises:
        ValueError: an unknown total.
    """
    knobs = Knobs(tau=_DEFAULT_TAU) if knobs is None else knobs
    system = canonical(system)
    value, slopes = gradient(metric, system, model, traffic, plan, prices=prices, knobs=knobs)
    relative = jax.tree.map(lambda slope, x: slope * x / value, *jax.device_get((slopes, system)))
    leaves = jax.tree_util.tree_leaves_with_path(relative)
    named = [(".".join(key.name for key in path), float(x)) for path, x in leaves]
    return sorted(named, key=lambda pair: (-abs(pair[1]), pair[0]))
