"""The estimator of experiments/gradient_error: against every batch of a tiny graph, by dense algebra."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from six_nodes import (
    TRAIN,
    Dense,
    gcn,
    graph,
    outcomes_of_history,
    outcomes_of_random_nodes,
)

import graphdyn as gd
from graphdyn.loader import gather
from graphdyn.memories import Memory
from graphdyn.step import update

PROBE = Path(__file__).parents[1] / "experiments" / "gradient_error" / "probe.py"


@pytest.fixture(scope="module")
def probe():
    spec = importlib.util.spec_from_file_location("gradient_error_probe", PROBE)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and named tuples look their module up
    spec.loader.exec_module(module)
    return module


def truth_of(dense, outcomes):
    """Every part, as a mean over all outcomes."""
    full = dense.gradient(dense.omega(TRAIN, 1 / len(TRAIN)))
    sampled, chosen = (torch.stack(rows) - full for rows in zip(*outcomes))
    apart = sampled - chosen

    def mean(rows):
        return rows.square().sum(1).mean()

    total, bias = mean(sampled), sampled.mean(0).square().sum()
    parts = {"total": total, "bias": bias, "variance": total - bias, "seeds": mean(chosen)}
    parts |= {"seeds_bias": chosen.mean(0).square().sum(), "embedding": mean(apart)}
    parts |= {"embedding_bias": apart.mean(0).square().sum()}
    parts |= {"cross": 2 * (chosen * apart).sum(1).mean()}
    return {k: float(v) for k, v in parts.items()}


def stale(memory, rng=2):
    """Write noise into every table, so that what is remembered is wrong."""
    for name, tensor in memory.state().items():
        if "rows" in name:
            tensor += torch.randn(
                tensor.shape, generator=torch.Generator().manual_seed(rng)
            ) * tensor.abs().mean().clamp(min=1.0)


CASES = {
    "random nodes": {"sampler": "node", "batch_size": 3, "independent": True},
    "stale history": {"sampler": "induced", "batch_size": 2, "memory": "history"},
}


@pytest.fixture(scope="module", params=CASES)
def measured(request, probe):
    g, model = graph(), gcn()
    plans, memory = gd.method(**CASES[request.param]).prepare(model, g, key=gd.Key(0))
    memory.start()
    stale(memory)
    found = probe.probe(probe.Truth(model, g), plans, memory, gd.Key(3), draws=100, exact=100)
    dense = Dense(model, g)
    if request.param == "random nodes":
        outcomes = outcomes_of_random_nodes(dense, 3)
    else:
        (table,) = [t for n, t in memory.state().items() if "rows" in n]
        outcomes = outcomes_of_history(dense, table, 2)
    return found, truth_of(dense, [*outcomes])


def test_every_part_is_the_mean_over_all_batches(measured):
    found, truth = measured
    for name, value in truth.items():
        estimate = found[name]
        assert abs(estimate.value - value) <= 5 * estimate.se + 1e-6, name
        assert 0 <= estimate.se < max(value, 0.3 * truth["total"]), name  # it says something


def test_the_parts_are_not_all_the_same(measured):
    found, truth = measured
    for one, other in (("total", "bias"), ("seeds", "embedding"), ("embedding", "embedding_bias")):
        estimate = found[one]
        assert abs(estimate.value - truth[other]) > 5 * estimate.se, (one, other)


def test_seeds_and_embedding_and_cross_are_the_total(measured):
    found, _ = measured
    sums = sum(found[name].value for name in ("seeds", "embedding", "cross"))
    assert sums == pytest.approx(found["total"].value, rel=1e-6)


def test_exact_gradients_are_those_of_dense_algebra(probe):
    g, model = graph(), gcn()
    truth, dense = probe.Truth(model, g), Dense(model, g)
    full = dense.gradient(dense.omega(TRAIN, 1 / len(TRAIN)))
    assert torch.allclose(truth.gradient.double(), full, atol=1e-6)
    assert truth.size == pytest.approx(float(full.square().sum()), rel=1e-5)
    uneven = {"seeds": "poisson", "score": "degree", "batch_size": 3}
    plans, _ = gd.method(sampler="neighbor", fanouts=1, **uneven).prepare(model, g)
    plan = next(p for seed in range(9) if (p := plans.plan(gd.Key(seed))).seeds.numel() > 2)
    assert plan.seed_weight.unique().numel() > 1
    omega = dense.omega(plan.seeds.tolist(), plan.seed_weight.double())
    assert torch.allclose(truth.of(plan).double(), dense.gradient(omega), atol=1e-6)


REMEMBERING = {
    "vr-gcn": {"preset": "vr-gcn", "fanouts": 1, "batch_size": 2},
    "mvs": {"preset": "mvs", "batch_size": 2, "inner_steps": 2},
    "lmc": {"preset": "lmc", "parts": 3, "parts_per_batch": 2},
    "spider": {"preset": "spider", "fanouts": 1, "batch_size": 2},
    "saga": {"preset": "saga", "fanouts": 1, "batch_size": 2},
}


def trained(options, steps, look=None):
    """Weights and memory after some steps; ``look`` is called before each."""
    g, model = graph(), gcn()
    plans, memory = gd.method(**options).prepare(model, g, key=gd.Key(0))
    memory.start()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for key in plans.keys(gd.Key(0), range(steps)):
        if key.step == steps:
            break
        if look is not None:
            look(model, g, plans, memory)
        batch = gather(plans.plan(key), g.x, g.y)
        update(model, batch, optimizer, memory=memory)
    state = {f"memory {n}": t.clone() for n, t in memory.state().items()}
    grads = {f"gradient {n}": p.grad.clone() for n, p in model.named_parameters()}
    return state | grads | {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("name", REMEMBERING)
def test_looking_changes_nothing(name, probe):
    def look(model, g, plans, memory):
        before = [p.grad for p in model.parameters()]
        model.eval()
        probe.probe(probe.Truth(model, g), plans, memory, gd.Key(5), draws=3, exact=2)
        assert not model.training
        assert all(p.grad is b for p, b in zip(model.parameters(), before))

    alone, watched = (trained(REMEMBERING[name], 4, f) for f in (None, look))
    assert alone.keys() == watched.keys()
    assert all(torch.equal(alone[k], watched[k]) for k in alone)


@pytest.mark.parametrize("name", REMEMBERING)
def test_it_measures_the_gradient_that_training_uses(name, probe):
    g, model = graph(), gcn()
    plans, memory = gd.method(**REMEMBERING[name]).prepare(model, g, key=gd.Key(0))
    memory.start()
    stale(memory)
    batch = gather(plans.plan(gd.Key(0)), g.x, g.y)
    with probe.Untouched(model, memory) as frozen:
        first, second = frozen.gradient(batch), frozen.gradient(batch)
    update(model, batch, torch.optim.SGD(model.parameters(), lr=0.1), memory=memory)
    used = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert torch.equal(first, second)
    assert torch.equal(first, used)


class Counting(Memory):
    """Its gradient depends on how often it was asked; it must not be told of the step."""

    def __init__(self):
        self.asked, self.model = torch.zeros(1), None

    def correct(self, batch):
        self.asked += 1
        for parameter in self.model.parameters():
            parameter.grad *= self.asked

    def push(self, batch, output):
        raise AssertionError("a look is no step")

    def state(self):
        return {"asked": self.asked}

    def restore(self, state):
        self.asked.copy_(state["asked"])


def test_every_look_finds_what_training_left(probe):
    g, model, memory = graph(), gcn(), Counting()
    memory.model = model
    memory.asked += 2
    batch = gd.full_batch(g, model.propagation)
    with probe.Untouched(model, memory) as frozen:
        looks = [frozen.gradient(batch) for _ in range(3)]
    assert torch.equal(memory.asked, torch.tensor([2.0]))
    assert all(torch.allclose(look, 3 * probe.Truth(model, g).gradient) for look in looks)
