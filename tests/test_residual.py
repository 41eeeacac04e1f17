"""The learned correction on top of the physical forms: bounded, local, repeatable, and refused where it is noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.explore.calibrate.cross_validation import calibrate_rows, scores
from jaxcost.explore.calibrate.fit import predict
from jaxcost.explore.calibrate.kernel_families import FAMILIES, selections
from jaxcost.explore.calibrate.residual import BOUND, MARGIN, helps, train
from jaxcost.spec.measurement import Measurements

TRUTH = {
    "launch": 4e-6,
    "depth": 2e-10,
    "memory": 0.8,
    "matmul": 0.7,
    "serial": 0.2,
    "rows": 64.0,
    "waves": 0.3,
    "quantise": 1.0,
}
CHIPS = {"h100-sxm": jc.load_system("h100-sxm")}
LABELS = {"chip": "h100-sxm", "library": "none", "version": "1", "precision": "bfloat16", "source": "made"}


def matmuls(wave, noise, seed):
    """Rows that the form predicts but for a wave in ln(rows), which it cannot express, and noise."""
    rng = np.random.default_rng(seed)
    rows, columns, inner = (
        x.ravel()
        for x in np.meshgrid(
            2.0 ** np.arange(0, 13), [2048.0, 4096.0, 8192.0, 16384.0], [2048.0, 8192.0], indexing="ij"
        )
    )
    count = len(rows)
    work = {"rows": rows, "columns": columns, "inner": inner}
    work |= {name: np.full(count, 16.0) for name in ("weight_bits", "activation_bits")}
    labels = {name: np.full(count, word, object) for name, word in LABELS.items()}
    made = Measurements(
        family="matmul",
        work=work,
        seconds=np.ones(count),
        labels=labels,
        source="made",
        file="none",
        line=np.arange(count),
    )
    family = FAMILIES["matmul"]
    seconds = predict(family.form(CHIPS["h100-sxm"]).run, family.columns(made, CHIPS), TRUTH)
    off = wave * np.sin(0.8 * np.log2(rows) + 1) + noise * rng.normal(size=count)
    made.seconds[:] = seconds * np.exp(off)
    (selection,) = selections(family, [made], CHIPS)
    return selection


@functools.cache
def trained(seed=0):
    selection = matmuls(0.15, 0.01, 0)
    form = selection.form
    found = calibrate_rows(
        form, selection.columns, selection.rows.seconds, selection.axis, most_folds=3, seed=0
    )
    return selection, found, train(selection, found, seed=seed)


def moved(selection, **factors):
    return {name: x * factors.get(name, 1.0) for name, x in selection.columns.items()}


def test_the_correction_is_bounded_and_improves_what_it_was_trained_on():
    selection, found, residual = trained()
    factor, on = residual.correction(selection.columns)
    assert np.all(on) and np.all(np.abs(factor) <= BOUND)
    before, after = scores(found.inside), scores(found.inside + factor)
    assert after[0] < 0.5 * before[0] and after[1] < 0.7 * before[1]
    # Where rows ask for more than the bound, no more is given.
    tight = train(selection, found, bound=0.05)
    assert np.max(np.abs(tight.correction(selection.columns)[0])) <= 0.05


@pytest.mark.parametrize("name", ["rows", "columns", "inner"])
def test_there_is_none_outside_the_range_of_training(name):
    selection, _, residual = trained()
    factor, on = residual.correction(moved(selection, **{name: 2.0**20}))
    assert not np.any(on) and np.all(factor == 0)
    # Bits did not vary: 8 of them are another kernel.
    factor, on = residual.correction(moved(selection, weight_bits=0.25, activation_bits=0.25))
    assert not np.any(on) and np.all(factor == 0)


def test_it_fades_between_the_range_and_its_margin():
    selection, _, residual = trained()
    most = selection.columns["rows"].max()
    at = {name: x[selection.columns["rows"] == most][:1] for name, x in selection.columns.items()}
    beyond = np.array([0.0, 0.3, 0.6, 0.9, 1.0, 1.1])
    rows = (1 + most) * np.exp(beyond * MARGIN) - 1
    many = {name: np.repeat(x, len(beyond)) for name, x in at.items()} | {"rows": rows}
    with jax.enable_x64(True):
        factor, on = (np.asarray(x) for x in residual.correction(many))
    assert np.all(on[:4]) and not np.any(on[4:])
    assert np.all(factor[4:] == 0) and 0 < abs(factor[3]) < 0.1 * abs(factor[0])


def test_a_seed_gives_the_same_bits_and_another_seed_others():
    selection, found, residual = trained()
    again, other = train(selection, found, seed=0), train(selection, found, seed=1)
    same = jax.tree.map(lambda a, b: bool(np.all(a == b)), residual.weights, again.weights)
    assert all(jax.tree.leaves(same))
    different = jax.tree.map(lambda a, b: bool(np.any(a != b)), residual.weights, other.weights)
    assert any(jax.tree.leaves(different))


def test_its_gradient_is_finite_everywhere():
    selection, _, residual = trained()
    columns = {name: jnp.asarray(x) for name, x in selection.columns.items()}
    slope = jax.jit(jax.grad(lambda rows: residual.correction({**columns, "rows": rows})[0].sum()))
    for factor in (1.0, 1.5, 2.0**20):
        assert np.all(np.isfinite(slope(columns["rows"] * factor)))


def test_it_helps_where_a_form_cannot_express_what_repeats_across_the_axis():
    found = helps(matmuls(0.15, 0.01, 0), most_folds=3)
    before, after = found.scores
    assert found.helped and np.mean(found.on) > 0.5
    assert after[0] < 0.7 * before[0] and after[1] < 0.9 * before[1]


def test_it_does_not_claim_to_help_on_noise():
    for seed in range(2):
        found = helps(matmuls(0.0, 0.1, seed), most_folds=3)
        assert not found.helped
