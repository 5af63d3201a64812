"""The book of attempts: every task ends once, whatever happens to workers."""

import pytest

from graphdyn.errors import InputError
from graphdyn.executors import build
from graphdyn.executors.executor import Book, tell


def test_tasks_are_begun_in_order_and_again_before_others():
    book = Book(3, attempts=2)
    assert [book.take(), book.take()] == [0, 1]
    assert book.died(0, "gone") is None
    assert book.take() == 0
    outcome = book.died(0, "gone")
    assert (outcome.index, outcome.error, outcome.reason, outcome.attempts) == (
        0, "WorkerDied", "gone", 2,
    )  # fmt: skip
    assert [book.take(), book.take()] == [2, None]
    assert book.done(1, "x").attempts == 1
    assert book.done(2, "x").result == "x"


def test_errors_are_told_in_one_line():
    assert tell(InputError("lr is 0.")) == "lr is 0."
    assert tell(ValueError("x")) == "ValueError: x"


def test_an_unknown_executor_is_named():
    with pytest.raises(InputError, match="unknown executor 'cloud'; known: local, ray, slurm"):
        build("cloud")
    with pytest.raises(InputError, match="workers is 0"):
        build("local", workers=0)
