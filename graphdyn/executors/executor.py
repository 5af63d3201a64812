"""What every executor promises, and the book that it keeps of tasks and attempts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from graphdyn.errors import GraphdynError

# A task, and what does it: both travel to other processes, so both can be pickled.
Task = Any
Work = Callable[[Task], Any]


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        index: Of the task in the list.
        result: What the work returned; ``None`` if it failed.
        error: Class of the error, ``"WorkerDied"`` where no worker survived the task; ``None`` if it is done.
        reason: The error in words.
        attempts: How often it was begun.
    """

    index: int
    result: Any = None
    error: str | None = None
    reason: str = ""
    attempts: int = 1


class Executor(Protocol):
    """Works off a list of tasks, several at a time.

    Every task ends in exactly one outcome, unless the work is stopped. A task whose worker dies is begun
    again on another one, a few times; a task that raises has failed, and the others go on. Work keeps what
    it needs to go on where it was (a checkpoint); a worker is told to stop by SIGTERM, finishes its step and
    raises :class:`graphdyn.errors.Interrupted`.
    """

    workers: int

    def run(
        self, work: Work, tasks: Sequence[Task], stopped: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """Outcomes as they come.

        Args:
            work: Called with a task, in a worker; each worker has one copy of it for all its tasks.
            tasks: In the order in which they are begun.
            stopped: Asked again and again; once it says so nothing more is begun, what runs is told to
                stop, and the iterator ends without the outcomes of what did not end.
        """
        ...


class Book:
    """Which tasks wait, which have been begun how often.

    Args:
        count: How many tasks there are.
        attempts: How often one may be begun.
    """

    def __init__(self, count: int, attempts: int) -> None:
        self.waiting, self.attempts = deque(range(count)), attempts
        self.begun = [0] * count

    def take(self) -> int | None:
        """The next task, or ``None``."""
        if not self.waiting:
            return None
        index = self.waiting.popleft()
        self.begun[index] += 1
        return index

    def done(self, index: int, result: Any) -> Outcome:
        """The task has returned."""
        return Outcome(index, result, attempts=self.begun[index])

    def failed(self, index: int, error: str, reason: str) -> Outcome:
        """The task has raised."""
        return Outcome(index, None, error, reason, self.begun[index])

    def died(self, index: int, reason: str) -> Outcome | None:
        """Its worker is gone: it is begun again before others, or there is no attempt left."""
        if self.begun[index] < self.attempts:
            self.waiting.appendleft(index)
            return None
        return self.failed(index, "WorkerDied", reason)


def tell(error: BaseException) -> str:
    """An error in one line for a record: graphdyn's own speak for themselves, others name their class."""
    if isinstance(error, GraphdynError):
        return str(error)
    return f"{type(error).__name__}: {error}"
