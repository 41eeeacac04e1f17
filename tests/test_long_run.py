"""Long sweeps: killed, stopped, resumed, on broken disks and files, every design is counted once."""

import dataclasses
import errno
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.dataset
import pytest

import jaxcost as jc
from jaxcost.edge.io import write
from jaxcost.edge.jobs import checkpoint, long_run
from jaxcost.explore.sweep.stream import SweepStream, over_designs
from tests import cheap_sweep

SIZES = (100, 60, 10)
TOTAL = 2 * 100 * 60 * 10
BLOCK = 3000


class Stop(Exception):
    """What a test raises to leave a sweep as a crash would."""


def stopper(after: int):
    """Raise after so many blocks."""
    left = iter(range(after))

    def look(_):
        if next(left, None) is None:
            raise Stop

    return look


@pytest.fixture(scope="module")
def whole():
    return cheap_sweep.run(None, *SIZES, block=BLOCK)


def equal(a, b):
    for name, result in a.results.items():
        for key, value in vars(result).items():
            assert np.array_equal(value, getattr(b.results[name], key)), (name, key)


def brute():
    """The metrics of all designs, by NumPy."""
    shape = (2, *SIZES)
    _, batch, tp, dp = (x.astype(float) for x in np.unravel_index(np.arange(TOTAL), shape))
    batch, tp, dp = batch + 1, tp + 1, dp + 1
    speed = (tp * 37 + dp * 11) % 13 + 1
    return speed, (batch * 17 + tp * 29 + dp * dp) % 509 + speed, (batch * 7 + dp) % 5 - 1


def test_results_are_those_of_a_plain_count(whole):
    speed, cost, margin = brute()
    reasons = whole.results["reasons"]
    assert (reasons.total, reasons.feasible) == (TOTAL, int((margin >= 0).sum()))
    allowed = np.flatnonzero((margin >= 0) & (speed <= 9))
    best = allowed[np.argsort(speed[allowed], kind="stable")[:12]]
    assert np.array_equal(whole.results["top"].index, best)
    assert whole.results["dearest"].index[0] == np.argmax(cost)
    assert whole.results["spread"].count == (margin >= 0).sum()


def test_runs_share_one_program(whole):
    """Also where the state of a reducer has an empty leaf, as that of a front without groups."""
    stream = SweepStream(
        cheap_sweep.space(*SIZES), over_designs(cheap_sweep.cheap), cheap_sweep.METRICS, cheap_sweep.REDUCE
    )
    for start in range(3):
        stream.run(start, BLOCK)
    assert stream._run._cache_size() == 1


def test_a_resumed_sweep_is_the_whole_one(tmp_path, whole):
    found = random.Random(3)
    for _ in range(12):
        with pytest.raises(Stop):
            cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, every=0, progress=stopper(found.randrange(4)))
    end = cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    assert 0 < end.now < TOTAL
    equal(whole, end)
    again = cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    assert again.now == 0
    equal(whole, again)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["finished"] and manifest["designs"] == TOTAL
    assert manifest["versions"]["jax"] == jax.__version__


def test_what_was_not_yet_written_down_is_done_again(tmp_path, whole):
    with pytest.raises(Stop):
        cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, every=1e9, progress=stopper(7))
    end = cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    assert end.now == TOTAL
    equal(whole, end)


def child(folder):
    """Run the sweep in a process of its own, to be killed, at a pace that spreads it over the kills."""
    pause = lambda _: time.sleep(0.05)  # noqa: E731
    cheap_sweep.run(folder, *SIZES, block=BLOCK, every=0.0, keep=True, progress=pause)


@pytest.mark.slow
@pytest.mark.parametrize("kills_wanted", [4, pytest.param(20, marks=pytest.mark.exhaustive)])
def test_kill_9_at_random_moments(tmp_path, whole, kills_wanted):
    """Whenever it is killed and resumed, nothing is lost, and nothing is counted twice."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["jaxcost.edge.jobs.long_run", "tests.cheap_sweep"])
    moments, kills, sweeps, inside = random.Random(11), 0, 0, 0
    while kills < kills_wanted or not sweeps:
        folder = tmp_path / str(sweeps)
        while True:
            process = context.Process(target=child, args=(str(folder),))
            process.start()
            if kills < kills_wanted:
                _wait_for_work(folder, process)
                process.join(moments.uniform(0, 1.2))
            else:
                process.join(300)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            process.kill()
            process.join()
            kills += 1
            inside += bool(list(folder.glob("state-*")))
        end = cheap_sweep.run(str(folder), *SIZES, block=BLOCK, keep=True)
        assert end.now == 0
        equal(whole, end)
        kept = pyarrow.dataset.dataset(folder / "designs", partitioning="hive").to_table(columns=["index"])
        assert np.array_equal(np.sort(kept["index"].to_numpy()), np.arange(TOTAL))
        assert not list(folder.rglob("*.part"))
        sweeps += 1
    assert inside >= 0.75 * kills_wanted


def _wait_for_work(folder: Path, process) -> None:
    """Wait until this process writes, so that moments fall on the work more than on the imports."""
    before = {p: p.stat().st_mtime_ns for p in folder.glob("state-*")}
    end = time.monotonic() + 120
    while time.monotonic() < end and process.exitcode is None:
        if {p: p.stat().st_mtime_ns for p in list(folder.glob("state-*")) if p.exists()} != before:
            return
        time.sleep(0.01)


def test_a_request_to_stop_leaves_a_checkpoint(tmp_path, whole):
    before = signal.getsignal(signal.SIGINT)

    def ask(progress):
        if progress.done > TOTAL // 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(jc.RunError, match=r"stopped at 3\d\.\d% of 120,000 designs.*--resume") as stopped:
        cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, every=1e9, progress=ask)
    assert stopped.value.status == 130
    assert signal.getsignal(signal.SIGINT) is before
    end = cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    assert 0.5 * TOTAL < end.now < 0.7 * TOTAL
    equal(whole, end)


def test_control_c_stops_and_a_second_one_ends_at_once(tmp_path):
    def once(progress):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(jc.RunError, match="stopped"):
        cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, progress=once)

    def twice(progress):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, progress=twice)


def test_a_sweep_beside_the_main_thread(whole):
    found = []
    thread = threading.Thread(target=lambda: found.append(cheap_sweep.run(None, *SIZES, block=BLOCK)))
    thread.start()
    thread.join()
    equal(whole, found[0])


@pytest.mark.parametrize(
    ("code", "said"), [(errno.ENOSPC, "no space is left on the disk"), (errno.EIO, "Input/output error")]
)
def test_a_full_disk(tmp_path, monkeypatch, whole, code, said):
    with pytest.raises(Stop):
        cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, every=0, progress=stopper(5))

    def full(_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(write.os, "fsync", full)
        with pytest.raises(jc.RunError, match=f"{said}; the last checkpoint there is complete.*--resume"):
            cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, every=0)
        assert not list(tmp_path.rglob("*.part"))
    end = cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    assert TOTAL // 2 < end.now < TOTAL
    equal(whole, end)


def test_a_disk_that_fills_while_designs_are_kept(tmp_path, monkeypatch, whole):
    from jaxcost.edge.jobs import sweep_files

    real, left = sweep_files.write_atomically, iter(range(6))

    def full(path, content):
        if "block" in path.name and next(left, None) is None:
            raise OSError(errno.ENOSPC, "full")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(sweep_files, "write_atomically", full)
        with pytest.raises(jc.RunError, match="no space is left"):
            cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, every=0, keep=True)
    end = cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, keep=True)
    equal(whole, end)
    kept = pyarrow.dataset.dataset(tmp_path / "designs", partitioning="hive").to_table(
        columns=["index", "tpot"]
    )
    order = np.argsort(kept["index"].to_numpy())
    assert np.array_equal(kept["tpot"].to_numpy()[order], brute()[0])


def damage(folder: Path, change) -> Path:
    path = next(folder.glob("state-*"))
    path.write_bytes(change(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1000] + bytes([data[-1000] ^ 1]) + data[-999:],
        lambda data: b"",
        lambda data: b"something else altogether",
    ],
    ids=["cut", "bit", "empty", "foreign"],
)
def test_a_damaged_checkpoint(tmp_path, whole, change):
    with pytest.raises(Stop):
        cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK, every=0, progress=stopper(5))
    path = damage(tmp_path, change)
    with pytest.raises(jc.RunError, match=r"state-0-0\.checkpoint: is damaged.*remove it and resume"):
        cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    path.unlink()
    equal(whole, cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK))


def test_a_checkpoint_of_another_sweep(tmp_path, monkeypatch):
    cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    with pytest.raises(jc.InputError, match="space: got 'another one'; expected a folder of this sweep"):
        cheap_sweep.run(str(tmp_path), 100, 60, 11, block=BLOCK)
    with pytest.raises(jc.InputError, match="block: got '3000'"):
        cheap_sweep.run(str(tmp_path), *SIZES, block=2 * BLOCK)
    fewer = {"top": cheap_sweep.REDUCE["top"]}
    with monkeypatch.context() as patch:
        patch.setattr(cheap_sweep, "REDUCE", fewer)
        with pytest.raises(jc.InputError, match="reducers"):
            cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    with monkeypatch.context() as patch:
        patch.setattr(long_run, "version", lambda name: "0.0.7")
        with pytest.raises(jc.InputError, match=r"jaxcost: got '0\.1\.0'; expected .* \(jaxcost: 0\.0\.7\)"):
            cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)


def test_a_folder_in_use(tmp_path):
    space = cheap_sweep.space(*SIZES)
    options = {"metrics": cheap_sweep.METRICS, "evaluation": cheap_sweep.cheap, "block": BLOCK}
    jc.run_sweep(space, cheap_sweep.REDUCE, folder=tmp_path, **options)
    with pytest.raises(
        jc.InputError, match=r"--resume to continue the sweep there, of which 100\.0% is done"
    ):
        jc.run_sweep(space, cheap_sweep.REDUCE, folder=tmp_path, **options)
    with checkpoint.locked(tmp_path), pytest.raises(jc.RunError, match="another sweep is running"):
        jc.run_sweep(space, cheap_sweep.REDUCE, folder=tmp_path, resume=True, **options)
    with pytest.raises(jc.InputError, match="a folder"):
        jc.run_sweep(space, cheap_sweep.REDUCE, keep=True, **options)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(jc.InputError, match="folder"):
        jc.run_sweep(space, cheap_sweep.REDUCE, folder=file, **options)


def test_checkpoints_of_several_processes_become_one(tmp_path, whole, monkeypatch):
    """Files of a run of three processes, one of them lost, are taken over by one, and none counts twice."""
    for number in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_index", lambda n=number: n)
            patch.setattr(jax, "process_count", lambda: 3)
            patch.setattr(long_run, "barrier", lambda name: None)
            patch.setattr(long_run, "load_checkpoints", lambda *_: [])
            patch.setattr(long_run, "all_gather", stopper(0))
            with pytest.raises(Stop):
                cheap_sweep.run(
                    str(tmp_path), *SIZES, block=BLOCK, every=0, progress=stopper(4 if number == 2 else 99)
                )
    files = sorted(path.name for path in tmp_path.glob("state-*"))
    assert files == ["state-0-0.checkpoint", "state-0-1.checkpoint", "state-0-2.checkpoint"]
    kept = {name: (tmp_path / name).read_bytes() for name in files}
    end = cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)
    assert 0 < end.now < TOTAL / 2
    equal(whole, end)
    assert [path.name for path in tmp_path.glob("state-*")] == ["state-1-0.checkpoint"]
    # Killed between writing its own file and removing the three: they are not counted again.
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    equal(whole, cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK))
    # Its own file gone, the three count for what they are.
    for path in tmp_path.glob("state-*"):
        path.unlink()
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
    equal(whole, cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK))
    # Two files that count the same are refused.
    (tmp_path / "state-7-0.checkpoint").write_bytes(next(tmp_path.glob("state-*")).read_bytes())
    with pytest.raises(jc.RunError, match="count the same designs"):
        cheap_sweep.run(str(tmp_path), *SIZES, block=BLOCK)


@pytest.mark.parametrize(
    ("chunk", "devices"),
    [
        (128, 1),
        *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in ((64, 1), (128, 2), (1024, 1))),
    ],
)
def test_devices_and_chunks_do_not_matter(whole, chunk, devices):
    """Against two devices and chunks of 64."""
    others = jax.local_devices()[:devices]
    equal(whole, cheap_sweep.run(None, *SIZES, block=7777, chunk=chunk, devices=others))


@pytest.mark.exhaustive
def test_one_to_eight_devices(whole):
    """Forced on the processor, in a process of their own, for their number is fixed when JAX starts."""
    script = (
        "import jax, json; jax.config.update('jax_num_cpu_devices', 8)\n"
        "from tests import cheap_sweep as c\n"
        "run = lambda n: c.run(None, 100, 60, 10, block=3000 * n, devices=jax.local_devices()[:n])\n"
        "print(json.dumps([c.digest(run(n).results) for n in (1, 3, 8)]))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=300, check=True
    )
    assert json.loads(done.stdout) == [cheap_sweep.digest(whole.results)] * 3


@dataclasses.dataclass(frozen=True)
class Slowest:
    """A reducer of a user: the largest time per token of all designs, feasible or not."""

    needs = ("tpot",)

    def init(self, layout, dtype=None):
        return jnp.asarray(-jnp.inf, dtype or float)

    def update(self, layout, state, batch):
        value = batch.values[:, layout.column("tpot")]
        return jnp.maximum(state, jnp.max(jnp.where(batch.valid, value, -jnp.inf)))

    def merge(self, layout, state, other):
        return jnp.maximum(state, other)

    def result(self, layout, state):
        return float(state)


def test_a_reducer_of_ones_own(tmp_path):
    options = {"metrics": cheap_sweep.METRICS, "evaluation": cheap_sweep.cheap, "block": BLOCK}
    space = cheap_sweep.space(*SIZES)
    found = jc.run_sweep(space, {"slowest": Slowest()}, folder=tmp_path, **options)
    assert found.results == {"slowest": brute()[0].max()}
    assert json.loads((tmp_path / "results.json").read_text()) == {"slowest": {"kind": "float"}}
    with pytest.raises(ValueError, match="'slowest' reads 'tpot', which is not among the metrics"):
        jc.run_sweep(space, {"slowest": Slowest()}, **options | {"metrics": ("a", "b", "c")})


def test_a_vast_space_has_a_bounded_number_of_blocks():
    device = jax.local_devices()
    assert long_run._block(96, device, None) >= 96
    assert long_run._block(10**6, device, None) <= 10**6 // 32
    assert long_run._block(10**9, device, None) == 1 << 20
    assert 10**17 // long_run._block(10**17, device, None) <= 1 << 26
