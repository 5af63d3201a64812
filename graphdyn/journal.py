"""Journal: what was measured, as three tables in a folder; a crash loses what was not yet written, and no more.

    metrics.parquet   one row a number
    curves.parquet    one row a curve: numbers that belong together
    events.parquet    one row a sentence: what was refused and why, a changed learning rate, a mark

While it is written, parts lie under ``metrics/``, ``curves/`` and ``events/``. Whoever keeps checkpoints
notes how many parts there were: later ones are dropped on resume, so no row is ever lost or doubled.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from graphdyn.errors import RecordError
from graphdyn.files import replacing, writing


@dataclass(frozen=True)
class Clock:
    """When a number was measured.

    Attributes:
        seed: Of the run.
        step: Optimiser steps done.
        epoch: Epochs done.
        seconds: Training time so far, evaluation and instruments excluded.
        edges: Edges touched by training so far.
        bytes: Bytes of features gathered by training so far, where somebody counts them.
    """

    seed: int
    step: int
    epoch: int
    seconds: float
    edges: int
    bytes: int = 0


class Metric(NamedTuple):
    """A number.

    Attributes:
        name: What it is, for example ``"loss"``, or ``"grad_noise.trace"`` for an instrument's.
        group: What it is about: a part of the split, a layer, a group of parameters; ``"all"``.
        value: The number.
        se: Its standard error, where one is known.
        pred: What theory predicts, where a theory is.
        n: Of how many independent draws.
        level: Of fidelity, 0 the best; ``None`` where there is but one.
    """

    name: str
    group: str
    value: float
    se: float | None = None
    pred: float | None = None
    n: int | None = None
    level: int | None = None


class Line(NamedTuple):
    """A curve; ``x`` ascends."""

    name: str
    group: str
    x: list[float]
    y: list[float]


class Event(NamedTuple):
    """Something that happened, in one sentence."""

    name: str
    text: str


TABLES: dict[type, str] = {Metric: "metrics", Line: "curves", Event: "events"}


class Journal:
    """The tables of a folder, open for writing.

    Args:
        folder: Made if it is not there.
    """

    def __init__(self, folder: Path):
        self.folder, self.parts = folder, 0
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in TABLES.values()}

    def add(self, clock: Clock, row: Metric | Line | Event) -> None:
        """Note a row; :meth:`write` brings it to the disk."""
        at = (clock.seed, clock.step, clock.epoch, clock.seconds, clock.edges, clock.bytes)
        self._rows[TABLES[type(row)]].append((*at, *row))

    @property
    def waiting(self) -> int:
        """Rows that are not on the disk."""
        return sum(map(len, self._rows.values()))

    def write(self) -> int:
        """Bring all rows to the disk as one more part; returns how many there are now."""
        if not self.waiting:
            return self.parts
        with writing(self.folder):
            for name, rows in self._rows.items():
                if rows:
                    path = self.folder / name / f"{self.parts:06d}.arrow"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _write_part(path, name, rows)
                    rows.clear()
        self.parts += 1
        return self.parts

    def keep(self, parts: int) -> None:
        """Drop all but the first parts, and what waits."""
        self.parts = parts
        for name, rows in self._rows.items():
            rows.clear()
            for path in (self.folder / name).glob("*.arrow"):
                if int(path.stem) >= parts:
                    path.unlink()

    def compact(self) -> None:
        """Write what waits, then one Parquet file a table in place of the parts; metrics always."""
        import pyarrow.parquet as pq

        self.write()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for name in TABLES.values():
                table = _read_parts(self.folder, name)
                if table.num_rows or name == "metrics":
                    with replacing(self.folder / f"{name}.parquet") as path:
                        pq.write_table(table, path)

    def clear_parts(self) -> None:
        """Remove the parts, once the Parquet files count."""
        for name in TABLES.values():
            shutil.rmtree(self.folder / name, ignore_errors=True)


def read_table(folder: Path, name: str = "metrics"):
    """The rows of a folder, finished or not, as a ``pyarrow.Table``.

    Args:
        folder: Of a run, or of a recorder.
        name: ``"metrics"``, ``"curves"`` or ``"events"``; the last two are empty where nothing was noted.

    Raises:
        RecordError: If the folder holds no metrics.
    """
    import pyarrow.parquet as pq

    path = folder / f"{name}.parquet"
    if path.exists():
        return pq.read_table(path)
    if name == "metrics" and not (folder / name).is_dir():
        raise RecordError(f"{folder} holds no metrics; name the folder of a run.")
    return _read_parts(folder, name)


def _schema(name: str):
    import pyarrow as pa

    text, number, whole, large = pa.string(), pa.float64(), pa.int32(), pa.int64()
    at = {"seed": whole, "step": large, "epoch": whole}
    at |= {"seconds": number, "edges": large, "bytes": large}
    own = {
        "metrics": dict(zip(Metric._fields, (text, text, number, number, number, whole, whole))),
        "curves": dict(zip(Line._fields, (text, text, pa.list_(number), pa.list_(number)))),
        "events": dict(zip(Event._fields, (text, text))),
    }
    return pa.schema(list({**at, **own[name]}.items()))


def _write_part(path: Path, name: str, rows: list[tuple[Any, ...]]) -> None:
    import pyarrow as pa

    schema = _schema(name)
    columns = [pa.array(column, kind) for column, kind in zip(zip(*rows), schema.types)]
    with (
        replacing(path) as part,
        pa.OSFile(str(part), "wb") as sink,
        pa.ipc.new_file(sink, schema) as file,
    ):
        file.write_table(pa.table(columns, schema=schema))


def _read_parts(folder: Path, name: str):
    import pyarrow as pa

    tables = [_schema(name).empty_table()]
    for path in sorted((folder / name).glob("*.arrow")):
        with pa.memory_map(str(path)) as source:
            tables.append(pa.ipc.open_file(source).read_all())
    return pa.concat_tables(tables)
