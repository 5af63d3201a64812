"""Cluster-GCN: exact over every choice of parts, METIS on awkward graphs, what is published is biased."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracles
import pytest
import torch
from samplers.graphs import AWKWARD, build
from samplers.oracles import matrix, replicate
from samplers.outcomes import (
    dense,
    expect,
    loss_weight,
    relative_error,
    same_plan,
    subsets,
    together,
)

from graphdyn.errors import InputError
from graphdyn.graph import Graph, Propagation
from graphdyn.kernels import backend
from graphdyn.keys import Key
from graphdyn.samplers import Cluster
from graphdyn.samplers.partition import partition
from graphdyn.samplers.parts import PartPlans, cross_scale
from graphdyn.samplers.sampler import Task
from graphdyn.samplers.subgraph import Ground
from graphdyn.samplers.undirected import simple_graph

SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)
LARGE = {name: make for name, make in AWKWARD.items() if make().num_nodes >= 5}


def labels(n, parts=5):
    """Parts of unequal size, interleaved."""
    return torch.tensor([(v * v) % 11 % parts for v in range(n)]).unique(return_inverse=True)[1]


def grouped(part):
    return [tuple(torch.nonzero(part == p).flatten().tolist()) for p in range(int(part.max()) + 1)]


def bind(graph, drawn=2, estimator="ht", propagation=SYM, part=None, **options):
    ground = Ground.of(Task(graph, propagation, 1, None, Key(0)), inductive=False)
    part = labels(graph.num_nodes) if part is None else part
    return PartPlans(ground, estimator, part, drawn, **options)


@pytest.mark.parametrize("drawn", [2, 3, 4])
@pytest.mark.parametrize("name", LARGE)
def test_p16_the_scale_is_exact_over_all_choices(name, drawn):
    graph = LARGE[name]()
    n, part = graph.num_nodes, labels(graph.num_nodes)
    groups = grouped(part)
    c, drawn = len(groups), min(drawn, len(groups))
    a, same = matrix(graph, SYM), part[:, None] == part[None]
    both = together(subsets(groups, drawn), n)
    given = both / both.diagonal()[:, None]
    assert (a * torch.where(same, 1, cross_scale(c, drawn)) * given - a).abs().max() < 1e-12
    # Negative control: the inverse of the share that is drawn, on all edges or on those between parts.
    crossing = bool((a[~same] != 0).any())
    assert (
        drawn == c
        or not crossing
        or not torch.allclose(a * torch.where(same, 1, c / drawn) * given, a, atol=1e-3)
    )


@pytest.mark.parametrize("propagation", [SYM, MEAN], ids=["sym", "mean"])
@pytest.mark.parametrize("name", LARGE)
def test_p16_plans_are_unbiased_over_all_choices(name, propagation):
    graph = LARGE[name]()
    groups = grouped(labels(graph.num_nodes))
    plans = bind(graph, 2, propagation=propagation)
    for drawn in (2, 3):  # whatever a step's size is, its weights are its own
        rows, weight = expect(plans, subsets(groups, drawn), graph.num_nodes)
        torch.testing.assert_close(rows, matrix(graph, propagation), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weight, loss_weight(graph), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("estimator", ["unit", "published"])
@pytest.mark.parametrize("name", ["star", "clique", "communities", "directed"])
def test_without_scales_rows_are_biased(name, estimator):
    graph = LARGE[name]()
    plans, groups = bind(graph, estimator=estimator), grouped(labels(graph.num_nodes))
    rows, _ = expect(plans, subsets(groups, 2), graph.num_nodes)
    assert relative_error(rows, matrix(graph, SYM)) > 0.1


def test_the_mean_loss_of_a_batch_favours_parts_with_few_training_nodes():
    graph = build([(v, (v + 1) % 12) for v in range(12)], 12, [0, 1, 2, 3, 4, 8], undirected=True)
    part = torch.arange(12) // 4
    outcomes = subsets(grouped(part), 1)
    _, weight = expect(bind(graph, 1, "published", part=part), outcomes, 12)
    assert weight[[0, 4, 8]].tolist() == pytest.approx([1 / 12, 1 / 3, 1 / 3])
    _, weight = expect(bind(graph, 1, "unit", part=part), outcomes, 12)
    torch.testing.assert_close(weight, loss_weight(graph))


@pytest.mark.parametrize("parts", range(1, 10))
@pytest.mark.parametrize("estimator", ["ht", "published"])
@pytest.mark.parametrize("drawn", [1, 2, 3, 4])
def test_every_part_once_an_epoch_whatever_divides_what(parts, estimator, drawn):
    graph = build([(v, (v + 1) % 9) for v in range(9)], 9, list(range(9)), undirected=True)
    part = torch.arange(9) % parts
    if drawn == 1 < parts and estimator == "ht":
        return
    plans = bind(graph, drawn, estimator, part=part)
    for epoch in range(2):
        members = [plans.draw(key) for key in plans.keys(Key(2), range(epoch, epoch + 1))]
        units = [m.units for m in members]
        assert torch.cat([m.node_id for m in members]).sort().values.tolist() == list(range(9))
        assert [len(part[m.node_id].unique()) for m in members] == units
        assert sum(units) == parts
        assert max(units) - min(units) <= 1
        assert estimator != "ht" or min(units) > 1 or parts == 1
        assert max(units) <= max(drawn, 3 if drawn == 2 else 0)
        assert (plans.target_probability()[0] == torch.tensor(1 / len(units))).all()
    assert plans.num_batches == len(units)


def test_the_weights_of_a_short_step_are_its_own():
    """7 parts, 3 a batch: 2, 2 and 3; with the factor of 3 parts the short ones would be biased."""
    graph = LARGE["clique"]()
    graph = build([(u, v) for u in range(7) for v in range(u)], 7, [0, 3], undirected=True)
    plans = bind(graph, 3, part=torch.arange(7))
    sizes = [plans.draw(key).units for key in plans.keys(Key(0), range(1))]
    assert sorted(sizes) == [2, 2, 3]
    for units in (2, 3):
        outcomes = subsets([(v,) for v in range(7)], units)
        rows, weight = expect(plans, outcomes, 7)
        torch.testing.assert_close(rows, matrix(graph, SYM), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(weight, loss_weight(graph), rtol=1e-5, atol=1e-7)
    wrong = [(p, nodes, 3) for p, nodes, _ in subsets([(v,) for v in range(7)], 2)]
    rows, weight = expect(plans, wrong, 7)
    assert relative_error(rows, matrix(graph, SYM)) > 0.2
    assert relative_error(weight, loss_weight(graph)) > 0.2


@pytest.mark.parametrize("name", AWKWARD)
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_metis_cuts_awkward_graphs(name, parts):
    graph = AWKWARD[name]()
    if parts > graph.num_nodes:
        return
    plans = Cluster(parts, min(parts, 2)).prepare(graph, SYM, 2, key=Key(1))
    batches = [plans.plan(key) for key in plans.keys(Key(1), range(1))]
    seen = torch.cat([plan.node_id for plan in batches])
    assert seen.sort().values.tolist() == list(range(graph.num_nodes))
    seeds = torch.cat([plan.seeds for plan in batches])
    assert seeds.sort().values.tolist() == graph.split.train.tolist()
    again = Cluster(parts, min(parts, 2)).prepare(graph, SYM, 2, key=Key(1))
    assert torch.equal(plans.part, again.part)


@pytest.mark.parametrize("parts", [30, 39, 40])
def test_empty_parts_are_left_out(parts):
    rng = np.random.default_rng(0)
    graph = Graph.from_edge_index(rng.integers(0, 40, (2, 30)), 40, undirected=True)
    part = partition(simple_graph(graph.csc), parts, Key(0))
    assert len(part) == 40
    assert part.unique().tolist() == list(range(int(part.max()) + 1))
    assert (int(part.max()) + 1 == parts) == (parts == 40)  # then every node is one


def test_metis_finds_communities():
    groups = torch.arange(80) // 20
    edges = [(u, v) for u in range(80) for v in range(u) if groups[u] == groups[v]]
    graph = build([*edges, (0, 20), (20, 40), (40, 60)], 80, [0], undirected=True)
    part = partition(simple_graph(graph.csc), 4, Key(0))
    assert len(torch.unique(torch.stack([groups, part]), dim=1).T) == 4


@pytest.mark.parametrize("parts", [4, 8, 20])
def test_training_nodes_are_spread_over_parts(parts):
    """All of them lie in one stretch of a ring; parts there are made smaller."""
    edges = [(v, (v + k) % 400) for v in range(400) for k in (1, 2)]
    graph = build(edges, 400, list(range(80)), undirected=True)
    most = []
    for balance in (False, True):
        plans = Cluster(parts, 2, balance=balance).prepare(graph, SYM, 2, key=Key(0))
        most.append(int(torch.bincount(plans.part[graph.split.train]).max()))
    assert most[1] <= 0.75 * most[0]


def test_the_key_seeds_metis():
    rng = np.random.default_rng(1)
    graph = Graph.from_edge_index(rng.integers(0, 1000, (2, 3000)), 1000, undirected=True)
    csc = simple_graph(graph.csc)
    assert torch.equal(partition(csc, 20, Key(1)), partition(csc, 20, Key(1)))
    assert not torch.equal(partition(csc, 20, Key(1)), partition(csc, 20, Key(2)))


@pytest.mark.parametrize("name", AWKWARD)
def test_the_simple_graph_is_symmetric_without_loops(name):
    graph = AWKWARD[name]()
    out, n = simple_graph(graph.csc), graph.num_nodes
    adjacency = torch.zeros(n, n)
    adjacency[out.dst.long(), out.indices.long()] += 1
    truth = torch.zeros(n, n)
    for u, v in graph.edge_index.t().tolist():
        truth[u, v] = truth[v, u] = float(u != v)
    assert torch.equal(adjacency, truth)
    assert out.num_edges == truth.sum()


def test_many_parallel_edges_are_one():
    graph = Graph.from_edge_index(torch.tensor([[0] * 512, [1] * 512]), 2)
    assert simple_graph(graph.csc).indices.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["star", "loops", "parallel", "weighted"])
def test_the_diagonal_is_that_of_the_paper(name):
    """A~ + lambda diag(A~) with A~ = (D + I)^-1 (A + I) of the batch."""
    graph, mean = AWKWARD[name](), Propagation("mean", self_loops=True)
    plans = Cluster(3, 2, estimator="published", diagonal=0.7).prepare(graph, mean, 2)
    for plan in replicate(plans, plans.num_batches):
        nodes = plan.node_id
        place = torch.full((graph.num_nodes,), -1).scatter(0, nodes, torch.arange(len(nodes)))
        edges = place[graph.edge_index]
        inside = (edges >= 0).all(0)
        weight = None if graph.edge_weight is None else graph.edge_weight[inside]
        a = oracles.adjacency(edges[:, inside], len(nodes), "mean", True, weight)
        truth = a + 0.7 * torch.diag(a.diagonal())
        found = dense(plan.blocks[0], graph.num_nodes)[nodes][:, nodes]
        torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-7)


def test_p36_inductive_parts_hold_training_nodes_alone():
    graph = AWKWARD["communities"]()
    train = graph.split.train.tolist()
    plans = Cluster(3, 2, inductive=True).prepare(graph, SYM, 2)
    batches = [plans.plan(key) for key in plans.keys(Key(1), range(1))]
    assert torch.cat([plan.node_id for plan in batches]).sort().values.tolist() == train
    assert plans.target_probability()[0].nonzero().flatten().tolist() == train
    groups = grouped(plans.part)
    rows, weight = expect(plans, subsets(groups, 2), graph.num_nodes)
    kept = graph.edge_index[:, torch.isin(graph.edge_index, graph.split.train).all(0)]
    truth = oracles.adjacency(kept, graph.num_nodes)
    torch.testing.assert_close(rows[train], truth[train], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight, loss_weight(graph), rtol=1e-5, atol=1e-7)


def test_a_batch_without_training_nodes_has_no_loss():
    graph = build([(v, (v + 1) % 8) for v in range(8)], 8, [0, 1], undirected=True)
    for estimator in ("unit", "published"):
        plans = bind(graph, 1, estimator, part=torch.arange(8) // 4)
        plan = next(p for p in replicate(plans, 2) if 0 not in p.node_id)
        assert plan.seeds.tolist() == plan.rows.tolist() == plan.seed_weight.tolist() == []


@pytest.mark.parametrize("estimator", ["ht", "unit", "published"])
def test_p33_the_same_plan_on_numba_torch_and_any_number_of_threads(estimator, monkeypatch):
    for name in LARGE:
        sampler = Cluster(4, 2, estimator=estimator)
        plans = sampler.prepare(LARGE[name](), SYM, 2)
        keys = list(plans.keys(Key(4), range(2)))
        alone = [plans.plan(key) for key in keys]
        with ThreadPoolExecutor(4) as pool:
            shared = list(pool.map(plans.plan, reversed(keys)))
        assert all(same_plan(a, b) for a, b in zip(alone, reversed(shared)))
        with monkeypatch.context() as patch:
            patch.setattr(backend, "_numba", lambda: False)
            plain = sampler.prepare(LARGE[name](), SYM, 2)
            assert all(same_plan(a, plain.plan(key)) for a, key in zip(alone, keys))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": 0}, "parts is 0"),
        ({"parts": 11, "parts_per_batch": 2}, "10 nodes to cut"),
        ({"parts": 4, "parts_per_batch": 2, "inductive": True}, "3 nodes to cut"),
        ({"parts": 4, "parts_per_batch": 0}, "parts_per_batch is 0"),
        ({"parts": 4, "parts_per_batch": 5}, "there are 4 parts"),
        ({"parts": 4, "parts_per_batch": 1}, "'published' or 'unit'"),
        ({"parts": 4, "parts_per_batch": 2, "estimator": "hajek"}, "unknown estimator"),
        ({"parts": 4, "parts_per_batch": 2, "diagonal": 1.0}, "only 'published' adds it"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(InputError, match=words):
        Cluster(**options).prepare(AWKWARD["star"](), SYM, 2)


def test_a_diagonal_of_zero_cannot_be_raised():
    sampler = Cluster(4, 2, estimator="published", diagonal=1.0)
    with pytest.raises(InputError, match="self-loops"):
        sampler.prepare(AWKWARD["star"](), MEAN, 2)


def test_more_parts_than_nodes_are_refused_by_the_partition():
    with pytest.raises(InputError, match="give 1 to 10"):
        partition(simple_graph(AWKWARD["star"]().csc), 11, Key(0))
