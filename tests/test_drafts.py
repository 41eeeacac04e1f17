"""Speculative decoding: what a draft costs and yields, and that drafting with nothing is impossible."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.catalog.drafts import load_acceptance, suggest_draft
from jaxcost.edge.commands.cli import main
from jaxcost.evaluation import evaluate as evaluate_plan
from tests.batched import evaluate, load_model, load_system

LARGE, SMALL = "llama-3.1-70b", "llama-3.2-1b"
TRAFFIC = jc.Traffic(prompt=2000, output=301, batch=4)
CONTEXT = 2000 + 299 / 2
# Llama 3.2 1B: 16 layers of width 2048, 8 of 32 heads of 64 cached, tied embedding.
SMALL_PARAMETERS, SMALL_LAYERS, SMALL_WIDTH = 1_235_814_400, 16, 2048
SMALL_CACHE = 2 * 8 * 64 * SMALL_LAYERS


def node(efficiency="ideal"):
    return jc.replace(load_system("h100-sxm", efficiency), chips=8.0)


def drafting(length: float | None = 4, **options):
    return jc.with_draft(jc.Plan(tp=8), load_model(SMALL), length=length, **options)


def metrics(plan, model=LARGE, system=None, dtype=np.float64):
    case = (system or node(), load_model(model), TRAFFIC, plan)
    return {path: values[0] for path, values in evaluate([case], dtype=dtype).items()}


def test_a_draft_model_is_paid_for():
    plan = drafting(acceptance=0.7)
    with_draft, without = metrics(plan), metrics(jc.Plan(tp=8))
    assert plan.draft_parameters == SMALL_PARAMETERS
    assert (plan.draft_layers, plan.draft_width) == (SMALL_LAYERS, SMALL_WIDTH)
    assert plan.draft_embedding == 0
    assert plan.draft_cache == SMALL_CACHE
    bandwidth, flops = 3.35e12, 989.5e12
    chip = node().chip
    assert chip.memory.bandwidth == pytest.approx(bandwidth, rel=0.01)
    moved = 2 * SMALL_PARAMETERS / 8 + 4 * (CONTEXT + 1) * 2 * SMALL_CACHE / 8
    moved += 6 * SMALL_LAYERS * 2 * 4 * SMALL_WIDTH * 2
    assert with_draft["decode.draft.seconds"] == pytest.approx(4 * moved / chip.memory.bandwidth, rel=1e-12)
    work = 2 * 4 * 2000 * SMALL_PARAMETERS + 4 * SMALL_LAYERS * SMALL_WIDTH * 4 * 2000 * 2001 / 2
    assert chip.compute.flops_16 == pytest.approx(flops, rel=0.01)
    assert with_draft["prefill.draft.seconds"] == pytest.approx(work / 8 / chip.compute.flops_16, rel=1e-12)
    more = {path: with_draft[path] - without[path] for path in ("memory.weights", "memory.kv", "memory.used")}
    assert more["memory.weights"] == pytest.approx(2 * SMALL_PARAMETERS / 8, rel=1e-9)
    assert more["memory.kv"] == pytest.approx(4 * 2301 * 2 * SMALL_CACHE / 8, rel=1e-9)
    assert with_draft["ttft"] > without["ttft"]
    assert with_draft["decode.draft_all_reduce.seconds"] > 0
    assert with_draft["schedule.tokens_per_step"] == pytest.approx(sum(0.7**k for k in range(5)), rel=1e-12)


def test_a_pass_launches_the_operators_of_its_layers():
    system = jc.replace_at(node(), "chip.efficiency.operator_overhead", 1e-3)
    slower, ideal = metrics(drafting(), system=system), metrics(drafting())
    waited = slower["decode.draft.seconds"] - ideal["decode.draft.seconds"]
    assert waited == pytest.approx(4 * 6 * SMALL_LAYERS * 1e-3, rel=1e-9)


def test_a_module_reads_its_head_and_the_experts_that_it_reaches():
    """DeepSeek-V3's: 256 experts of 3 x 7168 x 2048 of which 8 are picked; the head is that of the model."""
    model, expert = load_model("deepseek-v3"), 3 * 7168 * 2048
    rest = model.draft_parameters - 256 * expert
    plan = jc.Plan(tp=8, weight_bits=8, expert_bits=8, draft_length=1, acceptance=0.85)
    one = jc.replace(TRAFFIC, batch=1)
    case = (node(), model, one)
    drafted, plain = evaluate([(*case, plan), (*case, jc.replace(plan, draft_length=0.0))])[
        "decode.draft.memory"
    ]
    moved = (rest + 8 * expert + 7168 * model.vocabulary) / 8 + (CONTEXT + 1) * 576 * 2 + 6 * 2 * 7168 * 2
    assert drafted == pytest.approx(moved / node().chip.memory.bandwidth, rel=1e-9)
    assert plain == 0
    weights = evaluate([(*case, plan), (*case, jc.replace(plan, draft_length=0.0))])["memory.weights"]
    assert weights[0] - weights[1] == pytest.approx(model.draft_parameters / 8, rel=1e-9)


def test_a_head_by_hand_has_the_cache_of_a_layer():
    head = jc.Plan(tp=8, draft_length=3, draft_parameters=0.4e9)
    more = metrics(head)["memory.kv"] - metrics(jc.Plan(tp=8))["memory.kv"]
    assert more == pytest.approx(metrics(jc.Plan(tp=8))["memory.kv"] / 80, rel=1e-9)


@pytest.mark.parametrize("name", [n for n in jc.list_names("models") if load_model(n).draft_parameters == 0])
def test_drafting_with_nothing_is_refused(name):
    if load_model(name).diffusion_block > 0:
        pytest.skip("a diffusion model drafts nothing")
    with pytest.raises(ValueError, match="nothing drafts"):
        jc.evaluate(node(), load_model(name), TRAFFIC, jc.Plan(draft_length=4))


def test_drafting_with_nothing_is_never_faster():
    """Where the numbers are traced, which nothing can refuse: no token is accepted, and verification is paid for."""
    models = [load_model(n) for n in jc.list_names("models") if load_model(n).draft_parameters == 0]
    cases = [
        (node(), model, TRAFFIC, jc.Plan(draft_length=length, accepted=accepted))
        for model in models
        for length, accepted in ((0.0, 0.0), (0.0, 3.0), (4.0, 0.0), (4.0, 3.0))
    ]
    tpot = evaluate(cases)["tpot"].reshape(-1, 4)
    assert (tpot[:, 1:] >= tpot[:, :1] * (1 - 1e-12)).all()


def test_every_entry_point_refuses_drafting_with_nothing():
    case = (node(), load_model(LARGE), TRAFFIC, jc.Plan(tp=8, draft_length=2))
    for call in (jc.evaluate, jc.best_plan, jc.serve):
        with pytest.raises(ValueError, match="nothing drafts"):
            call(*case)
    several = jc.replace(case[3], draft_length=jnp.asarray([0.0, 2.0]))
    with pytest.raises(ValueError, match="nothing drafts"):
        jc.evaluate(*case[:3], several)
    traced = jax.jit(lambda g: jc.evaluate(*case[:3], jc.replace(case[3], draft_length=g)).schedule)(2.0)
    assert float(traced.tokens_per_step) == 1


def test_acceptance_by_position():
    shares = (0.8, 0.7, 0.6)
    plan = drafting(None, acceptance=shares)
    assert plan.draft_length == 3
    assert plan.accepted == pytest.approx(1 + 0.8 + 0.8 * 0.7 + 0.8 * 0.7 * 0.6)
    assert drafting(2, acceptance=shares).accepted == pytest.approx(1 + 0.8 + 0.56)
    equal = metrics(drafting(3, acceptance=(0.7, 0.7, 0.7)))
    one = metrics(drafting(3, acceptance=0.7))
    assert equal["tpot"] == pytest.approx(one["tpot"], rel=1e-12)
    # A sampled run of steps yields the same mean.
    rng = np.random.default_rng(0)
    passed = rng.random((200_000, 3)) < shares
    assert 1 + np.cumprod(passed, 1).sum(1).mean() == pytest.approx(plan.accepted, rel=5e-3)


# Mean tokens of a step that the source states.
PUBLISHED = {"llama-3.1-8b-eagle-3": 2.60, "qwen3-8b-eagle-3": 2.26, "gpt-oss-20b-eagle-3": 2.56}


@pytest.mark.parametrize("name", jc.list_names("acceptance"))
def test_tables_of_acceptance(name):
    shares = load_acceptance(name)
    assert all(0 < share <= 1 for share in shares) and sorted(shares, reverse=True) == list(shares)
    assert drafting(None, acceptance=name).accepted == pytest.approx(PUBLISHED.get(name, 1.875), abs=0.006)


def test_tables_of_acceptance_have_no_gap(tmp_path):
    entry = '{value: %s, source: "x", date: "2026", kind: measured}'
    text = f'title: "x"\nmodel: x\nmethod: x\ntoken_1: {entry % 0.5}\n'
    path = tmp_path / "table.yaml"
    for more, expected in (
        (f"token_3: {entry % 0.2}", "token_2"),
        (f"token_2: {entry % 0.6}", "at most the 0.5"),
    ):
        path.write_text(text + more)
        with pytest.raises(jc.InputError, match=expected):
            drafting(None, acceptance=str(path))


def test_gradients_and_batch():
    plan, model, system = jc.canonical(drafting(acceptance=0.7)), load_model(LARGE), node("typical")
    slopes = jax.jit(jax.grad(lambda p: evaluate_plan(system, model, TRAFFIC, p).tpot))(plan)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert slopes.acceptance < 0
    assert min(slopes.draft_parameters, slopes.draft_cache, slopes.draft_width, slopes.draft_layers) > 0
    plans = [drafting(length, acceptance=0.6) for length in (1, 2, 4)] + [jc.Plan(tp=8)]
    cases = [(node(), model, TRAFFIC, p) for p in plans]
    together = evaluate(cases)["tpot"]
    np.testing.assert_allclose(together, [metrics(p)["tpot"] for p in plans], rtol=1e-12)
    np.testing.assert_allclose(evaluate(cases, dtype=np.float32)["tpot"], together, rtol=1e-5)


def test_a_draft_stays_with_its_plan():
    plan, model = drafting(acceptance=0.8), load_model(LARGE)
    choice = jc.best_plan(node(), model, TRAFFIC, plan)
    assert float(choice.plan.draft_cache) == SMALL_CACHE
    assert float(choice.report.decode.draft.seconds) > 0
    assert float(jc.serve(node(), model, TRAFFIC, plan).tpot) < float(
        jc.serve(node(), model, TRAFFIC, jc.Plan(tp=8)).tpot
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"draft": "mixtral-8x7b"}, "dense"),
        ({"draft": "mamba-2-2.7b"}, "dense"),
        ({"draft": "deepseek-v2-lite"}, "dense"),
        ({"draft": "qwen3-0.6b"}, "vocabulary of the model, 128256 tokens"),
        ({"acceptance": (0.8, 1.2)}, r"acceptance\[1\]: got 1.2"),
        ({"acceptance": 1.5}, "acceptance: got 1.5"),
        ({"acceptance": (0.8, 0.7)}, "the 2 drafted tokens"),
        ({"acceptance": "llama-3.1-8b-eagle3"}, "did you mean 'llama-3.1-8b-eagle-3'"),
        ({"length": None}, "acceptance is the same for all"),
    ],
)
def test_bad_drafts(options, expected):
    options = {"draft": SMALL, "length": 3, **options}
    draft = load_model(options.pop("draft"))
    with pytest.raises(jc.InputError, match=expected):
        jc.with_draft(jc.Plan(), draft, model=load_model(LARGE), **options)


def test_suggestions():
    assert suggest_draft(load_model(LARGE)) == SMALL
    assert suggest_draft(load_model(SMALL)) is None


COMMAND = ["evaluate", "--model", LARGE, "--system", "h100-sxm-x8", "--tp", "8"]


def test_command_line(capsys):
    argv = [*COMMAND, "--draft-model", SMALL, "--acceptance", "0.8,0.7,0.6"]
    assert main(argv) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "drafts 3 tokens by llama-3.2-1b, 2.7 tokens a step (acceptance 0.8, 0.7, 0.6)" in out
    assert main([*argv, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["plan"]["draft_parameters"] == SMALL_PARAMETERS
    assert document["draft"].startswith("drafts 3 tokens by llama-3.2-1b")
    argv = [
        "evaluate",
        "--model",
        "deepseek-v3",
        "--system",
        "h200-sxm-x8",
        "--tp",
        "8",
        "--weight-bits",
        "8",
    ]
    assert main([*argv, "--expert-bits", "8", "--acceptance", "deepseek-v3-mtp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"]["schedule.tokens_per_step"][
        "value"
    ] == pytest.approx(1.875)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--draft-length", "4"],
            "no multi-token-prediction module; did you mean '--draft-model llama-3.2-1b'?",
        ),
        (["--acceptance", "0.8,0.7"], "plan.draft_length: got 2"),
        (["--draft-model", SMALL], "--draft-length: expected a number of drafted tokens"),
        (["--draft-model", "qwen3-0.6b", "--draft-length", "2"], "--draft-model: got 151936"),
        (["--draft-model", "llama-3.2-1", "--draft-length", "2"], "--draft-model: got 'llama-3.2-1'"),
        (
            ["--draft-model", SMALL, "--draft-length", "2", "--draft-parameters", "1e9"],
            "--draft-parameters: got",
        ),
        (["--draft-model", SMALL, "--acceptance", "0.8,x"], "--acceptance: got 'x'; expected a number"),
        (["--draft-model", SMALL, "--acceptance", "nothing"], "--acceptance: got 'nothing'"),
        (["--draft-model", SMALL, "--draft-length", "2", "--set", "plan.accepted=4"], "[1, 3]"),
    ],
)
def test_command_line_refuses(capsys, options, expected):
    assert main([*COMMAND, *options]) == 2
    assert expected in capsys.readouterr().err
