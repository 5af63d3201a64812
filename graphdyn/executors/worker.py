"""A worker process: work once, then tasks, over a connection; ``python -m graphdyn.executors.worker FD``.

It ends when the connection closes, at once if it is idle. In the middle of a task it tells itself to stop, so
that the task can keep what it has, and goes after a grace period in any case: whoever takes the task up again
must not meet it.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from graphdyn.errors import Interrupted
from graphdyn.executors.executor import tell

GRACE = 20.0  # seconds
_GONE = object()


def main(descriptor: int) -> None:
    """Work off what comes."""
    connection = Connection(descriptor)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), daemon=True).start()
    work = inbox.get()
    while work is not _GONE and (task := inbox.get()) is not _GONE:
        try:
            reply = ("done", work(task))
        except (Interrupted, KeyboardInterrupt):
            reply = ("stopped", "the worker was told to stop.")
        except Exception as error:
            traceback.print_exc()
            reply = ("failed", type(error).__name__, tell(error))
        try:
            connection.send(reply)
        except OSError:
            return


def _listen(connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        inbox.put(_GONE)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
