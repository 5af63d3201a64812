"""Layer-wise sampling on a pattern: what each source sends to a set of targets, and edges from a set of sources.

On CPU one thread and Numba; anywhere else torch, with the same integers. Self-loops never take
part: they cost no further node, so layer-wise samplers keep them exact. Shapes: N nodes, D targets,
S sources and targets, K chosen sources, E kept edges.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.kernels import torch_layerwise
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager
from graphdyn.kernels.draw import Workspace
from graphdyn.kernels.poisson import unit_of
from graphdyn.sparse import CSC, Sparse


class Kept(NamedTuple):
    """The edges of the targets from chosen sources.

    Attributes:
        indptr: (D + 1,) int64.
        edge: (E,) positions in the full pattern, ascending in each row, in its own index type.
        pick: (E,) int64 place of the source among the chosen; -1 for self-loops.
    """

    indptr: Tensor
    edge: Tensor
    pick: Tensor


def square_unit(adjacency: Sparse) -> float:
    """The unit in which :func:`column_squares` counts: the finest in which no column overflows."""
    csc, values = adjacency.csc, adjacency.values
    if not csc.num_edges:
        return 1.0
    largest = 1.0 if values is None else float(values.abs().max())
    return unit_of(largest**2, int(torch.bincount(csc.indices, minlength=1).max()))


@eager
def column_squares(
    adjacency: Sparse, dst: Tensor, unit: float, workspace: Workspace
) -> tuple[Tensor, Tensor]:
    """How much each source sends to the targets: ``sum over targets v of a_vu^2``, self-loops aside.

    Counted in whole units, each edge that is not 0 at least one: exact sums, the same in any order.

    Args:
        adjacency: (N, N).
        dst: (D,) distinct targets.
        unit: From :func:`square_unit`.
        workspace: Of this thread, on CPU; not read elsewhere.

    Returns:
        (S,) int64 ids, the targets first, then other sources in the order of their first edge; and
        (S,) int64 sums, 0 for targets that send to no other target.
    """
    csc, values = adjacency.csc, adjacency.values
    if not compiled(csc.device):
        return torch_layerwise.column_squares(csc, values, dst, unit)
    from graphdyn.kernels import numba_layerwise as loop

    bound = min(dst.numel() + _num_edges(csc, dst), csc.num_src)
    nodes, sums = (torch.empty(bound, dtype=torch.int64) for _ in range(2))
    pattern = (csc.indptr.numpy(), csc.indices.numpy(), None if values is None else values.numpy())
    table = (workspace.table.numpy(), workspace.next_stamp())
    count = loop.column_squares(dst.numpy(), *pattern, unit, *table, nodes.numpy(), sums.numpy())
    return nodes[:count], sums[:count]


@eager
def edges_from(csc: CSC, dst: Tensor, chosen: Tensor, workspace: Workspace) -> Kept:
    """The edges of the targets whose source is among the chosen, and all their self-loops.

    Args:
        csc: The full pattern.
        dst: (D,) targets.
        chosen: (K,) int64 distinct ids.
        workspace: Of this thread, on CPU; not read elsewhere.
    """
    if not compiled(csc.device):
        indptr, edge, pick = torch_layerwise.edges_from(csc, dst, chosen)
        return Kept(indptr, edge.to(csc.indices.dtype), pick)
    from graphdyn.kernels import numba_layerwise as loop

    pattern = (csc.indptr.numpy(), csc.indices.numpy())
    table = (workspace.table.numpy(), workspace.next_stamp())
    bound = _num_edges(csc, dst) + 1
    edge = torch.empty(bound, dtype=csc.indices.dtype)
    pick = torch.empty(bound, dtype=torch.int64)
    indptr = torch.empty(dst.numel() + 1, dtype=torch.int64)
    out = (indptr.numpy(), edge.numpy(), pick.numpy())
    size = loop.edges_from(dst.numpy(), *pattern, chosen.numpy(), *table, *out)
    return Kept(indptr, edge[:size].clone(), pick[:size].clone())


def _num_edges(csc: CSC, dst: Tensor) -> int:
    return int((csc.indptr[dst + 1].long() - csc.indptr[dst]).sum())
