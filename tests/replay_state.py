"""State of the event simulator: requests and steps."""

import math
from dataclasses import dataclass, field


@dataclass
class Request:
    """A request and its state; `position` is its place in the order of arrivals, `index` that of the workload."""

    index: int
    position: int
    arrival: float
    prompt: int
    output: int
    hit: int
    slow_hit: int
    received: bool = False  # its KV was computed in the prefill pool
    emitted: int = 0
    cached: int = 0  # len
    need: int = 0
    pages: int = 0
    swapped: bool = False
    replica: int = -1
    rejected: bool = False
    admitted: float = math.nan
    first: float = math.nan
    finish: float = math.nan
    last_emission: float = math.nan
    longest_gap: float = 0.0
    preemptions: int = 0
    chunks: int = 0

    @property
    def final_tokens(self) -> int:
        """KV tokens at its end: the last token emitted is never cached."""
        return self.prompt + self.output - 1

    @property
    def decodes(self) -> bool:
        return self.need == 0

    def emit(self, tokens: int, time: float) -> None:
        self.emitted += tokens
        if math.isnan(self.first):
            self.first = time
        else:
            self.longest_gap = max(self.longest_gap, time - self.last_emission)
        self.last_emission = time
        if self.emitted == self.output:
            self.finish = time
            self.pages = 0


@dataclass
class Step:
    """A step of a replica: who decodes, which prompts it computes, and what it takes."""

    replica: int
    start: float
    decoding: list[Request] = field(default_factory=list)
    chunks: list[tuple[Request, int, int]] = field(default_factory=list)  # request, start, tokens
    returned: list[Request] = field(default_factory=list)  # swapped requests that came back
    preempted: list[Request] = field(default_factory=list)
    grow: int = 0
    extra_seconds: float = 0.0
    joules: float = 0.0
    end: float = 0.0
    running: int = 0  # requests, while it runs
    pages: int = 0  # in use, while it runs
    emitted: int = 0

    @property
    def prompt_tokens(self) -> int:
        return sum(tokens for _, _, tokens in self.chunks)
