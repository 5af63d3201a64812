"""Graph: built, propagated and checked; every complaint names what is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import coalesce, to_undirected

from graphdyn.errors import InputError
from graphdyn.graph import Graph, Propagation, Split
from graphdyn.sparse import CSC, Sparse, compress


def ids(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def graph(**changes) -> Graph:
    """Four nodes, a loop, everything set."""
    fields = {
        "x": torch.rand(4, 3),
        "y": ids(0, 1, 2, 1),
        "num_classes": 3,
        "split": Split(ids(0), ids(1), ids(2, 3), "s"),
        "edge_weight": torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0]),
    }
    edges = torch.tensor([[0, 1, 2, 3, 3], [1, 2, 0, 0, 3]])
    return Graph.from_edge_index(edges, 4, **(fields | changes))


def random_edges(n=30, e=200, seed=0):
    rng = np.random.default_rng(seed)
    edges = torch.from_numpy(rng.integers(0, n, (2, e)))
    return edges, torch.from_numpy(rng.random(e).astype(np.float32))


def dense(g: Graph) -> torch.Tensor:
    return Sparse(g.csc, g.edge_weight).to_dense(torch.float64)


def test_edges_keep_their_direction_and_weights():
    g = graph()
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for u, v, w in [(0, 1, 1.0), (1, 2, 2.0), (2, 0, 0.5), (3, 0, 1.0), (3, 3, 3.0)]:
        expected[v, u] = w  # row v lists the sources of v
    assert torch.equal(dense(g), expected)
    assert (g.num_nodes, g.num_edges, g.num_features, g.num_classes) == (4, 5, 3, 3)
    assert set(map(tuple, g.edge_index.T.tolist())) == {(0, 1), (1, 2), (2, 0), (3, 0), (3, 3)}
    assert bool((g.edge_index[1].diff() >= 0).all())


@pytest.mark.parametrize("weighted", [False, True])
def test_undirected_equals_pyg(weighted):
    edges, weight = random_edges()
    got = Graph.from_edge_index(
        edges, 30, undirected=True, edge_weight=weight if weighted else None
    )
    if not weighted:
        assert torch.equal(dense(got), _matrix(to_undirected(edges)))
        return
    both = torch.cat([edges, edges.flip(0)], dim=1)
    index, value = coalesce(both, torch.cat([weight, weight]), reduce="mean")
    torch.testing.assert_close(dense(got), _matrix(index, value))


@pytest.mark.parametrize("weighted", [False, True])
def test_coalesce_adds_weights_as_pyg_does(weighted):
    edges, weight = random_edges()
    got = Graph.from_edge_index(edges, 30, coalesce=True, edge_weight=weight if weighted else None)
    index, value = coalesce(edges, weight, reduce="sum")
    torch.testing.assert_close(dense(got), _matrix(index, value if weighted else None))
    assert got.num_edges == index.shape[1]


def _matrix(index, value=None) -> torch.Tensor:
    out = torch.zeros(30, 30, dtype=torch.float64)
    ones = torch.ones(index.shape[1]) if value is None else value
    return out.index_put((index[1], index[0]), ones.double(), accumulate=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("self_loops", [False, True])
def test_symmetric_propagation_equals_pyg_and_dense_algebra(weighted, self_loops):
    edges, weight = random_edges()
    edges, weight = coalesce(edges, weight)
    weight = weight if weighted else None
    g = Graph.from_edge_index(edges, 30, edge_weight=weight)
    got = g.adjacency(Propagation("sym", self_loops)).to_dense()
    index, value = gcn_norm(edges, weight, 30, add_self_loops=self_loops)
    torch.testing.assert_close(got.double(), _matrix(index, value))
    a = dense(g)
    if self_loops:
        a += torch.diag((a.diagonal() == 0).double())
    d = a.sum(1)
    scale = torch.where(d > 0, d.rsqrt(), 0.0)
    torch.testing.assert_close(got.double(), scale[:, None] * a * scale, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("self_loops", [False, True])
def test_mean_propagation_has_rows_that_add_up_to_one(self_loops):
    edges, _ = random_edges(e=40)
    g = Graph.from_edge_index(edges, 30, coalesce=True)
    rows = g.adjacency(Propagation("mean", self_loops)).to_dense().sum(1)
    expected = torch.ones(30) if self_loops else (dense(g).sum(1) > 0).float()
    torch.testing.assert_close(rows, expected)


def test_propagation_without_norm_is_the_graph_itself_and_is_kept():
    g = graph(edge_weight=None)
    plain = g.adjacency(Propagation("none", False))
    assert plain.values is None
    assert plain.csc is g.csc
    assert g.adjacency(Propagation()) is g.adjacency(Propagation())
    with pytest.raises(InputError, match="unknown norm 'odd'"):
        g.adjacency(Propagation("odd"))  # pyright: ignore[reportArgumentType]


def test_a_graph_without_edges_propagates_itself():
    g = Graph.from_edge_index(torch.empty((2, 0), dtype=torch.int64), 3)
    assert torch.equal(g.adjacency(Propagation()).to_dense(), torch.eye(3))
    assert g.adjacency(Propagation("sym", False)).to_dense().abs().sum() == 0


def test_nodes_without_edges_count():
    assert Graph.from_edge_index(ids(0, 1).view(2, 1)).num_nodes == 2
    assert Graph.from_edge_index(ids(0, 1).view(2, 1), 9).num_nodes == 9


def test_with_split_and_to_change_nothing_else():
    g = graph()
    other = g.with_split(Split(ids(3), ids(2), ids(1)))
    assert other.csc is g.csc
    assert g.split.id == "s"
    assert g.to("cpu") is g
    moved = graph(node_attrs={"year": ids(1, 2, 3, 4)}).to("meta")
    tensors = (moved.x, moved.y, moved.edge_weight, moved.split.train, moved.node_attrs["year"])
    assert {t.device.type for t in tensors} == {"meta"} == {moved.device.type}


def test_a_graph_cannot_be_changed():
    with pytest.raises(AttributeError):
        graph().name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_repr_says_what_it_is():
    assert repr(graph()) == "Graph(graph: 4 nodes, 5 edges, 3 features, 3 classes, split s)"


NAN_ROW = torch.tensor([[1.0], [1.0], [float("nan")], [1.0]])

COMPLAINTS = [
    ({"x": torch.rand(3, 3)}, r"x has shape \(3, 3\); expected \(4, F\)"),
    ({"x": torch.rand(4)}, r"x has shape \(4,\); expected \(4, F\)"),
    ({"x": torch.ones(4, 2).long()}, r"x holds torch.int64; expected floating point"),
    ({"x": NAN_ROW}, "x of node 2 holds NaN or infinity"),
    ({"x": NAN_ROW.nan_to_num(float("inf"))}, "x of node 2 holds NaN or infinity"),
    ({"y": ids(0, 1, 3, 1)}, r"labels span 0\.\.3; expected 0\.\.2, or -1"),
    ({"y": ids(0, 1, -2, 1)}, r"labels span -2\.\.1"),
    ({"y": ids(0, 1)}, r"y is torch.int64 of shape \(2,\); expected \(4,\) integers"),
    ({"y": torch.rand(4)}, r"y is torch.float32 of shape \(4,\)"),
    ({"y": torch.rand(4, 3)}, r"y is torch.float32 of shape \(4, 3\)"),
    ({"y": torch.rand(4, 2), "task": "multilabel"}, r"y has shape \(4, 2\); expected \(4, 3\)"),
    ({"split": Split(ids(0), ids(4), ids(2))}, r"the valid split holds ids outside 0\.\.3"),
    ({"split": Split(ids(0), ids(1), ids(-1))}, r"the test split holds ids outside 0\.\.3"),
    ({"split": Split(ids(0, 0), ids(1), ids(2))}, "the train split lists a node twice"),
    ({"split": Split(ids(0, 2), ids(1), ids(2))}, "node 2 is in two splits"),
    ({"split": Split(ids(), ids(1), ids(2))}, "the training split is empty"),
    ({"y": ids(0, -1, 2, 1)}, "the valid split holds unlabelled nodes"),
    ({"edge_weight": torch.ones(4)}, r"edge_weight has shape \(4,\); expected \(5,\)"),
    ({"edge_weight": torch.tensor([1.0, 2, np.nan, 1, 1])}, "edge_weight holds NaN or infinity"),
]


@pytest.mark.parametrize(("changes", "message"), COMPLAINTS, ids=[m for _, m in COMPLAINTS])
def test_check_says_in_words_what_is_wrong(changes, message):
    with pytest.raises(InputError, match=message) as error:
        graph(**changes)
    assert "\n" not in str(error.value)


def test_nan_in_sparse_features_names_the_node():
    csc, _ = compress(np.array([0, 2, 1]), np.array([0, 1, 3]), 3, 4)
    bad = Sparse(csc, torch.tensor([1.0, 1.0, float("nan")]))
    with pytest.raises(InputError, match="x of node 3 holds NaN"):
        graph(x=bad)
    assert graph(x=Sparse(csc)).num_features == 3


def test_the_first_bad_row_is_found_beyond_the_first_piece():
    from graphdyn.graph import first_not_finite

    values = torch.zeros(100, 3)
    values[57, 2] = float("inf")
    values[90, 0] = float("nan")
    assert first_not_finite(values, chunk=12) == 57
    assert first_not_finite(values[:50], chunk=12) is None


@pytest.mark.parametrize(
    ("edges", "n", "message"),
    [
        (torch.tensor([[0, 4], [1, 2]]), 4, r"edge 1 is 4 -> 2, but node ids must lie in 0\.\.3"),
        (torch.tensor([[0, 1], [1, -1]]), 4, "edge 1 is 1 -> -1"),
        (torch.tensor([[0, 9], [9, 9]]), 4, r"3 endpoint\(s\) are out of range"),
        (torch.tensor([[0.0], [1.0]]), 2, "edge_index holds float32; expected integers"),
        (torch.tensor([0, 1]), 2, r"edge_index has shape \(2,\); expected \(2, E\)"),
        (torch.zeros((3, 2), dtype=torch.int64), 2, r"edge_index has shape \(3, 2\)"),
        (torch.empty((2, 0), dtype=torch.int64), None, "the graph has no nodes"),
    ],
)
def test_bad_edge_lists_are_named(edges, n, message):
    with pytest.raises(InputError, match=message):
        Graph.from_edge_index(edges, n)


def i32(*values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize(
    ("csc", "message"),
    [
        (CSC(i32(0, 1, 2), i32(0, 0), 3), "the structure is 2 x 3; it must be square"),
        (CSC(i32(0, 2, 1), i32(0, 0), 2), "indptr does not rise"),
        (CSC(i32(0, 1, 3), i32(0, 0), 2), "indptr does not rise"),
        (CSC(i32(1, 1, 2), i32(0, 0), 2), "indptr does not rise"),
        (CSC(i32(0, 1, 2), i32(0, 2), 2), r"an edge leaves the graph: node ids must lie in 0\.\.1"),
        (CSC(i32(0, 1, 2), i32(-1, 0), 2), "an edge leaves the graph"),
    ],
)
def test_a_broken_structure_is_named(csc, message):
    with pytest.raises(InputError, match=message):
        Graph(csc).check()


def test_unlabelled_nodes_outside_the_split_are_fine():
    g = graph(y=ids(0, 1, 2, -1), split=Split(ids(0), ids(1), ids(2)))
    assert g.check() is g
    many = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [float("nan")] * 3])
    assert replace(g, y=many, task="multilabel").check().num_classes == 3


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("norm", ["none", "sym", "mean", "column"])
@pytest.mark.parametrize("weighted", [False, True])
def test_propagation_matrices_of_a_directed_graph_equal_dense_algebra(norm, loops, weighted):
    edges = torch.tensor([[0, 0, 1, 3, 3, 2], [1, 2, 2, 0, 2, 2]])
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5, 4.0]) if weighted else torch.ones(6)
    graph = Graph.from_edge_index(edges, 5, edge_weight=weight if weighted else None)

    a = torch.zeros(5, 5, dtype=torch.float64)
    for (u, v), w in zip(edges.T.tolist(), weight.tolist()):
        a[v, u] += w
    if loops:
        a += torch.diag((a.diagonal() == 0).double())
    rows, columns = a.sum(1), a.sum(0)
    left, right = {
        "none": (torch.ones(5), torch.ones(5)),
        "sym": (rows.clamp(min=1e-300) ** -0.5, rows.clamp(min=1e-300) ** -0.5),
        "mean": (1 / rows.clamp(min=1e-300), torch.ones(5)),
        "column": (torch.ones(5), 1 / columns.clamp(min=1e-300)),
    }[norm]
    right = torch.where(rows > 0, right, 0) if norm == "sym" else right
    expected = left[:, None] * a * right[None, :]

    found = graph.adjacency(Propagation(norm, loops)).to_dense(torch.float64)

    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
