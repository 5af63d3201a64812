"""Random walks in plain torch, on any device: the integers of :mod:`graphdyn.kernels.numba_walk`."""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.kernels.torch_draw import bounded
from graphdyn.keys import hash_torch
from graphdyn.sparse import CSC


def walk(csc: CSC, roots: Tensor, length: int, bits: int) -> Tensor:
    """See :func:`graphdyn.kernels.walk.walk`."""
    stream = hash_torch(torch.arange(roots.numel(), device=roots.device), bits)
    path = [roots]
    for step in range(1, length + 1):
        v = path[-1]
        start = csc.indptr[v].long()
        degree = csc.indptr[v + 1].long() - start
        # A row without sources draws from a bound of 1; what it would read is not taken.
        place = start + bounded(stream, step, degree.clamp(min=1))
        place = place.clamp(max=max(csc.num_edges - 1, 0))
        to = csc.indices[place].long() if csc.num_edges else v
        path.append(torch.where(degree > 0, to, v))
    return torch.stack(path, 1)


def count_later(csc: CSC, walks: Tensor, node: Tensor, edge: Tensor) -> None:
    """See :func:`graphdyn.kernels.walk.count_later`."""
    order = csc.dst.long() * csc.num_src + csc.indices.long()
    new = [~(walks[:, :i] == walks[:, i : i + 1]).any(1) for i in range(walks.shape[1])]
    for j in range(2, walks.shape[1]):
        met = walks[new[j], j]
        node += torch.bincount(met, minlength=node.numel())
        for i in range(j):
            keep = new[i] & new[j]
            _add(csc, order, walks[keep, i], walks[keep, j], edge)


def _add(csc: CSC, order: Tensor, u: Tensor, v: Tensor, edge: Tensor) -> None:
    """Count the edges between two columns of nodes, both ways; ``order`` sorts the pattern's edges."""
    for src, dst in ((u, v), (v, u)):
        wanted = dst * csc.num_src + src
        place = torch.searchsorted(order, wanted).clamp(max=order.numel() - 1)
        found = place[order[place] == wanted]
        edge += torch.bincount(found, minlength=edge.numel()).to(edge.dtype)
