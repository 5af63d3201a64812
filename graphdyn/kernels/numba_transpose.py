"""The compiled loop that turns a pattern around: a stable counting sort of its edges by source."""

# Documented where it is called, in graphdyn.sparse.
# ruff: noqa: D103

from __future__ import annotations

from graphdyn.kernels.numba_loops import jit


@jit()
def transpose(indptr, indices, out_indptr, out_indices, perm, inverse):
    for e in range(indices.size):
        out_indptr[indices[e] + 1] += 1
    for u in range(out_indptr.size - 1):
        out_indptr[u + 1] += out_indptr[u]
    for v in range(indptr.size - 1):
        for e in range(indptr[v], indptr[v + 1]):
            u = indices[e]
            place = out_indptr[u]
            out_indptr[u] = place + 1
            out_indices[place] = v
            perm[place] = e
            inverse[e] = place
    # Every row has moved to the start of the next.
    for u in range(out_indptr.size - 1, 0, -1):
        out_indptr[u] = out_indptr[u - 1]
    out_indptr[0] = 0
