"""Schedules: the first step after one at which to measure, against a list of all steps."""

import pytest

from graphdyn.errors import InputError
from graphdyn.schedule import NEVER, At, Auto, Epoch, Every, LogSpaced, When, as_schedule

LISTED = {
    "every": (Every(), range(100)),
    "every 7": (Every(7), range(0, 100, 7)),
    "auto": (Auto(steps=9), range(0, 100, 9)),
    "at": (At([40, 3, 3, 0]), [0, 3, 40]),
    "at none": (At([]), []),
    "at once": (At(iter([5])), [5]),
    "log": (LogSpaced(2, most=1000), [0, 1, 3, 10, 32, 100, 316, 1000]),
    "log, dense": (LogSpaced(10, most=12), [0, 1, 2, 3, 4, 5, 6, 8, 10]),
}


@pytest.mark.parametrize("name", LISTED)
def test_the_next_step(name):
    schedule, steps = LISTED[name]
    for step in range(-1, 97):
        expected = next((s for s in steps if s > step), NEVER)
        assert schedule.after(step) == expected, step


def test_an_epoch_ends_when_the_loop_says_so():
    assert Epoch(2).after(0) == NEVER


def test_when_is_asked_about_every_step():
    schedule = When(lambda step: step % 5 == 2)
    assert [s for s in range(12) if schedule.wants(s)] == [2, 7]
    assert schedule.after(4) == 5


def test_a_number_stands_for_every():
    assert as_schedule(4) == Every(4)
    schedule = At([1])
    assert as_schedule(schedule) is schedule


@pytest.mark.parametrize(
    "make",
    [
        lambda: Every(0),
        lambda: At([-1, 3]),
        lambda: LogSpaced(0),
        lambda: Epoch(0),
        lambda: Auto(steps=0),
        lambda: Auto(least=0),
        lambda: Auto(weight=0.0),
        lambda: Auto(weight=-1.0),
        lambda: Auto(least=9, most=8),
    ],
)
def test_what_makes_no_sense(make):
    with pytest.raises(InputError, match="must be"):
        make()
