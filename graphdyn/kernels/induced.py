"""The edges among given nodes: what subgraph samplers run on.

On CPU one thread and Numba; anywhere else torch, with the same integers. Shapes: N nodes of the
graph, M given nodes, E kept edges.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.kernels import torch_induced
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager
from graphdyn.kernels.draw import Workspace
from graphdyn.kernels.memory import empty
from graphdyn.sparse import CSC


class Induced(NamedTuple):
    """The edges with both ends among the given nodes, by target, in the order of the nodes.

    Attributes:
        indptr: (M + 1,) int64; the edges into node i are ``indptr[i]:indptr[i + 1]``.
        edge: (E,) positions in the full pattern, ascending in each row, in its own index type.
        src: (E,) local id of each source: its place among the given nodes; same type.
    """

    indptr: Tensor
    edge: Tensor
    src: Tensor


@eager
def induced(
    csc: CSC, nodes: Tensor, workspace: Workspace, *, cuts: Tensor | None = None
) -> Induced:
    """The subgraph that nodes induce, loops and parallel edges included; O(sum of their degrees).

    Args:
        csc: The full, square pattern.
        nodes: (M,) int64 ids, distinct (in each group).
        workspace: Of this thread, on CPU; not read elsewhere.
        cuts: (G + 1,) int64 ascending from 0 to M: groups ``nodes[cuts[g]:cuts[g + 1]]``. Edges
            join nodes of the same group alone, so a node may occur in many groups. By default one.

    Returns:
        Edges by target; local ids are places in ``nodes``.
    """
    if not compiled(csc.device):
        indptr, edge, src = torch_induced.induced(csc, nodes, cuts)
        return Induced(indptr, edge.to(csc.indices.dtype), src.to(csc.indices.dtype))
    from graphdyn.kernels import numba_induced as loop

    if cuts is None:
        cuts = torch.tensor([0, nodes.numel()])
    arrays = (csc.indptr.numpy(), nodes.numpy())
    bound = loop.count_edges(*arrays)
    edge, src = (empty((bound,), csc.indices.dtype) for _ in range(2))
    indptr = torch.empty(nodes.numel() + 1, dtype=torch.int64)
    member = torch.zeros((csc.num_src >> 6) + 1, dtype=torch.int64)
    scratch = (member.numpy(), workspace.table.numpy())
    out = (indptr.numpy(), edge.numpy(), src.numpy())
    size = loop.induced(csc.indices.numpy(), *arrays, cuts.numpy(), *scratch, *out)
    return Induced(indptr, _trim(edge, size), _trim(src, size))


def _trim(values: Tensor, size: int) -> Tensor:
    """The first values; in memory of their own where most of the block would lie idle."""
    return values[:size] if 2 * size > values.numel() else values[:size].clone()
