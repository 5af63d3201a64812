"""FDT on a noisy quadratic, where every moment of the stationary state is known; and where it is not at rest."""

import numpy as np
import pytest
import torch
from instruments import walks

from graphdyn.instruments.fdt import FDT

CURVATURE = torch.linspace(0.2, 3.0, 400, dtype=torch.float64)
RULES = {
    "sgd": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.8},
    "dampened": {"lr": 0.3, "momentum": 0.8, "dampening": 0.5},
    "decayed": {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.3},
    "uphill": {"lr": 0.1, "momentum": 0.5, "maximize": True},
}


def spread(options, h):
    """E|u|^2 of one coordinate at rest: the stationary covariance of (w, b) by a Lyapunov equation."""
    mu, eta = options.get("momentum", 0.0), options["lr"]
    kept = 1 - options.get("dampening", 0.0) if mu else 1.0
    h = h + options.get("weight_decay", 0.0)
    # b' = mu b + kept (h w + noise), w' = w - eta b'
    step = np.array([[1 - eta * kept * h, -eta * mu], [kept * h, mu]])
    push = np.array([-eta * kept, kept])
    system = np.eye(4) - np.kron(step, step)
    covariance = np.linalg.solve(system, np.outer(push, push).ravel()).reshape(2, 2)
    return eta**2 * covariance[1, 1]


def run(kind, options, steps, *, every=1, start=0.0, seed=0):
    model = walks.Vector(torch.full((400,), start, dtype=torch.float64))
    optimizer = kind(model.parameters(), **options)
    sign = -1.0 if options.get("maximize") else 1.0
    instrument = FDT()
    moments = walks.moments(
        model, optimizer, steps, lambda w, c: sign * (CURVATURE * w + c), seed=seed
    )
    for s in moments:
        if s.step % every == 0:
            reading = instrument.measure(s)
    return reading


@pytest.mark.parametrize("name", RULES)
def test_both_relations_hold_at_rest(name):
    """1000 steps of 400 coordinates: means have standard errors of about 0.5 %."""
    options = RULES[name]
    reading = run(torch.optim.SGD, options, 1600)
    expected = sum(spread(options, float(h)) for h in CURVATURE)
    assert float(reading["spread"]) == pytest.approx(expected, rel=0.025)
    for what in ("ratio", "sgd_ratio"):
        assert float(reading[what].value) == pytest.approx(1.0, abs=0.03)
        assert reading[what].pred == 1.0
        assert float(reading[what, "w"].value) == float(reading[what].value)
    mu, eta = options.get("momentum", 0.0), options["lr"]
    heat = (1 + mu) / (2 * eta) * expected
    assert float(reading["heat"]) == pytest.approx(heat, rel=0.025)


def test_it_needs_nothing_of_the_optimiser():
    reading = run(torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}, 1200)
    assert float(reading["ratio"].value) == pytest.approx(1.0, abs=0.05)
    assert "sgd_ratio" not in reading
    nesterov = {"lr": 0.1, "momentum": 0.5, "nesterov": True}
    reading = run(torch.optim.SGD, nesterov, 1200)
    assert float(reading["ratio"].value) == pytest.approx(1.0, abs=0.03)
    assert "sgd_ratio" not in reading


def test_on_the_way_it_is_not_one():
    reading = run(torch.optim.SGD, {"lr": 0.01}, 60, start=5.0)
    assert float(reading["ratio"].value) > 1.5
    assert float(reading["sgd_ratio"].value) > 1.5


def test_the_wrong_relation_is_seen_to_be_wrong():
    """Without the factor 1 + mu the gradient form is off by 44 %."""
    reading = run(torch.optim.SGD, RULES["momentum"], 1600)
    assert float(reading["work"] / (reading["heat"] / 1.8)) == pytest.approx(1.8, abs=0.06)


def test_every_few_steps_reads_the_same():
    reading = run(torch.optim.SGD, RULES["momentum"], 2400, every=4)
    assert float(reading["ratio"].value) == pytest.approx(1.0, abs=0.05)
    assert reading["ratio"].n == 600 - 256


def test_totals_leave_out_what_a_group_has_not():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).double()
    parts = [
        {"params": [*model[0].parameters()], "nesterov": True},
        {"params": [*model[1].parameters()], "nesterov": False},
    ]
    optimizer = torch.optim.SGD(parts, lr=0.1, momentum=0.5)
    *_, s = walks.moments(model, optimizer, 2, lambda w, c: c)
    reading = FDT().measure(s)
    assert "ratio" in reading
    assert "sgd_ratio" not in reading
    assert ("sgd_ratio", "0") not in reading
    w, u = s.before, s.before - s.weights
    assert float(reading["drift"]) == pytest.approx(2 * float(w @ u), rel=1e-9)
    assert float(reading["spread"]) == pytest.approx(float(u @ u), rel=1e-9)
    one = s.groups.slices["1"]
    work, heat = float(w[one] @ s.grad[one]), 1.5 / 0.2 * float(u[one] @ u[one])
    assert float(reading["work", "1"]) == pytest.approx(work, rel=1e-9)
    assert float(reading["heat", "1"]) == pytest.approx(heat, rel=1e-9)
