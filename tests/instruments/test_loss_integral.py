"""LossIntegral: scipy's trapezoids, learning rates that differ, and going on after a pause."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from instruments import noisy
from scipy.integrate import trapezoid

from graphdyn.estimate import Invalid
from graphdyn.instruments.loss_integral import LossIntegral

STEPS = np.array([0, 1, 2, 5, 6, 10])
LOSSES = np.array([4.0, 3.0, 2.5, 2.0, 1.0, 0.5])


def snapshot(losses, **rates):
    settings = {name: {"lr": lr} for name, lr in rates.items()}
    step = losses[-1][0] + 1 if losses else 0
    return noisy.moment(torch.nn.Linear(1, 1), None, step, losses=losses, settings=settings)


def curve(*places):
    return [(int(STEPS[i]), torch.tensor(LOSSES[i])) for i in range(*places)]


def test_the_area_is_that_of_trapezoids():
    found = LossIntegral().measure(snapshot(curve(6), a=0.1, b=0.1))
    truth = trapezoid(LOSSES, STEPS)
    assert float(found["steps"]) == pytest.approx(truth, rel=1e-15)
    assert float(found["mean"]) == pytest.approx(truth / 10)
    assert float(found["time"]) == pytest.approx(0.1 * truth)
    assert set(found) == {"steps", "mean", "time"}


@pytest.mark.parametrize("cuts", [(0, 3, 6), (0, 1, 2, 3, 4, 5, 6), (0, 0, 6, 6)])
def test_pieces_add_up(cuts):
    instrument = LossIntegral()
    for start, end in pairwise(cuts):
        resumed = LossIntegral()
        resumed.restore(instrument.state())
        instrument = resumed
        if end:
            found = instrument.measure(snapshot(curve(max(start - 2, 0), end), a=0.1))
    assert float(found["steps"]) == pytest.approx(trapezoid(LOSSES, STEPS), rel=1e-15)


def test_learning_rates_of_their_own():
    instrument = LossIntegral()
    instrument.measure(snapshot(curve(3), a=1.0, b=0.1))
    found = instrument.measure(snapshot(curve(3, 6), a=0.5, b=0.1))
    early, late = trapezoid(LOSSES[:3], STEPS[:3]), trapezoid(LOSSES[2:], STEPS[2:])
    assert float(found["time", "a"]) == pytest.approx(early + late / 2)
    assert float(found["time", "b"]) == pytest.approx((early + late) / 10)
    assert "time" not in found


def test_once_apart_always_apart():
    instrument = LossIntegral()
    instrument.measure(snapshot(curve(3), a=1.0, b=0.1))
    resumed = LossIntegral()
    resumed.restore(instrument.state())
    found = resumed.measure(snapshot(curve(3, 6), a=1.0, b=1.0))
    assert float(found["time", "a"]) != float(found["time", "b"])


def test_one_loss_spans_nothing():
    found = LossIntegral().measure(snapshot(curve(1)))
    assert found == {"steps": 0.0}


def test_no_loss_is_invalid():
    with pytest.raises(Invalid, match="log\\(loss="):
        LossIntegral().measure(snapshot([]))


def test_float32_losses_add_up_in_float64():
    losses = [(k, torch.tensor(1.0 + 1e-6 * k)) for k in range(2000)]
    found = LossIntegral().measure(snapshot(losses))
    truth = trapezoid([float(v) for _, v in losses])
    assert float(found["steps"]) == pytest.approx(truth, rel=1e-14)
