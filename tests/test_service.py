"""Serving a rate: against a simulation, brute force, limits, directions, gradients, one compilation."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost import evaluation
from jaxcost.evaluation import design_features, evaluate
from jaxcost.explore.analysis.planner import DEGREES, candidate_plans, is_valid
from jaxcost.explore.serve.steady_state import evaluate_point, memory_margin
from jaxcost.physics.memory.capacity import kv_bytes_per_token
from tests.batched import program, run
from tests.serving_simulation import simulate

MODEL = jc.load_model("llama-3.1-8b")
SYSTEM = jc.load_system("h100-sxm-x4")
TRAFFIC = jc.Traffic(prompt=2048, output=128, rate=40.0, ttft_target=0.5, tpot_target=0.02)
PLAN = jc.Plan(tp=2)


def serve(traffic=TRAFFIC, plan=PLAN, system=SYSTEM, **more):
    return jax.device_get(jc.serve(system, MODEL, traffic, plan, **more))


def _steps(system, traffic, plan):
    r = evaluate(system, MODEL, traffic, plan, features=design_features(SYSTEM, TRAFFIC, PLAN))
    worst = jnp.minimum(memory_margin(r), jnp.minimum(r.margins.ttft, r.margins.tpot))
    return r.decode.total, r.prefill.total, worst


@functools.cache
def _program():
    return program(_steps, *jc.canonical((SYSTEM, jc.replace(TRAFFIC, batch=jnp.ones(1024)), PLAN)))


def steps(plan=PLAN, traffic=TRAFFIC, system=SYSTEM):
    """Seconds of decode and prefill steps and the worst margin, for a batch of 1, 2, .."""
    traffic = jc.replace(traffic, batch=jnp.arange(1.0, 1025.0))
    return [np.broadcast_to(x, 1024) for x in _program()(*jc.canonical((system, traffic, plan)))]


# The largest relative errors of mean TTFT and TPOT at 30 and 70 percent of the largest rate, chance included, as
# ; docs/model.md has them for more loads.
@pytest.mark.parametrize(
    ("chunk", "variation", "ttft", "tpot"),
    [(0, 0, 0.02, 0.03), (0, 1, 0.05, 0.08), (512, 0, 0.03, 0.04), (512, 1, 0.15, 0.03)],
)
def test_means_are_those_of_a_simulation(chunk, variation, ttft, tpot):
    plan = jc.replace(PLAN, chunk=chunk)
    free = jc.replace(TRAFFIC, variation=variation, ttft_target=0.0, tpot_target=0.0)
    decode, mixed, _ = steps(plan)
    most = float(serve(jc.replace(free, rate=0.0), plan).rate)
    for load in (0.3, 0.7):
        found = serve(jc.replace(free, rate=load * most), plan)
        assert found.replicas == 1 and found.chips == 2
        waited, decoded, lengths = simulate(
            rate=load * most,
            requests=50000,
            steps=127,
            decode=np.append(0, decode),
            mixed=np.append(mixed[0] - decode[0], mixed),
            prefill=float(found.first.prefill),
            chunks=4 if chunk else 0,
            slots=min(int(found.slots), 1024),
            variation=variation,
        )
        assert float(found.ttft) == pytest.approx(waited.mean(), rel=ttft)
        assert float(found.tpot) == pytest.approx(decoded.sum() / lengths.sum(), rel=tpot)


def test_an_idle_replica_takes_the_time_of_one_request():
    found, alone = serve(jc.replace(TRAFFIC, rate=1e-3)), jc.evaluate(SYSTEM, MODEL, TRAFFIC, PLAN)
    assert float(found.tpot) == pytest.approx(float(alone.tpot), rel=1e-3)
    assert float(found.ttft) == pytest.approx(float(alone.ttft), rel=1e-3)
    assert float(found.goodput) == pytest.approx(1e-3, rel=1e-3)


def test_replicas_follow_the_rate_and_the_targets_and_cost_follows_them():
    one, ten = serve(), serve(jc.replace(TRAFFIC, rate=4000.0))
    assert ten.replicas == np.ceil(4000 / ten.largest_rate)
    assert one.largest_rate == ten.largest_rate and one.replicas == np.ceil(40 / one.largest_rate)
    assert one.replicas == round(float(one.replicas)) and one.chips == 2 * one.replicas
    assert float(one.margins.worst) >= -1e-4 or float(one.margins.power) < 0
    for name, value in (("ttft_target", 0.04), ("tpot_target", 0.007)):
        strict = serve(jc.replace(TRAFFIC, rate=4000.0, **{name: value}))
        assert strict.largest_rate < ten.largest_rate and strict.usd_per_mtok > ten.usd_per_mtok
    # One replica costs the same a second however little it does; electricity of the work is by the token.
    quiet, quieter = (serve(jc.replace(TRAFFIC, rate=r)) for r in (1.0, 0.5))
    assert quiet.replicas == quieter.replicas == 1
    assert float(quieter.usd.chips) == pytest.approx(2 * float(quiet.usd.chips), rel=1e-5)
    assert float(quieter.joules.prefill) == pytest.approx(float(quiet.joules.prefill), rel=1e-5)
    even = serve(jc.replace(TRAFFIC, variation=0.0))
    assert even.first.prefill_wait < one.first.prefill_wait


@pytest.mark.parametrize("chunk", [0.0, 256.0])
def test_the_largest_rate_binds(chunk):
    """Just at the largest rate a margin is 0; without a rate that is what one replica serves."""
    plan = jc.replace(PLAN, chunk=chunk)
    free = jc.replace(TRAFFIC, rate=0.0)
    for targets in ({}, {"tpot_target": 0.0}, {"ttft_target": 0.0}, {"tpot_target": 0.0, "ttft_target": 0.0}):
        found = serve(jc.replace(free, **targets), plan)
        assert found.replicas == 1 and found.rate == found.largest_rate
        m = found.margins
        bound = [m.memory, m.ttft, m.tpot, m.prefill, m.slots]
        assert float(min(bound)) == pytest.approx(0, abs=2e-3)


def test_cost_is_that_of_the_chips_owned_and_the_energy_used():
    found, prices = serve(), jc.Prices()
    seconds = float(found.chips) / (40 * 128)  # chips' seconds per token
    owned = seconds / prices.utilization
    chip, host = SYSTEM.chip, SYSTEM.host
    price = float(1e6 * owned * chip.price / prices.lifetime)
    assert float(found.usd.chips) == pytest.approx(price, rel=1e-4)
    assert float(found.joules.idle) == pytest.approx(float(seconds * chip.idle_power), rel=1e-4)
    grown = 1 + host.overhead
    work = float(found.joules.prefill + found.joules.decode)
    drawn = seconds * (chip.idle_power * grown + host.power) + work * (grown - 1)
    assert float(found.joules.idle + found.joules.host) == pytest.approx(float(drawn), rel=1e-4)
    metered = work * grown + owned * (chip.idle_power * grown + host.power)
    bill = float(1e6 * metered * prices.pue * prices.electricity)
    assert float(found.usd.electricity) == pytest.approx(bill, rel=1e-4)
    grams = float(1e9 * metered * prices.pue * prices.grid_carbon)
    assert float(found.carbon.operation) == pytest.approx(grams, rel=1e-4)
    assert float(found.usd_per_query) == pytest.approx(float(found.usd.total) * 128 / 1e6, rel=1e-6)


@pytest.mark.parametrize("chunk", [0.0, 512.0])
def test_a_bill_at_the_report_s_own_load_is_the_report(chunk):
    traffic, plan, prices, knobs = jc.canonical(
        (TRAFFIC, jc.replace(PLAN, chunk=chunk), jc.Prices(), jc.Knobs())
    )
    system, model = jc.canonical((SYSTEM, MODEL))
    features = design_features(SYSTEM, TRAFFIC, PLAN)
    point = evaluate_point(system, model, traffic, plan, prices, knobs, features, 24.0)
    report = jc.evaluate(system, model, jc.replace(traffic, batch=24.0), plan)
    work = float(point.prefill_joules + point.decode_joules) / 128
    assert work == pytest.approx(float(report.energy.dynamic), rel=1e-5)
    seconds = float(report.schedule.chips / report.tokens_per_second)
    by_work = float(point.bill.usd_of_work + point.bill.water_of_work)
    usd = seconds * float(point.bill.usd.total) + work * by_work
    assert usd == pytest.approx(float(report.usd.total), rel=1e-5)
    carbon = seconds * float(point.bill.carbon.total) + work * float(point.bill.carbon_of_work)
    assert carbon == pytest.approx(float(report.carbon.total), rel=1e-5)


@pytest.mark.parametrize(
    ("plan", "traffic"),
    [
        (PLAN, TRAFFIC),
        (jc.Plan(tp=2, chunk=256), TRAFFIC),
        (jc.Plan(pp=2, dp=2), jc.replace(TRAFFIC, prefix_hit=0.5)),
        (jc.Plan(tp=2, chunk=256), jc.replace(TRAFFIC, output=1.0)),
    ],
)
def test_input_and_output_add_up_to_a_query(plan, traffic):
    report = jc.evaluate(SYSTEM, MODEL, jc.replace(traffic, batch=16.0), plan)
    for kind, per, scale in (
        ("usd", "_mtok", 1e6),
        ("gco2e", "_mtok", 1e6),
        ("joules", "_token", 1.0),
    ):
        parts = [float(getattr(report, f"{kind}_per_{side}{per}")) for side in ("input", "output")]
        assert min(parts) >= 0
        both = (parts[0] * traffic.prompt + parts[1] * traffic.output) / scale
        assert both == pytest.approx(float(getattr(report, f"{kind}_per_query")), rel=1e-5)


def test_prefill_s_shares_are_those_of_its_own_steps():
    one = jc.replace(TRAFFIC, batch=16.0)
    report, short = (jc.evaluate(SYSTEM, MODEL, jc.replace(one, output=n), PLAN) for n in (128.0, 1.0))
    assert float(report.split.seconds) == pytest.approx(float(report.ttft / report.batch_seconds), rel=1e-5)
    assert float(short.split.seconds) == float(short.split.energy) == 1
    spent = float(short.energy.dynamic) / (128 * float(report.energy.dynamic))
    assert float(report.split.energy) == pytest.approx(spent, rel=1e-4)
    # In chunks, what is left to decode is the decode steps alone.
    chunked = jc.evaluate(SYSTEM, MODEL, jc.replace(one, batch=8.0), jc.replace(PLAN, chunk=256.0))
    s = chunked.schedule
    decode = float(s.decode_steps * chunked.decode.total / chunked.batch_seconds)
    assert float(chunked.split.seconds) == pytest.approx(1 - decode, rel=1e-4)
    assert 0 < float(chunked.split.energy) < 1


def test_a_pool_of_its_own_for_prefill():
    pool = (SYSTEM, jc.Plan(tp=4))
    found = serve(jc.replace(TRAFFIC, rate=100.0), prefill=pool)
    joint = serve(jc.replace(TRAFFIC, rate=100.0))
    assert found.tpot < joint.tpot and found.largest_rate > joint.largest_rate
    assert found.prefill_replicas == round(float(found.prefill_replicas)) > 0
    assert found.chips == 2 * found.replicas + 4 * found.prefill_replicas
    owned = float(found.chips) / (100 * 128) / jc.Prices().utilization
    price = float(1e6 * owned * SYSTEM.chip.price / jc.Prices().lifetime)
    assert float(found.usd.chips) == pytest.approx(price, rel=1e-4)
    assert 0 < found.prefill_busy < 1 and found.margins.ttft >= 0 and found.margins.tpot >= 0
    link = SYSTEM.fabric.scale_out
    sent = 2048 * kv_bytes_per_token(MODEL) / (2 * link.bandwidth * SYSTEM.chip.efficiency.link)
    way = float(link.launch + link.overhead + link.latency + sent)
    assert float(found.first.transfer) == pytest.approx(way, rel=1e-4)
    # One replica less of the pool would wait longer than half of what the target leaves.
    hurried = serve(jc.replace(TRAFFIC, rate=100.0, ttft_target=0.06), prefill=pool)
    assert hurried.prefill_replicas >= found.prefill_replicas
    assert hurried.first.prefill_wait <= (0.06 - hurried.first.prefill - hurried.first.transfer) / 2


@pytest.mark.parametrize(
    "broken",
    [{"tpot_target": 1e-5}, {"ttft_target": 1e-5}, {"prompt": 5e7}, {"tpot_target": 1e-5, "rate": 0.0}],
)
def test_what_cannot_be_served_is_a_number(broken):
    found = serve(jc.replace(TRAFFIC, **broken))
    assert all(np.isfinite(x) for x in jax.tree.leaves(found))
    assert all(np.isfinite(value) for _, _, value in jc.rows(found))
    assert found.margins.worst < 0 and found.replicas > 0


def test_auto_is_the_cheapest_plan_that_holds():
    auto = serve(plan="auto")
    costs = {}
    for degrees in candidate_plans(4):
        plan = jc.Plan(**dict(zip(DEGREES, map(float, degrees), strict=True)))
        if is_valid(SYSTEM, MODEL, jc.replace(TRAFFIC, batch=64.0), plan):
            found = serve(plan=plan)
            margins = jc.replace(found.margins, power=np.float32(1))
            key = (float(margins.worst) < -1e-4, float(found.margins.power) < -1e-4)
            costs[tuple(degrees)] = (*key, float(found.usd_per_mtok))
    best = min(costs, key=costs.__getitem__)
    assert len(costs) > 5 and tuple(float(getattr(auto.plan, d)) for d in DEGREES) == best
    assert float(auto.usd_per_mtok) == pytest.approx(costs[best][2], rel=1e-5)
    with pytest.raises(ValueError, match='"auto"'):
        serve(plan="best")


def test_many_at_once_equal_one_by_one():
    rates = jnp.asarray([1.0, 40.0, 700.0])
    many = run(jax.vmap(lambda r: jc.serve(SYSTEM, MODEL, jc.replace(TRAFFIC, rate=r), PLAN)), rates)
    for i, rate in enumerate(rates):
        one = jc.rows(serve(jc.replace(TRAFFIC, rate=float(rate))))
        for (path, _, a), (_, _, b) in zip(jc.rows(many), one, strict=True):
            assert float(a[i]) == pytest.approx(float(b), rel=2e-3, abs=1e-4), path


BATCHES = [
    (PLAN, {"ttft_target": 0.0}),
    (jc.Plan(tp=2, dp=2), {"tpot_target": 0.0}),
    (jc.Plan(pp=2, dp=2), {"tpot_target": 0.0, "ttft_target": 0.0, "prompt": 8192.0}),
    (jc.Plan(tp=2, chunk=512), {"tpot_target": 0.01}),
    (PLAN, {"tpot_target": 1e-4}),
]


@pytest.mark.parametrize(("plan", "targets"), BATCHES)
def test_the_largest_batch_is_that_of_brute_force(plan, targets):
    traffic = jc.replace(TRAFFIC, **targets)
    *_, worst = steps(plan, traffic)
    holds = [n for n in range(int(plan.dp), 1025) if worst[n - 1] >= 0]
    unit = int(plan.dp * (plan.microbatches or plan.pp))
    unit = int(plan.dp) if max(holds, default=0) < unit else unit
    assert len(holds) < 1024
    found = float(jc.largest_batch(SYSTEM, MODEL, traffic, plan))
    assert found == max(holds, default=0)
    relaxed = float(jc.largest_batch(SYSTEM, MODEL, traffic, plan, relaxed=True))
    assert relaxed < unit if not holds else found // unit <= relaxed / unit < found // unit + 1


LEAVES = ("chip.memory.bandwidth", "chip.compute.flops_16", "chip.memory.capacity", "chip.price", "chip.tdp")


def _compare(function, system, leaves, rtol):
    """Compare slopes with central differences; the function returns what is differentiated and what is compared."""
    flat = jax.tree.map(jnp.zeros_like, system)
    points, directions = [], []
    for leaf in leaves:
        x = operator.attrgetter(leaf)(system)
        points += [jc.replace_at(system, leaf, x * (1 + h)) for h in (0, 1e-6, -1e-6)]
        directions += [jc.replace_at(flat, leaf, x)] * 3
    slopes = jax.vmap(lambda s, along: jax.jvp(function, (s,), (along,)))
    (_, values), (found, _) = run(slopes, jc.stack(points), jc.stack(directions))
    for leaf, slope, (_, up, down) in zip(leaves, found[::3], values.reshape(-1, 3), strict=True):
        assert slope == pytest.approx((up - down) / 2e-6, rel=rtol, abs=1e-9), leaf


def test_gradients_of_the_largest_batch_are_those_of_the_relaxed_solution():
    with jax.enable_x64(True):
        system, model = jc.canonical((SYSTEM, MODEL), np.float64)
        traffic = jc.canonical(jc.replace(TRAFFIC, ttft_target=0.0), np.float64)

        def both(s):
            relaxed = jc.largest_batch(s, model, traffic, PLAN, relaxed=True)
            return relaxed, relaxed

        _compare(both, system, ("chip.memory.bandwidth", "chip.memory.capacity"), 1e-5)


def test_gradients_of_the_cost_are_those_of_as_many_replicas_as_are_needed():
    """Where a replica's rate is what is offered, the count is 1 and the largest rate moves the cost."""
    with jax.enable_x64(True):
        system, model = jc.canonical((SYSTEM, MODEL), np.float64)
        traffic = jc.canonical(jc.replace(TRAFFIC, rate=0.0), np.float64)

        def cost(s):
            found = jc.serve(s, model, traffic, PLAN)
            return found.usd_per_mtok, found.usd_per_mtok

        _compare(cost, system, LEAVES, 1e-3)


def test_a_second_load_or_plan_is_not_traced_again(monkeypatch):
    traces = []
    original = evaluation.schedule_steps
    monkeypatch.setattr(evaluation, "schedule_steps", lambda *a: (traces.append(1), original(*a))[1])
    # Five loads at once, as no other test has them: nothing traced before serves this one.
    loads = jc.replace(TRAFFIC, prompt=jnp.full(5, 100.0))
    count = []
    for plan, rate in ((PLAN, 40.0), (jc.Plan(tp=4, chunk=128), 7)):
        jax.eval_shape(lambda p=plan, r=rate: jc.serve(SYSTEM, MODEL, jc.replace(loads, rate=r), p))
        count.append(len(traces))
    assert count[0] == count[1] > 0
