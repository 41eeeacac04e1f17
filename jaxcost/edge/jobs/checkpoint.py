"""Checkpoints of a sweep: files that are written atomically, verified when read, and never counted twice.

A checkpoint lists the blocks of designs that its states of reducers contain. Every process of a run writes its own file
and replaces it as it goes. A later run starts from all files of the folder: each of its processes continues some of
them and names these files in its own, so that their designs are not counted again, at whatever moment the run is
killed.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcost.edge.io.errors import InputError, RunError
from jaxcost.edge.io.write import write_atomically

__all__ = [
    "Checkpoint",
    "load_checkpoints",
    "locked",
    "save_checkpoint",
]

_MAGIC = b"jaxcost sweep 1 "
_PATTERN = "state-*.checkpoint"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Finished blocks of one process, and the states of the reducers over exactly these blocks."""

    identity: dict[str, str]  # properties of the sweep, by name; another sweep differs in some
    done: np.ndarray  # bool, one for each block
    state: Any
    seconds: float  # of all runs so far
    run: int  # number of the run in this folder
    process: int
    replaces: tuple[str, ...] = ()  # names of files whose blocks are included here

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"state-{self.run}-{self.process}.checkpoint"


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, then remove the files that it replaces."""
    header = {
        "identity": checkpoint.identity,
        "blocks": len(checkpoint.done),
        "seconds": checkpoint.seconds,
        "run": checkpoint.run,
        "process": checkpoint.process,
        "replaces": list(checkpoint.replaces),
    }
    arrays = [np.packbits(checkpoint.done), *jax.tree.leaves(checkpoint.state)]
    payload = io.BytesIO()
    np.savez(payload, *arrays)
    body = json.dumps(header).encode() + b"\n" + payload.getvalue()
    digest = hashlib.sha256(body).hexdigest().encode()
    write_atomically(folder / checkpoint.name, _MAGIC + digest + b"\n" + body)
    for name in checkpoint.replaces:
        (folder / name).unlink(missing_ok=True)


def load_checkpoints(folder: Path, identity: dict[str, str], blocks: int, like: Any) -> list[Checkpoint]:
    """Return the checkpoints of a folder that no other one replaces.

    Args:
        folder: folder of the sweep.
        identity: properties of the sweep, by name.
        blocks: number of its blocks.
        like: states of its reducers, for their shapes.

    Raises:
        InputError: a file is of another sweep.
        RunError: a file is damaged, or two count the same designs.
    """
    by_name = {path.name: _read(path, identity, blocks, like) for path in sorted(folder.glob(_PATTERN))}
    replaced = {name for checkpoint in by_name.values() for name in checkpoint.replaces}
    counted = [checkpoint for name, checkpoint in by_name.items() if name not in replaced]
    if counted and np.sum([c.done for c in counted], axis=0, dtype=int).max() > 1:
        names = ", ".join(c.name for c in counted)
        raise RunError(f"{folder}: {names} count the same designs; remove all but one of the runs")
    return counted


def _read(path: Path, identity: dict[str, str], blocks: int, like: Any) -> Checkpoint:
    damaged = RunError(
        f"{path}: is damaged: its checksum does not match; remove it and resume: "
        "only the designs that it contains are evaluated again"
    )
    magic, _, body = path.read_bytes().partition(b"\n")
    if not magic.startswith(_MAGIC) or magic[len(_MAGIC) :] != hashlib.sha256(body).hexdigest().encode():
        raise damaged
    head, _, payload = body.partition(b"\n")
    try:
        header = json.loads(head)
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            bits, *leaves = (arrays[name] for name in arrays.files)
    except (ValueError, KeyError, zipfile.BadZipFile):
        raise damaged from None
    other = [part for part, value in identity.items() if header["identity"].get(part) != value]
    if other:
        part = other[0]
        short = lambda text: text if text and len(text) <= 40 else "another one"  # noqa: E731
        raise InputError(
            f"a folder of this sweep ({part}: {short(identity[part])}), or a new one",
            file=path,
            path=part,
            given=short(header["identity"].get(part, "")),
        )
    expected, structure = jax.tree.flatten(like)
    same = [x.shape == y.shape and x.dtype == y.dtype for x, y in zip(leaves, expected, strict=False)]
    if header["blocks"] != blocks or len(leaves) != len(expected) or not all(same):
        raise damaged
    return Checkpoint(
        identity=identity,
        done=np.unpackbits(bits, count=blocks).astype(bool),
        state=jax.tree.unflatten(structure, leaves),
        seconds=header["seconds"],
        run=header["run"],
        process=header["process"],
        replaces=tuple(header["replaces"]),
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder for this run; the operating system releases the lock when the process ends.

    Raises:
        RunError: another run has locked the folder.
    """
    try:
        import fcntl
    except ImportError:  # not on this operating system: users must avoid two runs in one folder
        yield
        return
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder}: another sweep is running in this folder") from None
        yield
