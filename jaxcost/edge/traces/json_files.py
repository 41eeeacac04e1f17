"""Traces as JSON: Mooncake's block hashes, conversations, and results of `vllm bench serve`."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxcost.edge.io.errors import InputError
from jaxcost.edge.traces.requests import Requests, check_time, check_tokens, session_numbers

__all__ = ["Records", "read_bench_result", "read_mooncake", "read_records", "recognize_records"]

_BLOCK_TOKENS = 512  # of Mooncake's traces

Records = list[tuple[str, Mapping[str, Any]]]
"""Objects of a file with the place of each: "line 3" in JSON lines, "[2]" in a list."""


def read_records(path: Path) -> Records:
    """Return the objects of a file: JSON lines, a list of objects, or one object.

    Raises:
        InputError: the text is not JSON, or an entry is not an object.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"text in UTF-8 ({error})", file=path) from None
    start = text.lstrip()
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    values: list[tuple[str, Any]]
    if start.startswith("["):
        values = [(f"[{i}]", value) for i, value in enumerate(_whole_text(path, text))]
    elif _is_json(lines[0][1]):
        values = [(f"line {i}", _line(path, i, line)) for i, line in lines]
    else:
        values = [("", _whole_text(path, text))]
    for where, value in values:
        if not isinstance(value, dict):
            raise InputError("a JSON object", file=path, path=where, given=value)
    if not values:
        raise InputError("at least one request", file=path, given="an empty list")
    return values


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise InputError(
            f"a JSON object ({error})", file=path, path=f"line {number}", given=line[:40]
        ) from None


def _whole_text(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"JSON ({error.msg})", file=path, path=f"line {error.lineno}") from None


def recognize_records(records: Records) -> str | None:
    """Return the name of the JSON format of the first record, None if there is none."""
    first = records[0][1]
    if "input_lens" in first or {"duration", "completed", "request_throughput"} <= first.keys():
        return "vllm-bench"
    if {"input_length", "output_length"} <= first.keys():
        return "mooncake"
    conversational = {"conversations", "messages", "conversation", "prompt", "prompt_tokens"}
    return "sharegpt" if conversational & first.keys() else None


def read_mooncake(path: Path, records: Records, block_tokens: int) -> Requests:
    """Read records of `timestamp` (ms), `input_length`, `output_length`, and `hash_ids` of the prompt's blocks.

    `session_id`, `block_tokens` and the `output_hash_ids` of the full blocks that the output completes may be there as
    well; a `block_tokens` of 0 stands for that of the file, else 512.
    The hash of a last block that is not full is left out, as engines cache full blocks.
    """
    arrival, prompt, output, blocks, output_blocks = [], [], [], [], []
    numbers: dict[Any, int] = {}
    block_tokens = block_tokens or check_tokens(
        records[0][1].get("block_tokens", _BLOCK_TOKENS), file=path, path=f"{records[0][0]}: block_tokens"
    )
    short = 0
    for where, record in records:
        for key in ("timestamp", "input_length", "output_length"):
            if key not in record:
                raise InputError(f"the key {key}", file=path, path=where, given=f"only {', '.join(record)}")
        arrival.append(
            check_time(record["timestamp"], "a number of ms", file=path, path=f"{where}: timestamp") / 1e3
        )
        lengths = [
            check_tokens(record[key], file=path, path=f"{where}: {key}")
            for key in ("input_length", "output_length")
        ]
        prompt.append(lengths[0])
        output.append(lengths[1])
        full = lengths[0] // max(block_tokens, 1)
        ids = _block_ids(path, where, record, "hash_ids")
        most = -(-lengths[0] // max(block_tokens, 1))
        if len(ids) > most:
            expected = f"at most {most} ids, as {lengths[0]} tokens have {most} blocks of {block_tokens}"
            raise InputError(expected, file=path, path=f"{where}: hash_ids", given=f"{len(ids)} ids")
        short += len(ids) < full
        blocks.append([numbers.setdefault(x, len(numbers)) for x in ids[:full]])
        ids = _block_ids(path, where, record, "output_hash_ids")
        output_blocks.append([numbers.setdefault(x, len(numbers)) for x in ids])
    sessions = session_numbers([record.get("session_id", "") for _, record in records])
    requests = Requests(arrival, prompt, output, session=sessions)
    if numbers:
        requests.block_tokens, requests.blocks, requests.output_blocks = block_tokens, blocks, output_blocks
        if short:
            requests.notes.append(
                f"{short:,} requests have fewer hash_ids than full blocks of {block_tokens} tokens: no other request "
                "shares their remaining blocks."
            )
    return requests


def _block_ids(path: Path, where: str, record: Mapping[str, Any], key: str) -> list[Any]:
    ids = record.get(key, [])
    if not isinstance(ids, list) or any(isinstance(x, list | dict) for x in ids):
        raise InputError("a list of block ids", file=path, path=f"{where}: {key}", given=ids)
    return ids


def read_bench_result(path: Path, records: Records) -> Requests:
    """Read a result of `vllm bench serve --save-result --save-detailed`: lengths, and start times where it has them."""
    if len(records) > 1:
        raise InputError("one result of vllm bench serve", file=path, given=f"{len(records)} results")
    result = records[0][1]
    for key in ("input_lens", "output_lens"):
        if key not in result:
            raise InputError(
                f"{key}, which vllm bench serve --save-detailed writes", file=path, given=f"no {key}"
            )
    lengths = {key: _list(path, result, key) for key in ("input_lens", "output_lens")}
    counts = {
        key: [check_tokens(x, file=path, path=f"{key}[{i}]") for i, x in enumerate(values)]
        for key, values in lengths.items()
    }
    n = len(counts["input_lens"])
    notes = []
    if result.get("start_times"):
        values = _list(path, result, "start_times")
        arrival = np.asarray(
            [
                check_time(x, "a number of s", file=path, path=f"start_times[{i}]")
                for i, x in enumerate(values)
            ]
        )
    else:
        rate = result.get("request_rate")
        paced = isinstance(rate, int | float) and math.isfinite(rate) and rate > 0
        arrival = np.arange(n) / float(rate) if paced and isinstance(rate, int | float) else np.zeros(n)
        when = f"arrive at equal gaps at its rate of {rate:g}/s" if paced else "all arrive at 0 s"
        notes.append(f"The result has no start times: its requests {when}.")
    for key, length in (("output_lens", len(counts["output_lens"])), ("start_times", len(arrival))):
        if length != n:
            raise InputError(
                f"{n} entries, as input_lens has", file=path, path=key, given=f"{length} entries"
            )
    return Requests(arrival, counts["input_lens"], counts["output_lens"], notes=notes)


def _list(path: Path, record: Mapping[str, Any], key: str) -> Sequence[Any]:
    if not isinstance(record[key], list):
        raise InputError("a list", file=path, path=key, given=record[key])
    return record[key]
