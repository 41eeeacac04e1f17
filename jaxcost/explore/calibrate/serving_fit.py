"""Fit the constants of serving engines to served times, and test the plans that they choose for held-out models.

A point is one measured closed loop: mean TPOT and mean TTFT of c users with one model, library and plan. Its steps
are evaluated once, with the kernels of the given systems; the constants of the engine only add to them. One fit in the
logarithm of both times, with TTFT at half the weight of TPOT, has constants that are partially pooled (`fit.py`):

    u[library, model] = u0 + 3 x_0 + s_library x[library] + s_model x[library, model],   every x normal with variance 1

A library's constants are u0 + 3 x_0 + s_library x[library]. They predict a model that was left out, also where the
library has served no other: then x[library] is 0. Models with few points weigh more by point than those with many.

An interval of ln(measured / predicted) is made of models that were left out, each model of a library with the same
total weight, those of other libraries with half of it. How often such an interval is right is tested on models that
neither the constants nor the interval have seen: every model of the interval is then predicted without both.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import replace
from jaxcost.explore.calibrate.fit import SCALE, Bounds, Columns, Effects, fit, predict
from jaxcost.explore.calibrate.serving_intervals import ServingInterval, covered_points, serving_intervals
from jaxcost.explore.calibrate.serving_points import SKEW, ServingPoints, serving_points, serving_steps
from jaxcost.explore.serve import LoopSteps, loop_times
from jaxcost.spec.kernels import UNLIMITED, EngineOverheads

__all__ = [
    "BOUNDS",
    "SKEW",
    "WIDTHS",
    "Choices",
    "ServingFit",
    "ServingInterval",
    "ServingPoints",
    "choose_fit",
    "choose_split",
    "choose_within",
    "fit_engines",
    "predicted",
    "serving_points",
    "serving_steps",
]

BOUNDS = {
    "layer": Bounds(1e-7, 2e-4, 1e-5),
    "sequence": Bounds(1e-7, 1e-3, 2e-5),
    "eager_launch_floor": Bounds(1e-7, 5e-3, 1e-4),
    "narrow_prefill": Bounds(0.5, 3.0, 1.2),
    "frontend_latency": Bounds(1e-3, 1.0, 0.05),
    "burst_size": Bounds(1.001, 100.0, 4.0),
}
# Engines that prefill all waiting prompts before they decode, so that users with equal requests stay in lockstep.
PROMPTS_FIRST = ("sglang",)
WIDTHS = (1.0, 0.5)  # s_library and s_model, in u
FIRST = 0.1  # share of requests sent at once at the start: the first of ten per user
_TTFT_WEIGHT = 0.25  # of a squared residual, so half of a residual
_TYPICAL = 60.0  # points of a model that have weight 1 each; n points have (60 / n)^0.5


@dataclasses.dataclass(frozen=True)
class ServingFit:
    """Fitted constants of serving engines, and their predictions of the points.

    Attributes:
        engines: by library, the constants fitted to all points.
        ends: by library and constant, the 80% interval of the constant.
        models: by library, its models in order.
        inside: TPOT and TTFT by the constants of each point's library and model, fitted to all points, s, [R, 2].
        held: predicted TPOT and TTFT of the fits without each point's model, s, [R, 2].
        without: by model, the same without that model as well, s, [R, 2]; empty where no interval is made.
        covered: 1 where ln(measured / held) lies in an interval made without the point's model, else 0, [R, 2]; NaN
            where no interval is made.
        unseen: by library and model, the constants fitted without that model, by which `held` is predicted.
        intervals: by library and metric, "tpot" or "ttft"; empty where none are made.
        cost: loss of the fit to all points (None), and of those without each model.
    """

    engines: dict[str, dict[str, float]]
    ends: dict[str, dict[str, tuple[float, float]]]
    models: dict[str, list[str]]
    inside: np.ndarray
    held: np.ndarray
    without: dict[str, np.ndarray]
    covered: np.ndarray
    unseen: dict[tuple[str, str], dict[str, float]]
    intervals: dict[str, dict[str, ServingInterval]]
    cost: dict[str | None, float]


def fit_engines(
    points: ServingPoints,
    columns: Mapping[str, np.ndarray],
    *,
    bounds: Mapping[str, Bounds] = BOUNDS,
    widths: tuple[float, float] = WIDTHS,
    prompts_first: Collection[str] = PROMPTS_FIRST,
    weights: np.ndarray | None = None,
    intervals: bool = True,
    seed: int = 0,
) -> ServingFit:
    """Fit the constants of all libraries to all points, and to the points without one and two models in turn.

    Args:
        points: the measured closed loops.
        columns: columns of `serving_steps`.
        bounds: bounds of the fitted constants; other constants are ideal.
        widths: s_library and s_model.
        prompts_first: libraries whose `burst_size` is UNLIMITED and not fitted.
        weights: weights of the points, [R]; 0 for points that are predicted but not fitted; None for 1.
        intervals: whether to make intervals, with a fit without every pair of models to test them.
        seed: seed of the starting points.
    """
    weights = np.ones(len(points)) if weights is None else weights
    libraries, names = sorted(set(points.library.tolist())), sorted(set(points.model.tolist()))
    keys = list(zip(points.library.tolist(), points.model.tolist(), strict=True))
    served = sorted(set(keys))
    unit = np.asarray([served.index(key) for key in keys])
    sets = [(), *((name,) for name in names)]
    if intervals and len(names) > 2:
        sets += itertools.combinations(names, 2)
    share = np.stack([_balanced(unit, weights * ~np.isin(points.model, out)) for out in sets])
    first = np.isin(points.library, list(prompts_first)).astype(float)
    found = fit(
        _seconds,
        bounds,
        _both(dict(columns) | {"prompts_first": first}),
        points.measured.T.ravel(),
        np.concatenate([share, share * _TTFT_WEIGHT], 1),
        np.tile(np.unique(_labels(points), return_inverse=True)[1], 2),
        effects=_effects(np.tile(unit, 2), libraries, served, widths),
        seed=seed,
    )

    def constants(out: tuple[str, ...], at: int, side: str = "values") -> dict[str, float]:
        one = dict(zip(found.names, getattr(found, side)[sets.index(out), at].tolist(), strict=True))
        library = served[at][0] if at < len(served) else libraries[at - len(served)]
        return one | ({"burst_size": UNLIMITED} if library in prompts_first else {})

    at = {name: len(served) + i for i, name in enumerate(libraries)}
    engines, low, high = (
        {n: constants((), i, side) for n, i in at.items()} for side in ("values", "low", "high")
    )
    unseen = {(library, model): constants((model,), at[library]) for library, model in served}
    inside = _by_point(points, columns, lambda *key: constants((), served.index(key)))
    held = _by_point(points, columns, lambda *key: unseen[key])
    errors, without = np.log(points.measured / held), {}
    for name in names if len(sets) > 1 + len(names) else ():
        others = lambda library, model, name=name: constants(tuple(sorted({name, model})), at[library])  # noqa: E731
        without[name] = _by_point(points, columns, others)
    double = {name: np.log(points.measured / times) for name, times in without.items()}
    use = weights > 0
    covered = covered_points(points.library, points.model, errors, double, use)
    return ServingFit(
        engines=engines,
        ends={n: {k: (low[n][k], high[n][k]) for k in one} for n, one in engines.items()},
        models={n: [model for library, model in served if library == n] for n in libraries},
        inside=inside,
        held=held,
        without=without,
        covered=covered,
        unseen=unseen,
        intervals=serving_intervals(points.library, points.model, errors, covered, use) if intervals else {},
        cost={out[0] if out else None: float(found.cost[i]) for i, out in enumerate(sets) if len(out) < 2},
    )


def choose_fit(
    points: ServingPoints, tried: Mapping[Any, ServingFit], weights: np.ndarray | None = None
) -> tuple[ServingFit, dict[str | None, Any]]:
    """Choose among fits for every model by the errors of the other models, each without both, and for all together.

    Args:
        points: the measured closed loops.
        tried: fits with intervals, to columns of different assumptions, by name of the assumption.
        weights: as for `fit_engines`.

    Returns:
        The fit chosen for all models, with `held` and `covered` of each model by the fit chosen without it; and what
        was chosen for each model, and for all of them (None).
    """
    weights = np.ones(len(points)) if weights is None else weights
    unit = np.unique(np.char.add(points.library, points.model), return_inverse=True)[1]
    weights = _balanced(unit, weights)

    def loss(made: ServingFit, out: str | None) -> float:
        z = np.log(points.measured / (made.held if out is None else made.without[out])) / SCALE
        rho = 2 * (np.sqrt(1 + z * z) - 1)
        return float((weights * (points.model != out)) @ (rho @ (1.0, _TTFT_WEIGHT)))

    names = sorted(set(points.model.tolist()))
    chosen = {out: min(tried, key=lambda one: loss(tried[one], out)) for out in (None, *names)}
    best = tried[chosen[None]]
    held, covered = best.held.copy(), best.covered.copy()
    for out in names:
        at = points.model == out
        held[at], covered[at] = tried[chosen[out]].held[at], tried[chosen[out]].covered[at]
    return dataclasses.replace(best, held=held, covered=covered), chosen


def _balanced(unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weigh the points of units with many of them less: (60 / n)^0.5."""
    return weights * np.sqrt(_TYPICAL / np.maximum(np.bincount(unit, weights), 1)[unit])


def _effects(
    unit: np.ndarray, libraries: list[str], served: list[tuple[str, str]], widths: tuple[float, float]
) -> Effects:
    """Describe what libraries, and models of a library, add to a constant; the units are models, then libraries."""
    of = np.eye(len(libraries))
    by_library = np.concatenate([of[[libraries.index(library) for library, _ in served]], of])
    by_model = np.eye(len(served) + len(libraries), len(served))
    table = np.concatenate([widths[0] * by_library, widths[1] * by_model], 1)
    return Effects(unit, table, np.zeros(len(table)))


def predicted(columns: Mapping[str, np.ndarray], engine: Mapping[str, Any]) -> np.ndarray:
    """Predict TPOT and TTFT of points, s, [R, 2], with the constants of an engine; missing constants are ideal.

    Args:
        columns: columns of `serving_steps`.
        engine: constants by name, one number for all points or one for each, [R].
    """
    each = {name: np.tile(value, 2) if np.ndim(value) else value for name, value in engine.items()}
    return predict(_seconds, _both(columns), each).reshape(2, -1).T


@dataclasses.dataclass(frozen=True)
class Choices:
    """Quality of the tensor-parallel degrees that predictions choose.

    Attributes:
        cases: number of choices.
        right: share of choices whose measured throughput is within a tolerance of the best.
        exact: share of choices that are the best.
        kept: mean ratio of the measured throughput of the choice to that of the best.
    """

    cases: int
    right: float
    exact: float
    kept: float


def choose_split(points: ServingPoints, times: np.ndarray, *, tolerance: float = 0.03) -> Choices:
    """Choose the degree tp of the replicas of a fleet for the highest throughput per chip.

    Points of one model, library and lengths are compared at equal users per chip.
    """
    measured, guessed = (_per_chip(points, t) for t in (points.measured, times))
    groups = _groups(np.char.add(_labels(points), [f" {u:g}" for u in points.users / points.tp]))
    shares = []
    for at in groups:
        if len(set(points.tp[at])) > 1:
            shares.append(measured[at][np.argmax(guessed[at])] / measured[at].max())
    return _choices(np.asarray(shares), tolerance)


def choose_within(
    points: ServingPoints, times: np.ndarray, *, tolerance: float = 0.05, targets: int = 6, least: int = 6
) -> Choices:
    """Choose tp and users for the highest throughput per chip within a bound on TPOT.

    A choice is right if its tp reaches, at the best measured number of users, nearly the best throughput within the
    bound. The bounds are spaced geometrically from 1.15 times the lowest TPOT of a model, library and lengths to the
    highest.
    """
    measured, guessed = (_per_chip(points, t) for t in (points.measured, times))
    shares = []
    for at in _groups(_labels(points)):
        if len(set(points.tp[at])) < 2 or len(at) < least:
            continue
        tpot, tp = points.tpot[at], points.tp[at]
        for bound in np.geomspace(1.15 * tpot.min(), tpot.max(), targets):
            meets, seems = tpot <= bound * (1 + 1e-9), times[at, 0] <= bound
            if not meets.any():
                continue
            pick = np.argmax(np.where(seems, guessed[at], 0)) if seems.any() else np.argmin(times[at, 0])
            reached = np.where(meets & (tp == tp[pick]), measured[at], 0).max()
            shares.append(reached / np.where(meets, measured[at], 0).max())
    return _choices(np.asarray(shares), tolerance)


def _choices(shares: np.ndarray, tolerance: float) -> Choices:
    if not len(shares):
        return Choices(0, float("nan"), float("nan"), float("nan"))
    right, exact = np.mean(shares >= 1 - tolerance), np.mean(shares >= 1 - 1e-9)
    return Choices(len(shares), float(right), float(exact), float(np.mean(shares)))


def _per_chip(points: ServingPoints, times: np.ndarray) -> np.ndarray:
    """Return output tokens per second and chip, by Little's law."""
    output = points.nominal[:, 1]
    return points.users * output / (times[:, 1] + (output - 1) * times[:, 0]) / (points.tp * points.dp)


def _labels(points: ServingPoints) -> np.ndarray:
    words = zip(points.model, points.library, *points.nominal.T, strict=True)
    return np.asarray([" ".join(map(str, row)) for row in words])


def _groups(keys: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(keys == key) for key in sorted(set(keys.tolist()))]


def _by_point(points: ServingPoints, columns: Mapping[str, np.ndarray], engine: Any) -> np.ndarray:
    """Predict every point with the constants `engine(library, model)`, [R, 2]."""
    keys = list(zip(points.library.tolist(), points.model.tolist(), strict=True))
    made = {key: engine(*key) for key in sorted(set(keys))}
    rows = {name: np.asarray([made[key][name] for key in keys]) for name in made[keys[0]]}
    return predicted(columns, rows)


def _both(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stack the rows of TPOT and those of TTFT."""
    twice = {key: np.tile(x, 2) for key, x in columns.items()}
    count = len(columns["users"])
    return twice | {"late": np.repeat([0.0, 1.0], count)}


def _seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    steps = LoopSteps(**{f.name: columns[f.name] for f in dataclasses.fields(LoopSteps) if f.name in columns})
    parameters = {"burst_size": 1.0} | dict(parameters)
    if "prompts_first" in columns:
        parameters["burst_size"] = jnp.where(
            columns["prompts_first"] > 0, UNLIMITED, parameters["burst_size"]
        )
    tpot, ttft = loop_times(
        replace(EngineOverheads(), **parameters),
        steps,
        users=columns["users"],
        output=columns["output"],
        first=FIRST,
        equal=columns["equal"],
    )
    return jnp.where(columns["late"] > 0, ttft, tpot)
