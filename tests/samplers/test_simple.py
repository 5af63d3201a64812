"""Who says that seeds are a uniform sample without replacement, and that it is true."""

import pytest
import torch

import graphdyn as gd
from graphdyn.parallel import World
from graphdyn.presets import PRESETS
from graphdyn.samplers import Persistent, Poisson, Scored, Shuffle, Uniform
from graphdyn.samplers.shares import bind_share

POOL = torch.tensor([3, 8, 1, 20, 5, 13, 2])
SIMPLE = {
    "neighbor": {"batch_size": 40},
    "labor": {"batch_size": 40, "seeds": "uniform"},
    "ladies": {"batch_size": 40, "nodes": 40},
    "shadow": {"batch_size": 40},
    "full": {},
    "induced": {"batch_size": 40},
    "vr-gcn": {"batch_size": 40},
    "svrg": {"batch_size": 40},
}
OTHERS = {
    "cluster": {"parts": 8, "parts_per_batch": 2},
    "node": {"batch_size": 100},
    "saint-node": {"budget": 100},
    "gas": {"parts": 8, "parts_per_batch": 2},
    "mvs": {"batch_size": 40},
    "importance": {"batch_size": 40},
    "ibmb": {"batch_size": 40},
}


def plans_of(name, options):
    graph = gd.load("csbm")
    model = gd.GCN(graph.num_features, graph.num_classes, hidden=4, seed=0)
    how = {"preset": name} if name in PRESETS else {"sampler": name}
    return gd.method(**how, **options).prepare(model, graph).plans


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_size_is_the_harmonic_mean_over_an_epoch(size):
    draw = Shuffle(size).bind(POOL)
    epoch = [draw.draw(gd.Key(0, step=t)).node_id for t in range(draw.num_batches)]
    inverse = sum(1 / seeds.numel() for seeds in epoch) / len(epoch)
    assert draw.simple.size == pytest.approx(1 / inverse)
    assert draw.simple.disjoint
    assert torch.cat(epoch).unique().numel() == POOL.numel()


def test_uniform_seeds_are_drawn_anew_every_step():
    draw = Uniform(5).bind(POOL)
    assert draw.simple == (5, False)


def test_other_policies_are_not_simple():
    for policy in (Poisson(3), Persistent(3, 5.0), Scored(3)):
        assert policy.bind(POOL).simple is None


def test_a_share_of_a_simple_sample_is_one():
    share = bind_share(Uniform(3), POOL, World(0, 2))
    assert share.simple == (3, False)
    assert bind_share(Poisson(3), POOL, World(0, 2)).simple is None


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_plans_have_equal_weights(name):
    plans = plans_of(name, SIMPLE[name])
    assert plans.simple is not None
    plan = plans.plan(gd.Key(0))
    assert torch.allclose(plan.seed_weight, torch.full_like(plan.seed_weight, 1 / len(plan.seeds)))
    assert abs(len(plan.seeds) - plans.simple.size) < 1


@pytest.mark.parametrize("name", OTHERS)
def test_plans_that_choose_or_weigh_are_not_simple(name):
    assert plans_of(name, OTHERS[name]).simple is None
