"""Comparison: scipy, counting by hand, and intervals that cover what they should."""

import numpy as np
import pytest
from scipy import stats

from graphdyn.comparison import bootstrap, compare, holm, iqm, paired_difference, paired_p
from graphdyn.errors import InputError
from graphdyn.keys import Key

KEY = Key(11).fold("comparison")


def normal(*shape, path=()):
    return KEY.fold("data", *path).numpy().normal(size=shape)


def test_one_task_is_the_paired_t_test():
    a, b = normal(12), normal(12, path=(1,)) + 0.3
    found = paired_difference([a - b], 0.9)
    there = stats.ttest_rel(a, b).confidence_interval(0.9)
    assert found == pytest.approx((np.mean(a - b), there.low, there.high))


def test_two_tasks_are_welchs():
    a, b = normal(6), 3 * normal(15, path=(1,))
    found = paired_difference([a, b])
    # The mean of two means is half of what Welch's test takes of a and -b.
    there = stats.ttest_ind(a, -b, equal_var=False).confidence_interval()
    assert found[1:] == pytest.approx((there.low / 2, there.high / 2))


def test_the_paired_interval_covers_and_pairs_help():
    shared, inside, paired, loose = 5.0, 0, 0.0, 0.0
    for i in range(1500):
        seeds = shared * normal(5, path=(i, 0))
        a, b = seeds + normal(5, path=(i, 1)) + 0.7, seeds + normal(5, path=(i, 2))
        found = paired_difference([a - b])
        inside += found.low <= 0.7 <= found.high
        paired += found.high - found.low
        apart = stats.ttest_ind(a, b).confidence_interval()
        loose += apart.high - apart.low
    assert 0.93 <= inside / 1500 <= 0.97
    assert loose > 2 * paired


def test_epochs_are_no_seeds():
    """Ten readings of each of five runs, put on the axis of runs, claim what is not known."""
    inside = 0
    for i in range(400):
        runs = np.repeat(normal(5, path=("epochs", i)), 10)
        found = paired_difference([runs])
        inside += found.low <= 0 <= found.high
    assert inside / 400 < 0.7


def test_equal_differences_have_no_spread():
    assert paired_difference([np.full(3, 0.5)]) == (0.5, 0.5, 0.5)


def test_one_seed_has_no_interval():
    with pytest.raises(InputError, match="fewer than two seeds"):
        paired_difference([np.ones(5), np.ones(1)])


def test_the_interquartile_mean_by_hand():
    tasks = [np.array([9.0, 1.0, 2.0]), np.array([3.0, 4.0, 100.0, 5.0, -50.0])]
    # Sorted: -50 1 | 2 3 4 5 | 9 100.
    assert iqm(tasks) == 3.5
    stacked = iqm([np.stack([t, t + 1]) for t in tasks])
    assert stacked.tolist() == [3.5, 4.5]


def test_seeds_are_resampled_within_their_task():
    """Tasks a hundred apart: the mean moves by what happens inside them alone."""
    tasks = [np.array([0.0, 1.0]), np.array([100.0, 101.0, 102.0])]

    def mean(runs):
        return np.concatenate(runs, axis=-1).mean(-1)

    found = bootstrap(tasks, mean, key=KEY, level=0.999, resamplings=4000)
    assert found == pytest.approx((60.8, 60.0, 61.6), abs=0.01)


def test_the_spread_of_the_bootstrap_is_known():
    """Var of the mean of R resampled numbers is their variance, with 1/R, over R."""
    x, kept = normal(30), []

    def statistic(runs):
        kept.append(runs[0].mean(-1))
        return kept[-1]

    bootstrap([x], statistic, key=KEY, resamplings=20_000)
    truth = x.var() / 30
    assert kept[0].var() == pytest.approx(truth, abs=5 * truth * (2 / 20_000) ** 0.5)


def test_tasks_are_resampled_independently():
    x, kept = normal(30), []

    def statistic(runs):
        kept.append((runs[0].mean(-1) + runs[1].mean(-1)) / 2)
        return kept[-1]

    bootstrap([x, x], statistic, key=KEY, resamplings=20_000)
    truth = x.var() / 60  # of one stream for both it would be twice that
    assert kept[0].var() == pytest.approx(truth, abs=5 * truth * (2 / 20_000) ** 0.5)


def resampled(x, i, statistic):
    """The interval, and the plain percentiles of the same resamplings."""
    kept = []

    def keeping(runs):
        kept.append(statistic(runs))
        return kept[-1]

    found = bootstrap(x, keeping, key=KEY.fold(i), resamplings=1000)
    return found, np.quantile(kept[0], [0.025, 0.975])


@pytest.mark.parametrize(
    ("n", "plain"), [(5, (0.80, 0.88)), (10, (0.86, 0.93)), (40, (0.90, 0.96))]
)
def test_the_bootstrap_covers_and_plain_percentiles_of_few_seeds_do_not(n, plain):
    inside = np.zeros(2)
    for i in range(600):
        found, ends = resampled([normal(n, path=(n, i))], i, lambda r: r[0].mean(-1))
        inside += [found.low <= 0 <= found.high, ends[0] <= 0 <= ends[1]]
    ours, theirs = inside / 600
    assert 0.90 <= ours <= 0.98
    assert plain[0] <= theirs <= plain[1]


@pytest.mark.parametrize(("tasks", "n"), [(1, 5), (1, 10), (3, 5), (3, 10)])
def test_the_interval_of_the_interquartile_mean_covers(tasks, n):
    def statistic(runs):
        return np.mean([iqm([r]) for r in runs], axis=0)

    inside = 0
    for i in range(500):
        runs = [normal(n, path=("iqm", n, i, k)) + k for k in range(tasks)]
        found, _ = resampled(runs, i, statistic)
        inside += found.low <= (tasks - 1) / 2 <= found.high
    assert 0.92 <= inside / 500 <= 0.99


def test_one_run_is_a_point():
    found = bootstrap([np.array([3.0])], lambda r: r[0].mean(-1), key=KEY, resamplings=10)
    assert found == (3.0, 3.0, 3.0)


# --- tests --------------------------------------------------------------------------------------------


def test_p_is_that_of_scipy():
    a, b = normal(9, path=("p", 0)) + 0.5, normal(9, path=("p", 1))
    assert paired_p([a - b]) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    x, y = normal(6, path=("p", 2)), 3 * normal(15, path=("p", 3))
    assert paired_p([x, y]) == pytest.approx(stats.ttest_ind(x, -y, equal_var=False).pvalue)


def test_p_and_interval_say_the_same():
    for i in range(50):
        gaps = [normal(6, path=("same", i, k)) + 0.5 for k in range(2)]
        found = paired_difference(gaps)
        assert (paired_p(gaps) < 0.05) == (found.low > 0 or found.high < 0)


def test_p_without_spread():
    assert paired_p([np.zeros(4)]) == 1
    assert paired_p([np.full(4, 0.25)]) == 0


def test_p_keeps_its_level():
    level = np.mean([paired_p([normal(5, path=("level", i))]) < 0.05 for i in range(3000)])
    assert abs(level - 0.05) < 5 * (0.05 * 0.95 / 3000) ** 0.5


def test_holm_by_hand():
    # Sorted .01 .02 .03 .6 become .04 .06 .06 .6: the third would be .06, no less than the one before.
    assert holm([0.03, 0.6, 0.01, 0.02]) == pytest.approx([0.06, 0.6, 0.04, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0


def test_holm_keeps_the_level_of_a_family_and_single_tests_do_not():
    families = [
        [paired_p([normal(5, path=("family", i, k))]) for k in range(10)] for i in range(1000)
    ]
    raised = np.mean([holm(p).min() < 0.05 for p in families])
    single = np.mean([min(p) < 0.05 for p in families])
    assert raised < 0.05 + 5 * (0.05 * 0.95 / 1000) ** 0.5
    assert raised > 0.02
    assert single > 0.3


def test_two_methods_together():
    seeds = 4 * normal(20, path=("shared",))
    a = {"cora": seeds + normal(20, path=(0,)) + 1, "citeseer": normal(8, path=(1,)) + 1}
    b = {"citeseer": normal(8, path=(2,)), "cora": seeds + normal(20, path=(3,))}
    found = compare(a, b, key=KEY)
    assert found.difference.value == pytest.approx(np.mean([np.mean(a[t] - b[t]) for t in a]))
    assert found.tasks["cora"].value == pytest.approx(np.mean(a["cora"] - b["cora"]))
    assert set(found.tasks) == {"cora", "citeseer"}
    assert found.iqm_difference.value == pytest.approx(found.iqm[0].value - found.iqm[1].value)
    wide = found.iqm[0].high - found.iqm[0].low
    assert found.iqm_difference.high - found.iqm_difference.low < wide  # pairs
    swapped = compare(b, a, key=KEY)
    assert found.improvement.value == pytest.approx(1 - swapped.improvement.value)
    assert 0.5 < found.improvement.value < 1
    assert compare(a, b, key=KEY) == found


@pytest.mark.parametrize(
    ("b", "what"),
    [
        ({"x": [1.0, 2.0]}, "give the same"),
        ({"cora": [1.0, 2.0, 3.0]}, "same seeds"),
        ({}, "give the same"),
    ],
)
def test_methods_must_match(b, what):
    with pytest.raises(InputError, match=what):
        compare({"cora": [1.0, 2.0]}, b, key=KEY)
