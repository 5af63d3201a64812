"""Random walks by key, and how often they meet nodes and edges.

On CPU one thread and Numba; anywhere else torch, with the same integers. Shapes: N nodes, W walks of
L steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.kernels import torch_walk
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager
from graphdyn.sparse import CSC


@eager
def walk(csc: CSC, roots: Tensor, length: int, bits: int) -> Tensor:
    """Walks to uniform neighbours; where there are none, a walk stays.

    Walk w draws from (bits, w) alone; bounded integers are unbiased.

    Args:
        csc: (N, N) pattern; the neighbours of v are the sources in its row.
        roots: (W,) int64.
        length: L.
        bits: 64 key bits.

    Returns:
        (W, L + 1) int64 nodes, roots first.
    """
    if not compiled(csc.device):
        return torch_walk.walk(csc, roots, length, bits)
    from graphdyn.kernels import numba_walk as loop

    out = torch.empty(roots.numel(), length + 1, dtype=torch.int64)
    arrays = (csc.indptr.numpy(), csc.indices.numpy(), roots.numpy())
    loop.walk(*arrays, loop.word(bits), out.numpy())
    return out


@eager
def count_later(csc: CSC, walks: Tensor, node: Tensor, edge: Tensor) -> None:
    """Count, in place, the walks that meet a node or both ends of an edge not already by their first step.

    A walk counts once however often it meets them. Node v counts if it is met but is neither the
    root nor the second node; an edge counts if both of its ends are met and are not these two.

    Args:
        csc: (N, N) symmetric pattern without loops or parallel edges, rows sorted.
        walks: (W, L + 1) int64 from :func:`walk`.
        node: (N,) int64 counts, added to.
        edge: (E,) int32 counts, added to at the one of both directions whose source has the smaller id.
    """
    if not compiled(csc.device):
        torch_walk.count_later(csc, walks, node, edge)
        return
    from graphdyn.kernels import numba_walk as loop

    arrays = (csc.indptr.numpy(), csc.indices.numpy(), walks.numpy())
    loop.count_later(*arrays, node.numpy(), edge.numpy())
