"""Gradients: against finite differences in f64, signs, and finite over the whole catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.space_file import leaf_units
from jaxcost.explore.sweep import METRICS, design_metrics

VARIED = (
    "llama-3.1-8b",
    "mixtral-8x7b",
    "deepseek-v2-lite",
    "gpt-oss-20b",
    "mamba-2-2.7b",
    "llada-8b",
    "jamba-1.5-mini",
)


def design(model, tau=0.1, **plan):
    return jc.canonical(
        jc.Design(
            system=jc.load_system("h100-sxm-x16", efficiency="typical"),
            model=jc.load_model(model),
            traffic=jc.Traffic(prompt=1500, output=300, batch=24, ttft_target=2.0, tpot_target=0.05),
            plan=jc.Plan(tp=2, weight_bits=8, kv_bits=8, draft_length=2, **plan),
            prices=jc.Prices(),
            knobs=jc.Knobs(tau=tau),
        )
    )


def objective(d):
    # Tiers, engines near memory and cooling have gradients of their own in test_tiers.py.
    return jnp.sum(jnp.log(jnp.abs(design_metrics(d, METRICS, present=())) + 1e-3))


@pytest.fixture(scope="module")
def compiled():
    return jax.jit(jax.value_and_grad(objective))


def leaf(tree, path):
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


# Whole numbers that step: across a stair or a threshold differences say nothing of the slope on it.
STEPPED = (
    "bits", "plan.ep", "plan.tp", "plan.pp", "plan.dp", "plan.cp", "diffusion_block", "window", "width", "heads", "layers",
    "vocabulary", "experts.experts", "package_chips", "topology", "dimensions", "radix", "taper", "in_network", "knobs.tau", "absorb", "acceptance", "draft_length", "traffic.batch",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIED)
def test_equal_to_finite_differences(name, compiled):
    with jax.enable_x64(True):
        d = design(name)
        _, slopes = compiled(d)
        worst = 0.0
        for path in leaf_units(d):
            x = float(leaf(d, path))
            if x == 0 or any(word in path for word in STEPPED):
                continue
            step = 1e-5 * abs(x)
            up, down = (compiled(jc.replace_at(d, path, jnp.float64(x + s)))[0] for s in (step, -step))
            wanted = float(up - down) / (2 * step) * x
            found = float(leaf(slopes, path)) * x
            assert abs(found - wanted) < 1e-5 * max(1.0, abs(wanted)), (path, found, wanted)
            worst = max(worst, abs(found))
        assert worst > 0.1


def test_signs():
    d = design("llama-3.1-70b", tau=0.05)
    slope = jax.grad(lambda s: jc.evaluate(s, d.model, d.traffic, d.plan, knobs=d.knobs).tpot)(d.system)
    assert slope.chip.memory.bandwidth < 0
    assert slope.chip.compute.flops_16 < 0 or slope.chip.compute.flops_8 <= 0
    assert slope.fabric.scale_up.latency > 0
    assert slope.fabric.scale_up.bandwidth < 0
    assert slope.chip.efficiency.operator_overhead > 0
    assert slope.chip.price == 0


def test_forward_mode_equals_reverse_mode():
    d = design("mixtral-8x7b")
    direction = jax.tree.map(lambda x: 0.01 * x, d.system)
    f = lambda s: jc.evaluate(s, d.model, d.traffic, d.plan, knobs=d.knobs).tpot  # noqa: E731
    forward = jax.jvp(f, (d.system,), (direction,))[1]
    reverse = sum(
        jnp.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (jax.grad(f)(d.system), direction)), strict=True)
    )
    np.testing.assert_allclose(forward, reverse, rtol=1e-4)


@pytest.mark.slow
def test_finite_over_the_whole_catalogue():
    systems = jc.stack([jc.load_system(f"{c}-x8") for c in jc.list_names("chips")])
    models = jc.stack([jc.load_model(m) for m in jc.list_names("models")])
    base = jc.canonical((jc.Traffic(prompt=4096, output=512, batch=64), jc.Plan(tp=4, ep=2), jc.Prices()))

    def one(system, model, base, knobs):
        traffic, plan, prices = base
        return objective(
            jc.Design(system=system, model=model, traffic=traffic, plan=plan, prices=prices, knobs=knobs)
        )

    gradient = jax.value_and_grad(one, argnums=(0, 1))
    both = jax.jit(jax.vmap(jax.vmap(gradient, (None, 0, None, None)), (0, None, None, None)))
    for tau in (0.0, 0.05):
        for x in jax.tree.leaves(both(systems, models, base, jc.canonical(jc.Knobs(tau=tau)))):
            assert np.isfinite(x).all()
