"""NumPy functions for JAX primitives that move, reduce or combine arrays: entries of `primitives.RULES`."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from jaxcost.core.primitives import RULES, Function, UnknownPrimitiveError, rule

__all__: list[str] = []

# Shapes.


@rule("reshape", "squeeze", "expand_dims")
def _reshape_rule(params: Any, before: Any, after: Any) -> Function:
    shape = after[0].shape
    if params.get("dimensions") is not None and "new_sizes" in params:
        return lambda x: np.transpose(x, params["dimensions"]).reshape(shape)[()]
    return lambda x: x.reshape(shape)[()]


@rule("broadcast_in_dim")
def _broadcast_rule(params: Any, before: Any, after: Any) -> Function:
    shape, places = after[0].shape, params["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for axis, size in zip(places, before[0].shape, strict=True):
        sizes[axis] = size
    if tuple(sizes) == shape:
        return lambda x, *_: x.reshape(shape)
    return lambda x, *_: np.broadcast_to(x.reshape(sizes), shape)


@rule("transpose")
def _transpose_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: np.transpose(x, params["permutation"])


@rule("rev")
def _rev_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: np.flip(x, params["dimensions"])


@rule("slice")
def _slice_rule(params: Any, before: Any, after: Any) -> Function:
    strides = params["strides"] or (1,) * len(params["start_indices"])
    where = tuple(map(slice, params["start_indices"], params["limit_indices"], strides))
    return lambda x: x[where]


@rule("split")
def _split_rule(params: Any, before: Any, after: Any) -> Function:
    ends = np.cumsum(params["sizes"])[:-1]
    return lambda x: np.split(x, ends, params["axis"])


@rule("concatenate")
def _concatenate_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda *parts: np.concatenate(parts, params["dimension"])


@rule("stack")
def _stack_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda *parts: np.stack(parts, params["axis"])


@rule("unstack")
def _unstack_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: [part[()] for part in np.moveaxis(x, params["axis"], 0)]


@rule("pad")
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


@rule("iota")
def _iota_rule(params: Any, before: Any, after: Any) -> Function:
    shape, axis = after[0].shape, params["dimension"]
    sizes = [-1 if i == axis else 1 for i in range(len(shape))]
    numbers = np.broadcast_to(np.arange(shape[axis]).astype(after[0].dtype).reshape(sizes), shape)
    return lambda: numbers


@rule("dynamic_slice")
def _dynamic_slice_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x, *starts: x[_window(x.shape, after[0].shape, starts)]


@rule("dynamic_update_slice")
def _dynamic_update_slice_rule(params: Any, before: Any, after: Any) -> Function:
    def update(x: Any, part: Any, *starts: Any) -> Any:
        result = np.array(x)
        result[_window(x.shape, np.shape(part), starts)] = part
        return result[()]

    return update


def _window(shape: Sequence[int], sizes: Sequence[int], starts: Sequence[Any]) -> tuple[slice, ...]:
    """Return the slices of a window, moved inside the array where it would exceed it."""
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


def _reduce_rule(name: str, params: Any, before: Any, after: Any) -> Function:
    ufunc, initial = _UFUNCS[name]
    options = {"axis": tuple(params["axes"]), "dtype": after[0].dtype}
    if initial is not None:
        options["initial"] = initial(after[0].dtype)
    return lambda x: ufunc.reduce(x, **options)


def _accumulate_rule(name: str, params: Any, before: Any, after: Any) -> Function:
    ufunc, axis, dtype = _UFUNCS[name][0], params["axis"], after[0].dtype
    if params["reverse"]:
        return lambda x: np.flip(ufunc.accumulate(np.flip(x, axis), axis, dtype), axis)
    return lambda x: ufunc.accumulate(x, axis, dtype)


for _name in ("sum", "prod", "max", "min", "and", "or", "xor"):
    RULES[f"reduce_{_name}"] = functools.partial(_reduce_rule, _name)
for _name in ("sum", "prod", "max", "min", "logsumexp"):
    RULES[f"cum{_name}"] = functools.partial(_accumulate_rule, _name)


@rule("argmax")
def _argmax_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: np.argmax(x, params["axes"][0]).astype(params["index_dtype"])


@rule("argmin")
def _argmin_rule(params: Any, before: Any, after: Any) -> Function:
    return lambda x: np.argmin(x, params["axes"][0]).astype(params["index_dtype"])


@rule("sort")
def _sort_rule(params: Any, before: Any, after: Any) -> Function:
    axis, keys = params["dimension"], params["num_keys"]

    def sort(*operands: Any) -> list[Any]:
        order = np.lexsort(operands[:keys][::-1], axis)
        return [np.take_along_axis(x, order, axis) for x in operands]

    return sort


@rule("top_k")
def _top_k_rule(params: Any, before: Any, after: Any) -> Function:
    axis, k = params.get("axis", len(before[0].shape) - 1) % len(before[0].shape), params["k"]

    def top(x: Any) -> list[Any]:
        # A stable descending order with NaN first is the reverse of a stable ascending order of the reversed array.
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
        order = np.take(order, np.arange(k), axis)
        return [np.take_along_axis(x, order, axis), order.astype(after[1].dtype)]

    return top


@rule("dot_general")
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


def _clips(mode: Any, otherwise: Any) -> bool:
    """Return whether out-of-bounds indices are clipped; XLA treats the mode `otherwise` like CLIP."""
    if mode not in lax.GatherScatterMode:
        raise UnknownPrimitiveError(f"gather or scatter in the mode {mode}")
    return mode in (lax.GatherScatterMode.CLIP, otherwise)


def _positions(
    indices: Any,
    shape: Sequence[int],
    sizes: Sequence[int],
    window: Sequence[int],
    places: tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]],
    *,
    clip: bool,
) -> tuple[tuple[Any, ...], Any]:
    """Return the operand position of every item of a gather's result, and whether its window is in bounds.

    `window` lists the axes of the result that run within a window. `places` lists the axes of the operand that an index
    addresses, the axes without a window axis, and the batch axes of operand and indices.
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


@rule("gather")
def _gather_rule(params: Any, before: Any, after: Any) -> Function:
    d, shape = params["dimension_numbers"], after[0].shape
    clip = _clips(params["mode"], lax.GatherScatterMode.PROMISE_IN_BOUNDS)
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
        values = np.broadcast_to(x[at], shape)
        return values[()] if clip else np.where(inside, values, x.dtype.type(fill))[()]

    return gather


def _scatter_rule(name: str, params: Any, before: Any, after: Any) -> Function:
    d, clip = params["dimension_numbers"], _clips(params["mode"], None)
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


for _name in ("scatter", "scatter-add", "scatter_add", "scatter-mul", "scatter-min", "scatter-max"):
    RULES[_name] = functools.partial(_scatter_rule, _name[len("scatter-") :])
