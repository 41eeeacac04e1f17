"""Levels of a fabric, placement of groups, late ranks, background traffic, spares and overlap."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import jaxcost as jc
from jaxcost.physics.network.algorithms import algorithm_costs, duration, fastest
from jaxcost.physics.network.collectives import RankGroup, all_reduce, broadcast, communicator, gather
from jaxcost.physics.network.levels import fabric_levels, take_level
from jaxcost.physics.network.messages import hottest_rank, touched_groups
from jaxcost.physics.network.reliability import availability, exponential_integral, late_share, straggler_wait
from jaxcost.spec.fabric import topology_id
from tests.batched import run

MODEL = jc.load_model("llama-3.1-70b")
TRAFFIC = jc.Traffic(prompt=2048, output=512, batch=32)


def fabric(**links):
    switch = topology_id("switch")
    basic = {
        "package": jc.Link(bandwidth=4e12, latency=5e-9, topology=topology_id("mesh")),
        "scale_up": jc.Link(bandwidth=4e11, latency=2e-7, overhead=1e-6, launch=2e-6, topology=switch),
        "scale_out": jc.Link(
            bandwidth=5e10, latency=5e-7, overhead=3e-6, launch=3e-6, topology=topology_id("fat-tree")
        ),
    }
    return jc.canonical(jc.Fabric(package_chips=4.0, domain=16.0, **(basic | links)))


def test_a_group_fills_packages_then_domains_and_strides_over_what_is_inside():
    f = fabric()
    on = fabric_levels(f, 64.0)
    count = lambda **group: [float(n) for n in communicator(RankGroup(**group), f, on).counts]  # noqa: E731
    assert count(ranks=2.0) == [2, 1, 1]
    assert count(ranks=8.0) == [4, 2, 1]
    assert count(ranks=64.0) == [4, 4, 4]
    assert count(ranks=4.0, stride=2.0) == [2, 2, 1]
    assert count(ranks=4.0, stride=8.0) == [1, 2, 2]
    assert count(ranks=2.0, repeats=8.0, every=8.0) == [2, 2, 4]


def test_a_group_over_levels_is_put_together_from_its_levels():
    f, size = fabric(), 1e6
    on = fabric_levels(f, 64.0)
    among, places = communicator(RankGroup(ranks=64.0), f, on), [take_level(on, k) for k in range(3)]
    part, shares = size, 0.0
    for n, place, last in zip(among.counts, places, (False, False, True), strict=True):
        costs = algorithm_costs(place, n)
        once = fastest(costs.all_reduce if last else costs.gather, place, part, 0.0)
        shares += float(once if last else 2 * once)
        part = part / n
    launched = 2e-6 + 3e-6
    assert float(all_reduce(size, among, on, 0.0).seconds) == pytest.approx(launched + shares, rel=1e-5)
    # A few bytes are summed in fewer rounds where each level repeats the whole.
    small = float(all_reduce(8.0, among, on, 0.0).seconds)
    quick = sum(
        float(min(duration(algorithm_costs(p, n).all_reduce[k], p, 8.0) for k in ("doubling", "one-shot")))
        for n, p in zip(among.counts, places, strict=True)
    )
    assert small == pytest.approx(launched + quick, rel=1e-5)
    halves = gather(size, among, on, 0.0)
    assert float(halves.seconds) > float(all_reduce(size, among, on, 0.0).seconds) / 2
    assert float(broadcast(size, among, on, 0.0).seconds) > launched


@pytest.mark.parametrize("tau", [0.0, 0.05])
def test_the_fastest_algorithm_is_the_least_of_all(tau):
    f = fabric()
    domain = take_level(fabric_levels(f, 64.0), 1)
    costs = algorithm_costs(domain, jnp.asarray(4.0)).all_reduce
    for size in np.geomspace(1, 1e9, 40):
        times = [float(duration(costs[name], domain, size)) for name in costs]
        value = float(fastest(costs, domain, size, tau))
        assert (1 - 2 * tau) * min(times) * (1 - 1e-6) <= value <= min(times) * (1 + 1e-6)


def test_softness_has_the_slope_of_its_differences():
    with jax.enable_x64(True):
        f = jc.canonical(fabric(), np.float64)
        domain = take_level(fabric_levels(f, jnp.asarray(64.0)), 1)
        costs = algorithm_costs(domain, jnp.asarray(4.0)).all_reduce
        time = jax.jit(lambda size, tau: fastest(costs, domain, size, tau))
        slopes = []
        for size in np.geomspace(1e4, 1e7, 7):
            up, down = (float(time(size, 0.2 + d)) for d in (1e-6, -1e-6))
            slopes.append(float(jax.grad(time, argnums=1)(size, 0.2)))
            assert slopes[-1] == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-12)
        assert min(slopes) < 0


def test_a_partly_used_direct_network_has_only_its_links_to_the_group():
    eight = jc.load_system("mi300x-x8")
    four, all_ = (
        float(all_reduce(1e9, communicator(RankGroup(ranks=n), eight.fabric, on), on, 0.0).seconds)
        for n in (2.0, 8.0)
        for on in [fabric_levels(eight.fabric, eight.chips)]
    )
    # Two accelerators share one link of 64 GB/s of seven: 1 GB each way; eight use all: 2 x 7/8 GB over six rings.
    assert four == pytest.approx(1e9 / 64e9, rel=0.01)
    assert all_ == pytest.approx(2 * (1 / 8) * 1e9 / 64e9, rel=0.01)


def test_switches_that_add_halve_the_bytes_and_the_rounds():
    slow, fast = (
        fabric(scale_up=jc.Link(bandwidth=4e11, latency=2e-7, overhead=1e-6, topology=2.0, in_network=x))
        for x in (0.0, 1.0)
    )
    for size, ratio in ((8.0, 1.0), (1e9, 2 * 3 / 4)):
        before, after = (
            all_reduce(size, communicator(RankGroup(ranks=4.0, stride=4.0), f, on), on, 0.0)
            for f in (slow, fast)
            for on in [fabric_levels(f, 16.0)]
        )
        assert float(before.seconds / after.seconds) == pytest.approx(ratio, rel=0.01)
    assert float(after.level_bytes[1]) == pytest.approx(1e9 * 2)  # up and down
    assert float(before.level_bytes[1]) == pytest.approx(1.5e9 * 2)


def test_background_traffic_takes_bandwidth_and_makes_hops_wait_without_bound():
    seconds, large = [], []
    for share in (0.0, 0.5, 0.9, 0.99):
        f = fabric(scale_up=jc.Link(bandwidth=4e11, latency=2e-7, topology=2.0, background=share))
        on = fabric_levels(f, 16.0)
        among = communicator(RankGroup(ranks=4.0, stride=4.0), f, on)
        seconds.append(float(all_reduce(1e-3, among, on, 0.0).seconds))
        large.append(float(all_reduce(1e9, among, on, 0.0).seconds))
        wait = share / (2 * (1 - share)) * 4096 / 4e11  # M/D/1
        assert seconds[-1] == pytest.approx(2 * (2e-7 + wait), rel=1e-3)
        assert large[-1] == pytest.approx(1.5e9 / (4e11 * (1 - share)), rel=1e-2)
    assert seconds == sorted(seconds)


def test_queueing_delay_equals_a_simulated_queue():
    rng, share, service = np.random.default_rng(0), 0.7, 1.0
    wait, total, count = 0.0, 0.0, 400_000
    for gap in rng.exponential(service / share, count):
        total += wait
        wait = max(wait + service - gap, 0.0)
    assert total / count == pytest.approx(share / (2 * (1 - share)), rel=0.03)


def test_packets_that_land_in_on_chip_memory_skip_the_main_one():
    system = jc.load_system("h100-sxm-x8")
    direct = jc.replace_at(system, "fabric.scale_up.sram_landing", 1.0)
    before, after = (jc.evaluate(s, MODEL, TRAFFIC, jc.Plan(tp=8)) for s in (system, direct))
    saved = float(before.decode.total - after.decode.total)
    assert saved == pytest.approx(160 * 2 * float(system.chip.memory.latency), rel=0.02)
    # A link faster than half the memory is held back by it.
    fast = jc.replace_at(system, "fabric.scale_up.bandwidth", 1e13)
    on = fabric_levels(fast.fabric, 8.0, memory=system.chip.memory)
    assert float(1 / on.per_byte[1]) == pytest.approx(float(system.chip.memory.bandwidth) / 2, rel=1e-5)


@pytest.mark.parametrize("ranks", [2, 3, 8, 64, 1024])
@pytest.mark.parametrize("timeout", [0.0, 0.3, 1.0, 3.0, 10.0])
def test_waiting_for_the_last_rank_equals_a_simulation(ranks, timeout):
    rng = np.random.default_rng(ranks)
    last = -np.log(-np.expm1(np.log(rng.random(200_000)) / ranks))  # the largest of so many exponentials
    waited = np.minimum(last, timeout) if timeout else last
    found = float(straggler_wait(float(ranks), 2e-6, 2e-6 * timeout)) / 2e-6
    assert found == pytest.approx(waited.mean(), rel=0.012)
    if timeout:
        late = float(late_share(float(ranks), 2e-6, 2e-6 * timeout))
        assert late == pytest.approx((last > timeout).mean(), abs=0.005)


def test_exponential_integral():
    x = np.geomspace(1e-6, 50, 200)
    np.testing.assert_allclose(exponential_integral(jnp.asarray(x)), special.exp1(x), rtol=2e-5, atol=1e-6)


def test_a_time_out_is_reported_never_hidden():
    system = jc.load_system("h100-sxm-x8")
    late = jc.replace(system, fabric=jc.replace(system.fabric, jitter=2e-6))
    capped = jc.replace(late, fabric=jc.replace(late.fabric, timeout=4e-6))
    calm, slow, cut = (jc.evaluate(s, MODEL, TRAFFIC, jc.Plan(tp=8)) for s in (system, late, capped))
    assert calm.tpot < cut.tpot < slow.tpot
    assert float(slow.reliability.stale_tokens) == 0
    affected = 1 - (1 - math.exp(-2)) ** (8 * 160)
    assert float(cut.reliability.stale_tokens) == pytest.approx(affected, rel=1e-3)
    assert "reliability.stale_tokens" in [path for path, _, _ in jc.rows(cut)]


def test_spares_cost_and_buy_availability():
    system = jc.replace(
        jc.load_system("h100-sxm-x8"), failure_rate=1e-7, repair_time=3 * 86400.0, switchover_time=300.0
    )
    away = 8 * 1e-7 * 3 * 86400
    found = []
    for spares in (0, 1, 2):
        report = jc.evaluate(jc.replace(system, spares=float(spares)), MODEL, TRAFFIC, jc.Plan(tp=8))
        enough = sum(math.exp(-away) * away**k / math.factorial(k) for k in range(spares + 1))
        expected = enough / (1 + 8 * 1e-7 * 300)
        assert float(report.reliability.availability) == pytest.approx(expected, rel=1e-5)
        found.append(report)
    plain = jc.evaluate(jc.load_system("h100-sxm-x8"), MODEL, TRAFFIC, jc.Plan(tp=8))
    for spares, report in enumerate(found):
        factor = (1 + spares / 8) / float(report.reliability.availability)
        assert float(report.usd.chips / plain.usd.chips) == pytest.approx(factor, rel=1e-4)
        assert float(report.tpot) == float(plain.tpot)
    slope = jax.grad(lambda s: availability(jc.replace(system, spares=s)))(0.5)
    assert float(slope) > 0


def test_overlap_goes_from_none_to_perfect():
    system = jc.load_system("h100-sxm-x8")
    reports = [
        jc.evaluate(jc.replace_at(system, "chip.efficiency.overlap", x), MODEL, TRAFFIC, jc.Plan(tp=8)).decode
        for x in (0.0, 0.5, 1.0)
    ]
    messages = float(sum(row.network for row in reports[0].rows))
    none, half, perfect = (float(r.total) for r in reports)
    assert none - half == pytest.approx(messages / 2, rel=1e-3)
    assert none - perfect == pytest.approx(messages, rel=1e-3)  # the shorter of the two


def test_norms_along_the_sequence_save_work_and_memory_and_cost_a_second_start():
    system = jc.load_system("h100-sxm-x8")
    whole, cut = (jc.evaluate(system, MODEL, TRAFFIC, jc.Plan(tp=8, sequence_parallel=x)) for x in (0.0, 1.0))
    norms = lambda r: float(dict(zip(r.names, r.rows, strict=True))["norms"].seconds)  # noqa: E731
    assert norms(whole.prefill) / norms(cut.prefill) == pytest.approx(8, rel=1e-3)
    assert cut.memory.activations < whole.memory.activations
    assert cut.memory.communication == whole.memory.communication > 0
    assert cut.tpot > whole.tpot


def test_a_pipeline_has_bubbles_unless_it_has_microbatches():
    system = jc.load_system("h100-sxm-x8")
    report = lambda **plan: jc.evaluate(system, MODEL, TRAFFIC, jc.Plan(pp=4, **plan))  # noqa: E731
    one, four, sixteen = (report(microbatches=float(m)) for m in (1, 4, 16))
    assert report().tpot == four.tpot
    step = lambda r: float(r.decode.total)  # noqa: E731
    assert float(one.tpot) == pytest.approx(step(one), rel=1e-5)  # three stages of four idle
    assert float(four.tpot) == pytest.approx(step(four), rel=1e-5)
    assert float(sixteen.tpot) == pytest.approx(
        4 * step(sixteen), rel=1e-5
    )  # waits for the other microbatches
    for parts, r in ((1, one), (16, sixteen)):  # each microbatch is prefilled in steps of the token budget
        stages = parts * float(r.schedule.prefill_steps) + 3
        assert float(r.ttft) == pytest.approx(stages / 4 * float(r.prefill.total), rel=1e-5)
    uneven = jc.evaluate(jc.load_system("h100-sxm-x3"), MODEL, TRAFFIC, jc.Plan(pp=3))
    assert float(uneven.tpot) == pytest.approx(3 * 27 / 80 * float(uneven.decode.total), rel=1e-5)


@pytest.mark.parametrize(
    ("experts", "top_k", "ranks"), [(256, 8, 32), (8, 2, 2), (8, 2, 8), (64, 6, 16), (16, 1, 4)]
)
def test_a_token_goes_once_to_each_rank_that_holds_its_experts(experts, top_k, ranks):
    rng = np.random.default_rng(0)
    picks = np.argsort(rng.random((40_000, experts)), axis=1)[:, :top_k] // (experts // ranks)
    wanted = np.mean([len(set(row)) for row in picks])
    assert float(touched_groups(float(ranks), float(experts), float(top_k))) == pytest.approx(
        wanted, rel=0.01
    )


@pytest.mark.parametrize(
    ("ranks", "tokens", "skew"), list(itertools.product((4, 16, 64), (64, 1024), (0.0, 0.2, 0.5)))
)
def test_the_busiest_rank_equals_a_simulation(ranks, tokens, skew):
    experts, top_k, rng = 256, 8, np.random.default_rng(1)
    peaks = []
    for _ in range(400):
        popular = rng.gamma(1 / skew, skew, experts) if skew else np.ones(experts)
        load = rng.multinomial(tokens * top_k, popular / popular.sum())
        peaks.append(load.reshape(ranks, -1).sum(1).max() / (tokens * top_k / ranks))
    found = float(hottest_rank(float(ranks), float(tokens * top_k), float(experts), skew))
    assert found == pytest.approx(np.mean(peaks), rel=0.06)


def test_topology_degree_and_latency_sweep_in_one_compilation():
    traces, system = [], jc.load_system("h100-sxm-x64")

    @jax.jit
    @jax.vmap
    def tpot(topology, degree, latency):
        traces.append(1)
        link = jc.replace(system.fabric.scale_up, topology=topology, latency=latency)
        wide = jc.replace(system, fabric=jc.replace(system.fabric, domain=64.0, scale_up=link))
        return jc.evaluate(wide, MODEL, TRAFFIC, jc.Plan(tp=degree)).tpot

    grid = np.array(list(itertools.product(range(9), (1, 2, 4, 8, 16, 64), (1e-8, 1e-7, 1e-6))), np.float32)
    found = run(tpot, *grid.T).reshape(9, 6, 3)
    tpot.eval_shape(*grid.T * 2)
    assert len(traces) == 1
    assert np.isfinite(found).all()
    assert (np.diff(found, axis=2) >= 0).all()  # slower hops, slower tokens
    assert (found[0, 5] > found[1, 5]).all()  # 64 chips in a ring, against fully connected


def test_gradients_equal_differences_on_every_topology():
    model, plan = jc.load_model("deepseek-v3"), jc.Plan(tp=8, dp=4, ep=32, cp=2)
    leaves = ("bandwidth", "latency", "overhead")
    with jax.enable_x64(True):
        base = jc.canonical(jc.load_system("h200-sxm-x64"), np.float64)

        def cost(knobs, topology, tau):
            link = jc.replace(
                base.fabric.scale_up, topology=topology, **dict(zip(leaves, knobs[:3], strict=True))
            )
            far = jc.replace(base.fabric.scale_out, latency=knobs[3], background=knobs[4])
            system = jc.replace(base, fabric=jc.replace(base.fabric, scale_up=link, scale_out=far))
            return jc.evaluate(system, model, TRAFFIC, plan, knobs=jc.Knobs(tau=tau)).tpot

        near, far = base.fabric.scale_up, base.fabric.scale_out
        here = np.stack([near.bandwidth, near.latency, near.overhead, far.latency, np.asarray(0.2)])
        cases = np.asarray(list(itertools.product(range(9), (0.0, 0.05))))
        slopes = run(jax.vmap(jax.grad(cost), (None, 0, 0)), here, *cases.T)
        moved = np.concatenate([here + np.diag(1e-5 * here), here - np.diag(1e-5 * here)])
        each = jax.vmap(jax.vmap(cost, (0, None, None)), (None, 0, 0))
        up, down = np.split(run(each, moved, *cases.T), 2, axis=1)
        assert slopes.shape == (18, 5)
        np.testing.assert_allclose(slopes, (up - down) / (2e-5 * here), rtol=2e-4, atol=1e-14)
