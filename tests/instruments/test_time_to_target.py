"""TimeToTarget: curves whose hits are counted by hand."""

import pytest
import torch
from instruments import noisy

from graphdyn.errors import InputError
from graphdyn.estimate import Invalid
from graphdyn.instruments.time_to_target import TimeToTarget
from graphdyn.schedule import Epoch
from graphdyn.survival import first_hit


def snapshot(step, **scores):
    counters = {"seconds": step / 4, "edges": 100.0 * step, "targets": 7.0 * step}
    return noisy.moment(torch.nn.Linear(1, 1), None, step, scores=scores, counters=counters)


CURVE = [0.2, 0.8, 0.3, 0.6, 0.7, 0.5, 0.9, 0.9]  # medians from the third on: .3 .6 .6 .6 .7 .9


def watch(instrument, curve=CURVE, start=0):
    return [
        instrument.measure(snapshot(10 * (start + k + 1), valid=value))
        for k, value in enumerate(curve)
    ]


def test_the_median_of_three_passes():
    found = watch(TimeToTarget([0.6, 0.75, 0.95]))
    last = found[-1]
    assert {k: v for k, v in last.items() if k[1] == "0.6"} == {
        ("hit", "0.6"): 1,
        ("steps", "0.6"): 40,
        ("targets", "0.6"): 280,
        ("edges", "0.6"): 4000,
        ("seconds", "0.6"): 10,
    }
    assert (last["hit", "0.75"], last["steps", "0.75"]) == (1, 80)
    assert (last["hit", "0.95"], last["steps", "0.95"]) == (0, 80)
    assert [r.get("median") for r in found] == [None, None, 0.3, 0.6, 0.6, 0.6, 0.7, 0.9]


def test_until_the_hit_it_is_censored_now():
    found = watch(TimeToTarget(0.6))
    assert [(r["hit", "0.6"], r["steps", "0.6"]) for r in found[:5]] == [
        (0, 10), (0, 20), (0, 30), (1, 40), (1, 40),
    ]  # fmt: skip


@pytest.mark.parametrize("target", [0.3, 0.55, 0.6, 0.65, 0.9, 0.91])
def test_it_is_what_survival_says_of_the_whole_curve(target):
    last = watch(TimeToTarget(target))[-1]
    truth = first_hit([10 * (k + 1) for k in range(len(CURVE))], CURVE, target)
    assert (last["steps", f"{target:g}"], last["hit", f"{target:g}"]) == truth


def test_smaller_may_be_better_and_windows_differ():
    last = watch(TimeToTarget(0.3, larger=False, window=1))[-1]
    assert last["steps", "0.3"] == 10
    assert watch(TimeToTarget(0.75, window=1))[-1]["steps", "0.75"] == 20


def test_other_scores():
    instrument = TimeToTarget(1.0, score="f1", window=1)
    assert instrument.measure(snapshot(3, f1=1.0, valid=0.0))["hit", "1"] == 1
    with pytest.raises(Invalid, match="has not logged 'f1'"):
        instrument.measure(snapshot(4, valid=1.0))


def test_axes_that_nobody_counts_are_missing():
    s = snapshot(5, valid=0.1)
    s.counters = {"seconds": 2.0}
    assert set(TimeToTarget(0.5).measure(s)) == {
        ("hit", "0.5"),
        ("steps", "0.5"),
        ("seconds", "0.5"),
    }


def test_it_goes_on_where_it_was():
    whole = watch(TimeToTarget([0.6, 0.75]))[-1]
    for cut in range(1, len(CURVE)):
        first, second = TimeToTarget([0.6, 0.75]), TimeToTarget([0.6, 0.75])
        watch(first, CURVE[:cut])
        second.restore(first.state())
        assert watch(second, CURVE[cut:], cut)[-1] == whole


def test_once_an_evaluation():
    assert TimeToTarget(0.5).every == Epoch()
    with pytest.raises(InputError, match="at least one"):
        TimeToTarget([])
