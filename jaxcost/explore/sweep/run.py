"""Evaluate every design of a space: all metrics of a small space in memory, or what reducers keep of any."""

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import field, leaf_fields, pytree, totals
from jaxcost.evaluation import evaluate
from jaxcost.explore.space import Space, sweep_features
from jaxcost.explore.sweep.reducer import Reducer
from jaxcost.explore.sweep.stream import Evaluation, SweepStream, over_designs
from jaxcost.report import Report
from jaxcost.spec.design import Design

__all__ = [
    "METRICS",
    "Sweep",
    "build_stream",
    "default_block",
    "design_metrics",
    "metrics_of",
    "model_evaluation",
    "report_metrics",
    "sweep",
]

METRICS = (
    "ttft",
    "tpot",
    "tokens_per_second",
    "joules_per_token",
    "usd_per_mtok",
    "gco2e_per_mtok",
    "margins.memory",
    "margins.chips",
    "margins.power",
    "margins.ttft",
    "margins.tpot",
    "margins.worst",
)
# Designs of about a second of work, after which progress is reported and a run can stop.
_BLOCKS = {"cpu": 1 << 20}
_DEFAULT_BLOCK = 1 << 26
_MAX_VALUES = 1 << 33


@pytree
class Sweep:
    """Metrics of every design of a space: `values[i, j]` is metric j of the design with index i."""

    space: Space = field(doc="the designs")
    values: np.ndarray = field("1", "metrics, shape [designs, metrics], each in its own unit")
    metrics: tuple[str, ...] = field(doc="names of the columns", static=True)

    def column(self, metric: str) -> np.ndarray:
        """Return one metric of all designs, shape [designs]."""
        return self.values[:, self.metrics.index(metric)]

    @property
    def feasible(self) -> np.ndarray:
        """Which designs satisfy every constraint among the metrics, bool [designs]."""
        margins = [i for i, name in enumerate(self.metrics) if name.startswith("margins.")]
        return np.all(self.values[:, margins] >= 0, axis=1)

    def best(self, metric: str, count: int = 1, *, largest: bool = False) -> np.ndarray:
        """Return the indices of the best feasible designs, best first, ties by index."""
        score = self.column(metric) * (-1 if largest else 1)
        allowed = np.flatnonzero(self.feasible)
        return allowed[np.argsort(score[allowed], kind="stable")[:count]]


def design_metrics(
    design: Design, metrics: tuple[str, ...], features: tuple[str, ...] | None = None
) -> jax.Array:
    """Evaluate a design, or a batch of designs, and return metrics by dotted path, [m, *batch].

    Args:
        design: the design; its leaves are broadcast.
        metrics: dotted paths into a Report.
        features: what designs have beyond main memory, of `sweep_features`, where they are traced.
    """
    report = evaluate(
        design.system,
        design.model,
        design.traffic,
        design.plan,
        prices=design.prices,
        knobs=design.knobs,
        features=features,
    )
    return jnp.stack([operator.attrgetter(name)(report) for name in metrics])


@functools.lru_cache
def model_evaluation(metrics: tuple[str, ...], features: tuple[str, ...] | None) -> Evaluation:
    """Return a function from designs to these metrics; equal arguments give the same object."""
    return functools.partial(design_metrics, metrics=metrics, features=features)


def metrics_of(reducers: Mapping[str, Reducer], metrics: Sequence[str] = ()) -> tuple[str, ...]:
    """Return `metrics` and those that reducers read, each once."""
    return tuple(dict.fromkeys((*metrics, *(need for r in reducers.values() for need in r.needs))))


@functools.cache
def report_metrics(tree: type = Report, prefix: str = "") -> dict[str, str]:
    """Map the dotted path of every number of a Report that can be a metric to its unit."""
    out, hints = {}, typing.get_type_hints(tree)
    for f in leaf_fields(tree):
        if f.metadata["unit"]:
            out[f"{prefix}{f.name}"] = f.metadata["unit"]
        elif dataclasses.is_dataclass(hints[f.name]) and not f.metadata["table"]:
            out |= report_metrics(hints[f.name], f"{prefix}{f.name}.")
    return out | {f"{prefix}{name}": total.unit for name, total in totals(tree).items()}


def build_stream(
    space: Space,
    reducers: Mapping[str, Reducer],
    *,
    metrics: Sequence[str] = METRICS,
    evaluation: Evaluation | None = None,
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    keep: int = 0,
) -> SweepStream:
    """Build the stream of a sweep, whose metrics are `metrics` and those that reducers read.

    Args:
        space: the designs.
        reducers: what to keep, by name.
        metrics: dotted paths into a Report; with `evaluation`, the names of all that it returns.
        evaluation: another function of a design that returns `metrics` as a vector; by default `evaluate`.
        chunk: as of `SweepStream`.
        devices: as of `SweepStream`.
        keep: as of `SweepStream`.

    Raises:
        ValueError: a bad chunk, or a reducer of an unknown metric.
    """
    if evaluation is None:
        metrics = metrics_of(reducers, metrics)
        many = model_evaluation(metrics, sweep_features(space))
    else:
        many = over_designs(evaluation)
    return SweepStream(space, many, tuple(metrics), reducers, chunk=chunk, devices=devices, keep=keep)


def default_block(platform: str) -> int:
    """Return the number of designs after which a sweep reports its progress."""
    return _BLOCKS.get(platform, _DEFAULT_BLOCK)


@overload
def sweep(
    space: Space,
    *,
    metrics: tuple[str, ...] = METRICS,
    reduce: None = None,
    evaluation: Evaluation | None = None,
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Sweep: ...
@overload
def sweep(
    space: Space,
    *,
    metrics: tuple[str, ...] = METRICS,
    reduce: Mapping[str, Reducer],
    evaluation: Evaluation | None = None,
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]: ...
def sweep(
    space: Space,
    *,
    metrics: tuple[str, ...] = METRICS,
    reduce: Mapping[str, Reducer] | None = None,
    evaluation: Evaluation | None = None,
    chunk: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Sweep | dict[str, Any]:
    """Evaluate every design of a space.

    Args:
        space: the designs.
        metrics: dotted paths into a Report, such as "tpot" or "margins.memory"; those that reducers read are added.
        reduce: what to keep, by name; without it all metrics of all designs are returned, and must fit in memory.
        evaluation: another function of a design that returns `metrics` as a vector, including those that reducers
            read; by default `evaluate`, and the metrics of its report.
        chunk: designs evaluated together, a multiple of 64; by default the fastest on the platform.
        devices: where to run; all local devices by default.
        progress: called with the number of finished designs after each block of about a second.

    Returns:
        A Sweep; with `reduce`, the result of every reducer by name, which no chunk or choice of devices changes.

    Raises:
        ValueError: a bad chunk, a reducer of an unknown metric, or more metrics than memory is likely to hold.
    """
    devices = jax.local_devices() if devices is None else devices
    block = min(default_block(devices[0].platform), space.size)
    stream = build_stream(
        space,
        reduce or {},
        metrics=metrics,
        evaluation=evaluation,
        chunk=chunk,
        devices=devices,
        keep=block if reduce is None else 0,
    )
    metrics = stream.metrics
    if reduce is None and space.size * len(metrics) > _MAX_VALUES:
        raise ValueError(f"{space.size:,} designs do not fit in memory: pass `reduce`, or use run_sweep")
    values = np.empty((space.size if reduce is None else 0, len(metrics)), jnp.result_type(float))
    for number in range(math.ceil(space.size / block)):
        start, end = number * block, min((number + 1) * block, space.size)
        kept = stream.run(start, end - start)
        if kept is not None:
            values[start:end] = kept
        if progress is not None:
            stream.wait()
            progress(end)
    if reduce is None:
        return Sweep(space=space, values=values, metrics=metrics)
    return stream.results(stream.state())
