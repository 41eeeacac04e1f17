"""Operators: exact at tau = 0, smooth above, finite gradients at every singular point, both precisions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcost.core import smooth
from jaxcost.core.arrays import materialize_once


def test_ceil_div_is_exact_in_f32():
    a = np.arange(1, 4001, dtype=np.float32)
    f = jax.jit(lambda a, b: smooth.ceil_div(a, b, jnp.float32(0)))
    for b in range(1, 65):
        wanted = np.ceil(np.arange(1, 4001, dtype=np.float64) / b)
        np.testing.assert_array_equal(f(a, jnp.float32(b)), wanted)


def test_maximum_is_exact_at_zero_and_a_sum_at_one():
    rng = np.random.default_rng(0)
    a, b = (10 ** rng.uniform(-9, 3, 1000).astype(np.float32) for _ in range(2))
    np.testing.assert_array_equal(smooth.maximum(a, b, 0.0), np.maximum(a, b))
    np.testing.assert_allclose(smooth.maximum(a, b, 1.0), a + b, rtol=1e-6)
    np.testing.assert_allclose(smooth.minimum(a, b, 0.0), np.minimum(a, b), rtol=1e-6)
    np.testing.assert_allclose(smooth.minimum(a, b, 1.0), a * b / (a + b), rtol=1e-6)
    np.testing.assert_allclose(
        smooth.maximum(1e3 * a, 1e3 * b, 0.3), 1e3 * smooth.maximum(a, b, 0.3), rtol=1e-5
    )
    assert np.all(smooth.maximum(a, b, 0.2) >= np.maximum(a, b))


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (0.0, 0.0), (0.0, 2.0), (3.0, 0.0)])
@pytest.mark.parametrize("tau", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("operator", [smooth.maximum, smooth.minimum])
def test_gradients_are_finite_at_singular_points(operator, a, b, tau):
    for slope in jax.grad(operator, argnums=(0, 1, 2))(a, b, tau):
        assert np.isfinite(slope)


def test_gradients_where_they_are_known():
    assert jax.grad(smooth.maximum, argnums=(0, 1))(2.0, 2.0, 0.0) == (0.5, 0.5)
    assert jax.grad(smooth.maximum, argnums=(0, 1))(3.0, 2.0, 0.0) == (1.0, 0.0)
    assert jax.grad(smooth.maximum, argnums=(0, 1))(3.0, 2.0, 1.0) == (1.0, 1.0)
    assert jax.grad(smooth.safe_div, argnums=(0, 1))(1.0, 0.0) == (0.0, 0.0)
    assert jax.grad(smooth.ceil_div)(7.0, 4.0, 0.0) == 0.25


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_gradients_equal_finite_differences(tau):
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        for f in (smooth.maximum, smooth.minimum, smooth.ceil_div):
            for _ in range(30):
                a, b = (jnp.asarray(x) for x in rng.uniform(1.0, 9.0, 2))
                t = jnp.asarray(tau)
                for k, slope in enumerate(jax.grad(f, argnums=(0, 1, 2))(a, b, t)):
                    args = [a, b, t]
                    step = 1e-6
                    up, down = args.copy(), args.copy()
                    up[k], down[k] = args[k] + step, args[k] - step
                    wanted = (f(*up) - f(*down)) / (2 * step)
                    assert abs(slope - wanted) < 1e-6 * max(1, abs(wanted)), (f, k, a, b)


def test_ceil_log2_and_steps():
    for n in range(1, 4097):
        assert smooth.ceil_log2(jnp.float32(n)) == math.ceil(math.log2(n)), n
    assert [float(smooth.select_steps(x, (5.0, 9.0), (1.0, 2.0, 3.0))) for x in (4.9, 5.0, 9.0)] == [1, 2, 3]


def test_what_is_computed_once_keeps_value_and_gradient():
    def f(x):
        y = materialize_once({"a": jnp.asarray(x), "b": 1.0})
        return jnp.sin(y["a"]) * y["b"]

    assert f(jnp.float32(0.7)) == jnp.sin(jnp.float32(0.7))
    assert jax.grad(f)(0.7) == jnp.cos(jnp.float32(0.7))
    np.testing.assert_allclose(jax.jvp(jax.grad(f), (0.7,), (1.0,))[1], -np.sin(0.7), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(jnp.arange(3.0)), np.cos(np.arange(3.0)), rtol=1e-6)
