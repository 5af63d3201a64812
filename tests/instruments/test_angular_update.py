"""AngularUpdate: angles against an arc cosine in exact arithmetic; predictions are in test_rules.py."""

import math
from fractions import Fraction

import pytest
import torch
from instruments import walks

from graphdyn.instruments.angular_update import AngularUpdate, angle


@pytest.mark.parametrize("size", [1e-7, 1e-4, 0.3, 2.0, 3.1])
def test_angles_however_small(size):
    a = torch.tensor([3.0, 0.0], dtype=torch.float64)
    b = 0.7 * torch.tensor([math.cos(size), math.sin(size)], dtype=torch.float64)
    assert float(angle(a, b)) == pytest.approx(size, rel=1e-7)


def test_of_float32_weights_and_opposite_ones():
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(2000, generator=rng)
    b = a + 1e-5 * torch.randn(2000, generator=rng)
    exact = [[Fraction(float(x)) for x in v] for v in (a, b)]
    dot, aa, bb = (sum(x * y for x, y in zip(*p)) for p in (exact, exact[:1] * 2, exact[1:] * 2))
    sine = math.sqrt(1 - Fraction(dot * dot, aa * bb))
    assert float(angle(a, b)) == pytest.approx(math.asin(sine), rel=1e-9)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=0).clamp(max=1)
    assert float(cosine.arccos()) != pytest.approx(math.asin(sine), rel=0.1)  # what not to do
    assert float(angle(a, -a)) == pytest.approx(math.pi)
    assert math.isnan(float(angle(a, 0 * a)))


def groups(steps=6, problem=None, **options):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), **({"lr": 0.1} | options))
    instrument, turned = AngularUpdate(), []
    for s in walks.moments(model, optimizer, steps, lambda w, c: c, problem):
        reading = instrument.measure(s)
        turned.append(_pairs(s))
    return reading, turned


def _pairs(s):
    own = {n: (s.before[p], s.weights[p]) for n, p in s.groups.slices.items()}
    return own | {"": (s.before, s.weights)}


def test_every_group_and_all_weights():
    reading, turned = groups()
    for name in ("0", "1", ""):
        cosines = [torch.nn.functional.cosine_similarity(*t[name], dim=0) for t in turned]
        angles = [math.acos(float(c)) for c in cosines]
        key = lambda what, name=name: (what, name) if name else what  # noqa: E731
        assert float(reading[key("angle")]) == pytest.approx(angles[-1], rel=1e-4)
        recent = reading[key("rms")]
        assert recent.n == 4  # of six: since the third
        assert recent.pred is None
        assert float(recent.value) == pytest.approx(walks.rms(angles[2:]), rel=1e-4)


def test_relaxation_of_sets_with_decay():
    def last(decay):
        start = walks.noise(8)(walks.Key(1))
        model = walks.Vector(start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=decay, momentum=0.5)
        instrument = AngularUpdate()
        problem = walks.scale_invariant(8)
        *_, s = walks.moments(model, optimizer, 2, walks.on_sphere, problem)
        return instrument.measure(s)

    reading = last(0.01)
    assert float(reading["relaxation", "w"]) == pytest.approx(0.5 / (4 * 1e-3), rel=1e-3)
    assert float(reading["rms", "w"].pred) == pytest.approx(math.sqrt(2e-3 / 1.5))
    reading = last(0.0)
    assert ("relaxation", "w") not in reading
    assert reading["rms", "w"].pred is None
