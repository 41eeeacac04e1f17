"""A sweep of any length: over processes, with checkpoints, to be stopped and resumed at any moment.

The designs are cut into blocks of consecutive indices. A process takes every P-th block that is left, and what it has
done is a set of blocks and the reducers' state over exactly those; a checkpoint holds both. So whatever happens, a
design is counted once or still to do, and since reducers give the same result in any order, so does the sweep.
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
from jaxcost.edge.jobs.workers import everyone, orphaned, together
from jaxcost.explore.space import Space, sweep_features
from jaxcost.explore.sweep import (
    METRICS,
    Evaluation,
    Reducer,
    Stream,
    default_block,
    default_chunk,
    merged,
    metrics_of,
    model_evaluation,
    over_designs,
)

if TYPE_CHECKING:
    from jaxcost.edge.jobs.sweep_files import DesignFile, Partitions

__all__ = ["Outcome", "Progress", "run_sweep"]

_MOST = 1 << 60  # designs that a sweep can count
_MOST_BLOCKS = 26  # as a power of two
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a sweep is."""

    done: int  # designs, of all processes, where this one can know
    size: int
    now: int  # of those, designs done since this run began
    results: Callable[[], dict[str, Any]]  # what the reducers of this process say so far


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a sweep has found."""

    space: Space
    results: dict[str, Any]  # of every reducer, by name
    metrics: tuple[str, ...]
    seconds: float  # of all runs that it took, compilation included
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
    """Sweep a space of any size, on every process that JAX knows of, and keep what reducers keep.

    Args:
        space: the designs.
        reduce: what to keep, by name.
        folder: where checkpoints, the manifest and results go; without it nothing is written.
        resume: go on with what the folder holds; without it a folder in use is refused.
        keep: write every design too, to `designs/` in the folder, as Parquet partitioned by system and model; or
            to one file of the given path, which can not be resumed or shared by processes.
        metrics: dotted paths into a Report that every kept design has; what reducers read comes by itself.
        evaluation: another function of a design that gives `metrics` as a vector; by default `evaluate`.
        every: seconds between checkpoints.
        chunk: designs evaluated together, a multiple of 64; by default what is fastest on the platform.
        block: designs between two looks at the clock; by default about a second's work.
        devices: where to run; all local devices by default.
        progress: called after every block.
        about: what else the manifest is to say.

    Raises:
        InputError: a folder in use, or of another sweep.
        RunError: stopped by a signal, a disk that is full, or a damaged checkpoint; says how to go on.
        ValueError: a bad chunk, or a reducer of an unknown metric.
    """
    path = None if folder is None else Path(folder)
    if keep is True and path is None:
        raise InputError("a folder, where every design is to be kept", path="keep")
    if space.size > _MOST:
        raise InputError("a space of at most 2^60 designs", given=f"{space.size:,}")
    metrics = metrics if evaluation is not None else metrics_of(reduce, metrics)
    devices = jax.local_devices() if devices is None else devices
    block = min(_block(space.size, devices, chunk) if block is None else block, space.size)
    stream = Stream(
        space,
        over_designs(evaluation) if evaluation else model_evaluation(metrics, sweep_features(space)),
        metrics,
        reduce,
        chunk=chunk,
        devices=devices,
        keep=block if keep else 0,
    )
    sink = _sink(keep, path, stream)
    run = _Run(
        stream, block, path, sink, every, progress, _identity(space, stream, block, bool(keep), evaluation)
    )
    first = jax.process_index() == 0
    with contextlib.ExitStack() as held:
        if path is not None:
            _prepare(path)
            if first:
                held.enter_context(locked(path))
                remove_unfinished(path)
            run.take_up(resume)
            if first:
                run.note(devices, about or {})
        together("read")  # nobody writes before all have read
        with _stopping() as asked:
            run.work(asked)
        outcome = run.finish()
        if path is not None and first:
            from jaxcost.edge.jobs.sweep_files import write_results

            _guarded(path, lambda: write_results(path, outcome.space, outcome.results))
            run.note(devices, about or {}, outcome.seconds)
    return outcome


class _Run:
    """The blocks of one process: what is done, by whom, and where that is noted."""

    def __init__(
        self,
        stream: Stream,
        block: int,
        folder: Path | None,
        sink: "Partitions | DesignFile | None",
        every: float,
        progress: Callable[[Progress], None] | None,
        identity: dict[str, str],
    ) -> None:
        self.stream, self.block, self.folder, self.every = stream, block, folder, every
        self.progress, self.identity = progress, identity
        self.blocks = math.ceil(stream.space.size / block)
        self.all_done = np.zeros(self.blocks, bool)  # by anyone, before this run
        self.own = Checkpoint(
            identity=identity,
            done=np.zeros(self.blocks, bool),
            state=None,
            seconds=0.0,
            run=0,
            process=jax.process_index(),
        )
        self.before = 0.0  # seconds of earlier runs
        self.now = 0
        self.start = time.monotonic()
        self.designs = sink

    def take_up(self, resume: bool) -> None:
        """Read the folder's checkpoints, and take this process's part of them over."""
        assert self.folder is not None
        found = load_checkpoints(self.folder, self.identity, self.blocks, self.stream.fresh())
        if found and not resume:
            share = np.mean(np.any([c.done for c in found], axis=0))
            raise InputError(
                f"a new folder, or --resume to go on with the sweep there, of which {share:.1%} is done",
                given=str(self.folder),
            )
        ours = found[jax.process_index() :: jax.process_count()]
        self.all_done = np.any([c.done for c in found], axis=0) if found else self.all_done
        self.before = max((c.seconds for c in found), default=0.0)
        self.own = dataclasses.replace(
            self.own,
            done=np.any([c.done for c in ours], axis=0) if ours else self.own.done,
            run=max((c.run for c in found), default=-1) + 1,
            replaces=tuple(c.name for c in ours),
        )
        if ours:
            stream = self.stream
            self.stream.load(merged(stream.layout, stream.reducers, [c.state for c in ours]))

    def work(self, asked: threading.Event) -> None:
        """Evaluate this process's blocks, until all are done or someone asks to stop."""
        left = np.flatnonzero(~self.all_done)[jax.process_index() :: jax.process_count()]
        saved = time.monotonic()
        for number in left:
            first, last = self._range(int(number))
            values = self.stream.run(first, last - first)
            if self.designs is not None and values is not None:
                put = functools.partial(self.designs.put, int(number), first, values)
                self._written(put)
            self.stream.wait()
            self.own.done[number] = True
            self.now += last - first
            if self.progress is not None:
                self.progress(self._progress())
            if asked.is_set() or orphaned():
                self.save()
                raise RunError(self._stopped(), status=130)
            if time.monotonic() - saved > self.every:
                self.save()
                saved = time.monotonic()
        if len(left) or self.own.replaces:
            self.save()
        if self.designs is not None:
            self._written(self.designs.close)

    def finish(self) -> Outcome:
        """Merge what all processes have found."""
        together("done")
        stream = self.stream
        own = (stream.state(), self.own.done, np.int32(self.now >> 30), np.int32(self.now % (1 << 30)))
        parts = everyone(own)
        counts = np.sum([part[1] for part in parts], axis=0, dtype=int)
        if not np.all(counts == 1):
            raise RunError(f"{np.sum(counts == 0)} blocks are missing; run again with --resume")
        state = merged(stream.layout, stream.reducers, [part[0] for part in parts])
        return Outcome(
            space=stream.space,
            results=stream.results(state),
            metrics=stream.metrics,
            seconds=self._seconds(),
            now=sum((int(part[2]) << 30) + int(part[3]) for part in parts),
        )

    def note(self, devices: Sequence[Any], about: Mapping[str, Any], seconds: float | None = None) -> None:
        """Write the manifest."""
        from jaxcost.edge.jobs.sweep_files import write_manifest

        assert self.folder is not None
        folder, space, metrics = self.folder, self.stream.space, self.stream.metrics
        self._written(lambda: write_manifest(folder, self.identity, space, metrics, devices, about, seconds))

    def save(self) -> None:
        """Write down what is done, where there is a folder."""
        if self.designs is not None:
            self._written(self.designs.settle)
        folder = self.folder
        if folder is None:
            return
        checkpoint = dataclasses.replace(self.own, state=self.stream.state(), seconds=self._seconds())
        self._written(lambda: save_checkpoint(folder, checkpoint))

    def _written(self, write: Callable[[], Any]) -> None:
        _guarded(self.folder, write)

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def _range(self, number: int) -> tuple[int, int]:
        return number * self.block, min((number + 1) * self.block, self.stream.space.size)

    def _progress(self) -> Progress:
        size, others = self.stream.space.size, jax.process_count()
        before = min(int(self.all_done.sum()) * self.block, size)
        return Progress(
            done=min(before + self.now * others, size),
            size=size,
            now=self.now * others,
            results=lambda: self.stream.results(self.stream.state()),
        )

    def _stopped(self) -> str:
        done = self._progress()
        where = "; nothing was kept, for no folder was given (--out)"
        if self.folder is not None:
            where = f"; all of it is in {self.folder}, run again with --resume to go on"
        return f"stopped at {done.done / done.size:.1%} of {done.size:,} designs{where}"


def _block(size: int, devices: Sequence[Any], chunk: int | None) -> int:
    """Designs between two looks: about a second's work, but some of a small space and not too many of a vast one."""
    platform = devices[0].platform
    least = max(chunk or default_chunk(platform), 4096) * len(devices)
    return max(min(default_block(platform), max(size // 64, least)), size >> _MOST_BLOCKS)


def _guarded(folder: Path | None, write: Callable[[], Any]) -> None:
    """Write, and say what a full or failing disk means for the sweep."""
    try:
        write()
    except OSError as error:
        why = "no space is left on the disk" if error.errno in _FULL else (error.strerror or str(error))
        if folder is None:
            raise RunError(f"{error.filename or 'the file of designs'}: {why}") from error
        raise RunError(
            f"{folder}: {why}; the last checkpoint there is whole: make room and run again with --resume"
        ) from error


def _sink(keep: bool | str | Path, folder: Path | None, stream: Stream) -> "Partitions | DesignFile | None":
    if not keep:
        return None
    from jaxcost.edge.jobs.sweep_files import DesignFile, Partitions

    if isinstance(keep, str | Path):
        return DesignFile(Path(keep), stream.space, stream.metrics)
    return Partitions(folder, stream.space, stream.metrics) if folder else None


def _prepare(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError("a folder, new or of this sweep", path="--out", given=str(folder))
    _guarded(folder, lambda: folder.mkdir(parents=True, exist_ok=True))


def _identity(
    space: Space, stream: Stream, block: int, keep: bool, evaluation: Evaluation | None
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
def _stopping() -> Iterator[threading.Event]:
    """Turn Ctrl-C or a request to end into an event; a second Ctrl-C ends at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, _: Any) -> None:
        if number == signal.SIGINT and asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    old = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)
