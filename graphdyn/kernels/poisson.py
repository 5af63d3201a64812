"""Poisson designs: thresholds c with ``sum min(1, c w) = k``, and who is kept.

Weights become whole numbers of a power of two before they are summed, so that no order of summation,
hence no device and no thread count, changes a bit of c. The number of units is capped so that a sum
fits in 62 bits; a positive weight is at least one unit. Shapes: R rows (segments), M weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphdyn.kernels import torch_poisson
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager


def unit_of(largest: float, count: int) -> float:
    """A power of two: ``count`` numbers up to ``largest``, in this many parts of 1, add up within 62 bits."""
    if not largest or not count:
        return 1.0
    return 2.0 ** (61 - math.frexp(largest)[1] - count.bit_length())


@eager
def to_units(weight: Tensor, unit: float) -> Tensor:
    """(M,) int64 ``weight * unit``, rounded; at least 1 where the weight is positive."""
    return torch_poisson.to_units(weight, unit)


@eager
def thresholds(indptr: Tensor, weight: Tensor, k: int) -> Tensor:
    """The c of each row at which its probabilities min(1, c w) add up to k: exact, not iterated to a tolerance.

    Starting from k / sum(w), weights with c w >= 1 are set aside, c solved again for the rest, until
    none is new: every round but the last sets one aside, so there are at most k.

    Args:
        indptr: (R + 1,) rows of the weights.
        weight: (M,) floating point, not negative. Rows add up exactly for ratios up to 2^61 / longest row.
        k: At least 1.

    Returns:
        (R,) float64; infinity where a row has at most k positive weights: all are certain.
    """
    longest = int(indptr.diff().max()) if indptr.numel() > 1 else 0
    unit = unit_of(float(weight.max()) if weight.numel() else 0.0, longest)
    if not compiled(weight.device):
        return torch_poisson.thresholds(indptr.long(), weight, unit, k)
    from graphdyn.kernels import numba_poisson as loop

    out = torch.empty(indptr.numel() - 1, dtype=torch.float64)
    loop.thresholds(indptr.numpy(), weight.numpy(), unit, k, out.numpy())
    return out


@eager
def keep(weight: Tensor, ids: Tensor, c: float, bits: int) -> tuple[Tensor, Tensor]:
    """A Poisson sample: each is kept on its own with pi = min(1, c w), by a number that belongs to its id.

    Args:
        weight: (M,) float64, not negative; 0 is never kept.
        ids: (M,) what the draws are keyed by.
        c: From :func:`thresholds`.
        bits: 64 key bits.

    Returns:
        (K,) int64 positions, ascending, and (K,) float64 pi.
    """
    if not compiled(weight.device):
        return torch_poisson.keep(weight, ids, c, bits)
    from graphdyn.kernels import numba_poisson as loop
    from graphdyn.kernels.numba_draw import word

    index = torch.empty(weight.numel() + 1, dtype=torch.int64)
    pi = torch.empty(weight.numel() + 1, dtype=torch.float64)
    count = loop.keep(weight.numpy(), ids.numpy(), c, word(bits), index.numpy(), pi.numpy())
    return index[:count].clone(), pi[:count].clone()
