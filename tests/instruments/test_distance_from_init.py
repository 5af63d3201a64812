"""DistanceFromInit, by NumPy; the square of a random walk's distance grows with its steps."""

import math

import numpy as np
import pytest
import torch
from instruments import walks

from graphdyn.instruments.distance_from_init import DistanceFromInit


def test_groups_and_total():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).double()
    optimizer, instrument = torch.optim.SGD(model.parameters(), lr=0.2), DistanceFromInit()
    first = None
    for s in walks.moments(model, optimizer, 4, lambda w, c: c):
        first = s.weights.numpy() if first is None else first
        reading = instrument.measure(s)
    now = s.weights.numpy()
    for group, place in {**s.groups.slices, "": slice(None)}.items():
        a, b = first[place], now[place]
        own = {w: reading[(w, group) if group else w] for w in ("distance", "relative", "cosine")}
        distance = np.linalg.norm(b - a)
        assert float(own["distance"]) == pytest.approx(distance, rel=1e-9)
        assert float(own["relative"]) == pytest.approx(distance / np.linalg.norm(a), rel=1e-9)
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert float(own["cosine"]) == pytest.approx(cosine, rel=1e-9)


def test_a_random_walk():
    model = walks.Vector(torch.zeros(2000, dtype=torch.float64))
    optimizer, instrument = torch.optim.SGD(model.parameters(), lr=0.1), DistanceFromInit()
    far = [
        float(instrument.measure(s)["distance"])
        for s in walks.moments(model, optimizer, 26, lambda w, c: c)
    ]
    # |w|^2 after t steps is 0.01 * 2000 * t on average, with a relative deviation of sqrt(2 / 2000)
    assert far[25] ** 2 == pytest.approx(20 * 25, rel=5 * math.sqrt(2 / 2000))


def test_a_group_that_began_at_zero():
    model = walks.Vector(torch.zeros(3, dtype=torch.float64))
    instrument = DistanceFromInit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    (s,) = walks.moments(model, optimizer, 1, lambda w, c: c)
    instrument.measure(s)
    model.w.data.fill_(1.0)
    (s,) = walks.moments(model, optimizer, 1, lambda w, c: c)
    reading = instrument.measure(s)
    assert math.isinf(float(reading["relative"]))
    assert math.isnan(float(reading["cosine"]))
