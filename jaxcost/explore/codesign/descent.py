"""Descend many Lagrangians at once: one value-and-gradient a lane and turn, whatever the lane is at.

A lane passes stages of falling tau. Within a stage it follows an optimiser's direction, with a step that is shortened
until the Lagrangian falls, and clipped where a knob comes to its end; a knob that its slope drives against its end is
left out of the direction (two-metric projection, Bertsekas 1982). At the end of a stage multipliers move,
l <- max(0, l + r g), the penalty r grows where a limit is not kept better than before, and the next stage begins.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxcost.core.pytree import field, pytree, replace
from jaxcost.explore.codesign.lagrangian import Lane, Look, Problem

__all__ = ["OPTIMISERS", "Schedule", "State", "descend", "start"]

_OPTAX = {"lbfgs": optax.scale_by_lbfgs(16), "adam": optax.scale_by_adam()}
OPTIMISERS = ("bfgs", *_OPTAX)
_FALL = 1e-4  # share of the fall promised by the slope that a step has to bring
_NOISE = 1e-13
_LONGEST = 0.25  # of a step, as a share of a knob's range
_TRIES = 12
_BETTER = 0.3  # share of its violation that a stage may leave before the penalty grows
_GROWTH = 4.0
_HOPELESS = 0.01  # a violation, hardly falling at the last stage, of a lane that is given up
_LARGEST = 1e4
_RATE = 0.05
_TURNS = 20_000
_LOOKS = 8


@pytree
class Schedule:
    """Stages: how soft, how near to a stationary point, and how many evaluations each may take."""

    tau: Any = field("1", "[T]: softness")
    tolerance: Any = field("1", "[T]: largest step, in u, of a projected slope that ends a stage")
    patience: Any = field("1", "[T]: evaluations of a stage")
    kept: Any = field("1", "largest violation, in logarithms, at the end")
    most: Any = field("1", "evaluations of a lane")


@pytree
class State:
    """Where a lane is."""

    u: Any = field("1", "[K]: positions of the knobs")
    look: Look = field(doc="what is there")
    direction: Any = field("1", "[K]: where it is going")
    step: Any = field("1", "how far, next")
    optimiser: Any = field(doc="state of the optimiser")
    multipliers: Any = field("1", "[W, C]")
    penalty: Any = field("1", "r")
    violation: Any = field("1", "of the stage before")
    stage: Any = field("1", "number of the stage")
    turns: Any = field("1", "evaluations in this stage")
    tries: Any = field("1", "steps refused one after the other")
    evaluations: Any = field("1", "of all stages")
    fresh: Any = field("1", "whether the Lagrangian has changed since it was looked at")
    done: Any = field("1", "whether it is through, or has spent its evaluations")
    through: Any = field("1", "whether it is through")


@pytree
class Curvature:
    """What BFGS keeps: an estimate of the second derivative, and where the last slope was taken."""

    second: Any = field("1", "[K, K]")
    u: Any = field("1", "[K]")
    slope: Any = field("1", "[K]")
    pairs: Any = field("1", "pairs taken in")


def _curvature(u: jax.Array, slope: jax.Array, memory: Curvature, fresh: jax.Array) -> Curvature:
    """Take in a pair of a step s and the change y of the slope, unless the Lagrangian has changed between.

        B <- B - B s (B s)^T / s.B s + r r^T / s.r,   r = t y + (1 - t) B s

    with t <= 1 such that s.r >= 0.2 s.B s (Powell 1978), which keeps B positive where curvature is not.
    """
    s, y = u - memory.u, slope - memory.slope
    length = jnp.vdot(s, s)
    along = jnp.vdot(s, y)
    first = memory.pairs == 0
    scale = jnp.where(along > 0, jnp.vdot(y, y) / jnp.where(along > 0, along, 1), 1.0)
    second = jnp.where(first, scale * jnp.eye(u.shape[0], dtype=u.dtype), memory.second)
    bs = second @ s
    sbs = jnp.vdot(s, bs)
    good = ~fresh & (length > 0) & jnp.isfinite(scale) & (sbs > 0)
    damped = along < 0.2 * sbs
    t = jnp.where(damped, 0.8 * sbs / jnp.where(good & damped, sbs - along, 1), 1)
    r = t * y + (1 - t) * bs
    sr = jnp.where(good, jnp.vdot(s, r), 1)
    grown = second - jnp.outer(bs, bs) / jnp.where(good, sbs, 1) + jnp.outer(r, r) / sr
    return Curvature(
        second=jnp.where(good, grown, memory.second),
        u=u,
        slope=slope,
        pairs=memory.pairs + jnp.where(good, 1, 0),
    )


def _newton(memory: Curvature, slope: jax.Array, free: jax.Array) -> jax.Array:
    """Return -B^-1 slope over the free knobs, 0 elsewhere."""
    both = free[:, None] * free[None]
    second = both * memory.second + jnp.diag(1 - free)
    return -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(second), free * slope) * free


def _remember(optimiser: str, u: jax.Array) -> Any:
    if optimiser != "bfgs":
        return _OPTAX[optimiser].init(u)
    return Curvature(
        second=jnp.eye(u.shape[0], dtype=u.dtype), u=u, slope=jnp.zeros_like(u), pairs=jnp.zeros((), u.dtype)
    )


def start(
    u: jax.Array,
    multipliers: jax.Array,
    penalty: jax.Array,
    stage: jax.Array,
    metrics: int,
    *,
    optimiser: str,
) -> State:
    """Begin lanes: u [B, K], multipliers [B, W, C], penalty [B], stage [B]."""
    lanes, scenarios, _ = multipliers.shape
    zeros, none = jnp.zeros(lanes, u.dtype), jnp.zeros(lanes, jnp.int32)
    seen = Look(
        value=zeros,
        slope=jnp.zeros_like(u),
        objective=zeros,
        limits=jnp.zeros_like(multipliers),
        metrics=jnp.zeros((lanes, scenarios, metrics), u.dtype),
    )
    return State(
        u=u,
        look=seen,
        direction=jnp.zeros_like(u),
        step=zeros,
        optimiser=jax.vmap(functools.partial(_remember, optimiser))(u),
        multipliers=multipliers,
        penalty=penalty,
        violation=jnp.full(lanes, jnp.inf, u.dtype),
        stage=stage,
        turns=none,
        tries=none,
        evaluations=none,
        fresh=none == 0,
        done=none > 0,
        through=none > 0,
    )


def descend(
    looking: Callable[..., Look],
    problem: Problem,
    lanes: Lane,
    schedule: Schedule,
    state: State,
    *,
    optimiser: str,
    turned: Callable[[State], None] = lambda state: None,
) -> State:
    """Take every lane to its end.

    Args:
        looking: the jitted `look` of many lanes.
        problem: what lanes share.
        lanes: the lanes' own, with a leading axis.
        schedule: the stages.
        state: where they are.
        optimiser: one of `OPTIMISERS`.
        turned: called now and then with the state.
    """
    for turn in range(_TURNS):
        at, tau = _ahead(schedule, state)
        seen = looking(problem, lanes, at, state.multipliers, state.penalty, tau)
        state = _advance(problem, lanes, schedule, state, seen, optimiser=optimiser)
        if turn % _LOOKS == _LOOKS - 1:
            turned(state)
            if bool(jnp.all(state.done)):
                break
    return state


@jax.jit
def _ahead(schedule: Schedule, state: State) -> tuple[jax.Array, jax.Array]:
    """Return where every lane looks next, u, and how softly."""
    step = jnp.where(state.fresh, 0, state.step)[:, None]
    return jnp.clip(state.u + step * state.direction, 0, 1), schedule.tau[state.stage]


@functools.partial(jax.jit, static_argnames="optimiser")
def _advance(
    problem: Problem, lanes: Lane, schedule: Schedule, state: State, seen: Look, *, optimiser: str
) -> State:
    trial, _ = _ahead(schedule, state)
    move = functools.partial(_move, problem, schedule, optimiser)
    return jax.vmap(move)(lanes, state, trial, seen)


def _move(
    problem: Problem,
    schedule: Schedule,
    optimiser: str,
    lane: Lane,
    state: State,
    trial: jax.Array,
    seen: Look,
) -> State:
    """Go to the point looked at, or not, and see whether the stage has come to its end."""
    slope, before = seen.slope * lane.free, state.look.slope * lane.free
    promised = jnp.vdot(before, trial - state.u)
    sound = jnp.isfinite(seen.value) & jnp.all(jnp.isfinite(slope))
    noise = _NOISE * (1 + jnp.abs(state.look.value))
    falls = seen.value <= state.look.value + _FALL * promised + noise
    taken = sound & (state.fresh | falls | (optimiser == "adam"))

    # A knob that its slope drives against its end stays there.
    held = ((trial <= 0) & (slope > 0)) | ((trial >= 1) & (slope < 0))
    free = lane.free * jnp.where(held, 0, 1)
    if optimiser == "bfgs":
        memory = _curvature(trial, slope, state.optimiser, state.fresh)
        direction = _newton(memory, slope, free)
    else:
        rule = _OPTAX[optimiser]
        # A changed Lagrangian makes differences of slopes across the change mean nothing.
        memory = _choose(state.fresh & (optimiser == "lbfgs"), rule.init(trial), state.optimiser)
        ahead, memory = rule.update(slope, memory, trial)
        direction = -1.0 * jnp.asarray(ahead) * free
    if optimiser == "adam":
        rate = _RATE * jnp.sqrt(schedule.tau[state.stage] / schedule.tau[0])
        direction, reach = rate * direction, jnp.ones_like(seen.value)
    else:
        downhill = -jnp.vdot(direction, slope) > 1e-10 * jnp.linalg.norm(direction) * jnp.linalg.norm(
            slope * free
        )
        direction = jnp.where(downhill, direction, -slope * free)
        memory = _choose(downhill, memory, _remember(optimiser, trial))
        reach = jnp.minimum(1.0, _LONGEST / jnp.maximum(jnp.max(jnp.abs(direction)), 1e-30))
    # A parabola through what is known says how far the refused step should have gone.
    curved = -promised / jnp.maximum(2 * (seen.value - state.look.value - promised), 1e-30)
    shorter = state.step * jnp.where(sound, jnp.clip(curved, 0.1, 0.5), 0.1)
    moved = replace(
        state,
        u=jnp.where(taken, trial, state.u),
        look=_choose(taken, seen, state.look),
        direction=jnp.where(taken, direction, state.direction),
        step=jnp.where(taken, reach, shorter),
        optimiser=_choose(taken, memory, state.optimiser),
        tries=jnp.where(taken, 0, state.tries + 1),
        turns=state.turns + 1,
        evaluations=state.evaluations + 1,
        fresh=state.fresh & ~taken,
    )
    at = jnp.max(jnp.abs(jnp.clip(moved.u - moved.look.slope * lane.free, 0, 1) - moved.u))
    still = ~moved.fresh & (at <= schedule.tolerance[state.stage])
    tired = (moved.turns >= schedule.patience[state.stage]) | (moved.tries >= _TRIES)
    ended = still | tired
    moved = _choose(ended, _next_stage(problem, lane, schedule, moved, still), moved)
    return _choose(state.done, state, moved)


def _next_stage(problem: Problem, lane: Lane, schedule: Schedule, state: State, still: jax.Array) -> State:
    g = state.look.limits + lane.shift
    used = (problem.sign != 0)[None]
    pushed = jnp.where(used, jnp.maximum(state.multipliers + state.penalty * g, 0), 0)
    violation = jnp.max(jnp.where(used, jnp.abs(jnp.maximum(g, -state.multipliers / state.penalty)), 0))
    last = state.stage == schedule.tau.shape[0] - 1
    worse = (still | last) & (violation > _BETTER * state.violation)
    through = last & still & (violation <= schedule.kept)
    hopeless = last & (violation > _HOPELESS) & (violation > 0.9 * state.violation)
    spent = hopeless | (state.evaluations >= schedule.most)
    return replace(
        state,
        multipliers=pushed,
        penalty=jnp.where(worse, jnp.minimum(state.penalty * _GROWTH, _LARGEST), state.penalty),
        violation=violation,
        stage=jnp.where(last, state.stage, state.stage + 1),
        turns=jnp.zeros_like(state.turns),
        tries=jnp.zeros_like(state.tries),
        fresh=jnp.ones_like(state.fresh),
        done=through | spent,
        through=through,
    )


def _choose(condition: jax.Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
