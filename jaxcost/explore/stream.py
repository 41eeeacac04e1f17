"""Evaluate runs of consecutive designs on all devices of one process and keep only what reducers keep.

A design is made on the device from its index. A run of designs is cut into batches; device d of D takes the batches
d, d + D, d + 2 D, ..., evaluates each chunk by chunk, natively with the chunk in the last axis, hands it to the
reducers, whose state it carries, and forgets it. How long a run is, is traced, so runs of any length share
one compilation.

Chunks fill a batch in a loop of their own, which XLA can not fuse with what follows: reducers then read the metrics
from memory, a row a metric, and no program computes them in its own way. Batches of 2,048 designs or more spread what
a call of a reducer costs whatever its size.

The metrics of a design do not depend on its neighbours, bit for bit, while chunks are multiples of 64 designs: then
all of them stand in whole vectors, and no design meets the scalar code of a vector loop's remainder.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxcost.core import wide
from jaxcost.core.arrays import batch_shape, spread
from jaxcost.explore.compiling import compilation
from jaxcost.explore.reduce import Batch, Layout, Reducer
from jaxcost.explore.space import Design, Place, Space, compacted, design_of, digits_at, place

__all__ = ["Evaluation", "Stream", "default_chunk", "merged", "over_designs"]

Evaluation = Callable[[Design], jax.Array]
"""Metrics of one design, a vector; a pure function that JAX can trace."""

# Whether leaves that no axis moves stay scalars. With them XLA simplifies quotients in an order that differs between
# programs for one device and for several, and results differ by one unit in the last place; without XLA's "algsimp",
# which does so, they do not, at 0.83 of the rate.
_SHARED = False
_VECTOR = 64
_BATCH = 2048
_LONGEST = 2**29


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
        self._compact = compacted(space)
        self.batch = -(-_BATCH // chunk) * chunk
        self.reducers = dict(reducers)
        self.layout = Layout(metrics=metrics, axes=space.names, shape=space.shape)
        self._rounds = -(-keep // (self.batch * len(devices)))
        self._run = _compiled(
            evaluation, self.layout, tuple(self.reducers.items()), chunk, self.batch, devices, self._rounds
        )
        self._split = NamedSharding(Mesh(np.asarray(devices), ("designs",)), PartitionSpec("designs"))
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
            base = wide.wide(index)
            self._state, values = self._run(self._compact, where, base, np.int32(part), self._state)
            if self._rounds:
                kept.append(self._in_order(values, part))
            index, count = index + part, count - part
        return np.concatenate(kept) if kept else None

    def _in_order(self, values: jax.Array, count: int) -> np.ndarray:
        by_device = np.asarray(values).reshape(self._devices, self._rounds, len(self.metrics), self.batch)
        return by_device.transpose(1, 0, 3, 2).reshape(-1, len(self.metrics))[:count]

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
    chunk: int,
    batch: int,
    devices: tuple[Any, ...],
    rounds: int,
) -> Callable:
    mesh, count_of_devices = Mesh(np.asarray(devices), ("designs",)), len(devices)
    everywhere, here = PartitionSpec(), PartitionSpec("designs")

    def evaluated(space: Space, where: Place, offset: jax.Array) -> tuple[jax.Array, jax.Array]:
        digits = digits_at(space, where, offset)
        designs = design_of(space, list(digits))
        values = evaluation(designs if _SHARED else spread(designs, offset.shape))
        return jnp.broadcast_to(values.reshape(len(layout.metrics), -1), (len(layout.metrics), chunk)), digits

    def on_device(
        space: Space, where: Place, base: jax.Array, count: jax.Array, state: Any
    ) -> tuple[Any, Any]:
        device = jax.lax.axis_index("designs")
        state = jax.tree.map(lambda x: x[0], state)

        def take(turn: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            state, kept = carry
            first = (turn * count_of_devices + device) * batch

            def fill(k: jax.Array, filled: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
                offset = jnp.minimum(first + k * chunk + jnp.arange(chunk, dtype=np.int32), count - 1)
                # All that a chunk takes is made in this loop: work moved out of it would differ from program to program
                # in its last bits.
                new = evaluated(*jax.lax.optimization_barrier((space, where, offset)))
                put = lambda all_of_them, some: jax.lax.dynamic_update_slice_in_dim(  # noqa: E731
                    all_of_them, some, k * chunk, axis=1
                )
                return jax.tree.map(put, filled, new)

            values, digits = jax.lax.fori_loop(0, batch // chunk, fill, empty)
            offset = first + jnp.arange(batch, dtype=np.int32)
            rows = Batch(values=values.T, index=wide.add(base, offset), digits=digits.T, valid=offset < count)
            state = {name: r.update(layout, state[name], rows) for name, r in reducers}
            return state, jax.lax.dynamic_update_index_in_dim(kept, values, turn, 0) if rounds else kept

        metrics = len(layout.metrics)
        empty = (
            jnp.zeros((metrics, batch), jnp.result_type(float)),
            jnp.zeros((len(layout.axes), batch), np.int32),
        )
        kept = jnp.zeros((rounds, metrics, batch), jnp.result_type(float))
        turns = -(-count // (batch * count_of_devices))
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
