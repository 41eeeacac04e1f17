"""The time to first token of one request alone, which `Report.ttft` is not: that is the last of a batch."""

import jax.numpy as jnp

from jaxcost.core.arrays import where
from jaxcost.core.pytree import Scalar, canonical, replace
from jaxcost.evaluation import evaluate
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["ttft_alone"]


def ttft_alone(
    system: System, model: Model, traffic: Traffic, plan: Plan, *, knobs: Knobs | None = None
) -> Scalar:
    """Return the time to first token of a request that no other delays, s, `[*batch]`.

    It is `evaluate(...).ttft` with a batch of one request in every replica. Replicas run in parallel, so that of
    `dp` replicas each may have a request: the time is that of one request in the system, except that experts spread
    over replicas exchange the tokens of one request of each. `Report.ttft` is the time of the last request of a batch
    that arrives at once; of a plan with a chunk, that of a request mixed into the decode steps of the others. Alone,
    such a request is computed in steps of `plan.chunk` tokens without decoding.

    Traceable, differentiable and native over a batch of designs, as `evaluate`.

    Args:
        system: chips, links and hosts.
        model: the language model.
        traffic: the requests; the batch is ignored.
        plan: degrees, precisions, schedule and engine.
        knobs: as for `evaluate`.
    """
    traffic, plan = canonical((traffic, plan))
    budget = plan.engine.step_tokens
    limited = where(budget > 0, jnp.minimum(budget, plan.chunk), plan.chunk)
    budget = where(plan.chunk > 0, limited, budget)
    alone = replace(plan, chunk=plan.chunk * 0, engine=replace(plan.engine, step_tokens=budget))
    return evaluate(system, model, replace(traffic, batch=plan.dp), alone, knobs=knobs).ttft
