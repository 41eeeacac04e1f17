"""Measured closed loops of users, and the steps of `evaluate` that they consist of.

A point is one measured closed loop: mean TPOT and mean TTFT of c users with one model, library and plan.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.arrays import spread
from jaxcost.core.program import program
from jaxcost.core.pytree import canonical, replace, replace_at
from jaxcost.evaluation import design_features
from jaxcost.explore.compilation import chunk_of, map_chunks
from jaxcost.explore.serve import LoopSteps, closed_loop_steps
from jaxcost.explore.space import compact, take
from jaxcost.spec.engine import Engine
from jaxcost.spec.measurement import Measurements
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["SKEW", "ServingPoints", "serving_points", "serving_steps", "with_skew"]

# Squared coefficient of variation of the popularity of routed experts in served traffic, chosen by models left out.
SKEW = 3.0
# Sources whose prompts and answers are uniformly distributed between 0.8 and 1 of the listed lengths: their mean.
VARYING = {"inferencex_via_aiconfigurator": 0.9}
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


def with_skew(model: Model, skew: float = SKEW) -> Model:
    """Return a model with uneven expert popularity where it has experts of even popularity.

    How uneven it is depends on the traffic, not on the model alone, so models of the catalogue have even popularity.
    Served traffic does not: with even popularity, decode steps of the measured mixtures would be up to 40% longer.
    """
    even = float(model.experts.experts) > 1 and float(model.experts.skew) == 0
    return replace_at(model, "experts.skew", skew) if even else model


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *(canonical(tree) for tree in trees))
