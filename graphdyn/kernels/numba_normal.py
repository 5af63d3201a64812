"""Normal scores compiled, bit for bit those of :mod:`graphdyn.kernels.torch_normal`."""

# The operations are documented in graphdyn.kernels.torch_normal.
# ruff: noqa: D103

from __future__ import annotations

import numba
import numpy as np

from graphdyn.kernels import torch_normal
from graphdyn.kernels.numba_race import log

_MIDDLE, _CENTRE_SHIFT = torch_normal.MIDDLE, torch_normal.CENTRE_SHIFT
_NEAR_SHIFT, _FAR_SHIFT = torch_normal.NEAR_SHIFT, torch_normal.FAR_SHIFT
_CENTRE, _NEAR, _FAR = torch_normal.CENTRE, torch_normal.NEAR, torch_normal.FAR
_ROOT, _ROOT_STEPS = np.int64(torch_normal.ROOT), torch_normal.ROOT_STEPS


@numba.njit
def root(x):
    y = np.int64((np.float64(x).view(np.int64) >> 1) + _ROOT).view(np.float64)
    for _ in range(_ROOT_STEPS):
        y = (y + x / y) * 0.5
    return y


@numba.njit
def _ratio(top, bottom, r):
    above, below = top[0], bottom[0]
    for i in range(1, 8):
        above = above * r + top[i]
        below = below * r + bottom[i]
    return above / below


@numba.njit
def score(p):
    q = p - 0.5
    if abs(q) <= _MIDDLE:
        return q * _ratio(_CENTRE[0], _CENTRE[1], _CENTRE_SHIFT - q * q)
    tail = root(-log(p if q < 0 else 1.0 - p))
    if tail <= _FAR_SHIFT:
        z = _ratio(_NEAR[0], _NEAR[1], tail - _NEAR_SHIFT)
    else:
        z = _ratio(_FAR[0], _FAR[1], tail - _FAR_SHIFT)
    return -z if q < 0 else z
