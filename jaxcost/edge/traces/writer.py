"""Write a trace as CSV, or as JSON lines with the ids of its blocks."""

import csv
import io
import json
from pathlib import Path

from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.write import write_atomically
from jaxcost.spec.trace import Trace

__all__ = ["SUFFIXES", "save_trace"]

SUFFIXES = (".csv", ".jsonl")


def save_trace(trace: Trace, path: str | Path) -> None:
    """Write a trace that `load_trace` reads back.

    `.csv`: columns `arrival_s`, `prompt_tokens`, `output_tokens`, `session` if there are sessions, and
    `cached_tokens` if an infinite prefix cache holds any; block ids are not written. `.jsonl`: Mooncake's keys
    `timestamp` (ms), `input_length`, `output_length`, and `hash_ids`, `output_hash_ids`, `block_tokens` and
    `session_id` where they are known.

    Raises:
        InputError: the suffix is another, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"a name ending in {' or '.join(SUFFIXES)}", path="path", given=str(path))
    content = _as_csv(trace) if path.suffix == ".csv" else _as_json_lines(trace)
    try:
        write_atomically(path, content.encode())
    except OSError as error:
        raise InputError(f"a file that can be written ({error.strerror})", file=path) from None


def _as_csv(trace: Trace) -> str:
    columns = {
        "arrival_s": [f"{x:.17g}" for x in trace.arrival],
        "prompt_tokens": trace.prompt.tolist(),
        "output_tokens": trace.output.tolist(),
    }
    if (trace.session >= 0).any():
        columns["session"] = [s if s >= 0 else "" for s in trace.session.tolist()]
    if trace.cached.any():
        columns["cached_tokens"] = trace.cached.tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _as_json_lines(trace: Trace) -> str:
    blocks, offsets = trace.blocks.tolist(), trace.offsets.tolist()
    outputs, output_offsets = trace.output_blocks.tolist(), trace.output_offsets.tolist()
    lines = []
    for i, arrival in enumerate(trace.arrival.tolist()):
        record = {
            "timestamp": arrival * 1e3,
            "input_length": int(trace.prompt[i]),
            "output_length": int(trace.output[i]),
        }
        if trace.block_tokens:
            record["hash_ids"] = blocks[offsets[i] : offsets[i + 1]]
            record["block_tokens"] = trace.block_tokens
        if len(outputs):
            record["output_hash_ids"] = outputs[output_offsets[i] : output_offsets[i + 1]]
        if trace.session[i] >= 0:
            record["session_id"] = int(trace.session[i])
        lines.append(json.dumps(record) + "\n")
    return "".join(lines)
