"""The compiled loops of sampling: draw edges, give sources local ids, weigh, gather.

Single-threaded and without the GIL: a loader runs whole batches side by side. Draws are bit for bit
those of :mod:`graphdyn.kernels.torch_draw`. ``loops`` is ``None``, or packs where the self-loops of
each row stand: ``offset << 32 | count``.
"""

# The operations are documented where they are called, in graphdyn.kernels.draw.
# ruff: noqa: D103

from __future__ import annotations

import numba
import numpy as np

from graphdyn.kernels.numba_keyed import GOLDEN, hash_id, mix
from graphdyn.kernels.numba_loops import jit
from graphdyn.kernels.numba_prefetch import prefetch

_S32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_TWO32 = np.uint64(1 << 32)
_LOW_SIGNED = np.int64(0xFFFFFFFF)
_AHEAD = 48  # table entries in flight; any number from 32 on does about as well


def word(bits: int) -> np.uint64:
    """Key bits in the type that the loops compute in."""
    return np.uint64(bits)


@numba.njit(inline="always")
def bounded(word, draw, bound):
    """Uniform integer in [0, bound): 32 random bits, multiply-high, Lemire's rejection."""
    z = mix(word + GOLDEN * np.uint64(draw + 1))
    b = np.uint64(bound)
    product = (z >> _S32) * b
    if (product & _LOW) < b:
        threshold = (_TWO32 - b) % b
        while (product & _LOW) < threshold:
            z = mix(z + GOLDEN)
            product = (z >> _S32) * b
    return np.int64(product >> _S32)


@numba.njit(inline="always")
def floyd(word, j, rest, k, chosen):
    """Draw j of k distinct positions below ``rest``; ``chosen`` holds the draws before it."""
    t = bounded(word, j, rest - k + j + 1)
    for other in range(j):  # Floyd: a second hit takes the newest position
        if chosen[other] == t:
            t = rest - k + j
            break
    chosen[j] = t
    return t


@jit()
def count_uniform(dst, indptr, loops, k, replace, rows, out):
    """Where each row stands goes to ``rows``, so that the next pass reads memory in order."""
    total = 0
    out[0] = 0
    for i in range(dst.size):
        v = dst[i]
        packed = np.int64(0) if loops is None else loops[v]
        own = packed & _LOW_SIGNED
        start = np.int64(indptr[v])
        rest = np.int64(indptr[v + 1]) - start - own
        rows[i, 0], rows[i, 1], rows[i, 2] = start, rest, packed
        if k >= 0 and (rest > k or (replace and rest > 0)):
            rest = k
        total += own + rest
        out[i + 1] = total


@jit()
def fill_uniform(dst, rows, k, replace, bits, out_indptr, edge, scale):
    one = scale.dtype.type(1)
    chosen = np.empty(max(k, 1), np.int64)
    for i in range(dst.size):
        start, rest = rows[i, 0], rows[i, 1]
        at, own = rows[i, 2] >> 32, rows[i, 2] & _LOW_SIGNED
        e = out_indptr[i]
        for j in range(own):
            edge[e] = start + at + j
            scale[e] = one
            e += 1
        if k < 0 or (rest <= k and not replace):
            for j in range(rest):
                edge[e] = start + j + (own if j >= at else 0)
                scale[e] = one
                e += 1
        elif rest > 0:
            factor = scale.dtype.type(rest / k)
            word = hash_id(dst[i], bits)
            for j in range(k):
                t = bounded(word, j, rest) if replace else floyd(word, j, rest, k, chosen)
                edge[e] = start + t + (own if t >= at else 0)
                scale[e] = factor
                e += 1


@jit()
def take_source(indices, edge, out):
    for e in range(edge.size):
        out[e] = indices[edge[e]]


@jit()
def relabel(dst, src, table, stamp, nodes, local):
    mark = np.int64(stamp) << 32
    count = dst.size
    for i in range(count):
        nodes[i] = dst[i]
        table[dst[i]] = mark | i
    for e in range(src.size):
        prefetch(table, np.intp(src[min(e + _AHEAD, src.size - 1)]))
        u = src[e]
        entry = table[u]
        known = (entry >> 32) == stamp
        # Written whether known or not: no branch for the processor to guess.
        nodes[count] = u
        entry = entry if known else mark | count
        table[u] = entry
        local[e] = entry & _LOW_SIGNED
        count += 0 if known else 1
    return count


@jit()
def weigh(values, edge, scale, out):
    for e in range(edge.size):
        out[e] = values[edge[e]] * scale[e]


@jit()
def weigh_rows(values, dst, indptr, scale, out):
    for i in range(dst.size):
        value = values[dst[i]]
        for e in range(indptr[i], indptr[i + 1]):
            out[e] = value * scale[e]


@jit()
def take_rows(first, last, x, ids, out):
    for i in range(first, last):
        u = ids[i]
        for f in range(x.shape[1]):
            out[i, f] = x[u, f]
