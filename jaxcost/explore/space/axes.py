"""What varies over a space: numbers, branches taken whole, several of them tied to one digit, and samples.

Every kind of axis has a `name`, a `size`, the `paths` that it moves (one column of coordinates each), the paths that it
`sets` absolutely, and `put`, which makes the change to a design on the device. Symbols: n is the size of an axis, its
digits run from 0 to n - 1, scalars or arrays [designs].
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
    "MOST_DIGITS",
    "Axis",
    "Choice",
    "Condition",
    "Joint",
    "Part",
    "Range",
    "Sample",
    "Tied",
    "choice",
    "compact",
    "leaves_moved",
    "linear_range",
    "log_range",
    "sample",
    "stack",
    "take",
]

T = TypeVar("T")
Condition: TypeAlias = tuple[str, tuple[int, ...]]  # the name of an earlier axis, and the digits that hold

MOST_DIGITS = 1 << 30
_WHEN = (
    "conditions that must all hold, each on an earlier axis; elsewhere the axis leaves designs as they are"
)
_ROWS = jax.lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))
_LEVELS, _STEPS = 3, 256  # a coordinate's 24 bits look up three tables


def stack(trees: Sequence[T]) -> T:
    """Stack trees of one structure along a new leading axis, for a traced choice among them."""
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *trees)


def take(tree: T, digit: Any) -> T:
    """Take one of stacked trees, or one a digit. A stack of length 1 holds what all digits share."""
    one = lambda x: jax.lax.index_in_dim(x, 0, keepdims=False)  # noqa: E731
    if np.ndim(digit) == 0:
        pick = lambda x: jax.lax.dynamic_index_in_dim(x, digit, keepdims=False)  # noqa: E731
    else:
        index = digit[..., None]
        pick = lambda x: jax.lax.gather(x, index, _ROWS, (1,), mode="clip")  # noqa: E731
    return jax.tree.map(lambda x: one(x) if x.shape[0] == 1 else pick(x), tree)


def compact(tree: T) -> T:
    """Shorten stacks whose rows are all equal to length 1, so that `take` gives one number for all digits."""
    same = lambda x: x.ndim == 1 and len(x) > 1 and (x == x[0]).all()  # noqa: E731
    return jax.tree.map(lambda x: x[:1] if same(np.asarray(x)) else x, tree)


@pytree
class Axis:
    """One dotted path of a Design and the values it takes, absolute or as factors on what is there."""

    values: jax.Array = field("1", "values, in the unit of the leaf, or factors")
    path: str = field(doc='dotted path, such as "system.chip.memory.bandwidth"', static=True)
    relative: bool = field(doc="whether the values multiply the leaf", static=True, default=False)
    when: tuple[Condition, ...] = field(doc=_WHEN, static=True, default=())

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

    @property
    def size(self) -> int:
        """Number of values."""
        return self.values.shape[0]

    @property
    def paths(self) -> tuple[str, ...]:
        """What it moves."""
        return (self.path,)

    @property
    def sets(self) -> tuple[str, ...]:
        """What it sets absolutely."""
        return () if self.relative else (self.path,)

    def put(self, design: T, digit: Any) -> T:
        """Return the design with the value of a digit."""
        return _put_number(design, self.path, take(self.values, digit), self.relative)

    def columns(self, digit: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of digits."""
        return {self.path: np.asarray(self.values)[digit]}


@pytree
class Choice:
    """One of several branches, or sets of leaves, each taken whole: a memory, a price book, a grid, a topology.

    Leaves named in `counted` hold what one of `count` brings, such as engines near a stack of memory, and are
    multiplied by it (at least 1) in the design at hand.
    """

    trees: Any = field(
        doc="stacked along a leading axis: the branch at `path`, or a mapping from dotted paths to leaves"
    )
    path: str = field(doc="dotted path of the branch, or any name where `trees` is a mapping", static=True)
    names: tuple[str, ...] = field(doc="what the choices are called", static=True)
    count: str = field(doc="dotted path of the number that multiplies", static=True, default="")
    counted: tuple[str, ...] = field(doc="leaves of the branch it multiplies", static=True, default=())
    when: tuple[Condition, ...] = field(doc=_WHEN, static=True, default=())

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

    @property
    def size(self) -> int:
        """Number of choices."""
        return len(self.names)

    @property
    def paths(self) -> tuple[str, ...]:
        """What it moves, as one column of names."""
        return (self.path,)

    @property
    def sets(self) -> tuple[str, ...]:
        """What it sets absolutely."""
        return tuple(self.branches)

    @property
    def branches(self) -> Mapping[str, Any]:
        """Stacked branches by dotted path."""
        return self.trees if isinstance(self.trees, Mapping) else {self.path: self.trees}

    def put(self, design: T, digit: Any) -> T:
        """Return the design with the choice of a digit."""
        for path, branch in self.branches.items():
            taken = take(branch, digit)
            for leaf in self.counted:
                count = jnp.maximum(operator.attrgetter(self.count)(design), 1)
                taken = replace_at(taken, leaf, getattr(taken, leaf) * count)
            design = replace_at(design, path, taken)
        return design

    def columns(self, digit: np.ndarray) -> dict[str, np.ndarray]:
        """Return the names of digits."""
        return {self.path: np.asarray(self.names)[digit]}


def choice(path: str, trees: Mapping[str, Any], *, when: tuple[Condition, ...] = ()) -> Choice:
    """Make an axis of branches given by name: `choice("system.chip.hbf", {"none": Memory(), "hbf": flash})`.

    Args:
        path: dotted path of the branch; any name where each tree is a mapping from dotted paths to leaves.
        trees: what stands there, of one structure.
        when: conditions on earlier axes.
    """
    floats = [jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), tree) for tree in trees.values()]
    return Choice(path=path, trees=stack(floats), names=tuple(trees), when=when)


@pytree
class Tied:
    """Several axes of one length that one digit moves together."""

    axes: tuple[Axis | Choice, ...] = field(doc="of one length")
    when: tuple[Condition, ...] = field(doc=_WHEN, static=True, default=())

    @property
    def name(self) -> str:
        """The paths, with a plus between."""
        return "+".join(axis.name for axis in self.axes)

    @property
    def size(self) -> int:
        """The length of all of them.

        Raises:
            ValueError: they differ.
        """
        sizes = {axis.size for axis in self.axes}
        if len(sizes) != 1:
            raise ValueError(
                f"the axes of {self.name} have {sorted(sizes)} values; tied ones have as many each"
            )
        return sizes.pop()

    @property
    def paths(self) -> tuple[str, ...]:
        """What they move."""
        return tuple(path for axis in self.axes for path in axis.paths)

    @property
    def sets(self) -> tuple[str, ...]:
        """What they set absolutely."""
        return tuple(path for axis in self.axes for path in axis.sets)

    def put(self, design: T, digit: Any) -> T:
        """Return the design with the values of a digit."""
        for axis in self.axes:
            design = axis.put(design, digit)
        return design

    def columns(self, digit: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of digits."""
        return {path: column for axis in self.axes for path, column in axis.columns(digit).items()}


@pytree
class Range:
    """A continuous knob of a sample: a value for every coordinate n of 24 bits, by three tables of 256.

        x = A[n / 65536] o B[n / 256 mod 256] o C[n mod 256],   o is a product where it is even in log x, else a sum

    Each operation rounds once and none fuses with another, so that all machines find the same value, to the bit.
    """

    tables: jax.Array = field("1", "A, B and C, shape [3, 256], in the unit of the leaf, or factors")
    low: jax.Array = field("1", "least value")
    high: jax.Array = field("1", "largest value")
    path: str = field(doc="dotted path", static=True)
    product: bool = field(doc="whether the tables multiply", static=True)
    relative: bool = field(doc="whether the values multiply the leaf", static=True, default=False)
    whole: bool = field(doc="whether values are rounded down to whole numbers", static=True, default=False)

    @property
    def name(self) -> str:
        """Its path."""
        return self.path

    @property
    def paths(self) -> tuple[str, ...]:
        """What it moves."""
        return (self.path,)

    @property
    def sets(self) -> tuple[str, ...]:
        """What it sets absolutely."""
        return () if self.relative else (self.path,)

    def value(self, coordinate: Any) -> Any:
        """Return the values of coordinates; of JAX, or of NumPy where the tables are."""
        mask = _STEPS - 1
        a, b, c = (self.tables[k][(coordinate >> (8 * (_LEVELS - 1 - k))) & mask] for k in range(_LEVELS))
        value = a * b * c if self.product else a + b + c
        value = value.astype(np.int32).astype(value.dtype) if self.whole else value
        return value.clip(self.low, self.high)

    def put(self, design: T, coordinate: Any) -> T:
        """Return the design with the value of a coordinate."""
        return _put_number(design, self.path, self.value(coordinate), self.relative)

    def columns(self, coordinate: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of coordinates."""
        return {self.path: jax.tree.map(np.asarray, self).value(coordinate)}


@pytree
class Joint:
    """Several ranges that one coordinate moves together."""

    ranges: tuple[Range, ...] = field(doc="what moves")
    name: str = field(doc="what the knob is called", static=True)

    @property
    def paths(self) -> tuple[str, ...]:
        """What they move."""
        return tuple(r.path for r in self.ranges)

    @property
    def sets(self) -> tuple[str, ...]:
        """What they set absolutely."""
        return tuple(path for r in self.ranges for path in r.sets)

    def put(self, design: T, coordinate: Any) -> T:
        """Return the design with the values of a coordinate."""
        for r in self.ranges:
            design = r.put(design, coordinate)
        return design

    def columns(self, coordinate: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of coordinates, of the first as the knob's own."""
        return {self.name: self.ranges[0].columns(coordinate)[self.ranges[0].path]}


def log_range(path: str, low: float, high: float, *, relative: bool = False, whole: bool = False) -> Range:
    """Make a knob of a sample that is even in the logarithm: x = low (high / low)^u, with u in [0, 1).

    Args:
        path: dotted path.
        low: least value or factor, above 0.
        high: largest value or factor.
        relative: whether the values multiply the leaf.
        whole: whether to take whole numbers from low to high: floor(low ((high + 1) / low)^u).

    Raises:
        ValueError: not 0 < low < high, or whole numbers with bounds that are not, or beyond 2^24.
    """
    _check_range(low, high, whole=whole, above=0.0)
    ratio = (high + whole) / low
    factors = [ratio ** (np.arange(_STEPS) / _STEPS ** (k + 1)) for k in range(_LEVELS)]
    factors[0] = factors[0] * low
    return _range(path, factors, low, high, product=True, relative=relative, whole=whole)


def linear_range(path: str, low: float, high: float, *, relative: bool = False, whole: bool = False) -> Range:
    """Make a knob of a sample that is even between its bounds: x = low + (high - low) u, with u in [0, 1).

    Args:
        path: dotted path.
        low: least value or factor.
        high: largest value or factor.
        relative: whether the values multiply the leaf.
        whole: whether to take whole numbers, each from low to high equally likely.

    Raises:
        ValueError: not low < high, or whole numbers with bounds that are not, or beyond 2^24.
    """
    _check_range(low, high, whole=whole, above=-np.inf)
    terms = [(high + whole - low) * np.arange(_STEPS) / _STEPS ** (k + 1) for k in range(_LEVELS)]
    terms[0] = terms[0] + low
    return _range(path, terms, low, high, product=False, relative=relative, whole=whole)


def _check_range(low: float, high: float, *, whole: bool, above: float) -> None:
    if not above < low < high < np.inf:
        raise ValueError(f"low < high, and above 0 where logarithmic, not {low:g} and {high:g}")
    if whole and (low % 1 or high % 1 or low < 0 or high >= 1 << 24):
        raise ValueError(f"whole bounds from 0 to 2^24, not {low:g} and {high:g}")


def _range(path: str, tables: list[np.ndarray], low: float, high: float, **options: bool) -> Range:
    dtype = jnp.result_type(float)
    stacked, least, most = (jnp.asarray(x, dtype) for x in (np.stack(tables), low, high))
    return Range(tables=stacked, low=least, high=most, path=path, **options)


@pytree
class Sample:
    """Several knobs that the number of a point moves: along each dimension of the cube, one knob.

    A `Range` takes a value for the coordinate; of an axis, a choice or tied axes the coordinate picks a digit.
    """

    knobs: tuple[Range | Joint | Axis | Choice | Tied, ...] = field(doc="what varies")
    points: Sampler = field(doc="points of the unit cube")
    size: int = field(doc="number of points, at most 2^30", static=True)
    name: str = field(doc="unlike that of any other axis", static=True, default="sample")
    when: tuple[Condition, ...] = field(doc=_WHEN, static=True, default=())

    @property
    def paths(self) -> tuple[str, ...]:
        """What it moves."""
        return tuple(path for knob in self.knobs for path in knob.paths)

    @property
    def sets(self) -> tuple[str, ...]:
        """What it sets absolutely."""
        return tuple(path for knob in self.knobs for path in knob.sets)

    def put(self, design: T, number: Any) -> T:
        """Return the design with the values of a point."""
        coordinates = self.points.point(number)
        for k, knob in enumerate(self.knobs):
            design = knob.put(design, _digit(knob, coordinates[k]))
        return design

    def columns(self, number: np.ndarray) -> dict[str, np.ndarray]:
        """Return the values of points."""
        coordinates = _coordinates(self.points, number)
        columns: dict[str, np.ndarray] = {}
        for knob, coordinate in zip(self.knobs, coordinates, strict=True):
            columns |= knob.columns(_digit(knob, coordinate))
        return columns


def sample(
    *knobs: Range | Joint | Axis | Choice | Tied,
    count: int,
    method: str = "sobol",
    seed: int = 0,
    name: str = "sample",
    when: tuple[Condition, ...] = (),
) -> Sample:
    """Make an axis of `count` points over several knobs: `sample(log_range(...), Axis(...), count=1 << 20)`.

    Args:
        knobs: what varies; conditions are on the sample as a whole.
        count: number of points, at most 2^30.
        method: "sobol", "latin" or "random".
        seed: another seed gives other points.
        name: of the axis.
        when: conditions on earlier axes.

    Raises:
        ValueError: no such method, or no such count or seed.
    """
    points = sampling.sampler(method, len(knobs), count, seed)
    return Sample(knobs=knobs, points=points, size=count, name=name, when=when)


Part: TypeAlias = Axis | Choice | Tied | Sample


def leaves_moved(part: Part | Range | Joint) -> Iterator[Axis | Choice | Range]:
    """Yield what a part of a space consists of, in the order in which it changes a design."""
    if isinstance(part, Tied | Sample | Joint):
        inner = (
            part.knobs if isinstance(part, Sample) else part.axes if isinstance(part, Tied) else part.ranges
        )
        for one in inner:
            yield from leaves_moved(one)
    else:
        yield part


def _put_number(design: T, path: str, value: Any, relative: bool) -> T:
    return replace_at(design, path, value * operator.attrgetter(path)(design) if relative else value)


def _digit(knob: Range | Joint | Axis | Choice | Tied, coordinate: Any) -> Any:
    return coordinate if isinstance(knob, Range | Joint) else sampling.pick(coordinate, knob.size)


_points = jax.jit(lambda points, number: points.point(number))


def _coordinates(points: Sampler, number: np.ndarray) -> np.ndarray:
    # Padded to powers of two, so that few lengths are ever compiled.
    padded = np.zeros(1 << max(len(number) - 1, 0).bit_length(), np.int32)
    padded[: len(number)] = number
    return np.asarray(_points(points, padded))[:, : len(number)]
