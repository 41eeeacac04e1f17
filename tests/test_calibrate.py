"""Calibration: known parameters come back, whole axes are held out, intervals hold what they say."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.edge.measured.files import read_measured
from jaxcost.explore.calibrate.calibration import calibrate
from jaxcost.explore.calibrate.cross_validation import Form, calibrate_rows, scores
from jaxcost.explore.calibrate.fit import Bounds, fit, folds, predict
from jaxcost.explore.calibrate.kernel_families import FAMILIES, selections
from jaxcost.explore.calibrate.matmul_form import MATMUL
from jaxcost.explore.calibrate.validation import score, summaries
from jaxcost.spec.measurement import Measurements

SHARED = Path(__file__).parents[2] / "shared" / "data" / "measured"
LINE = Form(
    "line",
    lambda columns, p: p["launch"] + columns["work"] / p["rate"],
    {"launch": Bounds(1e-7, 1e-4, 1e-6), "rate": Bounds(1e9, 1e13, 1e11)},
)
TRUE = {"launch": 5e-6, "rate": 3e11}


def line_rows(noise, groups=8, each=24, seed=0):
    rng = np.random.default_rng(seed)
    axis = np.repeat(np.arange(groups), each)
    columns = {"work": rng.uniform(3, 8, len(axis))}
    columns["work"] = 10 ** columns["work"]
    seconds = TRUE["launch"] + columns["work"] / TRUE["rate"]
    return columns, seconds * np.exp(rng.normal(0, noise, len(axis))), axis


def test_known_parameters_come_back():
    columns, seconds, axis = line_rows(0.0)
    found = fit(LINE.seconds, LINE.bounds, columns, seconds, np.ones((1, len(axis))), axis)
    for name, value in TRUE.items():
        assert found.parameters(0)[name] == pytest.approx(value, rel=1e-3)


def test_wild_rows_do_not_move_a_fit():
    columns, seconds, axis = line_rows(0.01)
    wild = seconds.copy()
    wild[::10] *= 20
    found = fit(LINE.seconds, LINE.bounds, columns, wild, np.ones((1, len(axis))), axis)
    assert found.parameters(0)["rate"] == pytest.approx(TRUE["rate"], rel=0.1)


def test_intervals_of_parameters_hold_them():
    inside = []
    for seed in range(20):
        columns, seconds, axis = line_rows(0.05, seed=seed)
        found = fit(LINE.seconds, LINE.bounds, columns, seconds, np.ones((1, len(axis))), axis)
        inside += [found.low[0, 0, i] <= TRUE[n] <= found.high[0, 0, i] for i, n in enumerate(found.names)]
    assert 0.65 <= np.mean(inside) <= 0.95


def test_a_fold_holds_whole_values_of_the_axis():
    axis = np.repeat(np.arange(10), 7)
    part = folds(axis, 4)
    for value in range(10):
        assert len(set(part[axis == value])) == 1
    assert sorted(set(part)) == [0, 1, 2, 3]
    assert len(set(folds(np.repeat([1, 2], 5), 6))) == 2


def test_held_out_rows_are_predicted_without_their_axis():
    columns, seconds, axis = line_rows(0.02)
    shifted = seconds.copy()
    shifted[axis == 3] *= 2
    made = calibrate_rows(LINE, columns, shifted, axis, most_folds=8)
    # Nothing that the fit has seen tells of the shift.
    assert np.median(made.held[axis == 3]) == pytest.approx(-np.log(2), abs=0.05)
    assert not made.covered[axis == 3].any()
    assert scores(made.held[axis != 3])[0] < 0.05


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_intervals_of_predictions_hold_four_fifths(noise):
    columns, seconds, axis = line_rows(noise, groups=12, each=40)
    made = calibrate_rows(LINE, columns, seconds, axis)
    assert 0.74 <= made.covered.mean() <= 0.86
    assert made.interval[1] - made.interval[0] == pytest.approx(2 * 1.28 * noise, rel=0.2)


def test_same_seed_same_numbers():
    columns, seconds, axis = line_rows(0.1)
    first, again = (calibrate_rows(LINE, columns, seconds, axis, seed=3) for _ in range(2))
    assert first.values == again.values and np.array_equal(first.held, again.held)


def gemm_rows(chip_name, kernel, noise=0.02, library="trtllm", seed=0):
    """Rows of a library whose kernels are known."""
    shapes = [(n, k) for n in (512, 4096, 8192) for k in (1024, 4096, 7168)]
    m = np.tile(2.0 ** np.arange(0, 14), len(shapes))
    n, k = (np.repeat([s[i] for s in shapes], 14).astype(float) for i in (0, 1))
    bits = np.full(len(m), 16.0)
    rows = Measurements(
        family="matmul",
        work={"rows": m, "columns": n, "inner": k, "weight_bits": bits, "activation_bits": bits},
        seconds=np.ones(len(m)),
        labels={
            name: np.full(len(m), word)
            for name, word in {
                "chip": chip_name, "library": library, "version": "1", "precision": "bfloat16", "source": "made",
            }.items()
        },
        source="made",
        file="made.csv",
        line=np.arange(len(m)),
    )  # fmt: skip
    columns = FAMILIES["matmul"].columns(rows, {chip_name: jc.load_system(chip_name)})
    seconds = predict(MATMUL.run, columns, MATMUL.kernel(kernel))
    noisy = seconds * np.exp(np.random.default_rng(seed).normal(0, noise, len(m)))
    return Measurements(**{**vars(rows), "seconds": noisy})


KERNEL = {
    "launch": 4e-6,
    "steps": 0.7,
    "memory": 0.8,
    "matmul": 0.7,
    "serial": 0.2,
    "rows": 32.0,
    "waves": 0.4,
}


def test_kernels_of_a_library_come_back():
    rows = gemm_rows("h100-sxm", KERNEL)
    (one,) = calibrate({"matmul": [rows]}, {"h100-sxm": jc.load_system("h100-sxm")}, families=["matmul"])
    assert one.place == ("matmul", "bits_16")
    assert scores(one.calibration.held)[0] < 0.02
    assert one.calibration.values["matmul"] == pytest.approx(0.7, rel=0.03)
    assert one.calibration.values["memory"] == pytest.approx(0.8, rel=0.05)
    assert 0.7 <= one.calibration.covered.mean() <= 0.9


def test_rows_of_other_chips_are_left_out():
    rows = gemm_rows("h100-sxm", KERNEL)
    assert selections(FAMILIES["matmul"], [rows], {"a100-80gb-sxm": jc.load_system("a100-80gb-sxm")}) == []
    with pytest.raises(ValueError, match="no family 'gemm'; there are matmul"):
        calibrate({}, {}, families=["gemm"])


def test_scores_beside_the_roofline():
    rows = gemm_rows("h100-sxm", KERNEL)
    (part,) = selections(FAMILIES["matmul"], [rows], {"h100-sxm": jc.load_system("h100-sxm")})
    scored = score(part, MATMUL.kernel(KERNEL), (-0.0256, 0.0256), "made")
    (whole,) = summaries([scored], "op")
    assert whole.median < 0.02 < 0.1 < whole.roofline
    assert 0.7 <= whole.inside <= 0.9
    tenths = summaries([scored], "size")
    assert len(tenths) == 10 and sum(one.rows for one in tenths) == len(rows)
    assert len(summaries([scored], "model")) == 9


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the measured tables are not in the repository")
@pytest.mark.parametrize(
    "names", [("h100-sxm",), pytest.param(("a100-80gb-sxm", "h100-sxm"), marks=pytest.mark.exhaustive)]
)
def test_dense_matmuls_on_shapes_not_fitted(names):
    found, refused = read_measured(SHARED, chips=names)
    assert refused == []
    fits = calibrate(found, {name: jc.load_system(name) for name in names}, families=["matmul"])
    wide = [one.calibration for one in fits if one.selection.labels["precision"] == "bfloat16"]
    narrow = [one.calibration for one in fits if one.selection.labels["precision"] == "fp8"]
    for some, most in ((wide, 0.05), (narrow, 0.07)):
        median, ninth = scores(np.concatenate([c.held for c in some]))
        assert median <= most and ninth <= 3 * most
        assert 0.75 <= np.concatenate([c.covered for c in some]).mean() <= 0.85


def test_a_form_is_a_pure_function_of_its_columns():
    assert jnp.isfinite(LINE.seconds({"work": jnp.ones(3)}, TRUE)).all()
