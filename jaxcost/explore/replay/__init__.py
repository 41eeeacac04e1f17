"""Replay of request traces: engines, synthetic workloads, prefix caches and routing to replicas."""

from jaxcost.explore.replay.api import ROUTERS, replay
from jaxcost.explore.replay.load_levels import BENCH_METRICS, Bench, bench
from jaxcost.explore.replay.prefix_cache import PrefixCache, hit_curve, hit_tokens, stack_distances
from jaxcost.explore.replay.results import GAP_EDGES, METRICS, Replay
from jaxcost.explore.replay.retiming import Latencies, retime
from jaxcost.explore.replay.routing import STATIC_ROUTERS, assign
from jaxcost.explore.replay.served_loops import (
    ROUNDS,
    Loop,
    loop_trace,
    measured_loops,
    replay_loop,
    replay_loops,
)
from jaxcost.explore.replay.trace_summary import LengthSummary, TraceSummary, summarize_trace
from jaxcost.explore.replay.workloads import ARRIVALS, agent_trace, growing_blocks, synthetic_trace

__all__ = [
    "ARRIVALS",
    "BENCH_METRICS",
    "GAP_EDGES",
    "METRICS",
    "ROUNDS",
    "ROUTERS",
    "STATIC_ROUTERS",
    "Bench",
    "Latencies",
    "LengthSummary",
    "Loop",
    "PrefixCache",
    "Replay",
    "TraceSummary",
    "agent_trace",
    "assign",
    "bench",
    "growing_blocks",
    "hit_curve",
    "hit_tokens",
    "loop_trace",
    "measured_loops",
    "replay",
    "replay_loop",
    "replay_loops",
    "retime",
    "stack_distances",
    "summarize_trace",
    "synthetic_trace",
]
