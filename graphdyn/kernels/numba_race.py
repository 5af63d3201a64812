"""The compiled loops of the exponential race, bit for bit those of :mod:`graphdyn.kernels.torch_race`."""

# The operations are documented where they are called, in graphdyn.kernels.race.
# ruff: noqa: D103

from __future__ import annotations

import numba
import numpy as np

from graphdyn.kernels import torch_race
from graphdyn.kernels.numba_keyed import hash_id
from graphdyn.kernels.numba_loops import jit

_S11 = np.uint64(11)
_SQRT_HALF = np.int64(torch_race.SQRT_HALF)
_LN2, _SERIES = torch_race.LN2, torch_race.SERIES


@numba.njit(inline="always")
def log(r):
    bits = np.float64(r).view(np.int64)
    power = (bits - _SQRT_HALF) >> 52
    m = np.int64(bits - (power << 52)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = _SERIES[0]
    for i in range(1, 11):
        p = p * z + _SERIES[i]
    return np.float64(power) * _LN2 + 2.0 * s * p


@numba.njit(inline="always")
def chance(number, bits):
    """53 random bits in (0, 1] that belong to a number."""
    return np.float64(np.int64(hash_id(number, bits) >> _S11) + 1) * 2.0**-53


@numba.njit(inline="always")
def des_raj(remaining, units, place, candidates, size):
    n, m, j = np.float64(candidates), np.float64(size), np.float64(place)
    left = (n - m) / (n - j)
    ratio = np.float64(remaining) / np.float64(units)
    return (1.0 - j / m * left) + n / m * left / (n - j + 1.0) * ratio


@jit()
def race(units, ids, bits, out):
    for i in range(units.size):
        out[i] = -log(chance(ids[i], bits)) / np.float64(units[i]) if units[i] > 0 else np.inf
