"""Propagate the uncertainty of the catalogue's constants to the results: Monte Carlo draws, and one at a time.

A constant k has a best value and the lowest and highest values that its sources support, low_k <= mid_k <= high_k. Its
position t_k in [-1, 1] maps -1 to low, 0 to mid and 1 to high. Positions are independent with the symmetric triangular
density 1 - |t|, so mid is the median whichever side is longer. The support is bounded because values outside the range
have no source, and some are meaningless (a share above 1); the density falls towards the ends because a source that
gives a range considers its middle more likely.

A leaf x of the evaluated trees may be a product of several entries, and one entry may affect several leaves, which then
move together:

    x = mid  prod_k (x_k / mid)^|t_k|,    x_k the leaf with constant k alone at its low (t_k < 0) or high (t_k > 0).

This is exact at both ends and, for products of powers of entries, between them. Where one of a leaf's three values is
0 its factor is 1 + |t_k| (x_k / mid - 1), and where mid is 0, |t_k| x_k is added.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import canonical, totals
from jaxcost.evaluation import design_features, evaluate
from jaxcost.explore.analysis.sensitivity import metric_names
from jaxcost.explore.compilation import compilation
from jaxcost.report import Report
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.traffic import Traffic

__all__ = [
    "Bar",
    "Constant",
    "Interval",
    "Intervals",
    "Spread",
    "leaves_at",
    "monte_carlo",
    "positions",
    "propagate",
    "tornado",
]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEAST_WIDTH = 1e-5  # of the metric; less is rounding in float32


@dataclasses.dataclass(frozen=True)
class Constant:
    """One entry of a catalogue file with a low and a high value, in SI units."""

    file: str
    path: str
    unit: str
    low: float
    mid: float
    high: float
    kind: str
    source: str
    written: tuple[str, str, str]  # low, mid and high in the units of the file

    @property
    def name(self) -> str:
        """File and path: `prices/default: electricity`."""
        return f"{self.file.removeprefix('configs/').removesuffix('.yaml')}: {self.path}"

    @property
    def label(self) -> str:
        """The name; without the folders for a file outside the catalogue."""
        return self.name if self.file.startswith("configs/") else self.name.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class Spread:
    """The leaves of (System, Prices) with all constants at mid, and with one constant at its low or high."""

    structure: Any  # of the pair of trees
    mid: np.ndarray  # [leaves]
    low: np.ndarray  # [constants, leaves]
    high: np.ndarray  # [constants, leaves]


@dataclasses.dataclass(frozen=True)
class Interval:
    """The distribution of one total of a Report over the draws; `mid` is its value with all constants at mid."""

    unit: str
    mid: float
    mean: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float


@dataclasses.dataclass(frozen=True)
class Bar:
    """One total of a Report with one constant at its low and at its high, and the others at mid."""

    constant: Constant
    at_low: float
    at_high: float
    width: float  # largest less smallest of the values at low, mid and high


@dataclasses.dataclass(frozen=True)
class Intervals:
    """Uncertainty of every total of a Report, by the total's name."""

    constants: tuple[Constant, ...]
    quantiles: dict[str, Interval]
    tornado: dict[str, tuple[Bar, ...]]  # the widest first
    feasible: float  # share of the draws in which every margin is at least 0
    draws: int
    seed: int

    def weakest(self, metric: str, count: int = 5) -> tuple[Bar, ...]:
        """Return the bars of the constants that change a metric most, at most `count`; none that do not change it."""
        least = _LEAST_WIDTH * abs(self.quantiles[metric].mid)
        return tuple(bar for bar in self.tornado[metric][:count] if bar.width > least)


def propagate(
    spread: Spread,
    constants: tuple[Constant, ...],
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    draws: int,
    seed: int,
) -> Intervals:
    """Propagate all constants together by Monte Carlo, and each alone for tornado bars.

    Args:
        spread: the leaves at mid, and at the ends of every constant.
        constants: the constants, in the order of the spread.
        model: the language model, without uncertainty.
        traffic: the requests, without uncertainty.
        plan: the plan, the same in every draw.
        draws: number of draws.
        seed: seed of the draws.
    """
    drawn = monte_carlo(spread, model, traffic, plan, draws=draws, seed=seed)
    mid, low, high = tornado(spread, model, traffic, plan)
    width = np.maximum(np.maximum(low, high), mid) - np.minimum(np.minimum(low, high), mid)
    units = {name: total.unit for name, total in totals(Report).items()}
    quantiles, bars = {}, {}
    for column, name in enumerate(metric_names()):
        values = drawn[:, column]
        summary = (float(x) for x in (mid[column], np.mean(values), *np.quantile(values, QUANTILES)))
        quantiles[name] = Interval(units[name], *summary)
        ranked = np.argsort(-width[:, column], kind="stable")
        bars[name] = tuple(
            Bar(constants[k], *(float(x[k, column]) for x in (low, high, width))) for k in ranked
        )
    feasible = float(np.mean(drawn[:, -1] >= 0))
    return Intervals(constants, quantiles, bars, feasible, draws, seed)


def monte_carlo(
    spread: Spread, model: Model, traffic: Traffic, plan: Plan, *, draws: int, seed: int
) -> np.ndarray:
    """Evaluate draws of all constants together.

    Returns:
        The totals of `metric_names()` and the worst margin, float64 of shape [draws, totals + 1].
    """
    return _totals(spread, leaves_at(spread, positions(draws, len(spread.low), seed)), model, traffic, plan)


def tornado(
    spread: Spread, model: Model, traffic: Traffic, plan: Plan
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate every constant at its low and at its high, with the others at mid.

    Returns:
        The columns of `monte_carlo` at mid [columns], and at low and at high [constants, columns].
    """
    rows = np.concatenate([spread.mid[None], spread.low, spread.high])
    columns = _totals(spread, rows, model, traffic, plan)
    low, high = np.split(columns[1:], 2)
    return columns[0], low, high


def positions(draws: int, constants: int, seed: int) -> np.ndarray:
    """Draw positions in [-1, 1], shape [draws, constants]: a Latin hypercube of symmetric triangular variables.

    Each constant has one draw in each of `draws` intervals of equal probability (McKay, Beckman and Conover 1979).
    With v uniform in [-1, 1],  t = sign(v) (1 - sqrt(1 - |v|)).
    """
    generator = np.random.default_rng(seed)
    strata = np.tile(np.arange(draws)[:, None], (1, constants))
    uniform = (generator.permuted(strata, axis=0) + generator.random((draws, constants))) / draws
    v = 2 * uniform - 1
    return np.sign(v) * (1 - np.sqrt(1 - np.abs(v)))


def leaves_at(spread: Spread, position: np.ndarray) -> np.ndarray:
    """Return the leaves [draws, leaves] with the constants at `position` [draws, constants]: the module's equation."""
    out = np.tile(np.asarray(spread.mid, np.float64), (len(position), 1))
    for lows, highs, t in zip(spread.low, spread.high, position.T, strict=True):
        moved = np.flatnonzero((lows != spread.mid) | (highs != spread.mid))
        mid, low, high, side = spread.mid[moved], lows[moved], highs[moved], t[:, None]
        end, size = np.where(side < 0, low, high), np.abs(side)
        starts = mid != 0
        safe = np.where(starts, mid, 1)
        powers = (low > 0) & (mid > 0) & (high > 0)
        factor = np.where(powers, np.where(powers, end / safe, 1) ** size, 1 + size * (end / safe - 1))
        out[:, moved] = np.where(starts, out[:, moved] * factor, out[:, moved] + size * end)
    return out


def _totals(spread: Spread, leaves: np.ndarray, model: Model, traffic: Traffic, plan: Plan) -> np.ndarray:
    """Evaluate rows of leaves in chunks of one size, so that any number of rows needs one compilation."""
    chunk = compilation("draws", jax.default_backend()).chunk
    ends = np.concatenate([spread.mid[None], spread.low, spread.high])
    system, _ = jax.tree.unflatten(spread.structure, list(ends.T))
    features = design_features(system, traffic, plan)
    others = canonical((model, traffic, plan))
    dtype = jax.tree.leaves(others)[0].dtype
    columns = leaves.T.astype(dtype)
    blocks = []
    for start in range(0, len(leaves), chunk):
        # The last chunk is padded to the size of the others by its last row.
        index = np.minimum(np.arange(start, start + chunk), len(leaves) - 1)
        blocks.append(_chunk(columns[:, index], *others, spread.structure, features))
    return np.concatenate([np.asarray(b.T, np.float64) for b in blocks])[: len(leaves)]


@functools.partial(jax.jit, static_argnames=("structure", "features"))
def _chunk(
    columns: jax.Array, model: Model, traffic: Traffic, plan: Plan, structure: Any, features: tuple[str, ...]
) -> jax.Array:
    """Evaluate the totals and the worst margin of leaves [leaves, draws]: [totals + 1, draws]."""
    # Every leaf has a batch, whether it varies or not, so that one program serves every set of constants: compiling it
    # takes longer than a hundred thousand draws.
    system, prices = jax.tree.unflatten(structure, list(columns))
    report = evaluate(system, model, traffic, plan, prices=prices, features=features)
    return jnp.stack([*(getattr(report, name) for name in metric_names()), report.margins.worst])
