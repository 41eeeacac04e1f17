"""The continuous relaxation of a space: knobs that an optimiser moves, and combinations of choices to enumerate.

The ranges of a sample are knobs. A long numeric axis is a knob too, whose final value is one of its values. All other
axes (catalogue choices, tied and short axes, systems and models) are enumerated. The values of the axes named in
`across` are scenarios: one design serves all of them.

Symbols: K knobs, each at a position u in [0, 1]; M effects, each of one knob on one leaf; L leaves of a design; N
combinations of choices; W scenarios.

    x = low (high / low)^u   or   low + (high - low) u;      leaf = x,  or x times the base value of the leaf
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
from jaxcost.spec.design import Design

__all__ = ["Knob", "KnobEffects", "Relaxation", "apply_knobs", "check_scenarios", "design_from", "relax"]

_ENUMERATED = 4096  # combinations; in larger spaces long axes become knobs
_ROUNDING = 1e-10  # relative distance to a whole number that counts as a rounding error
_SHORT_AXIS = 8  # values of an axis that is always enumerated
_MAX_COMBINATIONS = 1 << 17
_MAX_WHOLE_VALUES = 1 << 20


@pytree
class KnobEffects:
    """Effects of knobs on leaves, one a row; padding rows refer to a leaf L, which does not exist."""

    leaf: Any = field("1", "int32[M]: position of the leaf in a design; L in padding rows")
    knob: Any = field("1", "int32[M]: the knob that sets or multiplies the leaf")
    low: Any = field("1", "[M]: value or factor at u = 0, in the unit of the leaf")
    high: Any = field("1", "[M]: value or factor at u = 1")
    logarithmic: Any = field("1", "[M]: whether the knob is spaced evenly in the logarithm")
    relative: Any = field("1", "[M]: whether the knob multiplies the leaf")
    whole: Any = field("1", "[M]: whether the final values are whole numbers")


@dataclasses.dataclass(frozen=True)
class Knob:
    """A number that the optimiser moves: the value of a leaf, or of several leaves together."""

    name: str
    ranges: tuple[Range, ...]
    values: np.ndarray | None = None  # allowed final values, ascending; all between the ends where None

    @property
    def low(self) -> float:
        """Lower end of its first leaf, or of the factor on it."""
        return float(self.ranges[0].low)

    @property
    def high(self) -> float:
        """Upper end of its first leaf, or of the factor on it."""
        return float(self.ranges[0].high)

    @property
    def logarithmic(self) -> bool:
        """Whether positions are spaced evenly in the logarithm of the value."""
        return self.ranges[0].product

    @property
    def relative(self) -> bool:
        """Whether its value is a factor on the base value of the leaf."""
        return self.ranges[0].relative

    def position(self, value: Any) -> Any:
        """Return the positions u of values of its first leaf."""
        low, high = self.low, self.high
        x = np.clip(value, low, high)
        return np.log(x / low) / math.log(high / low) if self.logarithmic else (x - low) / (high - low)

    def value(self, position: Any) -> Any:
        """Return the values of its first leaf at positions u."""
        low, high = self.low, self.high
        return low * (high / low) ** position if self.logarithmic else low + (high - low) * position

    def per_position(self, value: float) -> float:
        """Return d ln x / du at the value x."""
        if self.logarithmic:
            return math.log(self.high / self.low)
        return (self.high - self.low) / value if value else math.inf


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """A space as combinations of choices, scenarios and knobs."""

    space: Space
    knobs: tuple[Knob, ...]
    bases: np.ndarray  # float64 [N, W, L]: leaves before knobs are applied
    choices: tuple[dict[str, Any], ...]  # of each combination: the choice at each path
    scenarios: tuple[str, ...]  # names; ("",) where there is one scenario
    structure: Any  # tree of a design
    paths: tuple[str, ...]  # dotted path of every leaf
    features: tuple[str, ...]  # of the model that any design of the space uses

    def effects(self, length: int | None = None) -> KnobEffects:
        """Return the effects of the knobs on leaves, padded to `length` rows."""
        rows = [
            (self.paths.index(r.path), k, float(r.low), float(r.high), r.product, r.relative, r.whole)
            for k, knob in enumerate(self.knobs)
            for r in knob.ranges
        ]
        padding = (len(self.paths), 0, 1.0, 1.0, False, False, False)
        rows += [padding] * ((length or len(rows)) - len(rows))
        columns = [np.asarray(column) for column in zip(*rows, strict=True)]
        leaf, knob = (column.astype(np.int32) for column in columns[:2])
        low, high = (column.astype(float) for column in columns[2:4])
        return KnobEffects(
            leaf=leaf,
            knob=knob,
            low=low,
            high=high,
            logarithmic=columns[4],
            relative=columns[5],
            whole=columns[6],
        )

    def design(self, combination: int, scenario: int, positions: np.ndarray) -> Design:
        """Build a design in the precision of the space; knobs with a list of allowed values take the nearest."""
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
    """Relax a space into knobs, combinations of choices and scenarios.

    Args:
        space: the designs. The ranges of its samples are knobs; the number of points of a sample does not matter.
        across: names of axes, "system" or "model", whose values are scenarios.

    Raises:
        ValueError: no knob, an unknown name in `across`, a condition (`when`) that involves a knob or a scenario, or
            too many combinations.
    """
    check_scenarios(space, across)
    knobs, enumerated = _knobs(space, across)
    if not knobs:
        raise ValueError("a space needs a knob to move: a range within a sample, or a long numeric axis")
    rest = dataclasses.replace(space, axes=enumerated)
    if rest.size > _MAX_COMBINATIONS:
        raise ValueError(f"at most {_MAX_COMBINATIONS:,} combinations of choices, not {rest.size:,}")
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
        features=space_features(space),
    )


def check_scenarios(space: Space, across: Sequence[str]) -> None:
    """Check the names of axes whose values are scenarios.

    Raises:
        ValueError: an unknown name, or a condition (`when`) on the axis or naming it.
    """
    conditional = {name for axis in space.axes if axis.when for name in (axis.name, *dict(axis.when))}
    for name in across:
        if name not in space.names:
            raise ValueError(f"across {name!r}: the axes of the space are {', '.join(space.names)}")
        if name in conditional:
            raise ValueError(
                f"across {name!r}: an axis with a condition cannot be a scenario, nor one that a condition names"
            )


def _parts(size: int) -> int:
    return -(-size // 4096)


def _paths(space: Space, name: str) -> tuple[str, ...]:
    if name in ("system", "model"):
        return (name,)
    return space.axes[space.names.index(name) - 2].paths


def _knobs(space: Space, across: Sequence[str]) -> tuple[tuple[Knob, ...], tuple[Any, ...]]:
    """Return the knobs of a space, and the axes that are enumerated or scenarios."""
    knobs, enumerated = [], []
    conditional = {name for axis in space.axes for name, _ in axis.when}
    for axis in space.axes:
        if isinstance(axis, Sample):
            if axis.when or axis.name in across:
                raise ValueError(f"{axis.name} has knobs: it can have no condition and cannot be in `across`")
            ranges = [knob for knob in axis.knobs if isinstance(knob, Range | Joint)]
            knobs += [_knob_of_range(knob) for knob in ranges]
            enumerated += [knob for knob in axis.knobs if isinstance(knob, Axis | ChoiceAxis | Tied)]
        else:
            enumerated.append(axis)
    long_axes = [
        axis
        for axis in enumerated
        if isinstance(axis, Axis)
        and axis.size > _SHORT_AXIS
        and not (axis.when or axis.name in conditional or axis.name in across)
    ]
    longest = sorted(long_axes, key=lambda axis: -axis.size)
    size = dataclasses.replace(space, axes=tuple(enumerated)).size
    while longest and size > _ENUMERATED:
        axis = longest.pop(0)
        size //= axis.size
        knobs.append(_knob_of_axis(axis))
        enumerated.remove(axis)
    return tuple(knobs), tuple(enumerated)


def _knob_of_range(knob: Range | Joint) -> Knob:
    ranges = knob.ranges if isinstance(knob, Joint) else (knob,)
    values = None
    if ranges[0].whole:
        low, high = float(ranges[0].low), float(ranges[0].high)
        if high - low > _MAX_WHOLE_VALUES:
            raise ValueError(
                f"a knob of whole numbers has at most {_MAX_WHOLE_VALUES:,} values: {knob.paths[0]}"
            )
        values = np.arange(low, high + 1)
    return Knob(name=knob.name, ranges=ranges, values=values)


def _knob_of_axis(axis: Axis) -> Knob:
    values = np.unique(np.asarray(axis.values, float))
    low, high = values[0], values[-1]
    bounds = [jnp.asarray(x, axis.values.dtype) for x in (low, high)]
    # Only the ends and the flags of this range are read; its table stays empty.
    span = Range(
        tables=axis.values[:0],
        low=bounds[0],
        high=bounds[1],
        path=axis.path,
        product=bool(low > 0),
        relative=axis.relative,
        whole=bool(np.all(values % 1 == 0)),
    )
    return Knob(name=axis.path, ranges=(span,), values=values)


@jax.jit
def _leaves_of(space: Space, digits: jax.Array) -> jax.Array:
    leaves = jax.tree.leaves(build_designs(space, list(digits)))
    return jnp.stack([jnp.broadcast_to(x, digits.shape[1:]) for x in leaves])


def _leaves(space: Space, digits: np.ndarray) -> np.ndarray:
    """Return the leaves of designs, float64 [n, L]; digits [axes, n]."""
    return np.asarray(_leaves_of(space, jnp.asarray(digits, jnp.int32)), np.float64).T


def apply_knobs(base: jax.Array, effects: KnobEffects, positions: jax.Array) -> jax.Array:
    """Return the leaves [L, *batch] of designs whose knobs are at positions u [K, *batch]."""
    effects = jax.tree.map(lambda x: jnp.reshape(x, (-1, *(1 for _ in base.shape[1:]))), effects)
    leaf, knob = effects.leaf.ravel(), effects.knob.ravel()
    u = positions[knob]
    ratio = jnp.where(effects.logarithmic, effects.high / jnp.where(effects.logarithmic, effects.low, 1), 1)
    powers = jnp.where(effects.logarithmic, effects.low, 1) * jnp.exp(u * jnp.log(ratio))
    x = jnp.where(effects.logarithmic, powers, effects.low + (effects.high - effects.low) * u)
    # A batch of 220 plus a rounding error would be rounded up to 221.
    error = jax.lax.stop_gradient(jnp.round(x) - x)
    x = x + jnp.where(effects.whole & (jnp.abs(error) <= _ROUNDING * jnp.abs(x)), error, 0)
    before = base.at[leaf].get(mode="fill", fill_value=1)
    return base.at[leaf].set(jnp.where(effects.relative, x * before, x), mode="drop")


def design_from(structure: Any, leaves: jax.Array) -> Design:
    """Return designs of leaves [L, *batch]; called inside jit."""
    # Split, not indexed: the gradient of a split is one concatenation, that of indices hundreds of updates.
    parts = jax.lax.split(leaves, [1] * leaves.shape[0])
    return jax.tree.unflatten(structure, [part.reshape(leaves.shape[1:]) for part in parts])
