"""Label propagation against dense algebra, and against the published figures."""

import pytest
import torch

from graphdyn.data import load
from graphdyn.errors import InputError
from graphdyn.graph import Graph, Split
from graphdyn.models.label_propagation import label_propagation, last_argmax


def triangle_and_tail(**fields):
    """0-1-2 joined in a triangle, 3 hanging on 2, 4 alone; nodes 0 and 3 are labelled for training."""
    edges = torch.tensor([[0, 0, 1, 2], [1, 2, 2, 3]])
    ids = [torch.tensor(part) for part in ([0, 3], [1], [2, 4])]
    y = torch.tensor([0, 0, 1, 1, 0])
    return Graph.from_edge_index(
        edges, 5, undirected=True, y=y, num_classes=2, split=Split(*ids), **fields
    )


@pytest.mark.parametrize("norm", ["column", "sym", "mean"])
def test_equals_dense_algebra(norm):
    a = torch.zeros(5, 5)
    for u, v in ((0, 1), (0, 2), (1, 2), (2, 3)):
        a[u, v] = a[v, u] = 1
    d = a.sum(1).clamp(min=1)
    left, right = {"column": (0, 1), "sym": (0.5, 0.5), "mean": (1, 0)}[norm]
    s = torch.diag(d**-left) @ a @ torch.diag(d**-right)
    start = torch.zeros(5, 2)
    start[0, 0] = start[3, 1] = 1
    z = start
    for _ in range(7):
        z = (0.6 * s @ z + 0.4 * start).clamp(0, 1)

    torch.testing.assert_close(
        label_propagation(triangle_and_tail(), alpha=0.6, rounds=7, norm=norm), z
    )
    assert not label_propagation(triangle_and_tail())[4].any()


def test_of_equal_scores_the_last_class_wins():
    assert last_argmax(
        torch.tensor([[0.5, 0.5, 0.1], [0.0, 0.0, 0.0], [0.9, 0.1, 0.0]])
    ).tolist() == [1, 2, 0]


def test_refusals():
    with pytest.raises(InputError, match=r"alpha is 1.5"):
        label_propagation(triangle_and_tail(), alpha=1.5)
    with pytest.raises(InputError, match="needs one class a node and a split"):
        label_propagation(Graph.from_edge_index(torch.tensor([[0], [1]]), 2))


@pytest.mark.dataset
def test_published_figures_on_ogbn_arxiv(data_root):
    graph = load("ogbn-arxiv-tape", data_root)
    guess = last_argmax(label_propagation(graph))
    right = [int((guess[p] == graph.y[p]).sum()) for p in (graph.split.valid, graph.split.test)]
    assert right == [20_900, 33_207]
