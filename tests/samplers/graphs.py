"""Awkward graphs, small enough for dense algebra: every sampler runs over all of them.

A newcomer adds a row to AWKWARD and inherits the tests. Rows are functions, so that no test can change
another's graph. Features are float64; training nodes are the awkward ones.
"""

import torch
from cases import seeded

from graphdyn.graph import Graph, Split

NUM_FEATURES, NUM_CLASSES = 3, 3


def build(edges, n, train, *, undirected=False, **fields):
    """A graph with features, labels and a split; pairs (source, target)."""
    edges = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).t()
    rest = torch.tensor([v for v in range(n) if v not in set(train)], dtype=torch.int64)
    return Graph.from_edge_index(
        edges,
        n,
        undirected=undirected,
        x=seeded(n, NUM_FEATURES, seed=n),
        y=torch.arange(n) % NUM_CLASSES,
        num_classes=NUM_CLASSES,
        split=Split(torch.tensor(train), rest[: len(rest) // 2], rest[len(rest) // 2 :]),
        **fields,
    )


def star():
    """Node 0 and nine leaves, both ways."""
    return build([(0, v) for v in range(1, 10)], 10, [0, 1, 4], undirected=True)


def clique():
    """Everybody sends to everybody."""
    return build([(u, v) for u in range(6) for v in range(u)], 6, [0, 2, 5], undirected=True)


def path():
    """0 - 1 - ... - 7."""
    return build([(v, v + 1) for v in range(7)], 8, [0, 3, 7], undirected=True)


def double_star():
    """Hubs 0 and 1 with an edge between them, leaves 2-5 and 6-9."""
    edges = [(0, 1), *((0, v) for v in range(2, 6)), *((1, v) for v in range(6, 10))]
    return build(edges, 10, [0, 1, 2, 9], undirected=True)


def isolated():
    """A triangle, an edge, and three nodes without any; two of these train."""
    return build([(0, 1), (1, 2), (0, 2), (3, 4)], 8, [0, 3, 5, 7], undirected=True)


def edgeless():
    """Nobody sends to anybody."""
    return build([], 4, [0, 1, 3])


def single():
    """One node."""
    return build([], 1, [0])


def loops():
    """A directed ring with loops on half of its nodes; node 6 has nothing but a loop."""
    ring = [(v, (v + 1) % 6) for v in range(6)] + [(v, (v + 2) % 6) for v in range(6)]
    return build([*ring, (0, 0), (2, 2), (4, 4), (6, 6)], 7, [0, 1, 4, 6])


def parallel():
    """Directed with multi-edges: two of them doubled, one threefold, a doubled loop."""
    edges = [(0, 1), (0, 1), (2, 1), (3, 1), (4, 1), (1, 1), (1, 1), (1, 0), (1, 0), (1, 0)]
    edges += [(2, 0), (3, 0), (0, 2), (1, 2), (4, 3), (2, 3), (3, 4), (4, 4)]
    return build(edges, 5, [0, 1, 3])


def directed():
    """Node 3 has a loop, 8 only receives, 9 only sends, 10 is isolated; 0 has five sources."""
    edges = [(1, 0), (2, 0), (3, 0), (4, 0), (9, 0), (0, 1), (9, 1), (1, 2), (5, 2), (3, 3), (6, 3)]
    edges += [(2, 4), (7, 4), (4, 5), (0, 6), (5, 6), (6, 7), (2, 8), (7, 8), (9, 8)]
    return build(edges, 11, [0, 3, 8, 9, 10])


def communities():
    """Two cliques of five that share two nodes, and a third that hangs on one edge."""
    groups = [range(5), range(3, 8), range(8, 12)]
    edges = [(u, v) for group in groups for u in group for v in group if u < v]
    return build([*edges, (7, 8)], 12, [0, 3, 4, 9, 11], undirected=True)


def weighted():
    """The directed graph with edge weights between 0.5 and 2."""
    plain = directed()
    weight = torch.linspace(0.5, 2.0, plain.num_edges)
    return build(
        plain.edge_index.t().tolist(), plain.num_nodes, [0, 3, 8, 9, 10], edge_weight=weight
    )


AWKWARD = {
    "star": star,
    "clique": clique,
    "path": path,
    "double-star": double_star,
    "isolated": isolated,
    "edgeless": edgeless,
    "single": single,
    "loops": loops,
    "parallel": parallel,
    "directed": directed,
    "communities": communities,
    "weighted": weighted,
}


def hub(degree):
    """Node 0 receives from nodes 1..degree, which receive from it and their successor; 8 train."""
    leaf = torch.arange(1, degree + 1)
    zero = torch.zeros_like(leaf)
    edges = torch.stack([torch.cat([leaf, zero, leaf.roll(-1)]), torch.cat([zero, leaf, leaf])])
    n = degree + 1
    return Graph.from_edge_index(
        edges,
        n,
        x=seeded(n, NUM_FEATURES, seed=1),
        y=torch.arange(n) % NUM_CLASSES,
        num_classes=NUM_CLASSES,
        split=Split(torch.arange(8), torch.tensor([8]), torch.tensor([9])),
    )
