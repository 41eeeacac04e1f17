"""What each trend of inference stresses, and each direction of hardware relieves: Table 1 of arXiv:2601.05047.

As signs of partial derivatives at small batch: of the time per token by resources, of the bytes held by the trend.
"""

import jax
import jax.numpy as jnp
import pytest

import jaxcost as jc
from jaxcost.core.program import program
from jaxcost.evaluation import evaluate as evaluate_plan

SYSTEM = jc.canonical(jc.load_system("h100-sxm-x8"))
PLAN = jc.Plan(tp=8)
DENSE, MOE, VISION, DIFFUSION = "llama-3.1-70b", "mixtral-8x7b", "gemma-3-27b", "llada-8b"
# Trend: model, traffic, and the number that grows with it.
TRENDS = {
    "mixture of experts": (MOE, {"prompt": 1000, "output": 200}, "model.experts.experts"),
    "reasoning": (DENSE, {"prompt": 1000, "output": 20000}, "traffic.output"),
    "multimodal": (VISION, {"prompt": 1000, "output": 200, "encoder_tokens": 2000}, "traffic.encoder_tokens"),
    "long context": (DENSE, {"prompt": 100000, "output": 200}, "traffic.prompt"),
    "retrieval": (DENSE, {"prompt": 1000, "output": 200, "retrieved": 50000}, "traffic.retrieved"),
}


@program
def slopes(system, model, traffic):
    """Logarithmic slopes of the time per token, and slopes of the bytes held, in everything."""
    design = {"system": system, "model": model, "traffic": traffic}

    def both(d):
        report = evaluate_plan(d["system"], d["model"], d["traffic"], PLAN, features=())
        return jnp.stack([jnp.log(report.tpot), report.memory.used / 1e9])

    value, pull = jax.vjp(both, design)
    time, bytes_ = (pull(jnp.eye(2, dtype=value.dtype)[k])[0] for k in (0, 1))
    elastic = jax.tree.map(lambda s, x: s * x, time, design)
    return elastic, time, bytes_


def of(name, traffic):
    model = jc.canonical(jc.load_model(name))
    if name == DIFFUSION:
        # One denoising step a token: a block's FLOPs for every read of the weights.
        model = jc.replace_at(model, "diffusion_block", jnp.float32(512))
    return slopes(SYSTEM, model, jc.canonical(jc.Traffic(batch=1, **traffic)))


def at(tree, path):
    head, _, rest = path.partition(".")
    tree = tree[head]
    for name in rest.split("."):
        tree = getattr(tree, name)
    return float(tree)


BANDWIDTH, LATENCY = "system.chip.memory.bandwidth", "system.fabric.scale_up.overhead"
COMPUTE = ("flops_16", "vector_flops", "exponentials")


def compute_share(elastic):
    return -sum(at(elastic, f"system.chip.compute.{name}") for name in COMPUTE)


def test_conventional_decode_stresses_bandwidth_and_interconnect_latency():
    elastic, _, _ = of(DENSE, {"prompt": 1000, "output": 200})
    assert at(elastic, BANDWIDTH) < -0.5
    assert at(elastic, LATENCY) > 0.01
    assert abs(compute_share(elastic)) < 0.01


@pytest.mark.parametrize("trend", TRENDS)
def test_trends_stress_capacity_and_bandwidth_and_not_compute(trend):
    model, traffic, grows = TRENDS[trend]
    elastic, time, held = of(model, traffic)
    assert at(held, grows) > 0  # capacity
    assert at(elastic, BANDWIDTH) < -0.4  # bandwidth binds ..
    if trend != "mixture of experts":
        assert at(time, grows) > 0  # .. and more of it is needed
    assert abs(compute_share(elastic)) < 0.02


def test_experts_stress_the_interconnect():
    """More chips to hold the experts, and an exchange of tokens a layer: the latency's share grows with both."""
    model = jc.canonical(jc.load_model("deepseek-v3"))
    traffic = jc.canonical(jc.Traffic(prompt=1000, output=200, batch=64))

    def share(chips):
        system = jc.load_system(f"h100-sxm-x{chips}")
        plan = jc.Plan(tp=8, dp=chips // 8, ep=chips, expert_bits=8, weight_bits=8)
        decode = jax.device_get(jc.evaluate(system, model, traffic, plan)).decode
        return sum(float(row.network) for row in decode.rows) / float(decode.total)

    assert share(8) < share(32)


def test_diffusion_alone_stresses_compute():
    elastic, _, _ = of(DIFFUSION, {"prompt": 1000, "output": 512})
    assert compute_share(elastic) > 0.3
    assert abs(at(elastic, BANDWIDTH)) < 0.6


def test_directions_relieve_what_they_should():
    """Flash relieves capacity; engines near memory and stacking bandwidth; a low-latency fabric latency."""
    model, traffic = jc.load_model("deepseek-v3"), jc.Traffic(prompt=1000, output=200, batch=1)
    plan = jc.Plan(tp=8, weight_bits=8, expert_bits=8)
    base = jc.load_system("h100-sxm-x8")
    report = lambda s: jax.device_get(jc.evaluate(s, model, traffic, plan))  # noqa: E731
    plain, flash = report(base), report(jc.add_tier(base, "hbf", "hbf", stacks=2))
    assert float(plain.margins.memory) < 0 < float(flash.margins.memory)
    near = report(jc.add_near(base, "memory", "attacc-bank"))
    assert float(near.tpot) < 0.8 * float(plain.tpot)
    quick = jc.replace_at(base, "fabric.scale_up.overhead", base.fabric.scale_up.overhead / 10)
    quick = jc.replace_at(quick, "fabric.scale_up.launch", base.fabric.scale_up.launch / 10)
    assert float(report(quick).tpot) < float(plain.tpot)
    stacked = jc.replace_at(base, "chip.stacking", jc.Stacking(bond_density=1e10, bond_rate=2e9, area=8e-4))
    slope = program(jax.grad(lambda s: jc.evaluate(s, model, traffic, plan).tpot))(jc.canonical(stacked))
    for knob in ("bond_density", "bond_rate", "area", "bond_yield"):
        assert float(getattr(slope.chip.stacking, knob)) < 0
