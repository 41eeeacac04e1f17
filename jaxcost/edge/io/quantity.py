"""Read a quantity such as "3.35 TB/s" into SI units, strictly.

Decimal prefixes are powers of a thousand, binary ones only with an i (GiB); B is a byte and bit a bit. Pint does
the arithmetic, over a registry of just the units that belong here: what is not among them is an error, not a guess.
"""

import functools
import re
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
    """Read a number with its unit.

    Args:
        given: text such as "80 GB"; a bare number is allowed only where the unit is "1".
        unit: the SI unit wanted, such as "B/s".
        file: named in errors.
        path: dotted path of the value, named in errors.

    Raises:
        InputError: no quantity of that dimension, or not finite, or negative.
    """
    example = f", such as {_EXAMPLES[unit]!r}" if unit in _EXAMPLES else ""
    wanted = "a number" if unit == "1" else f"a quantity in {unit}{example}"

    def fail(extra: str = "", suggestion: str | None = None) -> InputError:
        return InputError(wanted + extra, file=file, path=path, given=given, suggestion=suggestion)

    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise fail()
    if isinstance(given, str):
        form = _FORM.fullmatch(given)
        if form is None:
            raise fail()
        number, text = float(form[1]), form[2]
    else:
        try:
            number, text = float(given), ""
        except OverflowError:
            raise fail(", finite and not negative") from None
    if not text and unit != "1":
        raise fail(" with its unit")
    value = number * _factor(text, unit, fail) if text else number
    if not 0 <= value <= _LARGEST:  # nan too
        raise fail(", finite and not negative")
    return value


def _factor(text: str, unit: str, fail: Any) -> float:
    if len(text) > 40 or not re.fullmatch(r"[A-Za-z0-9%/*^ ()\-]+", text):
        raise fail()
    if re.search(r"\d|\^|\*\*", _POWER.sub("", text)):  # a tower of powers would take Pint forever
        raise fail()
    if re.search(r"(?<![A-Za-z])[kKMGTPmgtp]i?b(?![A-Za-z])", text):
        raise fail(" (a lone b could be a bit or a byte: write bit or B)")
    if re.search(r"(?<![A-Za-z])[kmgtp]B(?![A-Za-z])", text) and not re.search(r"(?<![A-Za-z])kB", text):
        raise fail(" (prefixes above kilo are capitals: GB, TB)")
    import pint

    try:
        return _ratio(text.replace("%", "percent"), "" if unit == "1" else unit)
    except pint.DimensionalityError:
        raise fail() from None
    except (pint.PintError, ValueError, TypeError, AttributeError, SyntaxError, AssertionError, KeyError):
        raise fail() from None
    except Exception as error:  # pint's tokenizer raises its own kinds on malformed expressions
        if type(error).__module__.split(".")[0] in {"tokenize", "pint", "flexparser"} or isinstance(
            error, ArithmeticError | RecursionError
        ):
            raise fail() from None
        raise


@functools.lru_cache(maxsize=4096)
def _ratio(text: str, unit: str) -> float:
    registry = _registry()
    found, target = registry.parse_units(text), registry.parse_units(unit)
    return float(registry.Quantity(1.0, found).to(target).magnitude)
