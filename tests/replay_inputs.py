"""Inputs of the event simulator: workload, policy of the engine, tables of step times."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Policy:
    """Limits and rules of an engine, its replicas and their load; see the text of this module."""

    pages: int
    block: int = 16
    budget: int = 0
    sequences: int = 0
    mixed: bool = False
    reserve: float = 0.0
    swap: bool = False
    swap_seconds: float = 0.0  # s per KV token, out and back each
    drafts: int = 0
    acceptance: float = 0.0
    seed: int = 0
    concurrency: int = 0
    replicas: int = 1
    router: str | Sequence[int] = "round_robin"  # or "least_loaded", or the replica of every request
    load_seconds: float = 0.0  # s per slow hit token


@dataclass(frozen=True)
class Requests:
    """Workload: s, tokens; the slow hit is that part of the hit which comes from the slower tier."""

    arrival: list[float]
    prompt: list[int]
    output: list[int]
    hit: list[int] = field(default_factory=list)
    slow_hit: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        zeros = [0] * len(self.arrival)
        object.__setattr__(self, "hit", self.hit or zeros)
        object.__setattr__(self, "slow_hit", self.slow_hit or zeros)


@dataclass(frozen=True)
class Tables:
    """Seconds and joules of steps at knots, as nested lists: decode[S][c], mixed[S][c][P][r]."""

    decode_sequences: list[float]
    decode_context: list[float]
    mixed_sequences: list[float]
    mixed_context: list[float]
    mixed_tokens: list[float]
    mixed_keys: list[float]
    decode_seconds: list
    decode_joules: list
    mixed_seconds: list
    mixed_joules: list

    def evaluate_decode(self, sequences: float, context: float) -> tuple[float, float]:
        """Return seconds and joules of a step without prompt tokens."""
        knots, point = (self.decode_sequences, self.decode_context), (sequences, context)
        return interpolate(knots, self.decode_seconds, point), interpolate(knots, self.decode_joules, point)

    def evaluate_mixed(
        self, sequences: float, context: float, tokens: float, keys: float
    ) -> tuple[float, float]:
        """Return seconds and joules of a step with prompt tokens."""
        knots = (self.mixed_sequences, self.mixed_context, self.mixed_tokens, self.mixed_keys)
        point = (sequences, context, tokens, keys)
        return interpolate(knots, self.mixed_seconds, point), interpolate(knots, self.mixed_joules, point)


def interpolate(knots: Sequence[Sequence[float]], values, point: Sequence[float]) -> float:
    """Return the multilinear interpolation of nested lists, clamped at the ends of the knots."""
    if not knots:
        return values
    axis, x = knots[0], min(max(point[0], knots[0][0]), knots[0][-1])
    upper = next((i for i in range(1, len(axis)) if x <= axis[i]), 0)
    if upper == 0:  # a single knot
        return interpolate(knots[1:], values[0], point[1:])
    weight = (x - axis[upper - 1]) / (axis[upper] - axis[upper - 1])
    low = interpolate(knots[1:], values[upper - 1], point[1:])
    high = interpolate(knots[1:], values[upper], point[1:])
    return low + weight * (high - low)
