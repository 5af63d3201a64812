"""The compiled loops of Poisson designs, bit for bit those of :mod:`graphdyn.kernels.torch_poisson`."""

# The operations are documented where they are called, in graphdyn.kernels.poisson.
# ruff: noqa: D103

from __future__ import annotations

import numba
import numpy as np

from graphdyn.kernels.numba_keyed import hash_id
from graphdyn.kernels.numba_loops import jit

_S11 = np.uint64(11)


@numba.njit(inline="always")
def uniform(number, bits):
    """53 random bits in [0, 1) that belong to a number."""
    return np.float64(np.int64(hash_id(number, bits) >> _S11)) * 2.0**-53


@numba.njit(inline="always")
def to_units(weight, unit):
    units = np.int64(np.rint(np.float64(weight) * unit))
    return np.int64(1) if units == 0 and weight > 0 else units


@jit()
def thresholds(indptr, weight, unit, k, out):
    for v in range(out.size):
        first, last = indptr[v], indptr[v + 1]
        positive, total = 0, np.int64(0)
        for e in range(first, last):
            positive += weight[e] > 0
            total += to_units(weight[e], unit)
        if positive <= k:
            out[v] = np.inf
            continue
        aside, rest = 0, total
        while True:
            budget, bound = np.float64(k - aside), np.float64(rest)
            count, mass = 0, np.int64(0)
            for e in range(first, last):
                units = to_units(weight[e], unit)
                if np.float64(units) * budget >= bound:
                    count += 1
                    mass += units
            # By rounding, all k could seem certain beside tiny weights: one place stays open to those.
            if count <= aside or count >= k:
                break
            aside, rest = count, total - mass
        out[v] = np.float64(k - aside) / np.float64(rest) * unit


@jit()
def keep(weight, ids, c, bits, index, pi):
    count = 0
    for i in range(weight.size):
        p = min(1.0, c * weight[i]) if weight[i] > 0 else 0.0
        index[count] = i
        pi[count] = p
        count += uniform(ids[i], bits) < p
    return count
