"""Traces of conversations: every answer is a request whose prompt is the conversation before it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.traces.json_files import Records
from jaxcost.edge.traces.requests import Requests, check_time, check_tokens
from jaxcost.explore.replay import growing_blocks

__all__ = ["read_conversations"]

_LISTS = ("conversations", "messages", "conversation")
_ROLES = ("from", "role")
_TEXTS = ("value", "content")
_COUNTS = ("tokens", "token_count", "num_tokens")
_ASSISTANT = ("gpt", "assistant", "chatgpt", "bing", "bard", "model")
_OTHERS = ("human", "user", "system", "developer", "tool", "function", "observation")
_PROMPT = (("prompt_tokens", "input_tokens", "prompt_len"), ("prompt", "input"))
_OUTPUT = (("output_tokens", "completion_tokens", "output_len"), ("output", "response", "completion"))

# Where a file has no arrival times: conversations that begin a second, and time from one turn to the next.
_CONVERSATION_RATE, _TURN_SECONDS = 1.0, 30.0


class _Counter:
    """Counts tokens, and how many of the texts were estimated."""

    def __init__(self, path: Path, characters: float):
        self.path, self.characters, self.estimated = path, characters, 0

    def count(
        self, record: Mapping[str, Any], where: str, counts: tuple[str, ...], texts: tuple[str, ...]
    ) -> int:
        """Return the tokens of a field: the count where it is there, else an estimate from the text."""
        for key in counts:
            if key in record:
                return check_tokens(record[key], file=self.path, path=f"{where}.{key}")
        for key in texts:
            if key in record:
                text = _text(record[key])
                if text is None:
                    raise InputError("text", file=self.path, path=f"{where}.{key}", given=record[key])
                self.estimated += 1
                return math.ceil(len(text) / self.characters)
        expected = f"one of {', '.join((*counts, *texts))}"
        raise InputError(expected, file=self.path, path=where, given=f"only {', '.join(record)}")


def read_conversations(
    path: Path, records: Records, block_tokens: int, characters_per_token: float
) -> Requests:
    """Read conversations as in ShareGPT, or records of one prompt and output each.

    A conversation has a list `conversations` or `messages` of objects with a role (`from` or `role`) and a text
    (`value` or `content`) or a count (`tokens`). Each message of the assistant is a request of the session; its prompt
    is all that comes before. A record without such a list has `prompt_tokens` or `prompt`, and `output_tokens` or
    `output`. `arrival_s` is the time of a record. Text is counted at `characters_per_token`.
    """
    counter = _Counter(path, characters_per_token)
    timed = all("arrival_s" in record for _, record in records)
    rows: list[tuple[float, int, int, int]] = []  # arrival, prompt, output, session
    session = 0
    for place, (where, record) in enumerate(records):
        start = place / _CONVERSATION_RATE
        if timed:
            start = check_time(record["arrival_s"], "a number of s", file=path, path=f"{where}.arrival_s")
        key = next((key for key in _LISTS if key in record), None)
        if key is None:
            counts = {**record, **usage} if isinstance(usage := record.get("usage"), dict) else record
            rows.append(
                (start, counter.count(counts, where, *_PROMPT), counter.count(counts, where, *_OUTPUT), -1)
            )
            continue
        turns = _turns(counter, record[key], f"{where}.{key}" if where else key)
        rows += [(start + i * _TURN_SECONDS, *turn, session) for i, turn in enumerate(turns)]
        session += bool(turns)
    if not rows:
        raise InputError("a message of the assistant after one of a user", file=path, given="none")
    rows.sort(key=lambda row: row[0])
    arrival, prompt, output, sessions = (np.asarray(column) for column in zip(*rows, strict=True))
    requests = Requests(arrival, prompt, output, session=sessions)
    if counter.estimated:
        what = f"{counter.estimated:,} texts are estimated at {characters_per_token:g} characters a token"
        requests.notes.append(f"The token counts of {what}.")
    _note_arrivals(requests, timed, several=len(np.unique(sessions)) < len(rows) and session > 0)
    if session:
        alone = np.arange(len(rows)) + session  # records without turns share nothing
        of_blocks = np.where(sessions >= 0, sessions, alone)
        ids = growing_blocks(of_blocks, prompt, np.maximum(output, 1), block_tokens)
        requests.block_tokens = block_tokens
        requests.blocks = np.split(ids["blocks"], ids["offsets"][1:-1])
        requests.output_blocks = np.split(ids["output_blocks"], ids["output_offsets"][1:-1])
    return requests


def _note_arrivals(requests: Requests, timed: bool, *, several: bool) -> None:
    turns = f"the turns of a conversation follow each other after {_TURN_SECONDS:g} s"
    if not timed:
        begin = f"The file has no arrival times: {_CONVERSATION_RATE:g} record begins each second"
        requests.notes.append(f"{begin}{f', and {turns}' if several else ''}.")
    elif several:
        requests.notes.append(f"The file has no times of turns: {turns}.")


def _turns(counter: _Counter, messages: Any, where: str) -> list[tuple[int, int]]:
    """Return the prompt and output tokens of each answer."""
    if not isinstance(messages, list):
        raise InputError("a list of messages", file=counter.path, path=where, given=messages)
    turns, context, asked = [], 0, False
    for i, message in enumerate(messages):
        place = f"{where}[{i}]"
        if not isinstance(message, dict):
            raise InputError("a message", file=counter.path, path=place, given=message)
        key = next((key for key in _ROLES if key in message), None)
        if key is None:
            raise InputError(
                "a role: from or role", file=counter.path, path=place, given=f"only {', '.join(message)}"
            )
        role = str(message[key]).lower()
        if role not in (*_ASSISTANT, *_OTHERS):
            raise not_among((*_ASSISTANT, *_OTHERS), role, file=counter.path, path=f"{place}.{key}")
        tokens = counter.count(message, place, _COUNTS, _TEXTS)
        if role in _ASSISTANT and asked:
            turns.append((context, tokens))
        asked = asked or role not in _ASSISTANT
        context += tokens
    return turns


def _text(value: Any) -> str | None:
    """Return the text of a message: a string, nothing, or the texts of a list of parts."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return "".join(str(part.get("text", "")) for part in value)
    return None
