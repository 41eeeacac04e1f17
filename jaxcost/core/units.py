"""Format numbers with units and decimal prefixes: 7.49 ms, 80.0 GB, 3.35 TB/s, 1.71 USD/Mtok."""

import math

__all__ = ["engineering", "number"]

_NAMES = ("a", "f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E")
_PREFIXES = {3 * power: name for power, name in enumerate(_NAMES, start=-6)}
_PREFIXED = ("s", "B", "FLOP", "W", "J", "g", "Hz")
_NEVER_ABOVE_ONE = ("s",)  # no kiloseconds or megaseconds
_NEVER_BELOW_ONE = ("B", "FLOP")
_COUNTS = ("", "1", "bit", "token")
_SCIENTIFIC_BELOW, _SCIENTIFIC_ABOVE = 1e-3, 1e7


def number(value: float, digits: int = 3) -> str:
    """Format a number without unit to `digits` significant digits: 0.00312, 1.71, 12,300, 2.22e-8.

    A whole number below ten million keeps all its digits: 128,256.
    """
    value = float(value)
    if not math.isfinite(value) or value == 0:
        return "0" if value == 0 else str(value)
    size = abs(value)
    whole = value == round(value) and size < _SCIENTIFIC_ABOVE
    if whole and size >= 10**digits:
        return f"{value:,.0f}"
    rounded = _round(value, digits)
    size = abs(rounded)
    if size < _SCIENTIFIC_BELOW or size >= _SCIENTIFIC_ABOVE:
        mantissa, exponent = f"{rounded:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
    return f"{rounded:,.{decimals}f}"


def engineering(value: float, unit: str, digits: int = 3) -> str:
    """Format a value in SI units with a decimal prefix: `engineering(0.00749, "s")` is "7.49 ms".

    The prefix applies to the first unit of a compound unit ("TB/s"). Units without prefixes, such as USD, counts and
    shares, are formatted by `number`. Kilograms are shown as grams with a prefix, square metres as mm^2.
    """
    value = float(value)
    if unit == "m^2":
        return f"{number(value * 1e6, digits)} mm^2"
    if unit == "kg" or unit.startswith("kg/"):
        return engineering(value * 1000, unit[1:], digits)
    if unit in _COUNTS and value == round(value) and abs(value) < _SCIENTIFIC_ABOVE:
        return f"{value:,.0f} {unit if unit != '1' else ''}".strip()
    if unit in ("", "1"):
        return number(value, digits)
    base = unit.split("/")[0]
    if base not in _PREFIXED or not math.isfinite(value) or value == 0:
        return f"{number(value, digits)} {unit}"
    rounded = _round(value, digits)
    exponent = 3 * math.floor(_magnitude(rounded) / 3)
    exponent = min(max(exponent, min(_PREFIXES)), max(_PREFIXES))
    if base in _NEVER_ABOVE_ONE:
        exponent = min(exponent, 0)
    if base in _NEVER_BELOW_ONE:
        exponent = max(exponent, 0)
    scaled = rounded / 10.0**exponent
    if exponent == 0 or not 1 <= abs(scaled) < 1000:
        return f"{number(scaled, digits)} {_PREFIXES[exponent]}{unit}"
    decimals = max(digits - 1 - _magnitude(scaled), 0)
    return f"{scaled:.{decimals}f} {_PREFIXES[exponent]}{unit}"


def _round(value: float, digits: int) -> float:
    return float(f"{value:.{digits - 1}e}")


def _magnitude(value: float) -> int:
    """Return the power of ten of the leading digit, exactly (log10 of 1000 may fall short of 3)."""
    return int(f"{value:e}".split("e")[1])
