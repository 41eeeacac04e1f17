"""Gradients: against finite differences in f64, signs, and finite over the whole catalogue."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.studies.space_file import leaf_units
from jaxcost.explore.sweep.run import METRICS, design_metrics
from tests.batched import evaluate_stacked, load_model, load_system, program, run, stacked

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
    return jc.Design(
        system=jc.replace(load_system("h100-sxm", "typical"), chips=16.0),
        model=load_model(model),
        traffic=jc.Traffic(prompt=1500, output=300, batch=24, ttft_target=2.0, tpot_target=0.05),
        plan=jc.Plan(tp=2, weight_bits=8, kv_bits=8, draft_length=2, **plan),
        prices=jc.Prices(),
        knobs=jc.Knobs(tau=tau),
    )


def objective(d):
    # Tiers, engines near memory and cooling have gradients of their own in test_tiers.py.
    return jnp.sum(jnp.log(jnp.abs(design_metrics(d, METRICS, features=("pages",))) + 1e-3))


def leaf(tree, path):
    for name in path.split("."):
        tree = getattr(tree, name)
    return tree


# Whole numbers that step: across a stair or a threshold differences say nothing of the slope on it.
STEPPED = (
    "bits", "plan.ep", "plan.tp", "plan.pp", "plan.dp", "plan.cp", "diffusion_block", "window", "feed_forward.width", "experts.width", "shared_width", "heads", "layers",
    "vocabulary", "experts.experts", "package_chips", "topology", "dimensions", "radix", "taper", "in_network", "knobs.tau", "absorb", "acceptance", "draft_length", "traffic.batch",
    "engine.block",
)  # fmt: skip


def parts(d):
    return d.system, d.model, d.traffic, d.plan, d.prices, d.knobs


def test_equal_to_finite_differences():
    bases = [design(name) for name in VARIED]
    with jax.enable_x64(True):
        slopes = run(jax.grad(objective), stacked(bases, np.float64))
    moves, moved = [], []
    for i, base in enumerate(bases):
        for path in leaf_units(base):
            x = float(leaf(base, path))
            if x == 0 or any(word in path for word in STEPPED):
                continue
            step = 1e-5 * abs(x)
            moves.append((i, path, x, step))
            moved += [parts(jc.replace_at(base, path, x + s)) for s in (step, -step)]
    report = evaluate_stacked(stacked(moved, np.float64))
    values = np.log(np.abs([report[name] for name in METRICS]) + 1e-3).sum(0)
    worst = np.zeros(len(bases))
    for (i, path, x, step), up, down in zip(moves, values[::2], values[1::2], strict=True):
        wanted = (up - down) / (2 * step) * x
        found = leaf(slopes, path)[i] * x
        assert abs(found - wanted) < 1e-5 * max(1.0, abs(wanted)), (VARIED[i], path, found, wanted)
        worst[i] = max(worst[i], abs(found))
    assert len(moves) > 100 * len(bases) and (worst > 0.1).all()


def tpot(system, others):
    return jc.evaluate(system, others.model, others.traffic, others.plan, knobs=others.knobs).tpot


@pytest.fixture(scope="module")
def slope():
    """Gradient of TPOT in the system of one design, in f32."""
    d = jc.canonical(design("mixtral-8x7b"))
    traced = program(jax.grad(tpot), d.system, d)
    return lambda d: traced(d.system, d)


def test_signs(slope):
    s = slope(jc.canonical(design("llama-3.1-70b", tau=0.05)))
    assert s.chip.memory.bandwidth < 0
    assert s.chip.compute.flops_16 < 0 or s.chip.compute.flops_8 <= 0
    assert s.fabric.scale_up.latency > 0
    assert s.fabric.scale_up.bandwidth < 0
    assert s.chip.efficiency.operator_overhead > 0
    assert s.chip.price == 0


def test_forward_mode_equals_reverse_mode(slope):
    d = jc.canonical(design("mixtral-8x7b"))
    direction = jax.tree.map(lambda x: 0.01 * x, d.system)
    forward = run(lambda s, v, d: jax.jvp(lambda x: tpot(x, d), (s,), (v,))[1], d.system, direction, d)
    reverse = sum(np.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (slope(d), direction)), strict=True))
    np.testing.assert_allclose(forward, reverse, rtol=1e-4)


def test_finite_over_the_whole_catalogue():
    chips, models = jc.list_names("chips"), jc.list_names("models")
    systems = stacked([load_system(name, "ideal") for name in chips], np.float32)
    base = jc.Design(
        system=jax.tree.map(lambda x: np.repeat(x, len(models)), systems),
        model=jax.tree.map(
            lambda x: np.tile(x, len(chips)), stacked([load_model(m) for m in models], np.float32)
        ),
        **jc.canonical(
            {
                "traffic": jc.Traffic(prompt=4096, output=512, batch=64),
                "plan": jc.Plan(tp=4, ep=2),
                "prices": jc.Prices(),
                "knobs": jc.Knobs(),
            }
        ),
    )
    gradient = program(
        lambda system, model, d: jax.value_and_grad(
            lambda *moved: objective(jc.replace(d, system=moved[0], model=moved[1])), argnums=(0, 1)
        )(system, model),
        base.system,
        base.model,
        base,
    )
    for tau in (0.0, 0.05):
        d = jc.replace(base, knobs=jc.canonical(jc.Knobs(tau=tau)))
        for x in jax.tree.leaves(gradient(d.system, d.model, d)):
            assert np.isfinite(x).all()
