"""What fits: gradients, batches, consistency with evaluations, and the fit inside sweeps and co-design."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.pytree import replace_at
from jaxcost.explore.serve import memory_fit

GIB = 2**30
MODELS = ("llama-3.1-8b", "gemma-3-27b", "gpt-oss-20b", "qwen3-next-80b-a3b", "deepseek-v3")
ENGINES = (
    "typical",
    "static",
    "none",
    "vllm-0.19",
    "vllm-0.33",
    "vllm-0.6",
    "sglang-0.5",
    "trtllm-1",
    "llamacpp",
)


def system(capacity=80.0, chips=8):
    """H100s with a round number of GiB."""
    return replace_at(jc.load_system(f"h100-sxm-x{chips}"), "chip.memory.capacity", capacity * GIB)


@functools.cache
def loaded(name):
    """A model in Python's numbers, for either precision."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(float, jc.load_model(name))


def engine(name, **changes):
    return jc.load_engine(name, "h100-sxm", **changes)


def fitted(
    *, model="llama-3.1-8b", name="vllm-0.19", capacity=80.0, context=8192.0, users=1.0, **degrees: Any
):
    plan = jc.Plan(engine=engine(name), **degrees)
    return jc.fit(system(capacity), loaded(model), plan, context=context, users=users)


SLOPES = {
    "capacity": lambda x: {"capacity": x},
    "kv_bits": lambda x: {"kv_bits": x},
    "weight_bits": lambda x: {"weight_bits": x},
}
AT = {"capacity": 80.0, "kv_bits": 8.0, "weight_bits": 16.0}


@pytest.mark.parametrize("leaf", SLOPES)
@pytest.mark.parametrize("name", ["typical", "vllm-0.19", "sglang-0.5"])
def test_gradients_are_central_differences(leaf, name):
    """Tokens and requests in capacity and bits, in double precision; the longest context by wide differences."""
    with jax.enable_x64(True):

        def values(x):
            fit = fitted(name=name, **SLOPES[leaf](x))
            return jnp.stack([fit.kv_tokens, fit.requests, fit.longest_context])

        slopes = jax.jit(jax.jacfwd(values))(AT[leaf])
        reverse = jax.jit(jax.jacrev(values))(AT[leaf])
        np.testing.assert_allclose(reverse, slopes, rtol=1e-9)
        small, wide = 1e-4, 0.02 * AT[leaf]
        for step, rows, tolerance in ((small, [0, 1], 1e-5), (wide, [2], 2e-3)):
            difference = (values(AT[leaf] + step) - values(AT[leaf] - step)) / (2 * step)
            np.testing.assert_allclose(slopes[np.array(rows)], difference[np.array(rows)], rtol=tolerance)
        assert np.all(np.abs(np.asarray(slopes)) > 0)


@pytest.mark.parametrize("degree", ["tp", "dp"])
def test_gradients_in_degrees(degree):
    """Replicas multiply what fits; of a split, the slope is that between degrees."""
    with jax.enable_x64(True):

        def tokens(x):
            return fitted(name="typical", **{degree: x}).kv_tokens

        slope = float(jax.jit(jax.grad(tokens))(2.0))
        if degree == "dp":
            assert slope == pytest.approx(float(tokens(2.0)) / 2, rel=1e-9)
        # Heads are whole at 2 and 4; between them their number jumps.
        assert slope == pytest.approx(float(tokens(4.0) - tokens(2.0)) / 2, rel=0.01)


def designs():
    """Mixed models and engines, with degrees that they allow."""
    made = []
    for index, (model, name) in enumerate((m, e) for m in MODELS for e in ENGINES):
        tp = (1.0, 2.0, 4.0)[index % 3]
        plan = jc.Plan(tp=tp, dp=2.0, kv_bits=8.0 + index % 9, engine=engine(name))
        made.append((system(60.0 + index), loaded(model), plan, 2048.0 * (1 + index % 7), 1.0 + index % 5))
    return made


def test_a_batch_equals_a_loop_and_compiles_once():
    made = designs()
    memory_fit._fit.jitted.clear_cache()
    stacked = jc.stack(made)

    def run(design):
        return jc.fit(design[0], design[1], design[2], context=design[3], users=design[4])

    together = jax.jit(run)(stacked)
    assert memory_fit._fit.jitted._cache_size() <= 1
    for index in range(0, len(made), 7):
        alone = run(jax.tree.map(lambda x: x, made[index]))
        for path, _, value in jc.rows(alone):
            same = float(np.asarray(getattr(together, path))[index])
            assert same == pytest.approx(float(value), rel=2e-5, abs=64.0 if "bytes" in path else 1.0), path


def test_single_and_double_precision_agree():
    for model, name in (
        ("llama-3.1-8b", "vllm-0.19"),
        ("gemma-3-27b", "sglang-0.5"),
        ("gpt-oss-20b", "llamacpp"),
    ):
        single = fitted(model=model, name=name)
        with jax.enable_x64(True):
            double = fitted(model=model, name=name)
            for path, _, value in jc.rows(double):
                assert float(getattr(single, path)) == pytest.approx(float(value), rel=1e-4), path


@pytest.mark.parametrize("name", ["typical", "none", "vllm-0.19", "sglang-0.5"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "gemma-3-27b", "qwen3-next-80b-a3b"])
def test_the_pool_is_that_of_an_evaluation(model, name):
    """`evaluate` with one request reports the same pool, requests and tokens."""
    plan = jc.Plan(tp=4.0, engine=engine(name))
    traffic = jc.Traffic(batch=1, prompt=16384, output=1024)
    report = jc.evaluate(system(), loaded(model), traffic, plan)
    fit = jc.fit(system(), loaded(model), plan, context=17408.0)
    assert float(fit.kv_bytes) == pytest.approx(float(report.pool.size), rel=1e-5)
    assert float(fit.requests) == pytest.approx(float(report.pool.requests), rel=1e-4)
    assert float(fit.kv_tokens) == pytest.approx(float(report.pool.kv_tokens), rel=1e-4)


@pytest.mark.slow
def test_the_largest_batch_is_whole_requests():
    plan = jc.Plan(engine=engine("typical"))
    traffic = jc.Traffic(prompt=16384, output=1024)
    fit = jc.fit(system(chips=1), loaded("llama-3.1-8b"), plan, context=17408.0)
    batch = jc.largest_batch(system(chips=1), loaded("llama-3.1-8b"), traffic, plan)
    assert float(batch) == np.floor(float(fit.requests))


@pytest.mark.parametrize("name", ENGINES)
def test_more_memory_fewer_bits_and_more_chips_hold_more(name):
    base = fitted(name=name)
    changes: list[dict[str, Any]] = [
        {"capacity": 90.0},
        {"kv_bits": 8.0},
        {"weight_bits": 8.0},
        {"tp": 2.0},
        {"dp": 2.0},
    ]
    for better in changes:
        more = fitted(name=name, **better)
        assert float(more.kv_tokens) > float(base.kv_tokens), better
        assert float(more.requests) > float(base.requests), better
        if "dp" not in better:
            assert float(more.longest_context) > float(base.longest_context), better
            assert float(more.memory_share) <= float(base.memory_share) * 1.02, better


@pytest.mark.parametrize("name", ENGINES)
def test_the_longest_context_fits_and_one_token_more_does_not(name):
    """At the longest context the users fit; with a page more they do not. The stated share just suffices."""
    users = 5.0
    plan = jc.Plan(engine=engine(name))
    with jax.enable_x64(True):
        run = functools.partial(jc.fit, system(), loaded("gemma-3-27b"), plan, users=users)
        longest = float(run(context=8192.0).longest_context)
        page = float(plan.engine.block)
        inside, outside = run(context=longest), run(context=longest + page)
        assert longest > 1000
        assert float(inside.requests) >= users * (1 - 1e-9)
        assert float(outside.requests) < users


@pytest.mark.parametrize("name", ["typical", "vllm-0.19", "vllm-0.33", "trtllm-1"])
def test_the_share_that_is_needed_holds_the_users(name):
    with jax.enable_x64(True):
        asked = fitted(name=name, users=20.0)
        share = float(asked.memory_share)
        assert 0 < share < 1
        plan = jc.Plan(engine=engine(name, memory_share=share))
        fit = jc.fit(system(), loaded("llama-3.1-8b"), plan, context=8192.0)
        assert float(fit.requests) == pytest.approx(20.0, rel=1e-6)


def test_measured_bytes_take_the_place_of_computed_ones():
    """A boot log of llama-3.1-8b on an H100: 14.99, 1.89 and 0.25 GiB leave 58.11 GiB, 476,016 tokens."""
    sizes = {"weights_bytes": 14.99 * GIB, "activation_bytes": 1.89 * GIB, "reserved_bytes": 0.25 * GIB}
    plan = jc.Plan(engine=engine("vllm-0.19", memory_share=0.95))
    run = functools.partial(jc.fit, system(79.19), loaded("llama-3.1-8b"), plan)
    fit = run(measured=sizes)
    assert float(fit.kv_bytes) / GIB == pytest.approx(58.10, abs=0.01)
    assert float(fit.kv_tokens) == pytest.approx(476_016, rel=2e-4)
    slope = jax.grad(lambda x: run(measured={**sizes, "weights_bytes": x}).kv_bytes)(14.99 * GIB)
    assert float(slope) == pytest.approx(-1.0)
    with pytest.raises(ValueError, match="no measured kv_bytes"):
        run(measured={"kv_bytes": 1.0})


def test_nothing_fits_without_negative_requests():
    fit = fitted(model="gemma-3-27b", capacity=40.0)
    assert float(fit.kv_bytes) < 0
    assert (float(fit.requests), float(fit.kv_tokens), float(fit.longest_context)) == (0, 0, 0)


def test_the_fewest_chips_are_found():
    """Weights of 141 GB need two H100s; a count below the users is refused."""
    plan = jc.Plan(engine=engine("vllm-0.19"))
    model = loaded("llama-3.1-70b")
    count = jc.count_chips(system(chips=8), model, plan, users=50.0)
    chips = float(count.chips)
    assert chips >= 4
    held = jc.fit(system(chips=8), model, count.plan, users=50.0)
    assert float(held.requests) == pytest.approx(float(count.requests), rel=1e-5)
    assert float(count.requests) >= 50
    half = jc.count_chips(system(chips=8), model, plan, users=1.0)
    assert float(half.chips) <= chips
    none = jc.count_chips(system(1.0), model, plan, users=1.0)
    assert float(none.chips) == 0


@pytest.mark.slow
def test_a_sweep_with_a_number_of_requests_that_must_fit():
    """At least 64 requests of 32k tokens: four H100s for an 8B model."""
    base = jc.Design(
        system=jc.stack([system()]),
        model=jc.stack([loaded("llama-3.1-8b")]),
        traffic=jc.Traffic(batch=1, prompt=32000, output=768),
        plan=jc.Plan(engine=engine("vllm-0.19")),
    )
    space = jc.Space(
        base=jc.canonical(base),
        axes=(jc.Axis(path="plan.tp", values=jnp.asarray([1.0, 2.0, 4.0, 8.0])),),
        systems=("h100",),
        models=("llama",),
    )
    enough = jc.Constraint("pool.requests", low=64.0)
    result = jc.sweep(space, reduce={"few": jc.TopK("tokens_per_second", 4, where=(enough,))})
    kept = sorted(int(i) for i in result["few"].index)
    requests = [
        float(
            jc.fit(
                system(), loaded("llama-3.1-8b"), jc.Plan(tp=tp, engine=engine("vllm-0.19")), context=32768.0
            ).requests
        )
        for tp in (1.0, 2.0, 4.0, 8.0)
    ]
    assert kept == [i for i, count in enumerate(requests) if count >= 64]
    assert 0 < len(kept) < 4


@pytest.mark.slow
def test_co_design_of_the_memory_for_a_number_of_requests():
    """The least capacity for 64 requests of 32k tokens, by gradient through `jc.fit`, is that of the closed form."""
    path, plan = "system.chip.memory.capacity", jc.Plan(engine=engine("vllm-0.19"))

    def evaluation(design):
        fit = jc.fit(design.system, design.model, design.plan, context=32768.0)
        return jnp.stack([design.system.chip.memory.capacity, fit.requests])

    base = jc.Design(
        system=jc.stack([system(chips=1)]),
        model=jc.stack([loaded("llama-3.1-8b")]),
        traffic=jc.Traffic(batch=1.0),
        plan=plan,
    )
    space = jc.Space(
        base=jc.canonical(base),
        axes=(jc.sample(jc.log_range(path, 40e9, 2000e9), count=16),),
        systems=("h100",),
        models=("llama",),
    )
    result = jc.codesign(
        space,
        "tpot",
        (jc.Constraint("pool.requests", low=64.0),),
        evaluation=evaluation,
        metrics=("tpot", "pool.requests"),
        starts=2,
    )
    fit = fitted(context=32768.0)
    fixed = float(fit.weights_bytes + fit.activation_bytes + fit.reserved_bytes)
    assert result.value == pytest.approx((64 * float(fit.request_bytes) + fixed) / 0.9, rel=1e-3)
