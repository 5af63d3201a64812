"""Event files of a run for TensorBoard: one folder a seed, and what a killed process wrote too much is dropped.

Steps of every seed begin at 0, so that seeds are runs to TensorBoard: ``tensorboard --logdir RUN``, and
``--logdir STUDY`` for all runs of a study.
"""

from __future__ import annotations

import time
from pathlib import Path

from graphdyn.errors import unknown
from graphdyn.journal import Clock
from graphdyn.sinks import Row, TensorBoardSink, summary_writer

SINKS = ("tensorboard",)


class Boards:
    """The event files of a run folder, open for writing.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path):
        self.folder = folder / "tensorboard"
        self._open: tuple[int, TensorBoardSink] | None = None
        self._counted: dict[int, int] = {}

    @classmethod
    def of(cls, sinks: str | None, folder: Path) -> Boards | None:
        """Those that a configuration asks for; writes nothing.

        Raises:
            InputError: If it asks for something else, or tensorboard is not installed.
        """
        if sinks is None:
            return None
        if sinks not in SINKS:
            raise unknown("sink", sinks, SINKS)
        summary_writer()
        return cls(folder)

    def resume(self, seed: int, step: int) -> None:
        """A checkpoint has counted this seed's steps up to this one."""
        self._counted[seed] = step

    def add(self, clock: Clock, row: Row) -> None:
        """Note a row of plain numbers."""
        self._of(clock.seed).write([(clock, row)])

    def save(self) -> None:
        """Bring everything to the disk, before a checkpoint counts it."""
        if self._open is not None:
            self._open[1].save()

    def close(self) -> None:
        """The last call."""
        if self._open is not None:
            self._open[1].close()
        self._open = None

    def _of(self, seed: int) -> TensorBoardSink:
        """Of one seed at a time: those before are done."""
        if self._open is None or self._open[0] != seed:
            self.close()
            folder = self.folder / f"seed-{seed}"
            after = None
            if folder.is_dir():
                # A process that died before its first checkpoint has left steps that count for nothing.
                after = self._counted.get(seed, -1)
                _wait_for_a_later_name()
            self._open = seed, TensorBoardSink(folder, after)
        return self._open[1]


def _wait_for_a_later_name() -> None:
    """Readers take files in the order of their names, which begin with the second in which they were opened."""
    time.sleep(1.0)
