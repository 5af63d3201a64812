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
    known = csc.dst.long() * csc.num_src + csc.indices.long()
    new = [~(walks[:, :i] == walks[:, i : i + 1]).any(1) for i in range(walks.shape[1])]
    for j in range(2, walks.shape[1]):
        node += torch.bincount(walks[new[j], j], minlength=node.numel())
        for i in range(j):
            u, v = walks[new[i] & new[j]][:, [i, j]].sort(1).values.unbind(1)
            wanted = v * csc.num_src + u
            place = torch.searchsorted(known, wanted).clamp(max=known.numel() - 1)
            found = place[known[place] == wanted]
            edge += torch.bincount(found, minlength=edge.numel()).to(edge.dtype)
