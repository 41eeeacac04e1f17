"""The columns of measurement files: their meaning, their values, and the rules that rows must satisfy."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable

import numpy as np

from jaxcost.edge.catalog.parts import chip_of_alias, list_names
from jaxcost.edge.io.errors import nearest
from jaxcost.edge.io.formats import FORMATS

__all__ = [
    "COLLECTIVES",
    "FORMATS_OF_FILES",
    "PRECISIONS",
    "UNITS",
    "Column",
    "FileFormat",
    "chip_name",
    "format_of",
    "precision_bits",
]

_INT4 = 4 + 16 / 128  # a 16-bit scale per group of 128, as GPTQ, AWQ and Marlin store it
_MXFP4 = FORMATS["mxfp4"]

# Bits of a stored weight, and of an operand in the engine. Scales per block of 128 x 128 or per row are neglected, as
# they are below a thousandth.
PRECISIONS: dict[str, tuple[float, float]] = {
    "float32": (32.0, 32.0),
    "bfloat16": (16.0, 16.0),
    "float16": (16.0, 16.0),
    "half": (16.0, 16.0),
    "bf16": (16.0, 16.0),
    "fp16": (16.0, 16.0),
    "fp16/bf16": (16.0, 16.0),
    "fp8": (8.0, 8.0),
    "fp8_block": (8.0, 8.0),
    "int8": (8.0, 8.0),
    "sq": (8.0, 8.0),  # SmoothQuant: 8-bit integers on both sides
    "int8_wo": (8.0, 16.0),
    "int4_wo": (_INT4, 16.0),
    "w4afp8": (_INT4, 8.0),
    "fp4": (_MXFP4, 16.0),  # as engines serve it on chips without 4-bit engines
    "mxfp4": (_MXFP4, 16.0),
    "w4a16_mxfp4": (_MXFP4, 16.0),
    "w4a8_mxfp4_mxfp8": (_MXFP4, FORMATS["mxfp8"]),
    "nvfp4": (FORMATS["nvfp4"], FORMATS["nvfp4"]),
}

# Units of a served value: the factor to SI, and the name of the SI unit.
UNITS: dict[str, tuple[float, str]] = {
    "s": (1.0, "s"),
    "ms": (1e-3, "s"),
    "us": (1e-6, "s"),
    "tok/s": (1.0, "token/s"),
    "token/s": (1.0, "token/s"),
    "tok/s/gpu": (1.0, "token/s/chip"),
    "token/s/chip": (1.0, "token/s/chip"),
}

COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send_recv", "broadcast")
_COLLECTIVE_WORDS = {name: name for name in COLLECTIVES} | {"alltoall": "all_to_all"}
_LATENT_KINDS = ("decode_kernel", "prefill_kernel", "decode_module", "prefill_module")

# Names of chips in other catalogues.
_CHIPS = {"a100_sxm": "a100-80gb-sxm", "a100_dgx": "a100-80gb-sxm"}
_LIBRARIES = {"tensorrt-llm": "trtllm"}


@functools.lru_cache(maxsize=1024)
def chip_name(word: str) -> str:
    """Return the catalogue's name of a chip, or the word itself for a chip that is not in the catalogue."""
    word = word.strip()
    if word in _CHIPS:
        return _CHIPS[word]
    name = word.lower().replace("_", "-")
    chip = chip_of_alias(name)
    return chip if chip in list_names("chips") else word


def precision_bits(word: str) -> tuple[float, float]:
    """Return the bits of a stored weight and of an operand for the name of a precision.

    Raises:
        ValueError: an unknown name.
    """
    name = word.strip().lower()
    if name not in PRECISIONS:
        raise ValueError(_expected("one of " + ", ".join(PRECISIONS), word, PRECISIONS))
    return PRECISIONS[name]


def _expected(what: str, given: str, among: Iterable[str] = ()) -> str:
    close = nearest(given, among)
    return f"got {given[:80]!r}; expected {what}" + (f"; did you mean {close!r}?" if close else "")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a file.

    Attributes:
        to: names of the columns of work, and of labels with a leading "=", that it fills.
        read: function that converts a field to one value for each of these.
        default: field where the file does not have the column or the field is empty; None for a required column.
        numbers: whether the label has only the fields that are not numbers, such as "max_load".
    """

    to: tuple[str, ...]
    read: Callable[[str], tuple[float | str, ...]]
    default: str | None = None
    numbers: bool = False


def _number(word: str, least: float, *, whole: bool, open_below: bool = False) -> float:
    bound = f"{'above' if open_below else 'of at least'} {least:g}"
    what = f"a {'whole ' if whole else ''}number {bound}"
    try:
        value = float(word)
    except ValueError:
        raise ValueError(_expected(what, word)) from None
    low = value <= least if open_below else value < least
    if not math.isfinite(value) or low or (whole and value != round(value)):
        raise ValueError(_expected(what, word))
    return value


def _count(to: str, default: str | None = None, *, least: float = 1) -> Column:
    return Column((to,), lambda word: (_number(word, least, whole=True),), default)


def _maybe(to: str) -> Column:
    """Return a column of an optional count; nan where it is empty."""
    return Column((to,), lambda word: (_number(word, 1, whole=True) if word else math.nan,), "")


def _label(to: str) -> Column:
    return Column(("=" + to,), lambda word: (word,), "")


def _choice(to: str, words: Iterable[str]) -> Column:
    table = words if isinstance(words, dict) else {word: word for word in words}

    def read(word: str) -> tuple[str]:
        if word not in table:
            raise ValueError(_expected("one of " + ", ".join(table), word, table))
        return (table[word],)

    return Column(("=" + to,), read)


def _precision(label: str, weights: str = "", operands: str = "", default: str | None = None) -> Column:
    """Return a column of a precision; its bits are nan where it is empty."""
    to = tuple(name for name in (weights, operands) if name)

    def read(word: str) -> tuple[float | str, ...]:
        bits = precision_bits(word) if word else (math.nan, math.nan)
        both = {weights: bits[0], operands: bits[1]}
        return (*(both[name] for name in to), word)

    return Column((*to, "=" + label), read, default)


def _projections(word: str) -> tuple[float | str, ...]:
    return (precision_bits(word)[0] if word else 0.0), word


def _wire(word: str) -> tuple[float | str, ...]:
    return (math.nan if word in ("", "default") else precision_bits(word)[0]), word


def _skew(word: str) -> tuple[float | str, ...]:
    if word == "balanced":
        return 0.0, word
    match = re.fullmatch(r"power_law_(\d+(?:\.\d+)?)", word)
    if match is None:
        raise ValueError(_expected("balanced or power_law_<exponent>", word, ("balanced", "power_law_1.2")))
    return float(match[1]), word


def _concurrency(word: str) -> tuple[float | str, ...]:
    if word == "max_load":
        return math.nan, word
    return (_number(word, 1, whole=True) if word else math.nan), ""


def _kernel(word: str) -> tuple[str, str]:
    # Vidur labels its rows `model:operator:tpN`.
    parts = word.split(":")
    return word, parts[0] if len(parts) == 3 and re.fullmatch(r"tp\d+", parts[2]) else ""


def _library(word: str) -> str:
    name = word.lower()
    return _LIBRARIES.get(name, name)


_COMMON = {
    "source": _label("source"),
    "gpu": Column(("=chip",), lambda word: (chip_name(word),)),
    "backend": Column(("=library",), lambda word: (_library(word),), ""),
    "backend_version": _label("version"),
}
_SECONDS = {
    "latency_us": Column(("seconds",), lambda word: (_number(word, 0, whole=False, open_below=True) * 1e-6,))
}
_IGNORED = Column((), lambda word: (), "")
_HEADS = {
    "heads": _count("heads"),
    "kv_heads": _count("kv_heads"),
    "head_dim": _count("head_dim"),
    "window_size": _count("window", "0", least=0),
    "attn_dtype": _precision("precision", operands="compute_bits", default="bfloat16"),
    "kv_dtype": _precision("kv_precision", weights="kv_bits", default="bfloat16"),
    "kernel_source": _label("kernel"),
    "flag": _IGNORED,
}

Rule = tuple[str, Callable[[dict[str, np.ndarray]], np.ndarray]]
_NO_FEWER_KEYS: Rule = ("kv_len of at least q_len", lambda w: w["keys"] >= w["queries"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileFormat:
    """A kind of file: its family, its columns by name, rules for its rows, and labels of all its rows."""

    family: str
    columns: dict[str, Column]
    rules: tuple[Rule, ...] = ()
    labels: dict[str, str] = dataclasses.field(default_factory=dict)


FORMATS_OF_FILES: dict[str, FileFormat] = {
    "gemm": FileFormat(
        family="matmul",
        columns=_COMMON
        | {
            "kernel_source": Column(("=kernel", "=model"), _kernel, ""),
            "dtype": _precision("precision", "weight_bits", "activation_bits"),
            "m": _count("rows"),
            "n": _count("columns"),
            "k": _count("inner"),
            "flag": _IGNORED,
        }
        | _SECONDS,
    ),
    "attention_decode": FileFormat(
        family="attention",
        columns=_COMMON
        | {"batch": _count("sequences"), "q_len": _count("queries", "1"), "kv_len": _count("keys")}
        | _HEADS
        | _SECONDS,
        rules=(_NO_FEWER_KEYS, ("heads of at least kv_heads", lambda w: w["heads"] >= w["kv_heads"])),
        labels={"phase": "decode"},
    ),
    "attention_prefill": FileFormat(
        family="attention",
        columns=_COMMON
        | {"batch": _count("sequences"), "q_len": _count("queries"), "kv_len": _count("keys")}
        | _HEADS
        | _SECONDS,
        rules=(_NO_FEWER_KEYS, ("heads of at least kv_heads", lambda w: w["heads"] >= w["kv_heads"])),
        labels={"phase": "prefill"},
    ),
    "mla": FileFormat(
        family="latent_attention",
        columns=_COMMON
        | {
            "kind": _choice("kind", _LATENT_KINDS),
            "kernel_source": _label("kernel"),
            "mla_dtype": _precision("precision", operands="compute_bits", default="bfloat16"),
            "kv_dtype": _precision("kv_precision", weights="kv_bits", default="bfloat16"),
            "gemm_type": Column(("projection_bits", "=projection_precision"), _projections, ""),
            "batch": _count("sequences"),
            "q_len": _count("queries"),
            "kv_len": _count("keys"),
            "heads_local": _count("heads"),
        }
        | _SECONDS,
        rules=(
            _NO_FEWER_KEYS,
            (
                "a gemm_type of a module, and none of a kernel",
                lambda w: (w["projection_bits"] > 0) == (w["module"] > 0),
            ),
        ),
    ),
    "moe": FileFormat(
        family="mixture",
        columns=_COMMON
        | {
            "kernel_source": _label("kernel"),
            "moe_dtype": _precision("precision", "weight_bits", "activation_bits"),
            "shape_of_model": _label("model"),
            "num_tokens": _count("tokens"),
            "hidden_size": _count("hidden"),
            "inter_size": _count("width"),
            "topk": _count("top_k"),
            "num_experts": _count("experts"),
            "moe_tp_size": _count("tensor_parallel", "1"),
            "moe_ep_size": _count("expert_parallel", "1"),
            "distribution": Column(("skew", "=distribution"), _skew, "balanced"),
        }
        | _SECONDS,
        rules=(("topk of at most num_experts", lambda w: w["top_k"] <= w["experts"]),),
    ),
    "collectives": FileFormat(
        family="collective",
        columns=_COMMON
        | {
            "impl": _label("kernel"),
            "op": _choice("op", _COLLECTIVE_WORDS),
            "num_gpus": _count("ranks", least=2),
            "dtype": _precision("precision", default=""),
            "bytes": _count("bytes"),
        }
        | _SECONDS,
    ),
    "moe_alltoall": FileFormat(
        family="all_to_all",
        columns=_COMMON
        | {
            "impl": _label("kernel"),
            "phase": _choice("phase", ("dispatch", "combine")),
            "comm_dtype": Column(("bits", "=precision"), _wire, ""),
            "num_gpus": _count("ranks", least=2),
            "node_num": Column(("=nodes",), lambda word: (f"{_number(word, 1, whole=True):.0f}",), "1"),
            "hidden_size": _count("hidden"),
            "topk": _count("top_k"),
            "num_experts": _count("experts"),
            "num_tokens": _count("tokens"),
        }
        | _SECONDS,
        rules=(("topk of at most num_experts", lambda w: w["top_k"] <= w["experts"]),),
    ),
    "e2e": FileFormat(
        family="serving",
        columns={
            "source": _label("source"),
            "model": _label("model"),
            "gpu": _COMMON["gpu"],
            "num_gpus": _count("chips"),
            "tp": _count("tp", "1"),
            "pp": _count("pp", "1"),
            "ep": _maybe("ep"),
            "attn_dp": _maybe("attention_dp"),
            "mode": _label("mode"),
            "dtype_weights": _precision("precision", weights="weight_bits", default=""),
            "dtype_kv": _precision("kv_precision", weights="kv_bits", default=""),
            "engine": Column(("=engine", "=library"), lambda word: (word, _library(word)), ""),
            "engine_version": _label("version"),
            "input_len": _count("input"),
            "output_len": _count("output"),
            "concurrency": Column(("concurrency", "=load"), _concurrency, "", numbers=True),
            "batch_per_replica": Column(
                ("batch",),
                lambda word: (_number(word, 0, whole=False, open_below=True) if word else math.nan,),
                "",
            ),
            "metric": _label("metric"),
            "value": Column(("seconds",), lambda word: (_number(word, 0, whole=False, open_below=True),)),
            "unit": _choice("unit", tuple(UNITS)),
            "quality": _label("quality"),
            "notes": _label("notes"),
            "citation": _label("citation"),
        },
    ),
}


def format_of(stem: str) -> str | None:
    """Return the kind of a file by its stem: `gemm`, or `gemm_` followed by anything; None for other stems."""
    fitting = [kind for kind in FORMATS_OF_FILES if stem == kind or stem.startswith(kind + "_")]
    return max(fitting, key=len, default=None)
