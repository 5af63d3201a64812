"""Nobody disturbs training: every instrument of the registry, on everything that training reads or writes."""

import random
from functools import cache

import numpy as np
import pytest
import torch
from instruments import trials

from graphdyn.estimate import Estimate
from graphdyn.instruments import INSTRUMENTS, Instrument, tail_index
from graphdyn.schedule import Every


@cache
def alone(case):
    """The training that nobody watches."""
    return trials.run(case)[0]


# Each by itself where a whole zoo of state is: batch norms, dropout of both kinds, a frozen part.
@pytest.mark.parametrize("name", trials.NAMES)
@pytest.mark.parametrize("case", ["neighbor", "pyg"])
def test_training_is_the_same_to_the_bit(case, name, monkeypatch):
    monkeypatch.setattr(tail_index, "BATCHES", 32)
    states, _ = trials.run(case, [trials.made(name, every=2)])
    trials.equal(alone(case), states)


# All at once everywhere, in a loop that hooks alone know of, or in one that says when.
LOOPS = {case: i % 2 == 1 for i, case in enumerate(trials.CASES)}


@pytest.mark.parametrize(("case", "deferred"), [*LOOPS.items(), ("vr-gcn", False), ("pyg", False)])
def test_all_together(case, deferred):
    zoo = [trials.made(name, every=2) for name in INSTRUMENTS]
    states, recorder = trials.run(case, zoo, deferred=deferred)
    trials.equal(alone(case), states)
    assert {w.instrument.name for w in recorder.watches if w.firings} == set(INSTRUMENTS)
    if case == "neighbor":  # what was compared is not silence
        rows = (row for _, row in recorder.sink.rows if "invalid" not in row.name)
        assert set(INSTRUMENTS) - {row.name.split(".")[0] for row in rows} <= QUIET


QUIET = {
    "attention_entropy",
    "linear_rate_bound",
    "loss_parts",
    "staleness",
    "rate_fit",
    "time_to_target",
    "tail_index",
}


def _draws(s):
    torch.rand(1)


def _draws_numpy(s):
    np.random.rand()  # noqa: NPY002


def _draws_python(s):
    random.random()


def _switches(s):
    s.model.eval()


def _writes_a_buffer(s):
    next(s.model.buffers()).add_(0)


def _replaces_a_buffer(s):
    norm = next(m for m in s.model.modules() if isinstance(m, torch.nn.BatchNorm1d))
    norm.running_mean = norm.running_mean.clone()


def _writes_a_gradient(s):
    next(p for p in s.model.parameters() if p.grad is not None).grad.mul_(1)


def _replaces_a_gradient(s):
    parameter = next(p for p in s.model.parameters() if p.grad is not None)
    parameter.grad = parameter.grad.clone()


def _drops_a_gradient(s):
    s.optimizer.zero_grad()


def _freezes(s):
    next(s.model.parameters()).requires_grad_(False)


def _leaves_a_hook(s):
    s.model.register_forward_hook(lambda *_: None)


def _leaves_an_attribute(s):
    s.model.cached = torch.ones(1)


def _writes_a_moment(s):
    for moments in s.optimizer.state.values():
        moments["exp_avg"].add_(1e-3)


def _writes_a_weight(s):
    with torch.no_grad():
        next(s.model.parameters()).mul_(1)


VANDALS = [v for n, v in sorted(globals().items()) if n.startswith("_") and n[1:2].islower()]


@pytest.mark.parametrize("vandal", [v for v in VANDALS if callable(v)], ids=lambda v: v.__name__)
def test_whoever_disturbs_is_caught(vandal):
    class Vandal(Instrument):
        def measure(self, s):
            vandal(s)
            return {}

    expected = alone("pyg")
    with pytest.raises(AssertionError):
        trials.equal(expected, trials.run("pyg", [Vandal(every=1)])[0])


class Nosy(Instrument):
    """Asks for everything that a snapshot has, in every order."""

    every = Every(1)

    def measure(self, s):
        probe = s.probe(2, 2, exact=True)
        assert s.probe(1).grads.data_ptr() == probe.grads.data_ptr()
        s.full_grad(), s.find_symmetry()
        for on in ("full", "batch", "exact", "whole"):
            assert s.trace(on).loss.requires_grad
        with s.isolated():
            s.model.eval()
            for p in s.model.parameters():
                p.requires_grad_(True)
            s.given().loss(s.model, s.given().exact(s.batch(0))).backward()
            s.model.cached = torch.ones(1)
            random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        return {"gradient": Estimate(probe.grads.norm())}


@pytest.mark.parametrize("case", ["neighbor", "vr-gcn", "pyg"])
def test_a_nosy_one(case):
    states, recorder = trials.run(case, [Nosy()])
    trials.equal(alone(case), states)
    assert len([r for _, r in recorder.sink.rows if r.name == "nosy.gradient"]) == 4
