"""One frame of a study: cells and their runs, what goes on, what has failed and why; fits 60 columns, and more."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from graphdyn.report.live_parts import bar, damaged, paragraph, title
from graphdyn.report.live_run import RunNow
from graphdyn.report.live_study import CellNow, StudyNow, UnitNow
from graphdyn.report.words import duration, percents, shorten

COUNTS = {
    "done": ("done",),
    "run": ("running",),
    "fail": ("failed",),
    "wait": ("waiting", "stopped"),
}
LAST = 6  # runs that go on, and failures, that are told one by one


def study_frame(now: StudyNow, console: Console, height: int | None = None) -> RenderableType:
    """Everything that a study folder says, as far as it fits.

    Args:
        now: What was read.
        console: Where it will be shown.
        height: Lines that there are; ``None``: any number.
    """
    left = "" if now.left is None else f", about {duration(now.left)} left"
    above = [title(f"study {now.name}", now.status, console), bar(now.done, left)]
    above += [Text(_counts(now)), *damaged(now.damaged), *_idle(now)]
    below = [*_running(now, height), *_failures(now, height)]
    room = None
    if height is not None:
        used = console.render_lines(Group(*above, *below), pad=False)
        room = max(3, height - len(used) - 2)  # its own head, and what was left out
    return Group(*above, *_cells(now, console, room), *below)


def _counts(now: StudyNow) -> str:
    told = [f"{len(now.of('done'))} of {len(now.units)} runs done"]
    for status in ("running", "failed", "stopped", "waiting"):
        number = len(now.of(status))
        told += [f"{number} {status}"] if number else []
    done, trials = now.trials
    told += [f"{done} of {trials} trials"] if done < trials else []
    return " · ".join(told)


def _idle(now: StudyNow) -> Iterator[RenderableType]:
    if now.status == "stopped":
        command = f"`{now.command}`" if now.command else "the same command"
        yield Text(f"nobody works on it; {command} goes on", style="yellow")


def _cells(now: StudyNow, console: Console, room: int | None) -> Iterator[RenderableType]:
    shown = _chosen(now.cells, room)
    if not shown:
        return
    scores = [percents(cell.valid) for cell in shown]
    times = [_seconds(cell) for cell in shown]
    wide = max(len("validation"), *map(len, scores)) + max(len("seconds"), *map(len, times))
    left = max(9, console.width - wide - sum(len(name) + 1 for name in COUNTS) - 3)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("cell", no_wrap=True)
    for name in (*COUNTS, "validation", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell, score, seconds in zip(shown, scores, times):
        name = f"{cell.name} *" if cell.name == now.baseline else cell.name
        table.add_row(Text(shorten(name, left)), *_numbers(cell), score, seconds)
    yield table
    if len(shown) < len(now.cells):
        yield Text(f"and {len(now.cells) - len(shown)} more cells", style="dim")


def _chosen(cells: tuple[CellNow, ...], room: int | None) -> list[CellNow]:
    """Where something goes on comes first, then what has failed, then what is not done; in the order of the plan."""
    if room is None or len(cells) <= room:
        return list(cells)

    def urgency(cell: CellNow) -> int:
        waits = cell.count("waiting", "stopped")
        return 0 if cell.count("running") else 1 if cell.count("failed") else 2 if waits else 3

    kept = sorted(cells, key=urgency)[: max(1, room - 1)]
    return [cell for cell in cells if any(cell is k for k in kept)]


def _numbers(cell: CellNow) -> Iterator[Text]:
    styles = {"run": "green", "fail": "bold red"}
    for name, statuses in COUNTS.items():
        number = cell.count(*statuses)
        yield Text(f"{number}" if number else "·", styles.get(name, "") if number else "dim")


def _seconds(cell: CellNow) -> str:
    """Of a run, on average."""
    return f"{sum(cell.seconds) / len(cell.seconds):.1f}" if cell.seconds else "-"


def _running(now: StudyNow, height: int | None) -> Iterator[RenderableType]:
    units = now.of("running")
    shown = units if height is None else units[:LAST]
    for unit in shown:
        if unit.run is not None:
            yield paragraph(f"{_name(unit)}: {_line(unit.run)}", height is None)
    if len(shown) < len(units):
        yield Text(f"and {len(units) - len(shown)} more that go on", style="dim")


def _line(run: RunNow) -> str:
    """The latest of a run."""
    told: list[str] = []
    if run.at is not None:
        told.append(f"epoch {run.at['epoch']}, step {run.at['step']}")
    if run.loss[1].size:
        told.append(f"loss {run.loss[1][-1]:.4g}")
    if run.valid[1].size:
        best = run.best["metric"].get("valid") if run.best else None
        of = "" if best is None else f" (best {100 * best:.2f})"
        told.append(f"valid {100 * run.valid[1][-1]:.2f}{of}")
    if run.left is not None:
        told.append(f"{duration(run.left)} left")
    told.append(f"{duration(run.age)} ago" if told and run.age is not None else "begun")
    return ", ".join(told)


def _failures(now: StudyNow, height: int | None) -> Iterator[RenderableType]:
    units = now.of("failed")
    shown = units if height is None else units[-LAST:]
    for unit in shown:
        often = f" ({unit.attempts} attempts)" if unit.attempts > 1 else ""
        yield paragraph(f"failed: {_name(unit)}{often}: {unit.reason}", height is None, "red")
    if len(shown) < len(units):
        yield Text(f"and {len(units) - len(shown)} more that failed", style="dim")


def _name(unit: UnitNow) -> str:
    return f"{unit.cell} seed {unit.seed}"
