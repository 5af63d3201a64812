"""The compiled loops of layer-wise samplers: the integers of :mod:`graphdyn.kernels.torch_layerwise`.

``table`` says of each node ``stamp << 32 | place``; an entry with another stamp is void.
"""

# The operations are documented where they are called, in graphdyn.kernels.layerwise.
# ruff: noqa: D103

from __future__ import annotations

import numpy as np

from graphdyn.kernels.numba_loops import jit

_LOW = np.int64(0xFFFFFFFF)


@jit()
def column_squares(dst, indptr, indices, values, unit, table, stamp, nodes, sums):
    mark = np.int64(stamp) << 32
    count = dst.size
    for i in range(count):
        nodes[i], sums[i] = dst[i], 0
        table[dst[i]] = mark | i
    one = np.int64(np.rint(unit))
    for i in range(dst.size):
        v = dst[i]
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            if u == v:
                continue
            entry = table[u]
            if (entry >> 32) != stamp:
                entry = mark | count
                table[u] = entry
                nodes[count], sums[count] = u, 0
                count += 1
            if values is None:
                sums[entry & _LOW] += one
            elif values[e] != 0:
                a = np.float64(values[e])
                sums[entry & _LOW] += max(np.int64(np.rint(a * a * unit)), np.int64(1))
    return count


@jit()
def edges_from(dst, indptr, indices, chosen, table, stamp, out_indptr, edge, pick):
    mark = np.int64(stamp) << 32
    for i in range(chosen.size):
        table[chosen[i]] = mark | i
    size = 0
    out_indptr[0] = 0
    for i in range(dst.size):
        v = dst[i]
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            entry = table[u]
            # Written whether kept or not: no branch for the processor to guess.
            edge[size] = e
            pick[size] = -1 if u == v else entry & _LOW
            size += (u == v) | ((entry >> 32) == stamp)
        out_indptr[i + 1] = size
    return size
