"""Slurm: submitit's local executor, whose jobs are processes; a job that dies is submitted again."""

import os
import sys

import pytest
import tasks

from graphdyn.errors import InputError

pytest.importorskip("submitit", reason="pip install 'graphdyn[slurm]'")

from graphdyn.executors.slurm import SlurmExecutor

# A job of submitit's local executor that is cancelled is not waited for.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def never():
    return False


@pytest.fixture
def executor(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    return SlurmExecutor(folder=tmp_path / "slurm", cluster="local")


def outcomes(executor, work, todo, stopped=never):
    return sorted(executor.run(work, todo, stopped), key=lambda o: o.index)


def test_nothing_is_written_before_there_is_work(executor, tmp_path):
    assert list(tmp_path.iterdir()) == []


def test_every_task_is_a_job_and_ends_once(executor):
    executor.workers = 2
    found = outcomes(executor, tasks.refuse_odd, [0, 1, 2])
    assert [(o.result, o.error, o.reason) for o in found] == [
        (0, None, ""), (None, "InputError", "1 is odd."), (2, None, ""),
    ]  # fmt: skip


def test_a_job_that_dies_is_submitted_again(executor, tmp_path):
    (found,) = outcomes(executor, tasks.die_at_first, [str(tmp_path)])
    assert found.result[0] != found.result[1]
    assert found.attempts == 2


def test_a_job_that_always_dies_has_failed(executor):
    executor.attempts = 1
    (found,) = outcomes(executor, tasks.die, [0])
    assert (found.error, found.attempts) == ("WorkerDied", 1)
    assert "was lost" in found.reason


def test_told_to_stop_jobs_are_cancelled(executor, tmp_path):
    begun = tmp_path / "begun"
    assert outcomes(executor, tasks.note_and_wait, [str(tmp_path)], begun.exists) == []


def test_without_slurm_the_reason_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="Slurm cannot be used here"):
        SlurmExecutor(folder=tmp_path)
    with pytest.raises(InputError, match="Slurm cannot be used here"):
        SlurmExecutor(folder=tmp_path, cluster="local", colour="red")
