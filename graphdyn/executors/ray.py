"""Ray: one actor a worker, anywhere on a cluster. All machines must see the folder of the study under one path.

An actor whose machine or process goes away is replaced by another one, where there is room, and its task is
begun again there, from its last checkpoint.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphdyn.errors import InputError, Interrupted
from graphdyn.executors.executor import Book, Outcome, Task, Work, tell

_TICK = 0.5  # seconds between two looks at whether to stop
_PATIENCE = 10.0  # seconds for a cluster to answer


class RayExecutor:
    """Actors of a Ray cluster.

    Args:
        workers: How many at a time; ``None``: one for every ``cpus`` of the cluster.
        attempts: How often a task may be begun when its worker dies.
        address: Of a running cluster; ``None``: ``$RAY_ADDRESS``, else one is started here.
        cpus: Of each worker.
        gpus: Of each worker; a part of one may be shared.

    Raises:
        InputError: If ray is not installed.
    """

    def __init__(
        self,
        workers: int | None = None,
        attempts: int = 3,
        address: str | None = None,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        self._ray = _import_ray()
        self.attempts, self.cpus, self.gpus = attempts, cpus, gpus
        address = address or os.environ.get("RAY_ADDRESS")
        if not self._ray.is_initialized():
            self._connect(address)
        room = self._ray.cluster_resources().get("CPU", 1) // cpus
        self.workers = max(1, int(room)) if workers is None else workers

    def _connect(self, address: str | None) -> None:
        options = {"include_dashboard": False} if address is None else {"address": address}
        try:
            _knock(address or "")
            self._ray.init(log_to_driver=False, logging_level="ERROR", **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no Ray cluster answers at {address or 'this machine'} ({_first_line(error)}); give "
                "--ray-address, or unset RAY_ADDRESS to start one here."
            ) from None

    def run(
        self, work: Work, tasks: Sequence[Task], stopped: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """See :meth:`Executor.run`."""
        book, crew = Book(len(tasks), self.attempts), _Crew(self, work)
        try:
            while not stopped():
                while len(crew.busy) < self.workers and (index := book.take()) is not None:
                    crew.begin(index, tasks[index])
                if not crew.busy:
                    return
                yield from crew.hear(book)
            crew.stop()
            book.waiting.clear()
            book.attempts = sys.maxsize  # who goes now has not failed
            while crew.busy:
                yield from crew.hear(book)
        finally:
            crew.dismiss()

    def actor(self, kind: type, *args: Any, cpus: float, gpus: float = 0) -> Any:
        """A new process somewhere in the cluster."""
        return self._ray.remote(num_cpus=cpus, num_gpus=gpus)(kind).remote(*args)


class _Crew:
    """Actors by the answer that is awaited of them."""

    def __init__(self, executor: RayExecutor, work: Work) -> None:
        self.executor, self.work, self.ray = executor, work, executor._ray
        self.flag = executor.actor(_Flag, cpus=0)
        self.busy: dict[Any, tuple[int, Any]] = {}
        self.idle: list[Any] = []

    def begin(self, index: int, task: Task) -> None:
        actor = self.idle.pop() if self.idle else self._hire()
        self.busy[actor.do.remote(task)] = (index, actor)

    def _hire(self) -> Any:
        own = self.executor
        return own.actor(_Actor, self.work, self.flag, cpus=own.cpus, gpus=own.gpus)

    def hear(self, book: Book) -> Iterator[Outcome]:
        ready, _ = self.ray.wait(list(self.busy), num_returns=1, timeout=_TICK)
        for answer in ready:
            index, actor = self.busy.pop(answer)
            try:
                kind, *values = self.ray.get(answer)
                self.idle.append(actor)
            except self.ray.exceptions.RayError as error:
                kind, values = "gone", [f"the worker was lost: {_first_line(error)}"]
            if kind == "done":
                yield book.done(index, *values)
            elif kind == "failed":
                yield book.failed(index, *values)
            elif (outcome := book.died(index, *values)) is not None:
                yield outcome

    def stop(self) -> None:
        self.ray.get(self.flag.set.remote())

    def dismiss(self) -> None:
        for actor in [self.flag, *self.idle, *(actor for _, actor in self.busy.values())]:
            self.ray.kill(actor)


class _Flag:
    """Whether all are to stop; a process of its own, which everybody can reach."""

    def __init__(self) -> None:
        self.up = False

    def set(self) -> None:
        self.up = True

    def get(self) -> bool:
        return self.up


class _Actor:
    """Lives in a process of the cluster; a thread looks at the flag and tells the process, as a signal would."""

    def __init__(self, work: Work, flag: Any) -> None:
        self.work, self.flag, self.busy = work, flag, False
        threading.Thread(target=self._look, daemon=True).start()

    def do(self, task: Task) -> tuple[Any, ...]:
        self.busy = True
        try:
            return ("done", self.work(task))
        except (Interrupted, KeyboardInterrupt):
            return ("stopped", "the worker was told to stop.")
        except Exception as error:
            return ("failed", type(error).__name__, tell(error))
        finally:
            self.busy = False

    def _look(self) -> None:
        import ray

        while not ray.get(self.flag.get.remote()):
            time.sleep(_TICK)
        if self.busy:
            os.kill(os.getpid(), signal.SIGTERM)


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError(
            "the executor ray needs Ray, which is not installed; pip install 'graphdyn[ray]'."
        ) from None
    return ray


def _knock(address: str) -> None:
    """Ray itself tries for minutes where nobody is at home."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
