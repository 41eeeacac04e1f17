"""Evaluate runs of consecutive designs on all devices of one process and keep only what reducers keep.

A design is made on the device from its index. The last axes of a space make up a block; every block has so many slots,
a whole number of chunks, of which the last ones may be empty. So the axes before those of the block stand still within
a chunk: what they alone decide is computed once a chunk, as scalars. The slots of a run of designs are cut into
batches; device d of D takes the batches d, d + D, d + 2 D, ..., evaluates each chunk by chunk, natively with the chunk
in the last axis, hands it to the reducers, whose state it carries, and forgets it. How long a run is, is traced, so
runs of any length share one compilation.

Chunks fill a batch in a loop of their own, which XLA can not fuse with what follows: reducers then read the metrics
from memory, a row a metric, and no program computes them in its own way. Batches of 2,048 designs or more spread what
a call of a reducer costs whatever its size.

The metrics of a design do not depend on its neighbours, bit for bit, while chunks are multiples of 64 designs: then
all of them stand in whole vectors, and no design meets the scalar code of a vector loop's remainder.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcost.core import wide
from jaxcost.core.arrays import batch_shape, stack
from jaxcost.core.pytree import field, pytree
from jaxcost.explore.compilation import compilation
from jaxcost.explore.space import Place, Space, compacted, design_of, digits, digits_at, place
from jaxcost.explore.sweep.reducers import Batch, Layout, Reducer
from jaxcost.spec.design import Design

__all__ = ["Evaluation", "Stream", "default_chunk", "merged", "over_designs"]

Evaluation = Callable[[Design], jax.Array]
"""Metrics of one design, a vector; a pure function that JAX can trace."""

_VECTOR = 64
_BATCH = 2048
_LONGEST = 2**29
_MOST_EMPTY = 0.1  # share of the slots of a block
_LARGEST_BLOCK = 2**26


@dataclasses.dataclass(frozen=True)
class _Block:
    """The last axes of a space, whose designs fill whole chunks. Without axes: all designs of a case, one by one."""

    axes: int = 0
    size: int = 1 << 30
    slots: int = 1 << 30

    def slot(self, offset: int) -> int:
        """Return the slot of a design, so far after the first of its block."""
        return offset // self.size * self.slots + offset % self.size


def _block_of(space: Space, chunk: int) -> _Block:
    """Take as few of the last axes as fill their chunks, of those that no condition is on and that have none."""
    size = 1
    for axes, n in enumerate(reversed(space.shape), 1):
        position, size = len(space.shape) - axes, size * n
        if space.conditions[position] or position in space.guards or size > _LARGEST_BLOCK:
            break
        slots = -(-size // chunk) * chunk
        if slots - size <= _MOST_EMPTY * slots:
            return _Block(axes, size, slots)
    return _Block()


def default_chunk(platform: str) -> int:
    """Return how many designs are evaluated together where nothing else is asked for."""
    return compilation("sweep", platform).chunk


@functools.lru_cache
def over_designs(evaluation: Evaluation) -> Evaluation:
    """Turn a function of one design, [m], into one of many: leaves [] or [*batch] to metrics [m, *batch].

    The same object for the same function.
    """

    def many(designs: Design) -> jax.Array:
        shape = batch_shape(designs)
        leaves, structure = jax.tree.flatten(designs)
        flat = [x if np.ndim(x) == 0 else jnp.broadcast_to(x, shape).ravel() for x in leaves]
        one = lambda *x: evaluation(jax.tree.unflatten(structure, x))  # noqa: E731
        if not shape:
            return one(*flat)
        metrics = jax.vmap(one, [None if x.ndim == 0 else 0 for x in flat], 1)(*flat)
        return metrics.reshape(-1, *shape)

    return many


class Stream:
    """Runs of designs through evaluation into reducers, whose state stays on the devices."""

    def __init__(
        self,
        space: Space,
        evaluation: Evaluation,
        metrics: tuple[str, ...],
        reducers: Mapping[str, Reducer],
        *,
        chunk: int | None = None,
        devices: Sequence[Any] | None = None,
        keep: int = 0,
    ) -> None:
        """Set up; what has to be compiled is compiled with the first run.

        Args:
            space: the designs.
            evaluation: what gives the metrics [m, n] of n designs, whose leaves are [] or [n]; hashable, and the same
                object for the same function.
            metrics: names of its results.
            reducers: what to keep, by name.
            chunk: designs evaluated together, a multiple of 64; by default what is fastest on the platform.
            devices: where to run; all local devices by default.
            keep: longest run whose metrics are all returned, 0 where none is to be.

        Raises:
            ValueError: a chunk that is no positive multiple of 64, or a reducer of a metric that is not there.
        """
        devices = tuple(jax.local_devices() if devices is None else devices)
        chunk = default_chunk(devices[0].platform) if chunk is None else chunk
        if chunk <= 0 or chunk % _VECTOR:
            raise ValueError(f"a chunk must be a positive multiple of {_VECTOR} designs, not {chunk}")
        for name, reducer in reducers.items():
            missing = [metric for metric in reducer.needs if metric not in metrics]
            if missing:
                raise ValueError(f"reducer {name!r} reads {missing[0]!r}, which is not among the metrics")
        self.space, self.metrics = space, metrics
        self.batch = -(-_BATCH // chunk) * chunk
        self.reducers = dict(reducers)
        self.layout = Layout(metrics=metrics, axes=space.names, shape=space.shape)
        self._chunk, self._block = chunk, _block_of(space, chunk)
        blocks = -(-keep // self._block.size) + 1
        slots = keep + (self._block.slots - self._block.size) * blocks + 2 * chunk
        self._rounds = -(-slots // (self.batch * len(devices))) if keep else 0
        by_name = tuple(self.reducers.items())
        self._run = _compiled(
            evaluation, self.layout, by_name, self._block, chunk, self.batch, devices, self._rounds
        )
        mesh = Mesh(np.asarray(devices), ("designs",))
        self._split = NamedSharding(mesh, PartitionSpec("designs"))
        # Once: its hundreds of leaves take 30 ms to send.
        self._compact = jax.device_put(compacted(space), NamedSharding(mesh, PartitionSpec()))
        self._devices = len(devices)
        self.load(self.fresh())

    def fresh(self) -> dict[str, Any]:
        """Return the state of reducers that have seen nothing, on the host."""
        return {name: jax.device_get(r.init(self.layout)) for name, r in self.reducers.items()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state: it goes to the first device, and the others start afresh."""
        parts = [state] + [self.fresh() for _ in range(self._devices - 1)]
        stacked = jax.tree.map(lambda *x: np.stack(x), *parts)
        self._state = jax.device_put(stacked, self._split)

    def run(self, index: int, count: int) -> np.ndarray | None:
        """Take `count` designs from `index` on into the reducers.

        Returns at once where nothing is kept; else the metrics of all of them, shape [count, metrics].
        """
        kept = []
        while count > 0:
            where, left = place(self.space, index)
            part = min(count, left, _LONGEST)
            before = self._offset_in_block(where)
            if before:
                where, _ = place(self.space, index - before)
            run = _Run.of(self._block, self._chunk, before, part)
            base = wide.wide(index - before)
            self._state, values = self._run(self._compact, where, base, run, self._state)
            if self._rounds:
                kept.append(self._in_order(values, run))
            index, count = index + part, count - part
        return np.concatenate(kept) if kept else None

    def _offset_in_block(self, where: Place) -> int:
        """Return how many designs of its block come before the first."""
        axes = range(len(self.space.shape) - self._block.axes, len(self.space.shape))
        return functools.reduce(lambda n, k: n * self.space.shape[k] + int(where.start[k]), axes, 0)

    def _in_order(self, values: jax.Array, run: "_Run") -> np.ndarray:
        by_device = np.asarray(values).reshape(self._devices, self._rounds, len(self.metrics), self.batch)
        in_slots = by_device.transpose(1, 0, 3, 2).reshape(-1, len(self.metrics))
        slots = int(run.first_slot) + np.arange(len(in_slots), dtype=np.int64)
        return in_slots[_designs_in(slots, run, self._block)[1]]

    def wait(self) -> None:
        """Return when all runs are done."""
        jax.block_until_ready(self._state)

    def state(self) -> dict[str, Any]:
        """Return the reducers' state of all devices as one, on the host."""
        by_device = jax.device_get(self._state)
        parts = [jax.tree.map(lambda x, i=i: x[i], by_device) for i in range(self._devices)]
        return merged(self.layout, self.reducers, parts)

    def results(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return what the reducers say of a state."""
        return {name: r.result(self.layout, state[name]) for name, r in self.reducers.items()}


@pytree
class _Run:
    """A run of designs, counted from the first of the block that it begins in."""

    low: np.ndarray = field("1", "int32: the first")
    high: np.ndarray = field("1", "int32: behind the last")
    first_slot: np.ndarray = field("1", "int32: slot of the first chunk")
    last_slot: np.ndarray = field("1", "int32: behind the last chunk")

    @classmethod
    def of(cls, block: _Block, chunk: int, low: int, count: int) -> "_Run":
        """Describe the run of `count` designs."""
        first, last = block.slot(low), block.slot(low + count - 1)
        return cls(
            low=np.asarray(low, np.int32),
            high=np.asarray(low + count, np.int32),
            first_slot=np.asarray(first // chunk * chunk, np.int32),
            last_slot=np.asarray((last // chunk + 1) * chunk, np.int32),
        )


def _designs_in(slots: Any, run: _Run, block: _Block) -> tuple[Any, Any]:
    """Return the designs in slots, counted as those of the run are, and whether they belong to it."""
    within = slots % block.slots
    offset = slots // block.slots * block.size + within
    inside = (offset >= run.low) & (offset < run.high) & (slots < run.last_slot)
    return offset, inside & (within < block.size)


def _chunk_digits(
    space: Space, where: Place, slot: jax.Array, run: _Run, block: _Block, chunk: int
) -> list[jax.Array]:
    """Return the digits of a chunk from a slot on: scalars of axes before the block, [chunk] of those of the block."""
    within = jnp.minimum(slot % block.slots + jnp.arange(chunk, dtype=np.int32), block.size - 1)
    if not block.axes:
        return list(digits_at(space, where, jnp.minimum(within, run.high - 1)))
    still = digits_at(space, where, slot // block.slots * block.size)
    return [*list(still)[: -block.axes], *digits(within, space.shape[-block.axes :])]


def merged(
    layout: Layout, reducers: Mapping[str, Reducer], states: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Merge states of disjoint designs into one, on the host."""
    merge = _merge(layout, tuple(reducers.items()))
    return jax.device_get(functools.reduce(merge, states))


@functools.lru_cache
def _merge(layout: Layout, reducers: tuple[tuple[str, Reducer], ...]) -> Callable:
    return jax.jit(lambda a, b: {name: r.merge(layout, a[name], b[name]) for name, r in reducers})


@functools.lru_cache
def _compiled(
    evaluation: Evaluation,
    layout: Layout,
    reducers: tuple[tuple[str, Reducer], ...],
    block: _Block,
    chunk: int,
    batch: int,
    devices: tuple[Any, ...],
    rounds: int,
) -> Callable:
    mesh, count_of_devices = Mesh(np.asarray(devices), ("designs",)), len(devices)
    everywhere, here = PartitionSpec(), PartitionSpec("designs")

    def evaluated(space: Space, where: Place, slot: jax.Array, run: _Run) -> tuple[jax.Array, jax.Array]:
        digits = _chunk_digits(space, where, slot, run, block, chunk)
        values = evaluation(design_of(space, digits))
        whole = jnp.broadcast_to(values.reshape(len(layout.metrics), -1), (len(layout.metrics), chunk))
        return whole, stack(digits)

    def on_device(space: Space, where: Place, base: jax.Array, run: _Run, state: Any) -> tuple[Any, Any]:
        device = jax.lax.axis_index("designs")
        state = jax.tree.map(lambda x: x[0], state)

        def take(turn: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            state, kept = carry
            first = run.first_slot + (turn * count_of_devices + device) * batch

            def fill(k: jax.Array, filled: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                slot = first + k * chunk
                # All that a chunk takes is made in this loop: work moved out of it would differ from program to program
                # in its last bits.
                new = evaluated(*jax.lax.optimization_barrier((space, where, slot, run)))
                put = lambda all_of_them, some: jax.lax.dynamic_update_slice_in_dim(  # noqa: E731
                    all_of_them, some, k * chunk, axis=1
                )
                return jax.tree.map(put, filled, new)

            chunks = jnp.clip((run.last_slot - first) // chunk, 0, batch // chunk)
            values, digits = jax.lax.fori_loop(0, chunks, fill, empty)
            offset, valid = _designs_in(first + jnp.arange(batch, dtype=np.int32), run, block)
            rows = Batch(values=values.T, index=wide.add(base, offset), digits=digits.T, valid=valid)
            state = {name: r.update(layout, state[name], rows) for name, r in reducers}
            return state, jax.lax.dynamic_update_index_in_dim(kept, values, turn, 0) if rounds else kept

        metrics = len(layout.metrics)
        empty = (
            jnp.zeros((metrics, batch), jnp.result_type(float)),
            jnp.zeros((len(layout.axes), batch), np.int32),
        )
        kept = jnp.zeros((rounds, metrics, batch), jnp.result_type(float))
        turns = -(-(run.last_slot - run.first_slot) // (batch * count_of_devices))
        state, kept = jax.lax.fori_loop(0, turns, take, (state, kept))
        return jax.tree.map(lambda x: x[None], state), kept

    sharded = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(everywhere, everywhere, everywhere, everywhere, here),
        out_specs=(here, here),
        check_vma=False,  # every device has its own state, and nothing crosses between them
    )
    return jax.jit(
        sharded, donate_argnums=4, compiler_options=compilation("sweep", devices[0].platform).options
    )
