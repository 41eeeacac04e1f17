"""Serving a rate of requests by continuous batching, in steady state."""

from jaxcost.explore.serve.batch_limit import largest_batch
from jaxcost.explore.serve.closed_loops import (
    ClosedLoop,
    LoopSteps,
    closed_loop,
    closed_loop_steps,
    loop_times,
)
from jaxcost.explore.serve.deployment import Service
from jaxcost.explore.serve.memory_fit import (
    MEASURABLE,
    ChipCount,
    MemoryFit,
    count_chips,
    fit,
    whole_requests,
)
from jaxcost.explore.serve.service import best_service, serve, transfer_seconds
from jaxcost.explore.serve.serving_points import ServingFront, find_nondominated
from jaxcost.explore.serve.serving_search import (
    DECODE_UTILIZATION,
    PREFILL_UTILIZATION,
    serving_front,
    serving_plans,
)
from jaxcost.explore.serve.steady_state import Bill, evaluate_point

__all__ = [
    "DECODE_UTILIZATION",
    "MEASURABLE",
    "PREFILL_UTILIZATION",
    "Bill",
    "ChipCount",
    "ClosedLoop",
    "LoopSteps",
    "MemoryFit",
    "Service",
    "ServingFront",
    "best_service",
    "closed_loop",
    "closed_loop_steps",
    "count_chips",
    "evaluate_point",
    "find_nondominated",
    "fit",
    "largest_batch",
    "loop_times",
    "serve",
    "serving_front",
    "serving_plans",
    "transfer_seconds",
    "whole_requests",
]
