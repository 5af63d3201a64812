"""Threads that work ahead of a loop: results in order, a bounded number of them, a clean end.

No processes and no fork: the work releases the GIL. Threads hold nothing of the loop that reads them, so
a loop that is dropped anywhere ends them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Prefetch(Generic[Item, Result]):
    """``map(work, items)`` with threads ahead of the reader.

    An exception of ``work`` is raised in the reader, at its place in the order, with its own type and
    traceback. Threads end when the items do, at :meth:`close`, after an exception, and when the object is
    collected or the process exits.

    Args:
        work: Pure function, safe to call from any thread.
        items: What to work on.
        workers: Threads; 0 does the work in the reader.
        depth: Most results that wait or are being made at a time.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        workers: int,
        depth: int,
    ):
        self._shared = shared = _Shared(work, iter(items), depth)
        names = [f"graphdyn-loader-{i}" for i in range(min(workers, depth))]
        self._threads = [threading.Thread(target=shared.serve, name=n, daemon=True) for n in names]
        self._end = weakref.finalize(self, _end, shared, self._threads)
        if not self._threads:
            return
        threads = torch.get_num_threads()
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            shared.started.acquire()
        # Each worker has asked torch for one thread for itself. Torch gives the last number that anybody
        # asked for to every thread that has not asked yet; say again what this one had.
        torch.set_num_threads(threads)

    def __iter__(self) -> Iterator[Result]:
        return self

    def __next__(self) -> Result:
        try:
            return self._shared.take() if self._threads else self._shared.make()
        except BaseException:
            self.close()
            raise

    def waiting(self) -> list[Result]:
        """Results that are done and not read yet."""
        return self._shared.waiting()

    def close(self) -> None:
        """End the threads and wait for them; further reading ends at once. May be called again."""
        self._end()


class _Shared(Generic[Item, Result]):
    """What threads and reader have in common; everything is read and written under ``changed``."""

    def __init__(self, work: Callable[[Item], Result], items: Iterator[Item], depth: int):
        self.work, self.items, self.depth = work, items, depth
        self.changed = threading.Condition()
        self.started = threading.Semaphore(0)
        self.done: dict[int, Result | _Failure] = {}
        self.issued = 0  # items handed to threads
        self.taken = 0  # results handed to the reader
        self.over = False  # nothing more is handed to threads
        self.stopped = False  # nothing more is handed to the reader either

    def serve(self) -> None:
        """What a thread does."""
        # Sampling runs beside training: a second team of OpenMP threads would only fight with it.
        torch.get_num_threads()  # else a thread's first use of torch forgets what it asked for before
        torch.set_num_threads(1)
        self.started.release()
        while (job := self._next_job()) is not None:
            self._put(job[0], self._try(job[1]))

    def make(self) -> Result:
        """The next result, made by the reader itself."""
        if self.stopped:
            raise StopIteration
        return self.work(next(self.items))

    def take(self) -> Result:
        """The next result, once it is there."""
        with self.changed:
            self.changed.wait_for(lambda: self.taken in self.done or self._exhausted)
            if self.taken not in self.done:
                raise StopIteration
            result = self.done.pop(self.taken)
            self.taken += 1
            self.changed.notify_all()
        if isinstance(result, _Failure):
            raise result.error
        return result

    def waiting(self) -> list[Result]:
        with self.changed:
            return [r for r in self.done.values() if not isinstance(r, _Failure)]

    def stop(self) -> None:
        with self.changed:
            self.over = self.stopped = True
            self.done.clear()
            self.changed.notify_all()

    @property
    def _exhausted(self) -> bool:
        return self.stopped or (self.over and self.taken == self.issued)

    def _next_job(self) -> tuple[int, Item] | None:
        with self.changed:
            self.changed.wait_for(lambda: self.over or self.issued - self.taken < self.depth)
            if self.over:
                return None
            number = self.issued
            try:
                item = next(self.items)
            except StopIteration:
                self.over = True
                self.changed.notify_all()
                return None
            except BaseException as error:
                self.issued += 1
                self._put(number, _Failure(error))
                return None
            self.issued += 1
            return number, item

    def _try(self, item: Item) -> Result | _Failure:
        try:
            return self.work(item)
        except BaseException as error:
            return _Failure(error)

    def _put(self, number: int, result: Result | _Failure) -> None:
        with self.changed:
            if not self.stopped:
                self.done[number] = result
            self.over |= isinstance(result, _Failure)
            self.changed.notify_all()


class _Failure:
    """An exception on its way to the reader."""

    def __init__(self, error: BaseException):
        self.error = error


def _end(shared: _Shared, threads: list[threading.Thread]) -> None:
    shared.stop()
    # The garbage collector may run this in one of the threads themselves, which cannot wait for itself
    # and may hold what the others wait for.
    if threading.current_thread() not in threads:
        for thread in threads:
            thread.join()
