"""What every reader of a trace shares: requests without tokens are dropped and counted, bad values are errors."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcost.edge.io.errors import InputError
from jaxcost.spec.trace import Trace, build_trace

__all__ = ["Requests", "check_time", "check_tokens", "session_numbers"]

_LATEST = 1e18  # of a time, in any unit


@dataclasses.dataclass
class Requests:
    """Columns of a file before they are checked, in the order of the file."""

    arrival: Any
    """Arrival times in s; they may start anywhere."""
    prompt: Any
    """Prompt tokens."""
    output: Any
    """Output tokens."""
    session: Any = None
    cached: Any = None
    block_tokens: int = 0
    blocks: Sequence[Any] | None = None
    output_blocks: Sequence[Any] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    def build(self, file: object, name: str) -> Trace:
        """Return the trace: requests with prompt and output tokens, ordered by arrival.

        Raises:
            InputError: no request has both.
        """
        prompt, output = np.asarray(self.prompt), np.asarray(self.output)
        arrival = np.asarray(self.arrival, np.float64)
        keep = (prompt > 0) & (output > 0)
        dropped = int((~keep).sum())
        if dropped == len(keep):
            raise InputError(
                "requests with prompt and output tokens", file=file, given=f"{dropped} requests without"
            )
        notes = list(self.notes)
        if dropped:
            what = (
                "request without prompt or output tokens is"
                if dropped == 1
                else ("requests without prompt or output tokens are")
            )
            notes.append(f"{dropped:,} {what} left out, such as failed ones.")
        if (np.diff(arrival[keep]) < 0).any():
            notes.append("The requests of the file are not in the order of their arrival; they were sorted.")
        kept = np.flatnonzero(keep).tolist()
        try:
            return build_trace(
                name,
                arrival[keep],
                prompt[keep],
                output[keep],
                session=None if self.session is None else np.asarray(self.session)[keep],
                cached=None if self.cached is None else np.asarray(self.cached)[keep],
                block_tokens=self.block_tokens,
                blocks=None if self.blocks is None else [self.blocks[i] for i in kept],
                output_blocks=None if self.output_blocks is None else [self.output_blocks[i] for i in kept],
                notes=notes,
            )
        except ValueError as error:
            raise InputError(f"a trace of requests ({error})", file=file) from None


def check_tokens(value: Any, *, file: object, path: str) -> int:
    """Return a number of tokens as an integer.

    Raises:
        InputError: `value` is not a whole number of at least 0.
    """
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole or not 0 <= value < 2**53:
        raise InputError("a whole number of tokens", file=file, path=path, given=value)
    return int(value)


def check_time(value: Any, expected: str, *, file: object, path: str) -> float:
    """Return a time as a number.

    Raises:
        InputError: `value` is not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LATEST:
        raise InputError(expected, file=file, path=path, given=value)
    return float(value)


def session_numbers(names: Sequence[Any]) -> np.ndarray:
    """Return the number of each session: whole numbers as they are, other names from 0, and -1 for an empty one."""
    words = np.asarray([str(name) for name in names])
    known = words != ""
    out = np.full(len(words), -1, np.int64)
    try:
        out[known] = words[known].astype(np.int64)
    except (ValueError, OverflowError):
        out[known] = np.unique(words[known], return_inverse=True)[1]
    return out
