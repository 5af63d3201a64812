"""Slurm, by submitit: one job a task. All nodes must see the folder of the study under one path.

A job that is preempted or runs out of time asks to be put in the queue again, and one whose node fails is
submitted again; both go on from their last checkpoint.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from graphdyn.errors import InputError, Interrupted
from graphdyn.executors.executor import Book, Outcome, Task, Work, tell

_TICK = 1.0  # seconds between two looks at the queue


class SlurmExecutor:
    """Jobs of a Slurm cluster.

    Args:
        workers: Most jobs in the queue at a time; ``None``: 100.
        attempts: How often a task may be begun when its job dies.
        folder: For scripts and logs, on a file system that all nodes see.
        cluster: ``"slurm"``, or ``"local"``: jobs are processes of this machine, to try things.
        partition: Of the cluster.
        time: Minutes of a job.
        cpus: Of a job.
        gpus: Of a job.
        memory: Gigabytes of a job.
        **slurm: Any other option of ``sbatch``, with a leading ``slurm_`` as submitit has them.

    Raises:
        InputError: If submitit is not installed, there is no Slurm here, or an option is unknown.
    """

    def __init__(
        self,
        workers: int | None = None,
        attempts: int = 3,
        folder: str | Path = "slurm",
        cluster: str = "slurm",
        partition: str | None = None,
        time: int = 240,
        cpus: int = 1,
        gpus: int = 0,
        memory: float | None = None,
        **slurm: Any,
    ) -> None:
        self.workers, self.attempts, self.folder = workers or 100, attempts, Path(folder)
        self.cluster = cluster
        options = {"timeout_min": time, "cpus_per_task": cpus, "gpus_per_node": gpus, "name": "graphdyn",
                   "mem_gb": memory, "slurm_partition": partition, **slurm}  # fmt: skip
        self.options = {name: value for name, value in options.items() if value is not None}
        with tempfile.TemporaryDirectory() as elsewhere:
            self._open(elsewhere)  # it makes its folder, and nothing is to be written yet

    def _open(self, folder: str | Path) -> Any:
        submitit = _import_submitit()
        try:
            executor = submitit.AutoExecutor(folder=str(folder), cluster=self.cluster)
            executor.update_parameters(**self.options)
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise InputError(
                f"Slurm cannot be used here ({error}); start on a machine that has sbatch, correct the "
                "options, or try with cluster=local."
            ) from None
        return executor

    def run(
        self, work: Work, tasks: Sequence[Task], stopped: Callable[[], bool]
    ) -> Iterator[Outcome]:
        """See :meth:`Executor.run`."""
        book, executor = Book(len(tasks), self.attempts), self._open(self.folder)
        jobs: dict[int, Any] = {}
        try:
            while not stopped():
                self._submit(executor, jobs, book, work, tasks)
                if not jobs:
                    return
                yield from self._hear(jobs, book)
        finally:
            for job in jobs.values():
                job.cancel()

    def _submit(
        self, executor: Any, jobs: dict[int, Any], book: Book, work: Work, tasks: Sequence[Task]
    ) -> None:
        """As many as there is room for, as one array."""
        chosen: list[int] = []
        while len(jobs) + len(chosen) < self.workers and (index := book.take()) is not None:
            chosen.append(index)
        if chosen:
            with executor.batch():
                new = [executor.submit(_Job(work), tasks[index]) for index in chosen]
            jobs.update(zip(chosen, new))

    def _hear(self, jobs: dict[int, Any], book: Book) -> Iterator[Outcome]:
        lost = _import_submitit().core.utils.UncompletedJobError
        ended = [index for index, job in jobs.items() if job.done()]
        if not ended:
            time.sleep(_TICK)
        for index in ended:
            job = jobs.pop(index)
            try:
                kind, *values = job.result()
            except lost as error:
                kind, values = "gone", [f"job {job.job_id} was lost: {_last_line(error)}"]
            if kind == "done":
                yield book.done(index, *values)
            elif kind == "failed":
                yield book.failed(index, *values)
            elif (outcome := book.died(index, *values)) is not None:
                yield outcome


class _Job:
    """What a job does; pickled into the folder."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, task: Task) -> tuple[Any, ...]:
        try:
            return ("done", self.work(task))
        except Interrupted:
            return ("stopped", "the job was told to stop.")
        except Exception as error:
            return ("failed", type(error).__name__, tell(error))

    def checkpoint(self, task: Task) -> Any:
        """Submitit asks when the job is about to be stopped: submit the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)


def _import_submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise InputError(
            "the executor slurm needs submitit, which is not installed; pip install 'graphdyn[slurm]'."
        ) from None
    return submitit


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
