"""Budget: instruments never take more than their share, on a clock that only the script moves."""

from itertools import pairwise, product
from types import SimpleNamespace

import pytest
import torch

from graphdyn import budget as module
from graphdyn import recorder as home
from graphdyn.budget import Asks, Budget, intervals
from graphdyn.errors import InputError
from graphdyn.instruments import Instrument
from graphdyn.recorder import Recorder
from graphdyn.schedule import Auto, Epoch, Every

SHARE = 0.05


class Scripted(Instrument):
    """Takes as long as a script says: call number -> seconds, at each level."""

    every = Auto()

    def __init__(self, clock, *scripts, cost=0.0, **options):
        super().__init__(**options)
        self.clock, self.scripts, self.cost, self.calls = clock, scripts, cost, []
        self.levels = tuple({"m": i} for i in range(len(scripts)))

    def measure(self, s):
        seconds = self.scripts[self.level](len(self.calls))
        self.calls.append((s.step, self.level, seconds))
        self.clock.now += seconds
        return {"x": 1.0}


def constant(seconds):
    return lambda call: seconds


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: found.now))
    return found


def simulate(clock, step, steps, *instruments, share=SHARE, **options):
    """Steps of so many seconds; yields the recorder after each, and what the script has spent."""
    parameter = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(parameter.parameters(), 0.0)
    parameter.weight.grad = torch.ones(1, 1)
    with Recorder(parameter, optimizer, instruments, budget=share, **options) as recorder:
        for i in range(steps):
            clock.now += step(i) if callable(step) else step
            optimizer.step()
            spent = sum(s for instrument in instruments for _, _, s in instrument.calls)
            assert recorder.budget.spent == pytest.approx(spent, abs=1e-9)
            yield recorder


STEPS = {1e-3: 2500, 0.1: 1000}


@pytest.mark.parametrize("cost", [1e-5, 1e-3, 0.05, 1.0, 5.0])
@pytest.mark.parametrize("step", STEPS)
def test_never_more_than_the_share_where_costs_are_as_expected(clock, step, cost):
    one = Scripted(clock, constant(cost), cost=cost / step)
    for recorder in simulate(clock, step, STEPS[step], one):
        assert recorder.budget.spent <= SHARE * recorder.budget.trained
    trained = step * (STEPS[step] - 1)
    assert recorder.budget.trained == pytest.approx(trained)
    # Not stingy either: a reserve, a margin, and powers of two.
    most = min(SHARE * trained, cost * STEPS[step])
    if most > 20 * cost and cost > 1e-4:
        assert recorder.budget.spent > most / 4


@pytest.mark.parametrize("step", STEPS)
def test_several_that_meet(clock, step):
    costs = (0.3 * step, step, step, 2 * step, 5 * step)
    zoo = [
        type(f"S{i}", (Scripted,), {})(clock, constant(c), cost=c / step)
        for i, c in enumerate(costs)
    ]
    for recorder in simulate(clock, step, STEPS[step], *zoo):
        assert recorder.budget.spent <= SHARE * recorder.budget.trained
    counts = [len(z.calls) for z in zoo]
    assert all(counts)
    assert counts[0] > counts[3] > 1
    met = set.intersection(*({s for s, _, _ in z.calls} for z in zoo[1:3]))
    assert len(met) > min(counts[1:3]) / 2


SURPRISES = {
    "the first is 50 times slower": lambda c: lambda call: c * (50 if call == 0 else 1),
    "it grows": lambda c: lambda call: c * 1.2**call,
    "it doubles in the middle": lambda c: lambda call: c * (2 if call > 10 else 1),
    "one in ten is slow": lambda c: lambda call: c * (20 if call % 10 == 9 else 1),
    "it is nothing like what it says": lambda c: lambda call: 100 * c,
}


@pytest.mark.parametrize("name", SURPRISES)
@pytest.mark.parametrize(("step", "cost"), [*product(STEPS, (1e-5, 2e-3, 0.5))])
def test_a_surprise_is_bounded_by_one_measurement(clock, step, cost, name):
    one = Scripted(clock, SURPRISES[name](cost), cost=cost / step)
    overshoots, before = [], 0
    for recorder in simulate(clock, step, STEPS[step], one):
        over = recorder.budget.spent - SHARE * recorder.budget.trained
        worst = max((s for _, _, s in one.calls), default=0.0)
        assert over <= worst
        if len(one.calls) > before:  # and nothing is spent while in debt
            last = one.calls[-1][2]
            assert recorder.budget.spent - last <= SHARE * recorder.budget.trained
            overshoots.append(over)
        before = len(one.calls)


@pytest.mark.parametrize("step", STEPS)
def test_a_slow_first_time_is_forgotten(clock, step):
    cost = 4 * step
    slow = Scripted(clock, SURPRISES["the first is 50 times slower"](cost), cost=4.0)
    for _ in simulate(clock, step, 13000, slow):
        pass
    steps = [s for s, _, _ in slow.calls]
    gaps = [b - a for a, b in pairwise(steps)]
    usual = intervals([Asks(1.5 * cost, 1.0)], SHARE, step)[0]
    assert gaps[-1] <= 2 * usual


def test_a_cheaper_level_before_more_than_the_most(clock):
    every = Auto(most=256)
    one = Scripted(clock, constant(0.1), constant(0.01), constant(2e-4), cost=100.0, every=every)
    for recorder in simulate(clock, 1e-3, 12000, one):
        assert recorder.budget.spent <= SHARE * recorder.budget.trained + 0.1
    levels = [level for _, level, _ in one.calls]
    assert levels == sorted(levels)
    assert levels[-1] == 2
    assert one.calls[-1][0] - one.calls[-2][0] <= 256


def test_levels_are_rows(clock):
    one = Scripted(clock, constant(1e-3), constant(1e-4), cost=1.0)
    one.level = 1
    *_, recorder = simulate(clock, 0.01, 400, one)
    recorder.sink.flush(wait=True)
    assert {row.level for _, row in recorder.sink.rows} == {1}


def test_a_pause_is_no_training(clock):
    one = Scripted(clock, constant(1e-4), cost=0.1)
    pauses = {50: 3600.0, 60: 3600.0}
    for i, recorder in enumerate(simulate(clock, lambda i: pauses.get(i, 1e-3), 200, one)):
        if i == 49:
            before = recorder.budget.trained
        if i == 50:
            assert recorder.budget.trained - before <= 10 * 1e-3 * 1.01
    assert recorder.budget.trained < 0.199 + 0.03


def test_a_step_that_becomes_slower_is_training(clock):
    one = Scripted(clock, constant(1e-4), cost=0.1)
    *_, recorder = simulate(clock, lambda i: 1e-3 if i < 100 else 5e-3, 1000, one)
    assert recorder.budget.trained == pytest.approx(0.099 + 4.5)


def test_fixed_schedules_are_held_back_and_made_up_for(clock):
    one = Scripted(clock, constant(1e-3), cost=1.0, every=Every(1))
    for recorder in simulate(clock, 1e-3, 3000, one):
        assert recorder.budget.spent <= SHARE * recorder.budget.trained
    assert len(one.calls) > 3000 * SHARE / 3


def test_without_a_budget_schedules_are_kept(clock):
    one = Scripted(clock, constant(5.0), every=Auto(steps=7))
    *_, recorder = simulate(clock, 1e-3, 30, one, share=None)
    assert [s for s, _, _ in one.calls] == [0, 7, 14, 21, 28]
    assert recorder.budget.overhead > 100


def test_what_is_measured_off_schedule_is_neither_training_nor_spent(clock):
    one = Scripted(clock, constant(1.0), every=Auto(steps=10**6))
    for i, recorder in enumerate(simulate(clock, 1e-3, 5, one, share=None)):
        if i == 2:
            before = recorder.budget.spent
            recorder.measure()
            assert recorder.budget.spent == before
            one.calls.pop()
    assert recorder.budget.trained == pytest.approx(4e-3)


def test_measuring_at_the_end_of_an_epoch_is_no_training(clock):
    one = Scripted(clock, constant(1.0), every=Epoch())
    for i, recorder in enumerate(simulate(clock, 1e-3, 5, one, share=None)):
        if i == 2:
            recorder.end_epoch()
            assert recorder.budget.spent == pytest.approx(1.0)
    assert recorder.budget.trained == pytest.approx(4e-3)


def test_time_of_checkpoints_and_epochs_is_the_instruments(clock):
    one = Scripted(clock, constant(0.0), every=Auto(steps=10**6))

    class Slow(home.Sink):
        def state(self):
            clock.now += 2.0
            return {}

    *_, recorder = simulate(clock, 1e-3, 1, one, share=None, to=Slow())
    recorder.state_dict()
    assert recorder.budget.spent == pytest.approx(2.0)


# ----------------------------------------------------------------------------------- the closed form


def exact(asks, share, t):
    """By bisection on the multiplier of the constraint, which shares nothing with the closed form."""
    low, high = 1e-12, 1e12
    for _ in range(200):
        middle = (low * high) ** 0.5
        k = [(middle * a.cost / a.weight) ** 0.5 for a in asks]
        if sum(a.cost / x for a, x in zip(asks, k)) > share * t:
            low = middle
        else:
            high = middle
    return k


ASKS = [
    [Asks(0.01, 1.0)],
    [Asks(0.01, 1.0), Asks(0.5, 1.0)],
    [Asks(0.01, 1.0), Asks(0.5, 4.0), Asks(2e-4, 0.5)],
    [Asks(3.0, 1.0), Asks(3.0, 1.0), Asks(0.1, 9.0), Asks(0.02, 0.1)],
]


@pytest.mark.parametrize("asks", ASKS, ids=len)
@pytest.mark.parametrize(("share", "t"), [(0.05, 1e-3), (0.2, 0.1)])
def test_intervals_are_the_optimum_rounded_up(asks, share, t):
    for k, best in zip(intervals(asks, share, t), exact(asks, share, t)):
        assert k & (k - 1) == 0
        assert k >= best * (1 - 1e-9)
        assert k == 1 or k < 2 * best * (1 + 1e-9)


def test_the_optimum_is_one():
    asks, share, t = ASKS[2], 0.05, 1e-3
    best = exact(asks, share, t)
    assert sum(a.cost / k for a, k in zip(asks, best)) == pytest.approx(share * t)
    value = sum(a.weight * k for a, k in zip(asks, best))
    rng = torch.Generator().manual_seed(0)
    for _ in range(2000):
        k = [x * float(torch.exp(0.5 * torch.randn((), generator=rng))) for x in best]
        used = sum(a.cost / x for a, x in zip(asks, k))
        k = [x * used / (share * t) for x in k]  # onto the constraint
        assert sum(a.weight * x for a, x in zip(asks, k)) >= value * (1 - 1e-9)


def test_nothing_is_known_yet():
    assert intervals(ASKS[1], 0.05, 0.0) == [1, 1]
    assert intervals([Asks(0.0, 1.0)], 0.05, 1.0) == [1]
    assert Budget(0.05).steps_until(1.0) == 1
    assert not Budget(0.05).allows(1e-9)
    assert Budget(None).allows(1e9)
    assert Budget().overhead == 0.0


def test_steps_until_is_when_it_is_allowed():
    one = Budget(0.05, trained=2.0, spent=0.5, steps=200)
    wait = one.steps_until(0.3)
    for _ in range(wait):
        assert not one.allows(0.3)
        one.train(0.01)
    assert one.allows(0.3 - 1e-9)


@pytest.mark.parametrize("share", [0, -0.1, 1.5])
def test_a_share_that_is_none(share):
    with pytest.raises(InputError, match=r"it must lie in \(0, 1\]"):
        Budget(share)


def test_who_owes_nothing_asks_no_oftener_than_asking_costs():
    one = Budget(0.05, trained=1.0, steps=1000)
    assert one.steps_until(0.0) == pytest.approx(10 * module.PRIOR / (0.05 * 1e-3), abs=1)
    assert Budget(0.05, trained=1e3, steps=1000).steps_until(0.0) == 1
    assert Budget(1.0).share == 1.0


def test_a_part_of_the_share():
    one = Budget(0.1, trained=100.0, spent=4.0, steps=1000)
    assert one.allows(4.9)
    assert not one.allows(5.1)  # nine tenths are planned with
    assert one.allows(0.4, 0.5)
    assert not one.allows(0.6, 0.5)
    assert one.steps_until(5.9) == 100
    assert one.steps_until(1.4, 0.5) == 200


def test_what_is_expected():
    one = Budget(0.05, trained=1.0, steps=100)
    assert one.expected(None, 4.0) == pytest.approx(module.MARGIN * (module.PRIOR + 0.04))
    assert one.expected(2.0, 4.0) == pytest.approx(module.MARGIN * 2.0)
    large = one.expected(None, 4.0, 10**7) - one.expected(None, 4.0)
    assert large == pytest.approx(module.MARGIN * module.EACH * 10**7)


def test_what_a_resumed_run_needs():
    one, other = Budget(0.1, trained=2.0, spent=0.3, steps=40), Budget(0.1)
    other.restore(one.state())
    assert other == one
    assert one.overhead == pytest.approx(0.15)
