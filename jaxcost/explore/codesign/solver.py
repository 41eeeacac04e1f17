"""Solve a design problem from many starting points, in batches of instances of one shape and one compilation."""

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import replace
from jaxcost.explore.analysis import Spread, leaves_at, metric_names, positions
from jaxcost.explore.codesign import descent
from jaxcost.explore.codesign.lagrangian import (
    Instance,
    LagrangianEvaluation,
    ProblemArrays,
    evaluate_lagrangian,
)
from jaxcost.explore.codesign.problem import MARGINS, MAX_LIMITS, Problem, is_margin
from jaxcost.explore.codesign.relaxation import Relaxation, design_from, relax
from jaxcost.explore.compilation import compilation
from jaxcost.explore.space import sampler
from jaxcost.explore.sweep import Evaluation, model_evaluation, over_designs

__all__ = [
    "ANNEALED",
    "InitialPoints",
    "Solutions",
    "Solver",
    "draw_factors",
    "initial_points",
    "resume_from",
    "with_bounds",
]

_STANDARD_METRICS = (*metric_names(), "power.prefill", "power.decode", "power.provisioned", *MARGINS)
# Arrays are padded to these sizes, so that most studies share one compilation.
_MAX_KNOBS, _MAX_EFFECTS = 32, 64
_PENALTY = 10.0
_MAX_RESUMED_PENALTY = 40.0
ANNEALED = descent.AnnealingSchedule(
    tau=np.asarray([0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3]),
    tolerance=np.asarray([1e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5]),
    patience=np.asarray([20, 15, 15, 20, 25, 40], np.int32),
    feasibility=np.asarray(1e-6),
    max_evaluations=np.asarray(400, np.int32),
)


@dataclasses.dataclass(frozen=True)
class InitialPoints:
    """Starting points of n instances, a row each."""

    combination: np.ndarray  # int[n]
    positions: np.ndarray  # [n, K]
    multipliers: np.ndarray | None = None  # [n, W, C]
    penalty: np.ndarray | None = None  # [n]
    stage: int = 0
    free: np.ndarray | None = None  # [n, K]: 1 where a knob may move
    shift: np.ndarray | None = None  # [n, W, C]: added to g
    bounds: np.ndarray | None = None  # [n, C] in place of those of the problem
    weights: np.ndarray | None = None  # [n, m] in place of those of the objective
    fractional: bool = False  # whether whole numbers of the model, such as batches, may be fractions


@dataclasses.dataclass(frozen=True)
class Solutions:
    """Solutions of n instances, a row each."""

    combination: np.ndarray
    positions: np.ndarray  # [n, K]
    objective: np.ndarray  # logarithm, at the last softness
    limits: np.ndarray  # [n, W, C]: g, without shifts
    violation: np.ndarray  # largest violation of a limit or of complementarity
    stationarity: (
        np.ndarray
    )  # largest change of a knob by a projected step along the slope of the Lagrangian, in u
    multipliers: np.ndarray  # [n, W, C]
    penalty: np.ndarray
    metrics: np.ndarray  # [n, W, m]
    slope: np.ndarray  # [n, K]: of the Lagrangian by u
    evaluations: np.ndarray
    converged: np.ndarray

    def take(self, rows: Any) -> "Solutions":
        """Return the selected rows."""
        return Solutions(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    @staticmethod
    def joined(parts: Sequence["Solutions"]) -> "Solutions":
        """Return the rows of all parts."""
        names = [f.name for f in dataclasses.fields(Solutions)]
        return Solutions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def resume_from(solutions: Solutions, **changes: Any) -> InitialPoints:
    """Return the points, multipliers and penalties of solutions as starting points, with `changes` of fields."""
    fields: dict[str, Any] = {
        "combination": solutions.combination,
        "positions": solutions.positions,
        "multipliers": solutions.multipliers,
        "penalty": np.minimum(solutions.penalty, _MAX_RESUMED_PENALTY),
    }
    return InitialPoints(**fields | changes)


@functools.lru_cache
def _compile_lagrangian(
    structure: Any,
    metrics: tuple[str, ...],
    features: tuple[str, ...],
    evaluation: Evaluation | None,
    platform: str,
) -> Callable[..., LagrangianEvaluation]:
    evaluate = over_designs(evaluation) if evaluation else model_evaluation(metrics, features)

    def metrics_of(leaves: jax.Array) -> jax.Array:
        return evaluate(design_from(structure, leaves))

    return jax.jit(
        functools.partial(evaluate_lagrangian, metrics_of),
        compiler_options=compilation("codesign", platform).options,
    )


class Solver:
    """A problem with its relaxation, its arrays and its compiled Lagrangian."""

    def __init__(self, problem: Problem) -> None:
        """Relax the space of the problem.

        Raises:
            ValueError: more knobs than the arrays hold, or as `relax`.
        """
        relaxation = relax(problem.space, problem.across)
        if len(relaxation.knobs) > _MAX_KNOBS or sum(len(k.ranges) for k in relaxation.knobs) > _MAX_EFFECTS:
            raise ValueError(f"at most {_MAX_KNOBS} knobs that move {_MAX_EFFECTS} leaves")
        self.problem, self.relaxation, self.limits = problem, relaxation, problem.limits
        self.platform = jax.default_backend()
        named = (*problem.weights, *(bound.metric for bound in self.limits))
        standard = problem.metrics if problem.evaluation is not None else _STANDARD_METRICS
        self.metrics = tuple(dict.fromkeys((*standard, *problem.metrics, *named)))
        self.knobs = len(relaxation.knobs)
        draws = 1 if problem.uncertain is None else problem.draws
        self.bases = np.repeat(relaxation.bases, draws, axis=1) if draws > 1 else relaxation.bases
        self.scenarios = self.bases.shape[1]
        self.factors = np.ones(self.bases.shape[1:])
        if problem.uncertain is not None:
            factors = draw_factors(relaxation, problem.uncertain, problem.draws, problem.seed)
            self.factors = np.tile(factors, (len(relaxation.scenarios), 1))
        self.weights = np.zeros(len(self.metrics))
        for name, weight in problem.weights.items():
            self.weights[self.metrics.index(name)] = weight
        padding = MAX_LIMITS - len(self.limits)
        columns = [self.metrics.index(bound.metric) for bound in self.limits] + [0] * padding
        self.bounds = np.asarray([bound.value for bound in self.limits] + [1.0] * padding)
        self.arrays = ProblemArrays(
            effects=relaxation.effects(_MAX_EFFECTS),
            tau_leaf=np.int32(relaxation.paths.index("knobs.tau")),
            column=np.asarray(columns, np.int32),
            margin=np.asarray([is_margin(bound.metric) for bound in self.limits] + [False] * padding),
            sign=np.asarray([bound.sign for bound in self.limits] + [0.0] * padding),
            share=np.full(self.scenarios, 1 / self.scenarios),
            level=np.asarray(problem.level, float),
        )
        self.evaluate = _compile_lagrangian(
            relaxation.structure, self.metrics, relaxation.features, problem.evaluation, self.platform
        )
        self.evaluations = 0
        self.batch = compilation("codesign", self.platform).chunk
        if self.platform == "cpu" and self.scenarios > 1:
            self.batch = max(self.batch // self.scenarios, 4)

    def solve(
        self,
        points: InitialPoints,
        schedule: descent.AnnealingSchedule = ANNEALED,
        on_progress: Callable[[float], None] = lambda share: None,
    ) -> Solutions:
        """Minimise the Lagrangians of all instances from their starting points."""
        return self._in_batches(points, lambda batch: self._descend(batch, schedule), on_progress)

    def measure(self, points: InitialPoints, tau: float = 0.0) -> Solutions:
        """Evaluate the Lagrangians of all instances at their starting points; exactly by default."""
        return self._in_batches(points, lambda batch: self._measure(batch, tau), lambda share: None)

    def _in_batches(
        self,
        points: InitialPoints,
        run: Callable[[InitialPoints], Solutions],
        on_progress: Callable[[float], None],
    ) -> Solutions:
        n, parts = len(points.combination), []
        for first in range(0, n, self.batch):
            rows = np.minimum(
                np.arange(first, first + self.batch), n - 1
            )  # the last batch repeats its last row
            fields: dict[str, Any] = {
                f.name: value[rows] if isinstance(value := getattr(points, f.name), np.ndarray) else value
                for f in dataclasses.fields(points)
            }
            with jax.enable_x64(True):
                solutions = run(InitialPoints(**fields))
            parts.append(solutions.take(slice(0, min(self.batch, n - first))))
            on_progress(min(first + self.batch, n) / n)
        out = Solutions.joined(parts)
        self.evaluations += int(out.evaluations.sum())
        return out

    def _instances(self, points: InitialPoints) -> tuple[Instance, np.ndarray, np.ndarray, np.ndarray]:
        """Return the arrays, positions u [n, K], multipliers [n, W, C] and penalties [n] of instances."""
        n = len(points.combination)
        shape = (n, self.scenarios, MAX_LIMITS)
        base = self.bases[points.combination].copy()
        base[:, :, self.relaxation.paths.index("knobs.fractional")] = float(points.fractional)
        free = np.zeros((n, _MAX_KNOBS))
        free[:, : self.knobs] = 1 if points.free is None else points.free
        u = np.zeros((n, _MAX_KNOBS))
        u[:, : self.knobs] = points.positions
        instances = Instance(
            base=base,
            factors=np.broadcast_to(self.factors, base.shape),
            weights=np.tile(self.weights, (n, 1)) if points.weights is None else points.weights,
            bound=np.tile(self.bounds, (n, 1)) if points.bounds is None else points.bounds,
            shift=np.zeros(shape) if points.shift is None else points.shift,
            free=free,
        )
        multipliers = np.zeros(shape) if points.multipliers is None else points.multipliers
        penalty = np.full(n, _PENALTY) if points.penalty is None else points.penalty
        return instances, u, multipliers, penalty

    def _descend(self, points: InitialPoints, schedule: descent.AnnealingSchedule) -> Solutions:
        arrays, (instances, u, multipliers, penalty), schedule = jax.tree.map(
            jnp.asarray, (self.arrays, self._instances(points), schedule)
        )
        stage = jnp.full(len(points.combination), points.stage, jnp.int32)
        optimiser = self.problem.optimiser
        state = descent.initial_state(u, multipliers, penalty, stage, len(self.metrics), optimiser=optimiser)
        state = descent.descend(self.evaluate, arrays, instances, schedule, state, optimiser=optimiser)
        return self._solutions(points, state, np.asarray(instances.free))

    def _measure(self, points: InitialPoints, tau: float) -> Solutions:
        n = len(points.combination)
        arrays, (instances, u, multipliers, penalty), taus = jax.tree.map(
            jnp.asarray, (self.arrays, self._instances(points), np.full(n, tau))
        )
        stage = jnp.zeros(n, jnp.int32)
        state = replace(
            descent.initial_state(u, multipliers, penalty, stage, len(self.metrics), optimiser="adam"),
            evaluation=self.evaluate(arrays, instances, u, multipliers, penalty, taus),
            evaluations=jnp.ones(n, jnp.int32),
            converged=jnp.ones(n, bool),
        )
        return self._solutions(points, state, np.asarray(instances.free))

    def _solutions(self, points: InitialPoints, state: descent.DescentState, free: np.ndarray) -> Solutions:
        state = jax.device_get(replace(state, optimiser=None))
        u, slope = state.u, state.evaluation.slope * free
        return Solutions(
            combination=points.combination,
            positions=u[:, : self.knobs],
            objective=state.evaluation.objective,
            limits=state.evaluation.limits,
            violation=state.violation,
            stationarity=np.max(np.abs(np.clip(u - slope, 0, 1) - u), axis=1),
            multipliers=state.multipliers,
            penalty=state.penalty,
            metrics=state.evaluation.metrics,
            slope=slope[:, : self.knobs],
            evaluations=state.evaluations,
            converged=state.converged,
        )


def with_bounds(solver: Solver, bounds: np.ndarray) -> Solver:
    """Return a solver of the same problem with other bounds [C]."""
    changed = copy.copy(solver)
    changed.bounds = bounds
    changed.limits = tuple(
        limit._replace(value=float(value))
        for limit, value in zip(solver.limits, bounds[: len(solver.limits)], strict=True)
    )
    return changed


def initial_points(solver: Solver) -> InitialPoints:
    """Return the starting points of every combination: points of a Sobol sequence, after the middle of all ranges."""
    starts, combinations = solver.problem.starts, len(solver.bases)
    sequence = sampler("sobol", solver.knobs, max(starts, 2), solver.problem.seed)
    cube = np.asarray(sequence.point(jnp.arange(starts))).T / float(1 << 24)
    cube = 0.05 + 0.9 * cube.astype(float)
    cube[0] = 0.5
    return InitialPoints(
        combination=np.tile(np.arange(combinations), starts),
        positions=np.repeat(cube, combinations, axis=0),
        fractional=True,
    )


def draw_factors(relaxation: Relaxation, spread: Spread, draws: int, seed: int) -> np.ndarray:
    """Return the factor of each draw of uncertain constants on each leaf of a design, [draws, L]."""
    leaves = leaves_at(spread, positions(draws, len(spread.low), seed))
    paths = [
        ".".join([head, *(key.name for key in path)])
        for head, tree in zip(
            ("system", "prices"),
            jax.tree.unflatten(spread.structure, list(range(leaves.shape[1]))),
            strict=True,
        )
        for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]
    factors = np.ones((draws, len(relaxation.paths)))
    for column, path in enumerate(paths):
        mid = spread.mid[column]
        if mid != 0:
            factors[:, relaxation.paths.index(path)] = leaves[:, column] / mid
    return factors
