"""Processes that share a sweep: started here, or by a cluster manager that JAX supports, such as SLURM or GKE."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxcost.edge.io.errors import InputError, RunError

__all__ = [
    "all_gather",
    "barrier",
    "exit_worker",
    "join_cluster",
    "launch",
    "parent_exited",
    "worker_started",
]

_VARIABLE = (
    "JAXCOST_WORKER"  # "coordinator address, number of processes, number of this one, parent's process id"
)
_BARRIER_TIMEOUT = 20 * 24 * 3600  # seconds that a finished process waits for the others
_SAVE_TIMEOUT = 120.0  # seconds in which the others may save their state after one was lost
_COORDINATOR_DELAY = 0.5  # seconds by which the coordinator exits after the others
_STOPPED = 130  # exit status of a process that was asked to stop
_COMMAND = (sys.executable, "-m", "jaxcost")
_barriers = itertools.count()


def worker_started() -> bool:
    """Join the processes that `launch` started, if this is one of them, and return whether it is."""
    setting = os.environ.get(_VARIABLE)
    if setting is None:
        return False
    address, processes, process, _ = setting.split(",")
    config: Any = jax.config  # its declared attributes differ between versions
    config.update("jax_num_cpu_devices", max((os.cpu_count() or 1) // int(processes), 1))
    jax.distributed.initialize(
        address,
        int(processes),
        int(process),
        local_device_ids=[int(process)],  # one accelerator for each process
        heartbeat_timeout_seconds=_BARRIER_TIMEOUT,  # the parent process notices a lost one
    )
    return True


def join_cluster() -> None:
    """Join the processes that a cluster manager started, as JAX detects them.

    Raises:
        InputError: JAX detects no manager that it supports.
    """
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise InputError(
            "a number, or `cluster` under a manager that JAX supports, such as SLURM, Open MPI or GKE",
            path="--processes",
            given="cluster",
        ) from error


def parent_exited() -> bool:
    """Return whether the process that started this one has exited."""
    setting = os.environ.get(_VARIABLE)
    return setting is not None and os.getppid() != int(setting.rpartition(",")[2])


def barrier(name: str) -> None:
    """Wait until every process has called this; return at once where there is only one."""
    if jax.process_count() > 1:
        # A collective times out after half a minute; the timeout of the coordinator's barrier can be set.
        from orbax.checkpoint import multihost

        key = f"jaxcost {next(_barriers)} {name}"
        multihost.get_barrier_sync_fn()(key=key, timeout_ms=_BARRIER_TIMEOUT * 1000)


def all_gather(tree: Any) -> list[Any]:
    """Return the trees of all processes, of equal structure, in the order of the processes."""
    if jax.process_count() == 1:
        return [tree]
    from jax.experimental import multihost_utils

    with _mute_stdout():
        gathered = multihost_utils.process_allgather(tree)
    return [jax.tree.map(lambda x, i=i: np.asarray(x[i]), gathered) for i in range(jax.process_count())]


def exit_worker(status: int) -> None:
    """Exit this process if it is one of several; return if it is not.

    It exits without JAX's shutdown, which would wait for all processes, lost ones too, and in which the coordinator
    sometimes crashes. With status 0 no process exits before all have finished, and the coordinator exits last.
    """
    if not jax.distributed.is_initialized():
        return
    if status == 0:
        barrier("end")
        if jax.process_index() == 0:
            time.sleep(_COORDINATOR_DELAY)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def _mute_stdout() -> Iterator[None]:
    """Keep the messages of the collectives' library out of the results on standard output."""
    sys.stdout.flush()
    stdout, devnull = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(devnull)


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run a command line of jaxcost in several processes on this machine, and return the exit status.

    The first process prints what a single process would print. When one is lost, the others are asked to save their
    state.

    Raises:
        RunError: a process was lost, or all were asked to stop and the first had finished its part.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    workers: list[subprocess.Popen] = []
    with contextlib.ExitStack() as files:
        logs = [None, *(files.enter_context(tempfile.TemporaryFile()) for _ in range(processes - 1))]
        files.callback(_end, workers)
        for number in range(processes):
            environment = os.environ | {_VARIABLE: f"{address},{processes},{number},{os.getpid()}"}
            quiet = None if number == 0 else subprocess.DEVNULL
            workers.append(
                subprocess.Popen([*_COMMAND, *arguments], env=environment, stdout=quiet, stderr=logs[number])
            )
        try:
            statuses = _wait(workers)
        except KeyboardInterrupt:
            statuses = _stop(workers)
        lost = sorted(
            (number for number, status in enumerate(statuses) if status),
            key=lambda n: _cause_rank(statuses[n]),
        )
        if not lost or (not logs[lost[0]] and workers[0].returncode > 0):
            return statuses[lost[0]] if lost else 0  # the first process has printed why
        number, status = lost[0], statuses[lost[0]]
        if status == _STOPPED:  # the first had finished its part, and exited while it waited for the others
            raise RunError(
                "stopped; the checkpoints of all processes are kept: run again with --resume to continue",
                status=_STOPPED,
            )
        if status > 0:
            log = logs[number]
            log.seek(0)
            last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise RunError(f"process {number + 1} of {processes}: {last}", status=status)
        raise RunError(
            f"process {number + 1} of {processes} was lost ({signal.Signals(-status).name}); "
            "the checkpoints of all processes are kept: run again with --resume to continue"
        )


def _wait(workers: list[subprocess.Popen]) -> list[int]:
    while any(worker.poll() is None for worker in workers):
        if workers[0].poll() == 0:  # it has printed the results
            return [0]
        if any(worker.poll() for worker in workers):
            return _stop(workers)
        time.sleep(0.1)
    return [worker.returncode for worker in workers]


def _stop(workers: list[subprocess.Popen]) -> list[int]:
    """Ask all processes to save their state and exit."""
    before = [worker.poll() for worker in workers]
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    end = time.monotonic() + _SAVE_TIMEOUT
    while any(worker.poll() is None for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    _end(workers)
    # Processes that exited because they were asked to did not cause the failure.
    return [
        worker.returncode if status is not None or worker.returncode > 0 else _STOPPED
        for status, worker in zip(before, workers, strict=True)
    ]


def _end(workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def _cause_rank(status: int) -> int:
    """Return the rank of an exit status, lowest for the one that caused the others."""
    if status in (_STOPPED, -signal.SIGABRT):  # asked to stop, or aborted by JAX because another was lost
        return 2
    return 0 if status < 0 else 1
