"""The efficiency in use in words: what the numbers reach of the peaks, and the rows that they rest on."""

import functools
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from jaxcost.edge.catalog.circumstances import file_circumstance, maker, numbers_keys, stated_architecture
from jaxcost.edge.catalog.kernels import EfficiencyFile
from jaxcost.edge.catalog.parts import chip_of_system, libraries, list_names, load_part, looks_like_path
from jaxcost.edge.catalog.reading import configs_root
from jaxcost.edge.commands.extrapolation_text import FITTED_MAKER, extrapolations
from jaxcost.spec.chip import Efficiency
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System

__all__ = [
    "calibrated_files",
    "efficiency_document",
    "efficiency_line",
    "efficiency_lines",
    "efficiency_notes",
    "efficiency_of_system",
]

# TPOT of the ideal roofline over mean TPOT measured, in closed loops of 4 to 512 users of five models on H100 with
# vLLM, SGLang and TensorRT-LLM (691 points of aiconfigurator-core-0.12.0 and InferenceX, as in docs/validation.md):
# 0.168 at the 10th percentile, 0.350 at the median, 0.592 at the 90th.
_REACHED = "engines measured on H100 reach 17-59% of this token rate, 35% at the median"
_CHIPS = re.compile(r"^chips: *\[([^\]]*)\]", re.MULTILINE)
_SHARES = ("matmul", "vector", "memory", "link")  # of an efficiency


@functools.cache
def _fitted_chips(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the chips that each calibrated file of the catalogue is fitted to, without parsing the files."""
    found = {p.stem: _CHIPS.search(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.yaml"))}
    return {name: tuple(re.findall(r"[^\s,]+", text[1])) for name, text in found.items() if text}


def calibrated_files(chip: str) -> list[str]:
    """Return the names of the efficiency files of the catalogue that have numbers fitted to a chip's own rows."""
    return _files_where(lambda chips: chip in chips)


def _files_where(suitable: Callable[[tuple[str, ...]], bool]) -> list[str]:
    """Return the files of libraries whose fitted chips are suitable; without such files, those of one chip."""
    fitted, of_libraries = _fitted_chips(configs_root() / "efficiency"), libraries()
    suited = [name for name, chips in fitted.items() if suitable(chips)]
    return [n for n in suited if n in of_libraries] or [n for n in suited if len(fitted[n]) == 1]


def efficiency_of_system(system: str, option: str | None) -> str:
    """Return the name of the efficiency file in use: that of `--efficiency`, else of the system, else ideal."""
    if option is not None:
        return option
    part = (
        load_part("systems", system)[0]
        if looks_like_path(system) or system in list_names("systems")
        else None
    )
    return getattr(part, "efficiency", None) or "ideal"


def _is_ideal(efficiency: Efficiency) -> bool:
    shares = [float(getattr(efficiency, name)) for name in _SHARES]
    return (
        efficiency.kernels is None
        and all(x == 1 for x in shares)
        and float(efficiency.operator_overhead) == 0
    )


def efficiency_line(efficiency: Efficiency, name: str, chip: str) -> str:
    """Return what an efficiency means, and which calibrated files there are for the chip.

    Args:
        efficiency: the efficiency of the chip.
        name: name of its file.
        chip: catalogue name of the chip.
    """
    if efficiency.kernels is not None:
        part = load_part("efficiency", name)[0]
        chips = f" on {', '.join(part.chips)}" if part.chips else ""
        measured = f"{name}: kernels of {part.library or 'a library'} fitted to measurements{chips}"
        return measured + _errors(name, part, chip)
    files, generation = calibrated_files(chip), stated_architecture(chip)
    if files:
        others = f" (or {', '.join(files[:-1])})" if files[1:] else ""
        hint = f"--efficiency {files[-1]}{others} is fitted to measurements of this chip"
    elif generation and (
        related := _files_where(lambda chips: generation in map(stated_architecture, chips))
    ):
        others = f" (or {', '.join(related[:-1])})" if related[1:] else ""
        hint = (
            f"no file is fitted to {chip}; --efficiency {related[-1]}{others} is fitted to "
            f"other {generation} chips"
        )
    elif maker(chip) == FITTED_MAKER:
        hint = f"no file is fitted to {chip}; --efficiency {_general()} is fitted to other GPUs together"
    else:
        hint = f"no file is fitted to {chip}; --efficiency typical has uncalibrated shares of the peaks"
    if _is_ideal(efficiency):
        return f"ideal peaks: {_REACHED}; {hint}"
    shares = ", ".join(f"{x} {float(getattr(efficiency, x)):.0%}" for x in _SHARES)
    launch = float(efficiency.operator_overhead) * 1e6
    stated = f"{name}: {shares} of the peaks, {launch:.3g} µs per operator; not calibrated"
    return stated + (f"; {hint}" if name != "typical" or files else "")


def _general() -> str:
    """Return the last file of the catalogue that is fitted to several chips: of a library, else of any chip."""
    fitted = _fitted_chips(configs_root() / "efficiency")
    several = [name for name, chips in fitted.items() if len(chips) > 1]
    return ([name for name in several if name in libraries()] or several)[-1]


def _errors(name: str, part: EfficiencyFile, chip: str) -> str:
    """Say whether a chip was measured, or its generation, or neither, with the errors of rows held out likewise."""
    if not part.fits:
        return ""
    keys = numbers_keys(name, chip)
    if not any(fit.medians for fit in part.fits):
        medians = [fit.median for fit in part.fits]
        return f"; held-out rows are {_span(medians)} off (medians)"
    circumstance = file_circumstance(part, name, chip)
    chips = f"{chip} with the numbers of {keys[0]}" if keys[0] != chip else chip
    medians = [fit.medians[circumstance] for fit in part.fits if circumstance in fit.medians]
    ends = [ends for fit in part.fits if (ends := getattr(fit, circumstance))]
    if circumstance == "shapes":
        said = f"; {chips} was measured: held-out shapes"
    elif circumstance == "chip":
        said = f"; {chips} was not measured, other {stated_architecture(keys[0]) or keys[0]} chips were: held-out chips"
    else:
        generation = stated_architecture(chip)
        unknown = f"generation {generation}" if generation else f"{chip}, of no stated generation,"
        of = "" if maker(chip) == FITTED_MAKER else f" of {FITTED_MAKER}"
        said = f"; {unknown} was not measured: these are the library's means; held-out generations{of}"
    if not medians:
        return f"{said.split(':')[0]}: nothing says how far it is off"
    low, high = (float(np.median([end[i] for end in ends])) for i in (0, 1))
    within = f", 80% of times within {math.expm1(low):+.0%} to {math.expm1(high):+.0%} of the prediction"
    return f"{said} are {_span(medians)} off (medians){within if ends else ''}"


def _span(medians: Sequence[float]) -> str:
    low, high = f"{min(medians):.0%}", f"{max(medians):.0%}"
    return high if low == high else f"{low[:-1]}-{high}"


def efficiency_notes(
    system_name: str, option: str | None, system: System, model: Model, plan: Plan
) -> list[str]:
    """Return the efficiency in words, and one line for each use of it outside the rows that it was fitted to.

    Args:
        system_name: name or path of the system.
        option: `--efficiency`, None without.
        system: the system, with its efficiency.
        model: the model.
        plan: the plan.
    """
    name, chip = efficiency_of_system(system_name, option), chip_of_system(system_name)
    return [
        efficiency_line(system.chip.efficiency, name, chip),
        *extrapolations(name, chip, model, plan, system),
    ]


def efficiency_lines(notes: Sequence[str]) -> list[Text]:
    """Return the notes as lines: the efficiency, and what is extrapolated."""
    return [Text(f"Efficiency: {notes[0]}"), *(Text(f"Note: {note}", "yellow") for note in notes[1:])]


def efficiency_document(notes: Sequence[str]) -> dict[str, Any]:
    """Return the notes for JSON."""
    return {"efficiency": notes[0], "efficiency_notes": list(notes[1:])}
