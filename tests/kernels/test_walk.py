"""Random walks: uniform steps, Numba and torch the same integers, counts against plain sets."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from graphdyn.graph import Graph
from graphdyn.kernels import torch_walk
from graphdyn.kernels.walk import count_later, walk
from graphdyn.keys import Key
from graphdyn.samplers.undirected import simple_graph
from graphdyn.sparse import CSC

N = 60


def pattern(seed=0, edges=120, n=N) -> CSC:
    """Random; the last nodes have no neighbours."""
    pairs = np.random.default_rng(seed).integers(0, n - 4, (2, edges))
    return simple_graph(Graph.from_edge_index(pairs, n).csc)


def empty() -> CSC:
    return CSC(torch.zeros(N + 1, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), N)


PATTERNS = {
    "random": pattern(),
    "int64": CSC(pattern().indptr.long(), pattern().indices.long(), N),
    "no edges": empty(),
}


def roots(count=500):
    return torch.arange(count) * 7 % N


@pytest.mark.parametrize("length", [0, 1, 4])
@pytest.mark.parametrize("name", PATTERNS)
def test_numba_and_torch_walk_alike(name, length):
    csc = PATTERNS[name]
    ours = walk(csc, roots(), length, Key(3).bits)
    assert torch.equal(ours, torch_walk.walk(csc, roots(), length, Key(3).bits))
    assert torch.equal(ours[:, 0], roots())
    rows = [set(csc.indices[csc.indptr[v] : csc.indptr[v + 1]].tolist()) for v in range(N)]
    for path in ours.tolist():
        for v, to in pairwise(path):
            assert to in rows[v] if rows[v] else to == v


def test_a_walk_depends_on_its_number_and_root_alone():
    csc = PATTERNS["random"]
    long = walk(csc, roots(), 4, Key(3).bits)
    assert torch.equal(walk(csc, roots(100), 2, Key(3).bits), long[:100, :3])
    assert not torch.equal(walk(csc, roots(), 4, Key(4).bits), long)


def test_steps_are_uniform_and_independent():
    n = 8
    clique = simple_graph(
        Graph.from_edge_index(torch.combinations(torch.arange(n)).t().contiguous(), n).csc
    )
    paths = walk(clique, torch.zeros(40_000, dtype=torch.int64), 2, Key(1).bits)
    counts = Counter(map(tuple, paths.tolist()))
    assert len(counts) == 49
    expected = 40_000 / 49
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < chi2.isf(1e-6, 48)


def count_by_hand(csc, walks):
    node, edge = Counter(), Counter()
    pairs = {}
    for v in range(csc.num_dst):
        for e in range(int(csc.indptr[v]), int(csc.indptr[v + 1])):
            pairs[int(csc.indices[e]), v] = e
    for path in walks.tolist():
        met, first = set(path), set(path[:2])
        node.update(met - first)
        edge.update(e for (u, v), e in pairs.items() if u < v and {u, v} <= met and {u, v} != first)
    return [node[v] for v in range(csc.num_dst)], [edge[e] for e in range(csc.num_edges)]


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("name", PATTERNS)
def test_counts_are_those_of_plain_sets(name, length):
    csc = PATTERNS[name]
    walks = walk(csc, roots(), length, Key(5).bits)
    truth = count_by_hand(csc, walks)
    for count in (count_later, torch_walk.count_later):
        node = torch.zeros(N, dtype=torch.int64)
        edge = torch.zeros(csc.num_edges, dtype=torch.int32)
        for part in walks.chunk(3):  # counts add up
            count(csc, part, node, edge)
        assert (node.tolist(), edge.tolist()) == truth


@pytest.mark.gpu
def test_same_integers_on_the_gpu():
    csc = PATTERNS["random"]
    here = walk(csc, roots(), 4, Key(3).bits)
    assert torch.equal(walk(csc.to("cuda"), roots().cuda(), 4, Key(3).bits).cpu(), here)
