"""Plain functions Graph -> Graph, for use after :func:`graphdyn.data.load`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.graph import Graph, Split
from graphdyn.sparse import Sparse


def row_normalize(graph: Graph) -> Graph:
    """Divide every feature row by its sum, as PyG's ``NormalizeFeatures``; sums below 1 count as 1.

    For counts and other features that are not negative. The Planetoid experiments of Kipf & Welling
    (2017) and most that follow use it.

    Raises:
        InputError: If the graph has no features, or negative ones.
    """
    x = graph.x
    if x is None:
        raise InputError(f"{graph.name} has no features to normalise.")
    values = x if isinstance(x, Tensor) else x.values
    if values is not None and bool((values < 0).any()):
        raise InputError(f"{graph.name} has negative features; normalising by row sum needs none.")
    if isinstance(x, Tensor):
        return replace(graph, x=x / x.sum(1, keepdim=True).clamp(min=1.0))
    values = torch.ones(x.csc.num_edges, device=x.device) if values is None else values
    total = values.new_zeros(x.shape[0]).index_add_(0, x.csc.dst, values)
    return replace(graph, x=Sparse(x.csc, values / total.clamp(min=1.0)[x.csc.dst]))


def binarize(graph: Graph) -> Graph:
    """1 for every feature that is not 0.

    Raises:
        InputError: If the graph has no features.
    """
    x = graph.x
    if x is None:
        raise InputError(f"{graph.name} has no features to set to 0 and 1.")
    if isinstance(x, Tensor):
        return replace(graph, x=(x != 0).float())
    return replace(graph, x=Sparse(x.csc, None if x.values is None else (x.values != 0).float()))


def to_undirected(graph: Graph) -> Graph:
    """Add the reverse of every edge and merge duplicates; weights are averaged."""
    return _rebuild(graph, graph.edge_index, graph.edge_weight, undirected=True)


def remove_self_loops(graph: Graph) -> Graph:
    """Drop the edges from a node to itself."""
    keep = graph.csc.indices != graph.csc.dst
    weight = None if graph.edge_weight is None else graph.edge_weight[keep]
    return _rebuild(graph, graph.edge_index[:, keep], weight)


def largest_component(graph: Graph) -> Graph:
    """The largest weakly connected component, its nodes renumbered in ascending order.

    Splits keep their nodes that remain; ``node_attrs["node_id"]`` holds the former ids.
    """
    import scipy.sparse.csgraph

    adjacency = Sparse(graph.csc).to_scipy()
    _, component = scipy.sparse.csgraph.connected_components(adjacency, connection="weak")
    return induced_subgraph(
        graph, torch.from_numpy(np.flatnonzero(component == np.bincount(component).argmax()))
    )


def induced_subgraph(graph: Graph, nodes: Tensor) -> Graph:
    """The graph on the given nodes, renumbered in the given order.

    Args:
        graph: Any graph on CPU.
        nodes: (K,) distinct ids.

    Returns:
        A graph of K nodes; ``node_attrs["node_id"]`` holds their ids in the graph first cut from.
    """
    new = torch.full((graph.num_nodes,), -1, dtype=torch.int64)
    new[nodes] = torch.arange(nodes.numel())
    edges = new[graph.edge_index]
    keep = (edges >= 0).all(0)
    weight = None if graph.edge_weight is None else graph.edge_weight[keep]
    x = graph.x.rows(nodes) if isinstance(graph.x, Sparse) else _take(graph.x, nodes)
    attrs = {name: value[nodes] for name, value in graph.node_attrs.items()}
    attrs.setdefault("node_id", nodes)
    split = None if graph.split is None else _restrict(graph.split, new)
    fields = {"x": x, "y": _take(graph.y, nodes), "split": split, "node_attrs": attrs}
    return _rebuild(graph, edges[:, keep], weight, nodes.numel(), **fields)


def _rebuild(graph: Graph, edges: Tensor, weight, size: int | None = None, **fields) -> Graph:
    flags = {k: fields.pop(k) for k in ("undirected",) if k in fields}
    size = graph.num_nodes if size is None else size
    shell = Graph.from_edge_index(edges, size, edge_weight=weight, **flags)
    return replace(graph, csc=shell.csc, edge_weight=shell.edge_weight, **fields).check()


def _take(value: Tensor | None, nodes: Tensor) -> Tensor | None:
    return None if value is None else value[nodes]


def _restrict(split: Split, new: Tensor) -> Split:
    train, valid, test = (new[ids] for ids in split.parts().values())
    kept = (part[part >= 0].sort().values for part in (train, valid, test))
    return Split(*kept, id=split.id)
