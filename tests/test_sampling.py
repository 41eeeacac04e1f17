"""Samples: Sobol' points are SciPy's to the bit, Latin strata hold one point each, all are functions of a number."""

import jax
import numpy as np
import pytest
from scipy.stats import qmc

from jaxcost.explore.space.axes import linear_range, log_range
from jaxcost.explore.space.sampling import SAMPLING_METHODS, Latin, pick, sampler, to_unit

SCALE = 1 << 24


def points(made, numbers):
    return np.asarray(jax.jit(jax.vmap(made.point))(np.asarray(numbers, np.int32)))


@pytest.mark.parametrize("dimensions", [1, 3, 12])
def test_sobol_is_scipys(dimensions):
    made = sampler("sobol", dimensions, 1 << 21, seed=7)
    bits = np.asarray(jax.vmap(made.bits)(np.arange(4096)))
    expected = qmc.Sobol(dimensions, rng=7, bits=30).random(4096)
    assert np.array_equal(bits, (expected * 2**30).astype(np.uint32))
    assert np.array_equal(points(made, np.arange(4096)), np.floor(expected * SCALE))
    assert np.array_equal(to_unit(points(made, [5])), points(made, [5]) / SCALE)


@pytest.mark.parametrize("number", [8191, 1 << 18, 1_000_003, (1 << 21) - 1])
def test_far_sobol_points_are_scipys(number):
    engine = qmc.Sobol(4, rng=0, bits=30)
    engine.fast_forward(number)
    expected = engine.random(1)[0]
    assert np.array_equal(points(sampler("sobol", 4, 1 << 21), [number])[0], np.floor(expected * SCALE))


def test_sobol_needs_no_more_bits_than_points():
    long, short = sampler("sobol", 5, 1 << 20), sampler("sobol", 5, 300)
    assert np.array_equal(points(long, np.arange(300)), points(short, np.arange(300)))
    assert points(sampler("sobol", 2, 1), [0]).shape == (1, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 97, 4099, 65536])
def test_every_stratum_holds_one_point(count):
    made = sampler("latin", 3, count, seed=3)
    got = points(made, np.arange(count)).astype(np.int64)
    strata = got * count // SCALE
    assert (np.sort(strata, axis=0) == np.arange(count)[:, None]).all()
    assert isinstance(made, Latin)
    assert np.array_equal(strata, jax.vmap(made.permuted)(np.arange(count)))


def test_strata_hold_up_to_the_last_of_a_million():
    count = (1 << 20) - 3
    got = points(sampler("latin", 2, count), np.arange(count)).astype(np.int64)
    assert (np.sort(got * count // SCALE, axis=0) == np.arange(count)[:, None]).all()


def test_beyond_the_coordinates_strata_share_them_evenly():
    count = (1 << 26) + 5
    made = sampler("latin", 1, count)
    numbers = np.arange(count - 1000, count)
    stratum = np.asarray(jax.vmap(made.permuted)(numbers))[:, 0].astype(np.int64)
    assert len(set(stratum.tolist())) == 1000 and stratum.max() < count
    assert np.array_equal(points(made, numbers)[:, 0], stratum * SCALE // count)


@pytest.mark.parametrize("method", SAMPLING_METHODS)
def test_dimensions_and_seeds_are_apart(method):
    count = 4096
    first, second = (points(sampler(method, 6, count, seed), np.arange(count)) for seed in (0, 1))
    # Two scrambles of one Sobol' sequence share its structure, so only its dimensions are compared.
    both = to_unit(first if method == "sobol" else np.concatenate([first, second], axis=1)).astype(float)
    correlation = np.corrcoef(both.T) - np.eye(both.shape[1])
    assert np.abs(correlation).max() < 0.08  # 5 standard errors of what is independent
    assert np.abs(both.mean(axis=0) - 0.5).max() < 0.03
    assert (first != second).mean() > 0.99
    assert ((first >= 0) & (first < SCALE)).all()
    assert np.array_equal(first, points(sampler(method, 6, count, 0), np.arange(count)))
    if method != "sobol":
        steps = np.corrcoef(both[:-1, 0], both[1:, 0])[0, 1]  # neighbours know nothing of each other
        assert abs(steps) < 0.08


def test_digits_are_equally_likely():
    got = pick(points(sampler("sobol", 1, 1 << 12), np.arange(1 << 12))[:, 0], 8)
    assert (np.bincount(got) == 512).all()
    assert pick(np.asarray([0, SCALE - 1]), 1_000_000).tolist() == [0, 999_999]


@pytest.mark.parametrize("whole", [False, True])
def test_ranges_follow_their_law(whole):
    n = np.linspace(0, SCALE - 1, 5000).astype(np.int32)
    for make, law in (
        (log_range, lambda u, a, b: a * (b / a) ** u),
        (linear_range, lambda u, a, b: a + (b - a) * u),
    ):
        knob = make("x", 2, 700, whole=whole)
        value = knob.columns(n)["x"]
        exact = law(n / SCALE, 2.0, 700.0 + whole)
        assert value.min() == 2 and value.max() <= 700
        assert np.abs(value / exact - 1)[~(np.floor(exact) != value)].max() < (0.51 if whole else 3e-7)
        if whole:
            assert (value % 1 == 0).all() and value.max() == 700
            assert (value != np.floor(exact)).mean() < 1e-3
        else:
            np.testing.assert_allclose(value, exact, rtol=3e-7)
        assert np.array_equal(value, jax.jit(jax.vmap(knob.value))(n))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("sobl", 2, 10, 0), "sobol"),
        (("latin", 2, 0, 0), "2\\^30"),
        (("latin", 2, 2**30 + 1, 0), "2\\^30"),
        (("random", 0, 10, 0), "dimension"),
        (("random", 1, 10, -1), "seed"),
    ],
)
def test_what_cannot_be_sampled(arguments, hint):
    with pytest.raises(ValueError, match=hint):
        sampler(*arguments)


@pytest.mark.parametrize(
    ("make", "bounds"), [(log_range, (0, 1)), (log_range, (2, 2)), (linear_range, (3, 1))]
)
def test_empty_ranges(make, bounds):
    with pytest.raises(ValueError, match="low < high"):
        make("x", *bounds)
    with pytest.raises(ValueError, match="whole"):
        make("x", 1.5, 4, whole=True)
