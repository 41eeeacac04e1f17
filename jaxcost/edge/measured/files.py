"""Read and write measurement files; invalid rows are rejected with their line and the reason."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxcost.edge.catalog.parts import expanded
from jaxcost.edge.io.errors import InputError, nearest, not_among
from jaxcost.edge.io.write import write_atomically
from jaxcost.edge.measured.columns import FORMATS_OF_FILES, UNITS, Column, FileFormat, chip_name, format_of
from jaxcost.spec.measurement import FAMILIES, Measurements, concatenate

__all__ = ["Refused", "read_measured", "rows_of", "write_measured"]


class Refused(NamedTuple):
    """A rejected row: its file, its line counted from 1, and the reason."""

    file: str
    line: int
    reason: str


def read_measured(
    folder: Path | str, chips: Collection[str] | None = None
) -> tuple[dict[str, list[Measurements]], list[Refused]]:
    """Read the measurements of a folder, or of one file.

    The stem of a file names its kind: `gemm`, `attention_decode`, `attention_prefill`, `mla`, `moe`, `collectives`,
    `moe_alltoall` or `e2e`, optionally followed by `_` and anything; its suffix is `.csv`. A folder may have any of
    them. `docs/measurements.md` lists the columns.

    Args:
        folder: the folder, or a file.
        chips: names of chips in the catalogue or in the files, whose rows are read; None for all.

    Returns:
        The measurements of each file by family, ordered by file name; and the rejected rows with the reasons.

    Raises:
        InputError: the folder or file does not exist, columns are missing or unknown, or no row is of a chip.
    """
    found, refused, seen = {}, [], set()
    wanted = None if chips is None else {chip_name(chip): chip for chip in chips}
    for path, kind in _files(expanded(str(folder))):
        measurements, bad, here = _read(path, FORMATS_OF_FILES[kind], wanted)
        refused += bad
        seen |= here
        if len(measurements):
            found.setdefault(measurements.family, []).append(measurements)
    for name, given in (wanted or {}).items():
        if name not in seen:
            raise not_among(sorted(seen), given, file=folder, path="gpu")
    return found, refused


def _files(folder: Path) -> list[tuple[Path, str]]:
    if folder.is_dir():
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".csv")
        if not paths:
            expected = "files among " + ", ".join(f"{kind}.csv" for kind in FORMATS_OF_FILES)
            raise InputError(expected, file=folder, given="no CSV file")
    elif folder.is_file():
        paths = [folder]
    else:
        raise InputError("a folder of measurements, or a CSV file", given=str(folder))
    kinds = []
    for path in paths:
        kind = format_of(path.stem)
        if kind is None:
            close = nearest(path.stem, FORMATS_OF_FILES)
            raise InputError(
                "a name that starts with one of " + ", ".join(FORMATS_OF_FILES),
                file=path.parent,
                given=path.name,
                suggestion=f"{close}.csv" if close else None,
            )
        kinds.append((path, kind))
    return kinds


def _read(
    path: Path, format_: FileFormat, chips: Collection[str] | None
) -> tuple[Measurements, list[Refused], set[str]]:
    """Read one file; return its rows, the rejected rows, and the names of all its chips."""
    header, rows, lines, refused = _table(path, format_)
    place = {name: i for i, name in enumerate(header)}
    words = [chip_name(row[place["gpu"]]) for row in rows]
    keep = [i for i, chip in enumerate(words) if chips is None or chip in chips]
    columns = {name: [rows[i][at] for i in keep] for name, at in place.items()}
    measurements, bad = rows_of(format_, columns, np.asarray([lines[i] for i in keep]), file=str(path))
    return measurements, sorted(refused + bad), set(words)


def _table(path: Path, format_: FileFormat) -> tuple[list[str], list[list[str]], list[int], list[Refused]]:
    rows: list[list[str]] = []
    lines: list[int] = []
    refused: list[Refused] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            _check_header(header, format_, path)
            before = reader.line_num
            for row in reader:
                line, before = before + 1, reader.line_num
                if len(row) == len(header):
                    rows.append([word.strip() for word in row])
                    lines.append(line)
                elif row:
                    reason = f"got {len(row)} fields; expected {len(header)}"
                    refused.append(Refused(str(path), line, reason))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"a CSV file ({' '.join(str(error).split())})", file=path) from None
    return header, rows, lines, refused


def _check_header(header: list[str], format_: FileFormat, path: Path) -> None:
    if not any(header):
        raise InputError("a header that names the columns", file=path, path="line 1")
    required = [name for name, column in format_.columns.items() if column.default is None]
    for name in header:
        if name not in format_.columns:
            # An unknown name is most likely a misspelling of a missing column.
            close = nearest(name, [n for n in required if n not in header])
            error = not_among(format_.columns, name, file=path, path="line 1: column")
            if close:
                error = InputError(error.expected, file=path, path=error.path, given=name, suggestion=close)
            raise error
        if header.count(name) > 1:
            raise InputError("each column once", file=path, path="line 1: column", given=name)
    missing = [name for name in required if name not in header]
    if missing:
        expected = f"the columns {', '.join(required)}"
        raise InputError(expected, file=path, path="line 1", given=f"no {', '.join(missing)}")


def rows_of(
    format_: FileFormat, columns: Mapping[str, Sequence[str | float]], lines: np.ndarray, *, file: str
) -> tuple[Measurements, list[Refused]]:
    """Convert columns of fields to measurements, and reject rows with invalid fields.

    Args:
        format_: the kind of the file.
        columns: strings or numbers by name of column, of equal lengths.
        lines: line of each row.
        file: name of the file.

    Returns:
        The valid rows, and the rejected rows with the reasons.
    """
    count = len(lines)
    reasons: dict[int, str] = {}
    work: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {
        name: np.full(count, word, object) for name, word in format_.labels.items()
    }
    for name, column in format_.columns.items():
        words = columns.get(name, [column.default or ""] * count)
        table, wrong = {}, {}
        for word in set(words):
            given = column.default or "" if word is None or word == "" else str(word)
            try:
                if not given and column.default is None:
                    raise ValueError("got nothing; expected a value")
                table[word] = column.read(given)
            except ValueError as error:
                wrong[word] = f"{name}: {error}"
        if wrong:
            for row, word in enumerate(words):
                if word in wrong:
                    reasons.setdefault(row, wrong[word])
        for j, to in enumerate(column.to):
            if to.startswith("="):
                values = {word: value[j] for word, value in table.items()}
                labels[to[1:]] = np.array([values.get(word, "") for word in words] + [None], object)[:-1]
            else:
                numbers = {word: value[j] for word, value in table.items()}
                work[to] = np.array([numbers.get(word, np.nan) for word in words], dtype=np.float64)
    _finish(format_, work, labels)
    for expected, holds in format_.rules:
        for row in np.flatnonzero(~holds(work)):
            reasons.setdefault(int(row), f"expected {expected}")
    keep = np.array([row not in reasons for row in range(count)], dtype=bool)
    seconds = work.pop("seconds")
    sources = dict.fromkeys(word for word in labels["source"][keep].tolist() if word)
    measurements = Measurements(
        family=format_.family,
        work={name: work[name] for name in FAMILIES[format_.family]},
        seconds=seconds,
        labels=labels,
        source=", ".join(sources),
        file=file,
        line=np.asarray(lines, dtype=np.int64),
    ).where(keep)
    return measurements, [Refused(file, int(lines[row]), reasons[row]) for row in sorted(reasons)]


def _finish(format_: FileFormat, work: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> None:
    """Fill the columns that depend on several columns of the file."""
    if format_.family == "latent_attention":
        work["module"] = np.array([float(str(kind).endswith("_module")) for kind in labels["kind"]])
    if format_.family == "all_to_all":
        # Outputs of experts return in 16 bits; the precision in the file is that of their inputs.
        work["bits"] = np.where(labels["phase"] == "combine", 16.0, work["bits"])
    if format_.family == "serving":
        units = [UNITS.get(str(word), (1.0, "")) for word in labels["unit"]]
        work["seconds"] = work["seconds"] * np.array([factor for factor, _ in units])
        labels["unit"] = np.array([unit for _, unit in units] + [None], object)[:-1]


def write_measured(measurements: Sequence[Measurements], folder: Path | str) -> list[Path]:
    """Write measurements as files for `read_measured`, one for each kind of file.

    Returns:
        The paths of the files.

    Raises:
        InputError: a file exists already, or cannot be written.
        ValueError: rows do not have a label that their file requires.
    """
    folder = expanded(str(folder))
    parts: dict[str, list[Measurements]] = {}
    for one in measurements:
        for kind, format_ in FORMATS_OF_FILES.items():
            if format_.family == one.family:
                rows = one.select(**format_.labels) if format_.labels else one
                if len(rows):
                    parts.setdefault(kind, []).append(rows)
    paths = {kind: folder / f"{kind}.csv" for kind in parts}
    for path in paths.values():
        if path.exists():
            raise InputError("a folder without that file", file=path, given="a file that exists already")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, path in paths.items():
            text = _text(FORMATS_OF_FILES[kind], concatenate(parts[kind]))
            write_atomically(path, text.encode())
    except OSError as error:
        raise InputError(f"a folder to write to ({error.strerror})", given=str(folder)) from None
    return list(paths.values())


def _text(format_: FileFormat, rows: Measurements) -> str:
    written = {name: _words(name, column, rows) for name, column in format_.columns.items() if column.to}
    known = {name: words for name, words in written.items() if words is not None}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(known)
    writer.writerows(zip(*known.values(), strict=True))
    return buffer.getvalue()


def _words(name: str, column: Column, rows: Measurements) -> list[str] | None:
    """Return a column as the fields it was read from; None for an optional column whose label the rows do not have."""
    if column.to[0] == "seconds":
        factor = 1e6 if name == "latency_us" else 1.0
        return [repr(float(value * factor)) for value in rows.seconds]
    labels = [to[1:] for to in column.to if to.startswith("=")]
    if labels and labels[0] not in rows.labels:
        if column.default is None:
            raise ValueError(f"rows of {rows.family} without the label {labels[0]!r}")
        return None
    words = [str(word) for word in rows.labels[labels[0]]] if labels else [""] * len(rows)
    if labels and not column.numbers:
        return words
    values = rows.work[column.to[0]]
    numbers = ["" if np.isnan(value) else f"{value:.17g}" for value in values]
    return [word or number for word, number in zip(words, numbers, strict=True)]
