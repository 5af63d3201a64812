"""isolated: everything back as it was, even after an error; inside, randomness is the key's."""

import random

import numpy as np
import pytest
import torch
from instruments import trials

from graphdyn.isolate import isolated, seeded
from graphdyn.keys import Key


class Model(torch.nn.Module):
    """Caches, counts and logs as it goes."""

    def __init__(self):
        super().__init__()
        self.lin = torch.nn.Linear(3, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.dropout = torch.nn.Dropout(0.5)
        self.frozen = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.register_buffer("table", torch.zeros(2))
        self.register_buffer("nothing", None)
        self.calls, self.log, self.seen, self.named = 0, [], set(), {}
        self.cached = None

    def forward(self, x):
        self.calls += 1
        self.log.append(self.calls)
        self.seen.add(self.calls)
        self.named["last"] = self.calls
        self.cached = x
        self.late = x
        self.table += 1
        self.nothing = torch.ones(1)
        noise = random.random() + np.random.rand()  # noqa: NPY002
        return self.dropout(self.norm(self.lin(x))) + noise * torch.rand(1)


def everything(model):
    found = [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002
    found += [{**vars(m)} for m in model.modules()]
    found += [(b, b._version) for b in model.buffers()]
    found += [(p.grad, None if p.grad is None else p.grad._version) for p in model.parameters()]
    found += [(p.requires_grad, p._version) for p in model.parameters()]
    return found, (list(model.log), set(model.seen), dict(model.named), model.table.clone())


def same(before, after):
    assert len(before[0]) == len(after[0])
    for a, b in zip(before[0], after[0]):
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
        elif isinstance(a, dict):
            assert a.keys() == b.keys()
            assert all(a[n] is b[n] or a[n] == b[n] for n in a)
        elif isinstance(a, tuple) and isinstance(a[0], torch.Tensor):
            assert a[0] is b[0]
            assert a[1] == b[1]
        else:
            assert a == b
    assert before[1][:3] == after[1][:3]
    assert torch.equal(before[1][3], after[1][3])


@pytest.mark.parametrize("fails", [False, True])
def test_all_is_as_it_was(fails):
    with trials.generators():
        model = Model()
        model(torch.ones(4, 3)).sum().backward()
        model.norm.eval()
        model.lin.bias.grad = None
        before = everything(model)
        try:
            with torch.no_grad(), isolated(model, Key(1)):
                assert torch.is_grad_enabled()
                assert all(p.grad is None for p in model.parameters())
                model.train()
                model.frozen.requires_grad_(True)
                model.lin.weight.requires_grad_(False)
                (model(torch.randn(4, 3)).sum() * model.frozen).backward()
                model.norm.reset_running_stats()
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        same(before, everything(model))


def drawn():
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


def test_randomness_inside_is_the_keys():
    with trials.generators():
        model, found = Model(), []
        for key in (Key(1), Key(1), Key(2), Key(1).at(step=1)):
            drawn()
            with isolated(model, key):
                found.append(drawn())
        assert found[0] == found[1]
        assert len(set(found)) == 3


def test_one_inside_another():
    with trials.generators():
        model = Model()
        before = everything(model)
        with isolated(model, Key(1)):
            first = drawn()
            with isolated(model, Key(2)):
                model(torch.ones(4, 3))
            assert model.calls == 0
            second = drawn()
        same(before, everything(model))
        with seeded(torch.device("cpu"), Key(1)):
            assert (drawn(), drawn()) == (first, second)
