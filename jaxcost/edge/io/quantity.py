"""Read a quantity such as "3.35 TB/s" into SI units, strictly.

Decimal prefixes are powers of a thousand, binary prefixes have an i (GiB); B is a byte and bit is a bit. The
usual units are in a table. Pint converts all others, over a registry of only the units below, so that an unknown unit
is an error. Pint is slow to import, and is imported only when a unit is not in the table.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

from jaxcost.edge.io.errors import InputError

__all__ = ["parse_quantity"]

_UNITS = """
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
exa- = 1e18 = E-
milli- = 1e-3 = m-
micro- = 1e-6 = u-
nano- = 1e-9 = n-
pico- = 1e-12 = p-
centi- = 1e-2 = c-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
tebi- = 1099511627776 = Ti-
second = [time] = s
minute = 60 * second = min
hour = 3600 * second = h
day = 24 * hour
year = 365.25 * day
meter = [length] = m
litre = 0.001 * meter ** 3 = L
gram = [mass] = g
joule = [energy] = J
kelvin = [temperature] = K
watt = joule / second = W
watthour = watt * hour = Wh
byte = [information] = B
bit = byte / 8
FLOP = [work]
USD = [currency]
token = [token]
ratio = []
percent = 0.01 * ratio
"""
_PREFIXES = {
    **{"p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "c": 1e-2, "": 1.0},
    **{"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18},
    **{"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40},
}
# (SI unit, unit with a prefix at {}, factor of the unit, power of the prefix)
_PREFIXED = (
    ("B", "{}B", 1.0, 1),
    ("B", "{}bit", 0.125, 1),
    ("B/s", "{}B/s", 1.0, 1),
    ("B/s", "{}bit/s", 0.125, 1),
    ("bit/s", "{}bit/s", 1.0, 1),
    ("FLOP", "{}FLOP", 1.0, 1),
    ("FLOP/s", "{}FLOP/s", 1.0, 1),
    ("s", "{}s", 1.0, 1),
    ("W", "{}W", 1.0, 1),
    ("J", "{}J", 1.0, 1),
    ("J", "{}Wh", 3600.0, 1),
    ("J/B", "{}J/B", 1.0, 1),
    ("J/B", "{}J/bit", 8.0, 1),
    ("J/FLOP", "{}J/FLOP", 1.0, 1),
    ("m", "{}m", 1.0, 1),
    ("m^2", "{}m^2", 1.0, 2),
    ("1/m^2", "1/{}m^2", 1.0, -2),
    ("USD/B", "USD/{}B", 1.0, -1),
    ("USD/W", "USD/{}W", 1.0, -1),
    ("USD/m^2", "USD/{}m^2", 1.0, -2),
    ("kg/B", "kg/{}B", 1.0, -1),
    ("kg/W", "kg/{}W", 1.0, -1),
)
# {SI unit: {unit: factor}}; every factor is bitwise equal to the one that Pint computes.
_FACTORS: dict[str, dict[str, float]] = {
    "": {"percent": 0.01, "ratio": 1.0},
    "s": {"min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0, "day": 86400.0, "year": 31557600.0},
    "1/s": {"1/s": 1.0, "percent/year": 3.1688087814028947e-10},
    "K": {"K": 1.0},
    "kg": {"kg": 1.0, "g": 1e-3},
    "kg/m^2": {"g/cm^2": 10.0, "kg/cm^2": 1e4},
    "kg/J": {"g/kWh": 2.7777777777777777e-10, "kg/kWh": 2.7777777777777776e-07},
    "USD": {"USD": 1.0},
    "USD/s": {"USD/h": 0.0002777777777777778},
    "USD/J": {"USD/kWh": 2.7777777777777776e-07},
    "USD/m^3": {"USD/m^3": 1.0},
    "J/m^2": {"kWh/cm^2": 3.6e10},
    "K*m^2/W": {"K*mm^2/W": 1e-6, "K*cm^2/W": 1e-4},
    "m^2/B": {"mm^2/MB": 1e-12},
    "m^2*s/B": {"mm^2/(GB/s)": 1e-15},
    "m^2*s/FLOP": {"mm^2/(TFLOP/s)": 9.999999999999999e-19},
    "m*s/B": {"mm/(GB/s)": 1.0000000000000002e-12},
    "m^3/J": {"L/kWh": 2.7777777777777777e-10},
    "token": {"token": 1.0},
    "B/token": {"B/token": 1.0, "kB/token": 1e3, "MB/token": 1e6, "KiB/token": 2.0**10, "MiB/token": 2.0**20},
}
for _si, _unit, _scale, _power in _PREFIXED:
    _FACTORS.setdefault(_si, {}).update(
        {_unit.format(prefix): factor**_power * _scale for prefix, factor in _PREFIXES.items()}
    )
_FORM = re.compile(r"\s*([+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*?)\s*")
_POWER = re.compile(r"(?<=[A-Za-z)])\s*(?:\^|\*\*)\s*\(?-?\d\)?(?![\d^*])|(?<![A-Za-z0-9])1(?![A-Za-z0-9])")
_LARGEST = 3e38  # of float32
_EXAMPLES = {
    "B/s": "3.35 TB/s",
    "B": "80 GB",
    "FLOP/s": "989 TFLOP/s",
    "1/s": "3.9e12 1/s",
    "s": "2.8 us",
    "W": "700 W",
    "J/B": "3.6 pJ/bit",
    "J/FLOP": "0.6 pJ/FLOP",
    "J": "7.4 pJ",
    "USD": "30000 USD",
    "USD/B": "15 USD/GB",
    "USD/W": "11.7 USD/W",
    "USD/s": "2.35 USD/h",
    "USD/m^2": "0.3 USD/mm^2",
    "USD/m^3": "2 USD/m^3",
    "m^3/J": "0.5 L/kWh",
    "m^2*s/FLOP": "0.4 mm^2/(TFLOP/s)",
    "m^2/B": "0.5 mm^2/MB",
    "m^2*s/B": "0.04 mm^2/(GB/s)",
    "m*s/B": "0.03 mm/(GB/s)",
    "J/m^2": "2.75 kWh/cm^2",
    "kg/W": "0.6 kg/W",
    "USD/J": "0.08 USD/kWh",
    "kg": "200 kg",
    "kg/B": "0.4 kg/GB",
    "kg/J": "481 g/kWh",
    "kg/m^2": "2.5 kg/cm^2",
    "m^2": "814 mm^2",
    "m": "11 mm",
    "K": "368 K",
    "K*m^2/W": "20 K*mm^2/W",
    "1/m^2": "1e4 1/mm^2",
    "bit/s": "2 Gbit/s",
    "FLOP": "2 GFLOP",
    "token": "2048 token",
    "B/token": "1.5 MiB/token",
}


@functools.cache
def _registry() -> Any:
    import pint

    make: Any = pint.UnitRegistry  # versions differ in whether they declare that a first argument may be None
    registry = make(None, cache_folder=None)
    for line in _UNITS.strip().splitlines():
        registry.define(line)
    registry.define("kilogram = 1000 * gram")
    return registry


def parse_quantity(given: object, unit: str, *, file: object = None, path: str = "") -> float:
    """Return a quantity as a number in an SI unit.

    Args:
        given: text such as "80 GB"; a bare number is allowed only where the unit is "1".
        unit: the SI unit wanted, such as "B/s".
        file: the file that errors name.
        path: the dotted path that errors name.

    Raises:
        InputError: `given` has another dimension, is not finite or is negative.
    """
    example = f", such as {_EXAMPLES[unit]!r}" if unit in _EXAMPLES else ""
    expected = "a number" if unit == "1" else f"a quantity in {unit}{example}"

    def error(detail: str = "") -> InputError:
        return InputError(expected + detail, file=file, path=path, given=given)

    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise error()
    if isinstance(given, str):
        form = _FORM.fullmatch(given)
        if form is None:
            raise error()
        number, text = float(form[1]), form[2]
    else:
        try:
            number, text = float(given), ""
        except OverflowError:
            raise error(", finite and not negative") from None
    if not text and unit != "1":
        raise error(" with its unit")
    value = number * _unit_factor(text, unit, error) if text else number
    if not 0 <= value <= _LARGEST:  # also refuses NaN
        raise error(", finite and not negative")
    return value


def _unit_factor(text: str, unit: str, error: Callable[[str], InputError]) -> float:
    """Return the factor from the unit in `text` to an SI unit."""
    if len(text) > 40 or not re.fullmatch(r"[A-Za-z0-9%/*^ ()\-]+", text):
        raise error("")
    if re.search(r"\d|\^|\*\*", _POWER.sub("", text)):  # Pint would not finish a tower of powers
        raise error("")
    if re.search(r"(?<![A-Za-z])[kKMGTPmgtp]i?b(?![A-Za-z])", text):
        raise error(" (a lone b could be a bit or a byte: write bit or B)")
    if re.search(r"(?<![A-Za-z])[kmgtp]B(?![A-Za-z])", text) and not re.search(r"(?<![A-Za-z])kB", text):
        raise error(" (prefixes above kilo are capitals: GB, TB)")
    text, unit = text.replace("%", "percent"), "" if unit == "1" else unit
    factor = _FACTORS.get(unit, {}).get(text)
    if factor is not None:
        return factor
    try:
        return _pint_factor(text, unit)
    except (ValueError, TypeError, AttributeError, SyntaxError, AssertionError, LookupError, ArithmeticError):
        raise error("") from None
    except Exception as problem:  # Pint and its tokenizer have error classes of their own
        package = type(problem).__module__.split(".")[0]
        if package in {"tokenize", "pint", "flexparser"} or isinstance(problem, RecursionError):
            raise error("") from None
        raise


@functools.lru_cache(maxsize=4096)
def _pint_factor(text: str, unit: str) -> float:
    registry = _registry()
    source, target = registry.parse_units(text), registry.parse_units(unit)
    return float(registry.Quantity(1.0, source).to(target).magnitude)
