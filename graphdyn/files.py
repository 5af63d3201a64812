"""Files that are whole or not there, and one sentence where the file system refuses."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from graphdyn.errors import LockedError, RecordError


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecordError(
            f"cannot write to {folder}: {reason}; free space, change permissions or choose another folder."
        ) from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write; renamed over ``path`` when whole, removed on failure."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Strict JSON, indented, atomically."""
    with replacing(path) as part:
        part.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n")


def lock(folder: Path) -> IO[str]:
    """An open file that no other process can lock until it is closed; it names machine and process.

    Raises:
        LockedError: If another process has it.
    """
    import fcntl

    file = (folder / ".lock").open("a")  # who has it may be named there already
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LockedError(
            f"another process is writing {folder}; wait for it or choose another folder."
        ) from None
    file.truncate(0)
    file.write(f"{platform.node()} {os.getpid()}\n")
    file.flush()
    return file


def locked(folder: Path) -> bool | None:
    """Whether some process has the lock of a folder, without a try to take it.

    Returns:
        ``None`` where this machine cannot know: another one had it last, or the system does not list its locks.
    """
    path = folder / ".lock"
    try:
        name, inode = path.read_text().split()[:1], str(path.stat().st_ino)
        listed = Path("/proc/locks").read_text().splitlines()
    except FileNotFoundError:
        return None if path.exists() else False
    except OSError:
        return None
    if name != [platform.node()]:
        return None
    # "1: FLOCK ADVISORY WRITE 919 fe:00:2818556 0 EOF": kind, process, device and inode
    rows = (line.split() for line in listed)
    return any(row[1] == "FLOCK" and row[5].rpartition(":")[2] == inode for row in rows)
