"""Sweeps over several processes: the same results, and a clear end when one is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import jaxcost as jc
from jaxcost.edge.jobs import workers
from tests import cheap_sweep

ROOT = Path(__file__).parents[1]
SIZES, TOTAL, BLOCK = (100, 60, 10), 120_000, 3000


@pytest.fixture(scope="module")
def wanted():
    return cheap_sweep.digest(cheap_sweep.run(None, *SIZES, block=BLOCK).results)


@pytest.fixture
def cheap_command(monkeypatch):
    monkeypatch.setattr(workers, "_COMMAND", (sys.executable, "-m", "tests.cheap_sweep"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.chdir(ROOT)


def run(arguments, processes, capfd):
    status = workers.launch(arguments, processes)
    out = capfd.readouterr().out
    return status, json.loads(out) if out.strip() else None


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_the_number_of_processes_does_not_matter(tmp_path, cheap_command, wanted, capfd, processes):
    status, said = run([str(tmp_path), str(BLOCK)], processes, capfd)
    assert status == 0
    assert said == {"now": TOTAL, "digest": wanted}
    assert len(list(tmp_path.glob("state-*"))) == processes
    # Another number of processes finds all of it done.
    assert run([str(tmp_path), str(BLOCK)], 3, capfd) == (0, {"now": 0, "digest": wanted})


@pytest.fixture
def send(monkeypatch, tmp_path):
    """Send a signal to one of the processes once all have written something."""
    started, threads = [], []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    def later(number: int, kind: signal.Signals):
        end = time.monotonic() + 200
        while time.monotonic() < end and len(started) <= number:
            time.sleep(0.05)
        while time.monotonic() < end and len(list(tmp_path.glob("state-*"))) < len(started):
            time.sleep(0.05)
        started[number].send_signal(kind)

    def start(number: int, kind: signal.Signals):
        threads.append(threading.Thread(target=later, args=(number, kind)))
        threads[0].start()

    monkeypatch.setattr(workers.subprocess, "Popen", Noted)
    yield start
    threads[0].join()


def resume(folder):
    """Resume with the one process of the tests, which has compiled the sweep."""
    return cheap_sweep.run(str(folder), *SIZES, block=BLOCK)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "processes"),
    [(0, 2), (1, 2), *(pytest.param(n, 3, marks=pytest.mark.exhaustive) for n in (0, 2))],
)
def test_a_lost_process(tmp_path, cheap_command, wanted, capfd, send, number, processes):
    send(number, signal.SIGKILL)
    lost = rf"process {number + 1} of {processes} was lost \(SIGKILL\).*--resume"
    with pytest.raises(jc.RunError, match=lost):
        workers.launch([str(tmp_path), str(BLOCK), "1.0"], processes)
    end = resume(tmp_path)
    assert 0 < end.now < TOTAL
    assert cheap_sweep.digest(end.results) == wanted


@pytest.mark.slow
def test_a_process_that_is_asked_to_stop_stops_all(tmp_path, cheap_command, wanted, capfd, send):
    send(1, signal.SIGTERM)
    assert workers.launch([str(tmp_path), str(BLOCK), "1.0"], 2) == 130
    assert "of 120,000 designs; all of it is in" in capfd.readouterr().err
    assert cheap_sweep.digest(resume(tmp_path).results) == wanted


def test_no_cluster(capsys):
    from jaxcost.edge.commands.cli import main

    status = main(["sweep", "million", "--processes", "cluster"])
    assert status == 2
    assert "under a manager that JAX supports" in capsys.readouterr().err
