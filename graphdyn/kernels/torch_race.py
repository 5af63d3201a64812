"""The exponential race in plain torch, on any device: the same numbers as :mod:`graphdyn.kernels.numba_race`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphdyn.kernels.torch_poisson import high

LN2 = math.log(2)
# log(m) = 2 s (1 + s^2/3 + s^4/5 + ...), s = (m - 1) / (m + 1); |s| < 0.1716 leaves 1e-17.
SERIES = tuple(1 / (2 * i + 1) for i in range(10, -1, -1))
SQRT_HALF = 0x3FE6A09E667F3BCD  # the bits of the float64 sqrt(1/2)


def log(r: Tensor) -> Tensor:
    """Natural logarithm of positive float64 numbers by plain arithmetic, to a few units in the last place."""
    bits = r.view(torch.int64)
    power = (bits - SQRT_HALF) >> 52
    m = (bits - (power << 52)).view(torch.float64)
    s = (m - 1) / (m + 1)
    z = s * s
    p = torch.full_like(z, SERIES[0])
    for coefficient in SERIES[1:]:
        p = p * z + coefficient
    return power.double() * LN2 + 2 * s * p


def race(units: Tensor, ids: Tensor, bits: int) -> Tensor:
    """See :func:`graphdyn.kernels.race.race`."""
    r = (high(ids, bits) + 1).double() * 2.0**-53
    return torch.where(units > 0, -log(r) / units.double(), torch.inf)


def des_raj(
    remaining: Tensor, units: Tensor, place: Tensor, candidates: Tensor | int, size: Tensor | int
) -> Tensor:
    """The scale of the j-th draw, see :func:`graphdyn.kernels.race.des_raj`.

    Args:
        remaining: Weight of the candidates that were left before the draw.
        units: Its own weight.
        place: j, from 1.
        candidates: N.
        size: m < N.

    Returns:
        float64 of the same shape.
    """
    n, m, j = (torch.as_tensor(t, device=units.device).double() for t in (candidates, size, place))
    left = (n - m) / (n - j)
    return (1.0 - j / m * left) + n / m * left / (n - j + 1.0) * (
        remaining.double() / units.double()
    )
