"""The efficiency in use in words: what the numbers reach of the peaks, and what is outside the rows of its fit."""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from jaxcost.edge.catalog.kernels import FitSection
from jaxcost.edge.catalog.loaders import load_chip
from jaxcost.edge.catalog.parts import chip_of_alias, list_names, load_part, looks_like_path, title
from jaxcost.edge.catalog.reading import configs_root
from jaxcost.edge.io.errors import InputError
from jaxcost.physics.compute.attention import attention_layers
from jaxcost.physics.compute.precision import precision_of
from jaxcost.spec.chip import Chip, Efficiency
from jaxcost.spec.fabric import Fabric
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
    "extrapolations",
]

# TPOT of the ideal roofline over mean TPOT measured, in closed loops of 4 to 512 users of five models on H100 with
# vLLM, SGLang and TensorRT-LLM (691 points of aiconfigurator-core-0.12.0 and InferenceX, as in docs/validation.md):
# 0.168 at the 10th percentile, 0.350 at the median, 0.592 at the 90th.
_REACHED = "engines measured on H100 reach 17-59% of this token rate, 35% at the median"
_CHIPS = re.compile(r"^chips: *\[([^\]]*)\]", re.MULTILINE)
_GENERAL = "gpu"  # first word of the name of a file that is fitted to several GPUs
_FITTED_MAKER = "NVIDIA"
_SHARES = ("matmul", "vector", "memory", "link")  # of an efficiency
_SCALES = 1.0  # bits that block scales add to an element
_FAR = 2.0  # ratio of FLOP per byte beyond which another kernel limit than that of the fit sets the time


@functools.cache
def _fitted_chips(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the chips that each calibrated file of the catalogue is fitted to, without parsing the files."""
    found = {p.stem: _CHIPS.search(p.read_text(encoding="utf-8")) for p in sorted(folder.glob("*.yaml"))}
    return {name: tuple(re.findall(r"[^\s,]+", text[1])) for name, text in found.items() if text}


def calibrated_files(chip: str) -> list[str]:
    """Return the names of the efficiency files of the catalogue that are fitted to a chip alone."""
    return [n for n, chips in _fitted_chips(configs_root() / "efficiency").items() if chips == (chip,)]


def chip_of_system(name: str) -> str:
    """Return the catalogue name, or the path, of the chip of a system."""
    if looks_like_path(name) or name in list_names("systems"):
        return chip_of_alias(load_part("systems", name)[0].chip)
    return chip_of_alias(re.sub(r"-x\d+$", "", name))


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
        medians = [fit.median for fit in part.fits]
        chips = f" on {', '.join(part.chips)}" if part.chips else ""
        errors = (
            f"; held-out rows are {100 * min(medians):.0f}-{max(medians):.0%} off (medians)"
            if medians
            else ""
        )
        return f"{name}: kernels of {part.library or 'a library'} fitted to measurements{chips}{errors}"
    files = calibrated_files(chip)
    if files:
        others = f" (or {', '.join(files[:-1])})" if files[1:] else ""
        hint = f"--efficiency {files[-1]}{others} is fitted to measurements of this chip"
    elif _maker(chip) == _FITTED_MAKER:
        general = [n for n in _fitted_chips(configs_root() / "efficiency") if n.startswith(f"{_GENERAL}-")]
        hint = f"no file is fitted to {chip}; --efficiency {general[-1]} is fitted to other GPUs together"
    else:
        hint = f"no file is fitted to {chip}; --efficiency typical has uncalibrated shares of the peaks"
    if _is_ideal(efficiency):
        return f"ideal peaks: {_REACHED}; {hint}"
    shares = ", ".join(f"{x} {float(getattr(efficiency, x)):.0%}" for x in _SHARES)
    launch = float(efficiency.operator_overhead) * 1e6
    stated = f"{name}: {shares} of the peaks, {launch:.3g} µs per operator; not calibrated"
    return stated + (f"; {hint}" if name != "typical" or files else "")


def _maker(chip: str) -> str:
    try:
        return title("chips", chip).split()[0]
    except InputError:
        return ""


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


def extrapolations(name: str, chip: str, model: Model, plan: Plan, system: System) -> list[str]:
    """Return what a calibrated file is used for outside its fits: chip, precision, ranks and nodes; none if ideal.

    Args:
        name: name of the efficiency file.
        chip: catalogue name of the chip.
        model: the model.
        plan: the plan.
        system: the system.
    """
    if system.chip.efficiency.kernels is None:
        return []
    part = load_part("efficiency", name)[0]
    lines = [
        *_other_chip(name, part.chips, chip, system.chip),
        *_other_precisions(part, model, plan),
        *_other_groups(part, model, plan, system),
    ]
    return [f"extrapolated: {line}" for line in lines]


def _other_chip(name: str, fitted: list[str], chip: str, numbers: Chip) -> Iterator[str]:
    if not fitted:
        yield f"{name} does not say which chips it was fitted on"
    elif chip not in fitted:
        balances = [_flops_per_byte(load_chip(other)) for other in fitted]
        here, low, high = _flops_per_byte(numbers), min(balances), max(balances)
        far = []
        if _maker(chip) != _FITTED_MAKER:
            far.append("a chip of another maker")
        if not low / _FAR <= here <= high * _FAR:
            span = f"{low:.0f}" if low == high else f"{low:.0f}-{high:.0f}"
            far.append(f"{here:.0f} FLOP per byte of memory bandwidth against {span}")
        warning = f"; far outside what was fitted: {' and '.join(far)}" if far else ""
        yield f"{name} was fitted on {', '.join(fitted)}, used on {chip}{warning}"


def _flops_per_byte(chip: Chip) -> float:
    return float(chip.compute.flops_16) / max(float(chip.memory.bandwidth), 1.0)


def _kernels_used(model: Model, plan: Plan) -> Iterator[tuple[str, tuple[str, ...], str, float]]:
    """Yield what a plan runs, its families of kernels, the field of its precision and its bits."""
    each, shared = precision_of(plan, model), ("bits_16", "bits_8")
    cache, experts = float(each.cache), float(each.experts)
    wider = max(float(each.weights), float(each.inputs))
    narrow = lambda bits: shared[bits <= 10]  # noqa: E731  as `rows.py` selects kernels
    yield "matmuls", ("matmul",), narrow(wider), wider
    if float(attention_layers(model)) > 0:
        yield "attention with KV", ("attention_prefill", "attention_decode"), narrow(cache), cache
    if float(model.latent.layers) > 0:
        yield "latent attention with KV", ("latent_prefill", "latent_decode"), narrow(cache), cache
    if float(model.experts.layers) > 0:
        yield "experts", ("mixture",), "bits_4" if experts <= 5 else narrow(experts), experts


def _other_precisions(part: Any, model: Model, plan: Plan) -> Iterator[str]:
    fits: dict[str, dict[str, FitSection]] = {}
    for fit in part.fits:
        fits.setdefault(fit.kernels, {})[fit.bits] = fit
    for what, families, field, bits in _kernels_used(model, plan):
        said = dict.fromkeys(_of_others(part.library, fits, families, field, bits))
        yield from (f"{what} at {bits:.4g} bits: {text}" for text in said)
    weights, inputs = float(precision_of(plan, model).weights), float(precision_of(plan, model).inputs)
    if weights < inputs - _SCALES:
        yield f"matmuls of {weights:.4g}-bit weights with {inputs:.4g}-bit inputs: fitted at equal bits"
    if float(model.recurrence.layers) > 0:
        yield "recurrent layers: no kernel is fitted, shares of the roofline are used"


def _of_others(
    library: str,
    fits: dict[str, dict[str, FitSection]],
    families: tuple[str, ...],
    field: str,
    bits: float,
) -> Iterator[str]:
    """Yield what the fits of some families lack: any rows, those of the precision, or those of the library."""
    exact, others = abs(bits - int(field.removeprefix("bits_"))) < _SCALES, []
    for family in families:
        rows = fits.get(family, {})
        if not rows:
            yield "no kernel is fitted, ideal kernels are used"
        elif field not in rows or not exact:
            yield f"fitted at {_listed(sorted(int(name.removeprefix('bits_')) for name in rows))} bits only"
        elif library and (other := rows[field].library.split()[0]) != library:
            others.append(other)
    if others:
        yield f"fitted to rows of {_listed(list(dict.fromkeys(others)))}, none of {library}"


def _other_groups(part: Any, model: Model, plan: Plan, system: System) -> Iterator[str]:
    ranks = {fit.kernels: fit.ranks for fit in part.fits if fit.ranks}
    spans = []
    for degree, kernels, total, inside in _groups(model, plan, system.fabric):
        fitted = next((ranks[kernel] for kernel in kernels if kernel in ranks), [])
        if inside > 1 and kernels and not fitted:
            yield f"{degree} {total:g}: no message between its ranks is fitted"
        elif inside > 1 and fitted and not min(fitted) <= inside <= max(fitted):
            yield f"{degree} {total:g}: messages of {inside:g} ranks within a domain, fitted to {_listed(fitted)}"
        if total > inside:
            spans.append(f"{degree} {total:g} spans {math.ceil(total / inside):g} nodes")
    if spans:
        yield f"{' and '.join(spans)}: messages between nodes {_between_nodes(system.chip.efficiency)}"


def _groups(model: Model, plan: Plan, fabric: Fabric) -> Iterator[tuple[str, tuple[str, ...], float, float]]:
    """Yield the groups of ranks of a plan: degree, kernels, ranks, and ranks in one domain, laid out as `plan_groups`.

    In Python, since the arrays of `plan_groups` take seconds to compile.
    """
    domain = max(float(fabric.domain), float(fabric.package_chips))
    tp, cp, pp, ep = (float(getattr(plan, name)) for name in ("tp", "cp", "pp", "ep"))

    def within(ranks: float, stride: float) -> float:
        return min(max(domain / stride, 1.0), ranks)

    yield "tp", ("all_reduce", "collective"), tp, within(tp, 1)
    yield "cp", ("collective",), cp, within(cp, tp)
    yield "pp", (), pp, within(pp, tp * cp)
    if ep > tp and float(model.experts.layers) > 0:
        yield "ep", ("dispatch", "combine"), ep, within(tp, 1) * within(ep / tp, tp * cp * pp)


def _between_nodes(efficiency: Efficiency) -> str:
    internode = efficiency.internode
    if internode is None:
        return "take the ideal latencies of the link"
    added, share = float(internode.round) * 1e6, float(internode.share)
    return f"take default latencies, not fitted: {added:.3g} us a round beyond the link's, {share:.0%} of its bandwidth"


def _listed(values: Sequence[object]) -> str:
    *most, last = map(str, values)
    return f"{', '.join(most)} and {last}" if most else last
