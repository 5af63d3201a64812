"""Run folder: configuration, tidy rows, checkpoint and summary; crash-safe and resumable.

    config.json             complete, canonical, with its id
    metrics.parquet         one row a measured number; while the run lasts, parts under metrics/
    checkpoint.safetensors  tensors and state of the seed in progress, and the results of finished seeds
    weights/seed-N.safetensors  the weights of the selected epoch of each finished seed
    summary.json            written last: its presence says that the run is complete

Every file is written beside its place, flushed to disk, then renamed. A part belongs to the run once a
checkpoint counts it; later parts (the process died between two checkpoints) are dropped on resume, so no
row is ever lost or doubled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from graphdyn.config import Config
from graphdyn.errors import RecordError

COLUMNS = ("seed", "step", "epoch", "seconds", "edges", "name", "group", "value", "se", "pred")


@dataclass(frozen=True)
class Clock:
    """When a number was measured.

    Attributes:
        seed: Of the run.
        step: Optimiser steps done.
        epoch: Epochs done.
        seconds: Training time so far, evaluation and instruments excluded.
        edges: Edges touched by training so far.
    """

    seed: int
    step: int
    epoch: int
    seconds: float
    edges: int


@dataclass
class Record:
    """An open run folder. Use :meth:`open`; one process at a time."""

    folder: Path
    config: Config
    _lock: IO[str]
    _rows: list[tuple[Any, ...]] = field(default_factory=list)
    _parts: int = 0

    @classmethod
    def open(cls, config: Config) -> Record:
        """Create the run folder, or take up the one that lies there with the same configuration.

        Raises:
            RecordError: If the folder holds another configuration or something else, is in use by another
                process, or cannot be written.
        """
        folder = config.folder
        with writing(folder):
            _check_vacant(folder, config)
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(folder)
            if not (folder / "config.json").exists():
                document = {"id": config.id, **config.canonical()}
                write_json(folder / "config.json", document)
        return cls(folder, config, lock)

    def close(self) -> None:
        """Give the folder back to other processes."""
        self._lock.close()

    def add(self, clock: Clock, name: str, group: str, value: float, **more: float) -> None:
        """Note one number; it reaches the disk with the next checkpoint.

        Args:
            clock: When it was measured.
            name: What it is, for example ``"loss"``.
            group: What it is about: a part of the split, a layer, a parameter group.
            value: The number.
            **more: ``se``, its standard error, and ``pred``, what theory predicts, where they exist.
        """
        row = (clock.seed, clock.step, clock.epoch, clock.seconds, clock.edges, name, group, value)
        self._rows.append((*row, more.get("se"), more.get("pred")))

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write rows, then a checkpoint that counts them.

        Args:
            tensors: By name.
            state: Plain JSON values.
        """
        with writing(self.folder):
            if self._rows:
                path = self.folder / "metrics" / f"{self._parts:06d}.arrow"
                path.parent.mkdir(exist_ok=True)
                _write_part(path, self._rows)
                self._rows.clear()
                self._parts += 1
            text = json.dumps({**state, "parts": self._parts})
            write_tensors(self.folder / "checkpoint.safetensors", tensors, {"state": text})

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint, or ``None``; rows written after it are dropped.

        Raises:
            RecordError: If the checkpoint is damaged.
        """
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            self._drop_parts(0)
            return None
        tensors, metadata = read_tensors(path)
        state = json.loads(metadata["state"])
        self._parts = state["parts"]
        self._drop_parts(self._parts)
        return tensors, state

    def save_weights(self, seed: int, tensors: dict[str, Tensor]) -> None:
        """Keep the selected weights of a finished seed."""
        with writing(self.folder):
            path = self.folder / "weights" / f"seed-{seed}.safetensors"
            path.parent.mkdir(exist_ok=True)
            write_tensors(path, tensors, {"seed": str(seed)})

    def summary(self) -> dict[str, Any] | None:
        """The summary of a complete run, else ``None``."""
        path = self.folder / "summary.json"
        return json.loads(path.read_text()) if path.exists() else None

    def finish(self, summary: dict[str, Any]) -> None:
        """Compact the rows to Parquet, then write the summary, which completes the run."""
        import pyarrow.parquet as pq

        with writing(self.folder):
            with replacing(self.folder / "metrics.parquet") as path:
                pq.write_table(_read_parts(self.folder), path)
            write_json(self.folder / "summary.json", summary)
            shutil.rmtree(self.folder / "metrics", ignore_errors=True)

    def _drop_parts(self, keep: int) -> None:
        for path in (self.folder / "metrics").glob("*.arrow"):
            if int(path.stem) >= keep:
                path.unlink()


def read_metrics(folder: Path):
    """The rows of a run, finished or not, as a ``pyarrow.Table`` with the columns of design section 6.

    Raises:
        RecordError: If the folder holds no rows.
    """
    import pyarrow.parquet as pq

    path = folder / "metrics.parquet"
    if path.exists():
        return pq.read_table(path)
    if not (folder / "metrics").is_dir():
        raise RecordError(f"{folder} holds no metrics; name the folder of a run.")
    return _read_parts(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into one sentence."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RecordError(
            f"cannot write to {folder}: {reason}; free space, change permissions or choose another --out."
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


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, atomically."""
    from safetensors.torch import save

    # Bytes written by Python: a full disk is then an OSError like any other.
    data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)
    with replacing(path) as part:
        part.write_bytes(data)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        RecordError: If the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RecordError(
            f"{path} is damaged ({error}); delete the run folder to start again."
        ) from None


def _check_vacant(folder: Path, config: Config) -> None:
    path = folder / "config.json"
    if path.exists():
        try:
            there = json.loads(path.read_text())
        except ValueError:
            raise RecordError(f"{path} is not valid JSON; choose another --out.") from None
        changed = config.differences(there)
        if changed:
            raise RecordError(
                f"{folder} holds a run with another configuration ({'; '.join(changed)}); "
                "choose another --out or delete it."
            )
    elif folder.is_dir() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise RecordError(f"{folder} is not empty and holds no run; choose another --out.")


def _lock(folder: Path) -> IO[str]:
    import fcntl

    lock = (folder / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RecordError(
            f"another process is writing {folder}; wait for it or choose another --out."
        ) from None
    return lock


def _schema():
    import pyarrow as pa

    kinds = [pa.int32(), pa.int64(), pa.int32(), pa.float64(), pa.int64(), pa.string(), pa.string()]
    return pa.schema(list(zip(COLUMNS, [*kinds, pa.float64(), pa.float64(), pa.float64()])))


def _write_part(path: Path, rows: list[tuple[Any, ...]]) -> None:
    import pyarrow as pa

    schema = _schema()
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows), schema.types)]
    with (
        replacing(path) as part,
        pa.OSFile(str(part), "wb") as sink,
        pa.ipc.new_file(sink, schema) as file,
    ):
        file.write_table(pa.table(columns, schema=schema))


def _read_parts(folder: Path):
    import pyarrow as pa

    tables = [_schema().empty_table()]
    for path in sorted((folder / "metrics").glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            tables.append(pa.ipc.open_file(source).read_all())
    return pa.concat_tables(tables)
