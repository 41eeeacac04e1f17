"""A sweep of any length over several processes, with checkpoints, that can be stopped and resumed at any moment.

The designs are cut into blocks of consecutive indices. A process evaluates every P-th of the blocks that remain. Its
checkpoint holds the set of finished blocks and the states of the reducers over exactly these blocks. So a design is
either counted once or not yet evaluated, whatever happens; and since the results of reducers do not depend on order,
neither do those of the sweep.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxcost.edge.io.errors import InputError, RunError
from jaxcost.edge.io.write import remove_unfinished
from jaxcost.edge.jobs.checkpoint import Checkpoint, load_checkpoints, locked, save_checkpoint
from jaxcost.edge.jobs.workers import all_gather, barrier, parent_exited
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import (
    METRICS,
    Evaluation,
    Reducer,
    SweepStream,
    build_stream,
    default_block,
    default_chunk,
    merge_states,
)

if TYPE_CHECKING:
    from jaxcost.edge.jobs.sweep_files import DesignFile, DesignFolder

__all__ = ["Outcome", "Progress", "run_sweep"]

_MAX_DESIGNS = 1 << 60
_MAX_BLOCKS = 26  # as a power of two
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a sweep."""

    done: int  # designs finished by all processes; those of other processes are estimated
    size: int  # designs in all
    now: int  # designs finished since this run began
    results: Callable[[], dict[str, Any]]  # returns the results of this process's reducers so far


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of a finished sweep."""

    space: Space
    results: dict[str, Any]  # of every reducer, by name
    metrics: tuple[str, ...]
    seconds: float  # of all runs of the sweep, compilation included
    now: int  # designs that this run evaluated, over all its processes


def run_sweep(
    space: Space,
    reduce: Mapping[str, Reducer],
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    keep: bool | str | Path = False,
    metrics: tuple[str, ...] = METRICS,
    evaluation: Evaluation | None = None,
    every: float = 30.0,
    chunk: int | None = None,
    block: int | None = None,
    devices: Sequence[Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Outcome:
    """Sweep a space of any size on all processes of JAX, and return what reducers keep.

    Args:
        space: the designs.
        reduce: what to keep, by name.
        folder: folder for checkpoints, the manifest and results; without it nothing is written.
        resume: continue the sweep in the folder; without it a folder in use is an error.
        keep: also write every design, to `designs/` in the folder as Parquet partitioned by system and model; or to
            one file of the given path, which excludes `resume` and several processes.
        metrics: dotted paths into a Report that every written design has; those that reducers read are added.
        evaluation: another function of a design that returns `metrics` as a vector; by default `evaluate`.
        every: seconds between checkpoints.
        chunk: designs evaluated together, a multiple of 64; by default the fastest on the platform.
        block: designs between two calls of `progress`; by default about a second's work.
        devices: where to run; all local devices by default.
        progress: called after every block.
        about: further entries of the manifest.

    Raises:
        InputError: a folder in use, or of another sweep.
        RunError: a signal, a full disk, or a damaged checkpoint; the message says how to continue.
        ValueError: a bad chunk, or a reducer of an unknown metric.
    """
    path = None if folder is None else Path(folder)
    if keep is True and path is None:
        raise InputError("a folder, where every design is to be kept", path="keep")
    if space.size > _MAX_DESIGNS:
        raise InputError("a space of at most 2^60 designs", given=f"{space.size:,}")
    devices = jax.local_devices() if devices is None else devices
    block = min(_block(space.size, devices, chunk) if block is None else block, space.size)
    stream = build_stream(
        space,
        reduce,
        metrics=metrics,
        evaluation=evaluation,
        chunk=chunk,
        devices=devices,
        keep=block if keep else 0,
    )
    writer = _design_writer(keep, path, stream)
    identity = _identity(space, stream, block, bool(keep), evaluation)
    job = _SweepJob(stream, block, path, writer, every, progress, identity)
    first = jax.process_index() == 0
    with contextlib.ExitStack() as locks:
        if path is not None:
            _make_folder(path)
            if first:
                locks.enter_context(locked(path))
                remove_unfinished(path)
            job.load_checkpoints(resume)
            if first:
                job.write_manifest(devices, about or {})
        barrier("read")  # no process writes before all have read
        with _stop_on_signal() as stop:
            job.run_blocks(stop)
        outcome = job.finish()
        if path is not None and first:
            from jaxcost.edge.jobs.sweep_files import write_results

            _guard_disk(path, lambda: write_results(path, outcome.space, outcome.results))
            job.write_manifest(devices, about or {}, outcome.seconds)
    return outcome


class _SweepJob:
    """The part of one process in a sweep: its blocks, and its checkpoint."""

    def __init__(
        self,
        stream: SweepStream,
        block: int,
        folder: Path | None,
        writer: "DesignFolder | DesignFile | None",
        every: float,
        progress: Callable[[Progress], None] | None,
        identity: dict[str, str],
    ) -> None:
        self.stream, self.block, self.folder, self.every = stream, block, folder, every
        self.progress, self.identity = progress, identity
        self.blocks = math.ceil(stream.space.size / block)
        self.finished = np.zeros(self.blocks, bool)  # blocks of all processes, before this run
        self.checkpoint = Checkpoint(
            identity=identity,
            done=np.zeros(self.blocks, bool),
            state=None,
            seconds=0.0,
            run=0,
            process=jax.process_index(),
        )
        self.earlier_seconds = 0.0  # of earlier runs
        self.now = 0
        self.start = time.monotonic()
        self.writer = writer

    def load_checkpoints(self, resume: bool) -> None:
        """Read the checkpoints of the folder and continue from this process's share of them."""
        assert self.folder is not None
        checkpoints = load_checkpoints(self.folder, self.identity, self.blocks, self.stream.initial_state())
        if checkpoints and not resume:
            share = np.mean(np.any([c.done for c in checkpoints], axis=0))
            raise InputError(
                f"a new folder, or --resume to continue the sweep there, of which {share:.1%} is done",
                given=str(self.folder),
            )
        ours = checkpoints[jax.process_index() :: jax.process_count()]
        self.finished = np.any([c.done for c in checkpoints], axis=0) if checkpoints else self.finished
        self.earlier_seconds = max((c.seconds for c in checkpoints), default=0.0)
        self.checkpoint = dataclasses.replace(
            self.checkpoint,
            done=np.any([c.done for c in ours], axis=0) if ours else self.checkpoint.done,
            run=max((c.run for c in checkpoints), default=-1) + 1,
            replaces=tuple(c.name for c in ours),
        )
        if ours:
            stream = self.stream
            stream.load_state(merge_states(stream.schema, stream.reducers, [c.state for c in ours]))

    def run_blocks(self, stop: threading.Event) -> None:
        """Evaluate the blocks of this process until all are finished or a stop is requested."""
        left = np.flatnonzero(~self.finished)[jax.process_index() :: jax.process_count()]
        saved = time.monotonic()
        for number in left:
            first, last = self._range(int(number))
            values = self.stream.run(first, last - first)
            if self.writer is not None and values is not None:
                put = functools.partial(self.writer.put, int(number), first, values)
                self._guard_disk(put)
            self.stream.wait()
            self.checkpoint.done[number] = True
            self.now += last - first
            if self.progress is not None:
                self.progress(self._progress())
            if stop.is_set() or parent_exited():
                self.save()
                raise RunError(self._stop_message(), status=130)
            if time.monotonic() - saved > self.every:
                self.save()
                saved = time.monotonic()
        if len(left) or self.checkpoint.replaces:
            self.save()
        if self.writer is not None:
            self._guard_disk(self.writer.close)

    def finish(self) -> Outcome:
        """Merge the states of all processes into the results."""
        barrier("done")
        stream = self.stream
        counted = (
            stream.state(),
            self.checkpoint.done,
            np.int32(self.now >> 30),
            np.int32(self.now % (1 << 30)),
        )
        parts = all_gather(counted)
        counts = np.sum([part[1] for part in parts], axis=0, dtype=int)
        if not np.all(counts == 1):
            raise RunError(f"{np.sum(counts == 0)} blocks are missing; run again with --resume")
        state = merge_states(stream.schema, stream.reducers, [part[0] for part in parts])
        return Outcome(
            space=stream.space,
            results=stream.results(state),
            metrics=stream.metrics,
            seconds=self._seconds(),
            now=sum((int(part[2]) << 30) + int(part[3]) for part in parts),
        )

    def write_manifest(
        self, devices: Sequence[Any], about: Mapping[str, Any], seconds: float | None = None
    ) -> None:
        """Write the manifest."""
        from jaxcost.edge.jobs.sweep_files import write_manifest

        assert self.folder is not None
        folder, space, metrics = self.folder, self.stream.space, self.stream.metrics
        self._guard_disk(
            lambda: write_manifest(folder, self.identity, space, metrics, devices, about, seconds)
        )

    def save(self) -> None:
        """Write a checkpoint, if there is a folder."""
        if self.writer is not None:
            self._guard_disk(self.writer.flush)
        folder = self.folder
        if folder is None:
            return
        checkpoint = dataclasses.replace(self.checkpoint, state=self.stream.state(), seconds=self._seconds())
        self._guard_disk(lambda: save_checkpoint(folder, checkpoint))

    def _guard_disk(self, write: Callable[[], Any]) -> None:
        _guard_disk(self.folder, write)

    def _seconds(self) -> float:
        return self.earlier_seconds + time.monotonic() - self.start

    def _range(self, number: int) -> tuple[int, int]:
        return number * self.block, min((number + 1) * self.block, self.stream.space.size)

    def _progress(self) -> Progress:
        size, others = self.stream.space.size, jax.process_count()
        before = min(int(self.finished.sum()) * self.block, size)
        return Progress(
            done=min(before + self.now * others, size),
            size=size,
            now=self.now * others,
            results=lambda: self.stream.results(self.stream.state()),
        )

    def _stop_message(self) -> str:
        done = self._progress()
        where = "; nothing was saved, as no folder was given (--out)"
        if self.folder is not None:
            where = f"; all of it is in {self.folder}, run again with --resume to continue"
        return f"stopped at {done.done / done.size:.1%} of {done.size:,} designs{where}"


def _block(size: int, devices: Sequence[Any], chunk: int | None) -> int:
    """Return the designs of a block: about a second's work; fewer in a small space, and never more than 2^26 blocks."""
    platform = devices[0].platform
    least = max(chunk or default_chunk(platform), 4096) * len(devices)
    return max(min(default_block(platform), max(size // 64, least)), size >> _MAX_BLOCKS)


def _guard_disk(folder: Path | None, write: Callable[[], Any]) -> None:
    """Write, and turn a full or failing disk into an error that says how to continue."""
    try:
        write()
    except OSError as error:
        why = "no space is left on the disk" if error.errno in _DISK_FULL else (error.strerror or str(error))
        if folder is None:
            raise RunError(f"{error.filename or 'the file of designs'}: {why}") from error
        raise RunError(
            f"{folder}: {why}; the last checkpoint there is complete: make room and run again with --resume"
        ) from error


def _design_writer(
    keep: bool | str | Path, folder: Path | None, stream: SweepStream
) -> "DesignFolder | DesignFile | None":
    if not keep:
        return None
    from jaxcost.edge.jobs.sweep_files import DesignFile, DesignFolder

    if isinstance(keep, str | Path):
        return DesignFile(Path(keep), stream.space, stream.metrics)
    return DesignFolder(folder, stream.space, stream.metrics) if folder else None


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder, new or of this sweep", path="--out", given=str(folder))
    _guard_disk(folder, lambda: folder.mkdir(parents=True, exist_ok=True))


def _identity(
    space: Space, stream: SweepStream, block: int, keep: bool, evaluation: Evaluation | None
) -> dict[str, str]:
    leaves, structure = jax.tree.flatten(space)
    digest = hashlib.sha256(str(structure).encode())
    for leaf in map(np.asarray, leaves):
        digest.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return {
        "space": digest.hexdigest(),
        "reducers": repr(sorted(stream.reducers.items())),
        "metrics": ", ".join(stream.metrics),
        "evaluation": getattr(evaluation, "__qualname__", "evaluate"),
        "block": str(block),
        "every design kept": str(keep),
        "precision": str(jax.numpy.result_type(float)),
        "platform": jax.default_backend(),
        "jaxcost": version("jaxcost"),
        "jax": jax.__version__,
    }


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event; a second SIGINT raises KeyboardInterrupt."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, _: Any) -> None:
        if number == signal.SIGINT and stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)
