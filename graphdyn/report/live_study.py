"""What a study folder says at this moment: which runs are done, which go on, which have failed and why."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphdyn.files import locked
from graphdyn.report.live_reader import RunReader
from graphdyn.report.live_run import RunNow
from graphdyn.report.tail import Tail


@dataclass(frozen=True)
class UnitNow:
    """One run of a study: a cell with one seed.

    Attributes:
        cell: Name of the cell.
        seed: Number.
        status: ``done``, ``running``, ``failed``, ``stopped`` (begun, and nobody goes on) or ``waiting``.
        summary: Of a run that is done.
        run: Of one that is running.
        reason: Why it has failed.
        attempts: How often.
    """

    cell: str
    seed: int
    status: str
    summary: dict[str, Any] | None = None
    run: RunNow | None = None
    reason: str = ""
    attempts: int = 0

    @property
    def valid(self) -> float | None:
        """Validation at the selected epoch, once the run is done."""
        found = self.summary.get("validation") if self.summary else None
        return found["mean"] if found else None

    @property
    def seconds(self) -> float | None:
        """What a run that is done has taken in all."""
        return self.summary["seconds"]["total"] if self.summary else None

    @property
    def done(self) -> float:
        """Share that is done; nothing is left of one that has failed."""
        if self.status in ("done", "failed"):
            return 1.0
        return (self.run.done or 0.0) if self.run else 0.0


@dataclass(frozen=True)
class CellNow:
    """All seeds of one cell.

    Attributes:
        name: Of the cell.
        units: By seed.
    """

    name: str
    units: tuple[UnitNow, ...]

    def count(self, *statuses: str) -> int:
        """How many runs have one of these statuses."""
        return sum(unit.status in statuses for unit in self.units)

    @property
    def valid(self) -> list[float]:
        """Validation of the runs that are done."""
        return [u.valid for u in self.units if u.valid is not None]

    @property
    def seconds(self) -> list[float]:
        """Of the runs that are done."""
        return [u.seconds for u in self.units if u.seconds is not None]


@dataclass(frozen=True)
class StudyNow:
    """One look at a study folder.

    Attributes:
        folder: Of the study.
        name: Of the study.
        cells: In the order of the plan.
        baseline: Name of the cell that others are compared with.
        command: What goes on with it.
        trials: How many trials of a search for learning rates are done, and of how many; ``(0, 0)``: none.
        writer: Whether the process that hands out runs is there; ``None``: this machine cannot know.
        damaged: Files that could not be read.
        now: When this was read, in seconds since 1970.
    """

    folder: Path
    name: str
    cells: tuple[CellNow, ...] = ()
    baseline: str | None = None
    command: str | None = None
    trials: tuple[int, int] = (0, 0)
    writer: bool | None = None
    damaged: tuple[str, ...] = ()
    now: float = 0.0

    @property
    def units(self) -> list[UnitNow]:
        """All runs."""
        return [unit for cell in self.cells for unit in cell.units]

    def of(self, *statuses: str) -> list[UnitNow]:
        """Runs with one of these statuses."""
        return [unit for unit in self.units if unit.status in statuses]

    @property
    def status(self) -> str:
        """``finished``, ``running``, ``stopped`` or ``waiting``: nothing was begun."""
        if self.finished:
            return "finished"
        if self.writer or self.of("running"):
            return "running"
        return "stopped" if self.of("done", "failed", "stopped") else "waiting"

    @property
    def finished(self) -> bool:
        """Whether no run is left that is not done or has failed."""
        return bool(self.units) and len(self.of("done", "failed")) == len(self.units)

    @property
    def done(self) -> float:
        """Share of the runs that is done."""
        return sum(unit.done for unit in self.units) / max(1, len(self.units))

    @property
    def left(self) -> float | None:
        """Seconds that the rest should take with as many runs at a time as now; ``None``: nobody knows.

        A run takes as long as others of its cell have taken, or will at their pace; in a cell of which none
        has begun, as long as those of other cells.
        """
        expected = {cell.name: _mean(_paces(cell)) for cell in self.cells}
        known = [seconds for seconds in expected.values() if seconds is not None]
        running = self.of("running")
        if not known or not running:
            return None
        usual = statistics.fmean(known)
        rest = (1 - unit.done for unit in self.units)
        times = (expected[unit.cell] for unit in self.units)
        todo = sum(r * (usual if t is None else t) for r, t in zip(rest, times))
        return todo / len(running)


def _paces(cell: CellNow) -> Iterator[float]:
    """Seconds of a whole run, of those that tell."""
    yield from cell.seconds
    for unit in cell.units:
        pace = unit.run.seed_seconds if unit.run and not cell.seconds else None
        if pace is not None:
            yield pace


def _mean(values: Iterator[float]) -> float | None:
    found = list(values)
    return statistics.fmean(found) if found else None


@dataclass
class StudyReader:
    """Reads a study folder again and again; what did not change is not read twice.

    Args:
        folder: Of the study.
    """

    folder: Path
    _tails: dict[Path, Tail] = field(default_factory=dict)
    _runs: dict[Path, RunReader] = field(default_factory=dict)

    def read(self) -> StudyNow:
        """The folder as it is now."""
        top = self._tail(self.folder)
        writer = locked(self.folder)
        plan = top.json("study.json") or {}
        seeds = plan.get("seeds", [])
        cells = tuple(
            CellNow(cell["name"], tuple(self._unit(cell, seed) for seed in seeds))
            for cell in plan.get("cells", [])
        )
        return StudyNow(
            folder=self.folder,
            name=plan.get("name") or self.folder.name,
            cells=cells,
            baseline=plan.get("baseline"),
            command=plan.get("command"),
            trials=self._trials(plan),
            writer=writer,
            damaged=tuple(sorted(top.damaged)),
            now=time.time(),
        )

    def _unit(self, cell: dict[str, Any], seed: int) -> UnitNow:
        folder = self.folder / "cells" / cell["slug"] / f"seed-{seed}"
        tail, name = self._tail(folder), cell["name"]
        summary = tail.json("summary.json")
        writer = summary is None and locked(folder)
        if summary is None and not writer:
            summary = tail.json("summary.json")  # of one that has finished meanwhile
        if summary is not None:
            self._runs.pop(folder, None)
            return UnitNow(name, seed, "done", summary=summary)
        failed = self._tail(folder.parent).json(f"{folder.name}.failed.json")
        if failed is not None and not writer:
            reason, attempts = failed.get("reason", ""), failed.get("attempts", 1)
            return UnitNow(name, seed, "failed", reason=reason, attempts=attempts)
        if not folder.is_dir():
            return UnitNow(name, seed, "waiting")
        run = self._runs.setdefault(folder, RunReader(folder)).read()
        return UnitNow(name, seed, run.status, run=run)

    def _trials(self, plan: dict[str, Any]) -> tuple[int, int]:
        """A cell's search is one file with the trials that are done."""
        tuning = plan.get("tuning")
        if not tuning:
            return 0, 0
        tail, cells = self._tail(self.folder / "tuning"), plan.get("cells", [])
        searches = (tail.json(f"{cell['slug']}.json") or {} for cell in cells)
        done = sum(len(search.get("trials", ())) for search in searches)
        return done, len(cells) * tuning["trials"]

    def _tail(self, folder: Path) -> Tail:
        return self._tails.setdefault(folder, Tail(folder))
