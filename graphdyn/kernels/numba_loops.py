"""The compiled loops. Arguments: a range of rows, the pattern by rows, then arrays.

``perm`` is ``None`` or says where the values of row-ordered edges lie; ``None`` branches are pruned when
Numba specialises. ``contract`` allows fused multiply-add and nothing else, so sums keep their order.
"""

from __future__ import annotations

import numba


def _jit(function):
    try:
        return numba.njit(function, cache=True, nogil=True, fastmath={"contract"})
    except RuntimeError:  # nowhere to write the cache
        return numba.njit(function, nogil=True, fastmath={"contract"})


@_jit
def spmm(first, last, indptr, indices, perm, values, x, out):
    for v in range(first, last):
        row = out[v]
        row[:] = 0
        for e in range(indptr[v], indptr[v + 1]):
            w = x.dtype.type(1) if values is None else values[e if perm is None else perm[e]]
            column = x[indices[e]]
            for f in range(row.size):
                row[f] += w * column[f]


@_jit
def spmm_heads(first, last, indptr, indices, perm, values, x, out):
    heads, width = x.shape[1], x.shape[2]
    for v in range(first, last):
        out[v] = 0
        for e in range(indptr[v], indptr[v + 1]):
            edge = e if perm is None else perm[e]
            u = indices[e]
            for h in range(heads):
                w = values[edge, h]
                row, column = out[v, h], x[u, h]
                for f in range(width):
                    row[f] += w * column[f]
