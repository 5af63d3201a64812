"""Row ranges of a compiled kernel shared out over threads.

The kernels release the GIL, so a plain thread pool serves them: it needs no OpenMP or TBB runtime
(with neither, Numba's own threading layer must not be entered from two threads at once), it works
in forked workers, and it does not spin beside torch's threads. Any number of callers may run at
once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch

SERIAL = 1 << 18  # Below this many numbers touched, waking a thread costs more than it saves.
_TASKS_PER_THREAD = 4  # Enough to even out a core that is busy elsewhere.

Cuts = Sequence[int] | np.ndarray

_pool: ThreadPoolExecutor | None = None


def run(kernel: Callable, cuts: Cuts, work: int, *args: Any) -> None:
    """Call ``kernel(first, last, *args)`` over the ranges between ``cuts``.

    Args:
        kernel: Releases the GIL, and writes only what belongs to its range.
        cuts: Ascending range boundaries; neighbours may be merged.
        work: Numbers touched in all; decides whether threads pay.
        *args: Passed on.
    """
    threads = torch.get_num_threads()
    if threads == 1 or work < SERIAL or len(cuts) <= 2:
        kernel(cuts[0], cuts[-1], *args)
        return
    tasks = deque(pairwise(_merge(cuts, threads * _TASKS_PER_THREAD)))

    def drain() -> None:
        while tasks:
            try:
                first, last = tasks.popleft()
            except IndexError:
                return
            kernel(first, last, *args)

    helpers = [_executor().submit(drain) for _ in range(threads - 1)]
    drain()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


def even_cuts(n: int) -> Cuts:
    """Boundaries of up to 17 equal ranges of n rows of equal work."""
    return [0, *range(n // 16, n, n // 16), n] if n >= 16 else [0, n]


def _merge(cuts: Cuts, pieces: int) -> list[int]:
    step = max(1, -(-(len(cuts) - 1) // pieces))
    return [int(c) for c in cuts[:-1:step]] + [int(cuts[-1])]


def _executor() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max(os.cpu_count() or 1, 8), "graphdyn-kernel")
    return _pool


def _forget_pool() -> None:
    """A forked child has the pool object but none of its threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
