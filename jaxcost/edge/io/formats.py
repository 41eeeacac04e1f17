"""Number formats by name, and the bits of one stored element, including block scales."""

import math

from jaxcost.edge.io.errors import InputError, nearest

__all__ = ["FORMATS", "MOST_BITS", "read_bits"]

MOST_BITS = 32.0

# A block scale of s bits for n elements adds s / n bits an element.
FORMATS: dict[str, float] = {
    "fp32": 32.0,
    "bf16": 16.0,
    "fp16": 16.0,
    "fp8": 8.0,
    "int8": 8.0,
    "fp8-block": 8 + 32 / (128 * 128),  # one fp32 scale a block of 128 x 128: DeepSeek-V3, arXiv:2412.19437
    "mxfp8": 8 + 8 / 32,  # one E8M0 scale a block of 32: OCP Microscaling Formats 1.0
    "mxfp6": 6 + 8 / 32,
    "mxfp4": 4 + 8 / 32,
    "nvfp4": 4 + 8 / 16,  # one E4M3 scale a block of 16
    "int4": 4.0,
    "ternary": 1.6,  # five ternary digits in a byte
}


def read_bits(given: object, path: str = "") -> float:
    """Return the bits of one stored element, from the name of a format or a number in (0, 32].

    Raises:
        InputError: `given` is neither.
    """
    name = str(given).strip().lower()
    if name in FORMATS:
        return FORMATS[name]
    try:
        bits = math.nan if isinstance(given, bool) else float(name)
    except ValueError:
        expected = "bits in (0, 32] or a format among " + ", ".join(FORMATS)
        raise InputError(expected, path=path, given=given, suggestion=nearest(name, FORMATS)) from None
    if not 0 < bits <= MOST_BITS:
        raise InputError("bits in (0, 32]", path=path, given=given)
    return bits
