"""Import the tables of measured kernels of one chip from an installed `aiconfigurator-core` package.

The package (Apache-2.0) is not a dependency: `pip install aiconfigurator-core` brings its tables, parquet files in
`aiconfigurator_core/systems/data/<system>/<operator>/<library>/<version>/`. Only files of one system are opened.
"""

import dataclasses
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxcost.edge.catalog.parts import expanded
from jaxcost.edge.io.errors import InputError, not_among
from jaxcost.edge.measured.columns import FORMATS_OF_FILES, chip_name
from jaxcost.edge.measured.files import Refused, rows_of
from jaxcost.spec.measurement import Measurements

__all__ = ["import_tables", "systems"]

_PACKAGE = "aiconfigurator_core"
_INSTALL = "aiconfigurator-core"

_WORDS = {"NCCL": "nccl", "half": "float16"}  # names that the tables spell in two ways

Take = str | Callable[[dict[str, np.ndarray]], Any]


@dataclasses.dataclass(frozen=True)
class _Table:
    """The mapping from the columns of a table to those of a measurement file."""

    kind: str
    columns: dict[str, Take]


def _us(column: str = "latency") -> Take:
    return lambda table: table[column] * 1e3  # from milliseconds


def _keys(table: dict[str, np.ndarray]) -> np.ndarray:
    return table["isl"] + table["step"]


def _bytes(column: str) -> Take:
    size = {"half": 2, "float16": 2, "bfloat16": 2, "int8": 1, "fp8": 1, "float32": 4}

    def take(table: dict[str, np.ndarray]) -> np.ndarray:
        return table["message_size"] * np.array([size.get(word, 0) for word in table[column]])

    return take


def _worded(column: str) -> Take:
    return lambda table: np.array([_WORDS.get(word, word) for word in table[column]] + [None], object)[:-1]


def _attention(kind: str) -> _Table:
    return _Table(
        kind,
        {
            "kernel_source": "kernel_source",
            "attn_dtype": "attn_dtype",
            "kv_dtype": "kv_cache_dtype",
            "batch": "batch_size",
            "q_len": "isl",
            "kv_len": _keys,
            "heads": "num_heads",
            "kv_heads": "num_key_value_heads",
            "head_dim": "head_dim",
            "window_size": "window_size",
            "latency_us": _us(),
        },
    )


def _latent(kind: str, **more: Take) -> _Table:
    return _Table(
        "mla",
        {
            "kind": lambda table: np.full(len(table["isl"]), kind, object),
            "kernel_source": "kernel_source",
            "mla_dtype": "mla_dtype",
            "kv_dtype": "kv_cache_dtype",
            "batch": "batch_size",
            "q_len": "isl",
            "kv_len": _keys,
            "heads_local": "num_heads",
            "latency_us": _us(),
        }
        | more,
    )


def _exchange(phase: str, time: Take, impl: Take) -> _Table:
    # DeepEP sends inputs of experts in FP8 and returns outputs in BF16.
    word = "fp8" if phase == "dispatch" else "bfloat16"
    return _Table(
        "moe_alltoall",
        {
            "impl": impl,
            "phase": lambda table: np.full(len(table["hidden_size"]), phase, object),
            "comm_dtype": lambda table: np.full(len(table["hidden_size"]), word, object),
            "num_gpus": lambda table: table["node_num"] * 8,
            "node_num": "node_num",
            "hidden_size": "hidden_size",
            "topk": "num_topk",
            "num_experts": "num_experts",
            "num_tokens": "num_token",
            "latency_us": time,
        },
    )


def _normal(phase: str) -> _Table:
    return _exchange(
        phase,
        lambda table: table[f"{phase}_transmit_us"] + table[f"{phase}_notify_us"],
        lambda table: np.array([f"deepep_normal_sms{n}" for n in table[f"{phase}_sms"]] + [None], object)[
            :-1
        ],
    )


def _collective(dtype: str) -> _Table:
    return _Table(
        "collectives",
        {
            "impl": _worded("kernel_source"),
            "op": "op_name",
            "num_gpus": "num_gpus",
            "dtype": _worded(dtype),
            "bytes": _bytes(dtype),
            "latency_us": _us(),
        },
    )


# The mappings of each table; other tables are of work without a family here.
_TABLES: dict[str, tuple[_Table, ...]] = {
    "gemm_perf": (
        _Table(
            "gemm",
            {
                "kernel_source": "kernel_source",
                "dtype": "gemm_dtype",
                "m": "m",
                "n": "n",
                "k": "k",
                "latency_us": _us(),
            },
        ),
    ),
    "context_attention_perf": (_attention("attention_prefill"),),
    "generation_attention_perf": (_attention("attention_decode"),),
    "context_mla_perf": (_latent("prefill_kernel"),),
    "generation_mla_perf": (_latent("decode_kernel"),),
    "mla_context_module_perf": (_latent("prefill_module", gemm_type="gemm_type"),),
    "mla_generation_module_perf": (_latent("decode_module", gemm_type="gemm_type"),),
    "moe_perf": (
        _Table(
            "moe",
            {
                "kernel_source": "kernel_source",
                "moe_dtype": "moe_dtype",
                "num_tokens": "num_tokens",
                "hidden_size": "hidden_size",
                "inter_size": "inter_size",
                "topk": "topk",
                "num_experts": "num_experts",
                "moe_tp_size": "moe_tp_size",
                "moe_ep_size": "moe_ep_size",
                "distribution": "distribution",
                "latency_us": _us(),
            },
        ),
    ),
    "nccl_perf": (_collective("nccl_dtype"),),
    "custom_allreduce_perf": (_collective("allreduce_dtype"),),
    "wideep_deepep_ll_perf": tuple(
        _exchange(
            phase, f"{phase}_avg_t_us", lambda table: np.full(len(table["hidden_size"]), "deepep_ll", object)
        )
        for phase in ("dispatch", "combine")
    ),
    "wideep_deepep_normal_perf": (_normal("dispatch"), _normal("combine")),
    "moe_a2a_perf": (
        _Table(
            "moe_alltoall",
            {
                "impl": "comm_backend",
                "phase": "phase",
                "comm_dtype": "comm_dtype",
                "num_gpus": "ep_size",
                "node_num": "node_num",
                "hidden_size": "hidden_size",
                "topk": "topk",
                "num_experts": "num_experts",
                "num_tokens": "num_tokens",
                "latency_us": "latency",
            },
        ),
    ),
}

# Values of columns that older tables do not have.
_DEFAULTS: dict[str, Any] = {"window_size": 0, "step": 0}


def systems(root: Path | str | None = None) -> list[str]:
    """List the systems in the package, by its own names.

    Raises:
        InputError: the package is not installed, or `root` has no tables.
    """
    return sorted(path.name for path in _data(root).iterdir() if path.is_dir())


def import_tables(chip: str, root: Path | str | None = None) -> tuple[list[Measurements], list[Refused]]:
    """Read all tables of one chip, of every library and version.

    Args:
        chip: name of the chip in the catalogue or in the package.
        root: folder of the package or of its systems; None for the installed package.

    Returns:
        The rows of each table, with row numbers as lines; and the rejected rows with the reasons.

    Raises:
        InputError: the package is not installed, does not have the system, or a table does not have a column.
    """
    known = systems(root)
    system = next((s for s in known if chip in (s, chip_name(s)) or chip_name(chip) == chip_name(s)), None)
    if system is None:
        raise not_among(known, chip, file=_data(root))
    folder = _data(root) / system
    source, found, refused = _source(root), [], []
    for path in sorted(folder.glob("*/*/*/*.parquet")):
        table = None
        for form in _TABLES.get(path.stem, ()):
            table = _read(path) if table is None else table
            rows, bad = _rows(form, table, path, system, source)
            refused += bad
            if len(rows):
                found.append(rows)
    return found, refused


def _data(root: Path | str | None) -> Path:
    if root is None:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            expected = f"the package {_INSTALL} (pip install {_INSTALL}), or the folder of its tables"
            raise InputError(expected, given="neither")
        folders: Iterator[Path] = (
            Path(place) / "systems" / "data" for place in spec.submodule_search_locations
        )
    else:
        top = expanded(str(root))
        inside = (f"{_PACKAGE}/systems/data", "systems/data", "data", ".")
        folders = (top / place for place in inside)
    for folder in folders:
        if folder.is_dir():
            return folder
    raise InputError(f"a folder of {_INSTALL}, with systems/data in it", given=str(root or _PACKAGE))


def _source(root: Path | str | None) -> str:
    """Return the name of the package, with its version where known."""
    if root is None:
        try:
            return f"{_INSTALL}-{importlib.metadata.version(_INSTALL)}"
        except importlib.metadata.PackageNotFoundError:
            pass
    return _INSTALL


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"a parquet table ({' '.join(str(error).split())})", file=path) from None
    columns = {name: table[name].to_numpy() for name in table.column_names}
    return {name: np.full(table.num_rows, word) for name, word in _DEFAULTS.items()} | columns


def _rows(
    form: _Table, table: dict[str, np.ndarray], path: Path, system: str, source: str
) -> tuple[Measurements, list[Refused]]:
    count = len(next(iter(table.values())))
    try:
        taken = {
            name: table[take] if isinstance(take, str) else take(table) for name, take in form.columns.items()
        }
    except KeyError as error:
        expected = f"the columns of {_INSTALL} 0.12"
        raise InputError(expected, file=path, given=f"no column {error.args[0]}") from None
    *_, library, version, _ = path.parts
    whole = {"source": source, "gpu": system, "backend": library, "backend_version": version}
    columns = {name: np.asarray(column).tolist() for name, column in taken.items()}
    columns |= {name: [word] * count for name, word in whole.items()}
    columns = {name: words for name, words in columns.items() if name in FORMATS_OF_FILES[form.kind].columns}
    return rows_of(FORMATS_OF_FILES[form.kind], columns, np.arange(1, count + 1), file=str(path))
