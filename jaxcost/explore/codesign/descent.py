"""Minimise many augmented Lagrangians at once: one value and gradient an instance and iteration.

An instance passes stages of falling softness tau. Within a stage it follows the direction of an optimiser. The step is
shortened until the Lagrangian falls, and clipped where a knob reaches an end of its range. A knob that its slope drives
against its end is left out of the direction (two-metric projection, Bertsekas 1982). At the end of a stage multipliers
are updated, l <- max(0, l + r g), and the penalty r grows where the violation of the limits has not fallen enough.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcost.core.pytree import field, pytree, replace
from jaxcost.explore.codesign.lagrangian import Instance, LagrangianEvaluation, ProblemArrays

__all__ = ["OPTIMISERS", "AnnealingSchedule", "DescentState", "descend", "initial_state"]

_OPTAX = {"lbfgs": optax.scale_by_lbfgs(16), "adam": optax.scale_by_adam()}
OPTIMISERS = ("bfgs", *_OPTAX)
_SUFFICIENT_DECREASE = 1e-4  # share of the decrease predicted by the slope that a step must bring (Armijo)
_ROUNDING = 1e-13  # relative rounding error of a Lagrangian
_MAX_STEP = 0.25  # of a knob, as a share of its range
_MAX_REJECTED_STEPS = 12
_PENALTY_GROWTH = 4.0
_MAX_PENALTY = 1e4
_REDUCTION = 0.3  # share of its violation that a stage may leave before the penalty grows
_ABANDONED_VIOLATION = 0.01  # an instance whose violation stays above this in the last stage is abandoned
_LEARNING_RATE = 0.05  # of adam
_MAX_ITERATIONS = 20_000
_CHECK_INTERVAL = 8  # iterations between two checks whether all instances are done


@pytree
class AnnealingSchedule:
    """Stages: softness, tolerance and number of evaluations of each."""

    tau: Any = field("1", "[T]: softness")
    tolerance: Any = field("1", "[T]: stationarity, in u, at which a stage ends")
    patience: Any = field("1", "[T]: evaluations of a stage")
    feasibility: Any = field("1", "largest violation of a converged instance, in logarithms")
    max_evaluations: Any = field("1", "evaluations of an instance over all stages")


@pytree
class DescentState:
    """State of one instance."""

    u: Any = field("1", "[K]: positions of the knobs")
    evaluation: LagrangianEvaluation = field(doc="of the Lagrangian at u")
    direction: Any = field("1", "[K]: direction of the next step")
    step: Any = field("1", "length of the next step along the direction")
    optimiser: Any = field(doc="state of the optimiser")
    multipliers: Any = field("1", "[W, C]")
    penalty: Any = field("1", "r")
    violation: Any = field("1", "of the limits at the end of the stage before")
    stage: Any = field("1", "number of the stage")
    stage_evaluations: Any = field("1", "evaluations in this stage")
    rejected_steps: Any = field("1", "steps rejected since the last accepted one")
    evaluations: Any = field("1", "evaluations in all stages")
    stale: Any = field("1", "whether the Lagrangian has changed since `evaluation`")
    done: Any = field("1", "whether the instance has converged, is abandoned or has spent its evaluations")
    converged: Any = field("1", "whether the instance has met the tolerances of the last stage")


@pytree
class Curvature:
    """State of BFGS: an estimate of the second derivative, and the point and slope of the last update."""

    second: Any = field("1", "[K, K]: estimate of the second derivative")
    u: Any = field("1", "[K]")
    slope: Any = field("1", "[K]")
    pairs: Any = field("1", "number of updates")


def _update_curvature(u: jax.Array, slope: jax.Array, memory: Curvature, stale: jax.Array) -> Curvature:
    """Update by a step s and the change y of the slope, unless the Lagrangian has changed between the two slopes.

        B <- B - B s (B s)^T / s.B s + r r^T / s.r,   r = t y + (1 - t) B s

    with t <= 1 such that s.r >= 0.2 s.B s (Powell 1978), which keeps B positive definite where the curvature is not.
    """
    s, y = u - memory.u, slope - memory.slope
    length = jnp.vdot(s, s)
    along = jnp.vdot(s, y)
    first = memory.pairs == 0
    scale = jnp.where(along > 0, jnp.vdot(y, y) / jnp.where(along > 0, along, 1), 1.0)
    second = jnp.where(first, scale * jnp.eye(u.shape[0], dtype=u.dtype), memory.second)
    bs = second @ s
    sbs = jnp.vdot(s, bs)
    valid = ~stale & (length > 0) & jnp.isfinite(scale) & (sbs > 0)
    damped = along < 0.2 * sbs
    t = jnp.where(damped, 0.8 * sbs / jnp.where(valid & damped, sbs - along, 1), 1)
    r = t * y + (1 - t) * bs
    sr = jnp.where(valid, jnp.vdot(s, r), 1)
    updated = second - jnp.outer(bs, bs) / jnp.where(valid, sbs, 1) + jnp.outer(r, r) / sr
    return Curvature(
        second=jnp.where(valid, updated, memory.second),
        u=u,
        slope=slope,
        pairs=memory.pairs + jnp.where(valid, 1, 0),
    )


def _newton_direction(memory: Curvature, slope: jax.Array, free: jax.Array) -> jax.Array:
    """Return -B^-1 slope over the free knobs, 0 elsewhere."""
    both = free[:, None] * free[None]
    second = both * memory.second + jnp.diag(1 - free)
    return -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(second), free * slope) * free


def _optimiser_state(optimiser: str, u: jax.Array) -> Any:
    if optimiser != "bfgs":
        return _OPTAX[optimiser].init(u)
    return Curvature(
        second=jnp.eye(u.shape[0], dtype=u.dtype), u=u, slope=jnp.zeros_like(u), pairs=jnp.zeros((), u.dtype)
    )


def initial_state(
    u: jax.Array,
    multipliers: jax.Array,
    penalty: jax.Array,
    stage: jax.Array,
    metrics: int,
    *,
    optimiser: str,
) -> DescentState:
    """Return the state of B instances before their first evaluation.

    Args:
        u: positions of the knobs [B, K].
        multipliers: l [B, W, C].
        penalty: r [B].
        stage: first stage [B].
        metrics: number of metrics.
        optimiser: one of `OPTIMISERS`.
    """
    instances, scenarios, _ = multipliers.shape
    zeros, none = jnp.zeros(instances, u.dtype), jnp.zeros(instances, jnp.int32)
    evaluation = LagrangianEvaluation(
        value=zeros,
        slope=jnp.zeros_like(u),
        objective=zeros,
        limits=jnp.zeros_like(multipliers),
        metrics=jnp.zeros((instances, scenarios, metrics), u.dtype),
    )
    return DescentState(
        u=u,
        evaluation=evaluation,
        direction=jnp.zeros_like(u),
        step=zeros,
        optimiser=jax.vmap(functools.partial(_optimiser_state, optimiser))(u),
        multipliers=multipliers,
        penalty=penalty,
        violation=jnp.full(instances, jnp.inf, u.dtype),
        stage=stage,
        stage_evaluations=none,
        rejected_steps=none,
        evaluations=none,
        stale=none == 0,
        done=none > 0,
        converged=none > 0,
    )


def descend(
    evaluate: Callable[..., LagrangianEvaluation],
    problem: ProblemArrays,
    instances: Instance,
    schedule: AnnealingSchedule,
    state: DescentState,
    *,
    optimiser: str,
    max_iterations: int = _MAX_ITERATIONS,
    on_iteration: Callable[[DescentState], None] = lambda state: None,
) -> DescentState:
    """Iterate until every instance has converged, is abandoned or has spent its evaluations.

    Args:
        evaluate: the jitted `evaluate_lagrangian` of many instances.
        problem: arrays that the instances share.
        instances: arrays of the instances, with a leading axis.
        schedule: the stages.
        state: of the instances.
        optimiser: one of `OPTIMISERS`.
        max_iterations: iterations at the most.
        on_iteration: called with the state every few iterations.
    """
    for iteration in range(max_iterations):
        trial, tau = _trial_points(schedule, state)
        evaluation = evaluate(problem, instances, trial, state.multipliers, state.penalty, tau)
        state = _advance(problem, instances, schedule, state, evaluation, optimiser=optimiser)
        if iteration % _CHECK_INTERVAL == _CHECK_INTERVAL - 1:
            on_iteration(state)
            if bool(jnp.all(state.done)):
                break
    return state


@jax.jit
def _trial_points(schedule: AnnealingSchedule, state: DescentState) -> tuple[jax.Array, jax.Array]:
    """Return the points u [B, K] to evaluate next, and the softness [B]."""
    step = jnp.where(state.stale, 0, state.step)[:, None]
    return jnp.clip(state.u + step * state.direction, 0, 1), schedule.tau[state.stage]


@functools.partial(jax.jit, static_argnames="optimiser")
def _advance(
    problem: ProblemArrays,
    instances: Instance,
    schedule: AnnealingSchedule,
    state: DescentState,
    evaluation: LagrangianEvaluation,
    *,
    optimiser: str,
) -> DescentState:
    trial, _ = _trial_points(schedule, state)
    advance = functools.partial(_advance_instance, problem, schedule, optimiser)
    return jax.vmap(advance)(instances, state, trial, evaluation)


def _advance_instance(
    problem: ProblemArrays,
    schedule: AnnealingSchedule,
    optimiser: str,
    instance: Instance,
    state: DescentState,
    trial: jax.Array,
    evaluation: LagrangianEvaluation,
) -> DescentState:
    """Accept or reject the trial point, choose the next step, and end the stage where it is stationary or stalled."""
    current = state.evaluation
    slope, slope_before = evaluation.slope * instance.free, current.slope * instance.free
    predicted = jnp.vdot(slope_before, trial - state.u)
    finite = jnp.isfinite(evaluation.value) & jnp.all(jnp.isfinite(slope))
    rounding = _ROUNDING * (1 + jnp.abs(current.value))
    decreases = evaluation.value <= current.value + _SUFFICIENT_DECREASE * predicted + rounding
    accepted = finite & (state.stale | decreases | (optimiser == "adam"))

    # A knob that its slope drives against its end stays there.
    blocked = ((trial <= 0) & (slope > 0)) | ((trial >= 1) & (slope < 0))
    free = instance.free * jnp.where(blocked, 0, 1)
    if optimiser == "bfgs":
        memory = _update_curvature(trial, slope, state.optimiser, state.stale)
        direction = _newton_direction(memory, slope, free)
    else:
        rule = _OPTAX[optimiser]
        # Differences of slopes of two different Lagrangians say nothing about the curvature of either.
        memory = _select(state.stale & (optimiser == "lbfgs"), rule.init(trial), state.optimiser)
        update, memory = rule.update(slope, memory, trial)
        direction = -1.0 * jnp.asarray(update) * free
    if optimiser == "adam":
        rate = _LEARNING_RATE * jnp.sqrt(schedule.tau[state.stage] / schedule.tau[0])
        direction, step = rate * direction, jnp.ones_like(evaluation.value)
    else:
        downhill = -jnp.vdot(direction, slope) > 1e-10 * jnp.linalg.norm(direction) * jnp.linalg.norm(
            slope * free
        )
        direction = jnp.where(downhill, direction, -slope * free)
        memory = _select(downhill, memory, _optimiser_state(optimiser, trial))
        step = jnp.minimum(1.0, _MAX_STEP / jnp.maximum(jnp.max(jnp.abs(direction)), 1e-30))
    # The minimum of a parabola through both values and the slope is the length of the next, shorter step.
    minimum = -predicted / jnp.maximum(2 * (evaluation.value - current.value - predicted), 1e-30)
    shorter = state.step * jnp.where(finite, jnp.clip(minimum, 0.1, 0.5), 0.1)
    moved = replace(
        state,
        u=jnp.where(accepted, trial, state.u),
        evaluation=_select(accepted, evaluation, current),
        direction=jnp.where(accepted, direction, state.direction),
        step=jnp.where(accepted, step, shorter),
        optimiser=_select(accepted, memory, state.optimiser),
        rejected_steps=jnp.where(accepted, 0, state.rejected_steps + 1),
        stage_evaluations=state.stage_evaluations + 1,
        evaluations=state.evaluations + 1,
        stale=state.stale & ~accepted,
    )
    projected = jnp.clip(moved.u - moved.evaluation.slope * instance.free, 0, 1)
    stationarity = jnp.max(jnp.abs(projected - moved.u))
    stationary = ~moved.stale & (stationarity <= schedule.tolerance[state.stage])
    stalled = (moved.stage_evaluations >= schedule.patience[state.stage]) | (
        moved.rejected_steps >= _MAX_REJECTED_STEPS
    )
    next_stage = _end_stage(problem, instance, schedule, moved, stationary)
    moved = _select(stationary | stalled, next_stage, moved)
    return _select(state.done, state, moved)


def _end_stage(
    problem: ProblemArrays,
    instance: Instance,
    schedule: AnnealingSchedule,
    state: DescentState,
    stationary: jax.Array,
) -> DescentState:
    """Update the multipliers and the penalty, and begin the next stage; the last stage repeats until done."""
    g = state.evaluation.limits + instance.shift
    used = (problem.sign != 0)[None]
    multipliers = jnp.where(used, jnp.maximum(state.multipliers + state.penalty * g, 0), 0)
    violation = jnp.max(jnp.where(used, jnp.abs(jnp.maximum(g, -state.multipliers / state.penalty)), 0))
    last = state.stage == schedule.tau.shape[0] - 1
    not_reduced = (stationary | last) & (violation > _REDUCTION * state.violation)
    converged = last & stationary & (violation <= schedule.feasibility)
    abandoned = last & (violation > _ABANDONED_VIOLATION) & (violation > 0.9 * state.violation)
    stopped = abandoned | (state.evaluations >= schedule.max_evaluations)
    larger_penalty = jnp.minimum(state.penalty * _PENALTY_GROWTH, _MAX_PENALTY)
    return replace(
        state,
        multipliers=multipliers,
        penalty=jnp.where(not_reduced, larger_penalty, state.penalty),
        violation=violation,
        stage=jnp.where(last, state.stage, state.stage + 1),
        stage_evaluations=jnp.zeros_like(state.stage_evaluations),
        rejected_steps=jnp.zeros_like(state.rejected_steps),
        stale=jnp.ones_like(state.stale),
        done=converged | stopped,
        converged=converged,
    )


def _select(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Return one pytree or the other."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
