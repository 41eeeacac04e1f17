"""Synthetic traces: arrivals, lengths and agents' sessions, from a seed."""

from typing import Any

import numpy as np

from jaxcost.spec.trace import Trace, build_trace

__all__ = ["ARRIVALS", "agent_trace", "growing_blocks", "synthetic_trace"]

ARRIVALS = ("poisson", "gamma", "diurnal", "bursts")


def synthetic_trace(
    arrivals: str = "poisson",
    *,
    rate: float,
    requests: int = 1000,
    prompt: float = 1024.0,
    output: float = 256.0,
    prompt_cv: float = 0.0,
    output_cv: float = 0.0,
    lengths: Trace | None = None,
    burstiness: float = 4.0,
    amplitude: float = 0.5,
    period: float = 0.0,
    on: float = 10.0,
    off: float = 30.0,
    seed: int = 0,
) -> Trace:
    """Return independent requests with random arrivals.

    Arrivals and lengths are drawn from separate streams of `seed`, so that a change of one leaves the other.

    Args:
        arrivals: `poisson`; `gamma`: gaps of a gamma distribution with the squared coefficient of variation
            `burstiness`; `diurnal`: Poisson with rate x (1 + amplitude x sin(2 pi t / period)); `bursts`: Poisson
            in periods of `on` s that alternate with silent periods of `off` s, both exponential with these means.
        rate: mean arrivals, 1/s.
        requests: number of requests.
        prompt: mean prompt tokens.
        output: mean output tokens.
        prompt_cv: coefficient of variation of the prompts, lognormal and rounded; 0 for equal prompts.
        output_cv: the same of the outputs.
        lengths: trace of which pairs of prompt and output are drawn with replacement, instead of the four above.
        burstiness: of `gamma`, squared coefficient of variation of the gaps.
        amplitude: of `diurnal`, in [0, 1].
        period: of `diurnal`, s; 0 for one period over the expected duration.
        on: of `bursts`, mean duration of a burst, s.
        off: of `bursts`, mean silence between bursts, s.
        seed: seed of the random numbers.

    Raises:
        ValueError: a parameter is out of its range.
    """
    _require(arrivals in ARRIVALS, f"arrivals is one of {', '.join(ARRIVALS)}, not {arrivals!r}")
    _require(
        requests >= 1 and requests == int(requests),
        f"requests is a whole number of at least 1, not {requests}",
    )
    _check_positive(rate=rate, prompt=prompt, output=output, burstiness=burstiness, on=on)
    _check_not_negative(prompt_cv=prompt_cv, output_cv=output_cv, period=period, off=off)
    _require(0 <= amplitude <= 1, f"amplitude is in [0, 1], not {amplitude}")
    n = int(requests)
    times, sizes = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    if arrivals == "poisson":
        arrival = np.cumsum(times.exponential(1 / rate, n))
    elif arrivals == "gamma":
        arrival = np.cumsum(times.gamma(1 / burstiness, burstiness / rate, n))
    elif arrivals == "diurnal":
        arrival = _diurnal_arrivals(times, n, rate, amplitude, period or n / rate)
    else:
        arrival = _burst_arrivals(times, n, rate, on, off)
    if lengths is not None:
        drawn = sizes.integers(lengths.requests, size=n)
        prompts, outputs = lengths.prompt[drawn], lengths.output[drawn]
    else:
        prompts, outputs = _lengths(sizes, n, prompt, prompt_cv), _lengths(sizes, n, output, output_cv)
    return build_trace(arrivals, arrival, prompts, outputs)


def agent_trace(
    *,
    sessions: int = 100,
    session_rate: float = 0.1,
    turns: float = 8.0,
    turns_cv: float = 0.0,
    system_prompt: int = 4096,
    new_tokens: float = 512.0,
    new_tokens_cv: float = 1.0,
    output: float = 256.0,
    output_cv: float = 1.0,
    think: float = 10.0,
    ttft: float = 0.5,
    tpot: float = 0.02,
    max_context: int = 0,
    block_tokens: int = 512,
    seed: int = 0,
) -> Trace:
    """Return sessions of agents whose context grows from turn to turn, with block ids.

        prompt of turn i = system_prompt + new tokens of turns 1 to i + outputs of turns 1 to i - 1
        arrival of turn i + 1 = arrival of turn i + ttft + tpot x output + think time

    All sessions share the system prompt. Arrivals do not wait for the system under test: the service time between two
    turns is the nominal one.

    Args:
        sessions: number of sessions.
        session_rate: sessions that begin, 1/s (Poisson).
        turns: mean turns of a session.
        turns_cv: coefficient of variation of the turns; 0 for equal numbers.
        system_prompt: tokens that every prompt begins with.
        new_tokens: mean tokens of the user or of tools that a turn adds (lognormal).
        new_tokens_cv: their coefficient of variation.
        output: mean output tokens of a turn (lognormal).
        output_cv: their coefficient of variation.
        think: mean time of a user or tool between two turns, s (exponential).
        ttft: nominal time to first token, s.
        tpot: nominal time per output token, s.
        max_context: tokens of prompt and output at which a session ends; 0 for no limit.
        block_tokens: tokens of a block.
        seed: seed of the random numbers.

    Raises:
        ValueError: a parameter is out of its range, or no turn fits in `max_context`.
    """
    _require(
        sessions >= 1 and sessions == int(sessions),
        f"sessions is a whole number of at least 1, not {sessions}",
    )
    _require(block_tokens >= 1, f"block_tokens is at least 1, not {block_tokens}")
    _check_positive(session_rate=session_rate, turns=turns, new_tokens=new_tokens, output=output)
    _check_not_negative(turns_cv=turns_cv, new_tokens_cv=new_tokens_cv, output_cv=output_cv, think=think)
    _check_not_negative(system_prompt=system_prompt, ttft=ttft, tpot=tpot, max_context=max_context)
    starts, sizes, waits = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    begin = np.cumsum(starts.exponential(1 / session_rate, int(sessions)))
    counts = _lengths(sizes, len(begin), turns, turns_cv)
    session = np.repeat(np.arange(len(begin)), counts)
    n = len(session)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])[session]
    new, outputs = _lengths(sizes, n, new_tokens, new_tokens_cv), _lengths(sizes, n, output, output_cv)
    between = ttft + tpot * outputs + waits.exponential(think, n)
    prompt = int(system_prompt) + _sum_before(new, first) + new + _sum_before(outputs, first)
    arrival = begin[session] + _sum_before(between, first)
    keep = np.full(n, True) if max_context == 0 else prompt + outputs <= max_context
    _require(bool(keep.any()), f"no turn fits in max_context, {max_context} tokens")
    arrival, prompt, outputs, session = arrival[keep], prompt[keep], outputs[keep], session[keep]
    order = np.argsort(arrival, kind="stable")
    prompt, outputs, session = prompt[order], outputs[order], session[order]
    return Trace(
        name="agents",
        arrival=arrival[order] - arrival[order[0]],
        prompt=prompt,
        output=outputs,
        session=session,
        block_tokens=int(block_tokens),
        **growing_blocks(session, prompt, outputs, int(block_tokens), int(system_prompt)),
    )


def growing_blocks(
    session: Any, prompt: Any, output: Any, block_tokens: int, shared_tokens: int = 0
) -> dict[str, Any]:
    """Return the blocks and offsets of a `Trace` whose prompts begin with the prompt and output of the turn before.

    `session` [n] has numbers from 0; `prompt` and `output` [n] are tokens. All sessions share the full blocks of their
    first `shared_tokens`.
    """
    session, prompt, shared = np.asarray(session), np.asarray(prompt), shared_tokens // block_tokens
    # The last output token has no keys and values yet.
    ends = {"": prompt // block_tokens, "output_": (prompt + np.asarray(output) - 1) // block_tokens}
    longest = np.zeros(int(session.max()) + 1, np.int64)
    np.maximum.at(longest, session, ends["output_"])
    start = shared + np.concatenate([[0], np.cumsum(longest)[:-1]])
    out: dict[str, Any] = {}
    for name, first in (("", np.zeros_like(prompt)), ("output_", ends[""])):
        counts = ends[name] - first
        offsets = np.concatenate([[0], np.cumsum(counts)])
        place = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - first, counts)
        ids = np.where(place < shared, place, np.repeat(start[session], counts) + place)
        out |= {f"{name}blocks": ids, f"{name}offsets": offsets}
    return out


def _lengths(generator: np.random.Generator, n: int, mean: float, cv: float) -> np.ndarray:
    """Draw n whole numbers of at least 1: all equal to the mean where cv is 0, else lognormal."""
    variance = np.log1p(cv**2)
    values = mean * np.exp(np.sqrt(variance) * generator.standard_normal(n) - variance / 2)
    return np.maximum(np.rint(values), 1).astype(np.int64)


def _diurnal_arrivals(
    generator: np.random.Generator, n: int, rate: float, amplitude: float, period: float
) -> np.ndarray:
    """Draw arrivals at the highest rate, and keep each with the ratio of the rate then to the highest (thinning)."""
    highest, last, kept = rate * (1 + amplitude), 0.0, np.zeros(0)
    while len(kept) < n:
        times = last + np.cumsum(generator.exponential(1 / highest, n))
        last = times[-1]
        rates = rate * (1 + amplitude * np.sin(2 * np.pi * times / period))
        kept = np.concatenate([kept, times[generator.random(n) * highest < rates]])
    return kept[:n]


def _burst_arrivals(generator: np.random.Generator, n: int, rate: float, on: float, off: float) -> np.ndarray:
    """Draw arrivals on a clock that runs in bursts only, and insert the silences."""
    clock = np.cumsum(generator.exponential(on / (rate * (on + off)), n))
    ends = np.zeros(0)
    while not len(ends) or ends[-1] < clock[-1]:
        more = generator.exponential(on, 16 + int(clock[-1] / on))
        ends = np.cumsum(np.concatenate([np.diff(ends, prepend=0.0), more]))
    silences = np.concatenate([[0.0], np.cumsum(generator.exponential(off, len(ends)))])
    return clock + silences[np.searchsorted(ends, clock)]


def _sum_before(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the sum of the entries from that of index `first` to the one before each."""
    total = np.concatenate([np.zeros(1, values.dtype), np.cumsum(values)])
    return total[:-1] - total[first]


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        _require(np.isfinite(value) and value > 0, f"{name} is a positive number, not {value}")


def _check_not_negative(**values: float) -> None:
    for name, value in values.items():
        _require(np.isfinite(value) and value >= 0, f"{name} is a number of at least 0, not {value}")


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ValueError(text)
