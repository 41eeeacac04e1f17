"""A recorded or synthetic stream of requests: when each arrives, and what it asks for."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["Trace", "build_trace"]


_PER_REQUEST = ("prompt", "output", "session", "cached")
_BLOCKS = ("blocks", "offsets", "output_blocks", "output_offsets")


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """Requests in the order in which they arrive, as NumPy arrays.

    Raises ValueError for arrays of unequal length, arrivals that do not start at 0 or that descend, and requests
    without a prompt or output token. `session` and `cached` may be left out.
    """

    name: str
    arrival: np.ndarray
    """Arrival times [n] in s, ascending from 0."""
    prompt: np.ndarray
    """Prompt tokens [n], at least 1."""
    output: np.ndarray
    """Output tokens [n], at least 1."""
    session: np.ndarray = dataclasses.field(default_factory=_none)
    """Session numbers [n], -1 for requests without a session."""
    cached: np.ndarray = dataclasses.field(default_factory=_none)
    """Prompt tokens [n] that an infinite prefix cache holds when the request arrives, 0 where this is unknown.

    Computed from `blocks` where these are known and `cached` is left out.
    """
    block_tokens: int = 0
    """Tokens of a block; 0 for traces without block ids."""
    blocks: np.ndarray = dataclasses.field(default_factory=_none)
    """Ids of the full blocks of all prompts, those of request i in `blocks[offsets[i]:offsets[i + 1]]`."""
    offsets: np.ndarray = dataclasses.field(default_factory=_none)
    """First block of each request in `blocks`, and their number [n + 1]."""
    output_blocks: np.ndarray = dataclasses.field(default_factory=_none)
    """Ids of the full blocks that the outputs complete, which an engine caches too; none where these are unknown."""
    output_offsets: np.ndarray = dataclasses.field(default_factory=_none)
    """First block of each request in `output_blocks`, and their number [n + 1]."""
    notes: tuple[str, ...] = ()
    """What a reader dropped or assumed, one sentence each."""

    def __post_init__(self) -> None:
        """Convert and check the arrays."""
        n = len(np.atleast_1d(self.arrival))
        self._store(arrival=np.atleast_1d(np.asarray(self.arrival, np.float64)))
        for name in (*_PER_REQUEST, *_BLOCKS):
            self._store(**{name: _integers(name, getattr(self, name))})
        if not len(self.session):
            self._store(session=np.full(n, -1, np.int64))
        for name in ("offsets", "output_offsets"):
            if not len(getattr(self, name)):
                self._store(**{name: np.zeros(n + 1, np.int64)})
        self._check(n)
        if not len(self.cached):
            self._store(cached=_infinite_cache_hits(self) if self.block_tokens else np.zeros(n, np.int64))
        self._check_cached(n)
        for field in dataclasses.fields(self):
            if isinstance(array := getattr(self, field.name), np.ndarray):
                array = array.view()
                array.flags.writeable = False
                self._store(**{field.name: array})

    def _store(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check(self, n: int) -> None:
        _require(n >= 1, "a trace has at least one request")
        _require(bool(np.isfinite(self.arrival).all()), "arrivals are finite numbers of seconds")
        _require(self.arrival[0] == 0, f"arrivals start at 0 s, not at {self.arrival[0]:g} s")
        _require(bool((np.diff(self.arrival) >= 0).all()), "arrivals ascend")
        for name in ("prompt", "output", "session"):
            length = len(getattr(self, name))
            _require(length == n, f"{name} has {length} entries for {n} requests")
        for name in ("prompt", "output"):
            _require(bool((getattr(self, name) >= 1).all()), f"{name} is at least 1 token in every request")
        _require(self.block_tokens >= 0, f"block_tokens is at least 0, not {self.block_tokens}")
        for offsets, blocks in (("offsets", self.blocks), ("output_offsets", self.output_blocks)):
            array = getattr(self, offsets)
            _require(len(array) == n + 1, f"{offsets} has {len(array)} entries; {n + 1} are expected")
            ends = int(array[0]), int(array[-1])
            _require(ends == (0, len(blocks)), f"{offsets} starts at 0 and ends at the number of blocks")
            _require(bool((np.diff(array) >= 0).all()), f"{offsets} ascends")
            _require(
                self.block_tokens > 0 or not len(blocks), "block_tokens is needed where blocks are given"
            )
        size, (ids, ends) = self.block_tokens, self.cached_blocks
        full = bool((np.diff(self.offsets) * size <= self.prompt).all())
        _require(full, "the blocks of a request hold at most as many tokens as its prompt")
        # The last output token has no keys and values yet when its request ends.
        full = len(ids) == len(self.blocks) or bool((np.diff(ends) * size < self.prompt + self.output).all())
        _require(full, "the blocks of a request hold fewer tokens than its prompt and output")

    def _check_cached(self, n: int) -> None:
        _require(len(self.cached) == n, f"cached has {len(self.cached)} entries for {n} requests")
        within = bool(((self.cached >= 0) & (self.cached < self.prompt)).all())
        _require(within, "cached tokens of a request are at least 0 and fewer than its prompt tokens")

    def __repr__(self) -> str:
        """Name, number of requests, span and tokens."""
        return f"Trace({self.name!r}, {self.requests} requests in {self.span:g} s, {self.tokens} tokens)"

    @property
    def requests(self) -> int:
        """Number of requests, n."""
        return len(self.arrival)

    @property
    def span(self) -> float:
        """Time from the first to the last arrival, s."""
        return float(self.arrival[-1])

    @property
    def rate(self) -> float:
        """Arrivals a second, 1 over the mean gap; infinite where all requests arrive at once."""
        return (self.requests - 1) / self.span if self.span > 0 else float("inf")

    @property
    def burstiness(self) -> float:
        """Squared coefficient of variation of the gaps between arrivals: 1 for a Poisson stream, 0 for equal gaps."""
        gaps = np.diff(self.arrival)
        return float(gaps.var() / gaps.mean() ** 2) if self.span > 0 else 0.0

    @property
    def tokens(self) -> int:
        """Prompt and output tokens of all requests."""
        return int(self.prompt.sum() + self.output.sum())

    @property
    def cached_blocks(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the blocks that each request leaves in a cache, prompt before output, and their offsets [n + 1]."""
        if not len(self.output_blocks):
            return self.blocks, self.offsets
        out = np.empty(len(self.blocks) + len(self.output_blocks), np.int64)
        out[self.prompt_places] = self.blocks
        places = np.repeat(self.offsets[1:], np.diff(self.output_offsets))
        out[np.arange(len(self.output_blocks)) + places] = self.output_blocks
        return out, self.offsets + self.output_offsets

    @property
    def prompt_places(self) -> np.ndarray:
        """Places of `blocks` among those of `cached_blocks`."""
        return np.arange(len(self.blocks)) + np.repeat(self.output_offsets[:-1], np.diff(self.offsets))

    def scaled_to(self, rate: float) -> "Trace":
        """Return the trace with its gaps multiplied by one number, so that `rate` requests arrive a second."""
        _require(
            np.isfinite(rate) and rate > 0, f"a rate is a positive number of requests a second, not {rate}"
        )
        _require(self.span > 0, "a trace whose requests all arrive at once has no rate to scale")
        return dataclasses.replace(self, arrival=self.arrival * (self.rate / float(rate)))

    def first(self, count: int) -> "Trace":
        """Return the first `count` requests, all of them where the trace has fewer."""
        _require(count >= 1, f"the number of requests is at least 1, not {count}")
        end = min(int(count), self.requests)
        kept = {name: getattr(self, name)[:end] for name in ("arrival", *_PER_REQUEST)}
        for blocks, offsets in (("blocks", "offsets"), ("output_blocks", "output_offsets")):
            kept[offsets] = getattr(self, offsets)[: end + 1]
            kept[blocks] = getattr(self, blocks)[: kept[offsets][-1]]
        return dataclasses.replace(self, **kept)


def build_trace(
    name: str,
    arrival: Any,
    prompt: Any,
    output: Any,
    *,
    session: Any = None,
    cached: Any = None,
    block_tokens: int = 0,
    blocks: Sequence[Any] | None = None,
    output_blocks: Sequence[Any] | None = None,
    notes: Sequence[str] = (),
) -> Trace:
    """Return a `Trace` of requests in any order: sorted by arrival (stable), with the first arrival moved to 0 s.

    `blocks` and `output_blocks` have one sequence of ids a request; ids beyond the full blocks of a prompt are dropped.
    """
    arrival = np.atleast_1d(np.asarray(arrival, np.float64))
    _require(len(arrival) >= 1, "a trace has at least one request")
    order = np.argsort(arrival, kind="stable")
    arrival, prompt, output = arrival[order], np.asarray(prompt)[order], np.asarray(output)[order]
    optional: dict[str, Any] = {}
    if session is not None:
        optional["session"] = np.asarray(session)[order]
    if cached is not None:
        optional["cached"] = np.asarray(cached)[order]
    if blocks is not None:
        _require(block_tokens >= 1, "block_tokens is needed where blocks are given")
        kept = [blocks[i][: int(n) // block_tokens] for i, n in zip(order.tolist(), prompt, strict=True)]
        optional |= {"block_tokens": block_tokens, **_flatten("blocks", "offsets", kept)}
        if output_blocks is not None:
            kept = [output_blocks[i] for i in order.tolist()]
            optional |= _flatten("output_blocks", "output_offsets", kept)
    return Trace(
        name=name, arrival=arrival - arrival[0], prompt=prompt, output=output, notes=tuple(notes), **optional
    )


def _flatten(blocks: str, offsets: str, rows: Sequence[Any]) -> dict[str, np.ndarray]:
    flat = np.fromiter((block for ids in rows for block in ids), np.int64)
    return {blocks: flat, offsets: np.concatenate([[0], np.cumsum([len(ids) for ids in rows])])}


def _infinite_cache_hits(trace: Trace) -> np.ndarray:
    """Return the tokens [n] of the leading blocks of each prompt that an earlier request left, at most prompt - 1."""
    ids, offsets = trace.cached_blocks
    owner = np.repeat(np.arange(trace.requests), np.diff(offsets))
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    known = (owner[first][inverse] < owner)[trace.prompt_places]
    missing = np.append(np.flatnonzero(~known), len(known))
    start = trace.offsets[:-1]
    hits = np.minimum(missing[np.searchsorted(missing, start)] - start, np.diff(trace.offsets))
    return np.minimum(hits * trace.block_tokens, trace.prompt - 1)


def _integers(name: str, values: Any) -> np.ndarray:
    array = np.atleast_1d(np.asarray(values))
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    _require(array.ndim == 1 and bool(np.all(whole == array)), f"{name} has whole numbers, on one axis")
    return whole


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ValueError(text)
