"""Static assignment of the requests of a trace to replicas."""

import numpy as np

from jaxcost.spec.trace import Trace

__all__ = ["STATIC_ROUTERS", "assign"]

STATIC_ROUTERS = ("round_robin", "prefix")

# Load over the mean above which a replica is passed over; the slack, in mean requests, lets a stream begin.
_IMBALANCE, _SLACK = 1.2, 4.0


def assign(trace: Trace, replicas: int, router: str = "round_robin") -> np.ndarray:
    """Return the replica of each request, int64 [n] in [0, replicas).

    `round_robin`: request i goes to replica i mod `replicas`. `prefix`: a request goes to the replica that most
    recently served the longest prefix of its blocks or, in a trace without blocks, its session. If that replica has
    more than 1.2 times the mean of tokens (prompt and output) assigned to a replica so far, plus those of four mean
    requests, or if no replica has served a prefix, the request goes to the replica with the fewest tokens so far, the
    lowest number among equals.

    Raises:
        ValueError: the router is none of these (`least_loaded` depends on time), or the trace has neither blocks nor
            sessions, which `prefix` needs.
    """
    if replicas < 1 or replicas != int(replicas):
        raise ValueError(f"replicas is a whole number of at least 1, not {replicas}")
    if router not in STATIC_ROUTERS:
        raise ValueError(f"router {router!r} has no static assignment; {' and '.join(STATIC_ROUTERS)} have")
    if router == "round_robin":
        return np.arange(trace.requests) % int(replicas)
    if not trace.block_tokens and (trace.session < 0).all():
        raise ValueError(f"router 'prefix' needs block ids or sessions; trace {trace.name!r} has neither")
    return _assign_by_prefix(trace, int(replicas))


def _assign_by_prefix(trace: Trace, replicas: int) -> np.ndarray:
    load, total = [0] * replicas, 0
    served_by: dict[int, int] = {}  # replica that most recently served a block, or a session
    out = np.empty(trace.requests, np.int64)
    blocks, offsets = (array.tolist() for array in trace.cached_blocks)
    prompt_blocks = np.diff(trace.offsets).tolist()
    work = (trace.prompt + trace.output).tolist()
    for i, session in enumerate(trace.session.tolist()):
        keys = blocks[offsets[i] : offsets[i + 1]] if trace.block_tokens else [session] * (session >= 0)
        prefix = keys[: prompt_blocks[i]] if trace.block_tokens else keys
        chosen = -1
        for key in prefix:
            if key not in served_by:
                break
            chosen = served_by[key]
        mean = total / replicas
        if chosen < 0 or load[chosen] > _IMBALANCE * mean + _SLACK * total / i:
            chosen = load.index(min(load))
        served_by.update(dict.fromkeys(keys, chosen))
        load[chosen] += work[i]
        total += work[i]
        out[i] = chosen
    return out
