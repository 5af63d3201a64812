"""Tables of a folder that somebody may be writing at this moment: read what is whole, keep what was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Stamp = tuple[int, int, int]


class Tail:
    """Files of a folder, each read once for as long as it does not change.

    Files are read whole into memory and never mapped: one that is replaced on another machine would take a
    mapping with it.

    Args:
        folder: Of a run, or of a recorder.

    Attributes:
        damaged: Names of files that were there and could not be read the last time.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.damaged: set[str] = set()
        self._kept: dict[str, tuple[Stamp, Any]] = {}

    def json(self, name: str) -> dict[str, Any] | None:
        """A JSON document; ``None`` where there is none, or half of one."""
        return self._read(name, _document)

    def state(self, name: str = "checkpoint.safetensors") -> dict[str, Any] | None:
        """The plain part of a checkpoint, without its tensors."""
        return self._read(name, _state)

    def table(self, name: str, parts: int | None = None):
        """Rows of ``metrics``, ``curves`` or ``events`` as a ``pyarrow.Table``; ``None`` where there are none.

        Args:
            name: Of the table.
            parts: How many of its parts count; ``None``: all.
        """
        whole = self._read(f"{name}.parquet", _parquet)
        if whole is not None:
            return whole
        paths = sorted((self.folder / name).glob("[0-9]*.arrow"))
        counted = [f"{name}/{p.name}" for p in paths if parts is None or int(p.stem) < parts]
        for gone in {key for key in self._kept if key.startswith(f"{name}/")} - {*counted}:
            del self._kept[gone]
        found = [self._read(part, _part) for part in counted]
        return _joined([table for table in found if table is not None])

    def stamps(self) -> dict[str, Stamp]:
        """Of the files that were read so far: equal stamps, equal contents."""
        return {name: stamp for name, (stamp, _) in self._kept.items()}

    def updated(self) -> float | None:
        """When a file that was read was last written, in seconds since 1970."""
        return max((stamp[0] / 1e9 for stamp, _ in self._kept.values()), default=None)

    def _read(self, name: str, parse: Any) -> Any:
        path = self.folder / name
        try:
            now = path.stat()
            stamp = (now.st_mtime_ns, now.st_size, now.st_ino)
            kept = self._kept.get(name)
            if kept is None or kept[0] != stamp:
                self._kept[name] = kept = (stamp, parse(path))
        except FileNotFoundError:
            self._kept.pop(name, None)
            self.damaged.discard(name)
            return None
        except (OSError, ValueError, KeyError, TypeError):  # pyarrow's errors are of these kinds
            self.damaged.add(name)
            return None
        self.damaged.discard(name)
        return kept[1]


def _document(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    return found


def _state(path: Path) -> dict[str, Any]:
    """A safetensors file begins with the length of a JSON header, which holds the metadata."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("the header is longer than the file")
        header = json.loads(file.read(length))
    return json.loads(header["__metadata__"]["state"])


def _parquet(path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(path.read_bytes()))


def _part(path: Path):
    import pyarrow as pa

    return pa.ipc.open_file(pa.py_buffer(path.read_bytes())).read_all()


def _joined(tables: list):
    import pyarrow as pa

    return pa.concat_tables(tables, promote_options="default") if tables else None
