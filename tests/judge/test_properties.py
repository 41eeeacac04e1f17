"""What must hold of every design, whatever its numbers: monotony, sums, units, and limits that are known exactly."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxcost as jc
from jaxcost.edge.studies.space_file import leaf_units
from jaxcost.physics.compute.operators import distinct_experts
from tests.batched import UNITS, evaluate, load_model, load_system, operators
from tests.judge.test_oracle import random_case

ROUNDING = 1e-11
LEGS = ("matmul", "vector", "exponential", "memory", "network", "near")
STEPS = ("prefill", "decode")
cases = st.integers(0, 2**32 - 1)  # seeds of random cases
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


def examples(*strategies):
    """Draw the examples of a property, to be evaluated together: what each strategy gave, in columns."""
    drawn = []

    @few
    @given(st.tuples(*strategies))
    def draw(example):
        drawn.append(example)

    draw()
    return tuple(zip(*drawn, strict=True))


def random_cases(seeds):
    return [random_case(np.random.default_rng(seed)) for seed in seeds]


def holds(condition, *drawn, what=""):
    """Assert a condition of every example, and say which it does not hold of."""
    broken = np.flatnonzero(~np.asarray(condition))
    assert not broken.size, (what, broken.size, [column[broken[0]] for column in drawn])


def scaled(tree, path, factor):
    value = tree
    for name in path.split("."):
        value = getattr(value, name)
    return jc.replace_at(tree, path, value * factor)


def changed(cases, number, change):
    """Change part `number` (system, model, traffic, plan) of every case: `change(part, index)`."""
    return [(*case[:number], change(case[number], i), *case[number + 1 :]) for i, case in enumerate(cases)]


def no_larger(a, b):
    return a <= b * (1 + ROUNDING)


def close(a, b, rel):
    return abs(a - b) <= np.maximum(rel * abs(b), 1e-12)


# --- monotony ---


def test_more_of_a_resource_is_never_slower():
    seeds, paths, factors, tau = drawn = examples(
        cases, st.sampled_from(RESOURCES), st.floats(1.01, 10), taus
    )
    designs = random_cases(seeds)
    before = evaluate(designs, tau)
    after = evaluate(changed(designs, 0, lambda s, i: scaled(s, paths[i], factors[i])), tau)
    for name in ("ttft", "tpot", "latency", "batch_seconds", "joules_per_token"):
        holds(no_larger(after[name], before[name]), *drawn, what=name)


def test_what_costs_more_is_never_cheaper():
    seeds, paths, factors, tau = drawn = examples(cases, st.sampled_from(COSTS), st.floats(1.01, 10), taus)
    designs = random_cases(seeds)
    before = evaluate(designs, tau)
    after = evaluate(changed(designs, 0, lambda s, i: scaled(s, paths[i], factors[i])), tau)
    for name in TOTALS:
        holds(no_larger(before[name], after[name]), *drawn, what=name)


def test_more_work_takes_longer():
    what = st.sampled_from(["batch", "output", "prompt", "retrieved"])
    seeds, factors, paths = drawn = examples(cases, st.integers(2, 5), what)
    designs = random_cases(seeds)
    before = evaluate(designs)
    after = evaluate(changed(designs, 2, lambda t, i: scaled(t, paths[i], factors[i])))
    for name in ("batch_seconds", "memory.kv"):
        holds(no_larger(before[name], after[name]), *drawn, what=name)


def test_fewer_bits_take_less_memory_and_no_more_time_to_read():
    seeds, paths = drawn = examples(cases, st.sampled_from(["weight_bits", "expert_bits", "kv_bits"]))
    designs = random_cases(seeds)
    before = evaluate(designs)
    after = evaluate(changed(designs, 3, lambda p, i: scaled(p, paths[i], 0.5)))
    names = [f"decode.{name}.memory" for name in operators(before, "decode")]
    for name in ("memory.used", *names):
        holds(no_larger(after[name], before[name]), *drawn, what=name)


def test_a_cached_prefix_saves_prefill_and_holds_the_same_cache():
    seeds, less, more = drawn = examples(cases, st.floats(0, 0.5), st.floats(0.5, 1))
    designs = changed(random_cases(seeds), 3, lambda p, i: jc.replace(p, chunk=0.0))
    before, after = (
        evaluate(changed(designs, 2, lambda t, i, hits=hits: jc.replace(t, prefix_hit=hits[i])))
        for hits in (less, more)
    )
    holds(no_larger(after["ttft"], before["ttft"]), *drawn)
    holds(after["memory.kv"] == before["memory.kv"], *drawn)


def test_a_prompt_that_is_cached_whole_takes_no_computation():
    designs = changed(random_cases((143,)), 3, lambda p, i: jc.replace(p, chunk=0.0))
    report = evaluate(changed(designs, 2, lambda t, i: jc.replace(t, prefix_hit=1.0)))
    assert np.isfinite(report["ttft"]).all() and report["ttft"] > 0


# --- sums ---


def test_an_operator_takes_its_longest_leg_at_least_and_all_of_them_at_most():
    seeds, tau = drawn = examples(cases, taus)
    designs = random_cases(seeds)
    report = evaluate(designs, tau)
    no_overhead = np.asarray([case[0].chip.efficiency.operator_overhead == 0 for case in designs])
    assert no_overhead.any()
    for step in STEPS:
        names = operators(report, step)
        legs = np.asarray([[report[f"{step}.{name}.{leg}"] for leg in LEGS] for name in names])
        seconds = np.asarray([report[f"{step}.{name}.seconds"] for name in names])
        holds(np.all(no_larger(legs.max(1), seconds), axis=0), *drawn, what=step)
        holds(np.all(no_larger(seconds, legs.sum(1)), axis=0) | ~no_overhead, *drawn, what=step)
        message, hidden = legs[:, LEGS.index("network")] > 0, report[f"{step}.hidden"]
        most = np.minimum((seconds * message).sum(0), (seconds * ~message).sum(0))
        holds((hidden >= 0) & (hidden <= most * (1 + 1e-9)), *drawn, what=step)
        holds(close(report[f"{step}.total"], seconds.sum(0) - hidden, 1e-12), *drawn, what=step)


def test_totals_are_the_sums_of_their_parts():
    (seeds,) = drawn = examples(cases)
    report = evaluate(random_cases(seeds))
    for name, total in (
        ("memory", "memory.used"),
        ("energy", "joules_per_token"),
        ("usd", "usd_per_mtok"),
        ("carbon", "gco2e_per_mtok"),
    ):
        values = np.asarray(jax.tree.leaves(getattr(report.tree, name)))
        # A chip may be sold below what its parts come to.
        below = (report["usd.margin"] < 0) if name == "usd" else 0
        holds((values < 0).sum(0) <= below, *drawn, what=name)
        holds(close(report[total], values.sum(0), 1e-12), *drawn, what=name)
    power = report["joules_per_token"] * report["tokens_per_second"]
    holds(close(report["average_power"], power, 1e-12), *drawn)


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


def test_every_result_scales_as_its_unit_says():
    seeds, bases, sizes, tau = drawn = examples(cases, st.sampled_from(BASE), st.floats(0.01, 100), taus)
    designs = random_cases(seeds)
    before = evaluate(designs, tau)
    converted = [
        [in_units(tree, bases[i], sizes[i]) for tree in (*case, jc.Prices())]
        for i, case in enumerate(designs)
    ]
    after = evaluate([case[:4] for case in converted], tau, [case[4] for case in converted])
    for path, values in before.items():
        factors = [size ** exponents(UNITS[path])[base] for base, size in zip(bases, sizes, strict=True)]
        wanted = values * np.asarray(factors)
        holds(abs(after[path] - wanted) <= np.maximum(1e-9 * abs(wanted), 1e-12), *drawn, what=path)


# --- known limits ---


def test_one_chip_sends_nothing():
    (seeds,) = drawn = examples(cases)
    one = {"tp": 1.0, "pp": 1.0, "cp": 1.0, "ep": 1.0, "dp": 1.0}
    report = evaluate(changed(random_cases(seeds), 3, lambda p, i: jc.replace(p, **one)))
    holds(report["energy.network"] == 0, *drawn)
    for step in STEPS:
        for name in operators(report, step):
            holds(report[f"{step}.{name}.network"] == 0, *drawn, what=name)


def test_one_expert_is_a_dense_layer():
    names = st.sampled_from(["llama-3.1-8b", "gemma-2-9b", "opt-66b"])
    models, batches, tps = drawn = examples(names, st.integers(1, 300), st.sampled_from([1, 4, 8]))

    def one_expert(dense):
        f = dense.feed_forward
        experts = jc.replace(
            dense.experts, layers=f.layers, experts=1.0, top_k=1.0, width=f.width, matrices=f.matrices
        )
        return jc.replace(dense, feed_forward=jc.replace(f, layers=0.0), experts=experts)

    system = load_system("h100-sxm", "ideal")
    a, b = (
        evaluate(
            [
                (system, change(load_model(name)), jc.Traffic(batch=batch), jc.Plan(tp=tp))
                for name, batch, tp in zip(models, batches, tps, strict=True)
            ]
        )
        for change in (lambda dense: dense, one_expert)
    )
    for step in STEPS:
        for leg in (*LEGS, "seconds"):
            routed, dense = b[f"{step}.routed_experts.{leg}"], a[f"{step}.feed_forward.{leg}"]
            holds(close(routed, dense, 1e-9), *drawn, what=leg)
    # Kernels of experts keep the inputs and outputs of every chosen expert.
    used = [r["memory.used"] - r["memory.activations"] for r in (a, b)]
    holds(close(*used, 1e-3), *drawn)


def test_a_window_as_long_as_the_context_is_full_attention():
    seeds, spares = drawn = examples(cases, st.floats(1, 4))
    # Groups of layers depend on how many layers there are of each kind.
    designs = changed(random_cases(seeds), 3, lambda plan, i: jc.replace_at(plan, "engine.grouped", 0.0))

    def attention_of(model):
        """All attention of a model in one shape; each of the catalogue's models has one."""
        a, w = model.attention, model.window_attention
        return jc.replace(a if a.layers else w, layers=a.layers + w.layers)

    def full(model, i):
        a = jc.replace(attention_of(model), window=0.0, compression=1.0)
        return jc.replace(model, attention=a, window_attention=jc.replace(a, layers=0.0))

    def windowed(model, i):
        t = designs[i][2]
        longest = (t.prompt + t.retrieved + t.encoder_tokens + t.output) * spares[i] + 64
        a = jc.replace(attention_of(model), window=longest, compression=0.0)
        return jc.replace(model, attention=jc.replace(a, layers=0.0), window_attention=a)

    x, y = (evaluate(changed(designs, 1, change)) for change in (full, windowed))
    for name in TOTALS:
        holds(close(y[name], x[name], 1e-9), *drawn, what=name)
    holds(close(y["memory.kv"], x["memory.kv"], 1e-12), *drawn)


def test_speculation_yields_between_one_and_all_tokens():
    acceptances, drafts = drawn = examples(st.floats(0, 1), st.integers(0, 8))
    case = (load_system("h100-sxm", "ideal"), load_model("llama-3.1-8b"), jc.Traffic())
    drafted = functools.partial(jc.Plan, draft_parameters=1e9)
    plans = [drafted(draft_length=g, acceptance=p) for p, g in zip(acceptances, drafts, strict=True)]
    tokens = evaluate([(*case, plan) for plan in plans])["schedule.tokens_per_step"]
    wanted = [sum(max(p, 1e-6) ** i for i in range(g + 1)) for p, g in zip(acceptances, drafts, strict=True)]
    holds(close(tokens, np.asarray(wanted), 1e-9), *drawn)
    holds((tokens * (1 + ROUNDING) >= 1) & no_larger(tokens, np.asarray(drafts) + 1), *drawn)


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
    with jax.enable_x64(True):
        found = float(distinct_experts(float(experts), float(top_k), float(tokens), skew))
    assert found == pytest.approx(simulated_experts(rng, experts, top_k, tokens, skew), rel=tolerance)
