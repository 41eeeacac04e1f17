"""Hits of the prefix cache against an LRU cache that is simulated for every capacity; static routers by their rules."""

import time
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxcost.explore.replay import PrefixCache, agent_trace, assign, hit_curve, hit_tokens, stack_distances
from jaxcost.spec.trace import Trace, build_trace


def simulate_lru(trace: Trace, assignment, capacity: float) -> list[int]:
    """Look up the leading blocks of each prompt, then touch all from the last to the first, with those of the output."""
    caches: dict[int, OrderedDict] = defaultdict(OrderedDict)
    hits = []
    for i in range(trace.requests):
        cache = caches[int(assignment[i])]
        ids = trace.blocks[trace.offsets[i] : trace.offsets[i + 1]].tolist()
        made = trace.output_blocks[trace.output_offsets[i] : trace.output_offsets[i + 1]].tolist()
        found = 0
        while found < len(ids) and ids[found] in cache:
            found += 1
        hits.append(min(found * trace.block_tokens, int(trace.prompt[i]) - 1))
        for block in reversed(ids + made):
            cache[block] = None
            cache.move_to_end(block)
            while len(cache) * trace.block_tokens > capacity:
                cache.popitem(last=False)
    return hits


@st.composite
def traces(draw):
    """Draw traces: chained ids, as hashes of prefixes are, or any ids, with blocks that repeat in a prompt."""
    tokens = draw(st.integers(1, 4))
    prompt = draw(st.lists(st.integers(1, 40), min_size=1, max_size=25))
    if draw(st.booleans()):
        family = draw(st.lists(st.integers(0, 4), min_size=len(prompt), max_size=len(prompt)))
        blocks = [[100 * f * (j >= 3) + j for j in range(40)] for f in family]
    else:
        ids = st.lists(st.integers(0, 12), min_size=40, max_size=40)
        blocks = [draw(ids) for _ in prompt]
    arrival, options = np.arange(len(prompt)), {"block_tokens": tokens, "blocks": blocks}
    if draw(st.booleans()):
        ends = [(p // tokens, (2 * p - 1) // tokens) for p in prompt]
        options["output_blocks"] = [(row * 2)[a:b] for row, (a, b) in zip(blocks, ends, strict=True)]
    return build_trace("drawn", arrival, prompt, prompt, **options)


@settings(max_examples=150, deadline=None)
@given(traces(), st.integers(1, 3), st.sampled_from(["round_robin", "prefix"]))
def test_hits_are_those_of_an_lru_cache_of_every_capacity(trace, replicas, router):
    assignment = assign(trace, replicas, router)
    capacities = np.append(
        np.arange(0, len(set(trace.cached_blocks[0].tolist())) * trace.block_tokens + 2), np.inf
    )
    hits = hit_tokens(trace, stack_distances(trace, assignment), capacities)
    for column, capacity in zip(hits.T, capacities, strict=True):
        assert column.tolist() == simulate_lru(trace, assignment, capacity)
    if replicas == 1:
        assert hits[:, -1].tolist() == trace.cached.tolist()


def test_hits_take_capacities_of_any_shape_and_order():
    trace = agent_trace(sessions=20, block_tokens=16, seed=3)
    distances = stack_distances(trace)
    capacities = [2e5, 0.0, np.inf, 4e3]
    hits = hit_tokens(trace, distances, capacities)
    assert hits.shape == (trace.requests, 4) and hits.dtype == np.int64
    for column, capacity in zip(hits.T, capacities, strict=True):
        one = hit_tokens(trace, distances, capacity)
        assert one.shape == (trace.requests,)
        assert one.tolist() == column.tolist()
    assert (hit_curve(trace, capacities) == hits.sum(axis=0) / trace.prompt.sum()).all()


def test_two_tiers_share_what_one_of_their_sum_has():
    trace = agent_trace(sessions=30, block_tokens=16, seed=1)
    cache = PrefixCache(capacity_tokens=np.array([1e4, 4e4]), slow_capacity_tokens=5e5, load_seconds=1e-6)
    total, slow = cache.hits(trace)
    distances = stack_distances(trace)
    assert (total == hit_tokens(trace, distances, [5.1e5, 5.4e5])).all()
    assert (total - slow == hit_tokens(trace, distances, [1e4, 4e4])).all()
    assert (slow >= 0).all() and slow[:, 0].sum() > slow[:, 1].sum() > 0


def test_a_shared_cache_does_not_depend_on_the_replicas():
    trace = agent_trace(sessions=30, seed=1)
    assignment = assign(trace, 4, "round_robin")
    shared = PrefixCache(np.inf, shared=True).hits(trace, assignment)[0]
    assert (shared == trace.cached).all()
    assert PrefixCache(np.inf).hits(trace, assignment)[0].sum() < shared.sum()


def test_a_trace_without_block_ids_has_hits_of_an_infinite_cache_only():
    trace = Trace("plain", np.arange(3), np.array([10, 20, 30]), np.ones(3), cached=np.array([0, 5, 20]))
    distances = stack_distances(trace)
    assert hit_tokens(trace, distances, [0.0, np.inf]).tolist() == [[0, 0], [0, 5], [0, 20]]
    assert PrefixCache(0.0, np.inf).hits(trace)[1].tolist() == [0, 5, 20]
    with pytest.raises(
        ValueError, match=r"no block ids: .*infinite prefix cache are known, those of 100 tokens"
    ):
        hit_tokens(trace, distances, 100.0)
    with pytest.raises(ValueError, match=r"one infinite cache are known.*shared=True"):
        stack_distances(trace, [0, 1, 0])
    assert PrefixCache(np.inf, shared=True).hits(trace, [0, 1, 0])[0].tolist() == [0, 5, 20]


@pytest.mark.parametrize("capacity", [-1.0, np.nan])
def test_a_capacity_is_at_least_zero(capacity):
    trace = agent_trace(sessions=2)
    with pytest.raises(ValueError, match="at least 0 tokens"):
        hit_tokens(trace, stack_distances(trace), capacity)


def test_distances_of_a_large_trace_take_less_than_two_seconds():
    trace = agent_trace(sessions=500, turns=8, system_prompt=8000, new_tokens=1500)
    assert trace.requests == 4000 and len(trace.blocks) > 100_000
    start = time.perf_counter()
    stack_distances(trace)
    assert time.perf_counter() - start < 2


def test_round_robin_takes_replicas_in_turn():
    trace = agent_trace(sessions=3, turns=4)
    assert assign(trace, 5).tolist() == [i % 5 for i in range(12)]


def test_prefix_router_keeps_sessions_together_and_bounds_the_load():
    trace = agent_trace(sessions=400, turns=8, system_prompt=2048, seed=2)
    assignment = assign(trace, 8, "prefix")
    moves = sum(len(np.unique(assignment[trace.session == s])) - 1 for s in range(400))
    assert moves < 0.1 * trace.requests
    load = np.bincount(assignment, weights=trace.prompt + trace.output, minlength=8)
    mean_request = load.sum() / trace.requests
    # A replica within the bound may take one request more, the largest.
    assert load.max() <= 1.2 * load.mean() + 4 * mean_request + (trace.prompt + trace.output).max()
    by_turn = assign(trace, 8, "round_robin")
    assert hit_curve(trace, [2e5], assignment) > hit_curve(trace, [2e5], by_turn)


def test_prefix_router_follows_the_longest_prefix():
    """Request 3 shares two blocks with request 0 and one with request 1, which is on the other replica."""
    blocks = [[1, 2, 3], [1, 7, 8], [9, 10, 11], [1, 2, 5]]
    trace = build_trace("x", range(4), [3] * 4, [1000, 1000, 1000, 1], block_tokens=1, blocks=blocks)
    first = assign(trace, 2, "prefix")
    assert first[3] == first[0]


def test_prefix_router_does_not_look_at_outputs_before_they_exist():
    """Request 2 has the prompt of request 0; that request 1 continued the same output elsewhere tells nothing."""
    blocks, outputs = [[1], [3], [1]], [[2], [2], [2]]
    work = {"block_tokens": 1, "blocks": blocks, "output_blocks": outputs}
    trace = build_trace("x", range(3), [1] * 3, [2] * 3, **work)
    first = assign(trace, 2, "prefix")
    assert first[0] != first[1] and first[2] == first[0]


def test_prefix_router_keeps_sessions_without_blocks():
    session = np.arange(200) % 20
    trace = Trace("s", np.arange(200.0), np.full(200, 50), np.full(200, 50), session=session)
    assignment = assign(trace, 4, "prefix")
    assert all(len(np.unique(assignment[session == s])) == 1 for s in range(20))
    assert np.bincount(assignment).tolist() == [50] * 4


@pytest.mark.parametrize(
    ("replicas", "router", "text"),
    [
        (0, "round_robin", "at least 1, not 0"),
        (2, "least_loaded", "'least_loaded' has no static assignment"),
        (2, "prefix", "needs block ids or sessions"),
    ],
)
def test_routers_refuse(replicas, router, text):
    trace = Trace("x", np.zeros(1), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match=text):
        assign(trace, replicas, router)
