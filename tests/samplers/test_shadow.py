"""ShaDow: the root sees its ego graph and nothing else; the same scope in training and inference."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
import torch
from samplers.graphs import AWKWARD, hub
from samplers.oracles import matrix
from samplers.plans import same

import graphdyn.kernels.ego
import graphdyn.kernels.induced
from graphdyn.errors import InputError
from graphdyn.graph import Propagation
from graphdyn.kernels import dropout
from graphdyn.keys import Key
from graphdyn.models import GCN
from graphdyn.samplers import build
from graphdyn.samplers.shadow import Shadow

SCOPES = {
    "all": Shadow(batch_size=2, fanout=-1),
    "drawn": Shadow(batch_size=2, depth=3, fanout=2),
    "ppr": Shadow(batch_size=2, scope="ppr", top_k=4, eps=1e-6),
    "one": Shadow(batch_size=2, scope="ppr", top_k=1),
}
SYM, MEAN = Propagation(), Propagation("mean", self_loops=False)
GRAPHS = {name: make for name, make in AWKWARD.items() if name != "single"}


def plans_of(sampler, graph, propagation=SYM, nodes=None):
    return sampler.prepare(graph, propagation, 5, nodes=nodes)


def epoch(plans, key=Key(3), epochs=range(1)):
    return [plans.plan(k) for k in plans.keys(key, epochs)]


def scopes(plan):
    """Global ids of each root's ego graph, by root; and the rows that it has in the batch."""
    cuts = [*plan.rows.tolist(), plan.num_nodes]
    spans = [range(a, b) for a, b in pairwise(cuts)]
    return {
        root: (plan.node_id[list(span)], span) for root, span in zip(plan.seeds.tolist(), spans)
    }


@pytest.mark.parametrize("propagation", [SYM, MEAN], ids=["sym", "mean"])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_batch_is_the_disjoint_union_of_induced_subgraphs(name, scope, propagation):
    graph = GRAPHS[name]()
    full = matrix(graph, propagation)
    for plan in epoch(plans_of(SCOPES[scope], graph, propagation)):
        assert torch.equal(plan.node_id[plan.rows], plan.seeds)
        expected = torch.zeros(plan.num_nodes, plan.num_nodes, dtype=torch.float64)
        for nodes, span in scopes(plan).values():
            assert nodes.unique().numel() == nodes.numel()
            place = torch.tensor(list(span))
            expected[place[:, None], place] = full[nodes[:, None], nodes]
        (block,) = plan.blocks
        torch.testing.assert_close(
            block.adjacency.to_dense(torch.float64), expected, rtol=1e-6, atol=1e-7
        )
        csc = graph.adjacency(propagation).csc
        local, dst = block.adjacency.csc.indices.long(), block.adjacency.csc.dst.long()
        assert torch.equal(csc.indices[block.edge_id.long()].long(), plan.node_id[local])
        assert torch.equal(csc.dst[block.edge_id.long()].long(), plan.node_id[dst])
        assert block.scale is None


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAPHS)
def test_every_training_node_is_a_root_once_an_epoch(name, scope):
    graph = GRAPHS[name]()
    plans = plans_of(SCOPES[scope], graph)
    for e in range(2):
        batches = epoch(plans, epochs=range(e, e + 1))
        seeds = torch.cat([plan.seeds for plan in batches])
        assert sorted(seeds.tolist()) == graph.split.train.tolist()
        for plan in batches:
            assert plan.seed_weight.tolist() == [1 / len(plan.seeds)] * len(plan.seeds)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_whole_scope_is_breadth_first_search(name, depth):
    graph = GRAPHS[name]()
    backwards = nx.DiGraph(graph.edge_index.flip(0).t().tolist())
    backwards.add_nodes_from(range(graph.num_nodes))
    sampler = Shadow(batch_size=1, depth=depth, fanout=-1)
    for plan in epoch(plans_of(sampler, graph, nodes=torch.arange(graph.num_nodes))):
        ((root, (nodes, _)),) = scopes(plan).items()
        away = nx.single_source_shortest_path_length(backwards, root, cutoff=depth)
        assert set(nodes.tolist()) == set(away)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_scope_of_page_rank_holds_the_largest(name):
    """By the dense inverse of the model's own pattern, loops included; the root is always there."""
    graph, k = GRAPHS[name](), 4
    count = np.zeros((graph.num_nodes, graph.num_nodes))
    csc = graph.adjacency(SYM).csc
    np.add.at(count, (csc.dst.numpy(), csc.indices.numpy()), 1)
    rank = 0.25 * np.linalg.inv(np.eye(len(count)) - 0.75 * count / count.sum(1, keepdims=True))
    for plan in epoch(plans_of(SCOPES["ppr"], graph)):
        for root, (nodes, _) in scopes(plan).items():
            others = [v for v in nodes.tolist() if v != root]
            left = [v for v in range(len(count)) if v != root and v not in others]
            assert nodes[0] == root
            assert len(others) == min(k - 1, int((rank[root] > 1e-5).sum()) - 1)
            if others and left:
                assert rank[root, others].min() >= rank[root, left].max() - 1e-4


def deep_linear(graph):
    return GCN(graph.num_features, 2, layers=5, hidden=4, activation="none", dropout=0.5).double()


def outputs(model, plan, graph, x):
    model.eval()
    with torch.no_grad():
        batch = plan.batch(x[plan.node_id], graph.y[plan.seeds])
        return dict(zip(plan.seeds.tolist(), model(batch).logits[plan.rows]))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAPHS)
def test_p19_a_root_depends_on_its_ego_graph_alone(name, scope):
    """Five layers deep: features outside change nothing, to the bit; every node inside matters."""
    graph = GRAPHS[name]()
    model = deep_linear(graph)
    for plan in epoch(plans_of(SCOPES[scope], graph)):
        before = outputs(model, plan, graph, graph.x)
        for root, (nodes, _) in scopes(plan).items():
            inside = torch.zeros(graph.num_nodes, dtype=torch.bool)
            inside[nodes] = True
            x = torch.where(inside[:, None], graph.x, graph.x + 10)
            assert torch.equal(outputs(model, plan, graph, x)[root], before[root])
            if scope == "ppr" and name in ("directed", "weighted", "loops", "parallel"):
                continue  # a node may be in scope though the path that leads to the root is not
            for v in nodes.tolist():
                x = graph.x.clone()
                x[v] += 10
                assert not torch.equal(outputs(model, plan, graph, x)[root], before[root]), v


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAPHS)
def test_inference_has_the_scope_of_training(name, scope):
    """Whatever the batches are, all nodes at once included, a root has the same ego graph and output."""
    graph = GRAPHS[name]()
    model = deep_linear(graph)
    every = torch.arange(graph.num_nodes)
    (whole,) = epoch(
        plans_of(Shadow(**vars(SCOPES[scope]) | {"batch_size": len(every)}), graph, nodes=every)
    )
    known, answers = scopes(whole), outputs(model, whole, graph, graph.x)
    for plan in epoch(plans_of(SCOPES[scope], graph)):
        here = outputs(model, plan, graph, graph.x)
        for root, (nodes, _) in scopes(plan).items():
            assert torch.equal(nodes, known[root][0])
            torch.testing.assert_close(here[root], answers[root], rtol=1e-12, atol=1e-12)


def test_the_full_graph_is_another_model_unless_the_scope_reaches_all_layers():
    graph = AWKWARD["communities"]()
    full = torch.linalg.matrix_power(matrix(graph, SYM), 2) @ graph.x
    exact, cut = (Shadow(batch_size=12, depth=d, fanout=-1) for d in (3, 1))
    for sampler, close in ((exact, True), (cut, False)):
        (plan,) = epoch(plans_of(sampler, graph, nodes=torch.arange(12)))
        a = plan.blocks[0].adjacency.to_dense(torch.float64)
        out = (a @ a @ graph.x[plan.node_id])[plan.rows]
        assert torch.allclose(out, full[plan.seeds], atol=1e-6) == close


def test_copies_of_a_node_share_their_dropout_mask():
    (plan,) = epoch(plans_of(Shadow(batch_size=3), AWKWARD["clique"]()))
    ids = plan.node_id
    assert ids.unique().numel() < ids.numel()
    mask = dropout(torch.ones(len(ids), 64), 0.5, 9, ids)
    for v in ids.unique():
        assert (mask[ids == v] == mask[ids == v][0]).all()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", ["communities", "directed", "parallel"])
def test_p33_a_plan_is_a_function_of_its_key(name, scope, monkeypatch):
    graph = GRAPHS[name]()
    plans = plans_of(SCOPES[scope], graph)
    keys = [*plans.keys(Key(3), range(3))]
    expected = [plans.plan(key) for key in keys]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, pool.map(plans.plan, keys[::-1]), expected[::-1]))
    assert same(
        plans_of(pickle.loads(pickle.dumps(SCOPES[scope])), graph).plan(keys[2]), expected[2]
    )
    for module in (graphdyn.kernels.ego, graphdyn.kernels.induced):
        monkeypatch.setattr(module, "compiled", lambda device: False)
    assert all(map(same, map(plans.plan, keys), expected))


def test_draws_are_new_in_every_epoch_and_seed():
    plans = plans_of(Shadow(batch_size=3, fanout=1), AWKWARD["clique"]())
    found = {
        tuple(scopes(plan)[0][0].tolist())
        for seed in range(8)
        for plan in epoch(plans, Key(seed), range(2))
    }
    assert len(found) > 4


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAPHS)
def test_p36_inductive_plans_see_training_nodes_alone(name, scope):
    graph = GRAPHS[name]()
    train = set(graph.split.train.tolist())
    sampler = Shadow(**vars(SCOPES[scope]) | {"inductive": True})
    for plan in epoch(plans_of(sampler, graph)):
        assert set(plan.node_id.tolist()) <= train


def test_a_hub_is_cheap():
    """Depth 2 with 5 in-edges a node: at most 31 nodes, though the hub has 20,000 sources."""
    graph = hub(20_000)
    (plan,) = epoch(plans_of(Shadow(batch_size=8, fanout=5), graph))
    assert all(len(nodes) <= 31 for nodes, _ in scopes(plan).values())


def test_one_node():
    graph = AWKWARD["single"]()
    for scope in ("neighbor", "ppr"):
        (plan,) = epoch(plans_of(Shadow(batch_size=1, scope=scope), graph))
        assert (plan.node_id.tolist(), plan.rows.tolist()) == ([0], [0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "pr"}, "unknown scope 'pr'; did you mean ppr"),
        ({"depth": 0}, "depth is 0"),
        ({"fanout": 0}, "fanout is 0"),
        ({"fanout": -2}, "fanout is -2"),
        ({"top_k": 0}, "top_k is 0"),
        ({"batch_size": 4}, "batch_size is 4, but there are 3 training nodes"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"scope": "ppr", "alpha": 0.0}, "alpha is 0.0"),
        ({"scope": "ppr", "eps": 0.0}, "eps is 0.0"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        plans_of(build("shadow", **{"batch_size": 2, **options}), AWKWARD["star"]())
