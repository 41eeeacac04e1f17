"""A native batch, vmap, lax.map, a loop and jit agree; a mixed sweep traces once."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.explore.sweep.run import METRICS, design_metrics
from tests.batched import program, run, take

# Old architectures, and with sparse attention, two shapes of attention and latent experts in a hybrid.
MODELS = [*jc.list_names("models")[::3][:18], "gemma-4-26b-a4b", "nemotron-3-super-120b-a12b"]
CHIPS = jc.list_names("chips")[::2][:20]


def designs(dtype=np.float32):
    """A batch over 20 models, 20 chips, batches and tp."""
    systems = jc.stack([jc.load_system(f"{c}-x8") for c in CHIPS])
    models = jc.stack([jc.load_model(m) for m in MODELS])
    n = len(CHIPS)
    batch = 2.0 ** (np.arange(n) % 9)
    tp = 2.0 ** (np.arange(n) % 4)
    many = lambda tree: jax.tree.map(lambda x: jnp.full(n, x, dtype), tree)  # noqa: E731
    return jc.canonical(
        jc.Design(
            system=systems,
            model=models,
            traffic=jc.replace(many(jc.Traffic(prompt=2048, output=256)), batch=batch),
            plan=jc.replace(many(jc.Plan()), tp=tp),
            prices=many(jc.Prices()),
            knobs=many(jc.Knobs()),
        ),
        dtype,
    )


def metrics(design):
    # No chip of the catalogue has tiers, engines near memory or cooling: they are left out, as a sweep does.
    return design_metrics(design, METRICS, features=())


def agree(found, wanted, rtol):
    # Margins are differences from 1: absolute error there, relative elsewhere.
    np.testing.assert_allclose(found, wanted, rtol=10 * rtol, atol=4 * rtol)


PRECISIONS = pytest.mark.parametrize(("dtype", "rtol"), [(np.float32, 2e-6), (np.float64, 1e-12)])


@PRECISIONS
def test_native_batch_vmap_map_and_loop_agree(dtype, rtol):
    with jax.enable_x64(dtype == np.float64):
        batch = designs(dtype)
        vmapped = run(jax.vmap(metrics), batch)
        one = program(metrics, take(batch, 0))
        agree(np.stack([one(take(batch, i)) for i in range(len(CHIPS))]), vmapped, rtol)
        agree(run(lambda b: jax.lax.map(metrics, b, batch_size=8), batch), vmapped, rtol)
        agree(run(metrics, batch).T, vmapped, rtol)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(np.float32, 2e-6), pytest.param(np.float64, 1e-12, marks=pytest.mark.exhaustive)]
)
def test_jit_agrees_with_the_interpreter(dtype, rtol):
    with jax.enable_x64(dtype == np.float64):
        batch = designs(dtype)
        agree(jax.jit(metrics)(batch), run(metrics, batch), rtol)


@PRECISIONS
def test_leaves_of_any_shape_broadcast(dtype, rtol):
    """Systems along one axis, models along the next, all else shared: as every pair of them alone."""
    with jax.enable_x64(dtype == np.float64):
        batch = designs(dtype)
        first = take(batch, 0)
        systems = jax.tree.map(lambda x: x[:3, None], batch.system)
        models = jax.tree.map(lambda x: x[:4], batch.model)
        found = run(metrics, jc.replace(first, system=systems, model=models))
        assert found.shape == (len(METRICS), 3, 4)
        one = program(metrics, first)
        for i, j in np.ndindex(3, 4):
            pair = jc.replace(first, system=take(batch.system, i), model=take(batch.model, j))
            agree(found[:, i, j], one(pair), rtol)


def test_a_mixed_sweep_traces_once():
    traces = []

    @jax.jit
    def f(design):
        traces.append(1)
        return metrics(design)

    batch = designs()
    for i in range(len(CHIPS)):
        f.eval_shape(take(batch, i))
    for tau in (0, 0.05, np.float64(0.1)):
        f.eval_shape(jc.canonical(jc.replace(take(batch, 0), knobs=jc.Knobs(tau=tau))))
    assert len(traces) == 1


def test_one_number_of_attention_may_be_a_batch():
    """Windows, selections and heads of some shapes broadcast against those of others that are single numbers."""
    system, traffic = jc.load_system("h100-sxm-x8"), jc.Traffic(prompt=4096, output=64, batch=8)
    for name, path in (
        ("gemma-3-27b", "window_attention.window"),
        ("deepseek-v4-flash", "sparse_attention.selected"),
        ("gemma-4-26b-a4b", "attention.head_dim"),
    ):
        model = jc.load_model(name)
        values = operator.attrgetter(path)(model) * np.asarray([1.0, 2.0, 0.5])
        batch = jc.evaluate(system, jc.replace_at(model, path, values), traffic, jc.Plan(tp=8)).tpot
        one_by_one = [
            jc.evaluate(system, jc.replace_at(model, path, x), traffic, jc.Plan(tp=8)).tpot for x in values
        ]
        np.testing.assert_allclose(batch, one_by_one, rtol=2e-6)
