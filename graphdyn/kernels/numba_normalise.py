"""The compiled loops of batch norm, with ReLU and dropout in one.

Sums are taken over fixed pieces of the rows (``cuts``), 64 rows at a time in the type of x and then
in double, so they depend neither on threads nor, visibly, on the number of rows.
"""

# The operations are documented where they are called, in graphdyn.kernels.normalise.
# ruff: noqa: D103

from __future__ import annotations

import numpy as np

from graphdyn.kernels.numba_keyed import GOLDEN, hash_id, mix
from graphdyn.kernels.numba_loops import jit

_S32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@jit("contract")
def column_sums(first, last, cuts, x, p, shift, out):
    width = x.shape[1]
    one = x.dtype.type(1)
    for c in range(first, last):
        out[c] = 0
        for start in range(cuts[c], cuts[c + 1], 64):
            sums = np.zeros((2, width), x.dtype)
            for r in range(start, min(start + 64, cuts[c + 1])):
                w = one if p is None else p[r]
                for f in range(width):
                    d = x[r, f] - shift[f]
                    sums[0, f] += w * d
                    sums[1, f] += w * d * d
            for f in range(width):
                out[c, 0, f] += sums[0, f]
                out[c, 1, f] += sums[1, f]


@jit("contract")
def affine(first, last, ids, x, slope, offset, relu, threshold, bits, scale, out):
    zero = x.dtype.type(0)
    width = x.shape[1]
    pairs = width // 2 if threshold > 0 else 0
    for r in range(first, last):
        word = hash_id(r if ids is None else ids[r], bits)
        for j in range(pairs):
            z = mix(word + GOLDEN * np.uint64(j + 1))
            a = slope[2 * j] * x[r, 2 * j] + offset[2 * j]
            b = slope[2 * j + 1] * x[r, 2 * j + 1] + offset[2 * j + 1]
            out[r, 2 * j] = (
                a * scale if (z & _LOW) >= threshold and (a > zero or not relu) else zero
            )
            out[r, 2 * j + 1] = (
                b * scale if (z >> _S32) >= threshold and (b > zero or not relu) else zero
            )
        for f in range(2 * pairs, width):
            keep = True
            if threshold > 0:
                keep = (mix(word + GOLDEN * np.uint64(pairs + 1)) & _LOW) >= threshold
            a = slope[f] * x[r, f] + offset[f]
            out[r, f] = a * scale if keep and (a > zero or not relu) else zero


@jit("contract")
def gated_sums(first, last, cuts, x, gate, grad, mean, rstd, out):
    width = x.shape[1]
    zero = x.dtype.type(0)
    for c in range(first, last):
        out[c] = 0
        for start in range(cuts[c], cuts[c + 1], 64):
            sums = np.zeros((2, width), x.dtype)
            for r in range(start, min(start + 64, cuts[c + 1])):
                for f in range(width):
                    g = grad[r, f] if gate is None or gate[r, f] > zero else zero
                    sums[0, f] += g
                    sums[1, f] += g * ((x[r, f] - mean[f]) * rstd[f])
            for f in range(width):
                out[c, 0, f] += sums[0, f]
                out[c, 1, f] += sums[1, f]


@jit("contract")
def norm_grad(first, last, x, p, even, gate, grad, mean, rstd, slope, sums, out):
    zero = x.dtype.type(0)
    for r in range(first, last):
        w = even if p is None else p[r]
        for f in range(x.shape[1]):
            g = grad[r, f] if gate is None or gate[r, f] > zero else zero
            hat = (x[r, f] - mean[f]) * rstd[f]
            out[r, f] = slope[f] * (g - w * (sums[0, f] + hat * sums[1, f]))
