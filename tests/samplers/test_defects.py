"""Defects known from other code that no other test reproduces; docs/defects.md lists them all."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from samplers.graphs import AWKWARD

from graphdyn.graph import Propagation
from graphdyn.keys import Key
from graphdyn.samplers import SAMPLERS, build

REPO = Path(__file__).parents[2]
FEW = {"nodes": (4,)}
SMALL = {
    "cluster": {"parts": 3, "parts_per_batch": 2},
    **dict.fromkeys(("fastgcn", "ladies", "pladies", "layerwise-desraj"), FEW),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_sampler_reads_or_moves_a_global_generator(name):
    """GraphBolt's layer-neighbour sampler seeds torch's global generator and then shares it."""
    graph, kept = AWKWARD["communities"](), {}
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        options = SMALL.get(name, {}) | ({"batch_size": 2} if _has(name, "batch_size") else {})
        plans = build(name, **options).prepare(graph, Propagation("sym", True), 2)
        kept[seed] = [plans.plan(key) for key in plans.keys(Key(0), range(2))]
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    for a, b in zip(*kept.values()):
        assert all(
            torch.equal(s.nan_to_num(), t.nan_to_num())  # NaN: no probability is claimed
            for p, q in zip(a.blocks, b.blocks)
            for s, t in zip(p.tensors(), q.tensors())
        )


def _has(name, option):
    return option in SAMPLERS[name].__dataclass_fields__


def hits_together(draw, runs):
    """How often targets 0 and 1 choose the same position, over runs."""
    return sum(float(np.mean(draw(run)[0] == draw(run)[1])) for run in range(runs)) / runs


def test_columns_shuffled_for_the_whole_batch_are_found_out():
    """The first GraphSAGE code shuffles the columns of one table, so all targets take the same places.

    Places are compared in order; independent draws of 1 of 12 agree once in 12.
    """
    degree, k, runs = 12, 1, 3000
    graph = AWKWARD["clique"]()
    edges = torch.tensor([(u, v) for v in (0, 1) for u in range(2, 2 + degree)])
    graph = type(graph).from_edge_index(edges.t(), 2 + degree)

    def ours(run):
        from graphdyn.kernels.draw import draw_uniform

        drawn = draw_uniform(graph.csc, None, torch.tensor([0, 1]), k, Key(run).bits)
        start = graph.csc.indptr[:2].long().repeat_interleave(k)
        return (drawn.edge.long() - start).view(2, k).numpy()

    def published(run):
        order = Key(run).numpy().permutation(degree)[:k]
        return np.stack([order, order])

    error = (1 / degree * (1 - 1 / degree) / runs) ** 0.5
    assert abs(hits_together(ours, runs) - 1 / degree) < 5 * error
    assert abs(hits_together(published, 50) - 1 / degree) > 100 * error


def test_a_mean_over_an_importance_sampled_batch_is_found_out():
    """Seeds drawn with unequal probabilities need weights; the batch's mean is not the pool's."""
    graph = AWKWARD["star"]()
    sampler = build("neighbor", batch_size=2, seeds="poisson", score="degree")
    plans = sampler.prepare(graph, Propagation("sym", True), 1)
    pool, runs = graph.split.train, 4000
    f = torch.zeros(graph.num_nodes, dtype=torch.float64)
    f[pool] = torch.tensor([9.0, 1.0, 2.0], dtype=torch.float64)  # the hub's loss is large
    weighted, means = [], []
    for run in range(runs):
        plan = plans.plan(Key(run))
        weighted.append(float((plan.seed_weight.double() * f[plan.seeds]).sum()))
        means += [float(f[plan.seeds].mean())] if plan.seeds.numel() else []
    truth = float(f[pool].mean())

    def off(values):
        return abs(np.mean(values) - truth) / (np.std(values) / len(values) ** 0.5)

    assert off(weighted) < 5
    assert off(means) > 20


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (REPO / "docs/defects.md").read_text())
    assert len(named) > 10
    for path, test in named:
        assert f"def {test}(" in (REPO / path).read_text(), f"{path}::{test}"
