"""Placement over tiers: the closed form against a linear program, against greedy, and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import lognorm

import jaxcost as jc
from jaxcost.physics.memory.placement import BANDS, allot, hit_rate, popularity, touched

CLASSES, TIERS, CASES = 6, 5, 1000


def cases(seed=0):
    """Random classes by falling heat and random tiers, some absent; two thirds have room for all, a third just so."""
    rng = np.random.default_rng(seed)
    heat = -np.sort(-rng.lognormal(0, 2, (CASES, CLASSES)), axis=1)
    sizes = rng.lognormal(0, 1.5, (CASES, CLASSES)) * (rng.random((CASES, CLASSES)) > 0.15)
    capacity = rng.lognormal(0, 1.5, (CASES, TIERS)) * (rng.random((CASES, TIERS)) > 0.25)
    capacity[:, 0] = np.maximum(capacity[:, 0], 0.1)
    spare = np.where(rng.random(CASES) < 1 / 3, 1.0, rng.uniform(1, 4, CASES))
    capacity *= (spare * sizes.sum(1) / capacity.sum(1))[:, None]
    bandwidth = rng.lognormal(0, 1.5, (CASES, TIERS))
    return heat, sizes, capacity, bandwidth


def seconds(placed, heat, bandwidth, in_turn):
    each = placed / bandwidth[:, None, :]
    return np.sum(heat * (each.sum(2) if in_turn else each.max(2)), axis=1)


def closed_form(sizes, capacity, bandwidth, in_turn):
    """Bytes of each class in each tier, `[cases, classes, tiers]`; the cases are the batch, and it stands last."""
    placed = jax.jit(allot)(sizes.T, capacity.T, bandwidth.T, in_turn)
    return np.moveaxis(np.asarray(placed), -1, 0)


def program(heat, sizes, capacity, bandwidth, in_turn):
    """Least total time by a linear program over y[c, t] and, at once, the time of each class."""
    n = CLASSES * TIERS
    whole = np.kron(np.eye(CLASSES), np.ones(TIERS))
    room = np.tile(np.eye(TIERS), CLASSES)
    if in_turn:
        cost = (heat[:, None] / bandwidth).ravel()
        found = linprog(cost, A_ub=room, b_ub=capacity * (1 + 1e-12), A_eq=whole, b_eq=sizes)
    else:
        cost = np.concatenate([np.zeros(n), heat])
        streams = np.hstack(
            [np.diag(np.tile(1 / bandwidth, CLASSES)), -np.repeat(np.eye(CLASSES), TIERS, axis=0)]
        )
        found = linprog(
            cost,
            A_ub=np.vstack([np.hstack([room, np.zeros((TIERS, CLASSES))]), streams]),
            b_ub=np.concatenate([capacity * (1 + 1e-12), np.zeros(n)]),
            A_eq=np.hstack([whole, np.zeros((CLASSES, CLASSES))]),
            b_eq=sizes,
        )
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("in_turn", [0.0, 1.0])
def test_equal_to_a_linear_program(in_turn):
    with jax.enable_x64(True):
        heat, sizes, capacity, bandwidth = cases()
        placed = closed_form(sizes, capacity, bandwidth, in_turn)
        np.testing.assert_allclose(placed.sum(2), sizes, rtol=1e-9, atol=1e-9)
        assert (placed.sum(1) <= capacity * (1 + 1e-9) + 1e-12).all() and (placed >= 0).all()
        ours = seconds(placed, heat, bandwidth, in_turn)
        best = [program(*case, in_turn) for case in zip(heat, sizes, capacity, bandwidth, strict=True)]
        np.testing.assert_allclose(ours, best, rtol=1e-7, atol=1e-9)


def test_never_worse_than_greedy():
    with jax.enable_x64(True):
        heat, sizes, capacity, bandwidth = cases(seed=1)
        spread, greedy = (closed_form(sizes, capacity, bandwidth, how) for how in (0.0, 1.0))
        assert (seconds(spread, heat, bandwidth, 0) <= seconds(greedy, heat, bandwidth, 0) * (1 + 1e-9)).all()
        assert (seconds(greedy, heat, bandwidth, 1) <= seconds(spread, heat, bandwidth, 1) * (1 + 1e-9)).all()


@pytest.mark.parametrize("in_turn", [0.0, 1.0])
def test_gradient_equals_differences(in_turn):
    with jax.enable_x64(True):
        heat, sizes, capacity, bandwidth = (x[:60] for x in cases(seed=2))

        def total(s, c, b, h):
            each = allot(s, c, b, in_turn) / b
            return jnp.sum(h * (each.sum(1) if in_turn else each.max(1)))

        roomy = capacity * 1.01  # so that a step leaves room for all
        slopes = jax.jit(jax.vmap(jax.grad(total, argnums=(0, 1, 2))))(sizes, roomy, bandwidth, heat)
        value = jax.jit(jax.vmap(total))
        arguments, checked = [sizes, roomy, bandwidth], 0
        for k, found in enumerate(slopes):
            for j in range(found.shape[1]):
                step = np.zeros_like(arguments[k])
                step[:, j] = 1e-6 * arguments[k][:, j]
                up, down = (
                    np.asarray(
                        value(*(x + sign * step if i == k else x for i, x in enumerate(arguments)), heat)
                    )
                    for sign in (1, -1)
                )
                there = step[:, j] > 0
                wanted = (up - down)[there] / (2 * step[there, j])
                np.testing.assert_allclose(np.asarray(found)[there, j], wanted, rtol=1e-3, atol=1e-6)
                checked += there.sum()
        assert checked > 500


def test_one_tier_takes_all_and_what_has_no_room_is_left():
    y = allot(jnp.asarray([3.0]), jnp.asarray([2.0, 0.0]), jnp.asarray([1.0, 0.0]), 0.0)
    assert y.tolist() == [[2.0, 0.0]]


def test_popularity_is_the_lorenz_curve_of_a_log_normal():
    skew = 2.0
    sigma = np.sqrt(np.log1p(skew))
    of = lognorm(sigma, scale=np.exp(-(sigma**2) / 2))
    edges = np.concatenate([[0], np.cumsum(BANDS)])
    for j, share in enumerate(popularity(jnp.asarray(skew))):
        low, high = of.ppf(1 - edges[j + 1]), of.ppf(1 - edges[j])
        assert float(share) == pytest.approx(of.expect(lambda x: x, lb=low, ub=high), rel=1e-4)
    assert [float(x) for x in popularity(jnp.asarray(0.0))] == pytest.approx(list(BANDS), rel=1e-5)


def test_hit_rate_of_hot_experts_rises_with_skew_and_falls_with_tokens():
    def rate(skew, tokens):
        reads = touched(jnp.asarray(skew), jnp.asarray(8 / 256), jnp.asarray(tokens))
        return float(hit_rate(jnp.asarray(0.25), reads))

    assert rate(0.0, 1.0) == pytest.approx(0.25, rel=1e-5)
    assert rate(0.5, 1.0) < rate(2.0, 1.0) < rate(4.0, 1.0)
    assert rate(2.0, 1.0) > rate(2.0, 64.0) > rate(2.0, 4096.0)
    everything = touched(jnp.asarray(3.0), jnp.asarray(0.03), jnp.asarray(4.0))
    assert float(hit_rate(jnp.asarray(1.0), everything)) == pytest.approx(1)


def test_skew_helps_a_small_fast_tier():
    """With uneven popularity the experts of a full HBM serve more of the reads, so decoding is faster."""
    system = jc.add_tier(jc.load_system("h100-sxm-x8"), "host", "lpddr5x-8533", stacks=16)
    model = jc.load_model("deepseek-v3")
    plan = jc.Plan(tp=8, weight_bits=8, expert_bits=16)

    def tpot(skew):
        changed = jc.replace_at(model, "experts.skew", skew)
        return float(jc.evaluate(system, changed, jc.Traffic(batch=1), plan).tpot)

    assert tpot(4.0) < tpot(1.0) < tpot(0.0)
    # Main memory is filled to the brim, and rounding does not make it overflow.
    for prompt in range(1000, 1200, 7):
        report = jc.evaluate(system, model, jc.Traffic(batch=1, prompt=float(prompt)), plan)
        assert 0 <= float(report.margins.memory) < 1e-3
