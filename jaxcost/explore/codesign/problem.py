"""Which hardware to build: the best design of a space, by gradient, with what every limit costs.

Relax, solve from many points with softness annealed to nearly none, round, solve the rest again, and recheck with the
exact model: `relaxation`, `lagrangian`, `descent`, `solver` and `rounding` are the steps.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.evaluation import evaluate
from jaxcost.explore.analysis import Spread, leaves_at, positions
from jaxcost.explore.codesign.lagrangian import Weights
from jaxcost.explore.codesign.relaxation import Relaxation, relax
from jaxcost.explore.codesign.rounding import broken, exact, score
from jaxcost.explore.codesign.solver import ANNEALED, Solutions, Solver, Start, limits_of, weights_of
from jaxcost.explore.space import Space, sampler
from jaxcost.explore.sweep import Constraint, Evaluation, report_metrics
from jaxcost.report import Report
from jaxcost.spec.design import Design

__all__ = [
    "Codesign",
    "Convergence",
    "KnobValue",
    "Limit",
    "codesign",
    "described",
    "draws_of",
    "prepare",
    "starting",
    "surest",
    "unit_of",
]

Tell = Callable[[str, float], None]  # what is being done, and the share of it that is

_ACTIVE = 1e-3  # of the multiplier of a limit that is called active
_AGREE = 0.005
_SAME = 1e-3
_FROM_END = 0.02  # how near to an end, as a share of the range, a knob counts as at it
# What stands on the other side of a margin: the leaf whose more makes it wider.
_STANDS_ON = {
    "memory": "system.chip.memory.capacity",
    "chips": "system.chips",
    "power": "system.chip.tdp",
    "ttft": "traffic.ttft_target",
    "tpot": "traffic.tpot_target",
    "shoreline": "system.chip.shoreline",
    "area": "system.chip.process.reticle",
    **{name: f"system.chip.{name}.capacity" for name in ("sram", "hbf", "host", "cxl", "ssd")},
}


@dataclasses.dataclass(frozen=True)
class KnobValue:
    """Where a knob ended."""

    name: str
    value: float  # of its first leaf, or the factor on it
    low: float
    high: float
    relative: bool
    whole: bool
    end: str  # "low" or "high" where it stands at an end, else ""
    slope: float  # d ln L / d ln x of the Lagrangian: what an end, or the rounding, holds back; else 0


@dataclasses.dataclass(frozen=True)
class Limit:
    """A limit, how near the design is to it, and its shadow price."""

    metric: str
    scenario: str
    upper: bool  # whether the metric has to stay below the bound; a margin stays above it
    bound: float  # in the metric's unit
    value: float  # of the metric, exactly evaluated
    slack: float  # -g: 0 at the limit, in logarithms
    multiplier: float  # percent by which the objective falls where the limit is a percent wider
    active: bool
    path: str  # leaf on the other side of a margin, or the metric itself
    unit: str  # its unit
    limit: float  # its value
    price: float  # change of the objective by one unit more of it, in the objective's unit


@dataclasses.dataclass(frozen=True)
class Convergence:
    """How well a problem was solved (the conditions of Karush, Kuhn and Tucker, in logarithms)."""

    stationarity: (
        float  # largest step that the projected slope of the Lagrangian would still take, of a knob's range
    )
    violation: float  # largest of how far a limit of the smooth problem is broken
    complementarity: float  # largest product of a multiplier and its slack
    converged: float  # share of the starts that met their tolerances
    agreed: float  # share of the starts that found the best objective within 0.5%, of those with its choices
    starts: int
    evaluations: int  # of the model with its gradient; of all starts, the rounding and the recheck


@dataclasses.dataclass(frozen=True)
class Codesign:
    """The best design found, exactly evaluated, and what it hangs on."""

    objective: dict[str, float]
    over: float
    failed: str  # "" where a design keeps all limits, else what stands in the way
    design: Design  # in the first scenario
    designs: tuple[Design, ...]  # in every scenario
    scenarios: tuple[str, ...]
    choices: dict[str, Any]  # what was chosen of what is enumerated
    knobs: tuple[KnobValue, ...]
    value: float  # objective, exact
    relaxed: float  # of the best smooth solution without rounding
    limits: tuple[Limit, ...]  # the dearest first
    convergence: Convergence
    alternatives: tuple[
        tuple[dict[str, Any], float], ...
    ]  # relaxed objective of every combination, the best first
    positions: np.ndarray  # of the knobs, u
    combination: int

    @functools.cached_property
    def reports(self) -> tuple[Report, ...]:
        """Exact reports, in every scenario."""
        return tuple(
            evaluate(d.system, d.model, d.traffic, d.plan, prices=d.prices, knobs=d.knobs)
            for d in self.designs
        )

    @property
    def report(self) -> Report:
        """Exact report of the first scenario."""
        return self.reports[0]

    @property
    def gap(self) -> float:
        """Exact objective against the relaxed one, less 1."""
        return self.value / self.relaxed - 1

    @property
    def active(self) -> tuple[Limit, ...]:
        """Limits that cost something."""
        return tuple(limit for limit in self.limits if limit.active)


def codesign(
    space: Space,
    objective: str | Mapping[str, float],
    constraints: Sequence[Constraint] = (),
    *,
    across: Sequence[str] = (),
    over: str | float = "mean",
    uncertain: Spread | None = None,
    draws: int = 32,
    starts: int = 16,
    seed: int = 0,
    optimiser: str = "bfgs",
    evaluation: Evaluation | None = None,
    metrics: tuple[str, ...] = (),
    progress: Tell = lambda stage, share: None,
) -> Codesign:
    """Find the best design of a space by gradient.

    Args:
        space: the designs: ranges of its samples are the knobs, long axes too; what is left is enumerated.
        objective: a metric to lower, or exponents of a product of metrics to lower; negative ones are raised.
        constraints: limits on metrics of a Report beside its margins, which are all to be at least 0.
        across: names of axes all of whose values one design serves: models, loads.
        over: what the objective is over them and over draws: "mean", "worst", or a in [0, 1) for CVaR_a, the mean of
            the worst share 1 - a.
        uncertain: constants to draw; the limits have to hold in every draw.
        draws: number of draws of the uncertain constants.
        starts: points each combination of choices is solved from.
        seed: of the points and the draws; the same gives the same answer.
        optimiser: "bfgs" (projected, dense), or of optax "lbfgs" or "adam".
        evaluation: another function of a design that gives `metrics` as a vector.
        metrics: what `evaluation` gives, or more metrics to look at.
        progress: told what is being done, and the share of it that is.

    Raises:
        ValueError: a bad objective, constraint, axis or option.
    """
    solver = prepare(
        space, objective, constraints, across=across, over=over, uncertain=uncertain, draws=draws, seed=seed,
        optimiser=optimiser, evaluation=evaluation, metrics=metrics,
    )  # fmt: skip
    relaxed = solver.solve(starting(solver, starts, seed), ANNEALED, lambda share: progress("solve", share))
    progress("round", 0.0)
    found = exact(solver, relaxed)
    progress("round", 1.0)
    return described(solver, relaxed, found)


def prepare(
    space: Space,
    objective: str | Mapping[str, float],
    constraints: Sequence[Constraint] = (),
    *,
    across: Sequence[str] = (),
    over: str | float = "mean",
    uncertain: Spread | None = None,
    draws: int = 32,
    seed: int = 0,
    optimiser: str = "bfgs",
    evaluation: Evaluation | None = None,
    metrics: tuple[str, ...] = (),
) -> Solver:
    """Set up a problem; arguments as of `codesign`."""
    relaxation = relax(space, across)
    factors = None
    if uncertain is not None:
        drawn = draws_of(relaxation, uncertain, draws, seed)
        factors = np.tile(drawn, (len(relaxation.scenarios), 1))
    return Solver(
        relaxation,
        Weights(metrics=tuple(weights_of(objective).items()), level=_level(over)),
        limits_of(constraints) if evaluation is None else _own_limits(constraints),
        factors=factors,
        optimiser=optimiser,
        evaluation=evaluation,
        metrics=metrics,
    )


def _own_limits(constraints: Sequence[Constraint]) -> tuple[tuple[str, float, float], ...]:
    """Limits of another evaluation: only those that are given."""
    given = {c.metric for c in constraints if c.metric.startswith("margins.")}
    return tuple(
        row for row in limits_of(constraints) if not row[0].startswith("margins.") or row[0] in given
    )


def _level(over: str | float) -> float:
    named = {"mean": 0.0, "worst": 1.0}
    if isinstance(over, str):
        if over not in named:
            raise ValueError(f'over is "mean", "worst" or the a of CVaR_a, not {over!r}')
        return named[over]
    if not 0 <= over < 1:
        raise ValueError(f"the a of CVaR_a is from 0 to below 1, not {over:g}")
    return float(over)


def draws_of(relaxation: Relaxation, spread: Spread, draws: int, seed: int) -> np.ndarray:
    """Return what each draw of uncertain constants multiplies the leaves of a design by, [draws, L]."""
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
    out = np.ones((draws, len(relaxation.paths)))
    for column, path in enumerate(paths):
        mid = spread.mid[column]
        if mid != 0:
            out[:, relaxation.paths.index(path)] = leaves[:, column] / mid
    return out


def starting(solver: Solver, starts: int, seed: int) -> Start:
    """Return starts for every combination: points of a Sobol sequence, the middle first."""
    if starts < 1:
        raise ValueError(f"at least one start, not {starts}")
    knobs, combinations = solver.knobs, len(solver.bases)
    points = sampler("sobol", knobs, max(starts, 2), seed)
    cube = np.asarray(points.point(jnp.arange(starts))).T / float(1 << 24)
    cube = 0.05 + 0.9 * cube.astype(float)
    cube[0] = 0.5
    return Start(
        combination=np.tile(np.arange(combinations), starts),
        positions=np.repeat(cube, combinations, axis=0),
        fractional=True,
    )


def described(solver: Solver, relaxed: Solutions, found: tuple[Solutions, Solutions] | None) -> Codesign:
    """Put a solution into words of the problem."""
    relaxation = solver.relaxation
    kept = broken(relaxed) <= 1e-3
    held = np.where(kept, relaxed.objective, np.inf)
    nearest = int(np.argmin(score(relaxed)))
    failed = ""
    if found is None:
        point = relaxed.take([nearest])
        at = solver.measure(Start(combination=point.combination, positions=point.positions))
        found = (at, point)
        failed = _why(solver, at)
    at, _ = found
    combination, u = int(at.combination[0]), at.positions[0]
    # Prices are of the relaxed problem with the same choices: around a rounded number a limit may bind nothing.
    own = relaxed.take(np.flatnonzero(relaxed.combination == combination))
    priced = own.take([surest(own)])
    designs = tuple(relaxation.design(combination, w, u) for w in range(len(relaxation.scenarios)))
    value = float(np.exp(at.objective[0]))
    first = relaxed.take([nearest])
    best = own.objective[broken(own) <= 1e-3].min(initial=np.inf)
    agreed = float(np.mean((own.objective <= best + _AGREE) & (broken(own) <= 1e-3)))
    by_choice = {
        c: float(np.exp(held[relaxed.combination == c].min())) for c in np.unique(relaxed.combination)
    }
    return Codesign(
        objective=dict(solver.objective.metrics),
        over=solver.objective.level,
        failed=failed,
        design=designs[0],
        designs=designs,
        scenarios=relaxation.scenarios,
        choices=relaxation.choices[combination],
        knobs=_knob_values(relaxation, priced, u),
        value=value,
        relaxed=float(np.exp(first.objective[0])),
        limits=_limits(solver, at, priced, designs, value),
        convergence=Convergence(
            stationarity=float(priced.stationarity[0]),
            violation=float(max(priced.violation[0], 0)),
            complementarity=float(np.max(priced.multipliers[0] * np.abs(priced.limits[0]))),
            converged=float(np.mean(relaxed.converged)),
            agreed=agreed,
            starts=len(relaxed.combination),
            evaluations=solver.evaluations,
        ),
        alternatives=tuple(
            (relaxation.choices[c], v) for c, v in sorted(by_choice.items(), key=lambda item: item[1])
        ),
        positions=u,
        combination=combination,
    )


def surest(solutions: Solutions) -> int:
    """Return the row of the best solution; of those within a thousandth of it the one that is solved best."""
    ranks = score(solutions)
    near = np.flatnonzero(ranks <= ranks.min() + _SAME)
    return int(near[np.lexsort([solutions.stationarity[near], ~solutions.converged[near]])[0]])


def _why(solver: Solver, at: Solutions) -> str:
    worst = at.limits[0].max(axis=0)[: len(solver.limits)]
    lacking = [
        name for name, value in zip(solver.metrics, at.metrics[0].T, strict=True) if np.isnan(value).any()
    ]
    if lacking:
        return f"the model gives no number for {', '.join(lacking[:4])}"
    names = [
        f"{solver.limits[i][0]} by {math.expm1(worst[i]):.1%}" for i in np.argsort(-worst) if worst[i] > 1e-5
    ]
    return "no design was found that keeps all limits; the nearest breaks " + ", ".join(names[:4])


def _knob_values(relaxation: Relaxation, priced: Solutions, u: np.ndarray) -> tuple[KnobValue, ...]:
    out = []
    for k, knob in enumerate(relaxation.knobs):
        value = float(knob.value(u[k]))
        if knob.values is not None:
            value = float(knob.values[np.argmin(np.abs(knob.values - value))])
        end = "low" if u[k] <= _FROM_END else "high" if u[k] >= 1 - _FROM_END else ""
        out.append(
            KnobValue(
                name=knob.name,
                value=value,
                low=knob.low,
                high=knob.high,
                relative=knob.relative,
                whole=knob.values is not None,
                end=end,
                slope=float(priced.slope[0, k] / knob.per_position(value)) if value else 0.0,
            )
        )
    return tuple(out)


def _limits(
    solver: Solver, at: Solutions, smooth: Solutions, designs: Sequence[Design], value: float
) -> tuple[Limit, ...]:
    units, out = report_metrics(), []
    per = solver.scenarios // len(designs)
    for w in range(solver.scenarios):
        for c, (metric, sign, bound) in enumerate(solver.limits):
            margin = metric.startswith("margins.")
            path = _STANDS_ON.get(metric.removeprefix("margins."), "") if margin else metric
            stands = _leaf(designs[w // per], path) if margin else (bound, units[metric])
            multiplier = float(smooth.multipliers[0, w, c])
            price = -sign * multiplier * value / stands[0] if stands[0] else 0.0
            scenario = solver.relaxation.scenarios[w // per]
            out.append(
                Limit(
                    metric=metric,
                    scenario=scenario if per == 1 else f"{scenario} draw {w % per}".strip(),
                    upper=sign > 0 and not margin,
                    bound=bound,
                    value=float(at.metrics[0, w, solver.metrics.index(metric)]),
                    slack=float(-at.limits[0, w, c]),
                    multiplier=multiplier,
                    active=multiplier > _ACTIVE,
                    path=path,
                    unit=stands[1],
                    limit=stands[0],
                    price=price,
                )
            )
    return tuple(sorted(out, key=lambda limit: -limit.multiplier))


def _leaf(design: Design, path: str) -> tuple[float, str]:
    """Return a leaf and its unit; 0 where there is no such leaf."""
    if not path:
        return 0.0, ""
    return float(operator.attrgetter(path)(design)), _unit(design, path)


def _unit(design: Design, path: str) -> str:
    branch, _, last = path.rpartition(".")
    fields = dataclasses.fields(operator.attrgetter(branch)(design))
    return next(f.metadata["unit"] for f in fields if f.name == last)


def unit_of(space: Space, path: str) -> str:
    """Return the unit of a metric of a Report, or of a leaf of a design."""
    return report_metrics().get(path) or _unit(space.base, path)
