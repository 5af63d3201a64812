"""Study: the same training under many methods, with matched budgets and paired seeds; stops and goes on anywhere.

A run is a cell and a seed. Runs are worked off by an executor, each as a run folder of its own, so what is done
is read from the disk: nothing is lost or doubled, whoever was killed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphdyn.config import EPOCHS, Config
from graphdyn.data.places import data_root
from graphdyn.errors import GraphdynError, Interrupted
from graphdyn.executors import Executor, Outcome
from graphdyn.executors.local import LocalExecutor
from graphdyn.files import lock, writing
from graphdyn.forecast import Expected, forecast
from graphdyn.grid import Cell, Study, Tune
from graphdyn.machine import Stop, stoppable
from graphdyn.precheck import precheck
from graphdyn.progress import Progress, progress
from graphdyn.study_folder import (
    check_same,
    describe_study,
    read_study,
    write_failure,
    write_study,
)
from graphdyn.tuning import Search, check_optuna, tune
from graphdyn.work import Trainer, Unit, unit_of


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
        study: The study.
        cells: What it compares.
        folder: Where.
        units: All runs: seed after seed, so that whenever it stops all cells have had about as many.
        searches: What is tuned first.
        retry: Whether failed runs are tried again.
    """

    study: Study
    cells: list[Cell]
    folder: Path
    units: list[Unit]
    searches: list[Search]
    retry: bool = False

    @classmethod
    def of(cls, study: Study, folder: Path, *, retry: bool = False) -> Plan:
        """The plan of a study; everything is checked, and nothing written.

        Raises:
            InputError: If a cell could never run.
        """
        cells = study.expand()
        for cell in cells:
            with _named(cell):
                precheck(cell.config)
        study.reference(cells)
        units = [
            unit_of(cell.name, cell.slug, _rooted(cell.config), seed, folder)
            for seed in study.seed_numbers
            for cell in cells
        ]
        searches = []
        if isinstance(study.tune, Tune):
            check_optuna()
            searches = [
                Search(c.name, c.slug, _rooted(c.config), study.tune, folder) for c in cells
            ]
        return cls(study, cells, folder, units, searches, retry)

    @property
    def done(self) -> list[Unit]:
        """Runs that are complete."""
        return [unit for unit in self.units if unit.done]

    @property
    def failed(self) -> list[Unit]:
        """Runs that have failed and are not tried again."""
        known = [unit for unit in self.units if not unit.done and unit.failure.exists()]
        return [] if self.retry else known

    @property
    def pending(self) -> list[Unit]:
        """Runs to do."""
        left = {id(unit) for unit in (*self.done, *self.failed)}
        return [unit for unit in self.units if id(unit) not in left]

    @property
    def untuned(self) -> list[Search]:
        """Searches to do: of cells with runs to do."""
        slugs = {unit.slug for unit in self.pending}
        return [s for s in self.searches if s.slug in slugs and s.best is None]


def _rooted(config: Config) -> Config:
    """Workers elsewhere do not see the environment of this process."""
    known = config.data_root is not None or config.dataset.endswith(".toml")
    return config if known else replace(config, data_root=data_root(None))


class _named:
    """Say which cell an error is about."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, GraphdynError):
            raise type(error)(f"cell {self.cell.name}: {error}") from None


def run_study(
    study: Study,
    folder: str | Path | None = None,
    *,
    executor: Executor | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    command: str | None = None,
) -> Plan:
    """Run a study, or go on with it: says what it will do, does it, and writes the report.

    Args:
        study: What to compare.
        folder: Where to; by default ``runs/<name>``. One process at a time.
        executor: Who does the work; by default local processes, as many as cores but one.
        retry_failed: Try failed runs again.
        dry_run: Say what it would do, write nothing.
        command: How to run it again, for the record.

    Returns:
        The plan as it stands at the end; ``failed`` lists what failed.

    Raises:
        InputError: If the study cannot be run; nothing is written then.
        RecordError: If the folder holds another study.
        Interrupted: After Ctrl-C; the same call goes on.
    """
    folder = (Path("runs") / study.name if folder is None else Path(folder)).absolute()
    plan = Plan.of(study, folder, retry=retry_failed)
    document = describe_study(study, plan.cells, command or f"graphdyn study {folder}")
    check_same(folder, read_study(folder), document)
    executor = executor or LocalExecutor(default_workers(), logs=folder / "logs")
    expected = forecast(plan.cells, plan.units, calibrate=isinstance(executor, LocalExecutor))
    print_plan(plan, expected, executor.workers)
    if dry_run:
        return plan
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        held = lock(folder)
    try:
        check_same(folder, read_study(folder), document)
        write_study(folder, document)
        _work_off(plan, executor, expected)
    finally:
        held.close()
    return replace(plan, retry=False)


def default_workers() -> int:
    """All cores but one: somebody has to keep the books."""
    return max(1, (os.cpu_count() or 1) - 1)


def _work_off(plan: Plan, executor: Executor, expected: Expected) -> None:
    units = plan.pending
    for unit in units if plan.retry else ():
        unit.failure.unlink(missing_ok=True)
    with stoppable() as stop:
        _tune(plan, executor, stop)
        units = [_tuned(plan, unit) for unit in units if not unit.failure.exists()]
        _train(plan, units, executor, expected, stop)


def _tune(plan: Plan, executor: Executor, stop: Stop) -> None:
    searches = plan.untuned
    if not searches:
        return
    with progress(f"{plan.study.name}: tuning", len(searches)) as bar:
        for count, outcome in enumerate(executor.run(Worker(), searches, _asked(stop)), start=1):
            bar.update(count)
            if outcome.error is not None:
                for unit in plan.pending:
                    if unit.slug == searches[outcome.index].slug:
                        write_failure(unit, outcome)
    _check_stop(plan, stop)


def _tuned(plan: Plan, unit: Unit) -> Unit:
    """The run with what was chosen for its cell."""
    for search in plan.searches:
        if search.slug == unit.slug:
            return replace(unit, config=replace(unit.config, **(search.best or {})))
    return unit


def _train(
    plan: Plan, units: Sequence[Unit], executor: Executor, expected: Expected, stop: Stop
) -> None:
    total = expected.total(plan.units) or float(len(plan.units))
    rest = expected.total(units) or float(len(units))
    shown = _Shown(plan, expected, total, total - rest)
    with progress(plan.study.name, 1000, shown.share, count=False) as bar:
        shown.tell(bar)
        for outcome in executor.run(Worker(), units, _asked(stop)):
            if outcome.error is not None:
                write_failure(units[outcome.index], outcome)
            shown.note(units[outcome.index], outcome)
            shown.tell(bar)
    _check_stop(plan, stop)


class _Shown:
    """How far the study has come, in expected seconds."""

    def __init__(self, plan: Plan, expected: Expected, total: float, done: float) -> None:
        self.expected, self.total, self.spent = expected, total, done
        self.count, self.ended, self.failed = len(plan.units), len(plan.done), len(plan.failed)

    @property
    def share(self) -> int:
        return round(1000 * self.spent / self.total) if self.total else 0

    def note(self, unit: Unit, outcome: Outcome) -> None:
        self.spent += self.expected.total([unit]) or 1.0
        self.ended += outcome.error is None
        self.failed += outcome.error is not None

    def tell(self, bar: Progress) -> None:
        failed = f", {self.failed} failed" if self.failed else ""
        bar.update(self.share, f"{self.ended} of {self.count} runs{failed}")


def _asked(stop: Stop) -> Callable[[], bool]:
    return lambda: stop.requested


def _check_stop(plan: Plan, stop: Stop) -> None:
    if stop.requested:
        raise Interrupted(
            f"stopped with {len(plan.done)} of {len(plan.units)} runs done in {plan.folder}; "
            "the same command goes on from there."
        )


class Worker:
    """What executors call: trains a unit, or searches."""

    def __init__(self) -> None:
        self.trainer = Trainer()

    def __call__(self, task: Unit | Search) -> Any:
        """The summary of a unit, or the choice of a search."""
        if isinstance(task, Search):
            return tune(task, self.trainer.train)
        return self.trainer(task)


def print_plan(plan: Plan, expected: Expected, workers: int) -> None:
    """What is about to happen, and how long it will take."""
    study, left = plan.study, plan.pending
    state = [f"{len(plan.done)} done"] if plan.done else []
    state += [f"{len(plan.failed)} failed"] if plan.failed else []
    state += [f"{len(left)} to do"] if state else []
    told = f" ({', '.join(state)})" if state else ""
    seeds = study.seed_numbers
    print(
        f"{study.name}: {len(plan.cells)} cells x {len(seeds)} seeds = {len(plan.units)} runs{told}, "
        f"in {plan.folder}"
    )
    print(
        f"each run: {_budget(study)}; seeds {seeds.start}..{seeds.stop - 1}, the same in every cell"
    )
    if isinstance(study.tune, Tune):
        print(
            f"before: {study.tune.trials} trials for each of {len(plan.cells)} cells "
            f"({len(plan.untuned)} to do)"
        )
    _print_cells(plan, expected)
    if left:
        tuning = _tuning_seconds(plan, expected)
        seconds = (expected.total(left) + tuning) / max(1, min(workers, len(left)))
        ends = time.strftime("%H:%M", time.localtime(time.time() + seconds))
        about = f"about {_words(seconds)}, until {ends}" if expected.seconds else "unknown"
        print(
            f"expected time with {workers} worker(s): {about} ({expected.source or 'nothing known'})"
        )
    sys.stdout.flush()


def _tuning_seconds(plan: Plan, expected: Expected) -> float:
    if not isinstance(plan.study.tune, Tune):
        return 0.0
    each = plan.study.tune.trials * plan.study.tune.seeds
    first = {unit.slug: unit for unit in plan.units}
    return sum(each * expected.total([first[search.slug]]) for search in plan.untuned)


_SHOWN = 40


def _print_cells(plan: Plan, expected: Expected) -> None:
    left: dict[str, int] = {}
    for unit in plan.pending:
        left[unit.slug] = left.get(unit.slug, 0) + 1
    shown = [cell for cell in plan.cells if cell.slug in left]
    width = max((len(cell.name) for cell in shown[:_SHOWN]), default=0)
    for cell in shown[:_SHOWN]:
        seconds = expected.seconds.get(cell.slug)
        note = "?" if seconds is None else _words(seconds)
        reason = expected.refused.get(cell.slug)
        note = f"{note} each" if reason is None else f"will fail: {reason}"
        print(f"  {cell.name:<{width}}  {left[cell.slug]:>3} runs  {note}")
    if len(shown) > _SHOWN:
        print(f"  and {len(shown) - _SHOWN} more cells")


def _budget(study: Study) -> str:
    limits = [f"{v:,} {n}" for n, v in study.budget.items() if n != "evaluations"]
    if not limits:
        limits = [f"{study.base.get('epochs', EPOCHS)} epochs"]
    evaluations = study.budget.get("evaluations")
    if evaluations is not None:
        limits.append(f"{evaluations} evaluations")
    return ", ".join(limits)


def _words(seconds: float) -> str:
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
