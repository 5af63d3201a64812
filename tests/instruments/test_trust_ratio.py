"""TrustRatio: what LARS and LAMB, written out, would multiply a step with."""

import pytest
import torch
from instruments import walks

from graphdyn.instruments.trust_ratio import TrustRatio


def lamb_ratio(w, grads, betas, decay, eps=1e-8):
    """You et al. 2020, algorithm 2, with bias corrections, before the last of these gradients is applied."""
    m = v = torch.zeros_like(w)
    t = len(grads)
    for g in grads:
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
    r = (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return float(w.norm() / (r + decay * w).norm())


def test_lamb_is_read_off_adamw_and_lars_off_any():
    model = walks.Vector(torch.linspace(1, 2, 7, dtype=torch.float64))
    options = {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.3}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    grads = []
    for s in walks.moments(model, optimizer, 4, lambda w, c: c):
        grads.append(s.grad)
        reading = TrustRatio().measure(s)
    w, g = s.before, grads[-1]
    expected = lamb_ratio(w, grads, (0.8, 0.9), 0.3)
    assert float(reading["step", "w"]) == pytest.approx(expected, rel=1e-9)
    lars = float(w.norm()) / (float(g.norm()) + 0.3 * float(w.norm()))
    assert float(reading["lars", "w"]) == pytest.approx(lars, rel=1e-9)


def test_plain_sgd_has_the_ratio_of_weights_to_gradient():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    *_, s = walks.moments(model, optimizer, 2, lambda w, c: c)
    reading = TrustRatio().measure(s)
    for group, place in s.groups.slices.items():
        expected = float(s.before[place].norm() / s.grad[place].norm())
        assert float(reading["step", group]) == pytest.approx(expected, rel=1e-9)
        assert float(reading["lars", group]) == pytest.approx(expected, rel=1e-9)
