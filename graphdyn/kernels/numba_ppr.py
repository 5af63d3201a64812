"""The compiled loops behind :mod:`graphdyn.kernels.ppr`; roots are independent, threads share them out."""

# The operations are documented where they are called.
# ruff: noqa: D103

from __future__ import annotations

import numpy as np

from graphdyn.kernels.numba_loops import jit


@jit()
def push(first, last, indptr, indices, roots, alpha, unit, cap, width, one, count, node, mass):
    size = indptr.size - 1
    done, left = np.zeros(size, np.int64), np.zeros(size, np.int64)
    touched, active, coming = (
        np.empty(size, np.int64),
        np.empty(size, np.int64),
        np.empty(size, np.int64),
    )
    share = np.empty(size, np.int64)
    for i in range(first, last):
        left[roots[i]] = one
        touched[0] = active[0] = roots[i]
        found, now = 1, 1
        while now > 0:
            # First everybody takes its residual, then everybody gives: a round has no order.
            for q in range(now):
                v = active[q]
                degree = np.int64(indptr[v + 1] - indptr[v])
                keep = left[v] if degree == 0 else np.int64(alpha * np.float64(left[v]))
                share[q] = 0 if degree == 0 else (left[v] - keep) // degree
                done[v] += keep
                left[v] -= keep + share[q] * degree
            then = 0
            for q in range(now):
                v = active[q]
                if share[q] == 0:
                    continue
                for e in range(indptr[v], indptr[v + 1]):
                    u = indices[e]
                    before = left[u]
                    if before == 0 and done[u] == 0:
                        touched[found] = u
                        found += 1
                    left[u] = before + share[q]
                    bound = unit * min(max(np.int64(indptr[u + 1] - indptr[u]), 1), cap)
                    if before < bound <= left[u]:
                        coming[then] = u
                        then += 1
            active, coming = coming, active
            now = then
        count[i] = _select(touched[:found], done, width, node[i], mass[i])
        for q in range(found):
            done[touched[q]] = 0
            left[touched[q]] = 0


@jit()
def _select(touched, done, width, node, mass):
    """The largest masses in descending order, ties by id; returns how many."""
    ids = np.sort(touched[done[touched] > 0])
    order = np.argsort(-done[ids], kind="mergesort")[:width]
    for j in range(order.size):
        node[j] = ids[order[j]]
        mass[j] = done[ids[order[j]]]
    return order.size
