"""A design problem: a space, an objective to minimise, limits to satisfy, and the options of its solution."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxcost.core.pytree import leaf_fields
from jaxcost.explore.analysis import Spread, metric_names
from jaxcost.explore.codesign.descent import OPTIMISERS
from jaxcost.explore.codesign.relaxation import check_scenarios
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import Constraint, Evaluation, report_metrics
from jaxcost.report import Margins

__all__ = [
    "MARGINS",
    "MAX_LIMITS",
    "Bound",
    "Problem",
    "ProgressCallback",
    "as_problem",
    "is_margin",
    "list_limits",
]

ProgressCallback = Callable[[str, float], None]  # name of the current step, completed share of it

MARGINS = tuple(f"margins.{f.name}" for f in leaf_fields(Margins))
MAX_LIMITS = 32  # arrays of limits are padded to this length
_LEVELS = {"mean": 0.0, "worst": 1.0}


class Bound(NamedTuple):
    """One bound on a metric: an upper one has sign 1, a lower one -1; a margin has sign 1 and its least value."""

    metric: str
    sign: float
    value: float  # in the unit of the metric


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A design problem, validated.

    `codesign`, `codesign_front`, `codesign_along`, `break_even` and `elasticity_table` take one in place of a space, or
    its fields as keyword arguments after a space.

    Attributes:
        space: the designs. Ranges of its samples, and long axes, are knobs; all other axes are enumerated.
        objective: a metric to minimise, or exponents of a product of metrics to minimise; a metric with a negative
            exponent is maximised.
        constraints: bounds on metrics of a Report. All margins are at least 0, unless a constraint says otherwise.
        across: names of axes whose values are scenarios: one design serves all of them.
        over: aggregate of the objective over scenarios and draws: "mean", "worst", or a in [0, 1) for CVaR_a, the mean
            of the worst share 1 - a.
        uncertain: constants to draw; the limits hold in every draw.
        draws: number of draws of the uncertain constants.
        starts: starting points for each combination of choices.
        seed: of the starting points and the draws; the same seed gives the same result.
        optimiser: "bfgs" (projected, dense), or "lbfgs" or "adam" of optax.
        evaluation: a function from a design to `metrics` as a vector, in place of the model; then only margins that a
            constraint names are limits.
        metrics: names of what `evaluation` returns; without it, additional metrics of a Report.
        progress: called with the name of the current step and the completed share of it.

    Raises:
        ValueError: an unknown metric, axis, aggregate or optimiser, a bound that is not positive, or no start.
    """

    space: Space
    objective: str | Mapping[str, float]
    constraints: Sequence[Constraint] = ()
    across: Sequence[str] = dataclasses.field(default=(), kw_only=True)
    over: str | float = dataclasses.field(default="mean", kw_only=True)
    uncertain: Spread | None = dataclasses.field(default=None, kw_only=True)
    draws: int = dataclasses.field(default=32, kw_only=True)
    starts: int = dataclasses.field(default=16, kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)
    optimiser: str = dataclasses.field(default="bfgs", kw_only=True)
    evaluation: Evaluation | None = dataclasses.field(default=None, kw_only=True)
    metrics: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    progress: ProgressCallback = dataclasses.field(default=lambda step, share: None, kw_only=True)

    def __post_init__(self) -> None:
        """Validate."""
        for name, weight in self.weights.items():
            _check_metric(name)
            if not math.isfinite(weight) or weight == 0:
                raise ValueError(f"a weight is a number other than 0, not {weight!r} for {name}")
        if not self.weights:
            raise ValueError("an objective needs at least one metric")
        list_limits(self.constraints)
        check_scenarios(self.space, self.across)
        if isinstance(self.over, str) and self.over not in _LEVELS:
            raise ValueError(f'over is "mean", "worst" or the a of CVaR_a, not {self.over!r}')
        if not isinstance(self.over, str) and not 0 <= self.over < 1:
            raise ValueError(f"the a of CVaR_a is from 0 to below 1, not {self.over:g}")
        if self.optimiser not in OPTIMISERS:
            raise ValueError(f"an optimiser is one of {', '.join(OPTIMISERS)}, not {self.optimiser!r}")
        for option in ("starts", "draws"):
            if getattr(self, option) < 1:
                raise ValueError(f"{option} is at least 1, not {getattr(self, option)}")

    @functools.cached_property
    def weights(self) -> dict[str, float]:
        """Exponents of the metrics in the objective."""
        return {self.objective: 1.0} if isinstance(self.objective, str) else dict(self.objective)

    @functools.cached_property
    def limits(self) -> tuple[Bound, ...]:
        """All bounds; of another `evaluation` only the margins that a constraint names."""
        limits = list_limits(self.constraints)
        if self.evaluation is None:
            return limits
        named = {c.metric for c in self.constraints}
        return tuple(b for b in limits if not is_margin(b.metric) or b.metric in named)

    @property
    def level(self) -> float:
        """The a of CVaR_a: 0 for the mean, 1 for the worst."""
        return _LEVELS[self.over] if isinstance(self.over, str) else float(self.over)


def as_problem(
    space: Space | Problem,
    objective: str | Mapping[str, float] | None,
    constraints: Sequence[Constraint] | None,
    options: Mapping[str, Any],
    *,
    starts: int | None = None,
) -> Problem:
    """Return a problem of a space and its options, or a ready problem with the fields that are not None replaced.

    Args:
        space: a space, or a problem.
        objective: as of `Problem`; needed with a space.
        constraints: as of `Problem`.
        options: other fields of `Problem`.
        starts: default of the option with a space.
    """
    fields = dict(options)
    if objective is not None:
        fields["objective"] = objective
    if constraints is not None:
        fields["constraints"] = constraints
    if isinstance(space, Problem):
        return dataclasses.replace(space, **fields)
    if objective is None:
        raise TypeError("a space needs an objective")
    if starts is not None:
        fields.setdefault("starts", starts)
    return Problem(space, **fields)


def list_limits(constraints: Sequence[Constraint]) -> tuple[Bound, ...]:
    """List all bounds: every margin at least 0, unless a constraint says otherwise, then the other constraints.

    Raises:
        ValueError: an unknown metric, a bound that is not positive, or too many bounds.
    """
    margins = dict.fromkeys(MARGINS, 0.0)
    bounds = []
    for c in constraints:
        _check_metric(c.metric)
        if is_margin(c.metric):
            if c.metric not in margins or not c.low < 1 or math.isfinite(c.high):
                raise ValueError(
                    f"a margin has a low end below 1 and no high end, and margins.worst is not a limit: {c}"
                )
            margins[c.metric] = c.low
            continue
        for sign, value in ((1.0, c.high), (-1.0, c.low)):
            if math.isfinite(value):
                if value <= 0:
                    raise ValueError(f"bounds are above 0, not {value:g} for {c.metric}")
                bounds.append(Bound(c.metric, sign, float(value)))
    least = [Bound(name, 1.0, low) for name, low in margins.items() if math.isfinite(low)]
    if len(least) + len(bounds) > MAX_LIMITS:
        raise ValueError(f"at most {MAX_LIMITS} limits, margins included")
    return (*least, *bounds)


def is_margin(metric: str) -> bool:
    """Return whether a metric is a margin of the Report."""
    return metric.startswith("margins.")


def _check_metric(name: str) -> None:
    if name not in report_metrics():
        raise ValueError(f"no metric {name!r} in a Report; totals are {', '.join(metric_names())}")
