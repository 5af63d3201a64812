"""The compiled loops behind :mod:`graphdyn.kernels.walk`, single-threaded and without the GIL."""

# The operations are documented where they are called.
# ruff: noqa: D103

from __future__ import annotations

import numba
import numpy as np

from graphdyn.kernels.numba_draw import bounded, word
from graphdyn.kernels.numba_keyed import hash_id
from graphdyn.kernels.numba_loops import jit

__all__ = ["count_later", "walk", "word"]


@jit()
def walk(indptr, indices, roots, bits, out):
    for w in range(roots.size):
        stream = hash_id(w, bits)
        v = roots[w]
        out[w, 0] = v
        for step in range(1, out.shape[1]):
            start = np.int64(indptr[v])
            degree = np.int64(indptr[v + 1]) - start
            if degree > 0:
                v = np.int64(indices[start + bounded(stream, step, degree)])
            out[w, step] = v


@numba.njit(inline="always")
def seen_before(path, i):
    known = False
    for k in range(i):
        known |= path[k] == path[i]
    return known


@numba.njit(inline="always")
def find(indptr, indices, u, v):
    """Position of the edge u -> v, or -1."""
    low, end = indptr[v], indptr[v + 1]
    high = end
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < u:
            low = middle + 1
        else:
            high = middle
    return low if low < end and indices[low] == u else -1


@jit()
def count_later(indptr, indices, walks, node, edge):
    for w in range(walks.shape[0]):
        path = walks[w]
        for j in range(2, path.size):
            if seen_before(path, j):
                continue
            node[path[j]] += 1
            for i in range(j):
                if seen_before(path, i):
                    continue
                e = find(indptr, indices, min(path[i], path[j]), max(path[i], path[j]))
                if e >= 0:
                    edge[e] += 1
