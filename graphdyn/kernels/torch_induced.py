"""Induced subgraphs in plain torch, on any device: the integers of :mod:`graphdyn.kernels.numba_induced`."""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.sparse import CSC


def induced(csc: CSC, nodes: Tensor, cuts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`graphdyn.kernels.induced.induced`."""
    row, edge = rows_of(csc, nodes)
    source = csc.indices[edge].long()
    place = (
        _find(nodes, source, csc.num_src) if cuts is None else _find_in(nodes, cuts, row, source)
    )
    keep = place >= 0
    indptr = torch.zeros(nodes.numel() + 1, dtype=torch.int64, device=nodes.device)
    indptr[1:] = torch.bincount(row[keep], minlength=nodes.numel()).cumsum(0)
    return indptr, edge[keep], place[keep]


def rows_of(csc: CSC, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """All edges into nodes: (E,) place of the target among them, (E,) position in the pattern."""
    start = csc.indptr[nodes].long()
    degree = csc.indptr[nodes + 1].long() - start
    row = torch.repeat_interleave(degree)
    before = degree.cumsum(0) - degree
    return row, torch.arange(row.numel(), device=nodes.device) + (start - before)[row]


def _find(nodes: Tensor, wanted: Tensor, num_nodes: int) -> Tensor:
    """Places of nodes; -1 where they are not."""
    table = torch.full((num_nodes,), -1, dtype=torch.int64, device=nodes.device)
    table[nodes] = torch.arange(nodes.numel(), device=nodes.device)
    return table[wanted]


def _find_in(nodes: Tensor, cuts: Tensor, row: Tensor, wanted: Tensor) -> Tensor:
    """Places of nodes in the group of a row; -1 where they are not."""
    group = torch.repeat_interleave(cuts.diff())
    stride = int(torch.cat([nodes, wanted]).max()) + 1 if nodes.numel() else 1
    known, order = torch.sort(group * stride + nodes)
    asked = group[row] * stride + wanted
    at = torch.searchsorted(known, asked).clamp(max=max(known.numel() - 1, 0))
    return torch.where(known[at] == asked, order[at], -1) if known.numel() else asked
