"""Executors: who works off a list of tasks. One engine a file; all keep the promises of :class:`Executor`."""

from __future__ import annotations

from typing import Any

from graphdyn.errors import unknown
from graphdyn.executors.executor import Executor, Outcome, Task

__all__ = ["EXECUTORS", "Executor", "Outcome", "Task", "build"]

EXECUTORS = ("local", "ray", "slurm")


def build(name: str, **options: Any) -> Executor:
    """An executor by name.

    Args:
        name: One of :data:`EXECUTORS`.
        **options: See its class.

    Raises:
        InputError: If the name is not known, or its library is not installed.
    """
    if name == "local":
        from graphdyn.executors.local import LocalExecutor

        return LocalExecutor(**options)
    if name == "ray":
        from graphdyn.executors.ray import RayExecutor

        return RayExecutor(**options)
    if name == "slurm":
        from graphdyn.executors.slurm import SlurmExecutor

        return SlurmExecutor(**options)
    raise unknown("executor", name, EXECUTORS)
