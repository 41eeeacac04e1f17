"""What must hold of every design, whatever its numbers: monotony, sums, units, and limits that are known exactly."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcost as jc
from jaxcost.core.pytree import rows
from jaxcost.edge.space_file import leaf_units
from jaxcost.physics.ops import distinct_experts
from jaxcost.physics.roofline import LEGS
from tests.test_oracle import random_case

ROUNDING = 1e-11
cases = st.integers(0, 2**32 - 1).map(lambda seed: random_case(np.random.default_rng(seed)))
taus = st.sampled_from([0.0, 0.05, 0.3])
few = settings(max_examples=40, deadline=None, derandomize=True)

RESOURCES = (
    "chip.compute.flops_32",
    "chip.compute.flops_16",
    "chip.compute.flops_8",
    "chip.compute.flops_6",
    "chip.compute.flops_4",
    "chip.compute.vector_flops",
    "chip.compute.exponentials",
    "chip.memory.bandwidth",
    "chip.efficiency.matmul",
    "chip.efficiency.vector",
    "chip.efficiency.memory",
    "chip.efficiency.link",
    "fabric.scale_up.bandwidth",
    "fabric.scale_out.bandwidth",
)
COSTS = (
    "chip.efficiency.operator_overhead",
    "fabric.scale_up.latency",
    "fabric.scale_out.latency",
    "chip.energy_per_flop",
    "chip.energy_per_vector_flop",
    "chip.energy_per_exponential",
    "chip.on_chip_energy_per_byte",
    "chip.memory.energy_per_byte",
    "chip.idle_power",
    "chip.price",
    "chip.die_area",
    "host.price",
    "host.power",
    "host.carbon",
)
TOTALS = ("ttft", "tpot", "latency", "batch_seconds", "joules_per_token", "usd_per_mtok", "gco2e_per_mtok")


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def evaluate(case, tau=0.0, prices=None):
    case = jc.canonical(case, np.float64)
    prices = jc.canonical(prices or jc.Prices(), np.float64)
    return jc.evaluate(*case, prices=prices, knobs=jc.canonical(jc.Knobs(tau=tau), np.float64))


def scaled(tree, path, factor):
    value = tree
    for name in path.split("."):
        value = getattr(value, name)
    return jc.replace_at(tree, path, value * factor)


def no_larger(a, b):
    return float(a) <= float(b) * (1 + ROUNDING)


# --- monotony ---


@few
@given(cases, st.sampled_from(RESOURCES), st.floats(1.01, 10), taus)
def test_more_of_a_resource_is_never_slower(case, path, factor, tau):
    system, *rest = case
    before, after = (evaluate((s, *rest), tau) for s in (system, scaled(system, path, factor)))
    for name in ("ttft", "tpot", "latency", "batch_seconds", "joules_per_token"):
        assert no_larger(getattr(after, name), getattr(before, name)), name


@few
@given(cases, st.sampled_from(COSTS), st.floats(1.01, 10), taus)
def test_what_costs_more_is_never_cheaper(case, path, factor, tau):
    system, *rest = case
    before, after = (evaluate((s, *rest), tau) for s in (system, scaled(system, path, factor)))
    for name in TOTALS:
        assert no_larger(getattr(before, name), getattr(after, name)), name


@few
@given(cases, st.integers(2, 5), st.sampled_from(["batch", "output", "prompt", "retrieved"]))
def test_more_work_takes_longer(case, factor, what):
    system, model, traffic, plan = case
    before, after = (evaluate((system, model, t, plan)) for t in (traffic, scaled(traffic, what, factor)))
    assert no_larger(before.batch_seconds, after.batch_seconds)
    assert no_larger(before.memory.kv, after.memory.kv)


@few
@given(cases, st.sampled_from(["weight_bits", "expert_bits", "kv_bits"]))
def test_fewer_bits_take_less_memory_and_no_more_time_to_read(case, what):
    system, model, traffic, plan = case
    before, after = (evaluate((system, model, traffic, p)) for p in (plan, scaled(plan, what, 0.5)))
    assert no_larger(after.memory.used, before.memory.used)
    for a, b in zip(after.decode.rows, before.decode.rows, strict=True):
        assert no_larger(a.memory, b.memory)


@few
@given(cases, st.floats(0, 0.5), st.floats(0.5, 1))
def test_a_cached_prefix_saves_prefill_and_holds_the_same_cache(case, less, more):
    system, model, traffic, plan = case
    before, after = (
        evaluate((system, model, jc.replace(traffic, prefix_hit=hit), jc.replace(plan, chunk=0.0)))
        for hit in (less, more)
    )
    assert no_larger(after.ttft, before.ttft)
    assert float(after.memory.kv) == float(before.memory.kv)


# --- sums ---


@few
@given(cases, taus)
def test_an_operator_takes_its_longest_leg_at_least_and_all_of_them_at_most(case, tau):
    report, overhead = evaluate(case, tau), float(case[0].chip.efficiency.operator_overhead)
    for step in (report.prefill, report.decode):
        for row in step.rows:
            legs = [float(getattr(row, leg)) for leg in LEGS]
            assert no_larger(max(legs), row.seconds)
            if overhead == 0:
                assert no_larger(row.seconds, sum(legs))
        assert 0 <= float(step.hidden) <= min(sum(legs) for legs in _work_and_messages(step)) * (1 + 1e-9)
        rows = sum(float(row.seconds) for row in step.rows)
        assert float(step.total) == pytest.approx(rows - float(step.hidden), rel=1e-12)


def _work_and_messages(step):
    for messages in (False, True):
        yield [float(row.seconds) for row in step.rows if (float(row.network) > 0) == messages]


@few
@given(cases)
def test_totals_are_the_sums_of_their_parts(case):
    report = evaluate(case)
    for tree, total in (
        (report.memory, report.memory.used),
        (report.energy, report.joules_per_token),
        (report.usd, report.usd_per_mtok),
        (report.carbon, report.gco2e_per_mtok),
    ):
        parts = [float(x) for x in jax.tree.leaves(tree)]
        # A chip may be sold below what its parts come to.
        assert sum(x < 0 for x in parts) <= (tree is report.usd and float(report.usd.margin) < 0)
        assert float(total) == pytest.approx(sum(parts), rel=1e-12)
    assert float(report.average_power) == pytest.approx(
        float(report.joules_per_token * report.tokens_per_second), rel=1e-12
    )


# --- units: results are what their units say, so larger units of measure give smaller numbers throughout ---

BASE = ("s", "J", "USD", "kg", "m")
COMPOUND = {"W": {"J": 1, "s": -1}, "g": {"kg": 1}}


def exponents(unit):
    """Powers of the base units in a unit such as "USD/W" or "kg/m^2"."""
    powers = dict.fromkeys(BASE, 0)
    for side, sign in zip(unit.split("/"), (1, -1), strict=False):
        for factor in side.split("*"):
            name, _, power = factor.partition("^")
            for base, p in COMPOUND.get(name, {name: 1}).items():
                if base in powers:
                    powers[base] += sign * p * int(power or 1)
    return powers


def in_units(tree, base, size):
    """The same design, measured in units of `base` that are `size` times as small."""
    units = [size ** exponents(unit)[base] for unit in leaf_units(tree).values()]
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [x * u for x, u in zip(leaves, units, strict=True)])


@few
@given(cases, st.sampled_from(BASE), st.floats(0.01, 100), taus)
def test_every_result_scales_as_its_unit_says(case, base, size, tau):
    before = evaluate(case, tau)
    changed = [in_units(tree, base, size) for tree in case]
    after = evaluate(changed, tau, in_units(jc.Prices(), base, size))
    for (path, unit, a), (_, _, b) in zip(rows(before), rows(after), strict=True):
        expected = float(a) * size ** exponents(unit)[base]
        assert float(b) == pytest.approx(expected, rel=1e-9, abs=1e-12), path


# --- known limits ---


@few
@given(cases)
def test_one_chip_sends_nothing(case):
    system, model, traffic, plan = case
    alone = jc.replace(plan, tp=1.0, pp=1.0, cp=1.0, ep=1.0, dp=1.0)
    report = evaluate((system, model, traffic, alone))
    assert float(report.energy.network) == 0
    assert all(float(row.network) == 0 for step in (report.prefill, report.decode) for row in step.rows)


@few
@given(
    st.sampled_from(["llama-3.1-8b", "gemma-2-9b", "opt-66b"]),
    st.integers(1, 300),
    st.sampled_from([1, 4, 8]),
)
def test_one_expert_is_a_dense_layer(name, batch, tp):
    dense = jc.load_model(name)
    f = dense.feed_forward
    one = jc.replace(
        dense,
        feed_forward=jc.replace(f, layers=0.0),
        experts=jc.replace(
            dense.experts, layers=f.layers, experts=1.0, top_k=1.0, width=f.width, matrices=f.matrices
        ),
    )
    system, traffic, plan = jc.load_system("h100-sxm-x8"), jc.Traffic(batch=batch), jc.Plan(tp=tp)
    a, b = (evaluate((system, m, traffic, plan)) for m in (dense, one))
    for step in ("prefill", "decode"):
        x, y = (getattr(r, step) for r in (a, b))
        feed_forward, routed = x.rows[x.names.index("feed_forward")], y.rows[y.names.index("routed_experts")]
        for leg in (*LEGS, "seconds"):
            assert float(getattr(routed, leg)) == pytest.approx(float(getattr(feed_forward, leg)), rel=1e-9)
    assert float(a.memory.used) == pytest.approx(float(b.memory.used), rel=1e-3)


@few
@given(cases, st.floats(1, 4))
def test_a_window_as_long_as_the_context_is_full_attention(case, spare):
    system, model, traffic, plan = case
    a = model.attention
    longest = float(traffic.prompt + traffic.retrieved + traffic.encoder_tokens + traffic.output) * spare + 64
    full = jc.replace(
        model, attention=jc.replace(a, full_layers=a.full_layers + a.window_layers, window_layers=0.0)
    )
    windowed = jc.replace(
        model,
        attention=jc.replace(
            a, full_layers=0.0, window_layers=a.full_layers + a.window_layers, window=longest
        ),
    )
    x, y = (evaluate((system, m, traffic, plan)) for m in (full, windowed))
    for name in TOTALS:
        assert float(getattr(y, name)) == pytest.approx(float(getattr(x, name)), rel=1e-9), name
    assert float(y.memory.kv) == pytest.approx(float(x.memory.kv), rel=1e-12)


@few
@given(st.floats(0, 1), st.integers(0, 8))
def test_speculation_yields_between_one_and_all_tokens(acceptance, draft):
    case = (jc.load_system("h100-sxm-x8"), jc.load_model("llama-3.1-8b"), jc.Traffic(), jc.Plan())
    plan = jc.replace(case[3], draft_length=draft, acceptance=acceptance)
    tokens = float(evaluate((*case[:3], plan)).schedule.tokens_per_step)
    assert tokens == pytest.approx(sum(max(acceptance, 1e-6) ** i for i in range(draft + 1)), rel=1e-9)
    assert 1 <= tokens * (1 + ROUNDING) and no_larger(tokens, draft + 1)


def test_main_memory_at_rest_draws_its_power_whatever_else_a_chip_has():
    """Not only where it has engines, or where tracing cannot tell."""
    system = jc.add_tier(jc.load_system("h100-sxm"), "memory", "hbm4", stacks=5)
    report = jc.evaluate(system, jc.load_model("llama-3.1-8b"), jc.Traffic(), jc.Plan())
    power = system.chip.idle_power + system.chip.memory.idle_power
    assert float(system.chip.memory.idle_power) == pytest.approx(35)
    assert float(report.energy.idle * report.tokens_per_second) == pytest.approx(float(power), rel=1e-5)


def simulated_experts(rng, experts, top_k, tokens, skew, repeats=60):
    """Distinct experts of a batch: popularity Gamma-distributed, top-k without replacement by Gumbel noise."""
    found = []
    for _ in range(repeats):
        popularity = rng.gamma(1 / skew, skew, experts) if skew else np.ones(experts)
        keys = np.log(popularity + 1e-300) + rng.gumbel(size=(tokens, experts))
        found.append(len(np.unique(np.argsort(keys, axis=1)[:, -top_k:])))
    return np.mean(found)


@pytest.mark.parametrize(("experts", "top_k"), [(8, 2), (64, 6), (256, 8)])
@pytest.mark.parametrize("tokens", [1, 4, 16, 64, 256])
@pytest.mark.parametrize(("skew", "tolerance"), [(0.0, 0.02), (0.3, 0.05), (1.0, 0.12)])
def test_distinct_experts_against_a_simulation(experts, top_k, tokens, skew, tolerance):
    # The formula with skew is a closed form for rates, and the simulation draws without replacement: they differ.
    rng = np.random.default_rng(0)
    found = float(distinct_experts(float(experts), float(top_k), float(tokens), skew))
    assert found == pytest.approx(simulated_experts(rng, experts, top_k, tokens, skew), rel=tolerance)
