"""Run a jaxpr with NumPy, so that one design is answered without the compiler.

A jaxpr is a list of equations over some eighty primitives, and NumPy has a function for each. `Interpreter` turns a
jaxpr into a flat list of calls once: the programs inside `jit`, `custom_jvp_call`, `checkpoint` and the like are
written out in place, equations that nothing uses are dropped, and every value has a slot that is emptied after its
last use. Running that list takes about 1 us an equation for scalars, where compiling takes about 1 ms.

Types and shapes are those of the jaxpr, for booleans, integers and f32, f64 floats; a value without axes is a NumPy
scalar. Results differ from the compiled program's by rounding, and in two more ways, both of XLA on a CPU:

- Subnormal numbers are kept. XLA takes them for zero.
- Of `max(0.0, -0.0)` and `min(0.0, -0.0)` the sign is not specified.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import Literal

__all__ = ["Interpreter", "UnknownPrimitiveError", "interpret", "known_primitives", "trace"]

Function = Callable[..., Any]


class UnknownPrimitiveError(NotImplementedError):
    """A jaxpr has a primitive, a parameter of one or a type that the interpreter does not have."""


def trace(function: Callable[..., Any], *args: Any) -> Any:
    """Return the closed jaxpr of a function at the shapes and types of some arguments."""
    return jax.make_jaxpr(function)(*args)


def interpret(jaxpr: Any, *args: Any) -> list[Any]:
    """Run a closed jaxpr once on flat arguments: `Interpreter(jaxpr)(*args)`."""
    return Interpreter(jaxpr)(*args)


def known_primitives() -> frozenset[str]:
    """Return the names of the primitives that can be interpreted."""
    return frozenset((*_PLAIN, *_RULES, *_INLINED, *_IDENTITY))


class Interpreter:
    """A closed jaxpr as a list of NumPy calls.

    Attributes:
        equations: number of calls, those inside loops counted once.

    Raises:
        UnknownPrimitiveError: the jaxpr has something that only the compiler knows.
    """

    def __init__(self, jaxpr: Any) -> None:
        """Translate the jaxpr; nothing is computed yet."""
        self._slots: list[Any] = []
        self._arrays: set[int] = set()  # slots whose values have axes, which are worth emptying
        self._steps: list[tuple[Function, tuple[int, ...], Any, tuple[int, ...]]] = []
        inner, consts = _open(jaxpr)
        self._types = [_checked(v.aval) for v in inner.invars]
        inputs = [self._slot(v.aval) for v in inner.invars]
        self._outputs = self._inline(inner, consts, inputs)
        self._out_types = [_checked(v.aval) for v in inner.outvars]
        self._drop_unused()
        self.equations = len(self._steps)

    def __call__(self, *args: Any) -> list[Any]:
        """Compute the outputs, as NumPy arrays and scalars of the jaxpr's types."""
        values = self._slots.copy()
        for slot, (x, aval) in enumerate(zip(args, self._types, strict=True)):
            values[slot] = np.asarray(x, aval.dtype)[()]
        with np.errstate(all="ignore"):
            for function, inputs, output, unused in self._steps:
                result = function(*[values[i] for i in inputs])
                if type(output) is int:
                    values[output] = result
                else:
                    for slot, x in zip(output, result, strict=True):
                        values[slot] = x
                for slot in unused:
                    values[slot] = None
        return [values[i] for i in self._outputs]

    def _slot(self, aval: Any, value: Any = None) -> int:
        slot = len(self._slots)
        self._slots.append(value)
        if aval is not None and aval.shape:
            self._arrays.add(slot)
        return slot

    def _inline(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[int]) -> list[int]:
        """Append the calls of a jaxpr whose inputs are in these slots, and return the slots of its outputs."""
        slots: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        for v, x in zip(jaxpr.constvars, consts, strict=True):
            slots[v] = self._slot(None, np.asarray(x, _checked(v.aval).dtype)[()])

        def read(v: Any) -> int:
            if isinstance(v, Literal):
                return self._slot(None, np.asarray(v.val, _checked(v.aval).dtype)[()])
            return slots[v]

        for equation in jaxpr.eqns:
            read_inputs = [read(v) for v in equation.invars]
            slots.update(zip(equation.outvars, self._append(equation, read_inputs), strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _append(self, equation: Any, inputs: list[int]) -> Sequence[int]:
        name, params = equation.primitive.name, equation.params
        before, after = [v.aval for v in equation.invars], [_checked(v.aval) for v in equation.outvars]
        if name in _IDENTITY or _is_identity(name, before, after):
            return inputs
        if name in _INLINED:
            inner = next(params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params)
            return self._inline(*_open(inner), inputs)
        if name in _PLAIN and params.get("out_dtype") is None:
            function = _PLAIN[name]
        elif name in _RULES:
            function = _RULES[name](params, before, after)
        else:
            raise UnknownPrimitiveError(f"the primitive {name} with {params}")
        outputs = [self._slot(aval) for aval in after]
        target = tuple(outputs) if equation.primitive.multiple_results else outputs[0]
        self._steps.append((function, tuple(inputs), target, ()))
        return outputs

    def _drop_unused(self) -> None:
        """Leave out calls whose results nobody reads, and note where each array is read for the last time."""
        read = set(self._outputs)
        steps = []
        for function, inputs, output, _ in reversed(self._steps):
            written = (output,) if isinstance(output, int) else output
            if read.isdisjoint(written):
                continue
            last = {i for i in inputs if i not in read} & self._arrays
            last.update(i for i in written if i not in read)
            read.update(inputs)
            steps.append((function, inputs, output, tuple(last)))
        self._steps = steps[::-1]


def _open(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """Return a jaxpr and its constants, whether it is closed or not."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def _checked(aval: Any) -> Any:
    dtype = getattr(aval, "dtype", None)
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or dtype.name == "float16":
        raise UnknownPrimitiveError(f"a value of type {aval}")
    return aval


def _is_identity(name: str, before: Sequence[Any], after: Sequence[Any]) -> bool:
    if name not in _RESHAPING:
        return False
    return before[0].shape == after[0].shape and before[0].dtype == after[0].dtype


# Primitives that hold one program, or only say something of differentiation, devices or order.
_INLINED = frozenset(
    """jit pjit closed_call core_call eval_jaxpr remat remat2 checkpoint custom_jvp_call custom_vjp_call
    custom_vjp_call_jaxpr""".split()
)
_IDENTITY = frozenset(
    """stop_gradient copy copy_p device_put optimization_barrier pvary pcast reduce_vary name""".split()
)
_RESHAPING = frozenset("convert_element_type broadcast_in_dim squeeze expand_dims".split())


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


def _shift(function: Function, *, arithmetic: bool = False, unsigned: bool = False) -> Function:
    """Shift bits; a shift by the width of the type or more leaves zeros, or the sign."""

    def shifted(x: Any, by: Any) -> Any:
        bits = x.dtype.itemsize * 8
        outside = (by < 0) | (by >= bits)
        taken = x.view(f"u{x.dtype.itemsize}") if unsigned else x
        result = function(taken, np.where(outside, 0, by).astype(taken.dtype)).astype(x.dtype)
        rest = np.where(x < 0, -1, 0) if arithmetic and x.dtype.kind == "i" else 0
        return np.where(outside, rest, result).astype(x.dtype)[()]

    return shifted


def _power(x: Any, y: Any) -> Any:
    return np.power(x, y.astype(x.dtype))


def _clamp(low: Any, x: Any, high: Any) -> Any:
    return np.minimum(np.maximum(x, low), high)


def _logistic(x: Any) -> Any:
    return _one(x) / (_one(x) + np.exp(-x))


_PLAIN: dict[str, Function] = {
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
    "div": _divide,
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
    "erf_inv": _scipy("erfinv"),
    "lgamma": _scipy("gammaln"),
    "digamma": _scipy("psi"),
    "floor": np.floor,
    "ceil": np.ceil,
    "is_finite": np.isfinite,
    "nextafter": np.nextafter,
    "population_count": lambda x: np.bitwise_count(x).astype(x.dtype),
    "shift_left": _shift(np.left_shift),
    "shift_right_arithmetic": _shift(np.right_shift, arithmetic=True),
    "shift_right_logical": _shift(np.right_shift, unsigned=True),
}

# What depends on parameters: (parameters, types in, types out) to a function.
_RULES: dict[str, Callable[[dict[str, Any], Sequence[Any], Sequence[Any]], Function]] = {}


def _rule(*names: str) -> Callable[[Function], Function]:
    def register(make: Function) -> Function:
        _RULES.update(dict.fromkeys(names, make))
        return make

    return register


@_rule("div")
def _div_rule(params: Any, before: Any, after: Any) -> Function:
    return operator.truediv if after[0].dtype.kind == "f" else _divide


@_rule("select_n")
def _select_rule(params: Any, before: Any, after: Any) -> Function:
    if before[0].shape == ():
        return lambda which, *cases: cases[int(which)]
    if len(before) == 3:
        return lambda which, no, yes: np.where(which, yes, no)
    return lambda which, *cases: np.choose(which, cases)


@_rule("integer_pow")
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


@_rule("round")
def _round_rule(params: Any, before: Any, after: Any) -> Function:
    if params["rounding_method"] == lax.RoundingMethod.TO_NEAREST_EVEN:
        return np.rint

    def away_from_zero(x: Any) -> Any:
        whole = np.trunc(x)
        return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(_one(x), x), whole)[()]

    return away_from_zero


@_rule("convert_element_type")
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


@_rule("reduce_precision")
def _reduce_precision_rule(params: Any, before: Any, after: Any) -> Function:
    own = np.finfo(before[0].dtype)
    if (params["exponent_bits"], params["mantissa_bits"]) != (own.nexp, own.nmant):
        raise UnknownPrimitiveError(f"reduce_precision of {before[0]} with {params}")
    return lambda x: x


# Shapes.


@_rule("reshape", "squeeze", "expand_dims")
def _reshape_rule(params: Any, before: Any, after: Any) -> Function:
    shape = after[0].shape
    if params.get("dimensions") is not None and "new_sizes" in params:
        return lambda x: np.transpose(x, params["dimensions"]).reshape(shape)[()]
    return lambda x: x.reshape(shape)[()]


@_rule("broadcast_in_dim")
def _broadcast_rule(params: Any, before: Any, after: Any) -> Function:
    shape, places = after[0].shape, params["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for axis, size in zip(places, before[0].shape, strict=True):
        sizes[axis] = size
    if tuple(sizes) == shape:
        return lambda x, *_: x.reshape(shape)
    return lambda x, *_: np.broadcast_to(x.reshape(sizes), shape)


@_rule("transpose")
def _transpose_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: np.transpose(x, params["permutation"])


@_rule("rev")
def _rev_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: np.flip(x, params["dimensions"])


@_rule("slice")
def _slice_rule(params: Any, before: Any, after: Any) -> Function:
    strides = params["strides"] or (1,) * len(params["start_indices"])
    where = tuple(map(slice, params["start_indices"], params["limit_indices"], strides))
    return lambda x: x[where]


@_rule("split")
def _split_rule(params: Any, before: Any, after: Any) -> Function:
    ends = np.cumsum(params["sizes"])[:-1]
    return lambda x: np.split(x, ends, params["axis"])


@_rule("concatenate")
def _concatenate_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda *parts: np.concatenate(parts, params["dimension"])


@_rule("stack")
def _stack_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda *parts: np.stack(parts, params["axis"])


@_rule("unstack")
def _unstack_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: [part[()] for part in np.moveaxis(x, params["axis"], 0)]


@_rule("pad")
def _pad_rule(params: Any, before: Any, after: Any) -> Function:
    shape = after[0].shape
    take, put = [], []
    for (low, _, interior), size, length in zip(
        params["padding_config"], before[0].shape, shape, strict=True
    ):
        step = int(interior) + 1
        first = max(-(int(low) // step), 0)  # the first item that is not cut off, and the last
        last = min(size - 1, (length - 1 - int(low)) // step)
        kept = max(last - first + 1, 0)
        start = int(low) + first * step if kept else 0
        take.append(slice(first, first + kept))
        put.append(slice(start, start + max((kept - 1) * step + 1, 0) if kept else 0, step))

    def pad(x: Any, value: Any) -> Any:
        result = np.full(shape, value, x.dtype)
        result[tuple(put)] = x[tuple(take)] if shape else x
        return result[()]

    return pad


@_rule("iota")
def _iota_rule(params: Any, before: Any, after: Any) -> Function:
    shape, axis = after[0].shape, params["dimension"]
    sizes = [-1 if i == axis else 1 for i in range(len(shape))]
    numbers = np.broadcast_to(np.arange(shape[axis]).astype(after[0].dtype).reshape(sizes), shape)
    return lambda: numbers


@_rule("dynamic_slice")
def _dynamic_slice_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x, *starts: x[_window(x.shape, after[0].shape, starts)]


@_rule("dynamic_update_slice")
def _dynamic_update_slice_rule(params: Any, before: Any, after: Any) -> Function:
    def update(x: Any, part: Any, *starts: Any) -> Any:
        result = np.array(x)
        result[_window(x.shape, np.shape(part), starts)] = part
        return result[()]

    return update


def _window(shape: Sequence[int], sizes: Sequence[int], starts: Sequence[Any]) -> tuple[slice, ...]:
    """Place a window so that all of it is inside."""
    first = [min(max(int(s), 0), n - size) for s, n, size in zip(starts, shape, sizes, strict=True)]
    return tuple(slice(i, i + size) for i, size in zip(first, sizes, strict=True))


# Reductions.


def _least(dtype: np.dtype) -> Any:
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min


def _greatest(dtype: np.dtype) -> Any:
    return np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


_UFUNCS: dict[str, tuple[np.ufunc, Callable[[np.dtype], Any] | None]] = {
    "sum": (np.add, None),
    "prod": (np.multiply, None),
    "max": (np.maximum, _least),
    "min": (np.minimum, _greatest),
    "and": (np.bitwise_and, None),
    "or": (np.bitwise_or, None),
    "xor": (np.bitwise_xor, None),
    "logsumexp": (np.logaddexp, None),
}


@_rule(*(f"reduce_{name}" for name in ("sum", "prod", "max", "min", "and", "or", "xor")))
def _reduce_rule(params: Any, before: Any, after: Any, *, name: str) -> Function:
    ufunc, initial = _UFUNCS[name]
    options = {"axis": tuple(params["axes"]), "dtype": after[0].dtype}
    if initial is not None:
        options["initial"] = initial(after[0].dtype)
    return lambda x: ufunc.reduce(x, **options)


@_rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _accumulate_rule(params: Any, before: Any, after: Any, *, name: str) -> Function:
    ufunc, axis, dtype = _UFUNCS[name][0], params["axis"], after[0].dtype
    if params["reverse"]:
        return lambda x: np.flip(ufunc.accumulate(np.flip(x, axis), axis, dtype), axis)
    return lambda x: ufunc.accumulate(x, axis, dtype)


for _full in [*_RULES]:
    if _RULES[_full] is _reduce_rule:
        _RULES[_full] = functools.partial(_reduce_rule, name=_full.removeprefix("reduce_"))
    elif _RULES[_full] is _accumulate_rule:
        _RULES[_full] = functools.partial(_accumulate_rule, name=_full.removeprefix("cum"))


@_rule("argmax")
def _argmax_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: np.argmax(x, params["axes"][0]).astype(params["index_dtype"])


@_rule("argmin")
def _argmin_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: np.argmin(x, params["axes"][0]).astype(params["index_dtype"])


@_rule("sort")
def _sort_rule(params: Any, before: Any, after: Any) -> Function:
    axis, keys = params["dimension"], params["num_keys"]

    def sort(*operands: Any) -> list[Any]:
        order = np.lexsort(operands[:keys][::-1], axis)
        return [np.take_along_axis(x, order, axis) for x in operands]

    return sort


@_rule("dot_general")
def _dot_general_rule(params: Any, before: Any, after: Any) -> Function:
    (contract, contract_right), (batch, batch_right) = params["dimension_numbers"]
    dtype, shape = after[0].dtype, after[0].shape

    def side(x: Any, batch: Sequence[int], contract: Sequence[int], *, left: bool) -> Any:
        free = [i for i in range(x.ndim) if i not in (*batch, *contract)]
        order = (*batch, *free, *contract) if left else (*batch, *contract, *free)
        rows, columns = (free, contract) if left else (contract, free)
        sizes = [math.prod(x.shape[i] for i in axes) for axes in (rows, columns)]
        return np.transpose(x, order).reshape([x.shape[i] for i in batch] + sizes).astype(dtype)

    def dot(x: Any, y: Any) -> Any:
        left = side(x, batch, contract, left=True)
        return (left @ side(y, batch_right, contract_right, left=False)).reshape(shape)[()]

    return dot


# Gather and scatter.


def _clipped(params: Any) -> bool:
    modes = lax.GatherScatterMode
    if params["mode"] in (modes.CLIP, modes.PROMISE_IN_BOUNDS):
        return True
    if params["mode"] == modes.FILL_OR_DROP:
        return False
    raise UnknownPrimitiveError(f"gather or scatter with {params}")


def _positions(
    indices: Any,
    shape: Sequence[int],
    sizes: Sequence[int],
    window: Sequence[int],
    places: tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]],
    *,
    clip: bool,
) -> tuple[tuple[Any, ...], Any]:
    """Return, for every item of a gather's result, its position in the operand, and whether its window is inside.

    `window` are the result's axes that run within a window; `places` are the axes of the operand that an index
    names, those that have no axis within a window, and the batch axes of operand and indices.
    """
    mapped, collapsed, batching, indices_batching = places
    rank = indices.ndim - 1 + len(window)
    outer = [i for i in range(rank) if i not in window]
    inner = iter(window)
    result, inside = [], np.True_
    for axis, (length, size) in enumerate(zip(shape, sizes, strict=True)):
        start: Any = np.zeros((1,) * rank, np.int64)
        if axis in batching:
            along = outer[indices_batching[batching.index(axis)]]
            start = np.arange(length).reshape([-1 if i == along else 1 for i in range(rank)])
        elif axis in mapped:
            named = indices[..., mapped.index(axis)].astype(np.int64)
            start = named.reshape([named.shape[outer.index(i)] if i in outer else 1 for i in range(rank)])
            inside = inside & (start >= 0) & (start <= length - size)
            start = np.clip(start, 0, length - size)
        if axis not in collapsed and axis not in batching:
            along = next(inner)
            start = start + np.arange(size).reshape([-1 if i == along else 1 for i in range(rank)])
        result.append(start)
    return tuple(result), np.True_ if clip else inside


@_rule("gather")
def _gather_rule(params: Any, before: Any, after: Any) -> Function:
    d, shape, clip = params["dimension_numbers"], after[0].shape, _clipped(params)
    places = (
        d.start_index_map,
        d.collapsed_slice_dims,
        d.operand_batching_dims,
        d.start_indices_batching_dims,
    )
    fill = params["fill_value"]
    if fill is None:
        kind = after[0].dtype.kind
        fill = (
            np.nan if kind == "f" else _greatest(after[0].dtype) if kind in "bu" else _least(after[0].dtype)
        )

    def gather(x: Any, indices: Any) -> Any:
        at, inside = _positions(indices, x.shape, params["slice_sizes"], d.offset_dims, places, clip=clip)
        found = np.broadcast_to(x[at], shape)
        return found[()] if clip else np.where(inside, found, x.dtype.type(fill))[()]

    return gather


@_rule("scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter-min", "scatter-max")
def _scatter_rule(params: Any, before: Any, after: Any, *, name: str) -> Function:
    d, clip = params["dimension_numbers"], _clipped(params)
    places = (
        d.scatter_dims_to_operand_dims,
        d.inserted_window_dims,
        d.operand_batching_dims,
        d.scatter_indices_batching_dims,
    )
    operation = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}.get(name)
    inner = iter(d.update_window_dims)
    absent = (*d.inserted_window_dims, *d.operand_batching_dims)
    sizes = [1 if i in absent else before[2].shape[next(inner)] for i in range(len(before[0].shape))]

    def scatter(x: Any, indices: Any, updates: Any) -> Any:
        result = np.array(x)
        at, inside = _positions(indices, x.shape, sizes, d.update_window_dims, places, clip=clip)
        at = np.broadcast_arrays(*at, updates)[:-1]
        keep = np.broadcast_to(inside, np.shape(updates))
        at, updates = tuple(a[keep] for a in at), np.asarray(updates)[keep]
        if operation is None:
            result[at] = updates
        else:
            operation.at(result, at, updates)
        return result[()]

    return scatter


for _full in [*_RULES]:
    if _RULES[_full] is _scatter_rule:
        _RULES[_full] = functools.partial(_scatter_rule, name=_full[len("scatter-") :])


# Programs inside loops and branches.


@_rule("scan")
def _scan_rule(params: Any, before: Any, after: Any) -> Function:
    body, length, reverse = Interpreter(params["jaxpr"]), params["length"], params["reverse"]
    consts, carried = _scan_counts(params, len(before))

    def scan(*args: Any) -> list[Any]:
        carry, xs = list(args[consts : consts + carried]), args[consts + carried :]
        rows = []
        for i in reversed(range(length)) if reverse else range(length):
            results = body(*args[:consts], *carry, *[x[i] for x in xs])
            carry = results[:carried]
            rows.append(results[carried:])
        if reverse:
            rows.reverse()
        columns = zip(*rows, strict=True) if rows else [[] for _ in after[carried:]]
        stacked = [
            np.stack(column) if column else np.zeros(aval.shape, aval.dtype)
            for column, aval in zip(columns, after[carried:], strict=True)
        ]
        return [*carry, *stacked]

    return scan


def _scan_counts(params: dict[str, Any], inputs: int) -> tuple[int, int]:
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    try:  # jax 0.12
        consts, carry, _ = params["ft_in"].update(range(inputs)).unpack()
        return len(list(consts)), len(list(carry))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UnknownPrimitiveError(f"scan with {params}") from error


@_rule("while")
def _while_rule(params: Any, before: Any, after: Any) -> Function:
    condition, body = Interpreter(params["cond_jaxpr"]), Interpreter(params["body_jaxpr"])
    first, second = params["cond_nconsts"], params["body_nconsts"]

    def loop(*args: Any) -> list[Any]:
        tested, used, carry = args[:first], args[first : first + second], list(args[first + second :])
        while np.any(condition(*tested, *carry)[0]):
            carry = body(*used, *carry)
        return carry

    return loop


@_rule("cond")
def _cond_rule(params: Any, before: Any, after: Any) -> Function:
    branches = [Interpreter(branch) for branch in params["branches"]]
    return lambda index, *args: branches[min(max(int(index), 0), len(branches) - 1)](*args)
