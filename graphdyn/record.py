"""Run folder: configuration, tidy rows, checkpoint and summary; crash-safe and resumable.

    config.json             complete, canonical, with its id
    metrics.parquet         one row a measured number, see graphdyn.journal; curves.parquet, events.parquet
    checkpoint.safetensors  tensors and state of the seed in progress, and the results of finished seeds
    weights/seed-N.safetensors  the weights of the selected epoch of each finished seed
    tensorboard/seed-N      event files, where they are asked for
    summary.json            written last: its presence says that the run is complete

Every file is written beside its place, flushed to disk, then renamed. A part belongs to the run once a
checkpoint counts it; later parts (the process died between two checkpoints) are dropped on resume, so no
row is ever lost or doubled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from graphdyn.boards import Boards
from graphdyn.config import Config
from graphdyn.errors import RecordError
from graphdyn.files import lock, replacing, write_json, writing
from graphdyn.journal import Clock, Event, Journal, Line, Metric


@dataclass
class Record:
    """An open run folder. Use :meth:`open`; one process at a time."""

    folder: Path
    config: Config
    journal: Journal
    boards: Boards | None
    _lock: IO[str]

    @classmethod
    def open(cls, config: Config) -> Record:
        """Create the run folder, or take up the one that lies there with the same configuration.

        Raises:
            InputError: If a sink is not known, or its library is not installed.
            RecordError: If the folder holds another configuration or something else, is in use by another
                process, or cannot be written.
        """
        folder = config.folder
        boards = Boards.of(config.sinks, folder)
        with writing(folder):
            _check_vacant(folder, config)
            folder.mkdir(parents=True, exist_ok=True)
            held = lock(folder)
            if not (folder / "config.json").exists():
                document = {"id": config.id, **config.canonical()}
                write_json(folder / "config.json", document)
        return cls(folder, config, Journal(folder), boards, held)

    def close(self) -> None:
        """Give the folder back to other processes."""
        if self.boards is not None:
            self.boards.close()
        self._lock.close()

    def add(self, clock: Clock, row: Metric | Line | Event) -> None:
        """Note something; it reaches the disk with the next checkpoint."""
        self.journal.add(clock, row)
        if self.boards is not None:
            self.boards.add(clock, row)

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Write rows, then a checkpoint that counts them.

        Args:
            tensors: By name.
            state: Plain JSON values.
        """
        with writing(self.folder):
            if self.boards is not None:
                self.boards.save()
            text = json.dumps({**state, "parts": self.journal.write()})
            write_tensors(self.folder / "checkpoint.safetensors", tensors, {"state": text})

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint, or ``None``; rows written after it are dropped.

        Raises:
            RecordError: If the checkpoint is damaged.
        """
        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            self.journal.keep(0)
            return None
        tensors, metadata = read_tensors(path)
        state = json.loads(metadata["state"])
        self.journal.keep(state["parts"])
        if self.boards is not None and "seed" in state:
            self.boards.resume(state["seed"]["at"]["seed"], state["seed"]["at"]["step"])
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
        self.journal.compact()
        with writing(self.folder):
            write_json(self.folder / "summary.json", summary)
        self.journal.clear_parts()


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, atomically; tensors go to the disk as they lie in memory, without a copy."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with replacing(path) as part:
        try:
            save_file(plain, part, metadata)
        except SafetensorError as error:  # a full disk is an OSError like any other
            raise OSError(str(error)) from None


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
