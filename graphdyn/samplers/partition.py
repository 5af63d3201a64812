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
        balance: (N,) bool; nodes and these nodes together are balanced, half and half: parts rich in
            them are smaller. By default nodes alone. (pymetis knows no two constraints at once.)

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
    weights = _weights(balance)
    found = pymetis.part_graph(parts, adjacency, vweights=weights, options=options).vertex_part
    part = torch.from_numpy(np.asarray(found, dtype=np.int64))
    return torch.unique(part, return_inverse=True)[1]


def _wide(index: Tensor) -> np.ndarray:
    """In the integers of METIS, so that nothing is copied twice."""
    return index.numpy().astype(np.int64)


def _weights(balance: Tensor | None) -> np.ndarray | None:
    """One for every node, and the named ones weigh as much again together as all nodes do."""
    if balance is None or not bool(balance.any()):
        return None
    named = balance.cpu().numpy().astype(np.int64)
    return 1 + named * round(named.size / named.sum())
