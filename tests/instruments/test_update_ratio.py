"""UpdateRatio and its lengths, by NumPy on whole tensors."""

import math

import numpy as np
import pytest
import torch
from instruments import walks

from graphdyn.instruments.update_ratio import UpdateRatio


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW"])
def test_groups_and_total(optimizer):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)).double()
    kind = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, weight_decay=0.1)
    for s in walks.moments(model, kind, 3, lambda w, c: c):
        before = {n: s.before[p].numpy() for n, p in s.groups.places.items()}
        reading = UpdateRatio().measure(s)
    now = {n: p.detach().numpy().ravel() for n, p in model.named_parameters()}

    def lengths(prefix):
        names = [n for n in now if n.startswith(prefix)]
        old = np.concatenate([before[n] for n in names])
        new = np.concatenate([now[n] for n in names])
        return np.linalg.norm(new - old), np.linalg.norm(old)

    for group in ("0", "1"):
        step, size = lengths(group)
        assert float(reading["update", group]) == pytest.approx(step, rel=1e-9)
        assert float(reading["ratio", group]) == pytest.approx(step / size, rel=1e-9)
    step, size = lengths("")
    assert float(reading["update"]) == pytest.approx(step, rel=1e-9)
    assert float(reading["ratio"]) == pytest.approx(step / size, rel=1e-9)


def test_weights_of_zero_have_an_infinite_ratio():
    model = walks.Vector(torch.zeros(3, dtype=torch.float64))
    s = next(walks.moments(model, torch.optim.SGD([model.w], lr=1.0), 1, lambda w, c: c))
    assert math.isinf(float(UpdateRatio().measure(s)["ratio"]))
