"""Progress of long work on a terminal; nothing at all elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Progress(Protocol):
    """What long work reports to."""

    def update(self, done: int, note: str = "") -> None:
        """So many units are done in all."""


class Silent:
    """Progress that nobody sees."""

    def update(self, done: int, note: str = "") -> None:
        """Do nothing."""


class _Bar:
    def __init__(self, bar: Any, task: Any) -> None:
        self.bar, self.task = bar, task

    def update(self, done: int, note: str = "") -> None:
        self.bar.update(self.task, completed=done, note=note)


@contextmanager
def progress(title: str, total: int, done: int = 0, *, count: bool = True) -> Iterator[Progress]:
    """A bar with the time left on standard error, if that is a terminal.

    Args:
        title: What is going on.
        total: Units of work.
        done: Units done before (a resumed run).
        count: Whether to show how many units are done, and not only their share and the time left.

    Yields:
        Something to report to.
    """
    if not sys.stderr.isatty():
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *((MofNCompleteColumn(),) if count else ()),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar, bar.add_task(title, total=total, completed=done, note=""))
