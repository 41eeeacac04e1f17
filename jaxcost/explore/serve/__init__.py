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
from jaxcost.explore.serve.service import best_service, serve

__all__ = [
    "MEASURABLE",
    "ChipCount",
    "ClosedLoop",
    "LoopSteps",
    "MemoryFit",
    "Service",
    "best_service",
    "closed_loop",
    "closed_loop_steps",
    "count_chips",
    "fit",
    "largest_batch",
    "loop_times",
    "serve",
    "whole_requests",
]
