"""Push against the dense inverse; exact integers make back-ends, threads and orders agree to the bit."""

import numpy as np
import pytest
import torch
from samplers.graphs import AWKWARD, hub

from graphdyn.errors import InputError
from graphdyn.graph import Graph
from graphdyn.kernels import ppr as module
from graphdyn.kernels import threads
from graphdyn.kernels.ppr import ppr

SETTINGS = [(0.25, 2e-4), (0.15, 1e-2), (0.5, 1e-7), (1.0, 0.1), (0.05, 1e-3)]


def dense(graph, alpha):
    """(N, N) float64 PageRank rows of the walk against the edges, and (N,) in-degrees."""
    n = graph.num_nodes
    count = np.zeros((n, n))
    src, dst = graph.edge_index.numpy()
    np.add.at(count, (dst, src), 1)
    degree = count.sum(1)
    walk = np.where(degree[:, None] > 0, count / np.maximum(degree, 1)[:, None], np.eye(n))
    return alpha * np.linalg.inv(np.eye(n) - (1 - alpha) * walk), degree


def as_matrix(rows, n):
    out = np.zeros((rows.indptr.numel() - 1, n))
    out[np.repeat(np.arange(len(out)), rows.indptr.diff().numpy()), rows.node] = rows.mass
    return out


def random_graph(undirected):
    edges = np.random.default_rng(4).integers(0, 70, (2, 260))
    return Graph.from_edge_index(edges, 80, undirected=undirected)


GRAPHS = AWKWARD | {
    "random": lambda: random_graph(False),
    "random-undirected": lambda: random_graph(True),
}


def is_undirected(graph):
    forward = set(map(tuple, graph.edge_index.t().tolist()))
    return forward == {(v, u) for u, v in forward}


@pytest.mark.parametrize(("alpha", "eps"), SETTINGS)
@pytest.mark.parametrize("name", GRAPHS)
def test_push_is_a_lower_bound_within_eps(name, alpha, eps):
    graph = GRAPHS[name]()
    truth, degree = dense(graph, alpha)
    rows = ppr(graph.csc, torch.arange(graph.num_nodes), alpha=alpha, eps=eps)
    found = as_matrix(rows, graph.num_nodes)
    gap = truth - found
    assert gap.min() > -1e-12
    missing = 1 - found.sum(1)
    assert missing.max() <= eps * (degree.sum() + (degree == 0).sum()) + 1e-12
    assert (found.diagonal() >= alpha - 1e-12).all()
    if is_undirected(graph):
        # A root always pushes, so the bound on its own residual holds for it as well.
        assert (gap - eps * np.maximum(degree, 1)).max() <= 1e-12


def test_the_walk_goes_against_the_edges():
    """0 -> 1 -> 2: node 2 reads from 1 and 0; node 0 reads from nobody. The transpose must not pass."""
    graph = Graph.from_edge_index(torch.tensor([[0, 1], [1, 2]]), 3)
    found = as_matrix(ppr(graph.csc, torch.arange(3), alpha=0.5, eps=1e-9), 3)
    expected = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]])
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert not np.allclose(found, expected.T, atol=0.1)


@pytest.mark.parametrize("top_k", [1, 3, 1000])
def test_the_largest_entries_in_order(top_k):
    graph = random_graph(True)
    roots = torch.tensor([5, 0, 69])
    every, some = ppr(graph.csc, roots), ppr(graph.csc, roots, top_k=top_k)
    full, kept = as_matrix(every, 80), as_matrix(some, 80)
    for i in range(3):
        mass = some.mass[some.indptr[i] : some.indptr[i + 1]].tolist()
        node = some.node[some.indptr[i] : some.indptr[i + 1]].tolist()
        best = sorted((-m, v) for v, m in enumerate(full[i]) if m > 0)[:top_k]
        assert list(zip(mass, node)) == [(-m, v) for m, v in best]
        assert kept[i].sum() == pytest.approx(-sum(m for m, _ in best))


def test_room_changes_nothing(monkeypatch):
    """Roots are taken a few at a time where rows may be long."""
    graph = random_graph(False)
    roots = torch.arange(80)
    together = ppr(graph.csc, roots, eps=1e-5)
    for room in (1, 500):
        monkeypatch.setattr(module, "_ROOM", room)
        apart = ppr(graph.csc, roots, eps=1e-5)
        assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))


def test_ties_go_to_the_smallest_id():
    star = AWKWARD["star"]()
    rows = ppr(star.csc, torch.tensor([0]), top_k=4)
    assert rows.node.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("top_k", [-1, 2])
def test_torch_agrees_to_the_bit(name, top_k, monkeypatch):
    graph = GRAPHS[name]()
    roots = torch.arange(graph.num_nodes).flip(0)
    rows = [ppr(graph.csc, roots, alpha=a, eps=e, top_k=top_k) for a, e in SETTINGS]
    monkeypatch.setattr(module, "compiled", lambda device: False)
    for (alpha, eps), ours in zip(SETTINGS, rows):
        theirs = ppr(graph.csc, roots, alpha=alpha, eps=eps, top_k=top_k)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_threads_change_nothing(monkeypatch):
    graph = random_graph(False)
    roots = torch.arange(80)
    alone = ppr(graph.csc, roots, top_k=8)
    monkeypatch.setattr(threads, "SERIAL", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    together = ppr(graph.csc, roots, top_k=8)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_a_root_below_the_threshold_pushes_all_the_same():
    """With eps = 1 no residual reaches the threshold of a node of degree above 1."""
    star = AWKWARD["star"]()
    rows = ppr(star.csc, torch.tensor([0]), alpha=0.5, eps=1.0)
    assert (rows.node.tolist(), rows.mass.tolist()) == ([0], [0.5])


@pytest.mark.parametrize("numba", [True, False])
def test_a_residual_at_the_threshold_pushes(numba, monkeypatch):
    """By hand on a path: node 1 has degree 2 and is left with exactly 2 eps."""
    monkeypatch.setattr(module, "compiled", lambda device: numba)
    rows = ppr(AWKWARD["path"]().csc, torch.tensor([0]), alpha=0.5, eps=0.25)
    assert (rows.node.tolist(), rows.mass.tolist()) == ([0, 1], [0.5, 0.25])


@pytest.mark.parametrize("numba", [True, False])
def test_a_threshold_beyond_64_bits_is_no_small_one(numba, monkeypatch):
    """eps times the degree of the hub is 2^64 + 2^15 units: nobody pushes but the root."""
    monkeypatch.setattr(module, "compiled", lambda device: numba)
    rows = ppr(hub(1 << 15).csc, torch.tensor([1]), alpha=0.5, eps=0.5 + 2.0**-50)
    assert (rows.node.tolist(), rows.mass.tolist()) == ([1], [0.5])


def test_no_roots():
    rows = ppr(AWKWARD["star"]().csc, torch.zeros(0, dtype=torch.int64))
    assert (rows.indptr.tolist(), rows.node.numel()) == ([0], 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"eps": 0.0}, "eps is 0.0"),
        ({"eps": 2.0}, "eps is 2.0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": -2}, "top_k is -2"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(InputError, match=message):
        ppr(AWKWARD["star"]().csc, torch.tensor([0]), **options)
