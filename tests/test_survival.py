"""Survival: textbook numbers, scipy, and closed forms of exponential hitting times."""

import numpy as np
import pytest
from scipy import stats

from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.survival import (
    Hit,
    KaplanMeier,
    Times,
    expected_running_time,
    first_hit,
    log_rank,
)

# Remission of leukaemia in weeks, 6-MP against placebo (Freireich et al. 1963), the example of every textbook.
DRUG = Times(
    np.array([6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35], float),
    np.arange(21) < 9,
)
PLACEBO = Times(
    np.array([1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23], float),
    np.ones(21, bool),
)


def exponential(n, budget, *path, rate=1.0):
    time = Key(5).fold("survival", *path).numpy().exponential(1 / rate, n)
    return Times(np.minimum(time, budget), time < budget)


def covered(truth, ends):
    low, high = np.array(ends).T
    return ((low <= truth) & (truth <= high)).mean()


# --- the curve ----------------------------------------------------------------------------------------


def test_the_curve_and_greenwood_of_the_textbook():
    curve = KaplanMeier(DRUG)
    assert curve.at.tolist() == [6, 7, 10, 13, 16, 22, 23]
    assert curve.at_risk.tolist() == [21, 17, 15, 12, 11, 7, 6]
    np.testing.assert_allclose(
        curve.survival, [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], atol=5e-4
    )
    np.testing.assert_allclose(
        curve.se, [0.0764, 0.0869, 0.0963, 0.1068, 0.1141, 0.1282, 0.1346], atol=5e-5
    )
    assert curve.median().value == 23


def test_the_curve_steps_at_the_hit():
    curve = KaplanMeier(Times(np.array([1.0, 2.0, 3.0]), np.array([True, False, True])))
    assert [curve(t) for t in (0.0, 0.99, 1.0, 2.5, 3.0, 9.0)] == [
        1,
        1,
        *[pytest.approx(2 / 3)] * 2,
        0,
        0,
    ]


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_band_is_that_of_scipy(level):
    data = stats.CensoredData.right_censored(DRUG.time, ~DRUG.hit)
    there = stats.ecdf(data).sf
    limits = there.confidence_interval(level, method="log-log")
    curve = KaplanMeier(DRUG)
    low, high = curve.band(level)
    np.testing.assert_allclose(curve.survival, there.evaluate(curve.at), rtol=1e-12)
    np.testing.assert_allclose(low, limits.low.evaluate(curve.at), rtol=1e-12)
    np.testing.assert_allclose(high, limits.high.evaluate(curve.at), rtol=1e-12)


def test_where_all_have_hit_the_variance_is_unknown():
    curve = KaplanMeier(Times(np.array([1.0, 2.0]), np.array([True, True])))
    low, high = curve.band()
    assert curve.survival[-1] == 0
    assert np.isnan(curve.se[-1])
    assert low[-1] == 0
    assert np.isnan(high[-1])
    assert curve.median() == (1.0, 1.0, float("inf"))  # two runs bound the median from one side


def test_the_median_of_too_few_hits_is_infinite():
    curve = KaplanMeier(Times(np.array([1.0, 5, 5, 5]), np.array([True, False, False, False])))
    assert curve.median().value == float("inf")
    assert curve.quantile(0.25).value == 1


def test_nobody_hit():
    times = Times(np.full(4, 7.0), np.zeros(4, bool))
    assert KaplanMeier(times)(7.0) == 1
    assert KaplanMeier(times).restricted_mean(7.0)[:3] == (7.0, 0.0, 4)
    assert KaplanMeier(times).median() == (float("inf"),) * 3


def test_the_interval_of_the_median_covers():
    ends = [KaplanMeier(exponential(60, 1.2, "median", i)).median()[1:] for i in range(1500)]
    assert 0.93 <= covered(np.log(2), ends) <= 0.97


def test_the_band_covers_at_a_time():
    found = []
    for i in range(1500):
        curve = KaplanMeier(exponential(60, 1.5, "band", i))
        k = np.searchsorted(curve.at, 0.5, side="right") - 1
        found.append([limits[k] for limits in curve.band()])
    assert 0.93 <= covered(np.exp(-0.5), found) <= 0.97


# --- restricted mean ----------------------------------------------------------------------------------


def test_the_restricted_mean_by_hand():
    # S is 1 up to 1, 3/4 up to 3, then 3/8: area up to 4 is 1 + 2 * 3/4 + 3/8.
    times = Times(np.array([1.0, 2, 3, 5]), np.array([True, False, True, False]))
    found = KaplanMeier(times).restricted_mean(4.0)
    assert found.value == pytest.approx(1 + 1.5 + 0.375)
    # To the right of 1 lie 1.875, to the right of 3 lie 0.375; d / (r (r - d)) is 1/12 and 1/2.
    assert found.se == pytest.approx((1.875**2 / 12 + 0.375**2 / 2) ** 0.5)


def test_without_censoring_it_is_the_mean():
    times = Times(np.array([1.0, 2, 4, 9]), np.ones(4, bool))
    found = KaplanMeier(times).restricted_mean(20.0)
    assert found.value == pytest.approx(4.0)
    # Greenwood's formula then gives the variance with 1/n, not 1/(n - 1).
    assert found.se == pytest.approx(np.std([1, 2, 4, 9]) / 2)


def test_the_restricted_mean_covers():
    truth, ends = 1 - np.exp(-1.2), []
    for i in range(1500):
        found = KaplanMeier(exponential(60, 1.2, "rmst", i)).restricted_mean(1.2)
        ends.append((found.value - 1.96 * found.se, found.value + 1.96 * found.se))
    assert 0.93 <= covered(truth, ends) <= 0.97


@pytest.mark.parametrize(("n", "least"), [(5, 0.90), (10, 0.92)])
def test_the_restricted_interval_covers_with_few_runs_and_the_normal_one_does_not(n, least):
    truth, ours, plain = 1 - np.exp(-1.2), 0, 0
    for i in range(1500):
        curve = KaplanMeier(exponential(n, 1.2, "few", n, i))
        found, mean = curve.restricted_interval(1.2), curve.restricted_mean(1.2)
        ours += found.low <= truth <= found.high
        plain += abs(mean.value - truth) <= 1.96 * mean.se
    assert least <= ours / 1500 <= 0.97
    assert plain / 1500 < least


def test_the_restricted_interval_without_censoring_is_students():
    x = [1.0, 2, 4, 9]
    found = KaplanMeier(Times(np.array(x), np.ones(4, bool))).restricted_interval(20.0)
    there = stats.ttest_1samp(x, 0).confidence_interval()
    assert found == pytest.approx((4.0, max(there.low, 0.0), there.high))


def test_the_interval_of_one_run_is_refused():
    with pytest.raises(InputError, match="one run"):
        KaplanMeier(Times(np.ones(1), np.ones(1, bool))).restricted_interval(1.0)


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_of_the_median_covers_with_few_runs(n):
    ends = [KaplanMeier(exponential(n, 1.2, "few", n, i)).median()[1:] for i in range(1000)]
    assert 0.92 <= covered(np.log(2), ends) <= 0.99


@pytest.mark.parametrize("n", [5, 10])
def test_the_log_rank_test_of_few_runs_nearly_keeps_its_level(n):
    pairs = [[(exponential(n, 1.2, n, i, 0), exponential(n, 1.2, n, i, 1))] for i in range(1500)]
    assert 0.03 <= np.mean([log_rank(p).p < 0.05 for p in pairs]) <= 0.08


def test_the_budget_must_be_known_territory():
    with pytest.raises(InputError, match="beyond 35"):
        KaplanMeier(DRUG).restricted_mean(40.0)


# --- comparison ---------------------------------------------------------------------------------------


def test_log_rank_of_the_textbook():
    found = log_rank([(DRUG, PLACEBO)])
    assert found.z**2 == pytest.approx(16.79, abs=5e-3)
    assert found.observed == 9
    assert found.expected == pytest.approx(19.25, abs=5e-3)
    assert found.z < 0  # fewer hits than expected: slower


def test_one_stratum_is_scipys():
    a, b = exponential(30, 1.0, "a"), exponential(25, 1.4, "b", rate=1.7)
    data = [stats.CensoredData.right_censored(t.time, ~t.hit) for t in (a, b)]
    there, found = stats.logrank(*data), log_rank([(a, b)])
    assert found.z == pytest.approx(there.statistic, rel=1e-12)
    assert found.p == pytest.approx(there.pvalue, rel=1e-9)


def strata(i):
    """Two data sets whose speeds differ tenfold and whose groups differ in size; the methods are alike."""
    sizes = ((40, 15, 1.0), (15, 40, 10.0))
    return [
        (exponential(n, 2 / r, "s", i, k, 0, rate=r), exponential(m, 2 / r, "s", i, k, 1, rate=r))
        for k, (n, m, r) in enumerate(sizes)
    ]


def pooled(pairs):
    return [
        tuple(
            Times(
                np.concatenate([p[g].time for p in pairs]),
                np.concatenate([p[g].hit for p in pairs]),
            )
            for g in (0, 1)
        )
    ]


def test_the_stratified_test_keeps_its_level_and_the_pooled_one_does_not():
    kept = np.mean([log_rank(strata(i)).p < 0.05 for i in range(1000)])
    lost = np.mean([log_rank(pooled(strata(i))).p < 0.05 for i in range(200)])
    assert abs(kept - 0.05) < 5 * (0.05 * 0.95 / 1000) ** 0.5
    assert lost > 0.5


def test_log_rank_needs_a_hit():
    none = Times(np.ones(3), np.zeros(3, bool))
    with pytest.raises(InputError, match="larger budgets"):
        log_rank([(none, none)])


def test_expected_running_time_by_hand():
    times = Times(np.array([2.0, 4, 6, 6]), np.array([True, True, False, False]))
    found = expected_running_time(times)
    assert found.value == 9
    assert found.se == pytest.approx(np.sqrt((7**2 + 5**2 + 6**2 + 6**2) / 3 * 4) / 2)
    assert expected_running_time(Times(np.ones(2), np.zeros(2, bool))).value == float("inf")


def test_the_expected_running_time_of_exponential_times_is_their_mean_and_covers():
    ends = []
    for i in range(1500):
        found = expected_running_time(exponential(80, 1.2, "ert", i, rate=0.5))
        ends.append((found.value - 1.96 * found.se, found.value + 1.96 * found.se))
    assert 0.93 <= covered(2.0, ends) <= 0.97


def test_means_over_successes_alone_are_wrong():
    times = exponential(20_000, 1.2, "success", rate=0.5)
    assert times.time[times.hit].mean() < 0.6  # against 2
    assert expected_running_time(times).value == pytest.approx(2.0, rel=0.05)


# --- when a run hits ----------------------------------------------------------------------------------


def test_one_lucky_evaluation_is_no_hit():
    at, values = [10, 20, 30, 40, 50], [0.5, 0.9, 0.6, 0.8, 0.9]
    assert first_hit(at, values, 0.75) == Hit(40, True)  # the median of 0.9, 0.6, 0.8
    assert first_hit(at, values, 0.75, window=1) == Hit(20, True)
    assert first_hit(at, values, 0.85) == Hit(50, False)
    assert first_hit(at, values, 0.8) == Hit(40, True)  # reaching is enough


def test_smaller_may_be_better():
    assert first_hit([1, 2, 3, 4], [3, 1, 2, 1], 1.5, larger=False) == Hit(4, True)


def test_a_hit_after_the_budget_is_censored_at_the_budget():
    at, values = [10, 20, 30, 40], [1.0, 1.0, 1.0, 1.0]
    assert first_hit(at, values, 0.5) == Hit(30, True)
    assert first_hit(at, values, 0.5, budget=30) == Hit(30, True)
    assert first_hit(at, values, 0.5, budget=29) == Hit(29, False)
    assert first_hit(at, values, 2.0, budget=99) == Hit(40, False)  # it was not seen for longer


def test_too_few_evaluations_are_no_hit():
    assert first_hit([1, 2], [9.0, 9.0], 1.0) == Hit(2, False)


@pytest.mark.parametrize(("at", "values"), [([], []), ([1, 2], [1.0]), ([2, 1], [0.0, 0.0])])
def test_evaluations_must_be_in_order(at, values):
    with pytest.raises(InputError, match="in order"):
        first_hit(at, values, 0.5)


@pytest.mark.parametrize("time", [[1.0, np.inf], [-1.0, 2.0], [np.nan, 1.0]])
def test_times_must_be_finite(time):
    with pytest.raises(InputError, match="budget"):
        Times(np.array(time), np.array([True, False]))


def test_times_come_from_hits():
    times = Times.of([Hit(3.0, True), Hit(9.0, False)])
    assert times.time.tolist() == [3, 9]
    assert times.hit.tolist() == [True, False]
    with pytest.raises(InputError, match="each a run"):
        Times(np.ones(2), np.ones(3, bool))


def test_a_level_is_a_probability():
    with pytest.raises(InputError, match="between 0 and 1"):
        KaplanMeier(DRUG).band(95)
