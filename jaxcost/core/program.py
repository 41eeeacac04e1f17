"""Functions that answer at once with NumPy, and compile when they are called often or over many designs.

`program` takes the place of `jax.jit` for what users call. The first calls with a kind of arguments (their structure,
shapes, types and static values) are traced once and interpreted (`jaxcost.core.interpret`); `is_worth_compiling`
says from when on they are compiled. Under `jax.jit`, `jax.grad` or `jax.vmap` a program is its `jax.jit`.

`execution("interpret")` or `execution("compile")`, as a context, force the one or the other, and `set_execution`
does so for the whole process; "auto" is the rule.
"""

import contextlib
import contextvars
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxcost.core.interpret import Interpreter, UnknownPrimitiveError, numpy_calls

__all__ = ["Program", "execution", "is_worth_compiling", "program", "set_execution"]

_MODES = ("auto", "interpret", "compile")
_NEEDS_JAX = ("jax_disable_jit", "jax_debug_nans", "jax_debug_infs")  # only JAX itself does these
_default = ["auto"]
_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar("execution", default=None)


@contextlib.contextmanager
def execution(mode: str) -> Iterator[None]:
    """Select how programs run in this context: "interpret", "compile" or "auto".

    With "interpret", an unsupported primitive raises `UnknownPrimitiveError`.
    """
    token = _forced.set(_checked(mode))
    try:
        yield
    finally:
        _forced.reset(token)


def set_execution(mode: str) -> None:
    """Select how programs run outside of `execution` contexts, in all threads."""
    _default[0] = _checked(mode)


def _mode() -> str:
    return _forced.get() or _default[0]


def _checked(mode: str) -> str:
    if mode not in _MODES:
        raise ValueError(f"no execution mode {mode!r}; there are {', '.join(_MODES)}")
    return mode


def is_worth_compiling(calls: int, equations: int, designs: int) -> bool:
    """Return whether compilation is cheaper than the NumPy calls so far and those of the next run together.

    Interpreting and compiling then cost at most twice the cheaper of both. A program without loops is compiled after
    200 runs for one design, after 4 runs for 100,000 designs, and at once for more than 400,000.

    Args:
        calls: NumPy calls, one per equation and loop iteration.
        equations: equations of the program, with those inside loops counted once.
        designs: elements of the largest argument.
    """
    # Per equation of `evaluate` on 2 cores: compilation takes 0.8 ms; interpretation 3-6 us, and 2-5 ns per design.
    return calls * (4e-6 + 2e-9 * designs) > 0.8e-3 * equations


@dataclasses.dataclass
class _State:
    """The state of a program for one kind of arguments."""

    calls: int = 0  # NumPy calls of all runs
    last: int = 1  # NumPy calls of the last run
    run: Interpreter | None = None
    structure: Any = None  # of the result
    compiled: bool = False


class Program:
    """A function that is interpreted at first and compiled when called often; see the module.

    Attributes:
        jitted: the `jax.jit` of the function.
    """

    def __init__(self, function: Callable[..., Any], static_argnames: Sequence[str] = ()) -> None:
        """Wrap a function; the static arguments are hashable and not traced."""
        functools.update_wrapper(self, function)
        self.jitted = jax.jit(function, static_argnames=tuple(static_argnames))
        self._names = tuple(inspect.signature(function).parameters)
        self._static = frozenset(static_argnames)
        self._states: dict[Hashable, _State] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the function."""
        mode = _mode()
        dynamic, static = self._split(args, kwargs)
        leaves, structure = jax.tree.flatten(dynamic)
        if not _is_concrete(leaves):
            return self.jitted(*args, **kwargs)
        described = tuple(_described(x) for x in leaves)
        key = (structure, described, static, jnp.result_type(float))
        state = self._states.setdefault(key, _State())
        if mode == "auto":
            designs = max((math.prod(shape) for shape, *_ in described), default=1)
            equations = state.run.equations if state.run else 1
            state.compiled |= is_worth_compiling(state.calls + state.last, equations, designs)
        if mode == "compile" or (mode == "auto" and state.compiled):
            state.compiled, state.run = True, None
            return self.jitted(*args, **kwargs)
        if state.run is None:
            traced = self.jitted.trace(*args, **kwargs)
            try:
                state.run = Interpreter(traced.jaxpr)
            except UnknownPrimitiveError:
                if mode == "interpret":
                    raise
                state.compiled = True
                return self.jitted(*args, **kwargs)
            state.structure = jax.tree.structure(traced.out_info)
        # A result may be a view of an argument, so arrays that the caller can change are copied.
        values = [np.array(x) if isinstance(x, np.ndarray) else x for x in leaves]
        before = numpy_calls()
        results = state.run(*jax.device_get(values))
        state.last = numpy_calls() - before
        state.calls += state.last
        return jax.device_put(jax.tree.unflatten(state.structure, results), _device(leaves))

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Hashable]:
        """Return the traced arguments in the order of `jax.jit`, and the static arguments by name."""
        named = [*zip(self._names, args, strict=False), *kwargs.items()]
        static = tuple(sorted((name, x) for name, x in named if name in self._static))
        if not static:
            return (args, kwargs), static
        positional = [x for name, x in named[: len(args)] if name not in self._static]
        return (tuple(positional), {k: x for k, x in kwargs.items() if k not in self._static}), static


def program(
    function: Callable[..., Any] | None = None, *, static_argnames: Sequence[str] = ()
) -> Callable[..., Any]:
    """Wrap a function in a `Program`; also a decorator, with or without `static_argnames`."""
    if function is None:
        return functools.partial(program, static_argnames=static_argnames)
    return Program(function, static_argnames)


def _is_concrete(leaves: Sequence[Any]) -> bool:
    if any(getattr(jax.config, name) for name in _NEEDS_JAX):
        return False
    return not any(
        isinstance(x, Tracer) or (isinstance(x, jax.Array) and len(x.devices()) > 1) for x in leaves
    )


def _described(x: Any) -> tuple[Any, ...]:
    if isinstance(x, jax.Array):
        return x.shape, x.dtype, x.aval.weak_type
    return np.shape(x), getattr(x, "dtype", type(x))


def _device(leaves: Sequence[Any]) -> Any:
    """Return the sharding of the first committed argument, or None."""
    for x in leaves:
        if isinstance(x, jax.Array) and x.committed:
            return x.sharding
    return None
