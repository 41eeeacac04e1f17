"""The files of configs/efficiency that calibrations write: a library's kernels on a chip, and what they rest on."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from jaxcost.core.pytree import leaf_fields
from jaxcost.edge.io.write import write_atomically
from jaxcost.explore.calibrate import Fitted, fastest, scores
from jaxcost.spec.kernels import EngineOverheads, Kernels

__all__ = ["document", "write_efficiency", "write_engine"]

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


def document(
    title: str, note: str, fits: Sequence[Fitted], others: Sequence[Fitted], *, date: str
) -> CommentedMap:
    """Return what a file says: shares of the peaks, kernels with intervals, and the fits they are of.

    Args:
        title: of the file.
        note: a sentence for whoever reads it.
        fits: of the library on the chip.
        others: of other libraries on the chip, for what the library has no fit of.
        date: of the fit.
    """
    own = fastest(fits)
    chosen = fastest(others) | own
    libraries = {one.selection.labels["library"] for one in fits}
    chips = {str(chip) for one in chosen.values() for chip in one.selection.rows.labels["chip"]}
    out = CommentedMap(title=title, note=note, library=", ".join(sorted(libraries)), chips=_listed(chips))
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
    out["fits"] = [_fit(place, one, date) for place, one in sorted(chosen.items())]
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
) -> None:
    """Put what serving tells into a file that has kernels.

    Args:
        path: the file.
        constants: of the engine, {name: (value, low, high)}.
        sustained: share of the kernels' matmul rate that serving keeps, (value, low, high).
        source: of both.
        date: of the fit.
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
            name: _entry(*(_quantity(x, units[name]) for x in ends), source, date, "measured")  # type: ignore[misc]
            for name, ends in constants.items()
        }
    )
    write_efficiency(path, content)


def _estimates(entries: Mapping[str, tuple[Any, Any, Any, str]], date: str) -> CommentedMap:
    return CommentedMap(
        {k: _entry(v, low, high, s, date, "estimate") for k, (v, low, high, s) in entries.items()}
    )


def _section(one: Fitted, date: str) -> CommentedMap:
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
            bounds = form.constants[name]
            low, high, kind, why = bounds.low, bounds.high, "estimate", "constant of the form, not fitted"
        at, least, most = (_quantity(x, units[name]) for x in (value, min(low, value), max(high, value)))
        given[name] = _entry(at, least, most, why, date, kind)
    return CommentedMap({name: given[name] for name in units if name in given})


def _fit(place: tuple[str, str], one: Fitted, date: str) -> CommentedMap:
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
        **({} if ranks is None else {"ranks": _listed({int(n) for n in ranks})}),
        source=one.selection.rows.source,
        date=date,
    )
    out.fa.set_flow_style()
    return out


def _listed(values: Iterable[Any]) -> CommentedSeq:
    out = CommentedSeq(sorted(values))
    out.fa.set_flow_style()
    return out


def _quantity(value: float, unit: str) -> Any:
    digits = float(f"{value:.4g}")
    return digits if unit == "1" else f"{digits:g} {unit}"


def _entry(value: Any, low: Any, high: Any, source: str, date: str, kind: str) -> CommentedMap:
    out = CommentedMap(value=value, source=source, date=date, kind=kind, low=low, high=high)
    out.fa.set_flow_style()
    return out
