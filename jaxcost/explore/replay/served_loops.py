"""Measured closed loops of users, replayed: mean TPOT and TTFT of every point of `ServingPoints`.

A benchmark of c users sends 10 c requests: c of them at once, and each of the others when a request is finished. Points
whose library, model, precisions, users and lengths are equal are designs of one replay.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from jaxcost.core.pytree import replace, replace_at
from jaxcost.explore.calibrate import ServingPoints
from jaxcost.explore.replay.api import replay
from jaxcost.spec.engine import Engine
from jaxcost.spec.kernels import EngineOverheads
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.trace import Trace

__all__ = [
    "ROUNDS",
    "Loop",
    "loop_trace",
    "measured_loops",
    "replay_loop",
    "replay_loops",
]

ROUNDS = 10  # requests per user
_NARROW = 10.0  # bits of weights up to which activations have 8, as in `serving_steps`
_NATIVE = 6.0  # bits of weights below which only routed experts are narrow
_SPREAD = (0.8, 1.0)  # lengths of a benchmark with varying ones, over the listed length: uniform


@dataclasses.dataclass(frozen=True)
class Loop:
    """Points that one replay predicts: they differ in degrees alone.

    Attributes:
        library: name of the serving library.
        model: name of the model.
        rows: indices of the points, [K].
        users: concurrent users.
        nominal: listed prompt and output tokens.
        equal: whether all requests have these lengths.
        reason: why the loop cannot be replayed, "" if it can.
    """

    library: str
    model: str
    rows: np.ndarray
    users: int
    nominal: tuple[int, int]
    equal: bool
    reason: str = ""


def measured_loops(points: ServingPoints) -> list[Loop]:
    """Divide points into loops. Where the number of users is not whole, a reason is given."""
    columns = (points.library, points.model, points.users, points.nominal[:, 0], points.nominal[:, 1])
    bits = (points.weight_bits, points.kv_bits, points.equal)
    keys = list(zip(*(c.tolist() for c in (*columns, *bits)), strict=True))
    loops = []
    for key in dict.fromkeys(keys):
        rows = np.flatnonzero([k == key for k in keys])
        library, model, users, prompt, output = key[:5]
        reason = "" if users == round(users) and users >= 1 else f"{users:g} users"
        loops.append(
            Loop(library, model, rows, int(users), (int(prompt), int(output)), bool(key[7] == 1), reason)
        )
    return loops


def loop_trace(loop: Loop, *, seed: int = 0) -> Trace:
    """Return the requests of the benchmark of a loop: `ROUNDS` per user, all of which may be sent at once."""
    n = ROUNDS * loop.users
    if loop.equal:
        prompt, output = (np.full(n, tokens, np.int64) for tokens in loop.nominal)
    else:
        draws = np.random.default_rng(seed).uniform(*_SPREAD, (2, n))
        prompt, output = (
            np.maximum(np.rint(u * t), 1).astype(np.int64) for u, t in zip(draws, loop.nominal, strict=True)
        )
    return Trace(name="closed loop", arrival=np.zeros(n), prompt=prompt, output=output)


def replay_loop(
    loop: Loop,
    points: ServingPoints,
    *,
    system: System,
    model: Model,
    engine: Engine,
    constants: Mapping[str, float],
) -> np.ndarray:
    """Return the mean TPOT and mean TTFT of the points of a loop, s, `[K, 2]`.

    Args:
        loop: of `measured_loops`.
        points: all measured closed loops.
        system: with the kernels of the library in `chip.efficiency`; the overheads of its engine are not used.
        model: the model.
        engine: limits of the library's engine, and its memory policy.
        constants: overheads of the engine, such as those of `ServingFit.unseen`.
    """
    if loop.reason:
        raise ValueError(f"the loop cannot be replayed: {loop.reason}")
    overheads = replace(EngineOverheads(), **constants)
    system = replace_at(system, "chip.efficiency.kernels.engine", overheads)
    at = loop.rows
    weights = points.weight_bits[at]
    four = weights < _NATIVE
    columns = {
        "tp": points.tp[at],
        "ep": points.ep[at],
        "dp": points.dp[at],
        "weight_bits": np.where(four, 16.0, weights),
        "expert_bits": weights,
        "kv_bits": points.kv_bits[at],
        "activation_bits": np.where((weights <= _NARROW) & ~four, 8.0, 16.0),
    }
    plan = replace(Plan(), engine=engine, **columns)
    done = replay(system, model, loop_trace(loop), plan, concurrency=loop.users)
    return np.stack([done.mean("tpot"), done.mean("ttft")], -1)


def replay_loops(
    loops: Iterable[Loop],
    points: ServingPoints,
    *,
    systems: Mapping[str, System],
    models: Mapping[str, Model],
    engines: Mapping[str, Engine],
    constants: Mapping[tuple[str, str], Mapping[str, float]],
) -> np.ndarray:
    """Return the mean TPOT and mean TTFT of all points, s, `[R, 2]`; NaN where no loop replays a point.

    Args:
        loops: those of `measured_loops` to replay.
        points: the measured closed loops.
        systems: by library, as for `replay_loop`.
        models: models by the names in `points`.
        engines: by library.
        constants: by library and model, overheads of the engine.
    """
    out = np.full((len(points), 2), np.nan)
    for loop in loops:
        if not loop.reason:
            out[loop.rows] = replay_loop(
                loop,
                points,
                system=systems[loop.library],
                model=models[loop.model],
                engine=engines[loop.library],
                constants=constants[loop.library, loop.model],
            )
    return out
