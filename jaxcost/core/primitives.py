"""NumPy functions for element-wise JAX primitives.

`PLAIN` maps names to functions. `RULES` maps the names of primitives that depend on parameters to functions from
(parameters, types in, types out) to a NumPy function; `rule` adds one.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

__all__ = ["PLAIN", "RULES", "Function", "UnknownPrimitiveError", "rule"]

Function = Callable[..., Any]
RULES: dict[str, Callable[[dict[str, Any], Sequence[Any], Sequence[Any]], Function]] = {}


class UnknownPrimitiveError(NotImplementedError):
    """A jaxpr has a primitive, a parameter or a type that the interpreter does not support."""


def _scipy(name: str) -> Function:
    def function(x: Any) -> Any:
        from scipy import special

        return getattr(special, name)(x)

    return function


def _one(x: Any) -> Any:
    return x.dtype.type(1)


def _sign(x: Any) -> Any:
    return np.copysign(np.sign(x), x) if x.dtype.kind == "f" else np.sign(x)


def _divide(x: Any, y: Any) -> Any:
    """Divide; integers as XLA does: towards zero, all bits set for division by zero."""
    if x.dtype.kind == "f":
        return x / y
    quotient = np.floor_divide(x, np.where(y == 0, 1, y))
    if x.dtype.kind == "i":
        quotient = quotient + ((x % np.where(y == 0, 1, y) != 0) & ((x < 0) != (y < 0)))
    return np.where(y == 0, np.invert(np.zeros_like(x)), quotient).astype(x.dtype)[()]


def _remainder(x: Any, y: Any) -> Any:
    """Return what division towards zero leaves; the dividend itself for an integer divided by zero."""
    if x.dtype.kind == "f":
        return np.fmod(x, y)
    return np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y))).astype(x.dtype)[()]


def _shift(function: Function, kind: str = "", *, fill_sign: bool = False) -> Function:
    """Shift bits, taken as signed or unsigned; a shift by all of them or more leaves zeros, or the sign."""

    def shifted(x: Any, by: Any) -> Any:
        bits = x.dtype.itemsize * 8
        taken = x.view(f"{kind}{x.dtype.itemsize}") if kind else x
        outside = (by < 0) | (by >= bits)
        result = function(taken, np.where(outside, 0, by).astype(taken.dtype))
        rest = -(taken < 0).astype(taken.dtype) if fill_sign else 0
        return np.where(outside, rest, result).astype(taken.dtype).view(x.dtype)[()]

    return shifted


def _power(x: Any, y: Any) -> Any:
    # NumPy takes sqrt(x) for a scalar exponent of 1/2, which is not x^(1/2) at -inf.
    return np.where((y == 0.5) & np.isneginf(x), np.inf, np.power(x, y.astype(x.dtype))).astype(x.dtype)[()]


def _clamp(low: Any, x: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _erf_inv(x: Any) -> Any:
    return np.copysign(_scipy("erfinv")(x), x)


def _lgamma(x: Any) -> Any:
    return np.where(np.isinf(x), np.abs(x), _scipy("gammaln")(x))[()]


def _polynomial(x: Any, *coefficients: Any) -> Any:
    """Add up c_k x^k."""
    total = coefficients[-1]
    for c in coefficients[-2::-1]:
        total = total * x + c
    return total


def _logistic(x: Any) -> Any:
    return _one(x) / (_one(x) + np.exp(-x))


PLAIN: dict[str, Function] = {
    # Python's operators are several times as fast as NumPy's functions on scalars.
    "add": operator.add,
    "add_any": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "not": np.invert,
    "abs": operator.abs,
    "square": lambda x: x * x,
    "rem": _remainder,
    "max": np.maximum,
    "min": np.minimum,
    "clamp": _clamp,
    "sign": _sign,
    "pow": _power,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: _one(x) / np.sqrt(x),
    "cbrt": np.cbrt,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log1p": np.log1p,
    "logistic": _logistic,
    "polynomial": _polynomial,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": _scipy("erf"),
    "erfc": _scipy("erfc"),
    "erf_inv": _erf_inv,
    "lgamma": _lgamma,
    "digamma": _scipy("psi"),
    "floor": np.floor,
    "ceil": np.ceil,
    "is_finite": np.isfinite,
    "nextafter": np.nextafter,
    "population_count": lambda x: np.bitwise_count(x.view(f"u{x.dtype.itemsize}")).astype(x.dtype),
    "shift_left": _shift(np.left_shift),
    "shift_right_arithmetic": _shift(np.right_shift, "i", fill_sign=True),
    "shift_right_logical": _shift(np.right_shift, "u"),
}


def rule(*names: str) -> Callable[[Function], Function]:
    """Register what makes the functions of these primitives from their parameters."""

    def register(make: Function) -> Function:
        RULES.update(dict.fromkeys(names, make))
        return make

    return register


@rule("div")
def _div_rule(params: Any, before: Any, after: Any) -> Function:
    return operator.truediv if after[0].dtype.kind == "f" else _divide


@rule("select_n")
def _select_rule(params: Any, before: Any, after: Any) -> Function:
    if before[0].shape == ():
        return lambda which, *cases: cases[int(which)]
    if len(before) == 3:
        return lambda which, no, yes: np.where(which, yes, no)
    return lambda which, *cases: np.choose(which, cases)


@rule("integer_pow")
def _integer_pow_rule(params: Any, before: Any, after: Any) -> Function:
    exponent = params["y"]
    if exponent == 2:
        return lambda x: x * x

    def power(x: Any) -> Any:
        result, square, left = None, x, abs(exponent)
        while left:
            if left & 1:
                result = square if result is None else result * square
            left >>= 1
            square = square * square if left else square
        result = np.ones_like(x)[()] if result is None else result
        return _one(x) / result if exponent < 0 else result

    return power


@rule("round")
def _round_rule(params: Any, before: Any, after: Any) -> Function:
    if params["rounding_method"] == lax.RoundingMethod.TO_NEAREST_EVEN:
        return np.rint

    def away_from_zero(x: Any) -> Any:
        whole = np.trunc(x)
        return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(_one(x), x), whole)[()]

    return away_from_zero


@rule("convert_element_type")
def _convert_rule(params: Any, before: Any, after: Any) -> Function:
    source, target = before[0].dtype, after[0].dtype
    if target.kind == "b":
        return lambda x: x != 0
    if source.kind == "f" and target.kind in "iu":
        return functools.partial(_saturate, dtype=target)
    return target.type if before[0].shape == () else lambda x: x.astype(target)


def _saturate(x: Any, dtype: np.dtype) -> Any:
    """Convert floats to integers as XLA does: towards zero, NaN to 0, what is outside to the nearest end."""
    limits = np.iinfo(dtype)
    low, high = x <= limits.min, x >= x.dtype.type(limits.max)
    inside = np.where(np.isnan(x) | low | high, 0, x).astype(dtype)
    return np.where(high, dtype.type(limits.max), np.where(low, dtype.type(limits.min), inside))[()]


@rule("bitcast_convert_type")
def _bitcast_rule(params: Any, before: Any, after: Any) -> Function:
    if before[0].dtype.itemsize != after[0].dtype.itemsize:
        raise UnknownPrimitiveError(f"bitcast_convert_type of {before[0]} with {params}")
    return lambda x: x.view(after[0].dtype)


@rule("reduce_precision")
def _reduce_precision_rule(params: Any, before: Any, after: Any) -> Function:
    own = np.finfo(before[0].dtype)
    if (params["exponent_bits"], params["mantissa_bits"]) != (own.nexp, own.nmant):
        raise UnknownPrimitiveError(f"reduce_precision of {before[0]} with {params}")
    return lambda x: x
