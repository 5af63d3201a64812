"""Watch: one instrument, when it is due, what it costs, what it says and cannot say."""

from types import SimpleNamespace

import pytest

from graphdyn.budget import EACH, MARGIN, PRIOR, Budget
from graphdyn.errors import InputError
from graphdyn.estimate import Invalid
from graphdyn.instruments import Instrument, Need
from graphdyn.journal import Event, Metric
from graphdyn.schedule import NEVER, At, Auto, Epoch, Every, When
from graphdyn.watch import LATELY, Watch, watches_of


class Saying(Instrument):
    """Says what it is told to."""

    every = Every(1)
    levels = ({"m": 8}, {"m": 4}, {"m": 2})

    def __init__(self, *sayings, setup=None, **options):
        super().__init__(**options)
        self.sayings, self.told, self.set_up = list(sayings), setup, 0

    def setup(self, s):
        self.set_up += 1
        if self.told:
            raise Invalid(self.told)

    def measure(self, s):
        found = self.sayings.pop(0)
        if isinstance(found, Invalid):
            raise found
        return found


class Losses(Saying):
    needs = Need.LOSSES

    def measure(self, s):
        return {"n": len(s.losses)}


def moment():
    return SimpleNamespace(losses=())


def test_first_steps():
    assert Watch(Saying()).next == 0
    assert Watch(Losses()).next == 1  # there is none before the first step
    assert Watch(Saying(every=At([3, 5]))).next == 3
    replayed = Watch(Saying(), [4, 6])
    assert (replayed.next, replayed.replayed, Watch(Saying()).replayed) == (4, True, False)
    assert Watch(Saying(), ()).next == NEVER


def test_a_step_that_was_missed_is_made_up_for():
    one = Watch(Saying(every=Every(4)))
    one.fired(0)
    assert [step for step in range(8) if one.wants(step)] == [4, 5, 6, 7]
    one.fired(6)
    assert (one.firings, one.next) == ([0, 6], 8)


def test_a_condition_is_asked_at_every_step():
    one = Watch(Saying(every=When(lambda step: step % 3 == 1)))
    assert [step for step in range(8) if one.wants(step)] == [1, 4, 7]


def test_ends_of_epochs():
    one = Watch(Saying(every=Epoch(2)))
    assert [epoch for epoch in range(1, 7) if one.ends(epoch)] == [2, 4, 6]
    assert not Watch(Saying()).ends(2)
    one.off = "no"
    assert not one.ends(2)


def test_waiting_and_hurrying():
    one = Watch(Saying())
    one.wait(9)
    assert (one.next, one.wants(8), one.wants(9)) == (9, False, True)
    one.wait(7)  # never sooner
    assert one.next == 9
    one.hurry(3)
    assert one.next == 3
    one.fired(3)
    one.wait(20)
    one.hurry(4)  # it has measured
    assert one.next == 20


def test_intervals_and_levels():
    one = Watch(Saying(every=Auto(least=4, most=64)))
    one.fired(10)
    one.every(16)
    assert (one.next, one.instrument.level) == (16, 0)
    one.every(1)
    assert (one.next, one.instrument.level) == (12, 0)
    one.every(128)
    assert (one.next, one.instrument.level) == (128, 1)
    one.every(128)
    one.every(128)
    assert one.instrument.level == 2  # there is none below
    one.wait(300)
    one.every(16)
    assert one.next == 300  # the budget lacks the time
    one.fired(300)
    assert one.next == 304


def test_before_the_first_time_an_interval_changes_nothing():
    one = Watch(Saying(every=Auto(steps=50)))
    one.next = 5
    one.every(16)
    assert one.next == 5


def test_what_it_should_take():
    one, budget = Watch(Saying()), Budget(0.1, trained=1.0, steps=100)
    one.instrument.cost, one.instrument.full = 4.0, 2.0
    known = PRIOR + EACH * 500
    assert one.expected(budget, 3.0, 500) == pytest.approx(MARGIN * (known + 10 * 0.01))
    one.instrument.level = 1
    assert one.expected(budget, 3.0, 500) == pytest.approx(MARGIN * (known + 5 * 0.01))
    for seconds in (9.0, 1.0, 2.0, 4.0, 3.0):
        one.took(seconds)
    assert LATELY == 4  # the lower median of the last four
    assert one.expected(budget) == pytest.approx(MARGIN * 2.0)
    one.instrument.level = 0  # of which nothing is known
    assert one.expected(budget, 3.0, 500) == pytest.approx(MARGIN * (known + 10 * 0.01))


def test_rows_and_reasons_once():
    gap = {"x": 1.0, "y": Invalid("no 3 rows")}
    one = Watch(Saying(gap, {"x": 2.0, "y": Invalid("no 4 rows")}, Invalid("never"), gap))
    first = [*one.rows(moment(), [])]
    assert first == [
        Metric("saying.x", "all", 1.0, level=0),
        Event("saying.y invalid", "no 3 rows"),
    ]
    assert [*one.rows(moment(), [])] == [Metric("saying.x", "all", 2.0, level=0)]
    assert [*one.rows(moment(), [])] == [Event("saying invalid", "never")]
    assert [*one.rows(moment(), [])] == [Metric("saying.x", "all", 1.0, level=0)]
    assert one.instrument.set_up == 1
    assert not one.off


def test_what_does_not_exist_is_off_for_good():
    one = Watch(Saying({"x": 1.0}, setup="no such thing", every=Auto()))
    assert [*one.rows(moment(), [])] == [Event("saying invalid", "no such thing")]
    assert (one.off, one.next, one.wants(10**6), one.auto) == ("no such thing", NEVER, False, None)


def test_losses_are_read_once():
    one, losses = Watch(Losses()), [(0, 1.0), (1, 0.5), (2, 0.25)]
    assert [row.value for row in one.rows(moment(), losses[:2])] == [2]
    assert one.seen == 1
    assert [row.value for row in one.rows(moment(), losses)] == [1]
    assert [row.value for row in one.rows(moment(), losses)] == [0]
    assert one.seen == 2
    s = moment()
    [*Watch(Saying({"x": 1.0})).rows(s, losses)]
    assert s.losses == ()  # nobody asked


def test_who_will_read_losses_again():
    assert Watch(Losses()).reads_losses
    assert not Watch(Saying()).reads_losses
    over, ends = Watch(Losses(every=At([1]))), Watch(Losses(every=Epoch()))
    over.fired(1)
    ends.fired(1)
    assert (over.reads_losses, ends.reads_losses) == (False, True)
    ends.off = "no"
    assert not ends.reads_losses


def test_a_state_is_all_there_is():
    one = Watch(Saying({"y": Invalid("why")}, every=Auto(least=1, most=64)))
    [*one.rows(moment(), [])]
    one.fired(10)
    one.took(0.5)
    one.every(128)
    one.took(0.25)
    one.wait(500)
    one.seen = 9
    again = Watch(Saying({"y": Invalid("why")}, every=Auto(least=1, most=64)))
    again.restore(one.state())
    assert again.state() == one.state()
    assert (again.next, again.instrument.level, again.seen) == (500, 1, 9)
    assert [*again.rows(moment(), [])] == []  # told already
    assert again.instrument.set_up == 0
    again.every(32)
    assert again.next == 500
    budget = Budget()
    assert again.expected(budget) == one.expected(budget) == MARGIN * 0.25


def test_one_for_each_instrument():
    both = watches_of([Saying(), Losses()], None, {"saying": [5]})
    assert [w.next for w in both] == [5, NEVER]
    assert [w.replayed for w in watches_of([Saying()], None, None)] == [False]
    with pytest.raises(InputError, match="two instruments are called 'saying'"):
        watches_of([Saying(), Losses(), Saying()], None, None)
    draws = type("Draws", (Saying,), {"needs": Need.PROBLEM})
    with pytest.raises(
        InputError, match="Draws draws batches of its own; give the recorder problem="
    ):
        watches_of([draws()], None, None)
    assert len(watches_of([draws()], SimpleNamespace(), None)) == 1
