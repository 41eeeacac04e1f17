"""Traces as CSV tables: Azure's, BurstGPT's, and the project's own."""

import csv
import dataclasses
import datetime
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.traces.requests import Requests, session_numbers

__all__ = ["TABLES", "TableFormat", "read_table", "recognize_table"]


@dataclasses.dataclass(frozen=True)
class TableFormat:
    """Columns of a CSV format."""

    arrival: str
    prompt: str
    output: str
    session: str = ""
    dated: bool = False  # whether arrivals are dates with times, not seconds
    strict: bool = False  # whether unknown columns are errors

    @property
    def required(self) -> tuple[str, str, str]:
        """Columns that every file has."""
        return self.arrival, self.prompt, self.output


TABLES = {
    "csv": TableFormat("arrival_s", "prompt_tokens", "output_tokens", session="session", strict=True),
    # github.com/Azure/AzurePublicDataset: AzureLLMInferenceTrace of 2023 and 2024
    "azure": TableFormat("TIMESTAMP", "ContextTokens", "GeneratedTokens", dated=True),
    # github.com/HPMLL/BurstGPT: version 2 has sessions
    "burstgpt": TableFormat("Timestamp", "Request tokens", "Response tokens", session="Session ID"),
}
_CACHED, _HIT_BLOCKS = "cached_tokens", "prefix_hit_blocks_infinite_cache"
_BLOCK_COUNT = re.compile(r"n_(\d+)tok_blocks")


def recognize_table(header: str) -> str | None:
    """Return the name of the CSV format with this header, None if there is none."""
    names = _split(header)
    return next((name for name, table in TABLES.items() if set(table.required) <= set(names)), None)


def read_table(path: Path, name: str) -> Requests:
    """Read a CSV file of the format `name`.

    Raises:
        InputError: a column is missing or unknown, or a field is not a number.
    """
    table = TABLES[name]
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = _split(file.readline())
    block_tokens = _check_header(path, header, table)
    columns = _read_columns(path, header, table)
    cached = None
    prompt = _whole(columns[table.prompt])
    if _CACHED in columns:
        cached = _whole(columns[_CACHED])
    elif _HIT_BLOCKS in columns:
        full = prompt // block_tokens
        cached = np.minimum(_whole(columns[_HIT_BLOCKS]), full) * block_tokens
    if cached is not None:
        cached = np.clip(cached, 0, np.maximum(prompt - 1, 0))
    session = session_numbers(columns[table.session].to_pylist()) if table.session in columns else None
    arrival = _seconds(columns[table.arrival]) if table.dated else _floats(columns[table.arrival])
    return Requests(arrival, prompt, _whole(columns[table.output]), session=session, cached=cached)


def _split(header: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([header.lstrip("\ufeff")]), [])]


def _check_header(path: Path, header: Sequence[str], table: TableFormat) -> int:
    """Check the names of the columns and return the tokens of a block, 0 where the file has no blocks."""
    optional = [name for name in (table.session, _CACHED, _HIT_BLOCKS) if name]
    counts = [name for name in header if _BLOCK_COUNT.fullmatch(name)]
    for name in header:
        if table.strict and name not in (*table.required, *optional, *counts):
            names = (*table.required, *optional, "n_512tok_blocks")
            raise not_among(names, name, file=path, path="line 1: column")
        if header.count(name) > 1:
            raise InputError("each column once", file=path, path="line 1: column", given=name)
    missing = [name for name in table.required if name not in header]
    if missing:
        expected = f"the columns {', '.join(table.required)}"
        raise InputError(expected, file=path, path="line 1", given=f"no {', '.join(missing)}")
    if table.strict and _HIT_BLOCKS in header and len(counts) != 1:
        expected = "a column n_512tok_blocks, whose name has the tokens of a block"
        raise InputError(expected, file=path, path="line 1", given=_HIT_BLOCKS)
    match = _BLOCK_COUNT.fullmatch(counts[0]) if counts else None
    return max(int(match[1]), 1) if match else 0


def _read_columns(path: Path, header: Sequence[str], table: TableFormat) -> dict[str, pa.ChunkedArray]:
    """Return the used columns: times as seconds or timestamps, sessions as text, all others as float64."""
    used = [
        n
        for n in header
        if n in (*table.required, table.session) or (table.strict and n in (_CACHED, _HIT_BLOCKS))
    ]
    options = pacsv.ConvertOptions(
        column_types=dict.fromkeys(used, pa.string()), include_columns=used, strings_can_be_null=False
    )
    reading = pacsv.ReadOptions(column_names=list(header), skip_rows=1)
    try:
        text = pacsv.read_csv(path, read_options=reading, convert_options=options)
        columns = {name: pc.call_function("utf8_trim_whitespace", [text[name]]) for name in used}
        for name in used:
            if name == table.arrival and table.dated:
                columns[name] = _timestamps(columns[name])
            elif name != table.session:
                columns[name] = pc.cast(columns[name], pa.float64())
                _check_numbers(columns[name], whole=name != table.arrival)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _first_bad_row(path, header, used, table) or InputError(
            f"a CSV file ({' '.join(str(error).split())[:120]})", file=path
        ) from None
    if not len(text):
        raise InputError("at least one request", file=path, given="no row")
    return columns


def _timestamps(text: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.cast(text, pa.timestamp("ns"))
    except pa.ArrowInvalid:
        return pc.cast(text, pa.timestamp("ns", tz="UTC"))


def _check_numbers(values: pa.ChunkedArray, *, whole: bool) -> None:
    numbers = values.to_numpy()
    if not np.isfinite(numbers).all() or (whole and not _are_counts(numbers).all()):
        raise pa.ArrowInvalid("numbers out of range")


def _are_counts(numbers: np.ndarray) -> np.ndarray:
    return (numbers >= 0) & (numbers < 2.0**53) & (numbers == np.floor(numbers))


def _first_bad_row(
    path: Path, header: Sequence[str], used: Sequence[str], table: TableFormat
) -> InputError | None:
    """Return the error of the first row that does not parse."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            next(reader)
            for row in reader:
                line = f"line {reader.line_num}"
                if not row:
                    continue
                if len(row) != len(header):
                    raise InputError(
                        f"{len(header)} fields", file=path, path=line, given=f"{len(row)} fields"
                    )
                for name, word in zip(header, row, strict=True):
                    if name in used and name != table.session:
                        expected = _check_field(word.strip(), name, table)
                        if expected:
                            raise InputError(expected, file=path, path=f"{line}: {name}", given=word)
    except InputError as error:
        return error
    except (UnicodeDecodeError, csv.Error) as error:
        return InputError(f"a CSV file in UTF-8 ({error})", file=path)
    return None


def _check_field(word: str, name: str, table: TableFormat) -> str:
    """Return what was expected of a field that is wrong, "" for one that is right."""
    if name == table.arrival and table.dated:
        try:
            datetime.datetime.fromisoformat(word)
        except ValueError:
            return "a date with time, such as 2023-11-16 18:17:03.97996"
        return ""
    try:
        number = float(word) if "_" not in word else math.nan
    except ValueError:
        number = math.nan
    if name == table.arrival:
        return "" if math.isfinite(number) else "a number of seconds"
    return "" if bool(_are_counts(np.asarray(number))) else "a whole number of at least 0"


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy()


def _whole(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy().astype(np.int64)


def _seconds(column: pa.ChunkedArray) -> np.ndarray:
    """Return timestamps as seconds since the earliest."""
    nanoseconds = column.to_numpy().astype("datetime64[ns]").astype(np.int64)
    return (nanoseconds - nanoseconds.min()) / 1e9
