"""The axes of a space: numbers, alternatives of a branch, tied axes, and samples of continuous ranges.

Every axis has a `name`, a `size`, the dotted `paths` of what it changes (each is a column of coordinates), the paths
that it `sets` to absolute values, and `put`, which applies one of its values to a design, inside jit. The values of an
axis of size n have the indices 0 to n - 1, which are scalars or arrays [designs].
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import field, pytree, replace_at
from jaxcost.explore.space import sampling
from jaxcost.explore.space.sampling import Sampler

__all__ = [
    "MAX_AXIS_SIZE",
    "Axis",
    "AxisSpec",
    "ChoiceAxis",
    "Condition",
    "Joint",
    "Range",
    "Sample",
    "Tied",
    "choice",
    "compact",
    "leaf_axes",
    "linear_range",
    "log_range",
    "sample",
    "stack",
    "take",
]

T = TypeVar("T")
Condition: TypeAlias = tuple[str, tuple[int, ...]]  # name of an earlier axis, its indices that satisfy it

MAX_AXIS_SIZE = 1 << 30
_WHEN = "conditions on earlier axes; where one fails, the axis is inactive and leaves the design unchanged"
_ROWS = jax.lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))
_LEVELS, _STEPS = 3, 256  # the 24 bits of a coordinate index three tables


def stack(trees: Sequence[T]) -> T:
    """Stack trees of equal structure along a new leading axis, so that `take` can select one by a traced index."""
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *trees)


def take(tree: T, index: Any) -> T:
    """Select row `index` of every leaf: one tree of a stack, or [n] of them; leaves of length 1 are broadcast."""
    if np.ndim(index) == 0:
        select = lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False)  # noqa: E731
    else:
        starts = index[..., None]
        select = lambda x: jax.lax.gather(x, starts, _ROWS, (1,), mode="clip")  # noqa: E731
    first = lambda x: jax.lax.index_in_dim(x, 0, keepdims=False)  # noqa: E731
    return jax.tree.map(lambda x: first(x) if x.shape[0] == 1 else select(x), tree)


def compact(tree: T) -> T:
    """Shorten stacked leaves whose rows are all equal to length 1, which `take` broadcasts as a scalar."""
    constant = lambda x: x.ndim == 1 and len(x) > 1 and (x == x[0]).all()  # noqa: E731
    return jax.tree.map(lambda x: x[:1] if constant(np.asarray(x)) else x, tree)


class _OnePath:
    """Properties of an axis that changes one leaf or branch."""

    path: str

    @property
    def name(self) -> str:
        """Name of the axis: its path."""
        return self.path

    @property
    def paths(self) -> tuple[str, ...]:
        """Dotted paths that change."""
        return (self.path,)


class _OneNumber(_OnePath):
    """Properties of an axis that changes one leaf, to a value or by a factor."""

    relative: bool

    @property
    def sets(self) -> tuple[str, ...]:
        """Dotted paths that are set to absolute values."""
        return () if self.relative else (self.path,)

    def _put(self, design: T, value: Any) -> T:
        before = operator.attrgetter(self.path)
        return replace_at(design, self.path, value * before(design) if self.relative else value)


class _Composite:
    """Properties of an axis that consists of others."""

    @property
    def members(self) -> "tuple[Axis | ChoiceAxis | Tied | Range | Joint, ...]":
        """The axes that it consists of, in the order in which they change a design."""
        raise NotImplementedError

    @property
    def paths(self) -> tuple[str, ...]:
        """Dotted paths that change."""
        return tuple(path for member in self.members for path in member.paths)

    @property
    def sets(self) -> tuple[str, ...]:
        """Dotted paths that are set to absolute values."""
        return tuple(path for member in self.members for path in member.sets)


@pytree
class Axis(_OneNumber):
    """The values of one leaf of a Design, absolute or as factors on the value in the design."""

    values: jax.Array = field("1", "values, in the unit of the leaf, or factors")
    path: str = field(doc='dotted path, such as "system.chip.memory.bandwidth"', static=True)
    relative: bool = field(doc="whether the values multiply the leaf", static=True, default=False)
    when: tuple[Condition, ...] = field(doc=_WHEN, static=True, default=())

    @property
    def size(self) -> int:
        """Number of values."""
        return self.values.shape[0]

    def put(self, design: T, index: Any) -> T:
        """Return the design with the value at an index."""
        return self._put(design, take(self.values, index))

    def columns(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values at indices, by path."""
        return {self.path: np.asarray(self.values)[index]}


@pytree
class ChoiceAxis(_OnePath):
    """Named alternatives of a branch, or of a set of leaves: a memory, a price book, a grid, a topology.

    Leaves named in `counted` hold the amount of one unit, such as the engines near one stack of memory. They are
    multiplied by the number of units at `count` in the design, at least 1.
    """

    trees: Any = field(
        doc="stacked along a leading axis: the branch at `path`, or a mapping from dotted paths to leaves"
    )
    path: str = field(doc="dotted path of the branch, or any name where `trees` is a mapping", static=True)
    names: tuple[str, ...] = field(doc="names of the alternatives", static=True)
    count: str = field(doc="dotted path of the number of units", static=True, default="")
    counted: tuple[str, ...] = field(doc="leaves of the branch that it multiplies", static=True, default=())
    when: tuple[Condition, ...] = field(doc=_WHEN, static=True, default=())

    @property
    def size(self) -> int:
        """Number of alternatives."""
        return len(self.names)

    @property
    def sets(self) -> tuple[str, ...]:
        """Dotted paths that are set to absolute values."""
        return tuple(self.branches)

    @property
    def branches(self) -> Mapping[str, Any]:
        """Stacked branches by dotted path."""
        return self.trees if isinstance(self.trees, Mapping) else {self.path: self.trees}

    def put(self, design: T, index: Any) -> T:
        """Return the design with the alternative at an index."""
        for path, branch in self.branches.items():
            taken = take(branch, index)
            for leaf in self.counted:
                count = jnp.maximum(operator.attrgetter(self.count)(design), 1)
                taken = replace_at(taken, leaf, getattr(taken, leaf) * count)
            design = replace_at(design, path, taken)
        return design

    def columns(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the names at indices, by path."""
        return {self.path: np.asarray(self.names)[index]}


def choice(path: str, trees: Mapping[str, Any], *, when: tuple[Condition, ...] = ()) -> ChoiceAxis:
    """Make an axis of named alternatives: `choice("system.chip.hbf", {"none": Memory(), "hbf": flash})`.

    Args:
        path: dotted path of the branch; any name where each tree is a mapping from dotted paths to leaves.
        trees: the alternatives by name, of equal structure.
        when: conditions on earlier axes.
    """
    floats = [jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), tree) for tree in trees.values()]
    return ChoiceAxis(path=path, trees=stack(floats), names=tuple(trees), when=when)


@pytree
class Tied(_Composite):
    """Several axes of equal size with a common index."""

    axes: tuple[Axis | ChoiceAxis, ...] = field(doc="axes of equal size")
    when: tuple[Condition, ...] = field(doc=_WHEN, static=True, default=())

    @property
    def members(self) -> tuple[Axis | ChoiceAxis, ...]:
        """The axes."""
        return self.axes

    @property
    def name(self) -> str:
        """Names of the axes, joined by plus signs."""
        return "+".join(axis.name for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of values of each axis.

        Raises:
            ValueError: the axes differ in size.
        """
        sizes = {axis.size for axis in self.axes}
        if len(sizes) != 1:
            raise ValueError(f"tied axes need equal numbers of values; {self.name} have {sorted(sizes)}")
        return sizes.pop()

    def put(self, design: T, index: Any) -> T:
        """Return the design with the value of every axis at an index."""
        for axis in self.axes:
            design = axis.put(design, index)
        return design

    def columns(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values at indices, by path."""
        return {path: column for axis in self.axes for path, column in axis.columns(index).items()}


@pytree
class Range(_OneNumber):
    """A continuous knob of a sample: the values at coordinates n of 24 bits, from three tables of 256 entries.

        x = A[n / 65536] o B[n / 256 mod 256] o C[n mod 256],   o is a product where x is even in log x, else a sum

    Each operation rounds once and none is fused with another, so every machine computes the same value, bit for bit.
    """

    tables: jax.Array = field("1", "A, B and C, shape [3, 256], in the unit of the leaf, or factors")
    low: jax.Array = field("1", "least value")
    high: jax.Array = field("1", "largest value")
    path: str = field(doc="dotted path", static=True)
    product: bool = field(doc="whether the tables multiply", static=True)
    relative: bool = field(doc="whether the values multiply the leaf", static=True, default=False)
    whole: bool = field(doc="whether values are rounded down to whole numbers", static=True, default=False)

    def value(self, coordinate: Any) -> Any:
        """Return the values at coordinates: JAX arrays, or NumPy arrays where the tables are."""
        mask = _STEPS - 1
        a, b, c = (self.tables[k][(coordinate >> (8 * (_LEVELS - 1 - k))) & mask] for k in range(_LEVELS))
        value = a * b * c if self.product else a + b + c
        value = value.astype(np.int32).astype(value.dtype) if self.whole else value
        return value.clip(self.low, self.high)

    def put(self, design: T, coordinate: Any) -> T:
        """Return the design with the value at a coordinate."""
        return self._put(design, self.value(coordinate))

    def columns(self, coordinate: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values at coordinates, by path."""
        return {self.path: jax.tree.map(np.asarray, self).value(coordinate)}


@pytree
class Joint(_Composite):
    """Several ranges with a common coordinate."""

    ranges: tuple[Range, ...] = field(doc="the ranges; the first gives the values that are shown")
    name: str = field(doc="name of the knob", static=True)

    @property
    def members(self) -> tuple[Range, ...]:
        """The ranges."""
        return self.ranges

    def put(self, design: T, coordinate: Any) -> T:
        """Return the design with the value of every range at a coordinate."""
        for r in self.ranges:
            design = r.put(design, coordinate)
        return design

    def columns(self, coordinate: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of the first range at coordinates, under the name of the knob."""
        return {self.name: self.ranges[0].columns(coordinate)[self.ranges[0].path]}


def log_range(path: str, low: float, high: float, *, relative: bool = False, whole: bool = False) -> Range:
    """Make a knob of a sample that is uniform in the logarithm: x = low (high / low)^u, with u in [0, 1).

    Args:
        path: dotted path.
        low: least value or factor, above 0.
        high: largest value or factor.
        relative: whether the values multiply the leaf.
        whole: whether values are whole numbers from low to high: floor(low ((high + 1) / low)^u).

    Raises:
        ValueError: not 0 < low < high, or whole numbers with bounds that are not whole or exceed 2^24.
    """
    _check_range(low, high, whole=whole, above=0.0)
    ratio = (high + whole) / low
    factors = [ratio ** (np.arange(_STEPS) / _STEPS ** (k + 1)) for k in range(_LEVELS)]
    factors[0] = factors[0] * low
    return _range(path, factors, low, high, product=True, relative=relative, whole=whole)


def linear_range(path: str, low: float, high: float, *, relative: bool = False, whole: bool = False) -> Range:
    """Make a knob of a sample that is uniform between its bounds: x = low + (high - low) u, with u in [0, 1).

    Args:
        path: dotted path.
        low: least value or factor.
        high: largest value or factor.
        relative: whether the values multiply the leaf.
        whole: whether values are whole numbers, from low to high with equal probability.

    Raises:
        ValueError: not low < high, or whole numbers with bounds that are not whole or exceed 2^24.
    """
    _check_range(low, high, whole=whole, above=-np.inf)
    terms = [(high + whole - low) * np.arange(_STEPS) / _STEPS ** (k + 1) for k in range(_LEVELS)]
    terms[0] = terms[0] + low
    return _range(path, terms, low, high, product=False, relative=relative, whole=whole)


def _check_range(low: float, high: float, *, whole: bool, above: float) -> None:
    if not above < low < high < np.inf:
        expected = "0 < low < high" if above == 0 else "low < high"
        raise ValueError(f"a range needs {expected}; got {low:g} and {high:g}")
    if whole and (low % 1 or high % 1 or low < 0 or high >= 1 << 24):
        raise ValueError(
            f"a range of whole numbers needs whole bounds from 0 to 2^24; got {low:g} and {high:g}"
        )


def _range(path: str, tables: list[np.ndarray], low: float, high: float, **options: bool) -> Range:
    dtype = jnp.result_type(float)
    stacked, least, most = (jnp.asarray(x, dtype) for x in (np.stack(tables), low, high))
    return Range(tables=stacked, low=least, high=most, path=path, **options)


@pytree
class Sample(_Composite):
    """Several knobs that vary together: point i of a sampler gives each knob the coordinate along its dimension.

    A range takes its value at the coordinate. An axis, an alternative or tied axes take the index floor(u n) of n.
    """

    knobs: tuple[Range | Joint | Axis | ChoiceAxis | Tied, ...] = field(doc="what varies")
    points: Sampler = field(doc="points of the unit cube")
    size: int = field(doc="number of points, at most 2^30", static=True)
    name: str = field(doc="name, different from those of other axes", static=True, default="sample")
    when: tuple[Condition, ...] = field(doc=_WHEN, static=True, default=())

    @property
    def members(self) -> "tuple[Range | Joint | Axis | ChoiceAxis | Tied, ...]":
        """The knobs."""
        return self.knobs

    def put(self, design: T, index: Any) -> T:
        """Return the design with the values of a point."""
        coordinates = self.points.point(index)
        for k, knob in enumerate(self.knobs):
            design = knob.put(design, _knob_index(knob, coordinates[k]))
        return design

    def columns(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of points, by path."""
        coordinates = _coordinates(self.points, index)
        columns: dict[str, np.ndarray] = {}
        for knob, coordinate in zip(self.knobs, coordinates, strict=True):
            columns |= knob.columns(_knob_index(knob, coordinate))
        return columns


def sample(
    *knobs: Range | Joint | Axis | ChoiceAxis | Tied,
    count: int,
    method: str = "sobol",
    seed: int = 0,
    name: str = "sample",
    when: tuple[Condition, ...] = (),
) -> Sample:
    """Make an axis of `count` points over several knobs: `sample(log_range(...), Axis(...), count=1 << 20)`.

    Args:
        knobs: what varies; conditions are on the sample, not on its knobs.
        count: number of points, at most 2^30.
        method: "sobol", "latin" or "random".
        seed: seed of the points, from 0 to 2^32 - 1.
        name: name of the axis.
        when: conditions on earlier axes.

    Raises:
        ValueError: no such method, or no such count or seed.
    """
    points = sampling.sampler(method, len(knobs), count, seed)
    return Sample(knobs=knobs, points=points, size=count, name=name, when=when)


AxisSpec: TypeAlias = Axis | ChoiceAxis | Tied | Sample


def leaf_axes(axis: AxisSpec | Range | Joint) -> Iterator[Axis | ChoiceAxis | Range]:
    """Yield the axes of single paths that an axis consists of, in the order in which they change a design."""
    if isinstance(axis, Tied | Sample | Joint):
        for member in axis.members:
            yield from leaf_axes(member)
    else:
        yield axis


def _knob_index(knob: Range | Joint | Axis | ChoiceAxis | Tied, coordinate: Any) -> Any:
    return coordinate if isinstance(knob, Range | Joint) else sampling.pick(coordinate, knob.size)


_points = jax.jit(lambda points, index: points.point(index))


def _coordinates(points: Sampler, index: np.ndarray) -> np.ndarray:
    # Padded to a power of two, so that few lengths are compiled.
    padded = np.zeros(1 << max(len(index) - 1, 0).bit_length(), np.int32)
    padded[: len(index)] = index
    return np.asarray(_points(points, padded))[:, : len(index)]
