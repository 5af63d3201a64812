"""Tables that every battery runs over, and graphs small enough for dense oracles.

A newcomer adds a row to MODELS and inherits the tests. Nothing here draws from a global generator.
"""

from itertools import product

import numpy as np
import pytest
import torch

from graphdyn.batch import Batch, Block, full_batch
from graphdyn.graph import Graph, Split
from graphdyn.keys import Key
from graphdyn.sparse import CSC, Sparse

# Row: (name for build, options). Small widths, every option of the architecture away from its default.
MODELS = {
    "mlp": ("mlp", {}),
    "sgc": ("sgc", {"hops": 2, "layers": 2}),
    "gcn": ("gcn", {"layers": 3}),
    "sage-mean": ("sage", {"aggregator": "mean"}),
    "sage-sum": ("sage", {"aggregator": "sum"}),
    "sage-max": ("sage", {"aggregator": "max"}),
    "gat": ("gat", {"heads": 2, "out_heads": 3}),
    "gatv2": ("gatv2", {"heads": 2, "out_heads": 3}),
    "gatv2-shared": ("gatv2", {"heads": 2, "share_weights": True}),
    "gcnii": ("gcnii", {"layers": 3, "alpha": 0.2, "theta": 0.7}),
    "appnp": ("appnp", {"hops": 3, "alpha": 0.2}),
}
# Models of the whole graph alone: no batteries over samplers, norms and skips, see tests/models/test_graph_unet.py.
WHOLE = {
    "graph-unet": ("graph-unet", {"layers": 2, "pool": "7,0.5", "gate": "tanh", "final": False}),
}
NORMS = ("none", "batch", "weighted-batch", "layer", "graph", "pair")
SKIPS = ("none", "identity", "linear", "dense-cat", "dense-max", "initial")
ORDERS = ("post", "pre")
NUM_FEATURES, NUM_CLASSES, HIDDEN = 5, 3, 4


def combinations():
    """Every model x norm x skip x order; all of GCN's, and of the others one norm in six, are quick.

    The norms take turns, so that each model meets each norm, and each skip in both orders, always.
    GCNII refuses ``initial``: it is its own initial residual.
    """
    rows = []
    for i, model in enumerate(MODELS):
        for j, (skip, order) in enumerate(product(SKIPS, ORDERS)):
            for k, norm in enumerate(NORMS):
                if model == "gcnii" and skip == "initial":
                    continue
                quick = model == "gcn" or k == (i + j) % len(NORMS)
                marks = () if quick else pytest.mark.slow
                rows.append(pytest.param(model, norm, skip, order, marks=marks))
    return rows


# 12 nodes, directed: 3 has a loop, 9 only receives, 10 only sends, 11 is isolated.
SRC = [0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 2, 3, 10, 10, 1, 5, 6, 4, 7, 8]
DST = [1, 2, 0, 4, 5, 6, 7, 8, 0, 4, 6, 3, 2, 9, 0, 4, 1, 9, 3, 2]


def edge_list(kind="directed"):
    """(2, E): ``directed``, ``parallel`` (two edges doubled), ``undirected`` or ``empty``."""
    edges = torch.tensor([SRC, DST])
    if kind == "parallel":
        edges = torch.cat([edges, edges[:, [0, 9]]], 1)
    if kind == "undirected":
        edges = torch.cat([edges, edges.flip(0)], 1).unique(dim=1)
    return edges[:, :0] if kind == "empty" else edges


def tiny(kind="directed", *, sparse=False, dtype=torch.float64, task="multiclass"):
    """A graph of 12 nodes on one of the edge lists."""
    rng = Key(11).fold("tiny").generator()
    n = 12
    x = torch.randn(n, NUM_FEATURES, generator=rng, dtype=torch.float64).to(dtype)
    if sparse:
        x = torch.where(torch.rand(n, NUM_FEATURES, generator=rng) < 0.5, x, 0.0)
        x = Sparse.from_scipy(_scipy(x.numpy()), dtype)
    y = torch.randint(NUM_CLASSES, (n,), generator=rng)
    if task == "multilabel":
        y = torch.nn.functional.one_hot(y, NUM_CLASSES).float()
    split = Split(torch.tensor([0, 2, 4, 6, 9, 11]), torch.tensor([1, 3]), torch.tensor([5, 7, 8]))
    return Graph.from_edge_index(
        edge_list(kind), n, x=x, y=y, num_classes=NUM_CLASSES, split=split, task=task
    )


def _scipy(x):
    import scipy.sparse as sp

    return sp.csr_array(x)


def small_model(name, **options):
    """A row of MODELS or WHOLE with small widths; float64."""
    from graphdyn import models

    kind, own = (MODELS | WHOLE)[name]
    options = {"hidden": HIDDEN, "seed": 3} | own | options
    return models.build(kind, NUM_FEATURES, NUM_CLASSES, **options).double()


def expanded_batch(graph, model, seeds, key=Key(5)):
    """Exact mini-batch: one block a hop with every in-neighbour, targets a prefix of sources.

    Plain Python over edge lists: an oracle for samplers as well.
    """
    matrix = graph.adjacency(model.propagation)
    blocks, nodes = [], list(seeds)
    for _ in range(max(model.num_hops, 1)):
        block, nodes = _expand(matrix, nodes)
        blocks.insert(0, block)
    ids = torch.tensor(seeds)
    weight = torch.full((len(seeds),), 1 / len(seeds), dtype=torch.float64)
    x = (
        graph.x[torch.tensor(nodes)]
        if isinstance(graph.x, torch.Tensor)
        else graph.x.rows(torch.tensor(nodes))
    )
    rows = torch.arange(len(seeds))
    return Batch(x, tuple(blocks), rows, graph.y[ids], weight, key)


def _expand(matrix, targets):
    indptr, indices = matrix.csc.indptr.tolist(), matrix.csc.indices.tolist()
    sources, edges, starts = list(targets), [], [0]
    place = {node: i for i, node in enumerate(sources)}
    for v in targets:
        edges += range(indptr[v], indptr[v + 1])
        starts.append(len(edges))
    for e in edges:
        if indices[e] not in place:
            place[indices[e]] = len(sources)
            sources.append(indices[e])
    local = torch.tensor([place[indices[e]] for e in edges], dtype=torch.int32)
    csc = CSC(torch.tensor(starts, dtype=torch.int32), local, len(sources))
    edge_id = torch.tensor(edges, dtype=torch.int64)
    values = None if matrix.values is None else matrix.values[edge_id]
    block = Block(Sparse(csc, values), torch.tensor(sources), edge_id)
    return block, sources


def whole(graph, model, nodes=None, key=Key(5)):
    """The full batch of a graph."""
    return full_batch(graph, model.propagation, nodes=nodes, key=key)


def state(model):
    """Parameters by name, for the oracles."""
    return dict(model.named_parameters())


def settings(name, model):
    """All options of a row of MODELS by name, for the oracles."""
    return vars(model.options) | MODELS[name][1]


def close(a, b, tol=1e-6):
    """Assert equality of tensors up to float32 rounding of the propagation matrix."""
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def seeded(*shape, seed=0, dtype=torch.float64):
    """Normal numbers of a private generator."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)
