"""`uniform`: uniform, without correlation between neighbours, the same in NumPy and JAX."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcost.explore.replay.randomness import uniform

INDEX, EMITTED = np.meshgrid(np.arange(400), np.arange(250), indexing="ij")


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**32 - 1])
def test_numbers_are_uniform(seed):
    u = uniform(seed, INDEX, EMITTED).astype(np.float64).ravel()
    assert u.min() >= 0 and u.max() < 1
    expected = u.size / 100
    counts = np.bincount((u * 100).astype(int), minlength=100)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert 50 < chi_square < 160  # 99 degrees of freedom: 99 +- 4.3 standard deviations of 14
    assert abs(u.mean() - 0.5) < 4 * np.sqrt(1 / 12 / u.size)


@pytest.mark.parametrize("seed", [0, 7])
def test_neighbours_are_not_correlated(seed):
    u = uniform(seed, INDEX, EMITTED).astype(np.float64)
    other = uniform(seed + 1, INDEX, EMITTED).astype(np.float64)
    for x, y in ((u[1:], u[:-1]), (u[:, 1:], u[:, :-1]), (u[1:, 1:], u[:-1, :-1]), (u, other)):
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 4.5 / np.sqrt(x.size)


def test_jax_and_numpy_return_the_same_numbers():
    expected = uniform(3, INDEX, EMITTED)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(uniform(3, jnp.asarray(INDEX), jnp.asarray(EMITTED), xp=jnp), expected)
    compiled = jax.jit(lambda seed, i, g: uniform(seed, i, g, xp=jnp))
    np.testing.assert_array_equal(compiled(jnp.uint32(3), jnp.asarray(INDEX), jnp.asarray(EMITTED)), expected)


def test_scalars_wrap_without_warnings_and_equal_arrays():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in (0, 5, -1, 2**40 + 5):
            scalar = uniform(seed, 17, 4)
            assert scalar == uniform(np.int64(seed), np.array([17]), np.array([4]))[0]
            assert scalar == uniform(seed, 17, 4, xp=jnp)


def test_numbers_do_not_change_between_versions():
    assert [float(uniform(0, i, g)) * 2**24 for i, g in ((0, 0), (0, 1), (1, 0))] == [57690, 3246638, 5433682]
