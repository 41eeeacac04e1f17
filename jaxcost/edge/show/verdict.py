"""The verdict on a design: whether it fits, by how much, and which limit binds."""

import dataclasses
from collections.abc import Mapping, Sequence

from jaxcost.core.units import engineering
from jaxcost.spec.memory import TIERS

__all__ = ["Verdict", "judge", "judge_service", "unfit_line"]

# The excess over a limit in words, with the ratio of use to limit.
_EXCESS = {
    "memory": "main memory would have to hold {} times what the engine may use",
    "sram": "on-chip memory would have to hold {} times what it has",
    "hbf": "the flash stacks would have to hold {} times what they have",
    "host": "host memory would have to hold {} times what it has",
    "cxl": "the CXL memory would have to hold {} times what it has",
    "ssd": "the drives would have to hold {} times what they have",
    "sequences": "a replica has {} times the most sequences of the engine",
    "chips": "the plan takes {} times the chips of the system",
    "plan": "the model cannot be cut by this plan, or there are no requests",
    "power": "a chip draws {} times its power (TDP)",
    "ttft": "TTFT is {} times its target",
    "tpot": "TPOT is {} times its target",
    "temperature": "a chip heats up {} times as much as allowed",
    "shoreline": "stacks and links take {} times the edge of the die",
    "area": "a die has {} times the area of the reticle",
    "endurance": "memory is written {} times as often as its cells endure",
    "prefill": "prefill is busy for {} times the time there is",
    "slots": "requests take {} times the slots",
    "hardware": "chips, heat or wear are {} times what is allowed",
}
_FIT = (*TIERS, "sequences", "chips", "plan")  # limits without which a design cannot run
_NAMES = {
    "memory": "memory",
    "ttft": "TTFT",
    "tpot": "TPOT",
    "slots": "slots",
    "hardware": "chips, heat, wear",
}
_NOTHING = 1e6  # ratio of memory from which there is none: margins divide by 1 byte at least
_PLURAL = ("slots", "hardware", "hbf", "ssd", "sequences")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a design fits and satisfies its limits.

    Attributes:
        text: one sentence.
        short: the same for a cell of a table.
        binding: the constraint with the smallest margin, of those that can fail.
        exceeded: violated constraints: those without which the design cannot run, then the worst first.
    """

    text: str
    short: str
    binding: str
    exceeded: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether the design can run, though it may miss targets or limits."""
        return not any(key in _FIT for key in self.exceeded)


def judge(
    margins: Mapping[str, float], used: float, available: float, names: Mapping[str, str] | None = None
) -> Verdict:
    """Return the verdict on an evaluation.

    Args:
        margins: the margin of every constraint that can fail; targets that are not set are left out.
        used: bytes in use on the fullest chip.
        available: bytes that the engine may use.
        names: names of constraints; their keys where absent.
    """
    names, exceeded = names or _NAMES, _exceeded(margins, 0.0)
    memory = f"{_bytes(used, available)} in use on the fullest chip"
    if exceeded:
        opening = f"Fits in memory ({memory}) but exceeds {_limits(exceeded)}"
        return _violated(opening, exceeded, margins, names)
    free = 1 - used / available if available > 0 else 0.0
    return _satisfied(f"Fits: {memory}, {free:.1%} free", margins, names)


def judge_service(
    margins: Mapping[str, float], deployment: str, rounding: float, names: Mapping[str, str] | None = None
) -> Verdict:
    """Return the verdict on a deployment.

    Args:
        margins: the margin of every constraint that can fail.
        deployment: the deployment in words.
        rounding: size of negative margins that count as 0.
        names: names of constraints; their keys where absent.
    """
    names, exceeded = names or _NAMES, _exceeded(margins, rounding)
    if exceeded:
        return _violated(f"Exceeds {_limits(exceeded)}", exceeded, margins, names)
    return _satisfied(f"Fits: {deployment}", margins, names)


def unfit_line(verdict: Verdict) -> str:
    """Return the line that precedes times and costs of a design that exceeds limits; empty for one that does not."""
    if not verdict.exceeded:
        return ""
    what = f"exceeds {_limits(verdict.exceeded)}" if verdict.fits else "does not fit"
    return f"Times, energy and costs below are those of a design that {what}."


def _exceeded(margins: Mapping[str, float], rounding: float) -> tuple[str, ...]:
    violated = [key for key in margins if margins[key] < -rounding]
    return tuple(sorted(violated, key=lambda key: (key not in _FIT, margins[key])))


def _limits(exceeded: Sequence[str]) -> str:
    return "a limit" if len(exceeded) == 1 else "limits"


def _violated(
    opening: str, exceeded: tuple[str, ...], margins: Mapping[str, float], names: Mapping[str, str]
) -> Verdict:
    words = "; ".join(_excess(key, margins[key]) for key in exceeded)
    ratios = ", ".join(f"{names.get(key, key)} {_times(1 - margins[key])} times" for key in exceeded)
    if any(key in _FIT for key in exceeded):
        return Verdict(f"Does not fit: {words}", f"Does not fit: {ratios}", exceeded[0], exceeded)
    return Verdict(f"{opening}: {words}", f"Exceeds {ratios}", exceeded[0], exceeded)


def _satisfied(opening: str, margins: Mapping[str, float], names: Mapping[str, str]) -> Verdict:
    """Return the verdict on a design without violations; that all chips are in use does not bind."""
    binding = min((key for key in margins if key != "chips"), key=margins.__getitem__)
    verb = "bind" if binding in _PLURAL else "binds"
    first = f"{names.get(binding, binding)} {verb} first (+{max(margins[binding], 0.0):.1%})"
    return Verdict(f"{opening}; {first}", f"Fits; {first}", binding, ())


def _excess(key: str, margin: float) -> str:
    if key == "memory" and 1 - margin > _NOTHING:
        return "the engine may use no main memory"
    return _EXCESS[key].format(_times(1 - margin))


def _times(ratio: float) -> str:
    if ratio < 1.01:
        return f"{ratio:.4g}"
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.1f}" if ratio < 1000 else f"{ratio:,.0f}"


def _bytes(used: float, available: float) -> str:
    """Return "26.7 of 80.8 GB", or both units where they differ."""
    (a, unit), (b, other) = (engineering(x, "B").rsplit(" ", 1) for x in (used, available))
    return f"{a} of {b} {other}" if unit == other else f"{a} {unit} of {b} {other}"
