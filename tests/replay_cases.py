"""Small random workloads over all policies, for the comparison of the event simulator with the replay in JAX."""

import math
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from random import Random
from typing import Any

from tests.replay_inputs import Policy, Requests, Tables
from tests.replay_simulator import Result, simulate, simulate_pools


@dataclass(frozen=True)
class Case:
    """A workload with its policy and tables; with `prefill`, these are of the decode pool."""

    requests: Requests
    policy: Policy
    tables: Tables
    prefill: tuple[Policy, Tables] | None = None
    transfer_seconds: float = 0.0


def simulate_case(case: Case) -> Result:
    if case.prefill is None:
        return simulate(case.requests, case.policy, case.tables)
    decode = (case.policy, case.tables)
    return simulate_pools(case.requests, case.prefill, decode, case.transfer_seconds)


def random_case(seed: int) -> Case:
    """Return a workload of 5-40 requests and a policy drawn from `seed`."""
    random = Random(seed)
    requests = draw_requests(random)
    has_two_pools = random.random() < 0.2
    policy = draw_policy(random, requests, may_close=not has_two_pools)
    tables = draw_tables(random)
    if not has_two_pools:
        return Case(requests, policy, tables)
    prefill = draw_policy(random, requests, may_close=False), draw_tables(random)
    return Case(requests, policy, tables, prefill, transfer_seconds=random.uniform(0, 0.01))


def draw_requests(random: Random) -> Requests:
    n = random.randint(5, 40)
    mean_gap = random.choice([0.01, 0.05, 0.3])
    gaps = [0.0] + [random.expovariate(1 / mean_gap) if random.random() < 0.9 else 0.0 for _ in range(n - 1)]
    longest_prompt, longest_output = random.choice([8, 24, 60]), random.choice([4, 16, 40])
    prompt = [random.randint(1, longest_prompt) for _ in range(n)]
    output = [random.randint(1, longest_output) for _ in range(n)]
    hit = [0] * n
    if random.random() < 0.5:
        hit = [random.randint(0, p - 1) if random.random() < 0.6 else 0 for p in prompt]
    slow_hit = [random.randint(0, h) for h in hit]
    return Requests(list(accumulate(gaps)), prompt, output, hit, slow_hit)


def draw_policy(random: Random, requests: Requests, *, may_close: bool) -> Policy:
    block = random.choice([1, 2, 3, 4, 8])
    lengths = zip(requests.prompt, requests.output, strict=True)
    most_pages = max(math.ceil((n + o - 1) / block) for n, o in lengths)
    # Many requests that outgrow a small pool, or limits of every kind. Below 1 the longest requests are rejected.
    is_short_of_pages = random.random() < 0.4
    share = random.choice([1, 1.2, 1.5, 2] if is_short_of_pages else [0.6, 0.8, 1, 1.5, 2, 3, 6])
    replicas = random.choice([1, 1, 1, 1, 2, 3])
    assignment = [random.randrange(replicas) for _ in requests.prompt]
    return Policy(
        pages=max(1, round(most_pages * share)),
        block=block,
        budget=random.choice([0, 0, 1, 4, 8, 16, 32, 64]),
        sequences=0 if is_short_of_pages else random.choice([0, 0, 1, 2, 4, 8, 16]),
        mixed=random.random() < 0.5,
        reserve=0.0 if is_short_of_pages else random.choice([0.0, 0.0, 0.25, 0.5, 1.0]),
        swap=random.random() < 0.5,
        swap_seconds=random.choice([0.0, 0.001, 0.01]),
        drafts=random.choice([0, 0, 0, 1, 2, 4]),
        acceptance=random.choice([0.3, 0.7, 0.95]),
        seed=random.randrange(2**31),
        concurrency=random.choice([0, 0, 0, 1, 4, 12]) if may_close else 0,
        replicas=replicas,
        router=random.choice(["round_robin", "least_loaded", assignment]),
        load_seconds=random.choice([0.0, 0.002]),
    )


def draw_tables(random: Random) -> Tables:
    """Return tables that are positive and increase along every axis; workloads reach beyond the knots."""
    decode = [draw_knots(random, 1, 12), draw_knots(random, 2, 60)]
    mixed = [
        draw_knots(random, 0, 12),
        draw_knots(random, 2, 60),
        draw_knots(random, 1, 48),
        draw_knots(random, 1, 50),
    ]
    return Tables(
        *decode,
        *mixed,
        decode_seconds=draw_values(random, decode, 0.02),
        decode_joules=draw_values(random, decode, 5.0),
        mixed_seconds=draw_values(random, mixed, 0.03),
        mixed_joules=draw_values(random, mixed, 8.0),
    )


def draw_knots(random: Random, low: int, high: int) -> list[float]:
    inner = random.sample(range(low + 1, high), random.randint(0, 3))
    return [float(x) for x in sorted([low, high, *inner])]


def draw_values(random: Random, knots: list[list[float]], scale: float) -> Any:
    """Return nested lists of scale x the product over axes of increasing factors, with up to 2% noise upward.

    A factor grows by 10-60% from one knot to the next, more than the noise, so that values increase.
    """
    factors = [list(accumulate((random.uniform(1.1, 1.6) for _ in axis), mul)) for axis in knots]
    return multiply_factors(random, factors, scale)


def multiply_factors(random: Random, factors: list[list[float]], scale: float) -> Any:
    if not factors:
        return scale * random.uniform(1, 1.02)
    return [multiply_factors(random, factors[1:], scale * factor) for factor in factors[0]]
