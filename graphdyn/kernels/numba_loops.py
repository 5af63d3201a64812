"""The compiled loops of the pattern kernels.

Arguments: a range of rows, the pattern by rows, arrays, output. ``perm`` is ``None``, or says where
the values of row-ordered edges lie; Numba prunes ``None`` branches when it specialises. Products
take four edges a pass: the row of the output is then read and written a quarter as often.
"""

# The operations are documented where they are called, in numba_ops.
# ruff: noqa: D103

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def jit(*fastmath: str) -> Callable[[Callable], Any]:
    """Compile without the GIL and keep the code on disk.

    Args:
        *fastmath: LLVM's licences. ``contract`` fuses multiply-adds; ``reassoc`` lets an inner
            product be vectorised. Neither makes a result depend on threads.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}

    def compile_(function):
        try:
            return numba.njit(function, cache=True, **options)
        except RuntimeError:  # there is nowhere to write the cache
            return numba.njit(function, **options)

    return compile_


@jit("contract")
def spmm(first, last, indptr, indices, perm, values, x, out):
    one = x.dtype.type(1)
    width = x.shape[1]
    for v in range(first, last):
        row = out[v]
        row[:] = 0
        e, end = indptr[v], indptr[v + 1]
        while e + 4 <= end:
            x0, x1 = x[indices[e]], x[indices[e + 1]]
            x2, x3 = x[indices[e + 2]], x[indices[e + 3]]
            if values is None:
                for f in range(width):
                    row[f] = row[f] + x0[f] + x1[f] + x2[f] + x3[f]
            else:
                w0 = values[e if perm is None else perm[e]]
                w1 = values[e + 1 if perm is None else perm[e + 1]]
                w2 = values[e + 2 if perm is None else perm[e + 2]]
                w3 = values[e + 3 if perm is None else perm[e + 3]]
                for f in range(width):
                    row[f] = row[f] + w0 * x0[f] + w1 * x1[f] + w2 * x2[f] + w3 * x3[f]
            e += 4
        while e < end:
            w0 = one if values is None else values[e if perm is None else perm[e]]
            x0 = x[indices[e]]
            for f in range(width):
                row[f] += w0 * x0[f]
            e += 1


@jit("contract")
def spmm_heads(first, last, indptr, indices, perm, values, x, out):
    heads, width = x.shape[1], x.shape[2]
    for v in range(first, last):
        out[v] = 0
        e, end = indptr[v], indptr[v + 1]
        while e + 4 <= end:
            u0, u1, u2, u3 = indices[e], indices[e + 1], indices[e + 2], indices[e + 3]
            for h in range(heads):
                w0 = values[e if perm is None else perm[e], h]
                w1 = values[e + 1 if perm is None else perm[e + 1], h]
                w2 = values[e + 2 if perm is None else perm[e + 2], h]
                w3 = values[e + 3 if perm is None else perm[e + 3], h]
                for f in range(width):
                    near = out[v, h, f] + w0 * x[u0, h, f] + w1 * x[u1, h, f]
                    out[v, h, f] = near + w2 * x[u2, h, f] + w3 * x[u3, h, f]
            e += 4
        while e < end:
            u0 = indices[e]
            for h in range(heads):
                w0 = values[e if perm is None else perm[e], h]
                for f in range(width):
                    out[v, h, f] += w0 * x[u0, h, f]
            e += 1


@jit("contract", "reassoc")
def sddmm(first, last, indptr, indices, dst, src, out):
    heads, width = dst.shape[1], dst.shape[2]
    for v in range(first, last):
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            for h in range(heads):
                total = dst.dtype.type(0)
                for f in range(width):
                    total += dst[v, h, f] * src[u, h, f]
                out[e, h] = total


@jit("contract")
def segment_sum(first, last, indptr, perm, values, out):
    width = values.shape[1]
    for v in range(first, last):
        row = out[v]
        row[:] = 0
        for e in range(indptr[v], indptr[v + 1]):
            value = values[e if perm is None else perm[e]]
            for f in range(width):
                row[f] += value[f]


@jit("contract")
def edge_softmax(first, last, indptr, logits, out):
    heads = logits.shape[1]
    peak, total = np.empty(heads, logits.dtype), np.empty(heads, logits.dtype)
    for v in range(first, last):
        start, end = indptr[v], indptr[v + 1]
        peak[:] = -np.inf
        total[:] = 0
        for e in range(start, end):
            for h in range(heads):
                peak[h] = max(peak[h], logits[e, h])
        for e in range(start, end):
            for h in range(heads):
                weight = math.exp(logits[e, h] - peak[h])
                out[e, h] = weight
                total[h] += weight
        for h in range(heads):
            total[h] = 1 / total[h]
        for e in range(start, end):
            for h in range(heads):
                out[e, h] *= total[h]


@jit("contract")
def edge_softmax_grad(first, last, indptr, p, grad, out):
    heads = p.shape[1]
    total = np.empty(heads, p.dtype)
    for v in range(first, last):
        start, end = indptr[v], indptr[v + 1]
        total[:] = 0
        for e in range(start, end):
            for h in range(heads):
                total[h] += p[e, h] * grad[e, h]
        for e in range(start, end):
            for h in range(heads):
                out[e, h] = p[e, h] * (grad[e, h] - total[h])


@jit()
def segment_argmax(first, last, indptr, indices, x, out):
    width = x.shape[1]
    peak = np.empty(width, x.dtype)
    for v in range(first, last):
        start, end = indptr[v], indptr[v + 1]
        best = out[v]
        if start == end:
            best[:] = -1
            continue
        best[:] = start
        peak[:] = x[indices[start]]
        for e in range(start + 1, end):
            column = x[indices[e]]
            for f in range(width):
                better = column[f] > peak[f]
                best[f] = e if better else best[f]
                peak[f] = column[f] if better else peak[f]


@jit()
def take(first, last, indices, best, x, out):
    for v in range(first, last):
        for f in range(x.shape[1]):
            e = best[v, f]
            out[v, f] = x[indices[e], f] if e >= 0 else 0


@jit()
def put(first, last, indptr, indices, perm, best, grad, out):
    width = grad.shape[1]
    for u in range(first, last):
        row = out[u]
        row[:] = 0
        for k in range(indptr[u], indptr[u + 1]):
            e, v = perm[k], indices[k]
            for f in range(width):
                row[f] += grad[v, f] if best[v, f] == e else 0


@jit("contract")
def pair_scores(first, last, indptr, indices, slope, gate_src, gate_dst, y_src, y_dst, out):
    heads = y_src.shape[1]
    for v in range(first, last):
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            for h in range(heads):
                open_ = gate_src[u, h] + gate_dst[v, h] > 0
                y = y_src[u, h] + y_dst[v, h]
                out[e, h] = y if open_ else slope * y


@jit("contract")
def pair_scores_grad(first, last, indptr, indices, perm, slope, gate_row, gate_col, grad, out):
    heads = grad.shape[1]
    for v in range(first, last):
        out[v] = 0
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            edge = e if perm is None else perm[e]
            for h in range(heads):
                open_ = gate_row[v, h] + gate_col[u, h] > 0
                out[v, h] += grad[edge, h] if open_ else slope * grad[edge, h]


@jit("contract", "reassoc")
def gatv2_scores(first, last, indptr, indices, slope, gate_src, gate_dst, y_src, y_dst, att, out):
    heads, width = att.shape
    for v in range(first, last):
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            for h in range(heads):
                total = att.dtype.type(0)
                for f in range(width):
                    y = att[h, f] * (y_src[u, h, f] + y_dst[v, h, f])
                    open_ = gate_src[u, h, f] + gate_dst[v, h, f] > 0
                    total += y if open_ else slope * y
                out[e, h] = total


@jit("contract")
def gatv2_row_grad(first, last, indptr, indices, perm, slope, gate_row, gate_col, att, grad, out):
    heads, width = att.shape
    for v in range(first, last):
        out[v] = 0
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            edge = e if perm is None else perm[e]
            for h in range(heads):
                full = grad[edge, h]
                low = slope * full
                for f in range(width):
                    open_ = gate_row[v, h, f] + gate_col[u, h, f] > 0
                    out[v, h, f] += full if open_ else low
        for h in range(heads):
            for f in range(width):
                out[v, h, f] *= att[h, f]


@jit("contract")
def gatv2_att_grad(
    first, last, cuts, indptr, indices, slope, gate_src, gate_dst, y_src, y_dst, grad, out
):
    """Rows here are pieces of the pattern: one partial sum each, added up in order afterwards."""
    heads, width = y_src.shape[1], y_src.shape[2]
    for piece in range(first, last):
        out[piece] = 0
        for v in range(cuts[piece], cuts[piece + 1]):
            for e in range(indptr[v], indptr[v + 1]):
                u = indices[e]
                for h in range(heads):
                    full = grad[e, h]
                    low = slope * full
                    for f in range(width):
                        open_ = gate_src[u, h, f] + gate_dst[v, h, f] > 0
                        y = y_src[u, h, f] + y_dst[v, h, f]
                        out[piece, h, f] += (full if open_ else low) * y
