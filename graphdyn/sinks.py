"""Sinks: where a recorder's rows go. Values on a device are fetched many at a time, and nobody waits for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError, RecordError
from graphdyn.files import lock, write_json, writing
from graphdyn.journal import TABLES, Clock, Event, Journal, Line, Metric, read_table

Row = Metric | Line | Event


class Sink:
    """Keeps rows in memory; the base of all sinks, whose :meth:`write` gets plain numbers.

    Attributes:
        rows: What was written, with the clock of each.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Clock, Row]] = []
        self._waiting: list[tuple[Clock, Row]] = []
        self._flying: list[_Flight] = []

    def open(self) -> None:
        """Before the first row.

        Raises:
            RecordError: If rows cannot be written.
        """

    def describe(self, document: dict[str, Any]) -> None:
        """Take what says how the rows were measured, in JSON values."""

    def put(self, clock: Clock, row: Row) -> None:
        """Note a row; numbers may be tensors without dimension, which are copied: they may change later."""
        self._waiting.append((clock, _held(row)))

    @property
    def waiting(self) -> int:
        """Rows that were not written yet."""
        return len(self._waiting)

    def flush(self, *, wait: bool = False) -> None:
        """Write what has arrived; send for the rest.

        Args:
            wait: Until all has arrived.
        """
        if self._waiting:
            self._flying.append(_Flight(self._waiting))
            self._waiting = []
        while self._flying and (wait or self._flying[0].arrived):
            self.write(self._flying.pop(0).rows())

    def write(self, rows: Sequence[tuple[Clock, Row]]) -> None:
        """Take rows of plain numbers, in order."""
        self.rows += rows

    def close(self, *, finished: bool = True) -> None:
        """Write everything; the last call.

        Args:
            finished: Whether the record is complete; one that is not may go on from a checkpoint.
        """
        self.flush(wait=True)

    def state(self) -> dict[str, Any]:
        """What a resumed recorder needs, after everything was written."""
        self.flush(wait=True)
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state` gave: rows that were written later are dropped."""


class FolderSink(Sink):
    """A folder of its own, see :mod:`graphdyn.journal`.

    Args:
        folder: Empty, or that of the run whose state is given back before the first row is written.

    Raises:
        RecordError: If another process writes there, or the folder cannot be written.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        self.journal = Journal(Path(folder))
        self.journal.folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self.journal.folder)
        self._resumed = not _holds_rows(self.journal.folder)
        self._closed = False

    def open(self) -> None:
        """See :meth:`Sink.open`."""
        if self._closed:
            raise RecordError(
                f"the record in {self.journal.folder} was closed; choose another folder."
            )
        if not self._resumed:
            self._lock.close()
            raise RecordError(
                f"{self.journal.folder} holds what another run has measured; restore the recorder from that "
                "run's checkpoint, or choose another folder."
            )

    def describe(self, document: dict[str, Any]) -> None:
        """See :meth:`Sink.describe`: ``meta.json``."""
        with writing(self.journal.folder):
            write_json(self.journal.folder / "meta.json", document)

    def write(self, rows: Sequence[tuple[Clock, Row]]) -> None:
        """See :meth:`Sink.write`: one more part of the journal."""
        for clock, row in rows:
            self.journal.add(clock, row)
        self.journal.write()

    def close(self, *, finished: bool = True) -> None:
        """See :meth:`Sink.close`; tables of a complete record become Parquet."""
        if self._closed:
            return
        super().close(finished=finished)
        if self._resumed and finished:
            self.journal.compact()
            self.journal.clear_parts()
        self._closed = True
        self._lock.close()

    def state(self) -> dict[str, Any]:
        """See :meth:`Sink.state`."""
        super().state()
        return {"parts": self.journal.parts}

    def restore(self, state: dict[str, Any]) -> None:
        """See :meth:`Sink.restore`."""
        if (self.journal.folder / "metrics.parquet").exists():
            self._lock.close()
            raise RecordError(
                f"the record in {self.journal.folder} was closed, and cannot go on; choose another folder."
            )
        self.journal.keep(state["parts"])
        self._resumed = True


class Tee(Sink):
    """Several sinks at once.

    Args:
        *sinks: All of them get every row.
    """

    def __init__(self, *sinks: Sink):
        super().__init__()
        self.sinks = sinks

    def open(self) -> None:
        """See :meth:`Sink.open`."""
        for sink in self.sinks:
            sink.open()

    def describe(self, document: dict[str, Any]) -> None:
        """See :meth:`Sink.describe`."""
        for sink in self.sinks:
            sink.describe(document)

    def write(self, rows: Sequence[tuple[Clock, Row]]) -> None:
        """See :meth:`Sink.write`."""
        for sink in self.sinks:
            sink.write(rows)

    def close(self, *, finished: bool = True) -> None:
        """See :meth:`Sink.close`."""
        super().close(finished=finished)
        for sink in self.sinks:
            sink.close(finished=finished)

    def state(self) -> dict[str, Any]:
        """See :meth:`Sink.state`."""
        super().state()
        return {str(i): sink.state() for i, sink in enumerate(self.sinks)}

    def restore(self, state: dict[str, Any]) -> None:
        """See :meth:`Sink.restore`."""
        for i, sink in enumerate(self.sinks):
            sink.restore(state[str(i)])


def summary_writer() -> Any:
    """Torch's class that writes event files.

    Raises:
        InputError: If tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard is not installed; pip install 'graphdyn[tensorboard]'."
        ) from None
    return SummaryWriter


class TensorBoardSink(Sink):
    """Numbers, and no curves, to TensorBoard; needs the extra ``tensorboard``.

    Args:
        folder: Of the event files.
        after: The step from which a run goes on that was stopped: what lies there of later ones is dropped
            by whoever reads. ``None``: nothing is dropped.

    Raises:
        InputError: If tensorboard is not installed.
    """

    def __init__(self, folder: str | Path, after: int | None = None):
        super().__init__()
        writer = summary_writer()
        self._writer = writer(str(folder), purge_step=None if after is None else after + 1)

    def write(self, rows: Sequence[tuple[Clock, Row]]) -> None:
        """See :meth:`Sink.write`."""
        for clock, row in rows:
            if isinstance(row, Metric):
                self._writer.add_scalar(f"{row.name}/{row.group}", row.value, clock.step)
            elif isinstance(row, Event):
                self._writer.add_text(row.name, row.text, clock.step)

    def save(self) -> None:
        """Bring everything that was written to the disk."""
        self._writer.flush()

    def close(self, *, finished: bool = True) -> None:
        """See :meth:`Sink.close`."""
        super().close(finished=finished)
        self._writer.close()


class WandbSink(Sink):
    """Numbers, and no curves, to a run of Weights & Biases, under a step of their own: it cannot go back.

    Args:
        run: What ``wandb.init`` gave.
    """

    def __init__(self, run: Any):
        super().__init__()
        self._run = run
        run.define_metric("graphdyn/step")
        run.define_metric("graphdyn/*", step_metric="graphdyn/step")

    def write(self, rows: Sequence[tuple[Clock, Row]]) -> None:
        """See :meth:`Sink.write`: one message a step."""
        by_step: dict[int, dict[str, float]] = {}
        for clock, row in rows:
            if isinstance(row, Metric):
                by_step.setdefault(clock.step, {})[f"graphdyn/{row.name}/{row.group}"] = row.value
        for step, values in by_step.items():
            self._run.log({"graphdyn/step": step, **values})


NUMBERS = ("value", "se", "pred")


class _Flight:
    """Rows whose tensors are on their way to the host: one copy a device.

    Args:
        rows: As they were noted.
    """

    def __init__(self, rows: list[tuple[Clock, Row]]):
        self._rows = rows
        # By device: tensors, and the row and field that each stands in.
        self._places: dict[torch.device, list[tuple[int, str]]] = {}
        tensors: dict[torch.device, list[Tensor]] = {}
        for i, (_, row) in enumerate(rows):
            for name in NUMBERS if type(row) is Metric else ():
                value = getattr(row, name)
                if isinstance(value, Tensor):
                    tensors.setdefault(value.device, []).append(value.detach().reshape(()))
                    self._places.setdefault(value.device, []).append((i, name))
        self._copies = {device: _send(_stack(found)) for device, found in tensors.items()}
        self._curves = {
            (i, name): _send(getattr(row, name))
            for i, (_, row) in enumerate(rows)
            for name in (("x", "y") if type(row) is Line else ())
            if isinstance(getattr(row, name), Tensor)
        }

    @property
    def arrived(self) -> bool:
        """Whether nothing is under way."""
        sent = (*self._copies.values(), *self._curves.values())
        return all(event is None or event.query() for _, event in sent)

    def rows(self) -> list[tuple[Clock, Row]]:
        """All rows with plain numbers; waits for those under way."""
        changes: dict[int, dict[str, Any]] = {}
        for (row, name), (values, event) in self._curves.items():
            if event is not None:
                event.synchronize()
            changes.setdefault(row, {})[name] = values.tolist()
        for device, (values, event) in self._copies.items():
            if event is not None:
                event.synchronize()
            for (row, name), value in zip(self._places[device], values.tolist()):
                changes.setdefault(row, {})[name] = value
        return [(c, _plain(row, changes.get(i))) for i, (c, row) in enumerate(self._rows)]


def _stack(found: list[Tensor]) -> Tensor:
    kinds = {t.dtype for t in found}
    return torch.stack(found if len(kinds) == 1 else [t.double() for t in found])


def _send(values: Tensor) -> tuple[Tensor, Any]:
    if values.device.type != "cuda":
        return values, None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


def _held(row: Row) -> Row:
    """With tensors of its own."""
    if isinstance(row, Event):
        return row
    tensors = {n: v for n, v in zip(row._fields, row) if isinstance(v, Tensor)}
    return row._replace(**{n: v.detach().clone() for n, v in tensors.items()}) if tensors else row


def _plain(row: Row, changes: dict[str, Any] | None) -> Row:
    """With floats, and no standard error or prediction where that is not a number."""
    if isinstance(row, Event):
        return row
    row = row._replace(**changes) if changes else row
    if isinstance(row, Line):
        return row._replace(x=_floats(row.x), y=_floats(row.y))
    if row.se is None and row.pred is None:
        return row
    optional = ((n, getattr(row, n)) for n in ("se", "pred"))
    return row._replace(**{n: None for n, v in optional if v is not None and math.isnan(v)})


def _floats(values: Any) -> list[float]:
    return [float(v) for v in values]


def _holds_rows(folder: Path) -> bool:
    found = [name for name in TABLES.values() if (folder / name).is_dir()]
    found += [path.stem for path in folder.glob("*.parquet") if path.stem in TABLES.values()]
    return any(read_table(folder, name).num_rows for name in found)
