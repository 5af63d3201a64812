"""Local workers: alive for many tasks; one that dies is replaced, and so is a parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tasks

from graphdyn.executors.local import LocalExecutor


def never():
    return False


def outcomes(executor, work, todo, stopped=never):
    return sorted(executor.run(work, todo, stopped), key=lambda o: o.index)


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_task_ends_once_with_its_result():
    found = outcomes(LocalExecutor(2), tasks.square, list(range(7)))
    assert [o.result for o in found] == [x * x for x in range(7)]
    assert {o.attempts for o in found} == {1}
    assert outcomes(LocalExecutor(2), tasks.square, []) == []


def test_a_worker_is_kept_for_all_its_tasks():
    found = outcomes(LocalExecutor(1), tasks.Counter(), list(range(4)))
    assert [o.result[1] for o in found] == [1, 2, 3, 4]
    pid = {o.result[0] for o in found}
    assert len(pid) == 1
    assert os.getpid() not in pid
    assert not alive(pid.pop())


def test_a_task_that_raises_has_failed_and_the_others_go_on():
    found = outcomes(LocalExecutor(1), tasks.refuse_odd, [1, 2, 4, 6])
    assert [(o.error, o.reason) for o in found] == [
        ("InputError", "1 is odd."), (None, ""), ("KeyError", "KeyError: 'four'"), (None, ""),
    ]  # fmt: skip
    assert [o.result for o in found] == [None, 2, None, 6]


def test_a_task_whose_worker_dies_is_begun_again_on_another(tmp_path):
    (found,) = outcomes(LocalExecutor(1), tasks.die_at_first, [str(tmp_path)])
    first, second = found.result
    assert first != second
    assert found.attempts == 2


def test_a_task_that_kills_every_worker_has_failed():
    found = outcomes(LocalExecutor(1, attempts=2), tasks.die, [0])
    assert (found[0].error, found[0].attempts) == ("WorkerDied", 2)
    assert found[0].reason == "the worker ended with signal 9; it may have run out of memory."


def test_told_to_stop_workers_finish_and_nothing_is_begun(tmp_path):
    begun = tmp_path / "begun"
    found = outcomes(LocalExecutor(1), tasks.note_and_wait, [str(tmp_path)] * 3, begun.exists)
    assert found == []
    assert (tmp_path / "told").exists()
    assert not alive(int(begun.read_text()))


SCRIPT = """
import sys
import tasks
from graphdyn.executors.local import LocalExecutor
list(LocalExecutor(1).run(tasks.note_and_wait, [sys.argv[1]], lambda: False))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_of_a_killed_parent_stop(tmp_path, number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment)
    wait_for(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text())
    worker = int((tmp_path / "begun").read_text())
    parent.send_signal(number)
    parent.wait()
    wait_for(lambda: not alive(worker))
    assert (tmp_path / "told").exists()


def test_what_workers_print_is_in_a_log(tmp_path):
    outcomes(LocalExecutor(1, logs=tmp_path / "logs"), tasks.refuse_odd, [1])
    assert "1 is odd." in (tmp_path / "logs" / "worker-0.log").read_text()
