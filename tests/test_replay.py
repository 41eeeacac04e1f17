"""The replay in JAX against the plain event simulator, request by request, and its use on real designs."""

import numpy as np
import pytest

from jaxcost.explore.replay import serving, streams
from jaxcost.explore.replay.pools import Pool
from jaxcost.explore.replay.step_tables import Grid, StepTables
from tests.replay_cases import Case, random_case, simulate_case

REQUESTS, KNOTS, REPLICAS = 40, 5, 3
LIMITLESS = 2.0**30


@pytest.fixture(autouse=True)
def _few_rows(monkeypatch):
    """Small workloads take few iterations, and share programs."""
    monkeypatch.setattr(serving, "_ROWS", 256)
    monkeypatch.setattr(serving, "_FEWEST_SLOTS", 64)


def padded(values, rows):
    """Pad knots, or a table, to `KNOTS` along every axis: constant beyond the last knot, as the table is."""
    x = np.asarray(values, float)
    if x.ndim == 1 and rows:
        return np.concatenate([x, x[-1] + 10.0 * np.arange(1, KNOTS - len(x) + 1)])
    return np.pad(x, [(0, KNOTS - n) for n in x.shape], mode="edge")


def pool_of(policy, tables, replicas) -> Pool:
    knots = "decode_sequences decode_context mixed_sequences mixed_context mixed_tokens mixed_keys".split()
    both = [
        np.stack([padded(getattr(tables, f"{kind}_{unit}"), False) for unit in ("seconds", "joules")])[
            ..., None
        ]
        for kind in ("decode", "mixed")
    ]
    column = lambda x: np.full(1, float(x))  # noqa: E731
    return Pool(
        replicas=replicas,
        grid=Grid(*(padded(getattr(tables, name), True) for name in knots)),
        tables=StepTables(decode=both[0], mixed=both[1]),
        table_error=0.0,
        budget=column(policy.budget or LIMITLESS),
        sequences=column(policy.sequences or LIMITLESS),
        mixed=column(policy.mixed),
        block=column(policy.block),
        pages=column(policy.pages),
        reserve=column(policy.reserve),
        swap=column(policy.swap),
        swap_seconds=column(policy.swap_seconds),
        drafts=column(policy.drafts),
        acceptance=column(policy.acceptance),
        frontend=column(0),
        chips=column(1),
        bill=None,
    )


def column_of(values, fill, dtype):
    return np.pad(np.asarray(values, dtype), (0, REQUESTS - len(values)), constant_values=fill)[:, None]


def stream_of(case: Case, policy, replicas: int) -> streams.Stream:
    requests, n = case.requests, len(case.requests.arrival)
    routed = streams.is_routed(policy.router, policy.replicas)
    turn = policy.router if not isinstance(policy.router, str) else np.arange(n) % policy.replicas
    order, count = streams.order_requests(
        None if routed else column_of(turn, replicas, int),
        np.arange(REQUESTS)[:, None],
        replicas,
        np.full(1, n),
    )
    return streams.Stream(
        arrival=column_of(requests.arrival, np.inf, float),
        prompt=column_of(requests.prompt, 1, int),
        output=column_of(requests.output, 1, int),
        cached=column_of(requests.hit, 0, int),
        slow=column_of(requests.slow_hit, 0, int),
        load_seconds=np.full(1, policy.load_seconds),
        order=order,
        number=count,
        ready=False,
    )


def run(case: Case) -> tuple[dict[str, np.ndarray], float, float]:
    """Serve a case, or its two pools; requests by name, steps and joules."""

    def serve(policy, tables, stream, replicas):
        return serving.serve_stream(
            pool_of(policy, tables, replicas),
            stream,
            designs=1,
            concurrency=policy.concurrency * replicas,  # shared by all lanes
            seed=policy.seed,
            record=False,
            router="least_loaded" if streams.is_routed(policy.router, policy.replicas) else "round_robin",
            most=1024,
        )

    def lanes_of(policy):
        """Lanes of replicas that serve nothing keep the programs few."""
        return policy.replicas if streams.is_routed(policy.router, policy.replicas) else REPLICAS

    n = len(case.requests.arrival)
    if case.prefill is None:
        served = serve(
            case.policy,
            case.tables,
            stream_of(case, case.policy, lanes_of(case.policy)),
            lanes_of(case.policy),
        )
        out = {name: x[:n, 0] for name, x in served.results.items()}
        return out, float(served.steps[0]), float(served.joules[0])
    first, tables = case.prefill
    stream = stream_of(case, first, lanes_of(first))
    before = serve(first, tables, stream._replace(output=np.ones_like(stream.output)), lanes_of(first))
    router = case.policy.router if isinstance(case.policy.router, str) else "round_robin"
    done = before.results["finish"], before.results["rejected"]
    after = streams.second_stream(
        stream, *done, np.full(1, case.transfer_seconds), case.policy.replicas, router
    )
    if (missing := lanes_of(case.policy) - case.policy.replicas) > 0:
        after = after._replace(
            order=np.pad(after.order, ((0, 0), (0, missing), (0, 0))),
            number=np.pad(after.number, ((0, missing), (0, 0))),
        )
    second = serve(case.policy, case.tables, after, lanes_of(case.policy))
    out = serving.join_pools(stream.output, before, second)
    return (
        {name: x[:n, 0] for name, x in out.items()},
        float(before.steps[0] + second.steps[0]),
        float(before.joules[0] + second.joules[0]),
    )


def applies(case: Case) -> bool:
    """Whether the replay takes the case: a closed loop is shared evenly, and explicit routes are for one pool."""
    closed = case.policy.concurrency and case.policy.replicas > 1
    explicit = case.prefill is not None and not isinstance(case.policy.router, str)
    return not closed and not explicit


SEEDS = [seed for seed in range(320) if applies(random_case(seed))]


def test_there_are_enough_cases():
    cases = [random_case(seed) for seed in SEEDS]
    assert len(cases) >= 200
    assert sum(case.prefill is not None for case in cases) >= 20
    assert sum(case.policy.concurrency > 0 for case in cases) >= 20
    assert sum(streams.is_routed(case.policy.router, case.policy.replicas) for case in cases) >= 10


def test_every_request_as_in_the_plain_simulator():
    """TTFT, finish, admission, longest gap, preemptions and rejections; steps and joules."""
    for seed in SEEDS:
        case = random_case(seed)
        want, (found, steps, joules) = simulate_case(case), run(case)
        rejected = np.array(want.rejected)
        assert (found["rejected"].astype(bool) == rejected).all(), seed
        served = ~rejected
        for name, ours in (
            ("first", "first"),
            ("finish", "finish"),
            ("admitted", "admitted"),
            ("longest_gap", "gap"),
        ):
            np.testing.assert_allclose(
                found[ours][served],
                np.array(getattr(want, name))[served],
                rtol=1e-6,
                atol=1e-9,
                err_msg=f"{seed} {name}",
            )
        assert (found["preempted"][served] == np.array(want.preemptions)[served]).all(), seed
        assert steps == pytest.approx(want.steps) and joules == pytest.approx(want.joules, rel=1e-9), seed
