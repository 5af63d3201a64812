"""Push in plain torch, on any device: the integers of :mod:`graphdyn.kernels.numba_ppr`."""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.kernels.torch_induced import rows_of
from graphdyn.sparse import CSC


def push(
    csc: CSC, roots: Tensor, alpha: float, unit: int, cap: int, width: int, one: int
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`graphdyn.kernels.ppr.ppr`; (root, node) pairs with their masses, sorted."""
    n = csc.num_src
    pair = torch.arange(roots.numel(), device=roots.device) * n + roots
    left = torch.full_like(pair, one)
    done = torch.zeros_like(pair)
    active = torch.ones_like(pair, dtype=torch.bool)
    while bool(active.any()):
        degree = csc.degree[pair % n]
        keep = torch.where(degree == 0, left, (left.double() * alpha).long())
        share = (left - keep) // degree.clamp(min=1)
        keep, share = torch.where(active, keep, 0), torch.where(active, share, 0)
        done = done + keep
        left = left - keep - share * degree
        row, edge = rows_of(csc, (pair % n)[active])
        source = csc.indices[edge].long() + (pair // n * n)[active][row]
        pair, done, left = _merge(pair, done, left, source, share[active][row])
        active = left >= unit * csc.degree[pair % n].clamp(1, cap)
    return _select(pair, done, n, roots.numel(), width)


def _merge(
    pair: Tensor, done: Tensor, left: Tensor, source: Tensor, share: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs with what their sources were given, one entry a pair."""
    merged, place = torch.unique(torch.cat([pair, source]), return_inverse=True)
    old = place[: pair.numel()]
    out = torch.zeros_like(merged).index_add_(0, place, torch.cat([left, share]))
    return merged, torch.zeros_like(merged).index_add_(0, old, done), out


def _select(
    pair: Tensor, done: Tensor, n: int, rows: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest masses of each row in descending order, ties by id."""
    pair, done = pair[done > 0], done[done > 0]
    order = torch.argsort(-done, stable=True)
    order = order[torch.argsort(pair[order] // n, stable=True)]
    pair, done = pair[order], done[order]
    count = torch.bincount(pair // n, minlength=rows)
    rank = torch.arange(pair.numel(), device=pair.device) - (count.cumsum(0) - count)[pair // n]
    kept = rank < width
    indptr = torch.zeros(rows + 1, dtype=torch.int64, device=pair.device)
    indptr[1:] = count.clamp(max=width).cumsum(0)
    return indptr, pair[kept] % n, done[kept]
