"""Poisson designs in plain torch, on any device: the same numbers as :mod:`graphdyn.kernels.numba_poisson`."""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.keys import hash_torch


def uniform(ids: Tensor, bits: int) -> Tensor:
    """float64 in [0, 1) with 53 random bits that belong to each id."""
    return high(ids, bits).double() * 2.0**-53


def high(ids: Tensor, bits: int) -> Tensor:
    """The upper 53 random bits of each id."""
    return (hash_torch(ids, bits) >> 11) & ((1 << 53) - 1)


def to_units(weight: Tensor, unit: float) -> Tensor:
    """See :func:`graphdyn.kernels.poisson.to_units`."""
    return torch.maximum((weight.double() * unit).round().long(), (weight > 0).long())


def thresholds(indptr: Tensor, weight: Tensor, unit: float, k: int) -> Tensor:
    """See :func:`graphdyn.kernels.poisson.thresholds`."""
    rows = indptr.numel() - 1
    row = torch.repeat_interleave(indptr.diff(), output_size=weight.numel())
    units = to_units(weight, unit)
    total, positive, aside = (units.new_zeros(rows) for _ in range(3))
    total.index_add_(0, row, units)
    positive.index_add_(0, row, (weight > 0).long())
    rest, solving = total.clone(), positive > k
    while bool(solving.any()):
        certain = units.double() * (k - aside).double()[row] >= rest.double()[row]
        count = torch.zeros_like(aside).index_add_(0, row, certain.long())
        mass = torch.zeros_like(total).index_add_(0, row, torch.where(certain, units, 0))
        solving = solving & (count > aside) & (count < k)
        aside = torch.where(solving, count, aside)
        rest = torch.where(solving, total - mass, rest)
    c = (k - aside).double() / rest.double() * unit
    return torch.where(positive > k, c, torch.inf)


def keep(weight: Tensor, ids: Tensor, c: float, bits: int) -> tuple[Tensor, Tensor]:
    """See :func:`graphdyn.kernels.poisson.keep`."""
    pi = torch.where(weight > 0, (weight * c).clamp(max=1.0), 0.0)
    index = torch.nonzero(uniform(ids, bits) < pi).flatten()
    return index, pi[index]
