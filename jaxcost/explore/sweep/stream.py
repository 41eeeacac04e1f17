"""Evaluate runs of consecutive designs on all devices of one process, keeping only the states of reducers.

Designs are generated on the device from their index. The last axes of a space form a block; every block is padded to a
whole number of chunks, whose entries are called slots. The axes before those of the block are therefore constant within
a chunk, and what depends on them alone is computed once for the chunk, as scalars. The slots of a run are cut into
batches. Device d of D takes the batches d, d + D, d + 2 D, ... and evaluates each chunk by chunk, natively with the
chunk in the last axis; then the reducers update their state, and the metrics are discarded. The length of a run is
traced, so runs of any length share one compilation.

A loop of its own evaluates the chunks of a batch, which XLA cannot fuse with the reducers: they read the metrics from
memory, one row a metric, so that no program recomputes them with other roundings. Batches have 2,048 designs or more,
over which the fixed cost of a reducer's call is spread.

The metrics of a design do not depend on its neighbours, bit for bit, while chunks are multiples of 64 designs: then
every design is computed in full vectors, none by the scalar code for the remainder of a vector loop.
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
from jaxcost.explore.space import (
    Cursor,
    Space,
    axis_indices_at,
    build_designs,
    compact_space,
    cursor_at,
    unravel_index,
)
from jaxcost.explore.sweep.reducer import Batch, BatchSchema, Reducer
from jaxcost.spec.design import Design

__all__ = ["Evaluation", "SweepStream", "default_chunk", "merge_states", "over_designs"]

Evaluation = Callable[[Design], jax.Array]
"""A pure function of one design that returns a vector of metrics and that JAX can trace."""

_VECTOR = 64  # designs: no vector register of a CPU holds more
_MIN_BATCH = 2048
_MAX_RUN = 2**29
_MAX_PADDING = 0.1  # share of the slots of a block
_MAX_BLOCK = 2**26


@dataclasses.dataclass(frozen=True)
class _Block:
    """The last axes of a space, whose designs fill whole chunks. Without axes: all designs of a subgrid, unpadded."""

    axes: int = 0
    size: int = 1 << 30
    slots: int = 1 << 30

    def slot(self, offset: int) -> int:
        """Return the slot of the design `offset` after the first of a block."""
        return offset // self.size * self.slots + offset % self.size


def _block_of(space: Space, chunk: int) -> _Block:
    """Return the block of the fewest last axes that fill their chunks; no condition is on them, and they have none."""
    size = 1
    for axes, n in enumerate(reversed(space.shape), 1):
        position, size = len(space.shape) - axes, size * n
        if space.conditions[position] or position in space.condition_axes or size > _MAX_BLOCK:
            break
        slots = -(-size // chunk) * chunk
        if slots - size <= _MAX_PADDING * slots:
            return _Block(axes, size, slots)
    return _Block()


def default_chunk(platform: str) -> int:
    """Return the default number of designs that are evaluated together."""
    return compilation("sweep", platform).chunk


@functools.lru_cache
def over_designs(evaluation: Evaluation) -> Evaluation:
    """Vectorize a function of one design, [m]: of leaves [] or [*batch] it returns metrics [m, *batch].

    Equal arguments give the same object, so that programs of it are compiled once.
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


class SweepStream:
    """Evaluates runs of designs and feeds them to reducers, whose states stay on the devices."""

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
        """Prepare the stream; the first run compiles it.

        Args:
            space: the designs.
            evaluation: function that returns the metrics [m, n] of n designs, whose leaves are [] or [n]; hashable, and
                the same object for the same function.
            metrics: names of the metrics.
            reducers: what to keep, by name.
            chunk: designs evaluated together, a multiple of 64; by default the fastest on the platform.
            devices: where to run; all local devices by default.
            keep: longest run for which `run` returns all metrics; with 0 it returns None.

        Raises:
            ValueError: a chunk that is no positive multiple of 64, or a reducer of an unknown metric.
        """
        devices = tuple(jax.local_devices() if devices is None else devices)
        chunk = default_chunk(devices[0].platform) if chunk is None else chunk
        if chunk <= 0 or chunk % _VECTOR:
            raise ValueError(f"a chunk must be a positive multiple of {_VECTOR} designs; got {chunk}")
        for name, reducer in reducers.items():
            missing = [metric for metric in reducer.needs if metric not in metrics]
            if missing:
                raise ValueError(f"reducer {name!r} reads {missing[0]!r}, which is not among the metrics")
        self.space, self.metrics = space, metrics
        self.batch = -(-_MIN_BATCH // chunk) * chunk
        self.reducers = dict(reducers)
        self.schema = BatchSchema(metrics=metrics, axes=space.names, shape=space.shape)
        self._chunk, self._block = chunk, _block_of(space, chunk)
        blocks = -(-keep // self._block.size) + 1
        slots = keep + (self._block.slots - self._block.size) * blocks + 2 * chunk
        self._rounds = -(-slots // (self.batch * len(devices))) if keep else 0
        self._mesh = Mesh(np.asarray(devices), ("designs",))
        self._run = _compiled(
            evaluation,
            self.schema,
            tuple(self.reducers.items()),
            self._block,
            chunk,
            self.batch,
            self._mesh,
            self._rounds,
        )
        # Sent once: its hundreds of leaves take 30 ms.
        self._replicated = jax.device_put(compact_space(space), NamedSharding(self._mesh, PartitionSpec()))
        self.load_state(self.initial_state())

    def initial_state(self) -> dict[str, Any]:
        """Return the states of reducers without designs, on the host."""
        return {name: jax.device_get(r.init(self.schema)) for name, r in self.reducers.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state: the first device takes it, the others start without designs."""
        parts = [state] + [self.initial_state() for _ in range(self._mesh.size - 1)]
        stacked = jax.tree.map(lambda *x: np.stack(x), *parts)
        self._state = jax.device_put(stacked, NamedSharding(self._mesh, PartitionSpec("designs")))

    def run(self, index: int, count: int) -> np.ndarray | None:
        """Evaluate `count` designs from `index` on and update the reducers.

        Returns at once with None where the stream keeps no metrics, else the metrics, shape [count, metrics].
        """
        kept = []
        while count > 0:
            cursor, left = cursor_at(self.space, index)
            part = min(count, left, _MAX_RUN)
            before = self._offset_in_block(cursor)
            if before:
                cursor, _ = cursor_at(self.space, index - before)
            slots = _SlotRange.of(self._block, self._chunk, before, part)
            base = wide.wide(index - before)
            self._state, values = self._run(self._replicated, cursor, base, slots, self._state)
            if self._rounds:
                kept.append(self._in_order(values, slots))
            index, count = index + part, count - part
        return np.concatenate(kept) if kept else None

    def _offset_in_block(self, cursor: Cursor) -> int:
        """Return the number of designs of its block that precede a design."""
        axes = range(len(self.space.shape) - self._block.axes, len(self.space.shape))
        return functools.reduce(lambda n, k: n * self.space.shape[k] + int(cursor.start[k]), axes, 0)

    def _in_order(self, values: jax.Array, run: "_SlotRange") -> np.ndarray:
        by_device = np.asarray(values).reshape(self._mesh.size, self._rounds, len(self.metrics), self.batch)
        in_slots = by_device.transpose(1, 0, 3, 2).reshape(-1, len(self.metrics))
        slots = int(run.first_slot) + np.arange(len(in_slots), dtype=np.int64)
        return in_slots[_designs_in(slots, run, self._block)[1]]

    def wait(self) -> None:
        """Block until all runs are finished."""
        jax.block_until_ready(self._state)

    def state(self) -> dict[str, Any]:
        """Return the merged states of all devices, on the host."""
        by_device = jax.device_get(self._state)
        parts = [jax.tree.map(lambda x, i=i: x[i], by_device) for i in range(self._mesh.size)]
        return merge_states(self.schema, self.reducers, parts)

    def results(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the results of all reducers for a state, by name."""
        return {name: r.result(self.schema, state[name]) for name, r in self.reducers.items()}


@pytree
class _SlotRange:
    """A run of designs, with offsets from the first design of the block in which the run begins."""

    low: np.ndarray = field("1", "int32: offset of the first design")
    high: np.ndarray = field("1", "int32: one past the offset of the last design")
    first_slot: np.ndarray = field("1", "int32: first slot of the first chunk")
    last_slot: np.ndarray = field("1", "int32: one past the last slot of the last chunk")

    @classmethod
    def of(cls, block: _Block, chunk: int, low: int, count: int) -> "_SlotRange":
        """Return the slots of `count` designs from an offset on."""
        first, last = block.slot(low), block.slot(low + count - 1)
        return cls(
            low=np.asarray(low, np.int32),
            high=np.asarray(low + count, np.int32),
            first_slot=np.asarray(first // chunk * chunk, np.int32),
            last_slot=np.asarray((last // chunk + 1) * chunk, np.int32),
        )


def _designs_in(slots: Any, run: _SlotRange, block: _Block) -> tuple[Any, Any]:
    """Return the offsets of the designs in slots, and which slots contain a design of the run."""
    within = slots % block.slots
    offset = slots // block.slots * block.size + within
    inside = (offset >= run.low) & (offset < run.high) & (slots < run.last_slot)
    return offset, inside & (within < block.size)


def _chunk_indices(
    space: Space, cursor: Cursor, slot: jax.Array, run: _SlotRange, block: _Block, chunk: int
) -> list[jax.Array]:
    """Return the axis indices of the chunk at a slot: scalars for axes before the block, [chunk] for its axes."""
    within = jnp.minimum(slot % block.slots + jnp.arange(chunk, dtype=np.int32), block.size - 1)
    if not block.axes:
        return list(axis_indices_at(space, cursor, jnp.minimum(within, run.high - 1)))
    constant = axis_indices_at(space, cursor, slot // block.slots * block.size)
    return [*list(constant)[: -block.axes], *unravel_index(within, space.shape[-block.axes :])]


def merge_states(
    schema: BatchSchema, reducers: Mapping[str, Reducer], states: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Merge the states of disjoint sets of designs into one, on the host."""
    merge = _merge(schema, tuple(reducers.items()))
    return jax.device_get(functools.reduce(merge, states))


@functools.lru_cache
def _merge(schema: BatchSchema, reducers: tuple[tuple[str, Reducer], ...]) -> Callable:
    return jax.jit(lambda a, b: {name: r.merge(schema, a[name], b[name]) for name, r in reducers})


@functools.lru_cache
def _compiled(
    evaluation: Evaluation,
    schema: BatchSchema,
    reducers: tuple[tuple[str, Reducer], ...],
    block: _Block,
    chunk: int,
    batch: int,
    mesh: Mesh,
    rounds: int,
) -> Callable:
    metrics = len(schema.metrics)

    def evaluate_chunk(
        space: Space, cursor: Cursor, slot: jax.Array, run: _SlotRange
    ) -> tuple[jax.Array, jax.Array]:
        axis_indices = _chunk_indices(space, cursor, slot, run, block, chunk)
        values = evaluation(build_designs(space, axis_indices))
        return jnp.broadcast_to(values.reshape(metrics, -1), (metrics, chunk)), stack(axis_indices)

    def run_on_device(
        space: Space, cursor: Cursor, base: jax.Array, run: _SlotRange, state: Any
    ) -> tuple[Any, Any]:
        device = jax.lax.axis_index("designs")
        state = jax.tree.map(lambda x: x[0], state)

        def take_batch(number: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            state, kept = carry
            first = run.first_slot + (number * mesh.size + device) * batch

            def fill_chunk(k: jax.Array, filled: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                # The barrier keeps all work of a chunk in this loop: what XLA hoists out of it is rounded differently
                # in different programs.
                new = evaluate_chunk(*jax.lax.optimization_barrier((space, cursor, first + k * chunk, run)))
                put = lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, k * chunk, axis=1)  # noqa: E731
                return jax.tree.map(put, filled, new)

            chunks = jnp.clip((run.last_slot - first) // chunk, 0, batch // chunk)
            values, axis_indices = jax.lax.fori_loop(0, chunks, fill_chunk, empty)
            offset, valid = _designs_in(first + jnp.arange(batch, dtype=np.int32), run, block)
            rows = Batch(
                values=values.T, index=wide.add(base, offset), axis_indices=axis_indices.T, valid=valid
            )
            state = {name: r.update(schema, state[name], rows) for name, r in reducers}
            return state, jax.lax.dynamic_update_index_in_dim(kept, values, number, 0) if rounds else kept

        empty = (
            jnp.zeros((metrics, batch), jnp.result_type(float)),
            jnp.zeros((len(schema.axes), batch), np.int32),
        )
        kept = jnp.zeros((rounds, metrics, batch), jnp.result_type(float))
        count = -(-(run.last_slot - run.first_slot) // (batch * mesh.size))
        state, kept = jax.lax.fori_loop(0, count, take_batch, (state, kept))
        return jax.tree.map(lambda x: x[None], state), kept

    replicated, split = PartitionSpec(), PartitionSpec("designs")
    sharded = jax.shard_map(
        run_on_device,
        mesh=mesh,
        in_specs=(replicated, replicated, replicated, replicated, split),
        out_specs=(split, split),
        check_vma=False,  # every device has its own state, and nothing is exchanged between them
    )
    platform = mesh.devices.flat[0].platform
    # Without its sharding stated, an empty leaf of the state returns replicated, and the next run compiles again.
    return jax.jit(
        sharded,
        donate_argnums=4,
        out_shardings=NamedSharding(mesh, split),
        compiler_options=compilation("sweep", platform).options,
    )
