"""Local processes, each alive for many tasks: torch is imported once a worker.

A worker has a session of its own, so that Ctrl-C reaches the parent alone, which tells the workers. When the
parent is gone, however it went, the workers see their connection close and stop.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from graphdyn.errors import InputError
from graphdyn.executors.executor import Book, Outcome, Task, Work

_TICK = 0.2  # seconds between two looks at whether to stop


class LocalExecutor:
    """Processes of this machine.

    Args:
        workers: How many at a time.
        attempts: How often a task may be begun when its worker dies.
        logs: Folder for what workers print; ``None``: nowhere.
    """

    def __init__(self, workers: int = 1, attempts: int = 3, logs: Path | None = None) -> None:
        if workers < 1 or attempts < 1:
            raise InputError(
                f"workers is {workers} and attempts {attempts}; both must be at least 1."
            )
        self.workers, self.attempts, self.logs = workers, attempts, logs

    def run(
        self, work: Work, tasks: Sequence[Task], stopped: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """See :meth:`Executor.run`."""
        book = Book(len(tasks), self.attempts)
        crew: list[_Worker] = []
        try:
            while not stopped():
                self._hand_out(crew, book, work, tasks)
                if not crew:
                    return
                yield from self._hear(crew, book)
            yield from self._wind_up(crew, book)
        finally:
            for worker in crew:
                worker.kill()

    def _hand_out(self, crew: list[_Worker], book: Book, work: Work, tasks: Sequence[Task]) -> None:
        """A task for everybody who has none; who gets none goes home."""
        while len(crew) < min(self.workers, len(crew) + len(book.waiting)):
            crew.append(_Worker(work, len(crew), self.logs))
        for worker in [w for w in crew if w.task is None]:
            index = book.take()
            if index is None:
                worker.dismiss()
                crew.remove(worker)
            else:
                worker.begin(index, tasks[index])

    def _hear(self, crew: list[_Worker], book: Book) -> Iterator[Outcome]:
        ready = wait([worker.connection for worker in crew], timeout=_TICK)
        for worker in [w for w in crew if w.connection in ready]:
            index, worker.task = worker.task, None
            assert index is not None
            try:
                kind, *values = worker.connection.recv()
            except (EOFError, OSError):
                crew.remove(worker)
                kind, values = "gone", [worker.obituary()]
            if kind == "done":
                yield book.done(index, *values)
            elif kind == "failed":
                yield book.failed(index, *values)
            elif (outcome := book.died(index, *values)) is not None:
                yield outcome

    def _wind_up(self, crew: list[_Worker], book: Book) -> Iterator[Outcome]:
        """Tell everybody to stop, and take what they may still have finished."""
        for worker in crew:
            worker.stop()
        book.waiting.clear()
        book.attempts = sys.maxsize  # who goes now has not failed
        while crew:
            yield from self._hear(crew, book)
            for worker in [w for w in crew if w.task is None]:
                worker.dismiss()
                crew.remove(worker)


class _Worker:
    """One process, and the task that it is at."""

    def __init__(self, work: Work, number: int, logs: Path | None) -> None:
        self.task: int | None = None
        self.connection: Connection
        self.connection, theirs = Pipe()
        command = [sys.executable, "-m", "graphdyn.executors.worker", str(theirs.fileno())]
        log: Any = subprocess.DEVNULL
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
            log = (logs / f"worker-{number}.log").open("a")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        )
        theirs.close()
        if logs is not None:
            log.close()
        self._send(work)

    def begin(self, index: int, task: Task) -> None:
        self.task = index
        self._send(task)

    def _send(self, thing: Any) -> None:
        with suppress(BrokenPipeError):  # it is gone, which is seen when it is heard
            self.connection.send(thing)

    def stop(self) -> None:
        if self.task is not None and self.process.poll() is None:
            self.process.terminate()

    def dismiss(self) -> None:
        """It ends by itself when its connection closes."""
        self.connection.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()

    def obituary(self) -> str:
        self.connection.close()
        code = self.process.wait()
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = "; it may have run out of memory" if code == -9 else ""
        return f"the worker ended with {how}{hint}."
