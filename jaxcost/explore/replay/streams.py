"""The requests that come to a pool of replicas, and the order in which each replica gets them."""

from typing import NamedTuple

import numpy as np

from jaxcost.explore.replay.pools import Pool
from jaxcost.explore.replay.prefix_cache import PrefixCache
from jaxcost.explore.replay.routing import assign
from jaxcost.spec.trace import Trace

__all__ = ["Stream", "is_routed", "order_requests", "outside_stream", "second_stream"]


class Stream(NamedTuple):
    """The requests that come to a pool, `[requests, 1]` or `[requests, designs]`, and where they go."""

    arrival: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    cached: np.ndarray
    slow: np.ndarray
    load_seconds: np.ndarray  # per token of `slow`, [1] or [designs]
    order: np.ndarray  # [positions, replicas, 1 or designs]
    number: np.ndarray  # [replicas, 1 or designs]
    ready: bool


def outside_stream(trace: Trace, pool: Pool, router: str, cache: PrefixCache | None) -> Stream:
    """Return the requests as they come from outside."""
    replicas = pool.replicas
    static = "round_robin" if router == "least_loaded" else router
    assignment = assign(trace, replicas, static)
    none = np.zeros((trace.requests, 1), np.int64)
    cached, slow, load = none, none, np.zeros(1)
    if cache is not None:
        hits = cache.hits(trace, assignment)
        cached, slow = (np.asarray(x).reshape(trace.requests, -1) for x in hits)
        load = np.asarray(cache.load_seconds, np.float64).reshape(-1)
    order, count = order_requests(
        None if is_routed(router, pool.replicas) else assignment[:, None],
        np.arange(trace.requests)[:, None],
        replicas,
        np.full(1, trace.requests),
    )
    return Stream(
        arrival=trace.arrival[:, None],
        prompt=trace.prompt[:, None],
        output=trace.output[:, None],
        cached=cached,
        slow=slow,
        load_seconds=load,
        order=order,
        number=count,
        ready=False,
    )


def second_stream(
    first: Stream,
    finished: np.ndarray,
    rejected: np.ndarray,
    moved: np.ndarray,
    pool_replicas: int,
    router: str,
) -> Stream:
    """Return the requests as they come from the prefill pool: those with more than one token, by the end of prefill.

    Args:
        first: the requests as they came to the prefill pool.
        finished: s, when it was done with them, `[requests, designs]`.
        rejected: 1 for those that it rejected.
        moved: seconds to move the cache of a token, `[1]` or `[designs]`.
        pool_replicas: replicas of the decode pool.
        router: of the decode pool.
    """
    arrival = finished + first.prompt * moved
    gone = (first.output <= 1) | (rejected > 0) | ~np.isfinite(first.arrival)
    arrival = np.where(gone, np.inf, arrival)
    sequence = np.argsort(arrival, axis=0, kind="stable")
    position = np.argsort(sequence, axis=0, kind="stable")
    turn = None
    if not is_routed(router, pool_replicas):
        turn = np.where(gone, pool_replicas, position % pool_replicas)
    order, count = order_requests(turn, sequence, pool_replicas, np.sum(~gone, 0))
    none = np.zeros((len(first.prompt), 1), np.int64)
    return first._replace(
        arrival=arrival,
        cached=none,
        slow=none,
        load_seconds=np.zeros(1),
        order=order,
        number=count,
        ready=True,
    )


def is_routed(router: str, replicas: int) -> bool:
    """Return whether requests are assigned to replicas as they arrive."""
    return router == "least_loaded" and replicas > 1


def order_requests(
    assignment: np.ndarray | None, sequence: np.ndarray, replicas: int, total: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the requests of every replica in order, `[requests, replicas, *]`, and their numbers `[replicas, *]`.

    Args:
        assignment: replica of each request, `[requests, *]`, `replicas` for none; None to give all to every replica.
        sequence: requests in the order of arrival, `[requests, *]`.
        replicas: number of replicas.
        total: requests that arrive, `[*]`.
    """
    if assignment is None:
        shape = (len(sequence), replicas, sequence.shape[1])
        return np.broadcast_to(sequence[:, None], shape), np.broadcast_to(total, shape[1:])
    n, columns = sequence.shape
    order = np.zeros((n, replicas, columns), np.int64)
    count = np.zeros((replicas, columns), np.int64)
    by_turn = np.take_along_axis(np.broadcast_to(assignment, sequence.shape), sequence, 0)
    for column in range(columns):
        for replica in range(replicas):
            mine = sequence[by_turn[:, column] == replica, column]
            order[: len(mine), replica, column] = mine
            count[replica, column] = len(mine)
    return order, count
