"""Write files atomically."""

import contextlib
import os
from pathlib import Path

from jaxcost.edge.io.errors import InputError

__all__ = ["make_folder", "remove_unfinished", "write_atomically"]

_PART = ".part"


def make_folder(folder: Path, option: str = "--out") -> None:
    """Create the folder that an option names, if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"a folder that can be created ({error.strerror})", path=option, given=str(folder)
        ) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it has either the new content or the old.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove the unfinished files that killed processes left in a folder."""
    for path in folder.rglob(f".*{_PART}"):
        path.unlink(missing_ok=True)
