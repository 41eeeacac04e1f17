"""Run a jaxpr with NumPy, to evaluate one design without compilation.

A jaxpr is a list of equations over some eighty primitives, each of which has a NumPy function. `Interpreter` translates
a jaxpr once into a flat list of calls: programs inside `jit`, `custom_jvp_call`, `checkpoint` and the like are inlined,
unused equations are dropped, and every value has a slot that is cleared after its last use. A run takes about 3 us per
equation for one design; compilation takes 0.8 ms per equation.

Types and shapes are those of the jaxpr, for booleans, integers and float32, float64; a value without axes is a NumPy
scalar. Results differ from those of the compiled program by rounding, and in two ways that are specific to XLA on CPUs:

- Subnormal numbers are kept; XLA flushes them to zero.
- The signs of `max(0.0, -0.0)` and `min(0.0, -0.0)` are unspecified.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

import jaxcost.core.array_primitives  # noqa: F401  (adds its rules)
from jaxcost.core.primitives import PLAIN, RULES, Function, UnknownPrimitiveError, rule

__all__ = ["Interpreter", "UnknownPrimitiveError", "interpret", "known_primitives", "numpy_calls", "trace"]


class _Count(threading.local):
    calls = 0


_made = _Count()


def trace(function: Callable[..., Any], *args: Any) -> Any:
    """Return the closed jaxpr of a function for the shapes and types of the arguments."""
    return jax.make_jaxpr(function)(*args)


def interpret(jaxpr: Any, *args: Any) -> list[Any]:
    """Run a closed jaxpr once on flat arguments: `Interpreter(jaxpr)(*args)`."""
    return Interpreter(jaxpr)(*args)


def known_primitives() -> frozenset[str]:
    """Return the names of the supported primitives."""
    return frozenset((*PLAIN, *RULES, *_INLINED, *_IDENTITY))


def numpy_calls() -> int:
    """Return the number of NumPy calls that this thread has interpreted so far, every loop iteration counted."""
    return _made.calls


class Interpreter:
    """A closed jaxpr as a list of NumPy calls.

    Attributes:
        equations: number of calls, with those inside loops counted once.

    Raises:
        UnknownPrimitiveError: the jaxpr has an unsupported primitive, parameter or type.
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
        nested = (getattr(function, "equations", 0) for function, *_ in self._steps)
        self.equations = len(self._steps) + sum(nested)

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
        _made.calls += len(self._steps)
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
        if name in PLAIN and params.get("out_dtype") is None:
            function = PLAIN[name]
        elif name in RULES:
            function = RULES[name](params, before, after)
        else:
            raise UnknownPrimitiveError(f"the primitive {name} with {params}")
        outputs = [self._slot(aval) for aval in after]
        target = tuple(outputs) if equation.primitive.multiple_results else outputs[0]
        self._steps.append((function, tuple(inputs), target, ()))
        return outputs

    def _drop_unused(self) -> None:
        """Drop calls whose results are unused, and note the last use of each array."""
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
    if dtype == jax.dtypes.float0:  # tangents of booleans and integers, which nothing reads
        return aval
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or dtype.name == "float16":
        raise UnknownPrimitiveError(f"a value of type {aval}")
    return aval


def _is_identity(name: str, before: Sequence[Any], after: Sequence[Any]) -> bool:
    if name not in _RESHAPING:
        return False
    return before[0].shape == after[0].shape and before[0].dtype == after[0].dtype


# Primitives that contain one program, and those that only concern differentiation, devices or order.
_INLINED = frozenset(
    """jit pjit closed_call core_call eval_jaxpr remat remat2 checkpoint custom_jvp_call custom_vjp_call
    custom_vjp_call_jaxpr""".split()
)
_IDENTITY = frozenset(
    """stop_gradient copy copy_p device_put optimization_barrier pvary pcast reduce_vary name""".split()
)
_RESHAPING = frozenset("convert_element_type broadcast_in_dim squeeze expand_dims".split())


# Programs inside loops and branches.


@rule("scan")
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

    return _holding(scan, body)


def _scan_counts(params: dict[str, Any], inputs: int) -> tuple[int, int]:
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    try:  # jax 0.12
        consts, carry, _ = params["ft_in"].update(range(inputs)).unpack()
        return len(list(consts)), len(list(carry))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise UnknownPrimitiveError(f"scan with {params}") from error


@rule("while")
def _while_rule(params: Any, before: Any, after: Any) -> Function:
    condition, body = Interpreter(params["cond_jaxpr"]), Interpreter(params["body_jaxpr"])
    first, second = params["cond_nconsts"], params["body_nconsts"]

    def loop(*args: Any) -> list[Any]:
        tested, used, carry = args[:first], args[first : first + second], list(args[first + second :])
        while np.any(condition(*tested, *carry)[0]):
            carry = body(*used, *carry)
        return carry

    return _holding(loop, condition, body)


@rule("cond")
def _cond_rule(params: Any, before: Any, after: Any) -> Function:
    branches = [Interpreter(branch) for branch in params["branches"]]
    last = len(branches) - 1
    return _holding(lambda index, *args: branches[min(max(int(index), 0), last)](*args), *branches)


def _holding(function: Any, *programs: Interpreter) -> Function:
    """Note on a function how many equations the programs have that it runs."""
    function.equations = sum(program.equations for program in programs)
    return function
