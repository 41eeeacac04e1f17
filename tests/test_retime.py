"""Gradients of a replay along its schedule: exact for small changes, and how far they hold for larger ones."""

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import execution, program

BANDWIDTH, FLOPS, HOST = "chip.memory.bandwidth", "chip.compute.flops_16", "chip.host.bandwidth"


@pytest.fixture(autouse=True)
def _interpreted():
    with execution("interpret"), jax.enable_x64(True):
        yield


def at(tree, path):
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


def case(kind, dtype=np.float64):
    """Return the arguments of a replay, and its options: one that preempts by swap, a closed loop, two pools."""
    model = jc.load_model("llama-3.2-1b")
    system = jc.load_system("h100-sxm")
    engine = jc.Engine(step_tokens=512.0, sequences=16.0, mixed=1.0, block=16.0)
    options = {"trace": trace(3), "record": True}
    if kind == "swap":
        system = jc.replace_at(system, HOST, 50e9)
        model, system, plan = jc.canonical((model, system, jc.Plan(engine=engine)), dtype)
        # A pool of some four requests, which grow: the share of memory by extrapolation.
        low, high = (
            float(
                jc.fit(system, model, jc.replace_at(plan, "engine.memory_share", x), context=400.0).kv_tokens
            )
            for x in (0.5, 0.9)
        )
        share = 0.5 - (low - 2000) * 0.4 / (high - low)
        options["trace"] = trace(3, output=200)
        engine = jc.replace(plan.engine, memory_share=share, swaps=1.0)
        return system, model, jc.replace(plan, engine=engine), options
    if kind == "closed loop":
        options["concurrency"] = 6
    if kind == "routed":
        options |= {"replicas": 2, "router": "least_loaded"}
    model, system, plan = jc.canonical((model, system, jc.Plan(engine=engine)), dtype)
    if kind == "two pools":
        options["prefill"] = (system, plan, 1)
    return system, model, plan, options


def trace(seed, requests=40, rate=60.0, output=40):
    return jc.synthetic_trace(
        rate=rate, requests=requests, prompt=300, output=output, prompt_cv=0.7, output_cv=0.7, seed=seed
    )


def run(system, model, plan, options):
    options = dict(options)
    return jc.replay(system, model, options.pop("trace"), plan, **options)


def retimed(replayed, system, model, plan, options, arrivals="fixed"):
    prefill = options["prefill"][:2] if "prefill" in options else None
    return jc.retime(replayed, system, model, plan, prefill=prefill, arrivals=arrivals)


@pytest.mark.parametrize("kind", ["one replica", "swap", "closed loop", "two pools", "routed"])
def test_times_are_those_of_the_replay_and_move_with_the_hardware(kind):
    """At the design itself, and after a change so small that no request moves to another step."""
    system, model, plan, options = case(kind)
    replayed = run(system, model, plan, options)
    if kind == "swap":
        assert replayed.preemptions.sum() > 0
    kept = retimed(replayed, system, model, plan, options, "in_step")
    np.testing.assert_allclose(kept.ttft, replayed.ttft, rtol=1e-12, atol=1e-14)
    same = retimed(replayed, system, model, plan, options)
    for name in ("ttft", "tpot", "e2e"):
        np.testing.assert_allclose(getattr(same, name), getattr(replayed, name), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(same.joules, replayed.dynamic_joules, rtol=1e-12)
    path = HOST if kind == "swap" else BANDWIDTH
    changed = jc.replace_at(system, path, at(system, path) * (1 + 1e-8))
    options = options | ({"prefill": (changed, plan, 1)} if kind == "two pools" else {})
    moved, found = run(changed, model, plan, options), retimed(replayed, changed, model, plan, options)
    for name in ("ttft", "tpot", "e2e"):
        want = getattr(moved, name) - getattr(replayed, name)
        assert np.nanmax(np.abs(want)) > 0
        near = 1e-3 * np.nanmax(np.abs(want))
        np.testing.assert_allclose(getattr(found, name) - getattr(replayed, name), want, rtol=1e-3, atol=near)


def test_gradients_of_means_percentiles_and_goodput():
    system, model, plan, options = case("one replica")
    replayed = run(system, model, plan, options)

    def metrics(system):
        times = jc.retime(replayed, system, model, plan)
        return {
            "ttft": times.mean("ttft"),
            "tpot": times.mean("tpot"),
            "p99": times.percentile("ttft", 99.0),
            "goodput": times.goodput(ttft=0.02, tpot=0.002),
            "joules": times.joules,
        }

    values = program(metrics)
    slopes = program(jax.jacrev(metrics))(system)
    for path in (BANDWIDTH, FLOPS):
        x = float(at(system, path))
        up, down = (values(jc.replace_at(system, path, x * (1 + h))) for h in (1e-5, -1e-5))
        for name, slope in slopes.items():
            want = float(up[name] - down[name]) / (2e-5 * x)
            assert float(at(slope, path)) == pytest.approx(
                want, rel=1e-4, abs=1e-9 * abs(float(up[name])) / x
            ), name


def test_a_percentile_is_the_mean_of_the_requests_near_it():
    system, model, plan, options = case("one replica")
    replayed = run(system, model, plan, options)
    times = jc.retime(replayed, system, model, plan)
    assert float(times.percentile("ttft", 50.0, width=2.0)) == pytest.approx(
        float(replayed.percentile("ttft", 50)), rel=0.1
    )
    limits = {"ttft": float(replayed.percentile("ttft", 60)), "tpot": float(replayed.percentile("tpot", 80))}
    exact, smooth = replayed.goodput(**limits), times.goodput(**limits, width=1e-3)
    assert float(smooth) == pytest.approx(float(exact), rel=0.05)


def test_a_batch_of_designs_is_the_designs_one_by_one():
    system, model, plan, options = case("one replica")
    factors = np.array([0.8, 1.0, 1.3])
    batch = run(jc.replace_at(system, BANDWIDTH, at(system, BANDWIDTH) * factors), model, plan, options)
    again = jc.retime(batch, jc.replace_at(system, BANDWIDTH, at(system, BANDWIDTH) * factors), model, plan)
    for i, factor in enumerate(factors):
        one = run(jc.replace_at(system, BANDWIDTH, at(system, BANDWIDTH) * factor), model, plan, options)
        for name in ("ttft", "tpot", "e2e", "longest_gap", "cached", "rejected"):
            np.testing.assert_allclose(
                getattr(batch.design(i), name), getattr(one, name), rtol=1e-9, atol=1e-12
            )
        for name, value in one.summary().items():
            assert float(batch.summary()[name][i]) == pytest.approx(float(value), rel=1e-9), name
        np.testing.assert_allclose(again.ttft[:, i], one.ttft, rtol=1e-9, atol=1e-12)


def test_32_bits_suffice():
    """Recorded times are kept in 64 bits; differences from them are small."""
    with jax.enable_x64(False):
        system, model, plan, options = case("one replica", np.float32)
        replayed = run(system, model, plan, options)
        times = jc.retime(replayed, system, model, plan)
        assert times.ttft.dtype == np.float32
        np.testing.assert_allclose(times.ttft, replayed.ttft, rtol=1e-5)
        changed = jc.replace_at(system, BANDWIDTH, at(system, BANDWIDTH) * 1.01)
        found = jc.retime(replayed, changed, model, plan)
    system, model, plan, _ = case("one replica")
    want = jc.retime(replayed, jc.replace_at(system, BANDWIDTH, at(system, BANDWIDTH) * 1.01), model, plan)
    np.testing.assert_allclose(found.tpot, want.tpot, rtol=1e-4)
    np.testing.assert_allclose(found.ttft, want.ttft, rtol=1e-4)


def test_what_cannot_be_timed_again_is_refused():
    system, model, plan, options = case("one replica")
    with pytest.raises(ValueError, match="record=True"):
        jc.retime(run(system, model, plan, options | {"record": False}), system, model, plan)
    with pytest.raises(ValueError, match="prefill pool"):
        jc.retime(run(system, model, plan, options), system, model, plan, prefill=(system, plan))


@pytest.mark.exhaustive
def test_the_derivative_of_a_mean_over_many_traces():
    """With arrivals kept within their steps, and by differences of 10% between replays."""
    system, model, plan, options = case("one replica")
    metrics = ("tpot", "ttft")

    def mean_slope(ends, h):
        return (
            np.array([[float(end.mean(m)) for m in metrics] for end in ends]).T @ np.array([1, -1]) / (2 * h)
        )

    def ends(h):
        return [jc.replace_at(system, BANDWIDTH, at(system, BANDWIDTH) * (1 + sign * h)) for sign in (1, -1)]

    slopes = {"in_step": np.zeros(2), "fixed": np.zeros(2), "between": np.zeros(2)}
    for seed in range(24):
        these = options | {"trace": trace(seed)}
        replayed = run(system, model, plan, these)
        for kind in ("in_step", "fixed"):
            slopes[kind] += mean_slope(
                [retimed(replayed, s, model, plan, these, kind) for s in ends(1e-4)], 1e-4
            )
        slopes["between"] += mean_slope([run(s, model, plan, these) for s in ends(0.1)], 0.1)
    print({kind: x / slopes["between"] for kind, x in slopes.items()})
    assert slopes["in_step"] == pytest.approx(slopes["between"], rel=0.15)
    # Along the path delays add up over a busy period, and the mean of TTFT is far off.
    assert abs(slopes["fixed"][1] / slopes["between"][1] - 1) > 0.5
