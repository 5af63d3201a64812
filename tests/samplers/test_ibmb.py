"""Influence-based batches: outputs once an epoch, the most influential nodes beside them, nothing drawn."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
import torch
from cases import seeded
from samplers.graphs import AWKWARD, build
from samplers.oracles import matrix
from samplers.plans import same

import graphdyn.kernels.induced
import graphdyn.kernels.ppr
from graphdyn import samplers
from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.keys import Key
from graphdyn.models import GCN
from graphdyn.samplers.ibmb import Ibmb

SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)
GRAPHS = {name: make for name, make in AWKWARD.items() if name != "single"}
SAMPLERS = {
    "pairs": Ibmb(batch_size=2, aux=3),
    "alone": Ibmb(batch_size=1, aux=4, eps=1e-6),
    "fixed": Ibmb(batch_size=3, aux=1, order="fixed"),
    "metis": Ibmb(batch_size=2, aux=2, grouping="metis"),
}
BY_INFLUENCE = [name for name, sampler in SAMPLERS.items() if sampler.grouping == "influence"]


def plans_of(sampler, graph, propagation=SYM, nodes=None):
    return sampler.prepare(graph, propagation, 3, nodes=nodes)


def epoch(plans, key=Key(3), epochs=range(1)):
    return [plans.plan(k) for k in plans.keys(key, epochs)]


def page_rank(graph, propagation, alpha=0.25):
    """Dense rows of the walk against the edges of the model's pattern."""
    csc = graph.adjacency(propagation).csc
    count = np.zeros((csc.num_dst, csc.num_dst))
    np.add.at(count, (csc.dst.numpy(), csc.indices.numpy()), 1)
    degree = count.sum(1, keepdims=True)
    walk = np.where(degree > 0, count / np.maximum(degree, 1), np.eye(len(count)))
    return alpha * np.linalg.inv(np.eye(len(count)) - (1 - alpha) * walk)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", GRAPHS)
def test_p20_every_output_exactly_once_an_epoch(name, sampler):
    graph = GRAPHS[name]()
    plans = plans_of(SAMPLERS[sampler], graph)
    for e in range(3):
        batches = epoch(plans, epochs=range(e, e + 1))
        seeds = torch.cat([plan.seeds for plan in batches])
        assert sorted(seeds.tolist()) == graph.split.train.tolist()
        for plan in batches:
            assert sampler == "metis" or len(plan.seeds) <= SAMPLERS[sampler].batch_size
            assert torch.equal(plan.node_id[plan.rows], plan.seeds)


@pytest.mark.parametrize("propagation", [SYM, MEAN], ids=["sym", "mean"])
@pytest.mark.parametrize("sampler", BY_INFLUENCE)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_batch_is_the_subgraph_of_outputs_and_their_most_influential_nodes(
    name, sampler, propagation
):
    graph, k = GRAPHS[name](), SAMPLERS[sampler].aux
    rank, full = page_rank(graph, propagation), matrix(graph, propagation)
    slack = SAMPLERS[sampler].eps * graph.adjacency(propagation).csc.num_edges + 1e-12
    for plan in epoch(plans_of(SAMPLERS[sampler], graph, propagation)):
        ids = plan.node_id
        assert ids.unique().numel() == ids.numel() <= len(plan.seeds) * (k + 1)
        for output in plan.seeds.tolist():
            limit = np.sort(rank[output])[::-1][min(k, len(rank)) - 1]
            needed = np.flatnonzero(rank[output] > max(limit + slack, slack))
            assert set(needed) <= set(ids.tolist())
        for extra in set(ids.tolist()) - set(plan.seeds.tolist()):
            best = [np.sort(rank[o])[::-1][min(k, len(rank)) - 1] for o in plan.seeds.tolist()]
            assert any(rank[o, extra] >= b - slack for o, b in zip(plan.seeds.tolist(), best))
        (block,) = plan.blocks
        found = block.adjacency.to_dense(torch.float64)
        torch.testing.assert_close(found, full[ids[:, None], ids], rtol=1e-6, atol=1e-7)
        assert block.scale is None


@pytest.mark.parametrize("name", GRAPHS)
def test_the_outputs_of_a_part_keep_the_nodes_of_largest_influence_on_all(name):
    graph, sampler = GRAPHS[name](), SAMPLERS["metis"]
    rank, full = page_rank(graph, SYM), matrix(graph, SYM)
    for plan in epoch(plans_of(sampler, graph)):
        outputs, ids = plan.seeds.tolist(), plan.node_id
        slack = sampler.eps * len(outputs) * graph.adjacency(SYM).csc.num_edges
        together = rank[outputs].sum(0)
        limit = np.sort(together)[::-1][min(sampler.aux * len(outputs), len(rank)) - 1]
        assert set(np.flatnonzero(together > max(limit, 0) + slack)) <= set(ids.tolist())
        extra = sorted(set(ids.tolist()) - set(outputs))
        assert all(together[v] >= limit - slack for v in extra)
        assert ids.unique().numel() == ids.numel() <= len(outputs) * (sampler.aux + 1)
        found = plan.blocks[0].adjacency.to_dense(torch.float64)
        torch.testing.assert_close(found, full[ids[:, None], ids], rtol=1e-6, atol=1e-7)


def test_metis_puts_cliques_into_batches():
    graph, members = cliques(4, 5)
    plans = plans_of(Ibmb(batch_size=5, grouping="metis"), graph)
    assert sorted(sorted(plan.seeds.tolist()) for plan in epoch(plans)) == members


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_how_likely_a_node_is_in_a_batch(sampler):
    graph = AWKWARD["communities"]()
    plans = plans_of(SAMPLERS[sampler], graph)
    batches = epoch(plans)
    count = torch.zeros(12)
    for plan in batches:
        count[plan.node_id] += 1
    (share,) = plans.target_probability()
    torch.testing.assert_close(share, count / len(batches))


def cliques(groups, size):
    """Disjoint cliques whose members take turns in the numbering; all of them train."""
    members = [[g + groups * i for i in range(size)] for g in range(groups)]
    edges = [pair for group in members for pair in combinations(group, 2)]
    return build(edges, groups * size, list(range(groups * size)), undirected=True), members


def test_outputs_that_influence_each_other_share_a_batch():
    graph, members = cliques(4, 5)
    plans = plans_of(Ibmb(batch_size=5, order="fixed"), graph)
    assert [plan.seeds.tolist() for plan in epoch(plans)] == members
    # Two of four cliques fit: whole cliques still, and as few batches as possible.
    plans = plans_of(Ibmb(batch_size=11), graph)
    assert [len(plan.seeds) for plan in epoch(plans)] == [10, 10]
    for plan in epoch(plans):
        assert len({v % 4 for v in plan.seeds.tolist()}) == 2


def test_the_strongest_pairs_merge_first():
    """3 says half of what 1 hears, and 2 hears 0 alone; 0 and 1 are neighbours too, but weaker."""
    graph = build([(0, 1), (3, 1), (1, 0), (2, 0), (2, 0), (0, 2)], 4, [0, 1, 2, 3])
    plain = Propagation("none", False)
    rank = page_rank(graph, plain)
    assert rank[1, 3] > rank[2, 0] > max(rank[0, 1], rank[1, 0])
    plans = plans_of(Ibmb(batch_size=2, order="fixed"), graph, plain)
    assert [plan.seeds.tolist() for plan in epoch(plans)] == [[0, 2], [1, 3]]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", GRAPHS)
def test_the_mean_of_an_epochs_losses_is_the_mean_loss(name, sampler):
    graph = GRAPHS[name]()
    phi = seeded(graph.num_nodes, seed=2)
    batches = epoch(plans_of(SAMPLERS[sampler], graph))
    losses = [(plan.seed_weight.double() * phi[plan.seeds]).sum() for plan in batches]
    truth = phi[graph.split.train].mean()
    torch.testing.assert_close(torch.stack(losses).mean(), truth, rtol=1e-6, atol=1e-7)


def test_uneven_batches_are_told_from_a_mean_over_the_batch():
    """Negative control: batches of 3 and 2, so a plain mean over the batch is off."""
    graph = AWKWARD["directed"]()
    phi = torch.arange(11.0, dtype=torch.float64) ** 2
    batches = epoch(plans_of(Ibmb(batch_size=3), graph))
    assert len({len(plan.seeds) for plan in batches}) == 2
    wrong = torch.stack([phi[plan.seeds].mean() for plan in batches]).mean()
    assert abs(wrong - phi[graph.split.train].mean()) > 0.1


def gradients(plan, graph, model):
    model.zero_grad()
    logits = model(plan.batch(graph.x[plan.node_id], graph.y[plan.seeds])).logits[plan.rows]
    loss = torch.nn.functional.cross_entropy(logits, graph.y[plan.seeds], reduction="none")
    (loss * plan.seed_weight).sum().backward()
    return torch.cat([p.grad.flatten().clone() for p in model.parameters()])


def full_gradient(graph, model):
    from graphdyn.batch import full_batch

    batch = full_batch(graph, model.propagation)
    model.zero_grad()
    logits = model(batch).logits[batch.rows]
    torch.nn.functional.cross_entropy(logits, batch.y).backward()
    return torch.cat([p.grad.flatten().clone() for p in model.parameters()])


def test_no_variance_but_a_constant_bias():
    """Every epoch has the same mean gradient, and it is not the full one unless all nodes are aboard."""
    graph = AWKWARD["communities"]()
    model = GCN(graph.num_features, 3, layers=3, hidden=4, dropout=0.0).double()
    truth = full_gradient(graph, model)
    for aux, eps, exact in ((2, 1e-4, False), (12, 1e-9, True)):
        plans = plans_of(Ibmb(batch_size=2, aux=aux, eps=eps), graph)
        means = []
        for e in range(3):
            batches = epoch(plans, epochs=range(e, e + 1))
            means.append(torch.stack([gradients(p, graph, model) for p in batches]).mean(0))
        torch.testing.assert_close(means[0], means[1], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(means[0], means[2], rtol=1e-10, atol=1e-12)
        assert torch.allclose(means[0], truth, rtol=1e-5, atol=1e-6) == exact


def test_batches_are_kept_and_their_order_is_drawn():
    graph, _ = cliques(4, 5)
    plans = plans_of(Ibmb(batch_size=5), graph)
    orders, blocks = set(), set()
    for e in range(12):
        batches = epoch(plans, epochs=range(e, e + 1))
        orders.add(tuple(int(plan.seeds[0]) for plan in batches))
        blocks |= {id(plan.blocks[0]) for plan in batches}
    assert len(blocks) == 4
    assert len(orders) > 5
    fixed = plans_of(Ibmb(batch_size=5, order="fixed"), graph)
    assert {tuple(int(p.seeds[0]) for p in epoch(fixed, Key(s))) for s in range(5)} == {
        (0, 1, 2, 3)
    }


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", ["communities", "directed", "parallel"])
def test_p33_a_plan_is_a_function_of_its_key(name, sampler, monkeypatch):
    graph = GRAPHS[name]()
    plans = plans_of(SAMPLERS[sampler], graph)
    keys = [*plans.keys(Key(3), range(3))]
    expected = [plans.plan(key) for key in keys]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, pool.map(plans.plan, keys[::-1]), expected[::-1]))
    for module in (graphdyn.kernels.ppr, graphdyn.kernels.induced):
        monkeypatch.setattr(module, "compiled", lambda device: False)
    again = plans_of(pickle.loads(pickle.dumps(SAMPLERS[sampler])), graph)
    assert all(map(same, map(again.plan, keys), expected))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", GRAPHS)
def test_p36_inductive_plans_see_training_nodes_alone(name, sampler):
    graph = GRAPHS[name]()
    train = set(graph.split.train.tolist())
    inductive = Ibmb(**vars(SAMPLERS[sampler]) | {"inductive": True})
    for plan in epoch(plans_of(inductive, graph)):
        assert set(plan.node_id.tolist()) <= train


def test_any_nodes_can_be_outputs():
    """For inference: every node of the graph is an output of exactly one batch."""
    graph = AWKWARD["communities"]()
    batches = epoch(plans_of(Ibmb(batch_size=5), graph, nodes=torch.arange(12)))
    assert sorted(torch.cat([plan.seeds for plan in batches]).tolist()) == list(range(12))


def test_one_node():
    (plan,) = epoch(plans_of(Ibmb(batch_size=1), AWKWARD["single"]()))
    assert (plan.node_id.tolist(), plan.seed_weight.tolist()) == ([0], [1.0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "tsp"}, "unknown order of batches 'tsp'"),
        ({"aux": 0}, "aux is 0"),
        ({"grouping": "kmeans"}, "unknown grouping 'kmeans'"),
        ({"batch_size": 4}, "batch_size is 4, but there are 3 training nodes"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"eps": 0.0}, "eps is 0.0"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        plans_of(samplers.build("ibmb", **{"batch_size": 2, **options}), AWKWARD["star"]())
