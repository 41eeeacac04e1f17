"""Fit the constants of serving engines to served times, and test the plans that they choose for held-out models.

A point is one measured closed loop: mean TPOT and mean TTFT of c users with one model, library and plan. Its steps
are evaluated once, with the kernels of the given systems; the constants of the engine only add to them. The fit is in
the logarithm of both times, with TTFT at half the weight of TPOT. Every library has its own constants. A held-out model
is predicted with the constants fitted to the library's other models, or with the mean of the other libraries where
there are none.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.arrays import spread
from jaxcost.core.program import program
from jaxcost.core.pytree import canonical, replace
from jaxcost.evaluation import design_features
from jaxcost.explore.calibrate.fit import Bounds, Columns, Fit, fit, predict
from jaxcost.explore.compilation import chunk_of, map_chunks
from jaxcost.explore.serve import LoopSteps, closed_loop_steps, loop_times
from jaxcost.explore.space import compact, take
from jaxcost.spec.engine import Engine
from jaxcost.spec.kernels import UNLIMITED, EngineOverheads
from jaxcost.spec.measurement import Measurements
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "BOUNDS",
    "Choices",
    "ServingFit",
    "ServingPoints",
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
    "frontend_latency": Bounds(1e-3, 1.0, 0.05),
    "burst_size": Bounds(1.001, 100.0, 4.0),
}
# Sources whose prompts and answers are uniformly distributed between 0.8 and 1 of the listed lengths: their mean.
VARYING = {"inferencex_via_aiconfigurator": 0.9}
# Engines that prefill all waiting prompts before they decode, so that users with equal requests stay in lockstep.
PROMPTS_FIRST = ("sglang",)
FIRST = 0.1  # share of requests sent at once at the start: the first of ten per user
_TTFT_WEIGHT = 0.25  # of a squared residual, so half of a residual
_NARROW = 10.0  # bits of weights up to which TensorRT-LLM also caches keys and values in 8 bits


@dataclasses.dataclass(frozen=True)
class ServingPoints:
    """Measured closed loops, [R] in every column.

    Attributes:
        library: name of the serving library.
        model: name of the model.
        tp: tensor-parallel degree.
        ep: expert-parallel degree.
        dp: data-parallel degree of attention.
        users: concurrent users c of the whole system.
        prompt: mean prompt tokens.
        output: mean output tokens.
        nominal: listed prompt and output tokens, by which points are grouped, [R, 2].
        equal: 1 where all requests have the same length, else 0.
        weight_bits: bits of a weight: as reported, else as in the model's name, else 16.
        kv_bits: bits of a cached element: as reported, else 8 for TensorRT-LLM with 8-bit weights, else 16.
        tpot: measured mean TPOT, s.
        ttft: measured mean TTFT, s.
        line: lines of both in the file, [R, 2].
    """

    library: np.ndarray
    model: np.ndarray
    tp: np.ndarray
    ep: np.ndarray
    dp: np.ndarray
    users: np.ndarray
    prompt: np.ndarray
    output: np.ndarray
    nominal: np.ndarray
    equal: np.ndarray
    weight_bits: np.ndarray
    kv_bits: np.ndarray
    tpot: np.ndarray
    ttft: np.ndarray
    line: np.ndarray

    def __len__(self) -> int:
        """Count the points."""
        return len(self.tpot)

    def where(self, mask: np.ndarray) -> "ServingPoints":
        """Return the points where a mask is true."""
        return ServingPoints(**{f.name: getattr(self, f.name)[mask] for f in dataclasses.fields(self)})

    @property
    def measured(self) -> np.ndarray:
        """TPOT and TTFT, [R, 2]."""
        return np.stack([self.tpot, self.ttft], 1)


def serving_points(measurements: Measurements, varying: Mapping[str, float] = VARYING) -> ServingPoints:
    """Pair the mean TPOT and the mean TTFT of closed loops; rows of one without the other are skipped.

    Args:
        measurements: rows of the family "serving" on one chip. Disaggregated deployments, pipelines and rows without
            a concurrency are skipped.
        varying: ratio of mean to listed length, by source; 1 for sources that are not in it.
    """
    w, labels = measurements.work, measurements.labels
    keep = (labels["mode"] == "agg") & np.isfinite(w["concurrency"]) & (w["pp"] == 1)
    keys = ("source", "model", "library", "version", "citation")
    found: dict[tuple[Any, ...], dict[str, int]] = {}
    for i in np.flatnonzero(keep).tolist():
        key = (*(labels[k][i] for k in keys), *(repr(w[k][i]) for k in sorted(w)))
        found.setdefault(key, {})[str(labels["metric"][i])] = i
    pairs = [
        (at["tpot_mean"], at["ttft_mean"]) for at in found.values() if {"tpot_mean", "ttft_mean"} <= set(at)
    ]
    at, other = np.asarray(pairs, np.intp).reshape(-1, 2).T
    share = np.asarray([varying.get(str(s), 1.0) for s in labels["source"][at]])
    named = np.asarray(["FP8" in str(m).upper() for m in labels["model"][at]])
    bits = np.where(np.isfinite(w["weight_bits"][at]), w["weight_bits"][at], np.where(named, 8.0, 16.0))
    library = labels["library"][at].astype(str)
    narrow = np.where((library == "trtllm") & (bits <= _NARROW), 8.0, 16.0)
    return ServingPoints(
        library=library,
        model=labels["model"][at].astype(str),
        tp=w["tp"][at],
        ep=np.nan_to_num(w["ep"][at], nan=1.0),
        dp=np.nan_to_num(w["attention_dp"][at], nan=1.0),
        users=w["concurrency"][at],
        prompt=share * w["input"][at],
        output=share * w["output"][at],
        nominal=np.stack([w["input"][at], w["output"][at]], 1),
        equal=(share == 1.0).astype(float),
        weight_bits=bits,
        kv_bits=np.where(np.isfinite(w["kv_bits"][at]), w["kv_bits"][at], narrow),
        tpot=measurements.seconds[at],
        ttft=measurements.seconds[other],
        line=np.stack([measurements.line[at], measurements.line[other]], 1),
    )


def serving_steps(
    systems: Mapping[str, System],
    models: Mapping[str, Model],
    points: ServingPoints,
    engines: Mapping[str, Engine] | None = None,
) -> dict[str, np.ndarray]:
    """Evaluate the steps of every point: the columns that `fit_engines` and `predicted` take, [R] each.

    Args:
        systems: by library, a system with its kernels in `chip.efficiency`; the overheads of its engine are not used.
        models: models by the names in `points`.
        points: the measured closed loops.
        engines: by library, the engine's limits of a step and memory policy; None for the typical engine.
    """
    libraries, names = sorted(set(points.library.tolist())), sorted(set(points.model.tolist()))
    system = compact(_stack([systems[name] for name in libraries]))
    engine = compact(_stack([(engines or {}).get(name, Engine()) for name in libraries]))
    model = compact(_stack([models[name] for name in names]))
    narrow = points.weight_bits <= _NARROW
    four = points.weight_bits < 6  # only routed experts have fewer than 8 bits, and their inputs have 16
    columns = {
        "library": np.searchsorted(libraries, points.library),
        "model": np.searchsorted(names, points.model),
        "tp": points.tp,
        "ep": points.ep,
        "dp": points.dp,
        "users": points.users / points.dp,
        "prompt": points.prompt,
        "output": points.output,
        "weight_bits": np.where(four, 16.0, points.weight_bits),
        "expert_bits": points.weight_bits,
        "kv_bits": points.kv_bits,
        "activation_bits": np.where(narrow & ~four, 8.0, 16.0),
    }
    features = design_features(systems[libraries[0]], Traffic(), replace(Plan(), engine=engine))

    def steps(index: jax.Array) -> LoopSteps:
        row = {name: column[index] for name, column in rows.items()}
        pick = lambda tree, at: take(tree, at.astype(int))  # noqa: E731
        words = ("tp", "ep", "dp", "weight_bits", "expert_bits", "kv_bits", "activation_bits")
        plan = replace(base_plan, engine=pick(engine, row["library"]), **{word: row[word] for word in words})
        traffic = replace(base_traffic, prompt=row["prompt"], output=row["output"])
        found = closed_loop_steps(
            pick(system, row["library"]),
            pick(model, row["model"]),
            traffic,
            plan,
            users=row["users"],
            features=features,
        )
        return spread(found, index.shape)

    base_plan, base_traffic = canonical((Plan(), Traffic()))
    dtype = jax.tree.leaves(system)[0].dtype
    rows = {name: jnp.asarray(column, dtype) for name, column in columns.items()}
    found = program(lambda index: map_chunks(steps, index, chunk_of("points")))(jnp.arange(len(points)))
    timed = {f.name: np.asarray(getattr(found, f.name), np.float64) for f in dataclasses.fields(LoopSteps)}
    return timed | {name: columns[name] for name in ("users", "prompt", "output")} | {"equal": points.equal}


@dataclasses.dataclass(frozen=True)
class ServingFit:
    """Fitted constants of serving engines, and their predictions of the points.

    Attributes:
        engines: by library, the constants fitted to all its points.
        fits: by library, the fits; the training sets are all points, then all points without each of `models`.
        models: by library, the held-out models in order.
        inside: predicted TPOT and TTFT of the fits to all points, s, [R, 2].
        held: predicted TPOT and TTFT of the fits without each point's model, s, [R, 2].
        unseen: by library and model, the constants fitted without that model, by which `held` is predicted.
    """

    engines: dict[str, dict[str, float]]
    fits: dict[str, Fit]
    models: dict[str, list[str]]
    inside: np.ndarray
    held: np.ndarray
    unseen: dict[tuple[str, str], dict[str, float]]


def fit_engines(
    points: ServingPoints,
    columns: Mapping[str, np.ndarray],
    *,
    bounds: Mapping[str, Bounds] = BOUNDS,
    prompts_first: Collection[str] = PROMPTS_FIRST,
    weights: np.ndarray | None = None,
    seed: int = 0,
) -> ServingFit:
    """Fit the constants of each library to all its points, and to its points without each model in turn.

    Args:
        points: the measured closed loops.
        columns: columns of `serving_steps`.
        bounds: bounds of the fitted constants; other constants are ideal.
        prompts_first: libraries whose `burst_size` is UNLIMITED and not fitted.
        weights: weights of the points, [R]; 0 for points that are predicted but not fitted; None for 1.
        seed: seed of the starting points.
    """
    weights = np.ones(len(points)) if weights is None else weights
    burst_size = {name: UNLIMITED if name in prompts_first else 1.0 for name in set(points.library.tolist())}
    fits, models, engines = {}, {}, {}
    for name in sorted(set(points.library.tolist())):
        mine = points.library == name
        log_bounds = {n: Bounds(*np.log([b.low, b.high, b.start]).tolist()) for n, b in bounds.items()}
        if name in prompts_first:
            log_bounds.pop("burst_size", None)
        models[name] = sorted(set(points.model[mine].tolist()))
        training_sets = [points.model[mine] != out for out in (None, *models[name])]
        # A training set without rows cannot be fitted. It takes all rows instead, and its fit is never used.
        share = np.stack([np.where(rows.any(), rows, True) * weights[mine] for rows in training_sets])
        found = fit(
            _seconds_of_logs,
            log_bounds,
            _both(
                {key: x[mine] for key, x in columns.items()}
                | {"burst_size": burst_size[name] * np.ones(mine.sum())}
            ),
            points.measured[mine].T.ravel(),
            np.concatenate([share, share * _TTFT_WEIGHT], 1),
            np.tile(np.unique(_labels(points.where(mine)), return_inverse=True)[1], 2),
            seed=seed,
        )
        ends = {side: np.exp(getattr(found, side)) for side in ("values", "low", "high")}
        fits[name] = dataclasses.replace(found, **ends)
    fixed = {name: {"burst_size": x} if x == UNLIMITED else {} for name, x in burst_size.items()}
    engines = {name: found.parameters(0) | fixed[name] for name, found in fits.items()}
    inside = _by_point(points, columns, lambda library, _: engines[library])

    def without(library: str, model: str) -> dict[str, float]:
        if len(models[library]) > 1:
            return fits[library].parameters(1 + models[library].index(model)) | fixed[library]
        others = [
            f.parameters(1 + models[n].index(model) if model in models[n] else 0)
            for n, f in fits.items()
            if n != library and models[n] != [model]
        ]
        if not others:
            return {n: b.start for n, b in bounds.items()} | fixed[library]
        means = {}
        for key in bounds:
            known = [np.log(one[key]) for one in others if key in one]
            means[key] = float(np.exp(np.mean(known))) if known else bounds[key].start
        return means | fixed[library]

    unseen = {(library, model): without(library, model) for library in models for model in models[library]}
    held = _by_point(points, columns, lambda library, model: unseen[library, model])
    return ServingFit(engines, fits, models, inside, held, unseen)


def predicted(columns: Mapping[str, np.ndarray], engine: Mapping[str, float]) -> np.ndarray:
    """Predict TPOT and TTFT of points, s, [R, 2], with the constants of an engine; missing constants are ideal."""
    return predict(_seconds, _both(columns), engine).reshape(2, -1).T


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
    """Predict every point with the constants `engine(library, model)`."""
    out = np.zeros((len(points), 2))
    for library, model in sorted(set(zip(points.library.tolist(), points.model.tolist(), strict=True))):
        at = (points.library == library) & (points.model == model)
        out[at] = predicted({key: x[at] for key, x in columns.items()}, engine(library, model))
    return out


def _both(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stack the rows of TPOT and those of TTFT."""
    twice = {key: np.tile(x, 2) for key, x in columns.items()}
    count = len(columns["users"])
    return twice | {"late": np.repeat([0.0, 1.0], count)}


def _seconds(columns: Columns, parameters: Mapping[str, Any]) -> Any:
    steps = LoopSteps(**{f.name: columns[f.name] for f in dataclasses.fields(LoopSteps)})
    tpot, ttft = loop_times(
        replace(EngineOverheads(), **({"burst_size": columns.get("burst_size", 1.0)} | dict(parameters))),
        steps,
        users=columns["users"],
        prompt=columns["prompt"],
        output=columns["output"],
        first=FIRST,
        equal=columns["equal"],
    )
    return jnp.where(columns["late"] > 0, ttft, tpot)


def _seconds_of_logs(columns: Columns, logs: Mapping[str, Any]) -> Any:
    return _seconds(columns, {name: jnp.exp(x) for name, x in logs.items()})


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *(canonical(tree) for tree in trees))
