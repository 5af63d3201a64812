"""Successive draws without replacement, probability proportional to weight: the exponential race.

Who has the smallest ``-log(r) / w`` comes first: the order is that of draws one by one among those
that remain (Efraimidis & Spirakis 2006). The logarithm is our own, of plain multiplications and
additions: a library's differs between devices in the last bit, and with it the order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.kernels import torch_race
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager


@eager
def race(units: Tensor, ids: Tensor, bits: int) -> Tensor:
    """(M,) float64 arrival times; infinity where the weight is 0.

    Args:
        units: (M,) int64 weights.
        ids: (M,) what the draws are keyed by.
        bits: 64 key bits.
    """
    if not compiled(units.device):
        return torch_race.race(units, ids, bits)
    from graphdyn.kernels import numba_race as loop
    from graphdyn.kernels.numba_draw import word

    out = torch.empty(units.numel(), dtype=torch.float64)
    loop.race(units.numpy(), ids.numpy(), word(bits), out.numpy())
    return out


def des_raj(units: Tensor, total: int, candidates: int) -> Tensor:
    """Scales of an ordered sample without replacement that make its weighted sum unbiased.

    After j draws ``t_j = sum_{k<j} x_k + x_j (1 - sum_{k<j} p_k) / p_j`` is unbiased for the sum over
    all candidates (Des Raj 1956); so is every ``est_j = (1 - alpha_j) est_{j-1} + alpha_j t_j``. With
    ``alpha_j = N / (j (N - j + 1))`` of N candidates (Chen et al. 2023, "Calibrate and Debias
    Layer-wise Sampling") equal weights give N / m each, and j = N the exact sum. The recursion is
    linear in x and its products telescope: ``prod_{l>j} (1 - alpha_l) = T_j = j (N - m) / (m (N - j))``,
    hence ``s_j = 1 - T_j + T_j alpha_j (1 - sum_{k<j} p_k) / p_j``.

    Args:
        units: (m,) int64 weights in the order of the draws, m < N.
        total: Of the weights of all candidates.
        candidates: N.

    Returns:
        (m,) float64, positive, but below 1 for a heavy candidate that was drawn late.
    """
    remaining = total - (units.cumsum(0) - units)
    place = torch.arange(1, units.numel() + 1, device=units.device)
    return torch_race.des_raj(remaining, units, place, candidates, units.numel())
