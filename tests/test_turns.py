"""Turns: who measures when, by hand, with a budget whose books are written by the test."""

from types import SimpleNamespace

import pytest

from graphdyn.budget import MARGIN, PRIOR, Asks, Budget, intervals
from graphdyn.errors import InputError
from graphdyn.instruments import Instrument, Need
from graphdyn.schedule import NEVER, At, Auto, Epoch, Every
from graphdyn.turns import EACH, SYMMETRY, Turns
from graphdyn.watch import Watch

GROUPS = SimpleNamespace(size=1000, parameters=dict.fromkeys("abcd"))


def watch(name="one", *, every=1, needs=Need.NOTHING, cost=0.0, full=0.0, replay=None):
    kind = type(name, (Instrument,), {"measure": lambda self, s: {}, "needs": needs})
    kind.cost, kind.full = cost, full
    return Watch(kind(every=every), replay)


def turns(*watches, budget=None, problem=None):
    return Turns(watches, budget or Budget(), GROUPS, problem)


def names(turn):
    return [w.instrument.name for w in turn]


def after(each, seconds):
    """As if it had measured once, at step 0."""
    each.fired(0)
    each.took(seconds)
    return each


def test_who_is_due_measures_the_longest_due_first():
    early, late, not_yet = (
        watch("early", every=2),
        watch("late", every=3),
        watch("not_yet", every=5),
    )
    for each in (early, late, not_yet):
        each.fired(0)
    assert names(turns(late, early, not_yet).at(4, 3)) == ["early", "late"]
    assert names(turns(late, early).at(1, 0)) == []


def test_the_next_step_at_which_any_is_due():
    both = turns(watch(every=At([7])), watch("two", every=At([3, 9])))
    both.settle()
    assert both.next == 3
    none = turns()
    none.settle()
    assert none.next == NEVER


def test_those_that_do_not_fit_wait_until_there_is_time():
    cheap, dear = after(watch("cheap"), 0.1), after(watch("dear"), 1.0)
    budget = Budget(0.1, trained=20.0, spent=0.0, steps=200)
    assert names(turns(cheap, dear, budget=budget).at(200, 200)) == ["cheap", "dear"]
    cheap, dear = after(watch("cheap"), 0.1), after(watch("dear"), 1.5)
    assert names(turns(cheap, dear, budget=budget).at(200, 200)) == ["cheap"]
    together = MARGIN * 1.6
    assert dear.next == 200 + budget.steps_until(together)
    for _ in range(dear.next - 200):
        assert not budget.allows(together)
        budget.train(0.1)
    assert budget.allows(together - 1e-9)


def test_half_the_budget_is_saved_for_one_that_has_never_measured():
    old, new = after(watch("old"), 0.5), watch("new", every=At([10**6]))
    budget = Budget(0.1, trained=10.0, spent=0.0, steps=100)
    assert names(turns(old, budget=budget).at(100, 100)) == ["old"]
    old = after(watch("old"), 0.5)
    assert names(turns(old, new, budget=budget).at(100, 100)) == []
    old, new.off = after(watch("old"), 0.5), "it does not exist"
    assert names(turns(old, new, budget=budget).at(100, 100)) == ["old"]


def test_finding_the_symmetry_is_paid_for_once():
    seconds = SYMMETRY + (3 * 4 + 8) * 1000 * EACH
    needs = MARGIN * (PRIOR + 1000 * 2e-8) + seconds  # both as far as is known before
    enough = (needs + 1e-6) / (0.9 * 0.1)
    for trained, fits in ((enough, True), (enough - 1e-3, False)):
        one = watch("one", every=At([0]), needs=Need.SYMMETRY)
        all_of = turns(one, budget=Budget(0.1, trained=trained, steps=10**9))
        assert bool(all_of.at(0, 0)) == fits
    all_of.found_symmetry(50)
    assert one.next == 51  # it need not wait any longer
    assert all_of.at(51, 50)
    one.wait(99)
    all_of.found_symmetry(60)  # known already
    assert one.next == 99


def test_a_pass_over_the_graph_takes_as_many_steps_as_it_is_large():
    problem = SimpleNamespace(full_steps=lambda: 20.0)
    for steps, given, fits in ((100, problem, False), (800, problem, True), (40, None, True)):
        one = watch("one", full=2.0)
        budget = Budget(0.1, trained=float(steps), steps=steps)
        assert bool(turns(one, budget=budget, problem=given).at(1, 0)) == fits


def test_replayed_ones_measure_whatever_it_costs_and_first():
    usual, again = after(watch("usual"), 1.0), after(watch("again", replay=[0, 4]), 100.0)
    budget = Budget(0.1, trained=20.0, steps=200)
    assert names(turns(usual, again, budget=budget).at(4, 3)) == ["again", "usual"]


def test_an_epoch_is_over():
    often, seldom = watch("often", every=Epoch()), watch("seldom", every=Epoch(2))
    looks = watch("looks", every=Epoch(), needs=Need.UPDATE)
    both = turns(often, seldom, looks, watch("steps"))
    assert names(both.at_end(1, 10)) == ["often"]
    assert names(both.at_end(2, 20)) == ["often", "seldom"]
    assert looks.next == 21
    assert names(both.at(21, 20)) == ["steps", "looks"]


def test_intervals_are_those_of_the_budget():
    budget = Budget(0.05, trained=1.0, steps=1000)
    two = [after(watch(n, every=Auto()), c) for n, c in (("one", 1e-4), ("two", 1e-3))]
    both = turns(*two, after(watch("fixed", every=Every(3)), 5.0), budget=budget)
    both.plan()
    asks = [Asks(MARGIN * 1e-4, 1.0), Asks(MARGIN * 1e-3, 1.0)]
    expected = [max(k, each.auto.least) for k, each in zip(intervals(asks, 0.05, 1e-3), two)]
    assert [each.next for each in two] == expected
    assert expected[0] != expected[1]
    assert both.watches[2].next == 3


def test_without_a_budget_nothing_is_planned():
    one = after(watch(every=Auto(steps=7)), 5.0)
    turns(one).plan()
    turns(one, budget=Budget(0.1)).plan()  # nor before the first step
    assert one.next == 7


def test_a_state_of_the_same_instruments():
    one, two = after(watch("one", every=At([0, 5])), 0.1), watch("two", every=At([9]))
    both = turns(one, two)
    again = turns(watch("two", every=At([9])), watch("one", every=At([0, 5])))
    again.restore(both.state())
    assert again.next == 5
    assert again.watches[1].firings == [0]
    with pytest.raises(InputError, match="is of the instruments one, two, and here are one;"):
        turns(one).restore(both.state())
