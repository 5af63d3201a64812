"""Parts of a graph with few edges between them: METIS (Karypis & Kumar 1998), through pymetis."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.keys import Key
from graphdyn.sparse import CSC


def partition(graph: CSC, parts: int, key: Key, *, balance: Tensor | None = None) -> Tensor:
    """Cut a graph into parts of about equal size.

    The same graph, number and key give the same parts on one machine; METIS does not promise it
    across platforms.

    Args:
        graph: (N, N) from :func:`graphdyn.samplers.undirected.simple_graph`.
        parts: c, at most N.
        key: Seeds METIS.
        balance: (N,) bool; parts then also hold about equally many of these nodes.

    Returns:
        (N,) int64 parts, numbered from 0. METIS may leave parts empty, on graphs without edges or
        with few nodes a part; they are left out, so there may be fewer than asked for.

    Raises:
        InputError: If there are more parts than nodes, or fewer than one.
    """
    n = graph.num_dst
    if not 1 <= parts <= n:
        raise InputError(f"parts is {parts}, but the graph has {n} nodes; give 1 to {n}.")
    if parts == n:
        return torch.arange(n)
    import pymetis

    adjacency = pymetis.CSRAdjacency(_wide(graph.indptr), _wide(graph.indices))
    options = pymetis.Options(seed=key.fold("metis").bits >> 33)
    found = pymetis.part_graph(
        parts, adjacency, vweights=_weights(n, balance), options=options
    ).vertex_part
    part = torch.from_numpy(np.asarray(found, dtype=np.int64))
    return torch.unique(part, return_inverse=True)[1]


def _wide(index: Tensor) -> np.ndarray:
    """In the integers of METIS, so that nothing is copied twice."""
    return index.numpy().astype(np.int64)


def _weights(n: int, balance: Tensor | None) -> np.ndarray | None:
    """Two numbers a node, both to be balanced: one, and whether it is among the nodes named."""
    if balance is None or not bool(balance.any()):
        return None
    return np.stack([np.ones(n, np.int64), balance.cpu().numpy().astype(np.int64)], 1).ravel()
