"""Round trips through PyG and networkx, whose own functions judge the result."""

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from graphdyn.errors import InputError
from graphdyn.graph import Graph, Split
from graphdyn.sparse import Sparse


def dense(graph: Graph) -> np.ndarray:
    """Entry [v, u] is the weight of u -> v; parallel edges add up."""
    out = np.zeros((graph.num_nodes, graph.num_nodes))
    weight = np.ones(graph.num_edges) if graph.edge_weight is None else graph.edge_weight.numpy()
    np.add.at(out, (graph.csc.dst.numpy(), graph.csc.indices.numpy()), weight)
    return out


def directed_data(**more) -> Data:
    edge_index = torch.tensor([[3, 0, 1, 2, 0], [0, 1, 2, 2, 3]])
    return Data(edge_index=edge_index, x=torch.rand(5, 3), y=torch.tensor([0, 2, 1, 0, 2]), **more)


def test_pyg_data_keeps_direction_isolated_nodes_and_weights():
    data = directed_data(edge_weight=torch.arange(1.0, 6.0))
    graph = Graph.from_pyg(data)
    expected = np.zeros((5, 5))
    expected[data.edge_index[1], data.edge_index[0]] = np.arange(1.0, 6.0)
    np.testing.assert_array_equal(dense(graph), expected)
    assert graph.num_nodes == 5
    assert graph.num_classes == 3


@pytest.mark.parametrize("weighted", [False, True])
def test_pyg_round_trip_gives_the_same_graph(weighted):
    masks = {"train_mask": torch.tensor([1, 0, 0, 0, 1]), "val_mask": torch.tensor([0, 1, 0, 0, 0])}
    masks = {k: v.bool() for k, v in masks.items()} | {
        "test_mask": torch.tensor([0, 0, 1, 1, 0]) > 0
    }
    more = {"edge_weight": torch.rand(5)} if weighted else {}
    graph = Graph.from_pyg(directed_data(**masks, **more))
    again = Graph.from_pyg(graph.to_pyg())
    np.testing.assert_array_equal(dense(graph), dense(again))
    assert torch.equal(graph.x, again.x)
    assert torch.equal(graph.y, again.y)
    for one, two in zip(graph.split.parts().values(), again.split.parts().values(), strict=True):
        assert torch.equal(one, two)
    assert graph.split.train.tolist() == [0, 4]


def test_a_column_of_many_masks_is_chosen_by_number():
    mask = torch.eye(5).bool()
    data = directed_data(train_mask=mask, val_mask=mask.roll(1, 0), test_mask=mask.roll(2, 0))
    assert Graph.from_pyg(data).split.train.tolist() == [0]
    second = Graph.from_pyg(data, split=1).split
    assert second.train.tolist() == [1]
    assert second.id == "mask-1"
    with pytest.raises(InputError, match="hold 5 splits; there is no number 5"):
        Graph.from_pyg(data, split=5)


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_edge_attr_of_one_column_is_the_weight_and_of_many_is_left_out(shape):
    graph = Graph.from_pyg(directed_data(edge_attr=torch.arange(1.0, 6.0).view(shape)))
    assert sorted(graph.edge_weight.tolist()) == [1, 2, 3, 4, 5]
    assert Graph.from_pyg(directed_data(edge_attr=torch.ones(5, 2))).edge_weight is None


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_coo])
def test_adj_t_is_read_by_target(layout):
    from torch_geometric.transforms import ToSparseTensor

    data = directed_data()
    expected = dense(Graph.from_pyg(data))
    converted = ToSparseTensor(layout=layout)(data.clone())
    assert converted.get("edge_index") is None
    np.testing.assert_array_equal(dense(Graph.from_pyg(converted)), expected)


def test_adj_t_values_become_weights():
    from torch_geometric.transforms import ToSparseTensor

    data = directed_data(edge_weight=torch.arange(1.0, 6.0))
    expected = dense(Graph.from_pyg(data))
    converted = ToSparseTensor(attr="edge_weight", layout=torch.sparse_csr)(data.clone())
    np.testing.assert_array_equal(dense(Graph.from_pyg(converted)), expected)


def test_sparse_features_travel_as_torch_csr():
    x = torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [3.0, 4.0]])
    data = directed_data()
    data.x = x.to_sparse_csr()
    graph = Graph.from_pyg(data)
    assert isinstance(graph.x, Sparse)
    assert torch.equal(graph.x.to_dense(), x)
    assert torch.equal(graph.to_pyg().x.to_dense(), x)


@pytest.mark.parametrize(("shape", "task"), [((5, 1), "multiclass"), ((5, 3), "multilabel")])
def test_labels_of_one_column_are_classes_and_of_many_are_multilabel(shape, task):
    data = directed_data()
    data.y = torch.ones(shape).long()
    graph = Graph.from_pyg(data)
    assert graph.task == task
    assert graph.y.shape == ((5,) if task == "multiclass" else (5, 3))


def test_data_without_edges_or_with_a_foreign_adj_t_is_refused():
    with pytest.raises(InputError, match="neither edge_index nor adj_t"):
        Graph.from_pyg(Data(x=torch.ones(2, 1)))
    with pytest.raises(InputError, match="expected a torch sparse tensor"):
        Graph.from_pyg(Data(x=torch.ones(2, 1), adj_t=torch.ones(2, 2)))


def test_fields_given_by_hand_win():
    split = Split(torch.tensor([0]), torch.tensor([1]), torch.tensor([2]), "mine")
    graph = Graph.from_pyg(directed_data(), name="n", split=0, num_classes=9)
    assert graph.num_classes == 9
    assert graph.with_split(split).split.id == "mine"


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
def test_networkx_adjacency_agrees_with_networkx(kind):
    source = kind()
    source.add_nodes_from("abcd")
    source.add_weighted_edges_from([("a", "b", 2.0), ("c", "b", 0.5), ("d", "d", 3.0)])
    graph = Graph.from_networkx(source)
    # networkx puts u -> v in [u, v]; a target's row is ours.
    expected = nx.to_numpy_array(source, nodelist="abcd").T
    np.testing.assert_allclose(dense(graph), expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_networkx_round_trip_gives_the_same_graph(weighted):
    edge_index = torch.tensor([[0, 1, 1, 3], [1, 2, 1, 0]])
    weight = torch.tensor([1.0, 0.25, 2.0, 3.0]) if weighted else None
    graph = Graph.from_edge_index(
        edge_index, 5, edge_weight=weight, x=torch.rand(5, 2), y=torch.arange(5) % 2, num_classes=2
    )
    again = Graph.from_networkx(graph.to_networkx())
    np.testing.assert_array_equal(dense(graph), dense(again))
    assert torch.equal(graph.x, again.x)
    assert torch.equal(graph.y, again.y)
    assert (again.edge_weight is None) == (not weighted)


def test_parallel_edges_survive_as_a_multigraph():
    graph = Graph.from_edge_index(torch.tensor([[0, 0, 1], [1, 1, 0]]), 2)
    there = graph.to_networkx()
    assert isinstance(there, nx.MultiDiGraph)
    assert Graph.from_networkx(there).num_edges == 3


def test_a_networkx_attribute_that_only_some_nodes_have_is_refused():
    source = nx.path_graph(3)
    source.nodes[1]["y"] = 1
    with pytest.raises(InputError, match="2 of 3 nodes lack 'y'"):
        Graph.from_networkx(source)


def test_a_networkx_graph_without_edges_is_a_graph():
    source = nx.empty_graph(4)
    assert Graph.from_networkx(source).num_edges == 0
