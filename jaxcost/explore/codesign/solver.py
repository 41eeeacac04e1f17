"""Solve one design problem from many points: lanes through `descent`, in batches of one shape and one compilation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import leaf_fields, replace
from jaxcost.explore.analysis import metric_names
from jaxcost.explore.codesign import descent
from jaxcost.explore.codesign.lagrangian import Lane, Look, Problem, Weights, look
from jaxcost.explore.codesign.relaxation import Relaxation, design_from
from jaxcost.explore.compilation import compilation
from jaxcost.explore.sweep import Constraint, Evaluation, model_evaluation, over_designs, report_metrics
from jaxcost.report import Margins

__all__ = ["ANNEALED", "MARGINS", "Solutions", "Solver", "Start", "limits_of", "resumed", "weights_of"]

MARGINS = tuple(f"margins.{f.name}" for f in leaf_fields(Margins))
_STANDARD = (*metric_names(), "power.prefill", "power.decode", "power.provisioned", *MARGINS)
# Of what is compiled, sizes are padded to these, so that most studies share one compilation.
_KNOBS, _MOVES, _LIMITS = 32, 64, 32
_PENALTY = 10.0
_RESUMED_PENALTY = 40.0
ANNEALED = descent.Schedule(
    tau=np.asarray([0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3]),
    tolerance=np.asarray([1e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5]),
    patience=np.asarray([20, 15, 15, 20, 25, 40], np.int32),
    kept=np.asarray(1e-6),
    most=np.asarray(400, np.int32),
)


@dataclasses.dataclass(frozen=True)
class Start:
    """Where lanes begin: rows of n lanes."""

    combination: np.ndarray  # int[n]
    positions: np.ndarray  # [n, K]
    multipliers: np.ndarray | None = None  # [n, W, C]
    penalty: np.ndarray | None = None  # [n]
    stage: int = 0
    free: np.ndarray | None = None  # [n, K]: 1 where a knob may move
    shift: np.ndarray | None = None  # [n, W, C]
    bounds: np.ndarray | None = None  # [n, C] in place of the problem's own
    weights: np.ndarray | None = None  # [n, m]
    fractional: bool = False


@dataclasses.dataclass(frozen=True)
class Solutions:
    """Where lanes end: rows of n lanes."""

    combination: np.ndarray
    positions: np.ndarray  # [n, K]
    objective: np.ndarray  # logarithm, of the problem at the last softness
    limits: np.ndarray  # [n, W, C], without shifts
    violation: np.ndarray  # largest of what a limit is broken by and of what complementarity lacks
    stationarity: np.ndarray  # largest step that a projected slope of the Lagrangian would still take, in u
    multipliers: np.ndarray  # [n, W, C]
    penalty: np.ndarray
    metrics: np.ndarray  # [n, W, m]
    slope: np.ndarray  # [n, K] of the Lagrangian by u
    evaluations: np.ndarray
    converged: np.ndarray

    def take(self, rows: Any) -> "Solutions":
        """Return some of them."""
        return Solutions(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    @staticmethod
    def joined(parts: Sequence["Solutions"]) -> "Solutions":
        """Return the rows of all parts."""
        names = [f.name for f in dataclasses.fields(Solutions)]
        return Solutions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def resumed(rows: Solutions, **changes: Any) -> Start:
    """Start where solutions ended; other fields of `Start` as `changes` say."""
    same: dict[str, Any] = {
        "combination": rows.combination,
        "positions": rows.positions,
        "multipliers": rows.multipliers,
        "penalty": np.minimum(rows.penalty, _RESUMED_PENALTY),
    }
    return Start(**same | changes)


def weights_of(objective: str | Mapping[str, float]) -> dict[str, float]:
    """Return the exponents of the metrics that an objective lowers.

    Raises:
        ValueError: no such metric, or no weight at all.
    """
    weights = {objective: 1.0} if isinstance(objective, str) else dict(objective)
    for name, weight in weights.items():
        _known(name)
        if not np.isfinite(weight) or weight == 0:
            raise ValueError(f"a weight is a number other than 0, not {weight!r} for {name}")
    if not weights:
        raise ValueError("an objective needs a metric")
    return weights


def limits_of(constraints: Sequence[Constraint]) -> tuple[tuple[str, float, float], ...]:
    """List limits as (metric, sign, bound): all margins at least 0, unless a constraint says otherwise, and the rest.

    Raises:
        ValueError: no such metric, a bound that is not positive, or no bound.
    """
    own = {name: 0.0 for name in MARGINS}
    rows = []
    for c in constraints:
        _known(c.metric)
        if c.metric.startswith("margins."):
            if c.metric not in own or not c.low < 1 or np.isfinite(c.high):
                raise ValueError(f"a margin has a low end below 1 only, and each its own; not {c}")
            own[c.metric] = c.low
            continue
        for sign, bound in ((1.0, c.high), (-1.0, c.low)):
            if np.isfinite(bound):
                if bound <= 0:
                    raise ValueError(f"bounds are above 0, not {bound:g} for {c.metric}")
                rows.append((c.metric, sign, float(bound)))
    margins = [(name, 1.0, low) for name, low in own.items() if np.isfinite(low)]
    if len(margins) + len(rows) > _LIMITS:
        raise ValueError(f"at most {_LIMITS} limits, margins included")
    return (*margins, *rows)


def _known(name: str) -> None:
    if name not in report_metrics():
        raise ValueError(f"no metric {name!r} in a Report; totals are {', '.join(metric_names())}")


@functools.lru_cache
def _looking(
    structure: Any,
    metrics: tuple[str, ...],
    present: tuple[str, ...],
    evaluation: Evaluation | None,
    platform: str,
) -> Callable[..., Look]:
    many = over_designs(evaluation) if evaluation else model_evaluation(metrics, present)

    def metrics_of(leaves: jax.Array) -> jax.Array:
        return many(design_from(structure, leaves))

    return jax.jit(
        functools.partial(look, metrics_of), compiler_options=compilation("codesign", platform).options
    )


class Solver:
    """One problem: a relaxed space, an objective and limits."""

    def __init__(
        self,
        relaxation: Relaxation,
        objective: Weights,
        limits: Sequence[tuple[str, float, float]],
        *,
        factors: np.ndarray | None = None,
        share: np.ndarray | None = None,
        optimiser: str = "bfgs",
        evaluation: Evaluation | None = None,
        metrics: tuple[str, ...] = (),
    ) -> None:
        """Take the problem; `factors` [W, L] on leaves once knobs are in, `share` [W] of the scenarios."""
        if optimiser not in descent.OPTIMISERS:
            raise ValueError(f"an optimiser is one of {', '.join(descent.OPTIMISERS)}, not {optimiser!r}")
        if len(relaxation.knobs) > _KNOBS or sum(len(k.ranges) for k in relaxation.knobs) > _MOVES:
            raise ValueError(f"at most {_KNOBS} knobs that move {_MOVES} leaves")
        self.relaxation, self.objective, self.limits = relaxation, objective, tuple(limits)
        self.optimiser, self.platform = optimiser, jax.default_backend()
        asked = (*(name for name, _ in objective.metrics), *(name for name, _, _ in limits))
        standard = metrics if evaluation is not None else _STANDARD
        self.metrics = tuple(dict.fromkeys((*standard, *metrics, *asked)))
        self.knobs = len(relaxation.knobs)
        bases = relaxation.bases
        self.scenarios = bases.shape[1] if factors is None else len(factors)
        repeat = self.scenarios // bases.shape[1]
        self.bases = np.repeat(bases, repeat, axis=1) if repeat > 1 else bases
        self.factors = np.ones(self.bases.shape[1:]) if factors is None else factors
        share = np.full(self.scenarios, 1 / self.scenarios) if share is None else share
        self.weights = np.zeros(len(self.metrics))
        for name, weight in objective.metrics:
            self.weights[self.metrics.index(name)] = weight
        pad = _LIMITS - len(limits)
        columns = [self.metrics.index(name) for name, _, _ in limits] + [0] * pad
        self.bounds = np.asarray([bound for _, _, bound in limits] + [1.0] * pad)
        self.problem = Problem(
            moves=relaxation.moves(_MOVES),
            tau_leaf=np.int32(relaxation.paths.index("knobs.tau")),
            column=np.asarray(columns, np.int32),
            margin=np.asarray([name.startswith("margins.") for name, _, _ in limits] + [False] * pad),
            sign=np.asarray([sign for _, sign, _ in limits] + [0.0] * pad),
            share=np.asarray(share, float),
            level=np.asarray(objective.level, float),
        )
        self.looking = _looking(
            relaxation.structure, self.metrics, relaxation.present, evaluation, self.platform
        )
        self.evaluations = 0
        self.batch = compilation("codesign", self.platform).chunk
        if self.platform == "cpu" and self.scenarios > 1:
            self.batch = max(self.batch // self.scenarios, 4)

    def solve(
        self,
        start: Start,
        schedule: descent.Schedule = ANNEALED,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Solutions:
        """Take lanes from where they start to where they end."""
        return self._batched(start, lambda part: self._descend(part, schedule), progress)

    def measure(self, start: Start, tau: float = 0.0) -> Solutions:
        """Evaluate lanes where they start; exact by default."""
        return self._batched(start, lambda part: self._look(part, tau), lambda share: None)

    def _batched(
        self, start: Start, run: Callable[[Start], Solutions], progress: Callable[[float], None]
    ) -> Solutions:
        n, parts = len(start.combination), []
        for first in range(0, n, self.batch):
            rows = np.minimum(np.arange(first, first + self.batch), n - 1)  # the last batch is filled up
            cut: dict[str, Any] = {
                f.name: value[rows] if isinstance(value := getattr(start, f.name), np.ndarray) else value
                for f in dataclasses.fields(start)
            }
            with jax.enable_x64(True):
                found = run(Start(**cut))
            parts.append(found.take(slice(0, min(self.batch, n - first))))
            progress(min(first + self.batch, n) / n)
        out = Solutions.joined(parts)
        self.evaluations += int(out.evaluations.sum())
        return out

    def _lanes(self, start: Start) -> tuple[Lane, np.ndarray, np.ndarray, np.ndarray]:
        n, shape = len(start.combination), (len(start.combination), self.scenarios, _LIMITS)
        base = self.bases[start.combination].copy()
        base[:, :, self.relaxation.paths.index("knobs.fractional")] = float(start.fractional)
        free = np.zeros((n, _KNOBS))
        free[:, : self.knobs] = 1 if start.free is None else start.free
        u = np.zeros((n, _KNOBS))
        u[:, : self.knobs] = start.positions
        lane = Lane(
            base=base,
            factors=np.broadcast_to(self.factors, base.shape),
            weights=np.tile(self.weights, (n, 1)) if start.weights is None else start.weights,
            bound=np.tile(self.bounds, (n, 1)) if start.bounds is None else start.bounds,
            shift=np.zeros(shape) if start.shift is None else start.shift,
            free=free,
        )
        multipliers = np.zeros(shape) if start.multipliers is None else start.multipliers
        penalty = np.full(n, _PENALTY) if start.penalty is None else start.penalty
        return lane, u, multipliers, penalty

    def _descend(self, start: Start, schedule: descent.Schedule) -> Solutions:
        lane, u, multipliers, penalty = self._lanes(start)
        problem, lanes, schedule, u, multipliers, penalty = jax.tree.map(
            jnp.asarray, (self.problem, lane, schedule, u, multipliers, penalty)
        )
        stage = jnp.full(len(start.combination), start.stage, jnp.int32)
        state = descent.start(u, multipliers, penalty, stage, len(self.metrics), optimiser=self.optimiser)
        state = descent.descend(self.looking, problem, lanes, schedule, state, optimiser=self.optimiser)
        return self._found(start, state.look, state, np.asarray(lane.free), np.asarray(state.through))

    def _look(self, start: Start, tau: float) -> Solutions:
        lane, u, multipliers, penalty = self._lanes(start)
        n = len(start.combination)
        arguments = jax.tree.map(jnp.asarray, (self.problem, lane, u, multipliers, penalty, np.full(n, tau)))
        seen = self.looking(*arguments)
        state = descent.start(
            arguments[2],
            arguments[3],
            arguments[4],
            jnp.zeros(n, jnp.int32),
            len(self.metrics),
            optimiser="adam",
        )
        state = replace(state, evaluations=jnp.ones(n, jnp.int32))
        return self._found(start, seen, state, lane.free, np.ones(n, bool))

    def _found(
        self, start: Start, seen: Look, state: descent.State, free: np.ndarray, through: np.ndarray
    ) -> Solutions:
        seen, u, multipliers, penalty, violation, evaluations = jax.device_get(
            (seen, state.u, state.multipliers, state.penalty, state.violation, state.evaluations)
        )
        slope = seen.slope * free
        return Solutions(
            combination=start.combination,
            positions=u[:, : self.knobs],
            objective=seen.objective,
            limits=seen.limits,
            violation=violation,
            stationarity=np.max(np.abs(np.clip(u - slope, 0, 1) - u), axis=1),
            multipliers=multipliers,
            penalty=penalty,
            metrics=seen.metrics,
            slope=slope[:, : self.knobs],
            evaluations=evaluations,
            converged=through,
        )
