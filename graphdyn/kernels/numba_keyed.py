"""The compiled loops of keyed dropout, bit for bit those of :mod:`graphdyn.keys`."""

# The operations are documented where they are called, in numba_ops.
# ruff: noqa: D103

from __future__ import annotations

import numba
import numpy as np

from graphdyn import keys
from graphdyn.kernels.numba_loops import jit

GOLDEN = np.uint64(keys.GOLDEN)
_MIX1, _MIX2 = np.uint64(keys.MIX1), np.uint64(keys.MIX2)
_S27, _S30, _S31, _S32 = (np.uint64(s) for s in (27, 30, 31, 32))
_LOW = np.uint64(0xFFFFFFFF)


@numba.njit(inline="always")
def mix(z):
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    return z ^ (z >> _S31)


@numba.njit(inline="always")
def hash_id(number, bits):
    return mix((mix(np.uint64(number) + GOLDEN) ^ bits) + GOLDEN)


@jit()
def dropout(first, last, ids, x, threshold, bits, scale, relu, out):
    zero = x.dtype.type(0)
    pairs, odd = x.shape[1] // 2, x.shape[1] % 2
    for r in range(first, last):
        word = hash_id(r if ids is None else ids[r], bits)
        for j in range(pairs):
            z = mix(word + GOLDEN * np.uint64(j + 1))
            a, b = x[r, 2 * j], x[r, 2 * j + 1]
            keep_a = (z & _LOW) >= threshold and not (relu and a <= zero)
            keep_b = (z >> _S32) >= threshold and not (relu and b <= zero)
            out[r, 2 * j] = a * scale if keep_a else zero
            out[r, 2 * j + 1] = b * scale if keep_b else zero
        if odd:
            z = mix(word + GOLDEN * np.uint64(pairs + 1))
            a = x[r, 2 * pairs]
            keep_a = (z & _LOW) >= threshold and not (relu and a <= zero)
            out[r, 2 * pairs] = a * scale if keep_a else zero


@jit()
def keep_entries(first, last, row, column, threshold, bits, out):
    for e in range(first, last):
        c = np.uint64(column[e])
        z = mix(hash_id(row[e], bits) + GOLDEN * (c // np.uint64(2) + np.uint64(1)))
        out[e] = ((z >> (c % np.uint64(2) * _S32)) & _LOW) >= threshold


@jit()
def gate(first, last, gate, x, scale, out):
    zero = x.dtype.type(0)
    for i in range(first, last):
        out[i] = x[i] * scale if gate[i] > 0 else zero
