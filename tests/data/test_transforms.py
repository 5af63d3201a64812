"""Transforms against PyG's and networkx's own."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.transforms import NormalizeFeatures

from graphdyn.data import (
    binarize,
    induced_subgraph,
    largest_component,
    remove_self_loops,
    row_normalize,
    to_undirected,
)
from graphdyn.errors import InputError
from graphdyn.graph import Graph, Split
from graphdyn.sparse import Sparse


def sample(seed=0, sparse=False, weight=False) -> Graph:
    rng = np.random.default_rng(seed)
    edges = torch.from_numpy(rng.integers(0, 30, (2, 25)))
    x = torch.from_numpy((rng.random((30, 6)) * (rng.random((30, 6)) < 0.5) * 3).astype(np.float32))
    x[3] = 0.0
    features = Sparse.from_scipy(__import__("scipy.sparse").sparse.csr_array(x)) if sparse else x
    split = Split(torch.arange(10), torch.arange(10, 20), torch.arange(20, 30), "s")
    more = {"edge_weight": torch.from_numpy(rng.random(25).astype(np.float32))} if weight else {}
    y = torch.arange(30) % 3
    return Graph.from_edge_index(edges, 30, x=features, y=y, num_classes=3, split=split, **more)


def dense(graph: Graph) -> np.ndarray:
    out = np.zeros((graph.num_nodes, graph.num_nodes))
    weight = 1.0 if graph.edge_weight is None else graph.edge_weight.numpy()
    np.add.at(out, (graph.csc.dst.numpy(), graph.csc.indices.numpy()), weight)
    return out


@pytest.mark.parametrize("sparse", [False, True])
def test_row_normalize_equals_pyg(sparse):
    graph = sample(sparse=sparse)
    x = graph.x.to_dense() if sparse else graph.x
    expected = NormalizeFeatures()(graph.to_pyg().update({"x": x.clone()})).x
    got = row_normalize(graph).x
    torch.testing.assert_close(got.to_dense() if sparse else got, expected)
    assert torch.equal(x, sample().x)  # the graph that was given stays


@pytest.mark.parametrize("sparse", [False, True])
def test_binarize_keeps_where_features_are_not_zero(sparse):
    graph = sample(sparse=sparse)
    x = graph.x.to_dense() if sparse else graph.x
    got = binarize(graph).x
    assert torch.equal(got.to_dense() if sparse else got, (x != 0).float())
    if sparse:
        kept = Sparse(graph.x.csc, None)  # all ones
        assert binarize(Graph(graph.csc, kept)).x.values is None
    with pytest.raises(InputError, match="has no features"):
        binarize(Graph(graph.csc))


def test_row_normalize_needs_features_that_are_not_negative():
    graph = sample()
    with pytest.raises(InputError, match="has no features"):
        row_normalize(Graph(graph.csc))
    for x in (-graph.x, Sparse(graph.csc, -torch.ones(graph.num_edges))):
        with pytest.raises(InputError, match="negative"):
            row_normalize(Graph(graph.csc, x))


def test_to_undirected_is_the_union_with_the_transpose():
    a = dense(sample()) > 0
    np.testing.assert_array_equal(dense(to_undirected(sample())), (a | a.T).astype(float))


def test_remove_self_loops_clears_the_diagonal_only():
    graph = sample(weight=True)
    a = dense(graph)
    assert np.trace(a) > 0
    np.fill_diagonal(a, 0)
    np.testing.assert_allclose(dense(remove_self_loops(graph)), a)


@pytest.mark.parametrize("weight", [False, True])
def test_largest_component_agrees_with_networkx(weight):
    graph = sample(weight=weight)
    nodes = sorted(max(nx.weakly_connected_components(graph.to_networkx()), key=len))
    part = largest_component(graph)
    assert part.node_attrs["node_id"].tolist() == nodes
    np.testing.assert_allclose(dense(part), dense(graph)[np.ix_(nodes, nodes)])
    assert torch.equal(part.x, graph.x[nodes])
    assert torch.equal(part.y, graph.y[nodes])
    for name, ids in part.split.parts().items():
        kept = [nodes.index(v) for v in getattr(graph.split, name).tolist() if v in nodes]
        assert ids.tolist() == kept


def test_induced_subgraph_takes_any_order_and_sparse_features():
    graph = sample(sparse=True)
    nodes = torch.tensor([7, 0, 29, 12])
    part = induced_subgraph(graph.with_split(None), nodes)
    np.testing.assert_array_equal(dense(part), dense(graph)[np.ix_(nodes, nodes)])
    assert torch.equal(part.x.to_dense(), graph.x.to_dense()[nodes])
    twice = induced_subgraph(part, torch.tensor([2, 1]))
    assert twice.node_attrs["node_id"].tolist() == [29, 0]  # ids of the first graph
