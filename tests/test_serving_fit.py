"""Constants of serving engines: found again in what they made, and how far off on served times of H100s."""

import dataclasses
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.core.pytree import replace_at
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate.serving_fit import (
    ServingPoints,
    choose_fit,
    choose_split,
    choose_within,
    fit_engines,
    predicted,
    serving_points,
    serving_steps,
)
from jaxcost.explore.calibrate.serving_points import with_skew
from jaxcost.spec.kernels import UNLIMITED, EngineOverheads

DATA = Path(__file__).parents[2] / "shared" / "data" / "measured" / "e2e.csv"
ENGINES = {
    "trtllm": {
        "layer": 1.5e-5,
        "sequence": 2e-5,
        "eager_launch_floor": 5e-4,
        "frontend_latency": 0.06,
        "burst_size": 4.0,
    },
    "vllm": {
        "layer": 3e-5,
        "sequence": 5e-5,
        "eager_launch_floor": 1e-4,
        "frontend_latency": 0.02,
        "burst_size": 5.0,
    },
    "sglang": {
        "layer": 1e-5,
        "sequence": 3e-5,
        "eager_launch_floor": 2e-4,
        "frontend_latency": 0.2,
        "burst_size": UNLIMITED,
    },
}
LAYERS = {"small": 32.0, "large": 80.0}


def synthetic(noise=0.0):
    """ServingPoints of three libraries and two models whose steps follow simple laws."""
    random = np.random.default_rng(0)
    rows = [
        (library, model, tp, users, prompt, output)
        for library in ENGINES
        for model in (LAYERS if library != "sglang" else ["large"])
        for tp in (1.0, 2.0, 4.0, 8.0)
        for users in (8.0, 16.0, 32.0, 64.0, 128.0)
        for prompt, output in ((1024.0, 128.0), (1024.0, 1024.0), (4096.0, 512.0))
    ]
    library, model = (np.asarray([row[i] for row in rows]) for i in (0, 1))
    tp, users, prompt, output = (np.asarray([row[i] for row in rows], float) for i in (2, 3, 4, 5))
    layers = np.asarray([LAYERS[name] for name in model.tolist()])
    columns = {
        "decode": layers * (3e-5 + 2.5e-4 / tp + 1e-6 * users / tp),
        "prefill": layers * prompt * 8e-7 / tp,
        "batch": users,
        "slots": np.full(len(users), 1e6),
        "memory": np.ones(len(users)),
        "layers": layers,
        "tokens": np.ones(len(users)),
        "interval": np.ones(len(users)),
        "users": users,
        "prompt": prompt,
        "output": output,
        "equal": np.ones(len(users)),
    }
    times = np.zeros((len(users), 2))
    for name, engine in ENGINES.items():
        at = library == name
        times[at] = predicted({key: x[at] for key, x in columns.items()}, engine)
    times *= np.exp(noise * random.normal(size=times.shape))
    ones = np.ones(len(users))
    points = ServingPoints(
        library=library,
        model=model,
        tp=tp,
        ep=ones,
        dp=ones,
        users=users,
        prompt=prompt,
        output=output,
        nominal=np.stack([prompt, output], 1),
        equal=ones,
        weight_bits=16 * ones,
        kv_bits=16 * ones,
        tpot=times[:, 0],
        ttft=times[:, 1],
        line=np.zeros((len(users), 2), int),
    )
    return points, columns


def test_constants_are_found_again():
    points, columns = synthetic()
    # Libraries differ freely and models of a library do not.
    found = fit_engines(points, columns, widths=(3.0, 0.02))
    for library, engine in ENGINES.items():
        for name, value in engine.items():
            assert found.engines[library][name] == pytest.approx(value, rel=0.15), (library, name)
            low, high = found.ends[library][name]
            assert low <= found.engines[library][name] <= high
    errors = np.abs(np.log(found.held / points.measured))
    assert np.median(errors[points.library != "sglang"]) < 0.01
    # The only model of a library is predicted by the others' constants.
    alone = errors[points.library == "sglang"]
    assert 0.001 < np.median(alone) < 0.5
    assert found.models["vllm"] == ["large", "small"]


def test_constants_are_pooled():
    points, columns = synthetic()
    found = fit_engines(points, columns)
    assert np.median(np.abs(np.log(found.inside / points.measured))) < 0.01
    # A library of one model takes part of what sets it apart for the model's.
    others = np.mean([np.log(found.engines[n]["frontend_latency"]) for n in ("trtllm", "vllm")])
    assert others < np.log(found.engines["sglang"]["frontend_latency"]) < np.log(0.2)
    # With two models no point is left without two of them, and no interval can be tested.
    assert np.all(np.isnan(found.covered))
    made = found.intervals["sglang"]["ttft"]
    assert made.low < 0 < made.high and made.rows == 60 and made.models == 1


@pytest.mark.slow
def test_the_better_assumption_is_chosen_without_the_model_it_predicts():
    points, columns = synthetic(noise=0.02)
    third = np.where(points.users == 16, "third", points.model)
    points = dataclasses.replace(points, model=third)
    slower = columns | {"decode": 1.5 * columns["decode"]}
    tried = {name: fit_engines(points, c) for name, c in (("measured", columns), ("slower", slower))}
    made, chosen = choose_fit(points, tried)
    assert set(chosen) == {None, "large", "small", "third"}
    assert set(chosen.values()) == {"measured"}
    assert np.array_equal(made.held, tried["measured"].held)
    # Intervals that have seen neither the model nor its errors.
    assert np.all(np.isfinite(made.covered))
    assert made.intervals["vllm"]["tpot"].models == 3


def test_points_without_weight_do_not_count():
    points, columns = synthetic(noise=0.02)
    wrong = np.arange(len(points)) % 9 == 0
    tpot = np.where(wrong, 10 * points.tpot, points.tpot)
    found = fit_engines(dataclasses.replace(points, tpot=tpot), columns, weights=np.where(wrong, 0.0, 1.0))
    assert found.engines["vllm"]["sequence"] == pytest.approx(5e-5, rel=0.15)
    assert np.median(np.abs(np.log(found.inside / points.measured))) < 0.03


def test_what_was_measured_chooses_itself():
    points, _ = synthetic()
    for choose in (choose_split, choose_within):
        best = choose(points, points.measured)
        assert best.cases > 20
        assert best.right == best.exact == 1
        assert best.kept == pytest.approx(1)
        backwards = choose(points, 1 / points.measured)
        assert backwards.right < 0.7


def test_pairs_of_rows_make_points(tmp_path):
    header = "source,model,gpu,num_gpus,tp,mode,dtype_weights,engine,input_len,output_len,concurrency,metric,value,unit"
    rows = [
        "own,some/Model-FP8,h100_sxm,2,2,agg,,trtllm,1000,100,8,ttft_mean,100,ms",
        "own,some/Model-FP8,h100_sxm,2,2,agg,,trtllm,1000,100,8,tpot_mean,10,ms",
        "own,some/Model,h100_sxm,2,2,agg,,trtllm,1000,100,8,tpot_mean,11,ms",
        "own,some/Model,h100_sxm,2,2,agg,,trtllm,1000,100,8,ttft_mean,110,ms",
        "own,some/Model,h100_sxm,2,2,agg,,trtllm,1000,100,16,tpot_mean,12,ms",
        "own,some/Model,h100_sxm,2,2,disagg,,vllm,1000,100,8,tpot_mean,11,ms",
        "own,some/Model,h100_sxm,2,2,disagg,,vllm,1000,100,8,ttft_mean,110,ms",
    ]
    (tmp_path / "e2e.csv").write_text("\n".join([header, *rows]) + "\n")
    points = serving_points(read_measured(tmp_path)[0]["serving"][0], varying={"own": 0.9})
    assert points.measured == pytest.approx(np.asarray([[0.010, 0.1], [0.011, 0.11]]))
    assert points.weight_bits.tolist() == [8, 16]
    assert points.kv_bits.tolist() == [8, 16]
    assert points.prompt.tolist() == [900, 900]
    assert points.line.tolist() == [[3, 2], [4, 5]]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason="the measurements are not part of the project")
def test_h100_is_predicted_a_model_at_a_time():
    """With the kernels of the catalogue; constants are fitted without the model."""
    read = read_measured(DATA, ["h100-sxm"])[0]["serving"][0]
    points = serving_points(read.select(source=["nvidia_aic_silicon", "inferencex_via_aiconfigurator"]))
    # Concurrencies that cannot be right (512 users faster than memory allows), points out of line with both
    # neighbours, and times that do not change with the users.
    line = points.line[:, 0]
    points = points.where(
        (points.users < 512) & ~np.isin(line, (1354, 1355, 1366, 1367)) & ~((line >= 1146) & (line <= 1155))
    )
    assert len(points) == 681
    names = {
        "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
        "Qwen/Qwen3-32B": "qwen3-32b",
        "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
        "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
        "openai/gpt-oss-120b": "gpt-oss-120b",
    }
    models = {name: with_skew(jc.load_model(ours)) for name, ours in names.items()}
    # Benchmarks of single kernels run at a higher clock than a chip that serves.
    systems = {
        library: replace_at(
            replace_at(
                jc.load_system("h100-sxm-x8", efficiency=library), "chip.efficiency.matmul", jnp.asarray(0.9)
            ),
            "chip.efficiency.kernels.engine",
            EngineOverheads(),
        )
        for library in ENGINES
    }
    engines = {library: jc.load_engine(library, "h100-sxm") for library in ENGINES}
    columns = serving_steps(systems, models, points, engines)
    found = fit_engines(points, columns)
    inside, held = (np.median(np.abs(np.log(t / points.measured)), 0) for t in (found.inside, found.held))
    print("inside", inside, "held", held, found.engines)
    print(choose_split(points, found.held), choose_within(points, found.held))
    assert inside[0] < 0.08 and inside[1] < 0.2
    assert held[0] < 0.11 and held[1] < 0.26
    assert choose_split(points, found.held).right > 0.8
    assert choose_within(points, found.held).right > 0.8
