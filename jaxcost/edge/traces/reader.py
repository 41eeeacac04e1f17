"""Read a recorded trace of requests; the format is recognized from the content."""

from pathlib import Path

from jaxcost.edge.catalog.parts import expanded
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.traces.conversations import read_conversations
from jaxcost.edge.traces.json_files import read_bench_result, read_mooncake, read_records, recognize_records
from jaxcost.edge.traces.requests import Requests
from jaxcost.edge.traces.tables import TABLES, read_table, recognize_table
from jaxcost.spec.trace import Trace

__all__ = ["FORMATS", "load_trace"]

FORMATS = (*TABLES, "mooncake", "sharegpt", "vllm-bench")

_SHAREGPT_BLOCK = 16


def load_trace(
    path: str | Path, *, format: str = "", block_tokens: int = 0, characters_per_token: float = 4.0
) -> Trace:
    """Read a trace of requests from a file.

    The trace is named after the file. Requests without prompt or output tokens, such as failed ones, are left out;
    `notes` of the trace says how many, and what else was assumed.

    Args:
        path: the file.
        format: `csv` (the project's own: `arrival_s,prompt_tokens,output_tokens`), `azure`, `burstgpt`, `mooncake`,
            `sharegpt` or `vllm-bench`; recognized from the content if empty.
        block_tokens: tokens of a block of `mooncake` (0 for those the file states, else 512), or of the blocks that
            the turns of a conversation of `sharegpt` share (0 for 16).
        characters_per_token: of `sharegpt`, to estimate the tokens of text without a count.

    Raises:
        InputError: the file does not exist, is in no known format, or has a value that is not valid.
    """
    file = expanded(str(path))
    if format and format not in FORMATS:
        raise not_among(FORMATS, format, path="format")
    if block_tokens < 0 or block_tokens != int(block_tokens):
        raise InputError("a whole number of tokens", path="block_tokens", given=block_tokens)
    if not 0 < characters_per_token < float("inf"):
        raise InputError("a positive number", path="characters_per_token", given=characters_per_token)
    if not file.is_file():
        raise InputError("a file with a trace of requests", given=str(path))
    try:
        requests = _read(file, format, int(block_tokens), characters_per_token)
    except OSError as error:
        raise InputError(f"a file that can be read ({error.strerror})", file=file) from None
    return requests.build(file, file.stem)


def _read(file: Path, format: str, block_tokens: int, characters_per_token: float) -> Requests:
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        head = next((line for line in opened if line.strip()), "")
    if not head:
        raise InputError("a trace of requests", file=file, given="an empty file")
    is_json = format not in TABLES if format else head.lstrip()[0] in "{["
    if not is_json:
        name = format or recognize_table(head)
        if name is None:
            raise _unknown(file, head)
        return read_table(file, name)
    records = read_records(file)
    name = format or recognize_records(records)
    if name == "vllm-bench":
        return read_bench_result(file, records)
    if name == "mooncake":
        return read_mooncake(file, records, block_tokens)
    if name == "sharegpt":
        return read_conversations(file, records, block_tokens or _SHAREGPT_BLOCK, characters_per_token)
    raise _unknown(file, ", ".join(records[0][1]))


def _unknown(file: Path, given: str) -> InputError:
    headers = "; ".join(f"{name} ({','.join(table.required)})" for name, table in TABLES.items())
    json_formats = "mooncake (timestamp, input_length), sharegpt (conversations), vllm-bench (input_lens)"
    expected = f"a trace in one of the formats, by columns {headers}, or by JSON keys {json_formats}"
    return InputError(expected, file=file, path="line 1", given=given)
