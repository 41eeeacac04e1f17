"""Reducers: a function of the set of designs alone, equal to NumPy on all of them at once."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax.sharding import Mesh, PartitionSpec

from jaxcost.core import wide
from jaxcost.explore.sweep import Best, Constraint, Distribution, Feasibility, Pareto, TopK
from jaxcost.explore.sweep.reducer import Batch, BatchSchema
from jaxcost.explore.sweep.tally import MARGINS

COLUMNS = ("a", "b", "c", "d", "margins.one", "margins.two", "margins.worst")
SCHEMA = BatchSchema(metrics=COLUMNS, axes=("system", "model", "tp"), shape=(3, 2, 4))
HOLDS = (Constraint("margins.worst", low=0.0),)
FEW = Feasibility(margins=("margins.one", "margins.two"))
SIZE = 48
few = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


@dataclasses.dataclass(frozen=True)
class Designs:
    values: np.ndarray
    index: np.ndarray
    axis_indices: np.ndarray

    def take(self, rows):
        return Designs(self.values[rows], self.index[rows], self.axis_indices[rows])


def designs(random, count=150, levels=6):
    """Few levels, so many ties; indices on both sides of 2^31 and 2^40; signs, infinities, NaN."""
    values = random.integers(-2, levels, (count, len(COLUMNS))).astype(np.float32) / 3
    values[:, 0] *= random.choice([1.0, 1e-20, 1e20])
    values[:, -3:] = np.abs(values[:, -3:]) - 0.2
    wild = random.choice([np.nan, np.inf, -np.inf, -0.0], (count, len(COLUMNS)))
    values = np.where(random.random(values.shape) < 0.03, wild, values).astype(np.float32)
    start = random.choice([0, 2**30 - 70, 2**31 - 70, 2**40 - 70])
    index = start + random.permutation(2 * count)[:count]
    axis_indices = np.stack([random.integers(-1, n, count) for n in SCHEMA.shape], axis=1).astype(np.int32)
    return Designs(values, index, axis_indices)


def batch(some, size=None):
    """Pad to `size` with rows that would win everywhere if they counted."""
    count = len(some.index)
    size = count if size is None else size
    pad = ((0, size - count), (0, 0))
    words = np.stack([some.index >> 30, some.index & (2**30 - 1)], axis=1).astype(np.int32)
    values = np.pad(some.values, pad)
    values[count:] = np.where(np.arange(len(COLUMNS)) < 4, -9e9, 1.0)
    return Batch(
        values=jnp.asarray(values),
        index=jnp.asarray(np.pad(words, pad)),
        axis_indices=jnp.asarray(np.pad(some.axis_indices, pad)),
        valid=jnp.arange(size) < count,
    )


update = functools.partial(jax.jit, static_argnums=(0, 1))(lambda r, schema, s, b: r.update(schema, s, b))
merge = functools.partial(jax.jit, static_argnums=(0, 1))(lambda r, schema, s, o: r.merge(schema, s, o))


def reduced(reducer, some, random):
    """Feed designs in a random order, in batches of random sizes, to several states; merge them in some tree."""
    states = [reducer.init(SCHEMA) for _ in range(random.integers(1, 5))]
    order, most = random.permutation(len(some.index)), random.choice([3, SIZE])
    while len(order):
        rows, order = np.split(order, [min(random.integers(1, most + 1), len(order))])
        at = random.integers(len(states))
        states[at] = update(reducer, SCHEMA, states[at], batch(some.take(rows), SIZE))
    while len(states) > 1:
        random.shuffle(states)
        a, b, *states = states
        states.append(merge(reducer, SCHEMA, a, b))
    return reducer.result(SCHEMA, states[0])


def same(a, b):
    for f in dataclasses.fields(a):
        x, y = np.asarray(getattr(a, f.name)), np.asarray(getattr(b, f.name))
        assert x.dtype == y.dtype and x.shape == y.shape, f.name
        assert x.tobytes() == y.tobytes() or np.array_equal(x, y, equal_nan=x.dtype.kind == "f"), f.name


def column(some, name):
    return some.values[:, COLUMNS.index(name)]


def kept(some, metrics, where=HOLDS):
    """The designs that satisfy all constraints and have numbers, for an oracle."""
    good = np.all([~np.isnan(column(some, m)) for m in metrics], axis=0)
    for c in where:
        good &= (column(some, c.metric) >= c.low) & (column(some, c.metric) <= c.high)
    return some.take(good)


def twice(reducer, seed):
    """The designs and the result, after asserting that another order gives it too."""
    some = designs(np.random.default_rng(seed))
    one = reduced(reducer, some, np.random.default_rng(seed + 1))
    same(one, reduced(reducer, some, np.random.default_rng(seed + 2)))
    return some, one


@few
@given(seeds, st.sampled_from([(1, False), (7, True), (200, True)]))
def test_top(seed, kind):
    count, largest = kind
    where = (*HOLDS, Constraint("b", high=1.0))
    some, top = twice(TopK("a", count, largest=largest, where=where), seed)
    some = kept(some, ["a"], where)
    order = np.lexsort((some.index, column(some, "a") * (-1 if largest else 1)))[:count]
    assert np.array_equal(top.index, some.index[order])
    assert np.array_equal(top.values, some.values[order], equal_nan=True)


@few
@given(seeds, st.booleans(), st.sampled_from([("system", "model"), ("tp",), ()]))
def test_best_of_groups(seed, largest, by):
    some, best = twice(Best("a", by=by, largest=largest), seed)
    some = kept(some, ["a"])
    axis_indices = some.axis_indices[:, [SCHEMA.axes.index(name) for name in by]]
    groups = np.unique(axis_indices, axis=0)
    assert np.array_equal(best.groups, groups)
    for group, index, values in zip(best.groups, best.index, best.values, strict=True):
        own = some.take(np.all(axis_indices == group, axis=1))
        at = np.lexsort((own.index, column(own, "a") * (-1 if largest else 1)))[0]
        assert own.index[at] == index
        assert np.array_equal(own.values[at], values, equal_nan=True)


def costs(some, reducer):
    return np.stack(
        [column(some, m) * (-1 if m in reducer.largest else 1) for m in reducer.objectives], axis=1
    )


def exact_front(some, reducer):
    """Rows that no other removes, by trying all pairs."""
    cost = costs(some, reducer)
    group = some.axis_indices[:, [SCHEMA.axes.index(name) for name in reducer.by]]
    within = np.all(cost[:, None] <= cost[None], axis=2) & np.all(group[:, None] == group[None], axis=2)
    apart = np.any(cost[:, None] < cost[None], axis=2)
    removed = np.any(within & (apart | (some.index[:, None] < some.index[None])), axis=0)
    return some.take(~removed)


FRONTS = (
    Pareto(("a", "b", "c"), largest=("b",)),
    Pareto(("d", "c", "b", "a"), largest=("a", "d"), size=150),
    Pareto(("a", "b"), by=("model", "tp"), where=(Constraint("c", 0.0, 1.0),)),
)


@few
@given(seeds, st.sampled_from(FRONTS))
def test_front(seed, reducer):
    some, front = twice(reducer, seed)
    some = exact_front(kept(some, reducer.objectives, reducer.where), reducer)
    assert front.complete and front.lost == 0
    order = np.argsort(some.index)
    found = np.argsort(front.index)
    assert np.array_equal(front.index[found], some.index[order])
    assert np.array_equal(front.values[found], some.values[order], equal_nan=True)
    axes = [SCHEMA.axes.index(name) for name in reducer.by]
    assert np.array_equal(front.groups[found], some.axis_indices[order][:, axes])


NEAR = (
    Pareto(("a", "b", "c"), largest=("b",), epsilon=0.3),
    Pareto(("a", "b"), epsilon=1.0, where=()),
    Pareto(("a", "b"), epsilon=1e-4, by=("system",)),
)


def scattered(random, count=150):
    """Positive, negative and zero costs over many decades and within a few per cent of each other."""
    some = designs(random, count)
    values = some.values.copy()
    values[:, :4] = random.choice([-1, 1, 1, 1], (count, 4)) * 10 ** random.uniform(-1, 1, (count, 4))
    values[:, :4] *= 1 + 1e-5 * random.integers(0, 30, (count, 4))
    values[random.random((count, len(COLUMNS))) < 0.01] = 0
    values[:, -1] = 1
    return dataclasses.replace(some, values=values)


@few
@given(seeds, st.sampled_from(NEAR))
def test_front_to_within_a_factor(seed, reducer):
    some = scattered(np.random.default_rng(seed))
    front = reduced(reducer, some, np.random.default_rng(seed + 1))
    same(front, reduced(reducer, some, np.random.default_rng(seed + 2)))
    assert front.complete and front.epsilon == reducer.epsilon
    some = kept(some, reducer.objectives, reducer.where)
    exact = exact_front(some, reducer)
    assert set(front.index.tolist()) <= set(exact.index.tolist())
    axes = [SCHEMA.axes.index(name) for name in reducer.by]
    near = costs(Designs(front.values, front.index, np.zeros((len(front.index), 3), int)), reducer).astype(
        float
    )
    for cost, group in zip(costs(some, reducer).astype(float), some.axis_indices[:, axes], strict=True):
        own = near[np.all(front.groups == group, axis=1)]
        assert np.any(np.all(own <= cost + reducer.epsilon * np.abs(cost), axis=1))


def test_a_coarser_front_is_smaller():
    some = scattered(np.random.default_rng(5), 600)
    assert FRONTS[0] == dataclasses.replace(NEAR[0], epsilon=0.0)
    sizes = [len(reduced(front, some, np.random.default_rng(1)).index) for front in (FRONTS[0], NEAR[0])]
    assert sizes[0] > sizes[1] > 0


def test_a_full_front_says_so():
    random = np.random.default_rng(3)
    some = designs(random, 150)
    along = random.permutation(150).astype(np.float32)
    some.values[:, 0], some.values[:, 1], some.values[:, -1] = along, -along, 1.0
    reducer = Pareto(("a", "b"), size=40)
    front = reduced(reducer, some, random)
    assert not front.complete
    assert len(front.index) == 40 and front.lost == 110
    assert set(front.index.tolist()) < set(some.index.tolist())
    assert reduced(Pareto(("a", "b"), size=150), some, random).complete


@few
@given(seeds)
def test_distribution(seed):
    reducer = Distribution("a", where=(Constraint("b", low=0.0),))
    some, histogram = twice(reducer, seed)
    value = np.sort(column(kept(some, ["a"], reducer.where), "a").astype(float))
    assert histogram.count == len(value) == histogram.counts.sum()
    assert (histogram.least, histogram.most) == (value[0], value[-1])
    for low, high, count in zip(histogram.edges[:-1], histogram.edges[1:], histogram.counts, strict=True):
        # Of a bin's two edges the one nearer to 0 belongs to it, and infinity.
        above = (value >= low) if low >= 0 or np.isinf(low) else (value > low)
        below = (value <= high) if high <= 0 or np.isinf(high) else (value < high)
        assert count == (above & below).sum()
    assert histogram.counts[0] and histogram.counts[-1]


def test_quantiles_are_near():
    random = np.random.default_rng(0)
    value = np.concatenate(
        [np.exp(random.normal(0, 9, 3000)), -np.exp(random.normal(0, 5, 500)), np.zeros(40)]
    )
    some = designs(random, len(value))
    some.values[:, 0], some.values[:, -1] = value, 1.0
    histogram = reduced(Distribution("a"), some, random)
    value = np.sort(value.astype(np.float32).astype(float))
    for q in np.linspace(0, 1, 173):
        exact = value[max(int(np.ceil(q * len(value))) - 1, 0)]
        assert abs(histogram.quantile(q) - exact) <= 2**-8 * abs(exact)
    positive = histogram.edges[(histogram.edges > 0) & np.isfinite(histogram.edges)]
    assert np.max(positive[1:] / positive[:-1]) <= 1 + 2**-7
    with pytest.raises(ValueError, match="from 0 to 1"):
        histogram.quantile(1.5)


@few
@given(seeds)
def test_reasons(seed):
    some, found = twice(FEW, seed)
    margins = some.values[:, 4:6]
    bad = np.isnan(margins).any(axis=1)
    fails = (margins < 0) & ~bad[:, None]
    assert (found.total, found.invalid) == (len(bad), bad.sum())
    assert found.feasible == (~bad & ~fails.any(axis=1)).sum()
    assert np.array_equal(found.violated, fails.sum(axis=0))
    assert np.array_equal(found.alone, (fails & (fails.sum(axis=1) == 1)[:, None]).sum(axis=0))
    assert found.violated.any() and found.alone.any()


ALL = (TopK("a", 3), Best("a"), FRONTS[0], Distribution("a"), FEW)


@pytest.mark.parametrize("reducer", ALL, ids=lambda r: type(r).__name__)
def test_nothing_and_nothing_good(reducer):
    empty = reducer.result(SCHEMA, reducer.init(SCHEMA))
    random = np.random.default_rng(0)
    none = batch(designs(random, 0), SIZE)
    some = designs(random, 20)
    some.values[:, 4:] = -1.0
    bad = dataclasses.replace(some, values=np.full_like(some.values, np.nan))
    padded = update(reducer, SCHEMA, reducer.init(SCHEMA), none)
    same(reducer.result(SCHEMA, padded), empty)
    if reducer is FEW:
        return
    for designs_ in (some, bad):
        state = update(reducer, SCHEMA, reducer.init(SCHEMA), batch(designs_, SIZE))
        same(reducer.result(SCHEMA, merge(reducer, SCHEMA, state, padded)), empty)
    if isinstance(reducer, Distribution):
        assert empty.count == 0 and np.isnan(empty.least)
        with pytest.raises(ValueError, match="no design"):
            empty.quantile(0.5)
    else:
        assert len(empty.index) == 0 and empty.values.shape == (0, len(COLUMNS))


@pytest.mark.parametrize("reducer", [FEW, Distribution("a")], ids=lambda r: type(r).__name__)
def test_counts_beyond_32_bits(reducer):
    some = designs(np.random.default_rng(1), 48)
    state = update(reducer, SCHEMA, reducer.init(SCHEMA), batch(some, 48))
    once = reducer.result(SCHEMA, state)
    for _ in range(42):
        state = merge(reducer, SCHEMA, state, state)
    state = update(reducer, SCHEMA, state, batch(some, 48))
    many = reducer.result(SCHEMA, state)
    for name in ("total", "feasible", "invalid", "violated", "count", "counts"):
        if hasattr(once, name):
            assert np.array_equal(getattr(many, name), getattr(once, name) * (2**42 + 1))


def test_a_bin_carries_while_batches_come():
    reducer = Distribution("a")
    some = designs(np.random.default_rng(1), 32)
    some.values[:, 0], some.values[:, -1] = 1.0, 1.0
    state = reducer.init(SCHEMA)
    at = int(np.argmax(np.asarray(update(reducer, SCHEMA, state, batch(some, SIZE)).counts)[:, 1]))
    start = wide.wide(2**40 - 40)
    state = dataclasses.replace(state, counts=state.counts.at[at].set(start))
    for _ in range(3):
        state = update(reducer, SCHEMA, state, batch(some, SIZE))
    assert reducer.result(SCHEMA, state).count == 2**40 - 40 + 96
    assert np.array_equal(state.counts[at], wide.wide(2**40 + 56))


# All of them on one device and on two: test_long_run.py, in a sweep.
@pytest.mark.parametrize(
    "reducer",
    [ALL[0], FEW, *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ALL[1:4])],
    ids=lambda r: type(r).__name__,
)
def test_in_a_loop_on_two_devices(reducer):
    some = designs(np.random.default_rng(7), 8 * 32)
    batches = jax.tree.map(
        lambda *x: jnp.stack(x), *(batch(some.take(slice(i, i + 32))) for i in range(0, 256, 32))
    )
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("designs",))
    here = PartitionSpec("designs")

    def on_device(state, batches):
        state = jax.tree.map(lambda x: x[0], state)
        turn = lambda i, s: reducer.update(SCHEMA, s, jax.tree.map(lambda x: x[i], batches))  # noqa: E731
        state = jax.lax.fori_loop(0, 4, turn, state)
        return jax.tree.map(lambda x: x[None], state)

    run = jax.jit(
        jax.shard_map(on_device, mesh=mesh, in_specs=(here, here), out_specs=here), donate_argnums=0
    )
    state = jax.tree.map(lambda x: jnp.stack([x, x]), reducer.init(SCHEMA))
    state = run(state, batches)
    halves = [jax.tree.map(lambda x, i=i: x[i], state) for i in range(2)]
    both = reducer.result(SCHEMA, merge(reducer, SCHEMA, *jax.device_put(halves, jax.devices()[0])))
    same(both, reduced(reducer, some, np.random.default_rng(0)))


def test_large_batches():
    """Those beyond what is counted pair by pair: found by halving."""
    some = designs(np.random.default_rng(11), 5000, levels=40)
    for reducer in (TopK("a", 100), FRONTS[0]):
        state = update(reducer, SCHEMA, reducer.init(SCHEMA), batch(some))
        same(reducer.result(SCHEMA, state), reduced(reducer, some, np.random.default_rng(0)))


def test_under_64_bits():
    some = designs(np.random.default_rng(2))
    fine = dataclasses.replace(some, values=some.values.astype(np.float64) + 1e-12 * np.arange(150)[:, None])
    with jax.enable_x64(True):
        for reducer in (*ALL, NEAR[0]):
            state = reducer.init(SCHEMA)
            structure = jax.tree.map(lambda x: (x.shape, x.dtype), jax.tree.leaves(state))
            state = update(reducer, SCHEMA, state, batch(fine))
            assert jax.tree.map(lambda x: (x.shape, x.dtype), jax.tree.leaves(state)) == structure
            result = reducer.result(SCHEMA, merge(reducer, SCHEMA, state, reducer.init(SCHEMA)))
            if isinstance(reducer, TopK):
                good = kept(fine, ["a"])
                order = np.lexsort((good.index, column(good, "a")))[:3]
                assert np.array_equal(result.index, good.index[order])
                assert result.values.dtype == np.float64
            if reducer is FRONTS[0]:
                assert set(result.index) == set(exact_front(kept(fine, ["a", "b", "c"]), reducer).index)


def test_names():
    assert MARGINS[0] == "margins.memory" and len(MARGINS) == 16
    assert TopK("a", 1).needs == ("a", "margins.worst")
    assert Pareto(("a", "b"), where=(Constraint("b", high=1.0),)).needs == ("a", "b")
    assert Feasibility().needs == MARGINS
    for made, again in itertools.product(ALL, ALL):
        assert (made == again) == (made is again)
        assert isinstance(hash(made), int)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TopK("a", 0), "at least 1"),
        (
            lambda: TopK("z", 1).update(
                SCHEMA, TopK("z", 1).init(SCHEMA), batch(designs(np.random.default_rng(0)))
            ),
            "no metric 'z'",
        ),
        (lambda: Best("a", by=("z",)).init(SCHEMA), "no axis 'z'"),
        (lambda: Best("a", by=("x",)).init(BatchSchema(COLUMNS, ("x",), (1 << 21,))), "groups"),
        (lambda: Pareto(("a",)), "two to four"),
        (lambda: Pareto(("a", "a")), "two to four"),
        (lambda: Pareto(("a", "b"), largest=("c",)), "c is not among the objectives"),
        (lambda: Pareto(("a", "b"), size=0), "at least 1"),
        (lambda: Pareto(("a", "b"), epsilon=2.0), "epsilon"),
        (lambda: Pareto(("a", "b"), by=("x",)).init(BatchSchema(COLUMNS, ("x",), (1 << 30,))), "groups"),
        (lambda: Feasibility(margins=()), "at least one"),
    ],
)
def test_what_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
