"""What a calibrated file is used for outside the rows that it was fitted to, in words."""

import math
from collections.abc import Iterator, Mapping, Sequence

from jaxcost.edge.catalog.circumstances import file_circumstance, fit_circumstance, maker, stated_keys
from jaxcost.edge.catalog.kernels import CIRCUMSTANCES, NEAREST, EfficiencyFile, FitSection
from jaxcost.edge.catalog.loaders import load_chip
from jaxcost.edge.catalog.parts import load_part, scope_of_library
from jaxcost.physics.compute.attention import attention_layers
from jaxcost.physics.compute.precision import precision_of
from jaxcost.spec.chip import Chip, Efficiency
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System

__all__ = ["FITTED_MAKER", "extrapolations"]

FITTED_MAKER = "NVIDIA"
_SCALES = 1.0  # bits that block scales add to an element
# Limits of the bits of a kernel's operands, and of weights with a scale per block of 8-bit numbers or per group of
# 4-bit integers, as `rows.py` selects kernels.
_WIDE, _NARROW, _BLOCK_SCALED, _GROUP_SCALED = 10.0, 5.0, 8.3, 4.2
# Bits of the kernels of a family, in words.
_BITS = {
    "bits_16": (16.0, "16 bits"),
    "bits_8": (8.0, "8 bits"),
    "bits_8_block": (8.0, "8 bits in blocks"),
    "weights_8": (8.0, "8-bit weights with 16-bit inputs"),
    "weights_4": (4.0, "4-bit weights with 16-bit inputs"),
    "compute_8": (8.0, "8 bits in 8-bit arithmetic"),
    "bits_4": (4.0, "4 bits"),
    "bits_4_group": (4.0, "4-bit integers in groups"),
}
_AMD_SERVED = (
    "published measurements of served models suggest that AMD GPUs take 2-3 times the predicted time"
)
_FAR = 2.0  # ratio of FLOP per byte beyond which another kernel limit than that of the fit sets the time


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
        *_other_chip(name, part, chip, system.chip),
        *_other_kernels(name, part, model, plan, chip),
        *_other_groups(part, model, plan, system),
    ]
    return [f"extrapolated: {line}" for line in lines]


def _other_chip(name: str, part: EfficiencyFile, chip: str, numbers: Chip) -> Iterator[str]:
    scope = scope_of_library(name)
    # An alias has the numbers of one chip, or of the measured chips of an architecture.
    fitted = part.chips if scope is None else [c for c in part.chips if set(stated_keys(c)) & set(scope[:1])]
    fitted = fitted or part.chips
    if not fitted:
        yield f"{name} does not say which chips it was fitted on"
    elif chip not in fitted:
        balances = [_flops_per_byte(load_chip(other)) for other in fitted]
        here, low, high = _flops_per_byte(numbers), min(balances), max(balances)
        far = []
        if maker(chip) != FITTED_MAKER:
            far.append(f"a chip of another maker than {FITTED_MAKER}, of whom nothing was measured")
        if not low / _FAR <= here <= high * _FAR:
            span = f"{low:.0f}" if low == high else f"{low:.0f}-{high:.0f}"
            far.append(f"{here:.0f} FLOP per byte of memory bandwidth against {span}")
        warning = f"; far outside what was fitted: {' and '.join(far)}" if far else ""
        served = f"; {_AMD_SERVED}" if maker(chip) == "AMD" else ""
        yield f"{name} was fitted on {', '.join(fitted)}, used on {chip}{warning}{served}"


def _flops_per_byte(chip: Chip) -> float:
    return float(chip.compute.flops_16) / max(float(chip.memory.bandwidth), 1.0)


def _matmul_place(weights: float, inputs: float) -> str:
    if inputs > _WIDE:
        return "bits_16" if weights > _WIDE else "weights_8" if weights > _NARROW else "weights_4"
    if max(weights, inputs) <= _NARROW:
        return "bits_4"
    return "bits_16" if weights > _WIDE else "bits_8_block" if 8 < weights <= _BLOCK_SCALED else "bits_8"


def _experts_place(bits: float) -> str:
    if bits > _WIDE:
        return "bits_16"
    if bits > _NARROW:
        return "bits_8_block" if 8 < bits <= _BLOCK_SCALED else "bits_8"
    return "bits_4" if bits > _GROUP_SCALED else "bits_4_group"


def _kernels_used(model: Model, plan: Plan) -> Iterator[tuple[str, tuple[str, ...], str, float]]:
    """Yield what a plan runs, its families of kernels, and the field of their precision and its bits."""
    each = precision_of(plan, model)
    cache, experts, weights, inputs = (
        float(bits) for bits in (each.cache, each.experts, each.weights, each.inputs)
    )
    wider = max(weights, inputs)
    mixed = f"{weights:.4g}-bit weights with {inputs:.4g}-bit inputs" if weights < inputs - _SCALES else ""
    text = f"matmuls of {mixed}" if mixed else f"matmuls at {wider:.4g} bits"
    yield text, ("matmul",), _matmul_place(weights, inputs), weights if mixed else wider
    narrow = "compute_8" if float(each.attention) <= _WIDE else "bits_8"
    kept = "bits_16" if cache > _WIDE else narrow
    at = f"at {cache:.4g} bits"
    if float(attention_layers(model)) > 0:
        yield f"attention with KV {at}", ("attention_prefill", "attention_decode"), kept, cache
    if float(model.latent.layers) > 0:
        yield f"latent attention with KV {at}", ("latent_prefill", "latent_decode"), kept, cache
    if float(model.experts.layers) > 0:
        yield f"experts at {experts:.4g} bits", ("mixture",), _experts_place(experts), experts


def _other_kernels(name: str, part: EfficiencyFile, model: Model, plan: Plan, chip: str) -> Iterator[str]:
    fits: dict[str, dict[str, FitSection]] = {}
    for fit in part.fits:
        fits.setdefault(fit.kernels, {})[fit.bits] = fit
    for what, families, place, bits in _kernels_used(model, plan):
        said = dict.fromkeys(_of_others(part.library, fits, families, place, bits))
        said |= dict.fromkeys(_fewer_chips(name, part, fits, families, place, chip))
        yield from (f"{what}: {text}" for text in said)
    if float(model.recurrence.layers) > 0:
        yield "recurrent layers: no kernel is fitted, shares of the roofline are used"


def _used(rows: Mapping[str, FitSection], place: str) -> str:
    """Return the precision whose numbers a file gives to a place: its own, else the nearest that was measured."""
    return next((other for other in (place, *NEAREST.get(place, ())) if other in rows), "")


def _of_others(
    library: str,
    fits: dict[str, dict[str, FitSection]],
    families: tuple[str, ...],
    place: str,
    bits: float,
) -> Iterator[str]:
    """Yield what the fits of some families lack: any rows, those of the precision, or those of the library."""
    others = []
    for family in families:
        rows = fits.get(family, {})
        used = _used(rows, place)
        if not used:
            yield "no kernel is fitted, ideal kernels are used"
        elif used != place or abs(bits - _BITS.get(place, (bits, ""))[0]) >= _SCALES:
            measured = _listed([_BITS[key][1] for key in sorted(rows, key=list(reversed(_BITS)).index)])
            yield f"fitted at {measured} only; the kernel of {_BITS[used][1]} is used"
        if used and library and (other := rows[used].library.split()[0]) != library:
            others.append(other)
    if others:
        yield f"fitted to rows of {_listed(list(dict.fromkeys(others)))}, none of {library}"


def _fewer_chips(
    name: str,
    part: EfficiencyFile,
    fits: Mapping[str, Mapping[str, FitSection]],
    families: tuple[str, ...],
    place: str,
    chip: str,
) -> Iterator[str]:
    """Yield where a kernel was measured on less than the file says: not on the chip, or on one generation alone."""
    for family in families:
        rows = fits.get(family, {})
        fit = rows.get(_used(rows, place))
        if fit is None or not fit.chips:
            continue
        circumstance, chips = fit_circumstance(fit, part, name, chip), _listed(fit.chips)
        if CIRCUMSTANCES.index(circumstance) > CIRCUMSTANCES.index(file_circumstance(part, name, chip)):
            yield f"measured on {chips} only"
        if circumstance != "shapes" and getattr(fit, circumstance) is None:
            yield f"measured on {chips} only: the error on another {circumstance} is unknown"


def _other_groups(part: EfficiencyFile, model: Model, plan: Plan, system: System) -> Iterator[str]:
    ranks = {fit.kernels: fit.ranks for fit in part.fits if fit.ranks}
    spans = []
    for degree, kernels, total, inside in _groups(model, plan, system.fabric):
        fitted = next((ranks[kernel] for kernel in kernels if kernel in ranks), [])
        if inside > 1 and kernels and not fitted:
            yield f"{degree} {total:g}: no message between its ranks is fitted"
        elif inside > 1 and fitted and not min(fitted) <= inside <= max(fitted):
            yield f"{degree} {total:g}: messages of {inside:g} ranks within a domain, fitted to {_listed(fitted)}"
        over = [
            name for name in kernels if getattr(getattr(part.kernels, name, None), "internode_round", None)
        ]
        if total > inside and over:
            if total > max(fitted, default=0.0):
                yield f"{degree} {total:g}: messages between nodes fitted to {_listed(fitted)} ranks"
        elif total > inside:
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
