"""RateFit: closed forms of gradient descent on quadratics, and intervals that cover."""

import numpy as np
import pytest
import torch
from instruments import noisy

from graphdyn.errors import InputError
from graphdyn.estimate import Invalid
from graphdyn.instruments.rate_fit import RateFit, bootstrap, decay, longest
from graphdyn.keys import Key
from graphdyn.problem import FunctionProblem

KEY = Key(3).fold("rate fit")


def descend(eigenvalues, lr, steps, floor=0.0):
    """Losses of gradient descent on sum h x^2 / 2 + floor from x = 1, by torch's own optimiser."""
    h = torch.tensor(eigenvalues, dtype=torch.float64)
    x = torch.nn.Parameter(torch.ones_like(h))
    optimizer, losses = torch.optim.SGD([x], lr), []
    for step in range(steps):
        optimizer.zero_grad()
        loss = (h * x.square()).sum() / 2 + floor
        loss.backward()
        losses.append((step, loss.detach()))
        optimizer.step()
    return losses


def snapshot(losses, step=None, **fields):
    step = losses[-1][0] + 1 if step is None else step
    given = {"problem": None, "key": KEY.at(step=step), **fields}
    return noisy.moment(torch.nn.Linear(1, 1), step=step, losses=losses, **given)


@pytest.mark.parametrize("optimum", [None, 0.7])
@pytest.mark.parametrize(("h", "lr"), [([0.02, 1.0], 0.5), ([1.97], 1.0), ([0.3, 1.5, 1.9], 0.1)])
def test_the_rate_of_a_quadratic(h, lr, optimum):
    found = RateFit(optimum=optimum).measure(snapshot(descend(h, lr, 150, floor=0.7)))
    slowest = max(abs(1 - lr * v) for v in h)
    assert found["rate"].value == pytest.approx(-2 * np.log(slowest), rel=2e-3)
    assert found["limit"] == pytest.approx(0.7, abs=1e-3)
    assert 0.995 < found["r2"] <= 1
    assert found["window"] <= 149


def test_fast_modes_that_are_gone_do_not_speak_for_the_present():
    losses = descend([0.02, 1.0], 0.5, 150)
    found = RateFit().measure(snapshot(losses))
    assert found["window"] < 149
    whole = decay(np.arange(150.0), np.array([float(v) for _, v in losses]))
    assert whole.r2 > 0.995  # and yet it is the rate of the other mode
    assert whole.later < 0
    assert whole.rate > 50 * found["rate"].value


def test_a_curve_without_noise_has_no_error():
    t = np.arange(100.0)
    y = 0.3 + 2 * np.exp(-0.04 * t)
    fit, start = longest(t, y)
    assert start == 0
    assert fit.rate == pytest.approx(0.04, rel=1e-6)
    assert (fit.limit, fit.scale) == (pytest.approx(0.3, rel=1e-6), pytest.approx(2, rel=1e-6))
    assert bootstrap(t, y, fit, KEY) < 1e-8


def test_times_need_not_be_even():
    t = np.sort(KEY.numpy().uniform(0, 500, 80))
    fit = decay(t, 1 + np.exp(-0.01 * t))
    assert fit.rate == pytest.approx(0.01, rel=1e-6)
    assert fit(np.array([100.0])) == pytest.approx(1 + np.exp(-1), rel=1e-6)


@pytest.mark.parametrize("optimum", [None, 0.3])
def test_intervals_cover(optimum):
    n, rate, z = 60, 0.07, []
    t = np.arange(float(n))
    for i in range(1000):
        y = 0.3 + np.exp(-rate * t) + 0.01 * KEY.fold("noise", i).numpy().normal(size=n)
        fit = decay(t, y, optimum)
        se = bootstrap(t, y, fit, KEY.fold("again", i), known=optimum is not None)
        z.append((fit.rate - rate) / se)
    assert 0.93 <= (np.abs(z) < 1.96).mean() <= 0.97
    assert abs(np.mean(z)) < 5 / 1000**0.5


def test_blocks_see_that_noise_is_correlated():
    """Of equal variance, noise correlated by 0.5 hides a rate sqrt(3) times better; short blocks see part of that."""
    n, errors = 100, {0.0: [], 0.5: []}
    t = np.arange(float(n))
    for i in range(40):
        white = KEY.fold("white", i).numpy().normal(size=n)
        for rho, found in errors.items():
            noise = white.copy()
            for k in range(1, n):
                noise[k] = rho * noise[k - 1] + (1 - rho**2) ** 0.5 * white[k]
            y = 0.3 + np.exp(-0.04 * t) + 0.01 * noise
            found.append(bootstrap(t, y, decay(t, y), KEY.fold("blocks", i)))
    assert 1.25 < np.mean(errors[0.5]) / np.mean(errors[0.0]) < 1.75


def test_smoothing_would_change_the_rate():
    """Why raw losses: an average with memory 0.95 decays at its own rate, not that of the curve."""
    raw = np.exp(-0.2 * np.arange(60.0))
    smooth = [raw[0]]
    for value in raw[1:]:
        smooth.append(0.95 * smooth[-1] + 0.05 * value)
    assert decay(np.arange(60.0), raw).rate == pytest.approx(0.2, rel=1e-6)
    assert decay(np.arange(60.0), np.array(smooth)).rate < 0.1


def test_a_disturbed_beginning_is_left_out():
    t = np.arange(120.0)
    y = 0.3 + np.exp(-0.03 * t) + np.where(t < 20, 0.1 * np.sin(2 * t), 0.0)
    whole = decay(t, y)
    assert whole.later > 0.9  # its later half alone would pass
    fit, start = longest(t, y)
    assert 0 < start <= 40
    assert fit.rate == pytest.approx(0.03, rel=0.02)


T = np.arange(100.0)


@pytest.mark.parametrize(
    "y",
    [
        np.ones(100),
        np.exp(0.03 * T),
        1 - np.exp(-0.05 * T),
        1 - 0.001 * T,
        np.exp(-0.05 * T) + 0.2 * np.sin(T),
        np.full(100, np.nan),
    ],
    ids=["flat", "rising", "saturating", "straight", "noisy", "nan"],
)
def test_what_is_no_decay_is_invalid(y):
    with pytest.raises(Invalid, match="no window of the loss is an exponential decay"):
        longest(T, y)


def test_less_than_a_time_constant_is_no_decay():
    assert decay(T, np.exp(-0.008 * T)) is None
    assert decay(T, np.exp(-0.012 * T)).rate == pytest.approx(0.012, rel=1e-5)


def test_too_few_losses():
    with pytest.raises(Invalid, match="3 losses were noted"):
        RateFit().measure(snapshot(descend([1.0], 0.1, 3)))


def test_units():
    losses = descend([0.1], 0.5, 100)
    problem = FunctionProblem(lambda m, b: 0, lambda k: 0, num_targets=70, batch_size=10)
    found = RateFit().measure(
        snapshot(losses, problem=problem, counters={"edges": 5000.0, "seconds": 1.0})
    )
    rate = found["rate"].value
    assert found["epoch"].value == pytest.approx(7 * rate)
    assert found["target"].value == pytest.approx(rate / 10)
    assert found["edge"].value == pytest.approx(rate / 50)
    assert found["epoch"].se == pytest.approx(7 * found["rate"].se)
    counted = RateFit().measure(snapshot(losses, problem=problem, counters={"targets": 800.0}))
    assert counted["target"].value == pytest.approx(rate / 8)
    alone = RateFit().measure(snapshot(losses))
    assert set(alone) == {"rate", "limit", "r2", "window"}


def test_it_goes_on_where_it_was():
    losses = descend([0.04], 0.5, 120)
    whole, first, second = RateFit(), RateFit(), RateFit()
    truth = whole.measure(snapshot(losses))
    first.measure(snapshot(losses[:70]))
    second.restore(first.state())
    found = second.measure(snapshot(losses[50:], step=120))  # twenty of them were seen already
    assert found == truth


def test_a_long_run_is_thinned_not_smoothed():
    losses = descend([0.002], 0.5, 400)
    instrument = RateFit(most=64)
    for k in range(0, 400, 50):
        instrument._keep(snapshot(losses[k : k + 50]))
    kept = instrument.state()
    assert len(kept["steps"]) <= 64
    assert {b - a for a, b in zip(kept["steps"], kept["steps"][1:])} == {8}
    assert kept["losses"] == [float(losses[step][1]) for step in kept["steps"]]
    with pytest.raises(InputError, match="at least 32"):
        RateFit(most=10)
