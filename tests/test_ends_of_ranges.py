"""The ends of every range from Python: no number of a result is NaN or infinite, and what cannot be is a margin."""

import itertools

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import execution

SYSTEM = jc.load_system("h100-sxm-x8")
ENDS = {
    "traffic.prompt": (0, 1),
    "traffic.output": (0, 1),
    "traffic.batch": (0, 1),
    "traffic.prefix_hit": (0, 1),
    "traffic.rate": (0, 1e-6),
    "traffic.variation": (0, 1e-6),
    "plan.tp": (0, 6),
    "plan.pp": (0, 8),
    "plan.dp": (0, 8),
    "plan.ep": (0, 8),
    "plan.cp": (0, 8),
    "plan.microbatches": (0, 8),
    "plan.chunk": (0, 1),
    "plan.kv_bits": (0, 32),
    "plan.weight_bits": (0, 32),
    "plan.expert_bits": (0, 32),
    "plan.activation_bits": (0, 32),
    "plan.weight_sparsity": (0, 1),
    "plan.activation_sparsity": (0, 1),
    "plan.engine.step_tokens": (0, 1),
    "plan.engine.sequences": (0, 1),
    "plan.engine.memory_share": (0, 1),
    "plan.engine.cache_share": (0, 1),
    "plan.engine.kept_bytes": (0, 1e12),
    "plan.engine.block": (0, 1),
    "plan.engine.grouped": (0, 1),
    "plan.engine.state_slots": (0, 1),
    "plan.engine.state_ratio": (0, 1),
    "plan.engine.mixed": (0, 1),
    "system.chips": (0, 1),
    "system.chip.memory.capacity": (0, 1),
    "system.chip.tdp": (0, 1),
}
PAIRS = ("prompt", "output", "batch", "prefix_hit", "rate", "variation")
MODELS = ("llama-3.1-8b", "deepseek-v2-lite", "mamba-2-2.7b", "gpt-oss-20b")
# Changes that no design can have: their margins are negative.
IMPOSSIBLE = {
    ("traffic.batch", 0),
    ("plan.tp", 0),
    ("plan.tp", 6),
    ("plan.pp", 0),
    ("plan.dp", 0),
    ("plan.ep", 0),
    ("plan.cp", 0),
    ("plan.engine.memory_share", 0),
    ("plan.engine.kept_bytes", 1e12),
    ("system.chips", 0),
    ("system.chip.memory.capacity", 0),
    ("system.chip.memory.capacity", 1),
}


def changes():
    """List single ends, and the ends of every pair of numbers of the traffic."""
    single = [((path, value),) for path, values in ENDS.items() for value in values]
    traffic = [(f"traffic.{name}", value) for name in PAIRS for value in ENDS[f"traffic.{name}"]]
    pairs = [pair for pair in itertools.combinations(traffic, 2) if pair[0][0] != pair[1][0]]
    return [(), *single, *pairs]


CHANGES = changes()


def stacked_design(name):
    """Stack the designs of all changes along a batch axis."""
    traffic = jc.Traffic(prompt=512.0, output=64.0, batch=8.0, rate=1.0)
    base = {"system": SYSTEM, "model": jc.load_model(name), "traffic": traffic, "plan": jc.Plan(tp=2.0)}
    base = {root: jax.tree.map(float, tree) for root, tree in base.items()}
    columns = {path: [] for path in ENDS}
    for change in CHANGES:
        for path, column in columns.items():
            root, _, rest = path.partition(".")
            value = base[root]
            for part in rest.split("."):
                value = getattr(value, part)
            column.append(dict(change).get(path, value))
    for path, column in columns.items():
        root, _, rest = path.partition(".")
        base[root] = jc.replace_at(base[root], rest, np.asarray(column, np.float32))
    return base


def finite(result, what):
    for path, _, value in jc.rows(result):
        bad = np.flatnonzero(~np.isfinite(np.broadcast_to(value, len(CHANGES))))
        assert not bad.size, (what, path, [CHANGES[i] for i in bad[:4]])


@pytest.fixture(autouse=True)
def _interpreted():
    with execution("interpret"):
        yield


@pytest.mark.parametrize("name", MODELS)
def test_evaluations_are_finite_and_the_impossible_has_a_negative_margin(name):
    design = stacked_design(name)
    report = jc.evaluate(**design)
    finite(report, name)
    worst = np.asarray(report.margins.worst)
    for change, margin in zip(CHANGES, worst, strict=True):
        if len(change) == 1 and change[0] in IMPOSSIBLE:
            assert margin < 0, change
    assert np.all(np.isfinite(jc.ttft_alone(**design)))


@pytest.mark.parametrize("name", MODELS)
def test_deployments_are_finite(name):
    service = jc.serve(**stacked_design(name))
    finite(service, name)
    for change, margin in zip(CHANGES, np.asarray(service.margins.worst), strict=True):
        if len(change) == 1 and change[0] in IMPOSSIBLE and change[0][0] != "traffic.batch":
            assert margin < 0, change


def test_requests_without_output_cost_their_prompts():
    """Energy and cost are then per prompt token, of a deployment as of one evaluation."""
    traffic = jc.Traffic(prompt=512.0, output=0.0, batch=8.0, rate=1.0)
    service = jc.serve(SYSTEM, jc.load_model("llama-3.1-8b"), traffic, jc.Plan(tp=2.0))
    assert float(service.tokens_per_second) == 0 < float(service.usd_per_mtok)
    assert float(service.usd_per_query) == pytest.approx(float(service.usd_per_mtok) * 512 / 1e6)
    loop = jc.closed_loop(SYSTEM, jc.load_model("llama-3.1-8b"), traffic, jc.Plan(tp=2.0), users=4.0)
    assert float(loop.tokens_per_second) == 0 < float(loop.ttft)


@pytest.mark.parametrize("users", [0.0, 1.0, 1e6])
def test_closed_loops_are_finite_and_the_impossible_has_a_negative_margin(users):
    loop = jc.closed_loop(**stacked_design("llama-3.1-8b"), users=users)
    finite(loop, users)
    memory = np.broadcast_to(loop.memory, len(CHANGES))
    for change, margin in zip(CHANGES, memory, strict=True):
        if (
            len(change) == 1
            and change[0] in IMPOSSIBLE
            and ("memory" in change[0][0] or "kept" in change[0][0])
        ):
            assert margin < 0, change
    assert np.all(np.asarray(loop.slots) >= 0) and np.all(np.asarray(loop.waiting) >= 0)


@pytest.mark.parametrize("name", MODELS)
def test_what_fits_is_finite(name):
    design = stacked_design(name)
    for context, users in ((0.0, 0.0), (0.0, 1.0), (8192.0, 0.0), (1e6, 1e6)):
        fit = jc.fit(design["system"], design["model"], design["plan"], context=context, users=users)
        finite(fit, (context, users))


def test_the_largest_batch_is_finite_and_none_where_nothing_fits():
    largest = np.asarray(jc.largest_batch(**stacked_design("llama-3.1-8b")))
    assert np.all(np.isfinite(largest)) and np.all(largest >= 0)
    for change, batch in zip(CHANGES, largest, strict=True):
        if change in ((("plan.engine.kept_bytes", 1e12),), (("system.chip.memory.capacity", 0),)):
            assert batch == 0, change


@pytest.mark.parametrize("objective", ["tpot", "usd_per_mtok", "tokens_per_second"])
def test_the_best_plan_is_finite(objective):
    design = stacked_design("llama-3.1-8b")
    choice = jc.best_plan(**design, objective=objective)
    finite(choice, objective)
