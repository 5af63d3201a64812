"""Numbers in few characters: never two units that contradict each other, never 60 seconds."""

import math

import pytest

from graphdyn.report.words import count, duration, measured, percents, shorten


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (125.0, "2 min 5 s"),
        (3599.6, "1 h"),
        (3600 + 59.9 * 60, "2 h"),
        (12000.0, "3 h 20 min"),
        (86399.0, "24 h"),
        (2 * 86400 + 4.4 * 3600, "2 d 4 h"),
    ],
)
def test_durations(seconds, told):
    assert duration(seconds) == told


def test_durations_are_true_to_their_last_digit():
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    for i in range(3000):
        seconds = 1.005**i - 1
        words = duration(seconds).split()
        said = sum(float(n) * units[u] for n, u in zip(words[::2], words[1::2], strict=True))
        small = 3600 if seconds >= 86400 else 60 if seconds >= 3600 else 1 if seconds >= 10 else 0.1
        assert abs(said - seconds) <= 0.51 * small + 0.5
        assert len(words) <= 4


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0"), (950, "950"), (999.4, "999"), (999.6, "1 k"), (1234, "1.23 k"), (34e6, "34 M"), (999_999, "1 M"), (5e9, "5 G")],
)  # fmt: skip
def test_counts(number, told):
    assert count(number) == told


def test_numbers_with_their_errors():
    assert measured(0.0123456) == "0.01235"
    assert measured(0.0123456, 0.00123) == "0.01235 ± 0.0012"
    assert measured(3.0, math.nan) == "3"
    assert percents([]) == "-"
    assert percents([0.7]) == "70.00"
    assert percents([0.70, 0.72]) == "71.00 ± 1.41"


def test_names_lose_their_middle():
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghij", 7) == "abc…hij"
    assert shorten("abcdefghij", 6) == "abc…ij"
    assert shorten("abcdefghij", 1) == "…"
    for width in range(1, 12):
        assert len(shorten("abcdefghij", width)) == min(10, width)
