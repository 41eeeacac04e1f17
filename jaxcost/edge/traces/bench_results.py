"""Results of replays under the names of `vllm bench serve`, and results of that tool, to compare with them.

Names are those of `vllm bench serve --save-result --save-detailed` of vLLM 0.33: summary keys such as `p99_ttft_ms`,
and lists of the requests such as `ttfts`, in s. Numbers that vLLM does not have are named by the same pattern.
"""

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.write import write_atomically
from jaxcost.edge.traces.json_files import read_bench_result, read_records
from jaxcost.explore.replay import Replay
from jaxcost.spec.trace import Trace

__all__ = [
    "COMPARED",
    "RESULT_SUFFIXES",
    "bench_summary",
    "compare_results",
    "read_bench_file",
    "request_columns",
    "save_replay",
    "trace_of_result",
]

RESULT_SUFFIXES = (".parquet", ".json")
_METRICS = {"ttft": "ttft", "tpot": "tpot", "itl": "itl", "e2e": "e2el", "queueing": "server_queue_time"}
_PERCENTILES = (50, 90, 95, 99)
_STATISTICS = ("mean", "median", "p99")
COMPARED = (
    *(f"{statistic}_{metric}_ms" for metric in ("ttft", "tpot", "itl", "e2el") for statistic in _STATISTICS),
    *("request_throughput", "output_throughput", "total_token_throughput", "duration", "completed"),
)
_REJECTED = "rejected: larger than the KV cache"
_ITLS = "itls: the longest gap of a request, then equal ones with the right sum; percentiles of itl are of all gaps"


def bench_summary(
    result: Replay, *, ttft_target: float = 0.0, tpot_target: float = 0.0
) -> dict[str, float | int | None]:
    """Return the statistics of a replay of one design by the summary keys of `vllm bench serve`.

    Latencies are in ms, throughputs in 1/s. `request_goodput` is None without a target, and a number that does not
    exist, such as the TPOT of requests of one token, is left out.

    Args:
        result: the replay.
        ttft_target: limit of the time to first token for goodput, s, 0 for none.
        tpot_target: limit of the time per output token, s, 0 for none.
    """
    served = ~result.rejected
    duration, completed = float(result.duration), int(result.completed)
    inputs, outputs = int(result.prompt[served].sum()), int(result.output_tokens)
    limits = {"ttft": ttft_target or math.inf, "tpot": tpot_target or math.inf}
    has_target = ttft_target > 0 or tpot_target > 0
    summary: dict[str, float | int | None] = {
        "duration": duration,
        "completed": completed,
        "failed": len(served) - completed,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": completed / duration,
        "request_goodput": float(result.goodput(**limits)) if has_target else None,
        "output_throughput": outputs / duration,
        "total_token_throughput": (inputs + outputs) / duration,
        "max_concurrent_requests": _most_outstanding(result),
    }
    for metric, name in _METRICS.items():
        if not _has_values(result, metric):
            continue
        summary[f"mean_{name}_ms"] = 1e3 * _mean(result, metric)
        summary[f"median_{name}_ms"] = 1e3 * float(result.percentile(metric, 50))
        if metric != "itl":
            summary[f"std_{name}_ms"] = 1e3 * float(np.nanstd(getattr(result, metric)[served]))
        for q in _PERCENTILES:
            summary[f"p{q}_{name}_ms"] = 1e3 * float(result.percentile(metric, q))
    return summary


def _mean(result: Replay, metric: str) -> float:
    """Return a mean; that of "itl" is over steps, which emit several tokens of a request where drafts are accepted."""
    if metric != "itl":
        return float(result.mean(metric))
    return float(np.nansum(result.finish - result.first) / max(float(np.sum(result.gap_counts)), 1.0))


def _has_values(result: Replay, metric: str) -> bool:
    if metric in ("tpot", "itl"):
        return bool(((result.output > 1) & ~result.rejected).any())
    return bool((~result.rejected).any())


def _most_outstanding(result: Replay) -> int:
    """Return the most requests that have arrived and are not finished at a time."""
    served = ~result.rejected
    times = np.concatenate([result.finish[served], result.arrival[served]])
    change = np.concatenate([np.full(served.sum(), -1), np.full(served.sum(), 1)])
    # At equal times a request leaves before the next one comes, as in a closed loop.
    return int(np.cumsum(change[np.argsort(times, kind="stable")]).max(initial=0))


def request_columns(result: Replay) -> dict[str, np.ndarray]:
    """Return the columns of the requests of one design: the lists of `vllm bench serve`, and more; times in s.

    A rejected request has no output tokens, and times of NaN.
    """
    return {
        "input_lens": result.prompt,
        "output_lens": np.where(result.rejected, 0, result.output),
        "start_times": result.arrival,
        "ttfts": result.ttft,
        "tpots": result.tpot,
        "latencies": result.e2e,
        "server_queue_times": result.queueing,
        "longest_itls": np.where(result.rejected, np.nan, result.longest_gap),
        "preemptions": result.preemptions,
        "cached_tokens": result.cached,
        "replicas": result.replica,
        "rejected": result.rejected,
    }


def save_replay(
    path: Path, result: Replay, summary: Mapping[str, Any], about: Mapping[str, Any], option: str = "--out"
) -> None:
    """Write a replay of one design: the requests, and the summary with what describes the run.

    `.parquet`: one row a request, the columns of `request_columns`, null where a request has no such time; the summary
    is in the metadata of the schema, each value as JSON. `.json`: as `vllm bench serve --save-detailed` writes.

    Raises:
        InputError: the file cannot be written.
    """
    columns = request_columns(result)
    content = _as_parquet if path.suffix == ".parquet" else _as_json
    try:
        write_atomically(path, content(columns, {**about, **summary}))
    except OSError as error:
        raise InputError(
            f"a file that can be written ({error.strerror})", path=option, given=str(path)
        ) from None


def _as_parquet(columns: Mapping[str, np.ndarray], summary: Mapping[str, Any]) -> bytes:
    arrays, fields = [], []
    for name, column in columns.items():
        array = pa.array(column, from_pandas=True)  # NaN is null
        unit = "s" if column.dtype.kind == "f" else "token" if name.endswith(("lens", "tokens")) else "1"
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"unit": unit}))
    metadata = {name: json.dumps(value, allow_nan=False) for name, value in summary.items()}
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata)), out, compression="zstd")
    return out.getvalue()


def _as_json(columns: Mapping[str, np.ndarray], summary: Mapping[str, Any]) -> bytes:
    rejected = columns["rejected"]
    lists = {name: _finite(column) for name, column in columns.items()}
    lists["itls"] = [
        _gaps(*request)
        for request in zip(*(lists[n] for n in ("output_lens", "tpots", "longest_itls")), strict=True)
    ]
    lists["errors"] = [_REJECTED if failed else "" for failed in rejected.tolist()]
    lists["generated_texts"] = [""] * len(rejected)
    return json.dumps({**summary, "note": _ITLS, **lists}, allow_nan=False).encode() + b"\n"


def _finite(column: np.ndarray) -> list[Any]:
    """Return a list with 0 for NaN, which failed requests have in results of vLLM."""
    return (np.nan_to_num(column) if column.dtype.kind == "f" else column).tolist()


def _gaps(output: int, tpot: float, longest: float) -> list[float]:
    """Return the times between the tokens of a request, of which the longest and the sum are known."""
    if output <= 2:
        return [tpot] * (output - 1)
    longest = max(longest, tpot)
    rest = max(tpot * (output - 1) - longest, 0.0) / (output - 2)
    return [round(longest, 9), *([round(rest, 9)] * (output - 2))]


def read_bench_file(path: Path) -> dict[str, Any]:
    """Read a result of `vllm bench serve`, or of a replay that was saved: summary keys and lists by name.

    Raises:
        InputError: there is no such file, or it is no such result.
    """
    if not path.is_file():
        raise InputError("a result of vllm bench serve", path="--compare", given=str(path))
    if path.suffix == ".parquet":
        result = _read_parquet(path)
    else:
        records = read_records(path)
        if len(records) > 1:
            raise InputError("one result of vllm bench serve", file=path, given=f"{len(records)} results")
        result = dict(records[0][1])
    if not {"mean_ttft_ms", "request_throughput", "ttfts"} & result.keys():
        expected = "a result of vllm bench serve, with mean_ttft_ms, request_throughput or ttfts"
        raise InputError(expected, file=path, given=f"only {', '.join(list(result)[:8])}")
    return result


def _read_parquet(path: Path) -> dict[str, Any]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        raise InputError("a Parquet file", file=path) from None
    metadata = {
        name.decode(): json.loads(value)
        for name, value in (table.schema.metadata or {}).items()
        if not name.startswith((b"ARROW", b"pandas"))
    }
    return metadata | {name: table[name].to_pylist() for name in table.column_names}


def trace_of_result(path: Path, result: Mapping[str, Any]) -> tuple[Trace, int]:
    """Return the requests of a result as a trace, and the most that it had at a time, 0 without such a limit.

    With a limit, when a request starts depends on the server: the requests then arrive all at once, or at equal gaps
    where the result states a rate.

    Raises:
        InputError: the result has no lists of lengths, or a value of it is not valid.
    """
    concurrency = result.get("max_concurrency") or 0
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 0:
        raise InputError("a whole number or null", file=path, path="max_concurrency", given=concurrency)
    if concurrency:
        result = {**result, "start_times": None}
    return read_bench_result(path, [("", result)]).build(path, path.stem), concurrency


def compare_results(
    measured: Mapping[str, Any], replayed: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Return measured and replayed values of the keys of `COMPARED` that both have.

    What the summary of the measurement leaves out is computed from its lists.
    """
    of_lists = _statistics_of_lists(measured)
    out = {}
    for key in COMPARED:
        value = measured.get(key)
        if not _is_number(value) and key.startswith("median"):
            value = measured.get(key.replace("median", "p50"))
        if not _is_number(value):
            value = of_lists.get(key)
        if _is_number(value) and _is_number(replayed.get(key)):
            out[key] = float(value), float(replayed[key])  # type: ignore[arg-type]
    return out


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _statistics_of_lists(result: Mapping[str, Any]) -> dict[str, float]:
    """Return mean, median and p99 of the latencies of the requests with output, in ms."""
    lists = {name: result.get(name) for name in ("output_lens", "ttfts", "itls", "latencies")}
    output, first = lists["output_lens"], lists["ttfts"]
    if not isinstance(output, list) or not isinstance(first, list) or len(output) != len(first):
        return {}
    itls, total = lists["itls"], lists["latencies"]
    if not isinstance(total, list) and isinstance(itls, list) and len(itls) == len(first):
        total = [t + sum(gaps) for t, gaps in zip(first, itls, strict=True)]
    values: dict[str, list[float]] = {"ttft": [t for t, o in zip(first, output, strict=True) if o]}
    if isinstance(total, list) and len(total) == len(first):
        rows = list(zip(output, first, total, strict=True))
        values["e2el"] = [e for o, _, e in rows if o]
        values["tpot"] = [(e - t) / (o - 1) for o, t, e in rows if o > 1]
    if isinstance(itls, list):
        values["itl"] = [gap for gaps in itls for gap in gaps]
    out = {}
    for metric, numbers in values.items():
        if numbers:
            statistics = (np.mean(numbers), np.median(numbers), np.percentile(numbers, 99))
            names = (f"{statistic}_{metric}_ms" for statistic in _STATISTICS)
            out |= {name: 1e3 * float(x) for name, x in zip(names, statistics, strict=True)}
    return out
