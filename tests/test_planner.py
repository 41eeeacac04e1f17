"""The best plan: against a loop over all plans, the rules of validity, its gradient, and one compilation."""

import itertools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import execution
from jaxcost.edge.catalog.check import check_plan
from jaxcost.edge.io.errors import InputError
from jaxcost.explore.analysis import planner
from jaxcost.explore.analysis.planner import DEGREES, OBJECTIVES, candidate_plans, is_valid
from tests.batched import program, run

MODELS = ["llama-3.1-8b", "deepseek-v3", "gpt-oss-120b", "mamba-2-2.7b", "jamba-1.5-mini", "phi-2"]


@pytest.fixture(autouse=True)
def _interpreted():
    """Each question is asked a few times, which takes less than a compiler."""
    with execution("interpret"):
        yield


def plan_of(degrees, **more):
    return jc.Plan(**dict(zip(DEGREES, map(float, degrees), strict=True)), **more)


def degrees_of(plan):
    return tuple(int(getattr(plan, name)) for name in DEGREES)


@pytest.mark.parametrize(("chips", "count"), [(1, 1), (2, 6), (8, 50), (12, 120), (64, 336)])
def test_every_plan_of_a_chip_count_is_listed_once(chips, count):
    plans = candidate_plans(chips)
    assert len(plans) == len(set(map(tuple, plans))) == count
    assert np.all(np.prod(plans[:, :4], axis=1) == chips)
    assert np.all(plans[:, 0] * plans[:, 3] % plans[:, 4] == 0)
    if chips <= 12:
        brute = [
            p
            for p in itertools.product(range(1, chips + 1), repeat=5)
            if math.prod(p[:4]) == chips and p[0] * p[3] % p[4] == 0
        ]
        assert brute == sorted(map(tuple, plans))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch", [1, 6, 64])
def test_valid_is_what_the_command_line_accepts(model, batch):
    system, tree, traffic = jc.load_system("h100-sxm-x16"), jc.load_model(model), jc.Traffic(batch=batch)
    for degrees in candidate_plans(16):
        plan = plan_of(degrees)
        try:
            check_plan(system, tree, plan, traffic)
            accepted = True
        except InputError:
            accepted = False
        assert bool(is_valid(system, tree, traffic, plan)) == accepted, degrees
    assert not is_valid(system, tree, traffic, plan_of((8, 1, 1, 1, 1)))  # half of the chips stand idle


CASES = [
    ("h100-sxm-x8", "llama-3.1-70b", jc.Traffic(prompt=2048, output=512, batch=32), "tpot"),
    ("h100-sxm-x8", "llama-3.1-8b", jc.Traffic(prompt=2048, output=512, batch=64), "ttft"),
    ("h200-sxm-x16", "deepseek-v3", jc.Traffic(batch=64), "usd_per_mtok"),
    (
        "mi300x-x8",
        "mixtral-8x7b",
        jc.Traffic(batch=8, ttft_target=0.2, tpot_target=0.02),
        "tokens_per_second",
    ),
]


@pytest.mark.parametrize(("system", "model", "traffic", "objective"), CASES)
def test_equals_a_loop_over_all_valid_plans(system, model, traffic, objective):
    system, model = jc.load_system(system), jc.load_model(model)
    sign = -1 if OBJECTIVES[objective] else 1
    found, valid = [], 0
    for degrees in candidate_plans(int(system.chips)):
        plan = plan_of(degrees, kv_bits=8)
        if is_valid(system, model, traffic, plan):
            valid += 1
            report = jc.evaluate(system, model, traffic, plan)
            if report.margins.worst >= -1e-6:
                found.append((sign * float(getattr(report, objective)), degrees_of(plan)))
    choice = jc.best_plan(system, model, traffic, jc.Plan(kv_bits=8), objective=objective)
    assert (int(choice.valid), int(choice.feasible)) == (valid, len(found))
    (best, _), (second, _) = sorted(found)[:2]
    assert sign * float(getattr(choice.report, objective)) == pytest.approx(best, rel=1e-5)
    assert float(choice.gap) == pytest.approx((second - best) / abs(best), rel=1e-3, abs=1e-5)
    values = {degrees: value for value, degrees in found}
    assert values[degrees_of(choice.plan)] == pytest.approx(best, rel=1e-5)
    assert values[degrees_of(choice.runner_up)] == pytest.approx(second, rel=1e-5)
    assert float(choice.plan.kv_bits) == 8


def test_auto_is_the_least_time_per_token():
    system, model, traffic, _ = CASES[0]
    system, model = jc.load_system(system), jc.load_model(model)
    auto = jc.evaluate(system, model, traffic, "auto")
    assert float(auto.tpot) == float(jc.best_plan(system, model, traffic).report.tpot)
    with pytest.raises(ValueError, match='"auto"'):
        jc.evaluate(system, model, traffic, "best")
    with pytest.raises(ValueError, match="tpt"):
        jc.best_plan(system, model, traffic, objective="tpt")


def test_targets_move_the_choice_and_nothing_feasible_is_least_infeasible():
    system, model = jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-8b")
    # So slow to start that tensor parallelism makes tokens quicker and dearer.
    system = jc.replace_at(system, "fabric.scale_up.launch", 20e-6)
    traffic = jc.Traffic(prompt=4096, output=128, batch=64)
    free = jc.best_plan(system, model, traffic, objective="usd_per_mtok")
    hurried = jc.replace(traffic, tpot_target=float(free.report.tpot) * 0.9)
    bound = jc.best_plan(system, model, hurried, objective="usd_per_mtok")
    assert degrees_of(bound.plan) != degrees_of(free.plan)
    assert bound.report.margins.tpot >= 0 and bound.report.usd_per_mtok > free.report.usd_per_mtok
    large = jc.best_plan(system, jc.load_model("deepseek-v3"), traffic)
    assert int(large.feasible) == 0 and int(large.valid) > 0
    worst = [
        float(jc.evaluate(system, jc.load_model("deepseek-v3"), traffic, plan_of(d)).margins.worst)
        for d in candidate_plans(8)
        if is_valid(system, jc.load_model("deepseek-v3"), traffic, plan_of(d))
    ]
    assert float(large.report.margins.worst) == pytest.approx(max(worst), rel=1e-5)


def test_power_alone_gives_way_to_the_objective():
    system, model = jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-8b")
    traffic = jc.Traffic(prompt=4096, output=128, batch=16)
    free = jc.best_plan(system, model, traffic)
    hungry = jc.replace_at(system, "chip.tdp", 1.0)
    choice = jc.best_plan(hungry, model, traffic)
    assert int(choice.feasible) == 0 and choice.report.margins.power < 0
    assert choice.report.tpot <= free.report.tpot


def test_no_valid_plan_is_said():
    # One request cannot be spread over replicas, and a recurrence has 64 layers, 16 x 5 heads and no cache to cut.
    choice = jc.best_plan(jc.load_system("h100-sxm-x67"), jc.load_model("mamba-2-2.7b"), jc.Traffic(batch=1))
    assert int(choice.valid) == int(choice.feasible) == 0
    assert np.isfinite(float(choice.report.tpot))


def test_gradient_is_that_of_the_chosen_plan():
    with jax.enable_x64(True):
        system, model = jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-70b")
        system, model = jc.canonical((system, model), np.float64)
        traffic = jc.canonical(jc.Traffic(prompt=2048, output=512, batch=32), np.float64)
        plan = jc.best_plan(system, model, traffic).plan
        auto, fixed = (
            program(jax.value_and_grad(lambda s, p=p: jc.evaluate(s, model, traffic, p).latency), system)
            for p in ("auto", plan)
        )
        _, slopes = auto(system)
        for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(fixed(system)[1]), strict=True):
            assert float(a) == pytest.approx(float(b), rel=1e-12)
        for leaf in ("chip.memory.bandwidth", "fabric.scale_up.latency", "chip.compute.flops_16"):
            pick = operator.attrgetter(leaf)
            x, h = float(pick(system)), 1e-4
            up, down = (
                float(auto(jc.replace_at(system, leaf, jnp.float64(x * (1 + e))))[0]) for e in (h, -h)
            )
            assert float(pick(slopes)) == pytest.approx((up - down) / (2 * h * x), rel=1e-3)


def test_sweeps_of_plans_are_traced_once_and_equal_a_loop(monkeypatch):
    traces = []
    original = planner.is_valid
    monkeypatch.setattr(planner, "is_valid", lambda *a: (traces.append(1), original(*a))[1])
    model, traffic = jc.load_model("mixtral-8x7b"), jc.Traffic(batch=64)
    base = jc.canonical(jc.load_system("h100-sxm-x8"))

    def best(bandwidth, latency, chips):
        system = jc.replace_at(base, "chip.memory.bandwidth", bandwidth)
        system = jc.replace_at(system, "fabric.scale_up.latency", latency)
        choice = jc.best_plan(jc.replace(system, chips=chips), model, traffic)
        return choice.report.tpot, choice.valid

    points = jnp.asarray([1e12, 3e12, 8e12]), jnp.asarray([1e-6, 1e-5, 1e-7]), jnp.asarray([8.0, 16.0, 64.0])
    many = jax.jit(jax.vmap(best))
    many.eval_shape(*points)
    many.eval_shape(*(p * 1.5 if i < 2 else p for i, p in enumerate(points)))
    assert len(traces) == 1
    tpot, valid = run(many, *points)
    for i, (bandwidth, latency, chips) in enumerate(zip(*points, strict=True)):
        one = best(bandwidth, latency, float(chips))
        assert float(tpot[i]) == pytest.approx(float(one[0]), rel=1e-5)
        assert int(valid[i]) == int(one[1])
