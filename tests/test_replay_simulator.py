"""The event simulator against cases computed by hand, and conservation on random workloads."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from jaxcost.explore.replay.randomness import uniform
from tests.replay_cases import draw_tables, random_case, simulate_case
from tests.replay_inputs import Policy, Requests, Tables, interpolate
from tests.replay_simulator import simulate, simulate_pools

# 1 s a decode step; 2 s + 1 s per prompt token a step with prompts. 1 J a decode step, 3 J the others.
TABLES = Tables(
    decode_sequences=[1],
    decode_context=[0],
    mixed_sequences=[0],
    mixed_context=[0],
    mixed_tokens=[0, 1000],
    mixed_keys=[0],
    decode_seconds=[[1.0]],
    decode_joules=[[1.0]],
    mixed_seconds=[[[[2.0], [1002.0]]]],
    mixed_joules=[[[[3.0], [3.0]]]],
)
LARGE = Policy(pages=1000, block=2)


def chunks_of(result):
    return [[(r.index, start, tokens) for r, start, tokens in step.chunks] for step in result.log]


def test_prefill_first_stops_decoding():
    result = simulate(Requests([0, 1], [4, 2], [3, 2]), LARGE, TABLES)
    assert result.admitted == [0, 6]
    assert result.first == [6, 10]
    assert result.finish == [12, 11]
    assert result.longest_gap == [5, 1]
    assert (result.steps, result.joules) == (4, 2 * 3 + 2 * 1)
    assert (result.prompt_tokens, result.emitted_tokens) == (6, 5)


def test_mixed_steps_decode_along():
    result = simulate(Requests([0, 1], [4, 2], [3, 2]), replace(LARGE, mixed=True), TABLES)
    assert result.first == [6, 10]
    assert result.finish == [11, 11]
    assert result.longest_gap == [4, 1]


def test_step_times_take_the_means_of_the_step():
    tables = build_linear_tables()
    result = simulate(Requests([0, 1], [4, 6], [3, 1], [0, 2]), replace(LARGE, mixed=True), tables)
    # Step 1: 4 tokens that attend to 1 + 2 + 3 + 4 keys. Step 2: one request with 4 tokens decodes; 4 tokens from 2 on.
    first = 100 + 1 * 0 + 10 * 2 + 1000 * 4 + 10000 * 2.5
    second = 100 + 1 * 1 + 10 * 4 + 1000 * 4 + 10000 * (3 + 4 + 5 + 6) / 4
    third = 0.5 + 1 + 10 * 5
    assert result.first == pytest.approx([first, first + second])
    assert result.finish == pytest.approx([first + second + third, first + second])


def build_linear_tables():
    s, c, tokens, keys = [0, 100], [2, 100], [0, 100], [0, 100]
    decode = [[0.5 + a + 10 * b for b in c] for a in [1, 100]]
    mixed = [
        [[[100 + a + 10 * b + 1000 * p + 10000 * r for r in keys] for p in tokens] for b in c] for a in s
    ]
    return Tables([1, 100], c, s, c, tokens, keys, decode, decode, mixed, mixed)


def test_prompts_are_cut_at_the_budget():
    result = simulate(Requests([0, 0], [5, 4], [1, 1]), replace(LARGE, budget=3), TABLES)
    assert chunks_of(result) == [[(0, 0, 3)], [(0, 3, 2), (1, 0, 1)], [(1, 1, 3)]]
    assert result.finish == [10, 15]
    assert result.admitted == [0, 5]


def test_decoding_takes_from_the_budget_of_mixed_steps():
    result = simulate(Requests([0, 0], [2, 4], [4, 1]), replace(LARGE, budget=3, mixed=True), TABLES)
    assert chunks_of(result) == [[(0, 0, 2), (1, 0, 1)], [(1, 1, 2)], [(1, 3, 1)], []]
    assert result.first == [5, 12]
    assert result.finish == [13, 12]


def test_budget_below_the_decoding_requests_computes_no_prompts():
    policy = replace(LARGE, budget=1, mixed=True)
    result = simulate(Requests([0, 0], [1, 1], [3, 1]), policy, TABLES)
    assert chunks_of(result) == [[(0, 0, 1)], [], [], [(1, 0, 1)]]
    assert result.finish == [5, 8]


def test_sequence_limit_keeps_requests_waiting():
    result = simulate(Requests([0, 0], [2, 2], [2, 1]), replace(LARGE, sequences=1), TABLES)
    assert result.admitted == [0, 5]
    assert result.finish == [5, 9]


def test_hits_are_not_computed_and_slow_hits_take_time():
    requests = Requests([0], [4], [1], [3], [2])
    result = simulate(requests, replace(LARGE, load_seconds=0.5), TABLES)
    assert chunks_of(result) == [[(0, 3, 1)]]
    assert result.first == [4]


# Two requests of 3 pages at their end, of which 5 pages hold the first tokens only.
GROWING = Requests([0, 0], [3, 3], [4, 4])
SMALL = Policy(pages=5, block=2)


def test_preemption_computes_again():
    result = simulate(GROWING, SMALL, TABLES)
    # 8 s for both prompts; at 9 s both need a third page, the second is preempted, and comes back at 11 s with 5 tokens.
    assert result.preemptions == [0, 1]
    assert result.admitted == [0, 0]
    assert result.first == [8, 8]
    assert result.finish == [11, 19]
    assert result.longest_gap == [1, 9]
    assert chunks_of(result)[4] == [(1, 0, 5)]
    assert (result.prompt_tokens, result.emitted_tokens) == (11, 8)


def test_preemption_by_swap_moves_the_tokens_twice():
    result = simulate(GROWING, replace(SMALL, swap=True, swap_seconds=0.25), TABLES)
    # At 9 s 4 tokens go out (1 s); at 12 s they come back in a step of 1 s without decoding.
    assert result.preemptions == [0, 1]
    assert result.finish == [12, 15]
    assert result.longest_gap == [2, 5]
    assert result.prompt_tokens == 6


def test_preempted_requests_return_before_later_arrivals_and_read_their_hits_again():
    requests = Requests([0, 0, 1], [3, 3, 2], [4, 4, 1], [0, 2, 0], [0, 1, 0])
    policy = replace(SMALL, load_seconds=0.5, sequences=2, budget=4)
    result = simulate(requests, policy, TABLES)
    # 4 computed tokens and a slow one take 6.5 s. At 7.5 s the second is preempted. At 9.5 s it computes 3 of its 5 tokens
    # again, with one token of the third, in 6.5 s.
    assert chunks_of(result) == [[(0, 0, 3), (1, 2, 1)], [], [], [], [(1, 2, 3), (2, 0, 1)], [(2, 1, 1)], []]
    assert result.admitted == [0, 0, 9.5]
    assert result.first == [6.5, 6.5, 19]
    assert result.finish == [9.5, 20, 19]


def test_prefill_first_preempts_only_where_the_step_decodes():
    result = simulate(Requests([0, 0], [4, 8], [3, 2]), Policy(pages=6, block=2, budget=8), TABLES)
    # At 10 s the first needs a page and none is free, but the second goes on with its prompt; it is preempted at 16 s.
    assert chunks_of(result) == [[(0, 0, 4), (1, 0, 4)], [(1, 4, 4)], [], [], [(1, 0, 8)], [(1, 8, 1)]]
    assert result.first == [10, 16]
    assert result.finish == [18, 31]


def test_swapped_request_returns_in_a_step_without_decoding_where_prefill_comes_first():
    policy = replace(SMALL, swap=True, swap_seconds=0.25)
    result = simulate(Requests([0, 0, 0], [3, 1, 3], [3, 4, 4]), policy, TABLES)
    assert [[r.index for r in step.decoding] for step in result.log] == [
        [],
        [0, 1, 2],
        [0, 1],
        [],
        [1, 2],
        [2],
    ]
    assert [step.start for step in result.log] == [0, 9, 10, 12, 13, 14]
    assert result.finish == [12, 14, 15]


def test_swapped_request_returns_while_others_decode_in_mixed_steps():
    policy = replace(SMALL, mixed=True, swap=True, swap_seconds=0.25)
    result = simulate(Requests([0, 0, 0], [3, 1, 3], [3, 4, 4]), policy, TABLES)
    # At 10 s each needs a page more: the third goes with 4 tokens, and comes back at 12 s, when the first has left.
    assert result.preemptions == [0, 0, 1]
    assert [step.start for step in result.log] == [0, 9, 10, 12, 14, 15]
    assert [[r.index for r in step.decoding] for step in result.log] == [[], [0, 1, 2], [0, 1], [1], [2], [2]]
    assert result.finish == [12, 14, 16]


def test_prompt_in_progress_is_preempted_in_mixed_steps():
    requests = Requests([0, 0], [3, 6], [4, 1])
    result = simulate(requests, Policy(pages=5, block=2, budget=4, mixed=True), TABLES)
    # Pages 2 + 3; at 6 + 5 s the first needs a third: the second has computed 1 + 3 of its 6 tokens, and starts again.
    assert chunks_of(result) == [[(0, 0, 3), (1, 0, 1)], [(1, 1, 3)], [], [], [(1, 0, 4)], [(1, 4, 2)]]
    assert result.preemptions == [0, 1]
    assert result.admitted == [0, 0]
    assert result.finish == [13, 23]


def test_full_reserve_never_preempts():
    result = simulate(GROWING, replace(SMALL, reserve=1.0), TABLES)
    assert result.preemptions == [0, 0]
    assert result.admitted == [0, 8]
    assert result.finish == [8, 16]
    for seed in range(60):
        case = random_case(seed)
        policy = replace(case.policy, reserve=1.0, concurrency=0)
        assert not any(simulate(case.requests, policy, case.tables).preemptions)


def test_drafts_are_accepted_by_their_random_numbers():
    requests = Requests([0], [2], [6])
    assert simulate(requests, replace(LARGE, drafts=2, acceptance=1.0), TABLES).finish == [6]
    assert simulate(requests, replace(LARGE, drafts=2, acceptance=0.0), TABLES).finish == [9]
    policy = replace(LARGE, drafts=3, acceptance=0.7, seed=5)
    result = simulate(Requests([0, 0], [2, 2], [50, 50]), policy, TABLES)
    for index in range(2):
        emitted, steps = 1, 0
        while emitted < 50:
            u = float(uniform(5, index, emitted))
            emitted += 1 + (u < 0.7) + (u < 0.7**2) + (u < 0.7**3)
            steps += 1
        assert result.finish[index] == 6 + steps
    assert result.emitted_tokens == 100


def test_drafts_take_pages():
    policy = replace(SMALL, pages=4, drafts=2, acceptance=0.0)
    # 3 + 1 + 2 tokens in 3 pages each, of which 4 are there.
    assert simulate(GROWING, policy, TABLES).preemptions == [0, 1]
    assert simulate(GROWING, policy, TABLES).log[1].pages == 3


def test_closed_loop_releases_at_completions():
    result = simulate(Requests([0, 0, 100], [1, 1, 1], [1, 1, 1]), replace(LARGE, concurrency=1), TABLES)
    assert result.arrival == [0, 3, 100]
    assert result.finish == [3, 6, 103]


def test_closed_loop_counts_all_replicas():
    policy = replace(LARGE, concurrency=2, replicas=2)
    result = simulate(Requests([0, 0, 0, 0], [1, 4, 1, 1], [1, 1, 1, 1]), policy, TABLES)
    assert result.arrival == [0, 0, 3, 6]
    assert result.replica == [0, 1, 0, 1]
    assert result.finish == [3, 6, 6, 9]


def test_steps_that_end_together_release_before_either_replica_goes_on():
    policy = replace(LARGE, concurrency=2, replicas=2, router=[0, 1, 1, 0])
    result = simulate(Requests([0] * 4, [1] * 4, [1] * 4), policy, TABLES)
    assert result.arrival == [0, 0, 3, 3]
    assert result.finish == [3, 3, 6, 6]


def test_routers():
    requests = Requests([0, 1, 2, 5], [10, 1, 1, 1], [1, 1, 1, 1])
    policy = replace(LARGE, replicas=2)
    assert simulate(requests, policy, TABLES).replica == [0, 1, 0, 1]
    assert simulate(requests, replace(policy, router=[1, 1, 0, 0]), TABLES).replica == [1, 1, 0, 0]
    result = simulate(requests, replace(policy, router="least_loaded"), TABLES)
    # At 2 s both serve one; at 5 s the second replica is empty.
    assert result.replica == [0, 1, 0, 1]
    assert result.finish == [12, 4, 15, 8]
    result = simulate(replace(requests, arrival=[0, 1, 5, 6]), replace(policy, router="least_loaded"), TABLES)
    assert result.replica == [0, 1, 1, 0]


def test_least_loaded_sees_completions_of_its_instant():
    policy = replace(LARGE, replicas=2, router="least_loaded")
    result = simulate(Requests([0, 1, 3], [1, 10, 1], [1, 1, 1]), policy, TABLES)
    assert result.replica == [0, 1, 0]
    assert result.finish == [3, 13, 6]


def test_requests_above_the_pool_are_rejected():
    policy = Policy(pages=2, block=2, concurrency=1)
    result = simulate(Requests([0, 0, 0], [2, 4, 2], [1, 2, 1]), policy, TABLES)
    assert result.rejected == [False, True, False]
    assert result.arrival == [0, 4, 4]
    assert result.finish[0] == 4 and math.isnan(result.finish[1]) and result.finish[2] == 8
    assert math.isnan(result.admitted[1]) and math.isnan(result.first[1])
    result = simulate(Requests([0, 0], [5, 6], [1, 1]), policy, TABLES)
    assert result.rejected == [True, True] and result.steps == 0


def test_rejection_releases_into_the_step_that_is_formed():
    policy = Policy(pages=3, block=2, concurrency=2)
    result = simulate(Requests([0, 0, 0], [2, 9, 2], [1, 1, 1]), policy, TABLES)
    assert result.rejected == [False, True, False]
    assert result.finish[::2] == [6, 6]


def test_two_pools():
    result = simulate_pools(Requests([0, 0], [4, 2], [3, 1]), (LARGE, TABLES), (LARGE, TABLES), 0.5)
    assert result.first == [10, 8]
    assert result.finish == [12, 8]
    assert result.longest_gap == [1, 0]
    assert result.admitted == [0, 0]


def test_decode_pool_admits_between_its_steps():
    requests = Requests([0, 0.25], [2, 1], [4, 2])
    prefill = (replace(LARGE, replicas=2), TABLES)
    # Prefills end at 4 and 3.25 s; the second is alone until 4.25 s, when the first is admitted.
    result = simulate_pools(requests, prefill, (LARGE, TABLES))
    assert result.first == [4.25, 3.25]
    assert result.finish == [7.25, 4.25]
    # One request at a time: the first comes second.
    result = simulate_pools(requests, prefill, (replace(LARGE, sequences=1), TABLES))
    assert result.first == [4.25, 3.25]
    # Prefill and decode pools have limits of their own.
    result = simulate_pools(requests, prefill, (replace(LARGE, pages=2), TABLES))
    assert result.rejected == [True, False]
    assert math.isnan(result.first[0]) and result.admitted[0] == 0


def test_decode_pool_computes_preempted_requests_again():
    result = simulate_pools(GROWING, (LARGE, TABLES), (SMALL, TABLES))
    assert result.preemptions == [0, 1]
    assert result.first == [8, 8]
    assert chunks_of(result.pools[1]) == [[], [], [], [], [(1, 0, 5)], []]
    assert result.finish == [11, 19]


def test_closed_loop_of_two_pools_is_refused():
    with pytest.raises(ValueError, match="closed loop"):
        simulate_pools(GROWING, (LARGE, TABLES), (replace(LARGE, concurrency=1), TABLES))


@pytest.mark.parametrize("seed", range(4))
def test_interpolation_is_multilinear_and_clamped(seed):
    tables = draw_tables(Random(seed))
    knots = [tables.mixed_sequences, tables.mixed_context, tables.mixed_tokens, tables.mixed_keys]
    reference = RegularGridInterpolator(knots, np.array(tables.mixed_seconds))
    random = np.random.default_rng(seed)
    for point in random.uniform(-5, 70, (50, 4)):
        inside = [np.clip(x, k[0], k[-1]) for x, k in zip(point, knots, strict=True)]
        expected = reference(inside)[0]
        assert interpolate(knots, tables.mixed_seconds, list(point)) == pytest.approx(expected, rel=1e-12)
    for axis in range(4):
        assert (np.diff(np.array(tables.mixed_seconds), axis=axis) > 0).all()


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_one_request_alone_takes_its_prefill_and_its_decode_steps(seed, mixed):
    random = np.random.default_rng(seed)
    prompt, output = int(random.integers(1, 60)), int(random.integers(1, 40))
    hit = int(random.integers(0, prompt))
    tables = draw_tables(Random(seed))
    policy = Policy(pages=10**6, block=16, mixed=mixed)
    result = simulate(Requests([1.5], [prompt], [output], [hit]), policy, tables)
    keys = np.arange(hit + 1, prompt + 1).mean()
    first = 1.5 + tables.evaluate_mixed(0, tables.mixed_context[0], prompt - hit, keys)[0]
    decode = [tables.evaluate_decode(1, prompt + k)[0] for k in range(output - 1)]
    assert result.admitted == [1.5]
    assert result.first == pytest.approx([first], rel=1e-12)
    assert result.finish == pytest.approx([first + sum(decode)], rel=1e-12)
    assert result.longest_gap == pytest.approx([max(decode, default=0)], rel=1e-9)


@pytest.mark.parametrize("first_seed", range(0, 100, 20))
def test_conservation(first_seed):
    for seed in range(first_seed, first_seed + 20):
        check_conservation(random_case(seed))


def check_conservation(case):
    result, requests = simulate_case(case), case.requests
    pools = [(case.policy, result)]
    if case.prefill:
        pools = [(case.prefill[0], result.pools[0]), (case.policy, result.pools[1])]
    served = [i for i, rejected in enumerate(result.rejected) if not rejected]
    for i, rejected in enumerate(result.rejected):
        times = [result.arrival[i], result.admitted[i], result.first[i], result.finish[i]]
        assert rejected == math.isnan(times[3]) == math.isnan(times[2])
        if not rejected:
            assert requests.arrival[i] <= times[0] and all(a <= b for a, b in pairwise(times))
            assert result.longest_gap[i] <= times[3] - times[2] + 1e-12
    expected = sum(requests.output[i] for i in served)
    if case.prefill:  # those that only the decode pool rejects have a first token
        expected += sum(result.rejected) - sum(result.pools[0].rejected)
    assert result.emitted_tokens == expected
    computed = sum(requests.prompt[i] - requests.hit[i] for i in served)
    if not any(result.preemptions) and not any(result.rejected):
        assert result.prompt_tokens == computed
    for policy, pool in pools:
        check_limits(policy, pool)


def check_limits(policy, result):
    assert result.peak_pages <= policy.pages
    for step in result.log:
        assert policy.sequences == 0 or step.running <= policy.sequences
        taken = step.prompt_tokens + (len(step.decoding) if policy.mixed and step.chunks else 0)
        assert policy.budget == 0 or taken <= policy.budget
        assert policy.mixed or not (step.chunks and step.decoding)
        assert step.end >= step.start
        requests = step.decoding + [r for r, _, _ in step.chunks]
        assert len({r.index for r in requests}) == len(requests)
        # At the end no request has pages, or tokens left to emit.
        assert all(r.pages == 0 and r.emitted == r.output for r in requests)
    for replica in range(policy.replicas):
        steps = [s for s in result.log if s.replica == replica]
        assert all(a.end <= b.start for a, b in pairwise(steps))


def test_random_cases_cover_every_feature():
    features = Counter()
    for seed in range(60):
        case = random_case(seed)
        result = simulate_case(case)
        policy, log = case.policy, result.log
        features.update(
            {
                "preemption": any(result.preemptions),
                "recompute": not policy.swap and any(step.preempted for step in log),
                "swap": any(r.preemptions for step in log for r in step.returned),
                "rejection": any(result.rejected),
                "chunks": max(result.chunks) > 1,
                "prompts and decoding in a step": any(step.chunks and step.decoding for step in log),
                "closed loop": policy.concurrency > 0,
                "replicas": policy.replicas > 1,
                "least loaded": policy.replicas > 1 and policy.router == "least_loaded",
                "speculation": policy.drafts > 0,
                "two pools": case.prefill is not None,
                "slow hits": any(case.requests.slow_hit) and policy.load_seconds > 0,
                "reserve": policy.reserve > 0,
            }
        )
    assert min(features.values()) >= 5, features
