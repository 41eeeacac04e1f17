"""A space as an optimiser sees it: what is enumerated, and knobs that move between two ends.

Ranges of a sample are knobs. A long numeric axis is one too, of its values; what is left (catalogue choices, tied and
short axes, systems and models) is enumerated. Axes named in `across` are neither: one design serves all of them.

Symbols: K knobs, each at a position u in [0, 1]; M moves, each a leaf that a knob sets or multiplies; L leaves of a
design; N combinations of choices; W scenarios, the combinations of the axes across which a design serves.

    x = low (high / low)^u   or   low + (high - low) u;      leaf = x,  or x times what the leaf is without it
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import field, pytree
from jaxcost.explore.space import (
    Axis,
    ChoiceAxis,
    Design,
    Joint,
    Range,
    Sample,
    Space,
    Tied,
    axis_indices_of,
    build_designs,
    coordinates,
    space_features,
)

__all__ = ["Knob", "Moves", "Relaxation", "design_from", "leaves_with", "relax"]

_ENUMERATED = 4096  # combinations; beyond, long axes become knobs
_OFF = 1e-10  # relative distance to a whole number that is rounding
_SHORT = 8  # values of an axis that is always enumerated
_MOST = 1 << 17
_MOST_WHOLE = 1 << 20


@pytree
class Moves:
    """What knobs do to leaves; rows beyond those of the space move a leaf that is not there."""

    leaf: Any = field("1", "int32[M]: position of the leaf in a design; L where there is none")
    knob: Any = field("1", "int32[M]: the knob that moves it")
    low: Any = field("1", "[M]: value or factor at u = 0, in the unit of the leaf")
    high: Any = field("1", "[M]: value or factor at u = 1")
    logarithmic: Any = field("1", "[M]: whether the knob is even in the logarithm")
    relative: Any = field("1", "[M]: whether the knob multiplies the leaf")
    whole: Any = field("1", "[M]: whether the values that count in the end are whole")


@dataclasses.dataclass(frozen=True)
class Knob:
    """Something that an optimiser moves: one leaf, or several together."""

    name: str
    ranges: tuple[Range, ...]
    values: np.ndarray | None = None  # those it may take in the end, ascending; any where absent

    @property
    def low(self) -> float:
        """Least value of its first leaf, or its factor."""
        return float(self.ranges[0].low)

    @property
    def high(self) -> float:
        """Largest."""
        return float(self.ranges[0].high)

    @property
    def logarithmic(self) -> bool:
        """Whether it is even in the logarithm."""
        return self.ranges[0].product

    @property
    def relative(self) -> bool:
        """Whether it multiplies what is there."""
        return self.ranges[0].relative

    def position(self, value: Any) -> Any:
        """Return u for values of its first leaf."""
        low, high = self.low, self.high
        x = np.clip(value, low, high)
        return np.log(x / low) / math.log(high / low) if self.logarithmic else (x - low) / (high - low)

    def value(self, position: Any) -> Any:
        """Return values of its first leaf for u."""
        low, high = self.low, self.high
        return low * (high / low) ** position if self.logarithmic else low + (high - low) * position

    def per_position(self, value: float) -> float:
        """Return d ln x / du where the value is x."""
        if self.logarithmic:
            return math.log(self.high / self.low)
        return (self.high - self.low) / value if value else math.inf


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """A space cut into combinations, scenarios and knobs."""

    space: Space
    knobs: tuple[Knob, ...]
    bases: np.ndarray  # float64 [N, W, L]: leaves with every knob left out
    choices: tuple[dict[str, Any], ...]  # for each combination, what was chosen, by path
    scenarios: tuple[str, ...]  # what the scenarios are called; ("",) where there is one
    structure: Any
    paths: tuple[str, ...]  # dotted path of every leaf
    present: tuple[str, ...]

    def moves(self, length: int | None = None) -> Moves:
        """What knobs do to leaves, padded to `length` rows."""
        rows = [
            (self.paths.index(r.path), k, float(r.low), float(r.high), r.product, r.relative, r.whole)
            for k, knob in enumerate(self.knobs)
            for r in knob.ranges
        ]
        nothing = (len(self.paths), 0, 1.0, 1.0, False, False, False)
        rows += [nothing] * ((length or len(rows)) - len(rows))
        columns = [np.asarray(column) for column in zip(*rows, strict=True)]
        leaf, knob = (column.astype(np.int32) for column in columns[:2])
        low, high = (column.astype(float) for column in columns[2:4])
        return Moves(
            leaf=leaf,
            knob=knob,
            low=low,
            high=high,
            logarithmic=columns[4],
            relative=columns[5],
            whole=columns[6],
        )

    def design(self, combination: int, scenario: int, positions: np.ndarray) -> Design:
        """Build a design of the space's own precision; knobs of certain values take the nearest."""
        leaves = self.bases[combination, scenario].copy()
        for knob, u in zip(self.knobs, positions, strict=True):
            for r in knob.ranges:
                x = r.low * (r.high / r.low) ** u if r.product else r.low + (r.high - r.low) * u
                if knob.values is not None and r is knob.ranges[0]:
                    x = knob.values[np.argmin(np.abs(knob.values - float(x)))]
                at = self.paths.index(r.path)
                leaves[at] = float(x) * (leaves[at] if r.relative else 1.0)
        dtype = jax.tree.leaves(self.space.base)[0].dtype
        return jax.tree.unflatten(self.structure, [jnp.asarray(x, dtype) for x in leaves])


def relax(space: Space, across: Sequence[str] = ()) -> Relaxation:
    """Cut a space into combinations, scenarios and knobs.

    Args:
        space: the designs; the ranges of its samples are knobs, whatever their number of points.
        across: names of axes, "system" or "model", all of whose values a design has to serve.

    Raises:
        ValueError: no knob at all, an unknown name, conditions on or of knobs and scenarios, or too many combinations.
    """
    conditional = {name for axis in space.axes if axis.when for name in (axis.name, *dict(axis.when))}
    for name in across:
        if name not in space.names:
            raise ValueError(f"across {name!r}: the space has {', '.join(space.names)}")
        if name in conditional:
            raise ValueError(f"across {name!r}: it can have no condition, and none can be on it")
    knobs, kept = _knobs(space, across)
    if not knobs:
        raise ValueError("a space needs a knob to move: a range within a sample, or an axis of many values")
    rest = dataclasses.replace(space, axes=kept)
    if rest.size > _MOST:
        raise ValueError(f"at most {_MOST:,} combinations of what is enumerated, not {rest.size:,}")
    index = np.arange(rest.size)
    digits = axis_indices_of(rest, index)
    served = [rest.names.index(name) for name in across]
    chosen = [i for i in range(len(rest.names)) if i not in served]
    count = math.prod(rest.shape[i] for i in served)
    order = np.lexsort([digits[i] for i in reversed([*chosen, *served])]).reshape(-1, count)
    leaves = np.concatenate(
        [_leaves(rest, part) for part in np.array_split(digits, _parts(rest.size), axis=1)]
    )
    columns = coordinates(rest, index)
    served_paths = {path for name in across for path in _paths(rest, name)}
    pick = lambda row, served: {  # noqa: E731
        path: column[row] for path, column in columns.items() if (path in served_paths) == served
    }
    design = build_designs(rest, [np.int32(0)] * len(rest.names))
    return Relaxation(
        space=space,
        knobs=knobs,
        bases=leaves[order],
        choices=tuple(pick(row, False) for row in order[:, 0]),
        scenarios=tuple(", ".join(str(v) for v in pick(row, True).values()) for row in order[0]),
        structure=jax.tree.structure(design),
        paths=tuple(
            ".".join(key.name for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(design)
        ),
        present=space_features(space),
    )


def _parts(size: int) -> int:
    return -(-size // 4096)


def _paths(space: Space, name: str) -> tuple[str, ...]:
    if name in ("system", "model"):
        return (name,)
    return space.axes[space.names.index(name) - 2].paths


def _knobs(space: Space, across: Sequence[str]) -> tuple[tuple[Knob, ...], tuple[Any, ...]]:
    """Tell what moves from what is enumerated: the knobs, and the axes that are left."""
    knobs, kept = [], []
    conditional = {name for axis in space.axes for name, _ in axis.when}
    for axis in space.axes:
        if isinstance(axis, Sample):
            if axis.when or axis.name in across:
                raise ValueError(f"{axis.name} moves: it can have no condition, and none is served across it")
            ranges = [knob for knob in axis.knobs if isinstance(knob, Range | Joint)]
            knobs += [_of_range(knob) for knob in ranges]
            kept += [knob for knob in axis.knobs if isinstance(knob, Axis | ChoiceAxis | Tied)]
        else:
            kept.append(axis)
    free = [
        axis
        for axis in kept
        if isinstance(axis, Axis)
        and axis.size > _SHORT
        and not (axis.when or axis.name in conditional or axis.name in across)
    ]
    longest = sorted(free, key=lambda axis: -axis.size)
    size = dataclasses.replace(space, axes=tuple(kept)).size
    while longest and size > _ENUMERATED:
        axis = longest.pop(0)
        size //= axis.size
        knobs.append(_of_axis(axis))
        kept.remove(axis)
    return tuple(knobs), tuple(kept)


def _of_range(knob: Range | Joint) -> Knob:
    ranges = knob.ranges if isinstance(knob, Joint) else (knob,)
    values = None
    if ranges[0].whole:
        low, high = float(ranges[0].low), float(ranges[0].high)
        if high - low > _MOST_WHOLE:
            raise ValueError(f"a whole knob of at most {_MOST_WHOLE:,} values, not {knob.paths[0]}")
        values = np.arange(low, high + 1)
    return Knob(name=knob.name, ranges=ranges, values=values)


def _of_axis(axis: Axis) -> Knob:
    values = np.unique(np.asarray(axis.values, float))
    low, high = values[0], values[-1]
    bounds = [jnp.asarray(x, axis.values.dtype) for x in (low, high)]
    # Of a range only its ends and its kind are read here.
    moved = Range(
        tables=axis.values[:0],
        low=bounds[0],
        high=bounds[1],
        path=axis.path,
        product=bool(low > 0),
        relative=axis.relative,
        whole=bool(np.all(values % 1 == 0)),
    )
    return Knob(name=axis.path, ranges=(moved,), values=values)


@jax.jit
def _leaves_of(space: Space, digits: jax.Array) -> jax.Array:
    leaves = jax.tree.leaves(build_designs(space, list(digits)))
    return jnp.stack([jnp.broadcast_to(x, digits.shape[1:]) for x in leaves])


def _leaves(space: Space, digits: np.ndarray) -> np.ndarray:
    """Return the leaves of designs, float64 [n, L]; digits [axes, n]."""
    return np.asarray(_leaves_of(space, jnp.asarray(digits, jnp.int32)), np.float64).T


def leaves_with(base: jax.Array, moves: Moves, positions: jax.Array) -> jax.Array:
    """Put knobs at positions u [K, *batch] into the leaves of designs [L, *batch]."""
    moves = jax.tree.map(lambda x: jnp.reshape(x, (-1, *(1 for _ in base.shape[1:]))), moves)
    leaf, knob = moves.leaf.ravel(), moves.knob.ravel()
    u = positions[knob]
    ratio = jnp.where(moves.logarithmic, moves.high / jnp.where(moves.logarithmic, moves.low, 1), 1)
    powers = jnp.where(moves.logarithmic, moves.low, 1) * jnp.exp(u * jnp.log(ratio))
    x = jnp.where(moves.logarithmic, powers, moves.low + (moves.high - moves.low) * u)
    # A batch of 220 plus a rounding error would count as 221.
    off = jax.lax.stop_gradient(jnp.round(x) - x)
    x = x + jnp.where(moves.whole & (jnp.abs(off) <= _OFF * jnp.abs(x)), off, 0)
    before = base.at[leaf].get(mode="fill", fill_value=1)
    return base.at[leaf].set(jnp.where(moves.relative, x * before, x), mode="drop")


def design_from(structure: Any, leaves: jax.Array) -> Design:
    """Make designs of their leaves [L, *batch], inside jit."""
    # Split, not indexed: the gradient of a split is one concatenation, that of indices hundreds of updates.
    parts = jax.lax.split(leaves, [1] * leaves.shape[0])
    return jax.tree.unflatten(structure, [part.reshape(leaves.shape[1:]) for part in parts])
