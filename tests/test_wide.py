"""Wide numbers: those of Python, on both sides of 2^30, 2^31 and 2^40."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxcost.core import wide

many = settings(max_examples=60, deadline=None, derandomize=True)
near = st.sampled_from([0, 1 << 30, 1 << 31, 1 << 40, (1 << 60) - (1 << 33)])
numbers = st.builds(lambda a, b: max(a + b, 0), near, st.integers(-3, 1 << 32))
steps = st.one_of(st.integers(0, 3), st.integers((1 << 30) - 3, (1 << 30) - 1))

add, plus, less = jax.jit(wide.add), jax.jit(wide.plus), jax.jit(wide.less)


@many
@given(numbers, numbers, steps)
def test_as_python_counts(a, b, n):
    assert wide.total(wide.wide(a)) == a
    assert wide.total(add(wide.wide(a), np.int32(n))) == a + n
    assert wide.total(plus(wide.wide(a), wide.wide(b))) == a + b
    assert bool(less(wide.wide(a), wide.wide(b))) == (a < b)
    low = np.asarray(plus(wide.wide(a), wide.wide(b)))[1]
    assert 0 <= low < 1 << 30


def test_arrays_of_them():
    numbers = np.asarray([0, 2**30 - 1, 2**30, 2**31 + 5, 2**45 + 7])
    words = np.stack([wide.wide(int(x)) for x in numbers])
    assert words.dtype == np.int32
    assert wide.total(words).dtype == np.int64
    assert np.array_equal(wide.total(words), numbers)
    ahead = wide.add(words, np.full(5, 2**30 - 1, np.int32))
    assert np.array_equal(wide.total(ahead), numbers + 2**30 - 1)
    assert np.array_equal(wide.less(words, ahead), np.full(5, True))


@pytest.mark.parametrize("n", [-1, 1 << 61])
def test_beyond_the_range(n):
    with pytest.raises(ValueError, match="below 2\\^61"):
        wide.wide(n)
