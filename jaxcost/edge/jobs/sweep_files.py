"""The files of a sweep: tables of results with units in their schema, tables of all designs, and the manifest."""

import concurrent.futures
import datetime
import io
import json
import platform
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxcost.edge.io.write import write_atomically
from jaxcost.edge.jobs.sweep_rows import axis_units, metric_unit, result_summary
from jaxcost.explore.space import Space, coordinates
from jaxcost.explore.sweep import FeasibilityCounts, GroupBest, Histogram, ParetoFront, Ranking

__all__ = [
    "DesignFile",
    "DesignFolder",
    "design_table",
    "result_table",
    "write_manifest",
    "write_results",
]

_PARTITIONS = ("system", "model")


def design_table(space: Space, metrics: Sequence[str], index: np.ndarray, values: np.ndarray) -> pa.Table:
    """Return a table of designs: index, system, model, one column for each path of an axis, metrics; with units."""
    units = axis_units(space)
    columns: dict[str, np.ndarray] = {"index": np.asarray(index)} | coordinates(space, index)
    columns |= {metric: values[:, j] for j, metric in enumerate(metrics)}
    arrays, fields = [], []
    for name, column in columns.items():
        text = column.dtype.kind in "US"
        array = pa.array(column)
        array = array.dictionary_encode() if text else array
        unit = "" if text else units.get(name, metric_unit(name) if name in metrics else "1")
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"unit": unit}))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def result_table(space: Space, result: Any) -> pa.Table | None:
    """Return a table of the result of a reducer, or None for a result of an unknown class."""
    if isinstance(result, Ranking | ParetoFront | GroupBest):
        return design_table(space, result.metrics, result.index, result.values)
    if isinstance(result, Histogram):
        unit = {"unit": metric_unit(result.metric)}
        fields = [pa.field("low", pa.float64(), metadata=unit), pa.field("high", pa.float64(), metadata=unit)]
        schema = pa.schema([*fields, pa.field("designs", pa.int64(), metadata={"unit": "1"})])
        edges = np.asarray(result.edges, np.float64)
        return pa.Table.from_arrays(
            [pa.array(x) for x in (edges[:-1], edges[1:], result.counts)], schema=schema
        )
    if isinstance(result, FeasibilityCounts):
        columns = {"margin": list(result.margins), "violated": result.violated, "alone": result.alone}
        count = {"unit": "1"}
        schema = pa.schema(
            [
                pa.field("margin", pa.string(), metadata={"unit": ""}),
                pa.field("violated", pa.int64(), metadata=count),
                pa.field("alone", pa.int64(), metadata=count),
            ]
        )
        return pa.table(columns, schema=schema)
    return None


def write_results(folder: Path, space: Space, results: Mapping[str, Any]) -> None:
    """Write a Parquet file of every result, and `results.json` with what the tables leave out."""
    for name, result in results.items():
        table = result_table(space, result)
        if table is not None:
            write_atomically(folder / f"{name}.parquet", _parquet(table))
    summaries = {name: result_summary(result) for name, result in results.items()}
    write_atomically(folder / "results.json", json.dumps(summaries, indent=2).encode() + b"\n")


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


def write_manifest(
    folder: Path,
    identity: Mapping[str, str],
    space: Space,
    metrics: Sequence[str],
    devices: Sequence[Any],
    about: Mapping[str, Any],
    seconds: float | None = None,
) -> None:
    """Write `manifest.json`: the space with its seeds, versions, devices, and the time it took."""
    manifest = {
        **about,
        "designs": space.size,
        "axes": dict(zip(space.names, space.shape, strict=True)),
        "units": {**axis_units(space), **{metric: metric_unit(metric) for metric in metrics}},
        "identity": identity,
        "versions": {name: _version(name) for name in ("jaxcost", "jax", "jaxlib", "numpy", "pyarrow")}
        | {"python": platform.python_version()},
        "commit": _commit(),
        "processes": jax.process_count(),
        "devices": [str(device) for device in devices],
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "finished": seconds is not None,
        "seconds": seconds,
    }
    write_atomically(folder / "manifest.json", json.dumps(manifest, indent=2, default=str).encode() + b"\n")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _commit() -> str | None:
    """Return the commit of the checkout that jaxcost runs from, with a plus if modified; None elsewhere."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=40"]
    try:
        output = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return output.stdout.strip()


class DesignFolder:
    """Writes every design of a sweep to `designs/system=.../model=.../block-....parquet`.

    A file contains the designs of one block with one system and model, and is named by the number of the block. A block
    that is evaluated again, after a crash, therefore overwrites its files with equal ones. A thread writes while the
    next block is evaluated.
    """

    def __init__(self, folder: Path, space: Space, metrics: tuple[str, ...]) -> None:
        """Prepare the writer; the first block creates folders."""
        self._folder, self._space, self._metrics = folder / "designs", space, metrics
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._pending: list[concurrent.futures.Future] = []

    def put(self, number: int, first: int, values: np.ndarray) -> None:
        """Start to write a block of designs from index `first` on, after the previous block is written."""
        self.flush()
        self._pending.append(self._pool.submit(self._write, number, first, values))

    def flush(self) -> None:
        """Wait until all blocks are written.

        Raises:
            OSError: a file could not be written.
        """
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        self.flush()
        self._pool.shutdown()

    def _write(self, number: int, first: int, values: np.ndarray) -> None:
        table = design_table(self._space, self._metrics, np.arange(first, first + len(values)), values)
        for names, part in _partition(table):
            folder = self._folder.joinpath(*names)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / f"block-{number:09}.parquet", _parquet(part))


def _partition(table: pa.Table) -> Iterator[tuple[list[str], pa.Table]]:
    codes = [table[name].combine_chunks() for name in _PARTITIONS]
    numbers = codes[0].indices.to_numpy() * len(codes[1].dictionary) + codes[1].indices.to_numpy()
    rest = table.drop_columns(list(_PARTITIONS))
    for number in np.unique(numbers):
        pair = divmod(int(number), len(codes[1].dictionary))
        values = [code.dictionary[i].as_py() for code, i in zip(codes, pair, strict=True)]
        names = [
            f"{name}={urllib.parse.quote(v, safe='')}" for name, v in zip(_PARTITIONS, values, strict=True)
        ]
        yield names, rest.filter(pa.array(numbers == number))


class DesignFile:
    """Writes every design of a sweep to one Parquet file."""

    def __init__(self, path: Path, space: Space, metrics: tuple[str, ...]) -> None:
        """Prepare the writer; the first block creates the file."""
        self._path, self._space, self._metrics = path, space, metrics
        self._writer: pq.ParquetWriter | None = None

    def put(self, number: int, first: int, values: np.ndarray) -> None:
        """Write a block of designs from index `first` on."""
        table = design_table(self._space, self._metrics, np.arange(first, first + len(values)), values)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)

    def flush(self) -> None:
        """Do nothing: blocks are written at once."""

    def close(self) -> None:
        """Write the footer of the file."""
        if self._writer is not None:
            self._writer.close()
