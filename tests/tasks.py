"""Work for workers of other processes: they import it by this name."""

import os
import signal
import time
from pathlib import Path

from graphdyn.errors import InputError, Interrupted


def square(x):
    return x * x


class Counter:
    """Its copy in a worker counts what that worker has done."""

    def __init__(self):
        self.calls = 0

    def __call__(self, task):
        self.calls += 1
        return os.getpid(), self.calls


def refuse_odd(x):
    if x % 2:
        raise InputError(f"{x} is odd.")
    if x == 4:
        raise KeyError("four")
    return x


def die_at_first(folder):
    """Kill the worker unless another attempt has left a mark; returns who did it."""
    mark = Path(folder) / "mark"
    if not mark.exists():
        mark.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
    return int(mark.read_text()), os.getpid()


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def note_and_wait(folder):
    """Leave a mark with the process, then wait to be told to stop; leave another when told."""
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    folder = Path(folder)
    (folder / "begun").write_text(str(os.getpid()))
    for _ in range(600):
        time.sleep(0.05)
        if told:
            (folder / "told").touch()
            raise Interrupted("told.")
