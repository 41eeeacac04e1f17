"""A library's file with the numbers of one more chip: what it says of a kernel on it, and the file with new rows."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from jaxcost.core.pytree import leaf_fields
from jaxcost.edge.catalog.circumstances import fit_of_place
from jaxcost.edge.catalog.efficiency import inline, listed, ordered, pair, quantity
from jaxcost.edge.catalog.kernels import EfficiencyFile, near_places
from jaxcost.edge.catalog.parts import architecture_of, chip_keys, load_part, scope_of_library
from jaxcost.edge.catalog.reading import ReadEntry, quantities, reading
from jaxcost.explore.calibrate import Fitted, scores

__all__ = ["KernelPrior", "kernel_prior", "updated_document"]

Place = tuple[str, str]
_WIDE = (-0.7, 0.7)  # interval of a file that says nothing of a kernel's error: a factor of two


class KernelPrior(NamedTuple):
    """What a file says of one kernel on a chip.

    Attributes:
        place: the field of `Kernels` and of its precision whose numbers the file has: the wanted, or the nearest.
        numbers: (value, low, high) of every number in SI units.
        interval: (low, high) of ln(measured / predicted).
    """

    place: Place
    numbers: dict[str, tuple[float, float, float]]
    interval: tuple[float, float]


def kernel_prior(name: str, chip: str, place: Place) -> KernelPrior | None:
    """Return what an efficiency file says of a kernel on a chip, None where it has neither it nor one that is near.

    Args:
        name: name or path of the file.
        chip: the chip.
        place: the field of `Kernels` and the field of its precision.
    """
    part, path = load_part("efficiency", name)
    scope = scope_of_library(name)
    keys = chip_keys(chip) if scope is None else scope
    for near in near_places(place):
        section = _section_of(part.kernels, near)
        if section is None:
            continue
        with reading() as current:
            values = quantities(section, path, "", keys)
        read = {key.split(".")[0]: entry for (_, key), entry in current.entries.items()}
        numbers = {field: _three(value, read[field]) for field, value in values.items()}
        fit = fit_of_place(part, near, name, chip)
        interval = _WIDE if fit is None else fit[0].interval(fit[1]) or _WIDE
        return KernelPrior(near, numbers, interval)
    return None


def _three(value: float, read: ReadEntry) -> tuple[float, float, float]:
    return value, value if read.low is None else read.low, value if read.high is None else read.high


def _section_of(kernels: Any, place: Place) -> Any:
    section = getattr(kernels, place[0], None)
    return getattr(section, place[1], None) if section is not None and place[1] else section


def updated_document(
    name: str,
    chip: str,
    title: str,
    note: str,
    fits: Sequence[tuple[Fitted, KernelPrior]],
    *,
    date: str,
) -> CommentedMap:
    """Return an efficiency file with numbers of a chip in `by` of the entries that rows of it have updated.

    Args:
        name: name or path of the file that was the prior.
        chip: catalogue name of the chip.
        title: of the new file.
        note: a sentence for whoever reads it.
        fits: the updated kernels, each with its prior.
        date: of the fit.
    """
    yaml = YAML()
    yaml.width = 4096
    part, path = load_part("efficiency", name)
    content = yaml.load(Path(path).read_text(encoding="utf-8"))
    content["title"], content["note"] = title, note
    content["chips"] = listed({*part.chips, chip})
    for one, prior in fits:
        assert one.place is not None
        _put_numbers(content["kernels"], one, prior, chip)
        content.setdefault("fits", []).insert(0, _fit(part, one, prior, chip, date))
    return content


def _put_numbers(kernels: CommentedMap, one: Fitted, prior: KernelPrior, chip: str) -> None:
    family, bits = one.place or ("", "")
    if bits:
        sections = kernels[prior.place[0]]
        if bits not in sections:
            sections[bits] = copy.deepcopy(sections[prior.place[1]])
        section = sections[bits]
    else:
        if family not in kernels:
            kernels[family] = copy.deepcopy(kernels[prior.place[0]])
        section = kernels[family]
    form, made = one.selection.form, one.calibration
    for f in leaf_fields(one.selection.family.kernel):
        fitted = form.tied.get(f.name, f.name)
        if fitted not in made.values or f.name not in section:
            continue
        three = ordered(made.values[fitted], made.low[fitted], made.high[fitted])
        by: Mapping[str, Any] = section[f.name].get("by") or {}
        section[f.name]["by"] = inline({**by, chip: [quantity(x, f.metadata["unit"]) for x in three]})


def _fit(part: EfficiencyFile, one: Fitted, prior: KernelPrior, chip: str, date: str) -> CommentedMap:
    made, rows = one.calibration, one.selection.rows
    median, ninth = scores(made.held)
    place = one.place or ("", "")
    ranks = rows.work.get("ranks")
    out = CommentedMap(
        kernels=place[0],
        bits=place[1],
        library=" ".join(v for k, v in one.selection.labels.items() if k in ("library", "version") and v),
        kernel=one.selection.labels.get("kernel", ""),
        rows=len(rows),
        held_out=one.selection.axis_name if made.folds else "all rows: errors of the prior",
        folds=made.folds,
        median=round(median, 4),
        ninth=round(ninth, 4),
        chips=listed([chip]),
        generations=listed([architecture_of(chip) or chip]),
        shapes=pair(made.interval),
        medians=CommentedMap(shapes=round(median, 4)),
        ninths=CommentedMap(shapes=round(ninth, 4)),
        covers=CommentedMap(shapes=round(float(np.mean(made.covered)), 3)),
        **({} if ranks is None else {"ranks": listed({int(n) for n in ranks})}),
        source=f"{rows.source or Path(rows.file).name}; prior: {part.title}",
        date=date,
    )
    out.fa.set_flow_style()
    return out
