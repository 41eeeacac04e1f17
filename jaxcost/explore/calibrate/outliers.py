"""Measured rows that are implausible: faster than the datasheet, out of line with their neighbours, or contradicted."""

from typing import NamedTuple

import numpy as np

from jaxcost.core.deprecation import renamed_function
from jaxcost.spec.chip import Chip
from jaxcost.spec.measurement import Measurements

__all__ = ["Outlier", "doubtful", "find_outliers", "least_bytes", "least_flops", "least_link_bytes"]

_FASTER = 1.02  # tolerance for boost clocks and for rounding in the files
_OUT_OF_LINE = 2.0  # ratio to both neighbours
_CONTRADICTED = 1.5  # ratio of the slowest to the fastest row of equal work
# DeepSeek-V2's latent attention: a cached token has 512 latent and 64 rotary features, a head 128 and the same 64.
_LATENT, _POSITION, _HEAD = 512.0, 64.0, 128.0

Work = dict[str, np.ndarray]


class Outlier(NamedTuple):
    """An implausible row: its index, its line in the file, the kind of outlier, and the numbers that show it."""

    row: int
    line: int
    kind: str
    reason: str


def find_outliers(
    measurements: Measurements, chip: Chip, *, link_bandwidth: float | None = None
) -> list[Outlier]:
    """Find the implausible rows of one chip; no row is removed.

    Three kinds of outlier are reported:

    - "faster": the row beats the chip's matmul peak; or the memory bandwidth for the bytes beyond the last-level
      cache, which may keep the rest between repeats; or the link bandwidth for the bytes that must cross the links.
    - "out of line": at equal other sizes the row takes more than twice as long as both neighbours in size although
      one of them has more work, or less than half as long although one of them has less work.
    - "contradicted": rows of equal work and labels differ by more than a factor of 1.5.

    Args:
        measurements: rows of one chip, of any family.
        chip: the chip; its efficiencies are not used.
        link_bandwidth: B/s that a chip sends while it receives at the same rate; None skips the check of the links.

    Returns:
        The outliers by row; a row may appear once for each reason.

    Raises:
        ValueError: rows of several chips.
    """
    chips = measurements.values("chip") if "chip" in measurements.labels else []
    if len(chips) > 1:
        raise ValueError(f"rows of several chips: {', '.join(chips)}")
    outliers = _faster(measurements, chip, link_bandwidth)
    outliers += _out_of_line(measurements)
    outliers += _contradicted(measurements)
    return sorted(outliers)


doubtful = renamed_function("doubtful", find_outliers)


def _pairs(work: Work) -> np.ndarray:
    """Count the (query, key) pairs of a causal sequence, within the window if there is one."""
    queries, keys = work["queries"], work["keys"]
    window = work.get("window", np.zeros_like(keys))
    window = np.where(window > 0, np.minimum(window, keys), keys)
    # Query i of the new ones sees keys - queries + i + 1 of them, which of the first few is less than a window.
    missing = window - (keys - queries) - 1
    early = np.clip(missing, 0, queries)
    return queries * window - early * missing + early * (early - 1) / 2


def least_flops(family: str, work: Work) -> np.ndarray:
    """Count the FLOPs that every implementation of the work needs, [R]; zeros for families without FLOPs."""
    if family == "matmul":
        return 2 * work["rows"] * work["columns"] * work["inner"]
    if family == "attention":
        return 4 * work["sequences"] * work["heads"] * work["head_dim"] * _pairs(work)
    if family == "latent_attention":
        # A single query attends to the latents themselves; for many queries, expanded heads are less work.
        features = np.where(work["queries"] == 1, 2 * _LATENT + _POSITION, 2 * _HEAD + _POSITION)
        return 2 * work["sequences"] * work["heads"] * features * _pairs(work)
    if family == "mixture":
        # With skewed routing a rank may receive less than its share.
        rows = work["tokens"] * work["top_k"] / work["expert_parallel"] * (work["skew"] == 0)
        return 6 * rows * work["hidden"] * work["width"] / work["tensor_parallel"]
    return np.zeros_like(next(iter(work.values())))


def least_bytes(family: str, work: Work) -> np.ndarray:
    """Count the bytes that the work must read and write once, [R]; zeros for families without memory traffic."""
    if family == "matmul":
        weights = work["columns"] * work["inner"] * work["weight_bits"]
        # Activations may arrive in 16 bits and be quantized first; the narrow ones are the lower bound.
        return (weights + work["rows"] * (work["inner"] * work["activation_bits"] + work["columns"] * 16)) / 8
    if family == "attention":
        seen = np.where(work["window"] > 0, work["window"] + work["queries"] - 1, np.inf)
        cached = 2 * np.minimum(work["keys"], seen) * work["kv_heads"] * work["kv_bits"]
        ends = 2 * work["queries"] * work["heads"] * np.minimum(work["compute_bits"], 16)
        return work["sequences"] * (cached + ends) * work["head_dim"] / 8
    if family == "latent_attention":
        return work["sequences"] * work["keys"] * (_LATENT + _POSITION) * work["kv_bits"] / 8
    if family == "mixture":
        local = work["experts"] / work["expert_parallel"]
        # Balanced routing reaches as many experts as possible; with skewed routing a rank may reach none.
        reached = np.where(
            work["skew"] == 0,
            np.minimum(local, np.floor(work["tokens"] * work["top_k"] / work["expert_parallel"])),
            0,
        )
        matrix = work["hidden"] * work["width"] / work["tensor_parallel"]
        return 3 * reached * matrix * work["weight_bits"] / 8
    return np.zeros_like(next(iter(work.values())))


def least_link_bytes(measurements: Measurements) -> np.ndarray:
    """Count the bytes that a chip must receive from others, [R]; zeros for families without messages."""
    work, ranks = measurements.work, measurements.work.get("ranks")
    if ranks is None:
        return np.zeros(len(measurements))
    if measurements.family == "collective":
        whole_buffer = np.isin(
            measurements.labels["op"].astype(str), ["all_reduce", "send_recv", "broadcast"]
        )
        return work["bytes"] * np.where(whole_buffer, 1.0, (ranks - 1) / ranks)
    # Expected number of other chips that hold one of a token's experts; a chip receives a token once.
    others = (ranks - 1) * (1 - (1 - 1 / ranks) ** work["top_k"])
    return np.nan_to_num(work["tokens"] * others * work["hidden"] * work["bits"] / 8)


def _peak(work: Work, chip: Chip) -> np.ndarray:
    bits = work.get("activation_bits", work.get("compute_bits"))
    if bits is None:
        return np.full(len(next(iter(work.values()))), np.inf)
    compute = chip.compute
    rates = [compute.flops_4, compute.flops_6, compute.flops_8, compute.flops_16]
    return np.select([bits <= 4.5, bits <= 6.5, bits <= 8.5, bits <= 16.5], rates, compute.flops_32)


def _faster(measurements: Measurements, chip: Chip, link: float | None) -> list[Outlier]:
    work, family, seconds = measurements.work, measurements.family, measurements.seconds
    if not len(measurements) or family == "serving":
        return []
    cache = float(chip.package.cache)
    beyond = np.maximum(least_bytes(family, work) - cache, 0)
    links = np.zeros(len(measurements)) if link is None else least_link_bytes(measurements) / link
    floors = (
        ("the matmul peak", least_flops(family, work) / _peak(work, chip)),
        ("the memory bandwidth beyond the cache", beyond / float(chip.memory.bandwidth)),
        ("the link bandwidth", links),
    )
    outliers = []
    for name, floor in floors:
        for row in np.flatnonzero(seconds * _FASTER < floor):
            times = floor[row] / seconds[row]
            reason = (
                f"{seconds[row] * 1e6:.4g} us, {times:.3g} times {name} (at least {floor[row] * 1e6:.4g} us)"
            )
            outliers.append(Outlier(int(row), int(measurements.line[row]), "faster", reason))
    return outliers


def _groups(columns: list[np.ndarray], count: int) -> np.ndarray:
    """Number the rows, equal ones alike: the index of each row's group, [R]."""
    group = np.zeros(count, dtype=np.int64)
    for column in columns:
        values = column.astype(str) if column.dtype == object else column
        _, code = np.unique(values, return_inverse=True)
        _, group = np.unique(group * (code.max(initial=0) + 1) + code, return_inverse=True)
    return group


_NOT_WORK = ("source", "quality", "notes", "citation", "file")
_SIZES = {
    "matmul": ("rows", "columns", "inner"),
    "attention": ("sequences", "keys"),
    "latent_attention": ("sequences", "keys"),
    "mixture": ("tokens",),
    "collective": ("bytes",),
    "all_to_all": ("tokens",),
    "serving": (),
}


def _else_equal(measurements: Measurements, without: str) -> list[np.ndarray]:
    work = dict(measurements.work)
    if without == "keys":
        # A prompt grows in queries and keys alike, a decoded sequence in keys alone.
        grows = (work["queries"] > 1) & (work["queries"] == work["keys"])
        work["queries"] = np.where(grows, -1, work["queries"])
    labels = [column for name, column in measurements.labels.items() if name not in _NOT_WORK]
    return [column for name, column in work.items() if name != without] + labels


class _Candidate(NamedTuple):
    """A row out of line with two neighbours; the score is the logarithm of its ratio to the closer of them."""

    score: float
    row: int
    near: tuple[int, int]
    size: str


def _out_of_line(measurements: Measurements) -> list[Outlier]:
    series = [
        (size, rows)
        for size in _SIZES[measurements.family]
        for rows in _by_size(measurements, size)
        if len(rows) > 2
    ]
    through: dict[int, list[int]] = {}
    for i, (_, rows) in enumerate(series):
        for row in rows:
            through.setdefault(row, []).append(i)
    accepted: dict[int, _Candidate] = {}
    active = range(len(series))
    # The neighbour of a row that is far out of line looks out of line in the other direction. So the candidate that
    # contradicts most rows is accepted first, and the others are examined again without it.
    while active:
        outliers = []
        for i in active:
            size, rows = series[i]
            outliers += _candidates(measurements, size, [row for row in rows if row not in accepted])
        odds = {
            c.row: sum(_odds(measurements, series[i][1], c.row) for i in through[c.row]) for c in outliers
        }
        touched: set[int] = set()
        for candidate in sorted(outliers, key=lambda c: (odds[c.row], c.score, c.row), reverse=True):
            if candidate.row not in touched and not touched.intersection(candidate.near):
                accepted[candidate.row] = candidate
                touched.add(candidate.row)
        active = sorted({i for row in touched for i in through[row]})
    return [_outlier(measurements, candidate) for candidate in accepted.values()]


def _odds(measurements: Measurements, rows: list[int], row: int) -> int:
    """Count the rows of a series with more work and less than half the time of this one, or less work and twice it."""
    seconds, at = measurements.seconds[rows], rows.index(row)
    time = seconds[at]
    more = seconds[at + 1 :] * _OUT_OF_LINE < time
    return int(more.sum() + (seconds[:at] > _OUT_OF_LINE * time).sum())


def _by_size(measurements: Measurements, size: str) -> list[list[int]]:
    """List the series of rows that differ only in one size, ordered by it; of rows of equal size, the first."""
    group = _groups(_else_equal(measurements, size), len(measurements))
    sizes = measurements.work[size]
    order = np.lexsort((measurements.line, sizes, group))
    fresh = (np.diff(group[order], prepend=-1) != 0) | (np.diff(sizes[order], prepend=-1) != 0)
    order = order[fresh]
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return [rows.tolist() for rows in np.split(order, starts[1:])]


def _candidates(measurements: Measurements, size: str, rows: list[int]) -> list[_Candidate]:
    count = len(rows)
    if count < 3:
        return []
    logs = np.log(measurements.seconds[rows])
    # At either end the next two rows are the neighbours.
    before = np.arange(count) - 1
    after = before + 2
    before[0], after[-1] = 2, count - 3
    above = logs - np.maximum(logs[before], logs[after])
    below = np.minimum(logs[before], logs[after]) - logs
    # A slow row needs a neighbour with more work, a fast row one with less.
    above[-1], below[0] = 0, 0
    score = np.maximum(above, below)
    return [
        _Candidate(float(score[i]), rows[i], (rows[before[i]], rows[after[i]]), size)
        for i in np.flatnonzero(score > np.log(_OUT_OF_LINE))
    ]


def _outlier(measurements: Measurements, candidate: _Candidate) -> Outlier:
    row, size = candidate.row, candidate.size

    def at(i: int) -> str:
        return f"{measurements.seconds[i] * 1e6:.4g} us at {size} {measurements.work[size][i]:g}"

    reason = f"{at(row)}; its neighbours take {at(candidate.near[0])} and {at(candidate.near[1])}"
    return Outlier(row, int(measurements.line[row]), "out of line", reason)


def _contradicted(measurements: Measurements) -> list[Outlier]:
    if not len(measurements):
        return []
    columns = list(measurements.work.values())
    columns += [column for name, column in measurements.labels.items() if name not in _NOT_WORK]
    group = _groups(columns, len(measurements))
    seconds = measurements.seconds
    least = np.full(group.max() + 1, np.inf)
    most = np.zeros(group.max() + 1)
    np.minimum.at(least, group, seconds)
    np.maximum.at(most, group, seconds)
    outliers = []
    for row in np.flatnonzero((most > _CONTRADICTED * least)[group]):
        low, high = least[group[row]], most[group[row]]
        reason = f"{seconds[row]:.4g}; rows of the same work range from {low:.4g} to {high:.4g}"
        outliers.append(Outlier(int(row), int(measurements.line[row]), "contradicted", reason))
    return outliers
