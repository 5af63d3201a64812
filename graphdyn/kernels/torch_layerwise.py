"""Layer-wise samplers in plain torch, on any device: the integers of :mod:`graphdyn.kernels.numba_layerwise`."""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.kernels.torch_draw import relabel
from graphdyn.kernels.torch_induced import rows_of
from graphdyn.kernels.torch_poisson import to_units
from graphdyn.sparse import CSC


def column_squares(
    csc: CSC, values: Tensor | None, dst: Tensor, unit: float
) -> tuple[Tensor, Tensor]:
    """See :func:`graphdyn.kernels.layerwise.column_squares`."""
    row, edge = rows_of(csc, dst)
    src = csc.indices[edge].long()
    other = src != dst[row]
    local, nodes = relabel(dst, src[other], csc.num_src)
    ones = torch.ones(local.numel(), dtype=torch.float64, device=dst.device)
    square = ones if values is None else values[edge[other]].double().square()
    sums = torch.zeros_like(nodes).index_add_(0, local, to_units(square, unit))
    return nodes, sums


def edges_from(csc: CSC, dst: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`graphdyn.kernels.layerwise.edges_from`."""
    row, edge = rows_of(csc, dst)
    src = csc.indices[edge].long()
    table = torch.full((csc.num_src,), -1, dtype=torch.int64, device=dst.device)
    table[chosen] = torch.arange(chosen.numel(), device=dst.device)
    pick = torch.where(src == dst[row], -1, table[src])
    keep = (pick >= 0) | (src == dst[row])
    indptr = torch.zeros(dst.numel() + 1, dtype=torch.int64, device=dst.device)
    indptr[1:] = torch.bincount(row[keep], minlength=dst.numel()).cumsum(0)
    return indptr, edge[keep], pick[keep]
