"""The package against the oracle: 600 random designs over the whole catalogue, every quantity, f64 to 1e-12."""

import jax
import numpy as np
import pytest

import jaxcost as jc
from tests import oracle

CASES = 600
MODELS = jc.list_names("models")
CHIPS = jc.list_names("chips")


def random_case(rng):
    model = jc.load_model(str(rng.choice(MODELS)))
    chips = int(rng.choice([1, 2, 8, 16, 64]))
    efficiency = str(rng.choice(["ideal", "typical"]))
    system = jc.load_system(f"{rng.choice(CHIPS)}-x{chips}", efficiency=efficiency)
    pick = lambda *options: float(rng.choice(options))  # noqa: E731
    traffic = jc.Traffic(
        prompt=float(rng.integers(1, 20000)),
        output=float(rng.integers(2, 3000)),
        batch=float(rng.integers(1, 400)),
        prefix_hit=pick(0, 0, 0.25, 0.9),
        retrieved=pick(0, 0, 1000, 50000),
        encoder_tokens=pick(0, 0, 256, 576),
        ttft_target=pick(0, 2.0),
        tpot_target=pick(0, 0.05),
    )
    plan = jc.Plan(
        tp=pick(1, 2, 3, 4, 8, 16),
        pp=pick(1, 1, 2, 4),
        dp=pick(1, 1, 2, 3),
        cp=pick(1, 1, 2),
        ep=pick(1, 1, 2, 8, 32),
        weight_bits=pick(16, 8, 4.25, 1.6),
        expert_bits=pick(16, 8, 6.25, 4.25),
        kv_bits=pick(16, 8, 4.5),
        activation_bits=pick(16, 8, 32),
        weight_sparsity=pick(0, 0, 0.5),
        activation_sparsity=pick(0, 0, 0.9),
        draft_length=pick(0, 0, 1, 4),
        acceptance=pick(0.6, 0.9),
        draft_parameters=pick(0, 1e9),
        chunk=pick(0, 0, 512, 4096),
        absorb_prefill=pick(0, 1),
        absorb_decode=pick(0, 1),
    )
    skew = pick(0, 0, 0.5, 2.0)
    model = jc.replace_at(model, "experts.skew", skew)
    return system, model, traffic, plan


def flat(report):
    out = {}
    for path, _, value in jc.rows(report):
        out[path] = float(value)
    return out


def compare(case, rtol, atol=0.0):
    found = flat(jc.evaluate(*case, prices=jc.canonical(jc.Prices())))
    numbers = jax.tree.map(float, (*case, jc.Prices()))
    for path, wanted in oracle.evaluate(*numbers).items():
        # A margin is a difference from 1: its error is to be judged against 1 and against what is subtracted.
        scale = max(1.0, abs(1 - wanted)) if path.startswith("margins.") else abs(wanted)
        assert abs(found[path] - wanted) <= rtol * scale + atol, (path, found[path], wanted)


@pytest.mark.slow
def test_agrees_in_f64():
    with jax.enable_x64(True):
        rng = np.random.default_rng(2026)
        for _ in range(CASES):
            compare(jc.canonical(random_case(rng), np.float64), rtol=1e-12)


def test_agrees_in_f32():
    rng = np.random.default_rng(7)
    for _ in range(40):
        compare(jc.canonical(random_case(rng), np.float32), rtol=2e-4, atol=1e-12)


def test_the_oracle_can_disagree():
    rng = np.random.default_rng(1)
    case = jc.canonical(random_case(rng))
    wrong = (jc.replace_at(case[0], "chip.memory.bandwidth", case[0].chip.memory.bandwidth * 1.01), *case[1:])
    found = flat(jc.evaluate(*wrong))
    wanted = oracle.evaluate(*jax.tree.map(float, (*case, jc.Prices())))
    assert any(abs(found[k] - v) > 1e-3 * abs(v) for k, v in wanted.items() if v)
