"""Files that are whole or not there, and one sentence where the file system refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from graphdyn.errors import RecordError


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
    """An open file that no other process can lock until it is closed.

    Raises:
        RecordError: If another process has it.
    """
    import fcntl

    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RecordError(
            f"another process is writing {folder}; wait for it or choose another folder."
        ) from None
    return file
