"""Failures and losses in an evaluation, in words, each with the knob that would remove it."""

import dataclasses

from jaxcost.core.units import engineering
from jaxcost.physics.compute.roofline import OpTimes
from jaxcost.physics.memory.tiers import AUXILIARY_TIERS, prefetch_buffer
from jaxcost.report import Report
from jaxcost.spec.memory import TIERS, Memory
from jaxcost.spec.model import Model
from jaxcost.spec.system import System

__all__ = ["Finding", "diagnose"]

_ROUNDING = 1e-4
_WORTH_SAYING = 0.02  # share of a step's time from which a loss is reported
_NAMES = {
    "sram": "on-chip memory",
    "memory": "main memory",
    "hbf": "the flash stacks",
    "host": "host memory",
    "cxl": "the CXL memory",
    "ssd": "the drives",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One failure or loss.

    Attributes:
        what: the failure in words.
        knob: dotted path of the number that would remove it.
        share: the lost share of the step's time, or the relative excess over a limit.
    """

    what: str
    knob: str
    share: float


def diagnose(system: System, model: Model, report: Report) -> list[Finding]:
    """List the failures and losses that a report shows, the largest first.

    Checked are: decode stalls from a prefetch window that is too short, reads that wait for routing, accesses that
    wait for engines in memory, heat, a power cap, late ranks, tiers that are too small or wear out early, and the
    limits of die edge, reticle and power.

    Args:
        system: the system that was evaluated.
        model: the model.
        report: the evaluation, with concrete numbers.
    """
    findings = [
        *_slow_tiers(system, report),
        *_waits(system, model, report),
        *_stalls(system, report.decode),
        *_heat(report),
        *_slowed(report),
        *_late(report),
        *_full(report),
        *_worn(report),
        *_limits(report),
    ]
    return sorted(findings, key=lambda finding: -finding.share)


def _slow_tiers(system: System, report: Report) -> list[Finding]:
    findings = []
    for name in AUXILIARY_TIERS:
        tier: Memory = getattr(system.chip, name)
        peak = float(tier.bandwidth) * float(system.chip.efficiency.memory)
        reached, used = (float(getattr(getattr(report.tiers, name), key)) for key in ("bandwidth", "used"))
        if used <= 0 or reached >= peak * (1 - _WORTH_SAYING):
            continue
        streams = f"{_NAMES[name]} stream{'s' if name in ('sram', 'host', 'cxl') else ''} only"
        much = f"{streams} {engineering(reached, 'B/s')} of {engineering(peak, 'B/s')}"
        needed, available = float(prefetch_buffer(tier)), float(tier.buffer)
        if 0 < available < needed:
            why = (
                f"{much}: the prefetch window of {engineering(available, 'B')} is shorter than the "
                f"{engineering(needed, 'B')} that hide {engineering(float(tier.latency), 's')}"
            )
            findings.append(
                Finding(f"decode stalls, for {why}", f"system.chip.{name}.buffer", 1 - reached / peak)
            )
        else:
            why = f"{much}: its reads are too small or too few are in flight"
            findings.append(Finding(why, f"system.chip.{name}.queue_depth", 1 - reached / peak))
    return findings


def _waits(system: System, model: Model, report: Report) -> list[Finding]:
    slow = {
        n: float(getattr(system.chip, n).latency)
        for n in AUXILIARY_TIERS
        if float(getattr(report.tiers, n).used) > 0
    }
    if not slow or float(model.experts.layers) == 0 or float(report.memory.experts) == 0:
        return []
    name = max(slow, key=slow.__getitem__)
    share = float(model.experts.layers) * slow[name] / float(report.decode.total)
    if share < _WORTH_SAYING:
        return []
    what = (
        f"{share:.0%} of a decode step waits for {_NAMES[name]}: which experts to read is known only once a layer "
        f"has routed, {engineering(slow[name], 's')} before their first byte"
    )
    return [Finding(what, f"system.chip.{name}.latency", share)]


def _stalls(system: System, decode: OpTimes) -> list[Finding]:
    blocking = [n for n in TIERS if float(getattr(system.chip, n).near.blocking) > 0]
    waiting = sum(min(float(row.near), float(row.memory)) for row in decode.rows)
    share = waiting / float(decode.total)
    if not blocking or share < _WORTH_SAYING:
        return []
    what = (
        f"{share:.0%} of a decode step is ordinary reads waiting while engines in {_NAMES[blocking[0]]} work"
    )
    return [Finding(what, f"system.chip.{blocking[0]}.near.blocking", share)]


def _heat(report: Report) -> list[Finding]:
    findings = []
    near = any(float(row.near) > 0 for row in report.decode.rows)
    for phase in ("prefill", "decode"):
        heat, total = getattr(report.thermal, phase), float(getattr(report, phase).total)
        celsius = float(heat.temperature) - 273.15
        if float(heat.throttling) > _WORTH_SAYING * total:
            by = " by the power of engines near memory" if near and phase == "decode" else ""
            what = f"{phase} is throttled{by}: {float(heat.throttling) / total:.0%} of it, to stay at {celsius:.0f} C"
            knob = "system.chip.memory.near.energy_per_byte" if by else "system.chip.cooling.sink"
            findings.append(Finding(what, knob, float(heat.throttling) / total))
        if float(heat.refresh) > _WORTH_SAYING * total:
            share = float(heat.refresh) / total
            what = f"{share:.0%} of {phase} goes to refresh, which doubles above 85 C"
            findings.append(Finding(what, "system.chip.cooling.sink", share))
    if float(report.margins.temperature) < -_ROUNDING:
        findings.append(
            Finding(
                "the junction is too hot even while throttled",
                "system.chip.cooling.sink",
                -float(report.margins.temperature),
            )
        )
    return findings


def _slowed(report: Report) -> list[Finding]:
    findings = []
    for phase in ("prefill", "decode"):
        share = float(getattr(report, phase).capped) / float(getattr(report, phase).total)
        if share > _WORTH_SAYING:
            clock = float(getattr(report.power, f"{phase}_clock"))
            what = f"{phase} takes {share:.0%} of its time to keep the power cap, at {clock:.0%} of the clock"
            findings.append(Finding(what, "system.chip.power_cap", share))
    return findings


def _late(report: Report) -> list[Finding]:
    stale = float(report.reliability.stale_tokens)
    if stale < _WORTH_SAYING / 10:
        return []
    what = f"collectives time out: {stale:.1%} of the tokens use a late rank's old data"
    return [Finding(what, "system.fabric.timeout", stale)]


def _full(report: Report) -> list[Finding]:
    findings = []
    for name in TIERS:
        margin = float(getattr(report.margins, name))
        if margin < -_ROUNDING:
            limit = "the engine may use" if name == "memory" else "it has"
            what = f"{_NAMES[name]} would have to hold {1 - margin:.2f} times what {limit}"
            findings.append(Finding(what, f"system.chip.{name}.capacity", -margin))
    return findings


def _worn(report: Report) -> list[Finding]:
    findings = []
    for name in TIERS:
        use = getattr(report.tiers, name)
        if float(use.wear) > 1 + _ROUNDING:
            what = (
                f"{_NAMES[name]} {'are' if name in ('hbf', 'ssd') else 'is'} worn out early: "
                f"{engineering(float(use.written), 'B/s')} written use up {float(use.wear):.1f} times its cycles "
                "in the hardware's life"
            )
            findings.append(Finding(what, f"system.chip.{name}.endurance", float(use.wear) - 1))
    return findings


def _limits(report: Report) -> list[Finding]:
    words = {
        "power": ("the chip draws {:.2f} times its power", "system.chip.tdp"),
        "shoreline": ("stacks and links take {:.2f} times the edge of the die", "system.chip.shoreline"),
        "area": ("a die has {:.2f} times the area of the reticle", "system.chip.package.dies"),
    }
    return [
        Finding(text.format(1 - margin), knob, -margin)
        for name, (text, knob) in words.items()
        if (margin := float(getattr(report.margins, name))) < -_ROUNDING
    ]
