"""Fits of several chips together: units share what they do not tell apart, and intervals say how far others may lie."""

import numpy as np
import pytest

import jaxcost as jc
from jaxcost.explore.calibrate.cross_validation import Form, scores
from jaxcost.explore.calibrate.fit import Bounds, Effects, Prior, fit, predict, unbounded
from jaxcost.explore.calibrate.kernel_families import FAMILIES, selections
from jaxcost.explore.calibrate.pooling import LIBRARY, Widths, held_out, pool_selections
from tests.test_calibrate import KERNEL, gemm_rows

GENERATIONS = {"a100-80gb-sxm": "ampere", "l40s": "ada", "h100-sxm": "hopper", "h200-sxm": "hopper"}
RATE = Form("rate", lambda columns, p: columns["work"] / p["rate"], {"rate": Bounds(1e9, 1e13, 1e11)})


def units(rates, each=40, noise=0.01):
    """Rows of one unit per rate."""
    rng = np.random.default_rng(1)
    unit = np.repeat(np.arange(len(rates)), each)
    work = 10 ** rng.uniform(6, 9, len(unit))
    return {"work": work}, work / np.asarray(rates)[unit] * np.exp(rng.normal(0, noise, len(unit))), unit


def rates_of(width, rates, weights=None):
    """Fitted rate of each unit, and of one without rows, with its interval."""
    columns, seconds, unit = units(rates)
    weights = np.ones((1, len(unit))) if weights is None else weights[None, unit]
    count = len(rates)
    widths = np.concatenate([np.eye(count) * width, np.zeros((1, count))])
    effects = Effects(unit, widths, np.asarray([0.0] * count + [width**2]))
    found = fit(RATE.seconds, RATE.bounds, columns, seconds, weights, unit, effects=effects)
    return found.values[0, :, 0], found.low[0, :, 0], found.high[0, :, 0]


def test_units_with_rows_keep_their_own_values_and_others_take_the_mean():
    values, low, high = rates_of(0.5, [2e11, 4e11])
    assert values[:2] == pytest.approx([2e11, 4e11], rel=0.01)
    assert values[2] == pytest.approx(np.sqrt(8) * 1e11, rel=0.02)
    assert low[2] < 2e11 < 4e11 < high[2]


def test_a_narrow_width_pulls_units_together():
    apart, _, _ = rates_of(1.0, [2e11, 4e11], np.asarray([1.0, 0.01]))
    near, _, _ = rates_of(0.01, [2e11, 4e11], np.asarray([1.0, 0.01]))
    assert abs(np.log(near[1] / near[0])) < 0.3 * abs(np.log(apart[1] / apart[0]))


def test_a_prior_gives_way_to_rows():
    columns, seconds, unit = units([3e11])
    prior = Prior(unbounded(RATE.bounds, {"rate": 1e11}), np.asarray([0.05]))
    none = fit(RATE.seconds, RATE.bounds, columns, seconds, np.zeros((1, 40)), unit, prior=prior)
    few = fit(
        RATE.seconds, RATE.bounds, columns, seconds, (np.arange(40) < 2)[None] * 0.01, unit, prior=prior
    )
    all_rows = fit(RATE.seconds, RATE.bounds, columns, seconds, np.ones((1, 40)), unit, prior=prior)
    assert none.parameters(0)["rate"] == pytest.approx(1e11, rel=1e-3)
    assert 1e11 < few.parameters(0)["rate"] < 2.9e11
    assert all_rows.parameters(0)["rate"] == pytest.approx(3e11, rel=0.01)
    assert none.low[0, 0, 0] < few.low[0, 0, 0] < all_rows.low[0, 0, 0]


@pytest.fixture(scope="module")
def pooled():
    """Matmuls of one library on four chips whose launches differ by generation alone."""
    kernels = {
        name: KERNEL | {"launch": {"ampere": 6e-6, "ada": 5e-6, "hopper": 3e-6}[of]}
        for name, of in GENERATIONS.items()
    }
    rows = [gemm_rows(name, kernel, seed=i) for i, (name, kernel) in enumerate(kernels.items())]
    systems = {name: jc.load_system(name) for name in GENERATIONS}
    parts = selections(FAMILIES["matmul"], rows, systems)
    (one,) = pool_selections(parts, GENERATIONS, widths=Widths(1.0, 0.1))
    return one


def test_generations_differ_and_chips_of_one_do_not(pooled):
    launch = {unit: values["launch"][0] for unit, values in pooled.values.items()}
    assert set(launch) == {LIBRARY, *GENERATIONS.values(), *GENERATIONS}
    assert launch["h100-sxm"] == pytest.approx(3e-6, rel=0.1)
    assert launch["hopper"] == pytest.approx(launch["h200-sxm"], rel=0.1)
    assert launch["a100-80gb-sxm"] == pytest.approx(6e-6, rel=0.1)
    assert launch["hopper"] < launch[LIBRARY] < launch["ampere"]
    assert pooled.values[LIBRARY]["launch"][2] > 5e-6 and pooled.values["h100-sxm"]["launch"][2] < 4e-6


def test_left_out_chips_are_predicted_by_their_generation(pooled):
    chip = pooled.selection.rows.labels["chip"].astype(str)
    known = np.isfinite(pooled.held["chip"])
    assert set(chip[known]) == {"h100-sxm", "h200-sxm"}  # the others are alone in their generation
    assert scores(pooled.held["chip"][known])[0] < 0.03
    assert np.isfinite(pooled.held["generation"]).all() and np.isfinite(pooled.held["shapes"]).all()
    assert scores(pooled.held["shapes"])[0] < 0.03 < scores(pooled.held["generation"])[0]
    assert set(pooled.left_out["generation"]) == {"ampere", "ada", "hopper"}


def test_intervals_hold_four_fifths_of_the_rows_left_out(pooled):
    for circumstance, least in (("shapes", 0.72), ("chip", 0.72), ("generation", 0.3)):
        one = held_out([pooled], circumstance)
        assert one is not None and one.low < 0 < one.high and one.covered is not None
        assert least <= one.covered <= 0.88
    shapes, generation = (held_out([pooled], name) for name in ("shapes", "generation"))
    assert generation.high - generation.low > shapes.high - shapes.low


def test_parameters_of_a_row_follow_its_unit(pooled):
    part = pooled.selection
    chip = part.rows.labels["chip"].astype(str)
    rows = {n: np.asarray([pooled.values[c][n][0] for c in chip]) for n in part.form.bounds}
    errors = np.log(predict(part.form.seconds, part.columns, rows) / part.rows.seconds)
    assert errors == pytest.approx(pooled.inside, abs=1e-9)
