"""Improvement: counting by hand, scipy, and intervals that cover with five runs."""

import itertools

import numpy as np
import pytest
from scipy import stats

from graphdyn.errors import InputError
from graphdyn.improvement import (
    improvement,
    improvement_interval,
    profile,
    profile_band,
    wilson,
)
from graphdyn.keys import Key

KEY = Key(12).fold("improvement")


def normal(*shape, path=()):
    return KEY.fold("data", *path).numpy().normal(size=shape)


def test_improvement_is_mann_whitney_by_counting():
    x, y = np.array([1.0, 3.0, 3.0]), np.array([0.0, 3.0, 5.0, 2.0])
    score = {-1: 0.0, 0: 0.5, 1: 1.0}
    counted = [score[int(np.sign(p - q))] for p, q in itertools.product(x, y)]
    assert improvement([(x, y)]) == pytest.approx(np.mean(counted))
    assert improvement([(x, y)]) == pytest.approx(stats.mannwhitneyu(x, y).statistic / 12)
    assert improvement([(x, y), (x + 9, y)]) == pytest.approx((np.mean(counted) + 1) / 2)
    assert improvement_interval([(x, y)]).value == improvement([(x, y)])


def test_the_ends_solve_newcombes_equation():
    x, y = normal(6) + 0.5, normal(9, path=(1,))
    found = improvement_interval([(x, y)], 0.9)
    z = stats.norm.ppf(0.95)
    for end in found[1:]:
        q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
        spread = (6 + 9) / 2 - 1  # Hanley & McNeil with both sizes at their mean
        variance = (end * (1 - end) + spread * (q1 - end**2 + q2 - end**2)) / (6 * 9)
        assert (found.value - end) ** 2 == pytest.approx(z * z * variance, rel=1e-6)


def test_a_clean_sweep_of_five_is_not_certainty():
    """A bootstrap would say [1, 1]."""
    x = np.arange(5.0)
    found = improvement_interval([(x + 9, x)])
    assert found.value == found.high == 1
    assert 0.6 < found.low < 0.9
    turned = improvement_interval([(x, x + 9)])
    assert turned == pytest.approx((0, 0, 1 - found.low))


@pytest.mark.parametrize("n", [5, 10])
@pytest.mark.parametrize("effect", [0.0, 1.0, 2.0])
def test_the_interval_covers(n, effect):
    truth, inside = stats.norm.cdf(effect / 2**0.5), 0
    for i in range(600):
        pair = normal(n, path=(n, i, 0)) + effect, normal(n, path=(n, i, 1))
        found = improvement_interval([pair])
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 600 <= 0.98


def test_shared_seeds_make_it_too_wide_never_too_short():
    inside = 0
    for i in range(300):
        shared = 3 * normal(5, path=("shared", i))
        pair = shared + normal(5, path=(i, 0)), shared + normal(5, path=(i, 1))
        found = improvement_interval([pair])
        inside += found.low <= 0.5 <= found.high
    assert inside / 300 >= 0.95


def test_the_mean_over_tasks_covers():
    truth, inside = (stats.norm.cdf(0.0) + stats.norm.cdf(2**0.5)) / 2, 0
    for i in range(600):
        pairs = [
            (normal(5, path=("k", i, k, 0)) + 2 * k, normal(5, path=("k", i, k, 1))) for k in (0, 1)
        ]
        found = improvement_interval(pairs)
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 600 <= 0.98


def test_a_task_needs_runs():
    with pytest.raises(InputError, match="at least one"):
        improvement_interval([(np.ones(2), np.empty(0))])


def test_a_profile_counts_runs_above():
    runs = [np.array([0.1, 0.5, 0.9, 0.9]), np.array([0.5, 0.6])]
    assert profile(runs, np.array([0.0, 0.5, 0.8])).tolist() == [1.0, 0.5, 0.25]


def test_wilson_is_scipys():
    for hits, n in ((0, 5), (3, 5), (10, 10)):
        there = stats.binomtest(hits, n).proportion_ci(0.9, method="wilson")
        assert wilson(hits, n, 0.9)[1:] == pytest.approx((there.low, there.high))


def test_the_band_of_a_profile_covers():
    inside = 0
    for i in range(600):
        runs = [normal(5, path=("band", i, k)) for k in range(3)]
        low, high = profile_band(runs, np.array([0.5]))
        inside += low[0] <= stats.norm.sf(0.5) <= high[0]
    assert 0.92 <= inside / 600 <= 0.99


def test_a_level_is_a_probability():
    with pytest.raises(InputError, match="between 0 and 1"):
        wilson(1, 2, 95)
