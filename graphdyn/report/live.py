"""Watch a run or a study in a terminal while another process writes it; reads, and touches nothing."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console, ConsoleDimensions, RenderableType

from graphdyn.errors import InputError
from graphdyn.report.live_frame import run_frame
from graphdyn.report.live_reader import RunReader
from graphdyn.report.live_study import StudyReader
from graphdyn.report.live_study_frame import study_frame
from graphdyn.report.series import is_record

# A frame for so many lines, and whether there will be another.
Look = Callable[[int | None], tuple[RenderableType, bool]]


def watch(folder: Path, interval: float = 1.0, once: bool = False) -> None:
    """Show a folder until what is written there is complete, or somebody presses Ctrl-C.

    Where output is no terminal, or one that cannot go back, a single frame is printed.

    Args:
        folder: Of a run, of a recorder or of a study; one in which nothing was begun will do.
        interval: Seconds between two looks.
        once: A single frame.

    Raises:
        InputError: If the folder holds something else, or the interval is not positive.
    """
    if not 0 < interval < float("inf"):
        raise InputError(f"interval is {interval}; it must be positive: seconds between two looks.")
    _check(folder)
    _replace_what_cannot_be_written()
    console = Console()
    if console.is_dumb_terminal:
        console.size = ConsoleDimensions(*shutil.get_terminal_size())  # of which rich makes 80 x 25
    look = _look(folder, console)
    if once or not console.is_terminal or console.is_dumb_terminal:
        console.print(look(None)[0])
        return
    with suppress(KeyboardInterrupt):
        _follow(look, console, interval)
    console.print(look(None)[0])  # what was seen last stays, after the other screen has gone


def _follow(look: Look, console: Console, interval: float) -> None:
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as screen:
        while True:
            frame, over = look(console.height)
            screen.update(frame, refresh=True)
            if over:
                return
            time.sleep(interval)


def _look(folder: Path, console: Console) -> Look:
    runs, studies = RunReader(folder), StudyReader(folder)

    def look(height: int | None) -> tuple[RenderableType, bool]:
        if not folder.is_dir():
            raise InputError(f"{folder} is gone; somebody has moved or deleted it.")
        if (folder / "study.json").exists():
            study = studies.read()
            return study_frame(study, console, height), study.finished
        run = runs.read()
        return run_frame(run, console, height), run.status == "finished"

    return look


def _check(folder: Path) -> None:
    """A folder in which nothing was begun is empty but for a lock."""
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not a folder; name one that `graphdyn train` or `graphdyn study` writes."
        )
    known = any((folder / name).exists() for name in ("config.json", "study.json", "meta.json"))
    if known or is_record(folder):
        return
    if any(entry.name != ".lock" and not entry.name.startswith(".") for entry in folder.iterdir()):
        raise InputError(
            f"{folder} holds no run and no study; name the folder that `graphdyn train` or `graphdyn study` writes."
        )


def _replace_what_cannot_be_written() -> None:
    """A terminal without ± gets a question mark in its place, not an error."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
