"""Times to the target: what the truth's curves say by hand, lost runs as censored, scipy's log-rank."""

import numpy as np
import pytest
from report.study.studies import imagined
from scipy import stats

from graphdyn.report.study.data import read_study
from graphdyn.report.study.times import hit, target
from graphdyn.survival import Times


def by_hand(truth, dataset, method, seed, value):
    """Step of the third evaluation in a row of which two have passed; curves of the truth only rise."""
    steps = np.arange(1, 21) * 10
    passed = [s for s in steps if truth.curve(dataset, method, seed, s) >= value]
    return max(passed[0] + 10, 30) if len(passed) > 1 else None


def test_the_target_is_a_share_of_what_the_baseline_reaches(folder, truth):
    found = target(read_study(folder), "cora")
    assert found is not None
    # The median of three rising evaluations is the one before the last.
    best = [truth.curve("cora", "neighbor", s, 190) for s in range(6)]
    assert found.value == pytest.approx(0.95 * np.median(best))
    assert "95 %" in found.rule


def test_times_are_those_of_the_curves_and_lost_runs_never_get_there(folder, truth):
    study = read_study(folder)
    hits = hit(study)
    for dataset, method in study.cells:
        value = hits.targets[dataset].value
        whole = [s for s in range(6) if s in study.cells[dataset, method].runs]
        times = [by_hand(truth, dataset, method, s, value) for s in whole]
        reach = hits.reaches["steps", dataset, method]
        lost = sum(m.lost for m in study.cells[dataset, method].missing)
        assert reach.n == len(whole) + lost
        assert reach.hits == sum(t is not None for t in times)
        expected = sorted([200 if t is None else t for t in times] + [200] * lost)
        assert sorted(reach.curve.times.time) == expected
        edges = hits.reaches["edges", dataset, method]
        each = truth.methods[method][2]
        assert sorted(edges.curve.times.time) == [t * each for t in expected]
    assert hits.reaches["steps", "citeseer", "gas"].n == 6  # one of them failed
    assert hits.reaches["steps", "cora", "gas"].n == 5  # one is not at its end


def ramp(at):
    """Reaches 1 at that step, and stays there."""
    steps = np.arange(10, 210, 10)
    return steps, (steps >= at).astype(float)


def study_of(times, lost=()):
    curves = {key: [ramp(t) for t in own] for key, own in times.items()}
    scores = {key: [0.5] * len(own) for key, own in times.items()}
    study = imagined(scores, "a", curves, lost)
    study.document["target"] = {"metric": "valid", "value": 0.9}
    return study


def test_the_log_rank_test_is_scipys_and_holm_counts_all():
    times = {
        ("d", "a"): [30, 50, 60, 80],
        ("d", "b"): [60, 90, 110, 999],
        ("d", "c"): [30, 40, 50, 50],
    }
    hits = hit(study_of(times))
    p = {}
    for method in ("b", "c"):
        data = []
        for name in (method, "a"):
            # The median of three passes one evaluation later.
            own = [(min(t + 10, 200), t <= 200) for t in times["d", name]]
            data.append(
                stats.CensoredData([t for t, h in own if h], right=[t for t, h in own if not h])
            )
        found, there = hits.tests["steps", method].found, stats.logrank(*data)
        assert (found.z, found.p) == pytest.approx((there.statistic, there.pvalue))
        p[method] = there.pvalue
    first, second = sorted(p.values())
    expected = {first: 2 * first, second: max(2 * first, second)}
    for method in p:
        assert hits.tests["steps", method].holm == pytest.approx(min(expected[p[method]], 1))
    assert hits.tests["steps", "b"].found.z < 0 < hits.tests["steps", "c"].found.z
    assert hits.reaches["steps", "d", "b"].hits == 3
    assert hits.reaches["steps", "d", "b"].median.value == 100


def test_a_failed_run_is_censored_where_the_others_end():
    times = {("d", "a"): [30, 40, 50, 60], ("d", "b"): [30, 40, 50, 60]}
    hits = hit(study_of(times, lost=[(("d", "b"), 0)]))
    assert isinstance(hits.reaches["steps", "d", "b"].curve.times, Times)
    found = hits.reaches["steps", "d", "b"]
    assert sorted(zip(found.curve.times.time, found.curve.times.hit)) == [
        (50, True),
        (60, True),
        (70, True),
        (200, False),
    ]
    assert hits.reaches["steps", "d", "a"].hits == 4
    # a is known for ever, b as far as its runs went.
    assert found.budget == hits.reaches["steps", "d", "a"].budget == 200
    assert found.mean.value == pytest.approx((50 + 60 + 70 + 200) / 4)


def test_targets_may_be_given_for_each_data_set():
    study = study_of({("d", "a"): [30] * 3, ("e", "a"): [30] * 3})
    study.document["target"] = {"metric": "valid", "value": {"d": 0.4, "e": 0.7}}
    hits = hit(study)
    assert [t.value for t in hits.targets.values()] == [0.4, 0.7]
    assert hits.targets["d"].rule == "given by the study"


def test_runs_alike_have_no_interval_of_the_mean_and_say_so():
    hits = hit(study_of({("d", "a"): [10] * 4, ("d", "b"): [10, 10, 40, 60]}))
    assert hits.reaches["steps", "d", "a"].mean.value == 30  # the third evaluation
    assert np.isnan(hits.reaches["steps", "d", "a"].mean.low)
    assert hits.coarse == ["d"]
    assert hit(study_of({("d", "a"): [50, 60, 70]})).coarse == []


def test_two_runs_have_no_interval_and_no_test():
    hits = hit(study_of({("d", "a"): [30, 50], ("d", "b"): [30, 40]}))
    reach = hits.reaches["steps", "d", "a"]
    assert np.isnan([reach.median.low, reach.mean.low]).all()
    assert hits.tests == {}


def test_a_metric_that_is_no_number_is_no_hit_and_no_crash():
    steps = np.arange(10, 110, 10)
    bad = np.where(steps > 50, -np.inf, 0.2)
    study = imagined({("d", "a"): [0.5]}, "a", {("d", "a"): [(steps, bad)]})
    found = target(study, "d")
    assert found is not None
    assert found.value == pytest.approx(0.95 * 0.2)


def test_without_a_curve_there_is_no_target():
    study = imagined({("d", "a"): [0.5]}, "a")  # one evaluation
    assert target(study, "d") is None
    assert hit(study).reaches == {}
