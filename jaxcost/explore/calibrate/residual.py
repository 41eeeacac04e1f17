"""A small bounded network that corrects a form, is off outside its training range, and is used only where it helps.

Symbols: R rows, F features, L training sets (weights of the rows), x a row's features, t measured and f predicted
seconds. Features are ln of the ideal memory and compute seconds and ln(1 + size) of every size that describes a row;
the datasheet enters through the ideal seconds alone. The network N has two hidden layers:

    ln(t / f) = g(x) b tanh(N((x - mean) / spread))
    g(x) = product over features of s(1 - d / margin),   s(v) = 3 v^2 - 2 v^3 between 0 and 1

with b the bound and d the distance of a feature from its range in training: the correction fades outside the box of the
features and is exactly 0 beyond one margin. Training starts from a correction of 0 and minimises the loss of the
form's fit by Adam with weight decay. Whether the network helps is decided on the folds of the form's calibration, each
predicted by a form and a network that have not seen it.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.explore.calibrate.cross_validation import FOLDS, Calibration, leave_out, scores
from jaxcost.explore.calibrate.fit import SCALE, Columns
from jaxcost.explore.calibrate.kernel_families import FAMILIES, Selection
from jaxcost.spec.system import System

__all__ = ["BOUND", "MARGIN", "Benefit", "Residual", "helps", "train"]

BOUND = 0.3  # largest correction of ln(measured / form)
MARGIN = math.log(2.0)  # no correction above twice the largest or below half the smallest value of a feature
_WIDTH = 8
_STEPS = 300
_RATE = 1e-2
_DECAY = 1.0
_MACHINE = ("rate", "bandwidth", "cores", "cache", "exponentials")
_FREE = 1e30  # a rate so large that its resource takes no time
_ROWS = 64  # rows are padded to a multiple of this, so that few sizes are compiled


class _Network(linen.Module):
    dtype: Any

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = jnp.tanh(linen.Dense(_WIDTH, param_dtype=self.dtype)(x))
        return linen.Dense(1, param_dtype=self.dtype, kernel_init=linen.initializers.zeros)(x)[0]


@pytree
class Residual:
    """A trained correction of the times of one family of kernels."""

    family: str = field(doc="name of the family", static=True)
    names: tuple[str, ...] = field(doc="names of the F features", static=True)
    weights: Any = field("1", "weights of the network")
    mean: Scalar = field("1", "means of the features, [F]")
    spread: Scalar = field("1", "standard deviations of the features, [F]; 0 for a constant feature")
    low: Scalar = field("1", "smallest values of the features in training, [F]")
    high: Scalar = field("1", "largest values, [F]")
    bound: Scalar = field("1", "largest correction, as a logarithm", default=BOUND)
    margin: Scalar = field(
        "1", "distance from the training range at which the correction ends", default=MARGIN
    )

    def correction(self, columns: Columns) -> tuple[jax.Array, jax.Array]:
        """Return the predicted ln(measured / form), [R], and whether the correction is on for each row, [R]."""
        x = _features(self.family, columns)
        return jax.vmap(self._row)(jnp.stack([x[name] for name in self.names], 1))

    def _row(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        beyond = jnp.maximum(jnp.maximum(self.low - x, x - self.high), 0)
        inside = jnp.clip(1 - beyond / self.margin, 0, 1)
        gate = jnp.prod(inside * inside * (3 - 2 * inside))
        # A constant feature carries no information: it enters as 0, whatever its value within the margin.
        varied = jnp.where(self.spread > 0, (x - self.mean) / jnp.where(self.spread > 0, self.spread, 1), 0)
        raw = _Network(x.dtype).apply(self.weights, varied)
        return gate * self.bound * jnp.tanh(raw), gate > 0  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True, eq=False)
class Benefit:
    """The held-out errors of a form without and with a network.

    Attributes:
        before: ln(predicted / measured) of the form, each row by the fit without its fold, [R].
        after: the same with the network.
        on: whether the network trained without a row's fold corrects the row, [R].
        decided: `after` where the network lowers the errors of the other folds, predicted without this one, else
            `before`, [R]. These are the held-out errors of the whole procedure, the decision included.
        helped: whether the network lowers both the median and the 90th percentile of the absolute errors.
    """

    before: np.ndarray
    after: np.ndarray
    on: np.ndarray
    decided: np.ndarray
    helped: bool

    @property
    def scores(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Median and 90th percentile of the absolute held-out errors, without and with the network."""
        return scores(self.before), scores(self.after)


def train(
    selection: Selection,
    calibration: Calibration,
    *,
    bound: float = BOUND,
    margin: float = MARGIN,
    steps: int = _STEPS,
    seed: int = 0,
) -> Residual:
    """Train a correction on the residuals of a calibration.

    Args:
        selection: the rows.
        calibration: the calibration of the family's form to these rows.
        bound: largest correction, as a logarithm.
        margin: distance from the training range of a feature, as a logarithm, at which the correction ends.
        steps: steps of the optimiser.
        seed: seed of the initial weights.
    """
    left = -calibration.inside[None]
    limits = {"bound": bound, "margin": margin}
    many = _train(selection, left, np.ones_like(left), steps=steps, seed=seed, **limits)
    return jax.tree.map(lambda leaf: leaf[0], many)


def helps(
    selection: Selection,
    *,
    most_folds: int = FOLDS,
    even: bool = False,
    bound: float = BOUND,
    margin: float = MARGIN,
    steps: int = _STEPS,
    seed: int = 0,
) -> Benefit:
    """Test whether a correction lowers the errors on folds that neither it nor the form has seen.

    Args:
        selection: the rows.
        most_folds: maximum number of folds.
        even: whether all folds have the same total weight, however many rows they have.
        bound: as for `train`.
        margin: as for `train`.
        steps: as for `train`.
        seed: seed of the folds, the starting points and the initial weights.
    """
    measured, cut = selection.rows.seconds, {"most_folds": most_folds, "even": even, "seed": seed}
    parts = leave_out(selection.form, selection.columns, measured, selection.axis, **cut)
    part, folds = parts.part, range(parts.folds)
    left = -np.stack(list(parts.errors.values()))
    # With two folds no rows are left without both; with one fold nothing is held out.
    seen = parts.weights.sum(1) > 0
    weights = np.where(seen[:, None], parts.weights, 1)
    networks = _train(selection, left, weights, bound=bound, margin=margin, steps=steps, seed=seed)
    corrections, on = _corrections(networks, selection.columns)
    plain = parts.errors
    if parts.folds < 2:
        return Benefit(plain[()], plain[()], np.zeros(len(measured), bool), plain[()], False)
    both = {out: plain[out] + more for out, more in zip(plain, corrections, strict=True)}
    members = [part == i for i in folds]
    before = np.select(members, [plain[i,] for i in folds])
    after = np.select(members, [both[i,] for i in folds])
    decided = before.copy()
    for i in folds if parts.folds > 2 else ():
        others = [(min(i, j), max(i, j), part == j) for j in folds if j != i]
        without = np.concatenate([plain[a, b][at] for a, b, at in others])
        if _lower(without, np.concatenate([both[a, b][at] for a, b, at in others])):
            decided[members[i]] = after[members[i]]
    active = np.select(members, [on[1 + i] for i in folds])
    return Benefit(before, after, active, decided, _lower(before, after))


def _lower(before: np.ndarray, after: np.ndarray) -> bool:
    return all(new < old for new, old in zip(scores(after), scores(before), strict=True))


def _features(family: str, columns: Columns) -> dict[str, jax.Array]:
    """Return the features of every row: ln of its ideal seconds and ln(1 + size) of its sizes, [R] each."""
    # The memory and the compute seconds of a row do not depend on the fabric of its system.
    run, known = FAMILIES[family].form(System()).run, {name: jnp.asarray(x) for name, x in columns.items()}
    out = {name: jnp.log1p(x) for name, x in known.items() if name not in _MACHINE}
    for name, free in (("memory seconds", "rate"), ("compute seconds", "bandwidth")):
        out[name] = jnp.log(run({**known, free: jnp.full_like(known[free], _FREE)}, {}))
    return out


def _train(
    selection: Selection, left: np.ndarray, weights: np.ndarray, *, steps: int, seed: int, **limits: float
) -> Residual:
    """Train one correction per training set on residuals `left`, ln(measured / form) [L, R]; leaves are [L, ...]."""
    fill = ((0, 0), (0, -left.shape[1] % _ROWS))
    with jax.enable_x64(True):
        named = _features(selection.family.name, selection.columns)
        x = np.stack([np.asarray(named[name]) for name in sorted(named)], 1)
        of = weights[:, :, None] > 0
        low, high = np.where(of, x, np.inf).min(1), np.where(of, x, -np.inf).max(1)
        share = (weights / weights.sum(1, keepdims=True))[:, :, None]
        mean = (share * x).sum(1)
        spread = np.sqrt((share * (x - mean[:, None]) ** 2).sum(1)) * (high - low > 1e-9)
        first = _Network(jnp.float64).init(jax.random.key(seed), jnp.zeros(x.shape[1]))
        initial = Residual(
            family=selection.family.name,
            names=tuple(sorted(named)),
            weights=jax.tree.map(lambda w: jnp.stack([w] * len(left)), first),
            mean=jnp.asarray(mean),
            spread=jnp.asarray(spread),
            low=jnp.asarray(low),
            high=jnp.asarray(high),
            **{name: jnp.full(len(left), value) for name, value in limits.items()},
        )
        padded = np.pad(x, (fill[1], (0, 0)), mode="edge")
        trained = _descend(initial, padded, np.pad(left, fill), np.pad(weights, fill), steps=steps)
        return jax.tree.map(np.asarray, trained)


@functools.partial(jax.jit, static_argnames="steps")
def _descend(initial: Residual, x: jax.Array, left: jax.Array, weights: jax.Array, *, steps: int) -> Residual:
    optimiser = optax.adamw(optax.cosine_decay_schedule(_RATE, steps), weight_decay=_DECAY)

    def one(begun: Residual, left: jax.Array, weight: jax.Array) -> Residual:
        def loss(inner: Any) -> jax.Array:
            made = dataclasses.replace(begun, weights=inner)
            z = (jax.vmap(made._row)(x)[0] - left) / SCALE
            return jnp.sum(weight * 2 * (jnp.sqrt(1 + z * z) - 1)) / jnp.sum(weight)

        def step(_: int, state: Any) -> Any:
            inner, moments = state
            updates, moments = optimiser.update(jax.grad(loss)(inner), moments, inner)
            return optax.apply_updates(inner, updates), moments

        inner, _ = jax.lax.fori_loop(0, steps, step, (begun.weights, optimiser.init(begun.weights)))
        return dataclasses.replace(begun, weights=inner)

    return jax.vmap(one)(initial, left, weights)


def _corrections(networks: Residual, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate the correction of every training set on all rows, and whether it is on, [L, R] each."""
    with jax.enable_x64(True):
        described = {name: jnp.asarray(np.asarray(x, np.float64)) for name, x in columns.items()}
        value, on = jax.jit(jax.vmap(lambda network: network.correction(described)))(networks)
        return np.asarray(value), np.asarray(on)
