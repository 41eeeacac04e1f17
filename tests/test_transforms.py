"""jit, vmap, lax.map and a loop agree; a mixed sweep traces once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcost as jc
from jaxcost.explore.sweep import METRICS, design_metrics

MODELS = jc.list_names("models")[::3][:20]
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
    return design_metrics(design, METRICS, present=())


@pytest.mark.parametrize(("x64", "rtol"), [(False, 2e-6), (True, 1e-12)])
def test_jit_vmap_map_and_loop_agree(x64, rtol):
    with jax.enable_x64(x64):
        batch = designs(np.float64 if x64 else np.float32)
        vmapped = jax.jit(jax.vmap(metrics))(batch)
        others = [] if x64 else [jax.jit(lambda b: jax.lax.map(metrics, b, batch_size=8))(batch)]
        one = jax.jit(metrics)
        loop = np.stack([one(jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(len(CHIPS))])
        # Margins are differences from 1: absolute error there, relative elsewhere.
        for other in (*others, loop):
            np.testing.assert_allclose(other, vmapped, rtol=10 * rtol, atol=4 * rtol)


def test_a_mixed_sweep_traces_once():
    traces = []

    @jax.jit
    def f(design):
        traces.append(1)
        return metrics(design)

    batch = designs()
    for i in range(len(CHIPS)):
        f(jax.tree.map(lambda x, i=i: x[i], batch))
    for tau in (0, 0.05, np.float64(0.1)):
        f(jc.canonical(jc.replace(jax.tree.map(lambda x: x[0], batch), knobs=jc.Knobs(tau=tau))))
    assert len(traces) == 1
