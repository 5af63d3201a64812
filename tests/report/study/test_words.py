"""The first lines say what the numbers say, and no more."""

import math

import numpy as np
import pytest
from report.study.studies import imagined

from graphdyn.keys import Key
from graphdyn.report.study.accuracy import score
from graphdyn.report.study.words import amount, between, headline, listed, p_value, share, signed
from graphdyn.survival import Interval

NOISE = Key(3).fold("words").numpy().normal(size=(3, 6)) / 1000


def told(scores, baseline="a", **options):
    study = imagined(scores, baseline, **options)
    return headline(study, score(study))


def test_a_clear_winner():
    head = told(
        {("d", "a"): 0.7 + NOISE[0], ("d", "b"): 0.8 + NOISE[1], ("d", "c"): 0.6 + NOISE[2]}
    )
    assert (head.title, head.verdict, head.leader) == ("b wins", "clear", "b")
    gain = 100 * (0.1 + np.mean(NOISE[1] - NOISE[0]))
    assert f"the runner-up, a, by {gain:.2f} points [" in head.text
    assert "3 comparisons" in head.text
    facts = {label: figure for label, figure, _ in head.facts}
    assert facts["Against the baseline, a"] == f"+{gain:.2f} points"
    assert facts["Cost: edges touched"] == "1.00×"


def test_two_that_cannot_be_told_apart_and_one_behind():
    head = told(
        {("d", "a"): 0.7 + NOISE[0], ("d", "b"): 0.7 + NOISE[1], ("d", "c"): 0.6 + NOISE[2]}
    )
    assert head.verdict == "unclear"
    assert head.title in ("a and b cannot be told apart", "b and a cannot be told apart")
    assert "Behind by more than noise: c." in head.text


def test_nobody_stands_out():
    head = told({("d", m): 0.7 + NOISE[i] for i, m in enumerate("abc")})
    assert (head.title, head.verdict) == ("No method stands out", "unclear")
    assert "may well be noise" in head.text


def test_the_baseline_may_win():
    head = told({("d", "a"): 0.8 + NOISE[0], ("d", "b"): 0.7 + NOISE[1]})
    assert head.title == "a wins"
    facts = {label: figure for label, figure, _ in head.facts}
    assert facts["Against the baseline"] == "is the baseline"
    assert facts["Cost: training time"] == "2 s"


def test_too_early_to_tell():
    assert told({("d", "a"): [0.8, 0.8], ("d", "b"): [0.7, 0.7]}).verdict == "open"
    assert "fewer than 3 pairs" in told({("d", "a"): [0.8, 0.8], ("d", "b"): [0.7, 0.7]}).text
    assert told({("d", "a"): [0.8]}).title == "a stands alone"
    assert told({("d", "a"): [0.8], ("e", "b"): [0.7]}).title == "No comparison yet"


@pytest.mark.parametrize(
    ("value", "what", "expected"),
    [
        (None, "edges", "–"),
        (math.inf, "steps", "∞"),
        (0.01234, "seconds", "0.0123 s"),
        (5400.0, "seconds", "5,400 s"),
        (512.0, "bytes", "512 B"),
        (2.0**29, "memory", "512 MiB"),
        (1010 * 2.0**20, "bytes", "1010 MiB"),
        (9999.0, "steps", "9,999"),
        (1_234_567.0, "edges", "1.23 M"),
    ],
)
def test_amounts_have_units(value, what, expected):
    assert amount(value, what) == expected


def test_numbers_in_words():
    assert signed(-0.004) == "+0.00"
    assert signed(-1.5) == "−1.50"
    assert between(Interval(1, -0.5, 2)) == "[−0.50, 2.00]"
    assert between(Interval(1, -0.5, 2), sign=True) == "[−0.50, +2.00]"
    assert between(None) == between(Interval(1, math.nan, math.nan)) == ""
    assert [p_value(p) for p in (1e-9, 0.0321, None)] == ["p < 0.0001", "p = 0.032", "no p"]
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert [share(s) for s in (0.0, 5e-6, 0.123, 22.0)] == ["0 %", "< 0.01 %", "12 %", "> 1000 %"]
