"""The files of configs/efficiency that calibrations write: a library's kernels, and what they rest on."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from jaxcost.core.pytree import leaf_fields
from jaxcost.edge.io.write import write_atomically
from jaxcost.explore.calibrate import (
    CIRCUMSTANCES,
    FOLDS,
    LIBRARY,
    Bounds,
    Fitted,
    HeldOut,
    Pooled,
    ServingInterval,
    fastest,
    held_out,
    interval_of,
    scores,
)
from jaxcost.spec.kernels import EngineOverheads, Kernels

__all__ = ["document", "inline", "listed", "ordered", "pair", "quantity", "write_efficiency", "write_engine"]

_TOP: dict[str, tuple[Any, Any, Any, str]] = {
    "matmul": (1.0, 1.0, 1.0, "the kernels below have shares of their own"),
    "vector": (0.7, 0.4, 0.9, "estimate: not measured; as the shares of matmuls"),
    "memory": (1.0, 1.0, 1.0, "the kernels below have shares of their own"),
    "link": (0.65, 0.55, 0.75, "NCCL bus bandwidth of 260-305 of 450 GB/s on H100"),
    "operator_overhead": ("0 s", "0 s", "0 s", "the kernels below have launches of their own"),
}
# Element-wise kernels are in no table of measurements.
_ELEMENTWISE = {
    "launch": (
        "2 us",
        "1 us",
        "4 us",
        "launch of a kernel within a graph; aiconfigurator adds 3 us to an operator",
    ),
    "memory": (0.8, 0.65, 0.9, "aiconfigurator: 0.8 of the bandwidth for memory-bound operators"),
}

# Messages between nodes are in no table with a named link; links differ less than libraries do, so one set serves all.
_INTERNODE = {
    "round": (
        "9 us",
        "4 us",
        "26 us",
        "2 ranks on 2 nodes, HDR InfiniBand: all-reduces of 8 B take 19 us (NVIDIA/nccl-tests issue 150), 5 us of "
        "them the start and 5 us the link; tuning.cc of NCCL: 10 us a round of its tree; high: 47 us for 16 ranks "
        "on 2 nodes, NDR (NVIDIA/nccl issue 1244)",
    ),
    "share": (
        0.9,
        0.8,
        0.96,
        "DeepEP over 2-8 H100 nodes with NDR: 0.83-0.95 of 50 GB/s at 256 tokens (aiconfigurator-core-0.12.0); NCCL "
        "over NDR: 41-48 GB/s (NVIDIA/nccl-tests issues 232, 290)",
    ),
}


Measured = Fitted | Pooled


def document(
    title: str, note: str, fits: Sequence[Measured], others: Sequence[Measured], *, date: str
) -> CommentedMap:
    """Return what a file says: shares of the peaks, kernels with intervals, and the fits they are of.

    Args:
        title: of the file.
        note: a sentence for whoever reads it.
        fits: of the library, on one chip or pooled over several.
        others: of other libraries on the same chips, for what the library has no fit of.
        date: of the fit.
    """
    own = _widest(fits)
    chosen = _widest(others) | own
    libraries = {one.selection.labels["library"] for one in fits}
    chips = {str(chip) for one in chosen.values() for chip in one.selection.rows.labels["chip"]}
    out = CommentedMap(title=title, note=note, library=", ".join(sorted(libraries)), chips=listed(chips))
    top = dict(_TOP)
    if ("collective", "") in chosen:
        top["link"] = (1.0, 1.0, 1.0, "the kernels below have shares of their own")
    for name, (value, low, high, source) in top.items():
        out[name] = _entry(value, low, high, source, date, "estimate")
    kernels = CommentedMap()
    kernels["elementwise"] = _estimates(_ELEMENTWISE, date)
    for field in leaf_fields(Kernels):
        bits = {place[1]: one for place, one in chosen.items() if place[0] == field.name}
        if bits:
            sections = {b: _section(bits[b], date) for b in sorted(bits)}
            kernels[field.name] = sections[""] if "" in sections else CommentedMap(sections)
    if ("collective", "") in chosen:
        kernels["internode"] = _estimates(_INTERNODE, date)
    out["kernels"] = kernels
    every = [one for one in (*fits, *others) if isinstance(one, Pooled)]
    out["fits"] = [
        _fit(place, one, every, date) for place, one in sorted(chosen.items(), key=lambda at: at[0])
    ]
    return out


def write_efficiency(path: Path, content: CommentedMap) -> None:
    """Write a file whole or not at all."""
    yaml = YAML()
    yaml.width = 4096
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(content, stream)
    write_atomically(path, stream.getvalue().encode())


def write_engine(
    path: Path,
    constants: Mapping[str, tuple[float, float, float]],
    sustained: tuple[float, float, float],
    source: str,
    *,
    date: str,
    serving: Mapping[str, ServingInterval] | None = None,
) -> None:
    """Put what serving tells into a file that has kernels.

    Args:
        path: the file.
        constants: of the engine, {name: (value, low, high)}.
        sustained: share of the kernels' matmul rate that serving keeps, (value, low, high).
        source: of both.
        date: of the fit.
        serving: errors of served times of models that were left out, by metric ("tpot", "ttft").
    """
    yaml = YAML()
    yaml.width = 4096
    content = yaml.load(path.read_text())
    units = {f.name: f.metadata["unit"] for f in leaf_fields(EngineOverheads)}
    content["matmul"] = _entry(
        *sustained, f"share of the kernels' own that serving keeps: {source}", date, "measured"
    )
    content["kernels"]["engine"] = CommentedMap(
        {
            name: _entry(*(quantity(x, units[name]) for x in ends), source, date, "measured")  # type: ignore[misc]
            for name, ends in constants.items()
        }
    )
    if serving:
        content["serving"] = [_serving(metric, one, source) for metric, one in serving.items()]
    write_efficiency(path, content)


def _serving(metric: str, one: ServingInterval, source: str) -> CommentedMap:
    numbers = {name: getattr(one, name) for name in ("low", "high", "median", "ninth", "covered")}
    counts = {name: int(getattr(one, name)) for name in ("rows", "models")}
    # Nothing is covered where there are too few models to leave out.
    rounded = {name: round(float(x), 4) if np.isfinite(x) else None for name, x in numbers.items()}
    out = CommentedMap(metric=metric, **rounded, **counts, source=source)
    out.fa.set_flow_style()
    return out


def _estimates(entries: Mapping[str, tuple[Any, Any, Any, str]], date: str) -> CommentedMap:
    return CommentedMap(
        {k: _entry(v, low, high, s, date, "estimate") for k, (v, low, high, s) in entries.items()}
    )


def _widest(fits: Sequence[Measured]) -> dict[tuple[str, str], Any]:
    """Choose for every place the fit of most generations and chips; of several, the kernel closest to the roofline."""

    def reach(one: Measured) -> tuple[int, int]:
        chips = one.generations if isinstance(one, Pooled) else {}
        return len(set(chips.values())), len(chips)

    out: dict[tuple[str, str], Any] = {}
    for size in sorted({reach(one) for one in fits}):
        out |= fastest(one for one in fits if reach(one) == size)  # type: ignore[misc]
    return out


def _section(one: Measured, date: str) -> CommentedMap:
    return _pooled_section(one, date) if isinstance(one, Pooled) else _fitted_section(one, date)


def _pooled_section(one: Pooled, date: str) -> CommentedMap:
    form, rows = one.selection.form, one.selection.rows
    units = {f.name: f.metadata["unit"] for f in leaf_fields(one.selection.family.kernel)}
    source = f"fit to {len(rows)} rows of {rows.source}"
    fitted = {name: form.tied.get(name, name) for name in units if form.tied.get(name, name) in form.bounds}
    out = CommentedMap()
    for name, unit in units.items():
        if name in fitted:
            by = {
                key: [quantity(x, unit) for x in ordered(*values[fitted[name]])]
                for key, values in one.values.items()
            }
            value, low, high = by.pop(LIBRARY)
            out[name] = _entry(value, low, high, source, date, "measured")
            out[name]["by"] = inline(by)
        elif name in form.constants:
            out[name] = _constant_entry(form.constants[name], unit, date)
    return out


def ordered(value: float, low: float, high: float) -> tuple[float, float, float]:
    """Return (value, low, high) with low <= value <= high."""
    return value, min(low, value), max(high, value)


def inline(by: Mapping[str, Any]) -> CommentedMap:
    """Return numbers by chip and architecture that are written on one line."""
    out = CommentedMap()
    for key, three in by.items():
        out[key] = CommentedSeq(three) if isinstance(three, list) else three
        if isinstance(three, list):
            out[key].fa.set_flow_style()
    out.fa.set_flow_style()
    return out


def _constant_entry(bounds: Bounds, unit: str, date: str) -> CommentedMap:
    value, low, high = (quantity(x, unit) for x in ordered(bounds.start, bounds.low, bounds.high))
    return _entry(value, low, high, "constant of the form, not fitted", date, "estimate")


def _fitted_section(one: Fitted, date: str) -> CommentedMap:
    form, made = one.selection.form, one.calibration
    units = {f.name: f.metadata["unit"] for f in leaf_fields(one.selection.family.kernel)}
    rows = len(one.selection.rows)
    source = f"fit to {rows} rows of {one.selection.rows.source}"
    given: dict[str, Any] = {}
    for name, value in form.kernel(made.values).items():
        fitted = form.tied.get(name, name)
        if fitted in made.values:
            low, high, kind, why = made.low[fitted], made.high[fitted], "measured", source
        else:
            given[name] = _constant_entry(form.constants[name], units[name], date)
            continue
        at, least, most = (quantity(x, units[name]) for x in ordered(value, low, high))
        given[name] = _entry(at, least, most, why, date, kind)
    return CommentedMap({name: given[name] for name in units if name in given})


def _fit(place: tuple[str, str], one: Measured, every: Sequence[Pooled], date: str) -> CommentedMap:
    if isinstance(one, Pooled):
        return _pooled_fit(place, one, every, date)
    made, labels = one.calibration, one.selection.labels
    median, ninth = scores(made.held)
    ranks = one.selection.rows.work.get("ranks")
    out = CommentedMap(
        kernels=place[0],
        bits=place[1],
        library=" ".join(v for k, v in labels.items() if k in ("library", "version") and v),
        kernel=labels.get("kernel", ""),
        rows=len(one.selection.rows),
        held_out=one.selection.axis_name,
        folds=made.folds,
        median=round(median, 4),
        ninth=round(ninth, 4),
        low=round(made.interval[0], 4),
        high=round(made.interval[1], 4),
        covered=round(float(np.mean(made.covered)), 3) if made.folds > 2 else None,
        **({} if ranks is None else {"ranks": listed({int(n) for n in ranks})}),
        source=one.selection.rows.source,
        date=date,
    )
    out.fa.set_flow_style()
    return out


def _pooled_fit(place: tuple[str, str], one: Pooled, every: Sequence[Pooled], date: str) -> CommentedMap:
    """Describe a pooled fit: its rows and chips, and its errors in every circumstance that was held out.

    The interval of another chip or generation is that of all fits of the family, since each was left out few times.
    """
    rows = one.selection.rows
    family = [other for other in every if other.selection.family.name == one.selection.family.name]
    own = {name: found for name in CIRCUMSTANCES if (found := held_out([one], name)) is not None}
    wide: dict[str, HeldOut] = {
        name: found
        for name in CIRCUMSTANCES
        if (found := own.get(name) if name == "shapes" else held_out(family, name)) is not None
    }
    # Without any rows held out, the errors are those of the fit itself.
    first = next(iter(own.values()), None)
    median, ninth = scores(one.inside) if first is None else (first.median, first.ninth)
    versions = dict.fromkeys(str(x) for x in rows.labels.get("version", ()) if x)
    kernels = dict.fromkeys(str(x) for x in rows.labels.get("kernel", ()) if x)
    ends = {name: pair((of.low, of.high)) for name, of in wide.items()} or {
        "shapes": pair(interval_of(one.inside))
    }
    ranks = rows.work.get("ranks")
    out = CommentedMap(
        kernels=place[0],
        bits=place[1],
        library=" ".join([one.selection.labels["library"], *versions]),
        kernel=", ".join(kernels),
        rows=len(rows),
        held_out=f"{one.selection.axis_name}; chips; generations",
        folds=FOLDS,
        median=round(median, 4),
        ninth=round(ninth, 4),
        chips=listed(one.generations),
        generations=listed(set(one.generations.values())),
        **ends,
        medians=CommentedMap({name: round(of.median, 4) for name, of in wide.items()}),
        ninths=CommentedMap({name: round(of.ninth, 4) for name, of in wide.items()}),
        covers=CommentedMap(
            {name: round(of.covered, 3) for name, of in wide.items() if of.covered is not None}
        ),
        **({} if ranks is None else {"ranks": listed({int(n) for n in ranks})}),
        source=rows.source,
        date=date,
    )
    out.fa.set_flow_style()
    return out


def pair(ends: tuple[float, float]) -> CommentedSeq:
    """Return (low, high) rounded, written on one line."""
    out = CommentedSeq(round(end, 4) for end in ends)
    out.fa.set_flow_style()
    return out


def listed(values: Iterable[Any]) -> CommentedSeq:
    """Return sorted values that are written on one line."""
    out = CommentedSeq(sorted(values))
    out.fa.set_flow_style()
    return out


def quantity(value: float, unit: str) -> Any:
    """Return a number to four digits, with its unit where it has one."""
    digits = float(f"{value:.4g}")
    return digits if unit == "1" else f"{digits:g} {unit}"


def _entry(value: Any, low: Any, high: Any, source: str, date: str, kind: str) -> CommentedMap:
    out = CommentedMap(value=value, source=source, date=date, kind=kind, low=low, high=high)
    out.fa.set_flow_style()
    return out
