"""Processes that share a sweep: started here, or by a cluster whose manager JAX knows, such as SLURM or GKE."""

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

__all__ = ["everyone", "join_cluster", "launch", "leave", "orphaned", "together", "worker_started"]

_VARIABLE = "JAXCOST_WORKER"  # "coordinator address, number of processes, number of this one, parent"
_PATIENCE = 20 * 24 * 3600  # seconds: a process that is through waits for the others, however long they take
_GRACE = 120.0  # seconds in which the others may write down what they have done once one is lost
_LAST = 0.5
_ASKED = 130
_COMMAND = (sys.executable, "-m", "jaxcost")
_meetings = itertools.count()


def worker_started() -> bool:
    """Join the processes that `launch` started, if this is one of them."""
    given = os.environ.get(_VARIABLE)
    if given is None:
        return False
    address, processes, process, _ = given.split(",")
    config: Any = jax.config  # versions differ in what it declares
    config.update("jax_num_cpu_devices", max((os.cpu_count() or 1) // int(processes), 1))
    jax.distributed.initialize(
        address,
        int(processes),
        int(process),
        local_device_ids=[int(process)],  # of accelerators, one a process
        heartbeat_timeout_seconds=_PATIENCE,  # the process that started us sees who is lost
    )
    return True


def join_cluster() -> None:
    """Join the processes that a cluster's manager started, found as JAX finds them.

    Raises:
        InputError: JAX finds no manager that it knows.
    """
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise InputError(
            "a number, or `cluster` under a manager that JAX knows, such as SLURM, Open MPI or GKE",
            path="--processes",
            given="cluster",
        ) from error


def orphaned() -> bool:
    """Tell whether the process that started this one is gone."""
    given = os.environ.get(_VARIABLE)
    return given is not None and os.getppid() != int(given.rpartition(",")[2])


def together(what: str) -> None:
    """Wait until every process has come here; at once where there is only one."""
    if jax.process_count() > 1:
        # A collective would give up after half a minute; the coordinator's barrier waits as long as it is told.
        from orbax.checkpoint import multihost

        key = f"jaxcost {next(_meetings)} {what}"
        multihost.get_barrier_sync_fn()(key=key, timeout_ms=_PATIENCE * 1000)


def everyone(tree: Any) -> list[Any]:
    """Return the trees of all processes, of one structure, in their order."""
    if jax.process_count() == 1:
        return [tree]
    from jax.experimental import multihost_utils

    with _muted():
        gathered = multihost_utils.process_allgather(tree)
    return [jax.tree.map(lambda x, i=i: np.asarray(x[i]), gathered) for i in range(jax.process_count())]


def leave(status: int) -> None:
    """End this process, if it is one of several; return if it is not.

    The end is at once. JAX would first wait for all others to end, one that is lost too, and now and then its
    coordinator dies of taking leave. When all is well nobody ends before all are through, the coordinator last.
    """
    if not jax.distributed.is_initialized():
        return
    if status == 0:
        together("end")
        if jax.process_index() == 0:
            time.sleep(_LAST)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Keep what the collectives' library says of itself out of the results on standard output."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run a command line of jaxcost in several processes on this machine, and return the exit status.

    The first process prints what one process would print. When one is lost, the others are asked to write down what
    they have done.

    Raises:
        RunError: a process was lost, or all were asked to stop and the first had nothing left to say.
    """
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{chosen.getsockname()[1]}"
    workers: list[subprocess.Popen] = []
    with contextlib.ExitStack() as files:
        said = [None, *(files.enter_context(tempfile.TemporaryFile()) for _ in range(processes - 1))]
        files.callback(_end, workers)
        for number in range(processes):
            environment = os.environ | {_VARIABLE: f"{address},{processes},{number},{os.getpid()}"}
            quiet = None if number == 0 else subprocess.DEVNULL
            workers.append(
                subprocess.Popen([*_COMMAND, *arguments], env=environment, stdout=quiet, stderr=said[number])
            )
        try:
            statuses = _wait(workers)
        except KeyboardInterrupt:
            statuses = _stop(workers)
        lost = sorted(
            (number for number, status in enumerate(statuses) if status), key=lambda n: _blame(statuses[n])
        )
        if not lost or (not said[lost[0]] and workers[0].returncode > 0):
            return statuses[lost[0]] if lost else 0  # the first process has said why
        number, status = lost[0], statuses[lost[0]]
        if status == _ASKED:  # the first was through with its part, and ended where it waited for the others
            raise RunError(
                "stopped; what all processes had written down is kept: run again with --resume to go on",
                status=_ASKED,
            )
        if status > 0:
            log = said[number]
            log.seek(0)
            last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise RunError(f"process {number + 1} of {processes}: {last}", status=status)
        raise RunError(
            f"process {number + 1} of {processes} was lost ({signal.Signals(-status).name}); "
            "what all of them had written down is kept: run again with --resume to go on"
        )


def _wait(workers: list[subprocess.Popen]) -> list[int]:
    while any(worker.poll() is None for worker in workers):
        if workers[0].poll() == 0:  # it has told the results of all
            return [0]
        if any(worker.poll() for worker in workers):
            return _stop(workers)
        time.sleep(0.1)
    return [worker.returncode for worker in workers]


def _stop(workers: list[subprocess.Popen]) -> list[int]:
    """Ask all to write down what they have done and end."""
    before = [worker.poll() for worker in workers]
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    end = time.monotonic() + _GRACE
    while any(worker.poll() is None for worker in workers) and time.monotonic() < end:
        time.sleep(0.1)
    _end(workers)
    # Those that ended because they were asked to are not the ones to blame.
    return [
        worker.returncode if status is not None or worker.returncode > 0 else _ASKED
        for status, worker in zip(before, workers, strict=True)
    ]


def _end(workers: list[subprocess.Popen]) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def _blame(status: int) -> int:
    """Order of statuses, the one that explains the others first."""
    if status in (_ASKED, -signal.SIGABRT):  # asked to stop, or ended by JAX because another was lost
        return 2
    return 0 if status < 0 else 1
