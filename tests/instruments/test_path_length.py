"""PathLength: a path given in advance, by NumPy; chords are shorter than arcs."""

import math

import numpy as np
import pytest
import torch
from instruments import walks

from graphdyn.instruments.path_length import PathLength


def along(path, every=1):
    """The last reading on weights that follow a (T, n) path."""
    model = walks.Vector(torch.tensor(path[0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    steps = iter(np.diff(path, axis=0))
    instrument = PathLength()
    for s in walks.moments(
        model, optimizer, len(path) - 1, lambda w, c: -torch.tensor(next(steps))
    ):
        if (s.step - 1) % every == 0:
            reading = instrument.measure(s)
    return reading


def walk(steps=13, n=4):
    return np.cumsum(np.random.default_rng(0).standard_normal((steps, n)), 0)


def test_length_and_straightness():
    path = walk()
    reading = along(path)
    length = np.linalg.norm(np.diff(path[1:], axis=0), axis=1).sum()
    ends = np.linalg.norm(path[-1] - path[1])
    for key in ("length", ("length", "w")):
        assert float(reading[key]) == pytest.approx(length, rel=1e-9)
    for key in ("straight", ("straight", "w")):
        assert float(reading[key]) == pytest.approx(ends / length, rel=1e-9)
    assert reading["chord"] == 1


def test_chords_are_a_lower_bound():
    path = walk(steps=14)
    fine, rough = along(path), along(path, every=3)
    assert rough["chord"] == 3
    assert float(rough["length"]) < float(fine["length"])
    chords = np.linalg.norm(np.diff(path[1::3], axis=0), axis=1).sum()
    assert float(rough["length"]) == pytest.approx(chords, rel=1e-9)


def test_a_straight_line_and_a_point():
    line = np.outer(np.arange(5.0), [1.0, 2.0])
    assert float(along(line)["straight"]) == pytest.approx(1.0)
    assert math.isnan(float(along(np.ones((4, 2)))["straight"]))


def test_the_total_is_that_of_the_whole_vector():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).double()
    optimizer, instrument = torch.optim.SGD(model.parameters(), lr=0.2), PathLength()
    steps = [instrument.measure(s) for s in walks.moments(model, optimizer, 2, lambda w, c: c)][-1]
    parts = [float(steps["length", g]) for g in ("0", "1")]
    assert float(steps["length"]) == pytest.approx(math.hypot(*parts))
