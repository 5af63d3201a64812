"""The compiled loops behind :mod:`graphdyn.kernels.induced`, single-threaded and without the GIL."""

# The operations are documented where they are called.
# ruff: noqa: D103

from __future__ import annotations

import numpy as np

from graphdyn.kernels.numba_loops import jit

_ONE = np.int64(1)


@jit()
def count_edges(indptr, nodes):
    total = 0
    for i in range(nodes.size):
        total += indptr[nodes[i] + 1] - indptr[nodes[i]]
    return total


@jit()
def induced(indices, indptr, nodes, cuts, member, table, out_indptr, edge, src):
    # An edge is written whether both ends are in or not, and the place moves on where they are: no
    # branch to guess. Membership is one bit a node, so that it stays in cache; the table is read for
    # members alone, whose entries were just written. Zero in their high half is nobody's stamp.
    size = 0
    out_indptr[0] = 0
    for g in range(cuts.size - 1):
        first, last, start = cuts[g], cuts[g + 1], size
        for i in range(first, last):
            u = nodes[i]
            member[u >> 6] |= _ONE << (u & 63)
            table[u] = i
        for i in range(first, last):
            v = nodes[i]
            for e in range(indptr[v], indptr[v + 1]):
                u = indices[e]
                edge[size] = e
                src[size] = u
                size += (member[u >> 6] >> (u & 63)) & _ONE
            out_indptr[i + 1] = size
        for e in range(start, size):
            src[e] = table[src[e]]
        for i in range(first, last):
            member[nodes[i] >> 6] = 0
    return size
