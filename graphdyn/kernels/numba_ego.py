"""The compiled loops behind :mod:`graphdyn.kernels.ego`, single-threaded and without the GIL."""

# The operations are documented where they are called.
# ruff: noqa: D103

from __future__ import annotations

import numpy as np

from graphdyn.kernels.numba_draw import floyd
from graphdyn.kernels.numba_keyed import hash_id
from graphdyn.kernels.numba_loops import jit

_LOW = np.int64(0xFFFFFFFF)


@jit()
def ego(indptr, indices, loops, roots, depth, k, bits, table, stamp, cuts):
    # An entry of the table is known to a group if it carries the stamp and points into the group.
    mark = np.int64(stamp) << 32
    nodes = np.empty(64 * roots.size + 64, np.int64)
    chosen = np.empty(max(k, 1), np.int64)
    count = 0
    cuts[0] = 0
    for i in range(roots.size):
        first = count
        nodes = _room(nodes, count, 1)
        nodes[count] = roots[i]
        table[roots[i]] = mark | count
        count += 1
        own_bits = hash_id(roots[i], bits)
        begin = first
        for _ in range(depth):
            end = count
            for q in range(begin, end):
                v = nodes[q]
                start = np.int64(indptr[v])
                at, own = 0, 0
                if loops is not None:
                    at, own = loops[v] >> 32, loops[v] & _LOW
                rest = np.int64(indptr[v + 1]) - start - own
                take = rest if k < 0 or rest <= k else k
                nodes = _room(nodes, count, take)
                base = hash_id(np.uint64(v) ^ own_bits, bits)
                for j in range(take):
                    t = j if take == rest else floyd(base, j, rest, k, chosen)
                    u = indices[start + t + (own if t >= at else 0)]
                    entry = table[u]
                    if (entry >> 32) != stamp or (entry & _LOW) < first:
                        nodes[count] = u
                        table[u] = mark | count
                        count += 1
            begin = end
        cuts[i + 1] = count
    return nodes[:count].copy()


@jit()
def _room(nodes, count, more):
    """The array, or a larger copy where it is too short."""
    if count + more <= nodes.size:
        return nodes
    out = np.empty(max(2 * nodes.size, count + more), nodes.dtype)
    out[:count] = nodes[:count]
    return out
