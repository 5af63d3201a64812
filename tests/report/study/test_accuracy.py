"""Scores of a study: scipy's numbers on the truth, and statements that are wrong as rarely as they say."""

import numpy as np
import pytest
from report.study.studies import imagined
from scipy import stats

from graphdyn.keys import Key
from graphdyn.report.study import accuracy
from graphdyn.report.study.accuracy import Scores, score
from graphdyn.report.study.data import read_study
from graphdyn.report.study.words import headline


def normal(*shape, path=()):
    return Key(21).fold("accuracy", *path).numpy().normal(size=shape)


def test_cells_are_scipys(folder, truth):
    scores = score(read_study(folder))
    runs = 100 * np.array([truth.score("cora", "full", s) for s in (0, 1, 3, 4, 5)])
    found = scores.cells["cora", "full"]
    there = stats.ttest_1samp(runs, 0).confidence_interval()
    assert (found.n, found.mean) == (5, pytest.approx(runs.mean()))
    assert found.std == pytest.approx(runs.std(ddof=1))
    assert found.interval == pytest.approx((runs.mean(), there.low, there.high))
    assert found.iqm.value == pytest.approx(stats.trim_mean(runs, 0.25))
    assert found.iqm.low < found.iqm.value < found.iqm.high


def test_differences_are_paired_and_holm_counts_the_whole_family(folder, truth):
    scores = score(read_study(folder))
    p = {}
    for dataset, method, seeds in (
        ("cora", "full", (0, 1, 3, 4, 5)),
        ("cora", "gas", (0, 2, 3, 4, 5)),
        ("citeseer", "full", (0, 1, 2, 3, 4)),
        ("citeseer", "gas", (0, 1, 2, 4, 5)),
    ):
        a, b = ([100 * truth.score(dataset, m, s) for s in seeds] for m in (method, "neighbor"))
        there, found = stats.ttest_rel(a, b), scores.against[dataset, method]
        ends = there.confidence_interval()
        assert found.difference == pytest.approx((np.mean(a) - np.mean(b), ends.low, ends.high))
        assert found.p == pytest.approx(there.pvalue)
        p[dataset, method] = there.pvalue
    ordered = sorted(p, key=lambda at: p[at])
    raised = np.minimum(np.maximum.accumulate([p[at] * (4 - i) for i, at in enumerate(ordered)]), 1)
    assert [scores.against[at].holm for at in ordered] == pytest.approx(raised.tolist())
    assert Scores.tests(scores.against) == 4
    assert Scores.tests(scores.pairs) == 3


def test_the_truth_is_found(folder):
    """gas is 1.6 points better than neighbor; both data sets together say so."""
    scores = score(read_study(folder))
    found = scores.gap("gas", "neighbor")
    assert found is not None
    assert found.clear
    assert found.difference.low < 1.6 < found.difference.high
    turned = scores.gap("neighbor", "gas")
    assert turned is not None
    assert turned.difference.value == -found.difference.value
    assert turned.difference.low == -found.difference.high
    assert turned.improvement.value == pytest.approx(1 - found.improvement.value)
    assert scores.ranking[0] == "gas"


def test_two_seeds_have_no_interval_and_four_no_bootstrap():
    two = score(imagined({("d", "a"): [0.5, 0.6], ("d", "b"): [0.4, 0.6]}, "a"))
    assert two.cells["d", "a"].interval is None
    assert two.cells["d", "a"].std == pytest.approx(10 / 2**0.5)
    gap = two.against["d", "b"]
    assert (gap.n, gap.p, gap.holm, gap.clear) == (2, None, None, False)
    assert gap.difference.value == pytest.approx(-5.0)
    assert np.isnan([gap.difference.low, gap.improvement.low, two.cells["d", "a"].iqm.low]).all()
    four = score(imagined({("d", "a"): normal(4), ("d", "b"): normal(4, path=(1,))}, "a"))
    assert four.cells["d", "a"].interval is not None
    assert np.isnan(four.cells["d", "a"].iqm.low)
    five = score(imagined({("d", "a"): normal(5), ("d", "b"): normal(5, path=(1,))}, "a"))
    assert five.cells["d", "a"].iqm.low < five.cells["d", "a"].iqm.high
    one = score(imagined({("d", "a"): [0.5], ("d", "b"): [0.5]}, "a"))
    assert one.cells["d", "a"].std is None


def test_a_lost_run_is_left_out_of_means_and_pairs():
    runs = {("d", "a"): [0.1, 0.2, 0.3, 0.4], ("d", "b"): [0.5, 0.5, 0.5, 0.9]}
    scores = score(imagined(runs, "a", lost=[(("d", "b"), 3)]))
    assert scores.cells["d", "b"].mean == pytest.approx(50)
    assert scores.against["d", "b"].n == 3
    assert scores.against["d", "b"].difference.value == pytest.approx(30)


def test_methods_are_ranked_where_all_have_runs():
    runs = {
        ("d", "a"): [0.5, 0.5],
        ("d", "b"): [0.6, 0.6],
        ("e", "a"): [0.9, 0.9],  # nobody else is there yet
    }
    scores = score(imagined(runs, "a"))
    assert scores.ranking == ["b", "a"]
    assert scores.methods["a"].mean == pytest.approx(50)
    assert score(imagined({("d", "a"): [0.5], ("e", "b"): [0.5]}, "a")).ranking == []


def several(i, effect=0.0, methods=4, seeds=5):
    """Methods alike but for the last; two data sets of different spread, seeds that matter to all."""
    runs = {}
    for k, spread in enumerate((0.01, 0.03)):
        shared = spread * normal(seeds, path=("seed", i, k))
        for m in range(methods):
            own = spread * normal(seeds, path=("run", i, k, m)) / 2
            runs[f"d{k}", f"m{m}"] = 0.7 + shared + own + effect * (m == methods - 1)
    return imagined(runs, "m0")


@pytest.fixture
def fewer_draws(monkeypatch):
    """Interquartile means are none of the test's business, or may be a little rough."""
    return lambda count: monkeypatch.setattr(accuracy, "DRAWS", count)


def test_intervals_of_a_study_cover(fewer_draws):
    fewer_draws(1000)
    inside = np.zeros(3)
    for i in range(300):
        scores = score(several(i, effect=0.01, methods=2))
        gap = scores.gap("m1", "m0")
        assert gap is not None
        level = scores.methods["m1"]
        for place, (interval, true) in enumerate(
            ((gap.difference, 1.0), (level.interval, 71.0), (level.iqm, 71.0))
        ):
            assert interval is not None
            inside[place] += interval.low <= true <= interval.high
    assert (inside / 300 >= 0.92).all(), inside / 300
    assert (inside[:2] / 300 <= 0.98).all(), inside / 300


def test_a_winner_is_rarely_named_where_there_is_none(fewer_draws):
    """The best of four is picked by the data; without Holm over all pairs this would be far above 5 %."""
    fewer_draws(2)
    clear, naive = 0, 0
    for i in range(200):
        study = several(i)
        scores = score(study)
        clear += headline(study, scores).verdict == "clear"
        naive += min(g.p for g in scores.pairs.values() if g.p is not None) < 0.05
    assert clear / 200 <= 0.05
    assert naive / 200 > 0.12


def test_a_real_winner_is_named(fewer_draws):
    fewer_draws(2)
    named = 0
    for i in range(40):
        study = several(i, effect=0.05, seeds=10)
        head = headline(study, score(study))
        named += head.verdict == "clear" and head.title == "m3 wins"
    assert named >= 38
