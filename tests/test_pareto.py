"""The serving front: dominance, points against single evaluations, more choices, memory, pools, and the command."""

import csv
import json

import jax
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.program import execution
from jaxcost.explore.serve import find_nondominated
from tests.test_cli import run

SYSTEM = jc.load_system("h100-sxm-x4")
MODEL = jc.load_model("llama-3.1-8b")
TRAFFIC = jc.Traffic(prompt=2048, output=256, variation=0.0)
PLANS = {"bf16": jc.Plan(), "fp8": jc.Plan(weight_bits=8, kv_bits=8, matmul_bits=8)}
COMMAND = ["pareto", "--model", "llama-3.1-8b", "--system", "h100-sxm-x2", "--max-batch", "64"]


@pytest.fixture(autouse=True, scope="module")
def _interpreted():
    with execution("interpret"):
        yield


def find(**options):
    arguments = {
        "system": SYSTEM,
        "model": MODEL,
        "traffic": TRAFFIC,
        "plan": PLANS,
        "max_batch": 64,
    } | options
    return jc.serving_front(**arguments)


@pytest.fixture(scope="module")
def front():
    return find(split=True)


def loop(front, point, **options):
    """The closed loop of one point alone."""
    users = front.batch[point] * front.degrees[point][3]
    plan = front.plan(point)
    return jax.device_get(jc.closed_loop(SYSTEM, MODEL, TRAFFIC, plan, users=users, **options))


def never_below(larger, smaller):
    """Whether each point of one front is reached by a point of the other, in both coordinates."""
    x, y = (larger.tokens_per_second_per_user, larger.tokens_per_second_per_chip)
    x, y = x[larger.front], y[larger.front]
    return all(
        np.any(
            (x >= smaller.tokens_per_second_per_user[i] * (1 - 1e-4))
            & (y >= smaller.tokens_per_second_per_chip[i] * (1 - 1e-4))
        )
        for i in smaller.front
    )


@pytest.mark.parametrize("seed", range(8))
def test_dominance_equals_brute_force(seed):
    """On random points with ties and duplicates; the first of equal points stays."""
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 12, 60).astype(float), random.integers(0, 12, 60).astype(float)
    kept = [
        i
        for i in range(60)
        if not any(x[j] >= x[i] and y[j] >= y[i] and (x[j] > x[i] or y[j] > y[i]) for j in range(60))
        and not any(x[j] == x[i] and y[j] == y[i] for j in range(i))
    ]
    assert find_nondominated(x, y).tolist() == sorted(kept, key=lambda i: x[i])
    assert find_nondominated(x[:0], y[:0]).tolist() == []


def test_points_of_the_front_equal_single_evaluations(front):
    """Without pools all numbers are those of `closed_loop`; with pools TPOT is that of its decode steps."""
    mixed = front.front_of(~front.is_split)
    assert len(mixed) > 5 and len(front.front_of(front.is_split)) > 5
    for point in mixed:
        alone = loop(front, point)
        for name in ("ttft", "tpot", "decode_tpot", "tokens_per_second"):
            np.testing.assert_allclose(getattr(front, name)[point], getattr(alone, name), rtol=1e-5)
        chips = np.prod(front.degrees[point][:4])
        expected = alone.tokens_per_second / chips
        np.testing.assert_allclose(front.tokens_per_second_per_chip[point], expected, rtol=1e-5)
        np.testing.assert_allclose(front.tokens_per_second_per_user[point], 1 / alone.tpot, rtol=1e-5)
    for point in front.front_of(front.is_split)[::3]:
        np.testing.assert_allclose(front.tpot[point], loop(front, point).decode_tpot, rtol=1e-5)


def test_decode_time_without_prompts_is_that_of_evaluate():
    """`ClosedLoop.decode_tpot` of an ideal engine is the decode step of `evaluate` at the same batch."""
    plan = jc.Plan(tp=2)
    loops = jc.closed_loop(SYSTEM, MODEL, TRAFFIC, plan, users=8.0)
    report = jc.evaluate(SYSTEM, MODEL, jc.Traffic(prompt=2048, output=256, batch=8), plan)
    np.testing.assert_allclose(loops.decode_tpot, report.decode.total, rtol=1e-5)


def test_more_choices_are_never_below(front):
    """More precisions, larger batches, more degrees and separate pools only raise the front."""
    one = find(plan={"bf16": PLANS["bf16"]})
    assert never_below(find(), one) and not never_below(one, find())
    assert never_below(find(), find(max_batch=8))
    assert never_below(front, find())
    assert never_below(find(), find(degrees=np.asarray([[2.0, 1, 1, 1, 1]])))
    assert never_below(front, find(split=True, chips=16))


def test_no_point_exceeds_memory():
    """A model too large for one chip has no plan on one; the largest batch is what `fit` says at the mean context."""
    large = find(model=jc.load_model("llama-3.1-70b"), plan=jc.Plan(), max_batch=512)
    chips = np.prod(large.degrees[:, :4], 1)
    assert large.unfit > 0 and len(large.batch) and chips.min() > 1
    at = np.flatnonzero((large.degrees == [2, 1, 1, 1, 1]).all(1))
    fits = jc.fit(SYSTEM, jc.load_model("llama-3.1-70b"), jc.Plan(tp=2), context=2048 + 256 / 2)
    assert large.batch[at].max() == np.floor(float(fits.requests)) < 512
    assert large.memory_full[at[np.argmax(large.batch[at])]]
    none = find(model=jc.load_model("llama-3.1-405b"), split=True)
    assert len(none.front) == len(none.batch) == 0 and none.unfit > 0


def test_targets_bound_the_front(front):
    """No point of the front is beyond a target, and points that are stay as points."""
    limit = float(np.median(front.ttft))
    bounded = find(traffic=jc.replace(TRAFFIC, ttft_target=limit, tpot_target=0.01))
    assert bounded.ttft[bounded.front].max() <= limit and bounded.tpot[bounded.front].max() <= 0.01
    assert not bounded.in_time.all() and len(bounded.batch) == np.sum(~front.is_split)


def prefill_rate(front, point):
    """Requests per second of a prefill replica that is always busy, from the prefill of `evaluate`."""
    plan, prompts = front.prefill_plan(point), float(front.prefill_prompts[point])
    alone = jc.replace(plan, microbatches=1.0)
    report = jc.evaluate(SYSTEM, MODEL, jc.Traffic(prompt=2048, output=1, batch=prompts), alone)
    stage = float(report.schedule.interval / plan.pp)
    return prompts / float(report.schedule.prefill_steps * report.prefill.total * stage), float(report.ttft)


def test_rates_of_fractional_pools_match(front):
    """The decode pool takes exactly what the prefill pool gives at its utilisation, and Little's law holds."""
    points = front.front_of(front.is_split)
    for point in points[:: max(len(points) // 6, 1)]:
        rate, first = prefill_rate(front, point)
        given = 0.9 * rate * front.prefill_replicas[point]
        taken = 0.92 * front.batch[point] / ((256 - 1) * front.tpot[point]) * front.replicas[point]
        np.testing.assert_allclose(given, taken, rtol=1e-4)
        np.testing.assert_allclose(front.tokens_per_second[point], taken * 256, rtol=1e-4)
        life = front.ttft[point] + 255 * front.tpot[point]
        np.testing.assert_allclose(front.users[point], taken * life, rtol=1e-4)
        chips = front.prefill_replicas[point] * np.prod(front.prefill_degrees[point][:4])
        chips += front.replicas[point] * np.prod(front.degrees[point][:4])
        np.testing.assert_allclose(front.chips[point], chips, rtol=1e-6)
        assert front.ttft[point] > first


def test_whole_pools_keep_within_the_chips_and_have_no_spare_replica():
    """Replicas are whole, prefill keeps up, and one prefill replica fewer would not."""
    limited = find(split=True, chips=16)
    points = limited.front_of(limited.is_split)
    assert len(points)
    for point in points[::4]:
        count, replicas = float(limited.prefill_replicas[point]), float(limited.replicas[point])
        assert count == round(count) >= 1 and replicas == round(replicas) >= 1 and limited.chips[point] <= 16
        taken = 0.92 * limited.batch[point] / (255 * limited.tpot[point]) * replicas
        rate = 0.9 * prefill_rate(limited, point)[0]
        assert (count - 1) * rate < taken * (1 + 1e-5) and taken <= count * rate * (1 + 1e-5)
    assert not find(split=True, chips=1).is_split.any()


def test_plans_leave_out_replicas_but_no_other_layout():
    """Data-parallel ranks without shared experts change neither coordinate; of experts they are kept."""
    dense, experts = jc.serving_plans(4, experts=False), jc.serving_plans(4)
    assert {tuple(p) for p in dense} == {
        (t, p, 1, 1, 1) for t, p in ((1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4))
    }
    assert (1, 1, 1, 4, 4) in {tuple(p) for p in experts} and (1, 1, 1, 4, 1) not in {
        tuple(p) for p in experts
    }
    assert [tuple(p) for p in jc.serving_plans(4, fixed={"dp": 2, "tp": 2}, experts=False)] == [
        (2, 1, 1, 2, 1)
    ]
    one = jc.closed_loop(SYSTEM, MODEL, TRAFFIC, jc.Plan(tp=2), users=8.0)
    two = jc.closed_loop(SYSTEM, MODEL, TRAFFIC, jc.Plan(tp=2, dp=2), users=16.0)
    np.testing.assert_allclose(two.tpot, one.tpot, rtol=1e-5)
    np.testing.assert_allclose(two.tokens_per_second, 2 * one.tokens_per_second, rtol=1e-5)
    with pytest.raises(ValueError, match="no degree 'tpp'"):
        jc.serving_plans(4, fixed={"tpp": 2})


def test_experts_spread_over_data_parallel_ranks():
    """Of a mixture of experts, ranks that share them are candidates, with a batch each."""
    model = jc.load_model("gpt-oss-20b")
    mixture = find(model=model, plan=PLANS["fp8"], split=True)
    at = np.flatnonzero((mixture.degrees == [1, 1, 1, 4, 4]).all(1) & ~mixture.is_split)
    assert len(at) and (mixture.users[at] == 4 * mixture.batch[at]).all() and mixture.is_split.any()
    point = at[-1]
    alone = jc.closed_loop(SYSTEM, model, TRAFFIC, mixture.plan(point), users=float(mixture.users[point]))
    np.testing.assert_allclose(mixture.tpot[point], alone.tpot, rtol=1e-5)
    np.testing.assert_allclose(mixture.tokens_per_second[point], alone.tokens_per_second, rtol=1e-5)


def test_speculative_decoding_speeds_up_both_kinds():
    """A draft of two accepted tokens shortens TPOT of points with and without separate pools."""
    draft = jc.Plan(draft_length=1.0, acceptance=1.0, draft_parameters=1e6)
    plain, drafted = (find(plan=plan, split=True, max_batch=2) for plan in (jc.Plan(), draft))
    for mask in (plain.is_split, ~plain.is_split):
        assert (drafted.tpot[mask] < 0.7 * plain.tpot[mask]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": {}}, "needs a plan"),
        ({"traffic": jc.Traffic(output=1)}, "at least 2 output tokens"),
        ({"max_batch": 0}, "max_batch must be at least 1"),
        ({"prefill_utilization": 1.0}, "prefill_utilization must be in"),
        ({"decode_utilization": 0.0}, "decode_utilization must be in"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        find(**options)


def test_command_prints_json_and_csv_of_the_library(capsys, tmp_path):
    """The keys of JSON, the rows of CSV, the table, and a picture of each ending."""
    file, picture = tmp_path / "points.csv", tmp_path / "front.svg"
    argv = [*COMMAND, "--prompt", "2048", "--output", "256", "--split", "--precision", "stored,fp8/fp8"]
    status, out, err = run(capsys, *argv, "--json", "--csv", str(file), "--plot", str(picture))
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert {"model", "traffic", "precisions", "systems"} <= document.keys()
    (system,) = document["systems"]
    assert {"system", "verdict", "efficiency", "engine", "counts", "front"} <= system.keys()
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert len(rows) == system["counts"]["points"]
    assert sum(int(row["on_front"]) for row in rows) == len(system["front"])
    plans = {
        "stored": jc.load_checkpoint("llama-3.1-8b").plan(),
        "fp8/fp8": jc.load_checkpoint("llama-3.1-8b", quantization="fp8").plan(kv_bits=8.0),
    }
    engine = jc.load_engine("typical", "h100-sxm-x2")
    plans = {name: jc.replace(plan, engine=engine) for name, plan in plans.items()}
    expected = find(system=jc.load_system("h100-sxm-x2"), plan=plans, split=True)
    for record, point in zip(system["front"], expected.front, strict=True):
        for name in ("tokens_per_second_per_chip", "tokens_per_second_per_user", "ttft", "users", "chips"):
            assert record[name] == pytest.approx(float(getattr(expected, name)[point]), rel=1e-6), name
        assert record["precision"] == expected.precisions[expected.precision[point]]
        assert (record["prefill_pool"] is not None) == expected.is_split[point]
    assert b"separate pools" in picture.read_bytes()


def test_command_prints_a_verdict_first_and_a_table(capsys, tmp_path):
    picture = tmp_path / "front.png"
    status, out, err = run(capsys, *COMMAND, "--tp", "2", "--plot", str(picture))
    assert (status, err) == (0, "")
    assert (
        out.startswith("llama-3.1-8b on h100-sxm-x2: ") and "output tokens/s per chip" in out.splitlines()[0]
    )
    assert "Tok/s/user" in out and "points are on the front" in out and max(map(len, out.splitlines())) <= 120
    assert "1 chip" not in out and picture.stat().st_size > 10_000


def test_command_without_points(capsys, tmp_path):
    """A model that does not fit: a verdict, no front, an empty plot, and status 3 where it must fit."""
    argv = ["pareto", "--model", "llama-3.1-405b", "--system", "h100-sxm-x2", "--max-batch", "8"]
    status, out, err = run(capsys, *argv, "--require-fit", "--plot", str(tmp_path / "front.png"))
    assert (status, err) == (3, "") and "does not fit" in out.splitlines()[0]
    status, out, _ = run(capsys, *COMMAND, "--ttft-target", "1us", "--json")
    assert status == 0 and "within the targets" in json.loads(out)["systems"][0]["verdict"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--precision", "fp9"], "--precision: got 'fp9'; expected bits in (0, 32] or a format"),
        (["--precision", "fp8/"], "--precision: got ''; expected bits"),
        (
            ["--precision", "bf16", "--weight-bits", "8"],
            "--precision: got 'bf16'; expected --precision or --weight",
        ),
        (["--max-batch", "0"], "--max-batch: got 0.0; expected a whole number from 1"),
        (["--batch", "8"], "--batch: got 8.0; expected --max-batch instead"),
        (["--plan", "auto"], "--plan: got 'auto'; expected no plan"),
        (["--output", "1"], "--output: got 1.0; expected at least 2 tokens"),
        (["--max-chips", "16"], "--max-chips: got 16.0; expected --split as well"),
        (
            ["--split", "--prefill-utilization", "1"],
            "--prefill-utilization: got 1.0; expected a share in (0, 1)",
        ),
        (
            ["--split", "--decode-utilization", "2"],
            "--decode-utilization: got 2.0; expected a share in (0, 1]",
        ),
        (["--split", "--max-chips", "1"], "--max-chips: got 1.0; expected a whole number of at least 2"),
        (["--variation", "-1"], "--variation: got -1.0; expected a number of at least 0"),
        (["--csv", "points.txt"], "--csv: got 'points.txt'; expected a name ending in .csv"),
        (["--csv", "nowhere/points.csv"], "--csv: got 'nowhere/points.csv'; expected a name in a folder"),
        (
            ["--system", "h100-sxm-x2,h100-sxm-x2"],
            "--system: got 'h100-sxm-x2,h100-sxm-x2'; expected every name once",
        ),
        (["--tp", "3"], "plan.tp: got 3; expected a divisor of the 32 query heads"),
        (["--ep", "2"], "--system: got 'ep 2'; expected degrees of a plan on 2 chips"),
    ],
)
def test_command_refuses_in_one_line(capsys, more, message):
    status, out, err = run(capsys, *COMMAND, *more)
    assert (status, out) == (2, "")
    assert err.startswith(f"jaxcost pareto: {message}") and err.count("\n") == 1
