"""Approximate personalised PageRank by local push (Andersen, Chung & Lang 2006, "Local graph partitioning").

Masses are integers in units of 2^-50: additions are exact, so no order of them, no number of threads
and no device changes a result. Shapes: N nodes of the graph, R roots.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.kernels import torch_ppr
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager
from graphdyn.kernels.threads import even_cuts, run
from graphdyn.sparse import CSC

ONE = 1 << 50  # the mass of a root: every partial sum is exact in float64 as well
_MIN_EPS = 1e-9
# Entries that are set aside at a time; a row may need as many as alpha and eps allow.
_ROOM = 1 << 24


class PPR(NamedTuple):
    """Rows of an approximate PageRank matrix, the largest entries first (ties: the smallest id).

    Attributes:
        indptr: (R + 1,) int64; the entries of root i are ``indptr[i]:indptr[i + 1]``.
        node: (M,) int64 ids.
        mass: (M,) float64 in (0, 1].
    """

    indptr: Tensor
    node: Tensor
    mass: Tensor


@eager
def ppr(csc: CSC, roots: Tensor, *, alpha: float = 0.25, eps: float = 2e-4, top_k: int = -1) -> PPR:
    r"""Rows of ``alpha (I - (1 - alpha) P)^-1``, P the walk against the edges, from below.

    A step goes from a node to the source of one of its in-edges, all alike (parallel edges count
    each, weights do not): to the nodes whose messages it reads. A node without in-edges keeps the
    walk. First the root pushes, then all nodes whose residual is at least ``eps * in-degree`` push at
    once, round after round, until there are none: with ``p`` the result and ``r`` the residual left

    * ``row - p = sum_u r_u row_u >= 0`` entry by entry;
    * ``sum p >= 1 - eps * (edges + nodes without in-edges)``;
    * on undirected graphs ``row_v - p_v <= eps * degree_v``.

    Cost O(1 / (alpha eps)) a root, whatever the graph's size. It runs on CPU wherever Numba is.

    Args:
        csc: The full, square pattern.
        roots: (R,) int64 ids.
        alpha: Probability that the walk ends at each node, in (0, 1].
        eps: Residual an in-edge, in [1e-9, 1].
        top_k: Entries kept a root; -1 keeps all.

    Returns:
        Rows in the order of the roots.

    Raises:
        InputError: If alpha, eps or top_k is out of range.
    """
    _check(alpha, eps, top_k)
    unit = max(1, int(eps * ONE))
    cap = 2 * ONE // unit  # beyond this degree nobody can ever push; the threshold stays in 64 bits
    width = min(csc.num_src, ONE // max(1, int(alpha * unit)))
    width = width if top_k < 0 else min(width, top_k)
    options = (alpha, unit, cap, width, ONE)
    if not compiled(torch.device("cpu")):
        indptr, node, mass = torch_ppr.push(csc, roots, *options)
        return PPR(indptr, node, mass.double() / ONE)
    pattern = csc.to("cpu")
    parts = [_push(pattern, part, options) for part in roots.cpu().split(max(1, _ROOM // width))]
    return PPR(*(t.to(csc.device) for t in _stack(parts)))


def _push(csc: CSC, roots: Tensor, options: tuple) -> PPR:
    from graphdyn.kernels import numba_ppr as loop

    rows, width = roots.numel(), options[3]
    count = torch.zeros(rows + 1, dtype=torch.int64)
    node, mass = (torch.empty(rows, width, dtype=torch.int64) for _ in range(2))
    inputs = (csc.indptr.numpy(), csc.indices.numpy(), roots.numpy(), *options)
    work = rows * csc.num_edges
    run(loop.push, even_cuts(rows), work, *inputs, count[1:].numpy(), node.numpy(), mass.numpy())
    indptr = count.cumsum(0)
    row = torch.repeat_interleave(count[1:])
    place = torch.arange(row.numel()) + (torch.arange(rows) * width - indptr[:-1])[row]
    return PPR(indptr, node.view(-1)[place], mass.view(-1)[place].double() / ONE)


def _stack(parts: list[PPR]) -> PPR:
    """The rows of several results."""
    count = torch.cat([part.indptr.diff() for part in parts])
    indptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return PPR(indptr, *(torch.cat(column) for column in zip(*(part[1:] for part in parts))))


def _check(alpha: float, eps: float, top_k: int) -> None:
    if not 0 < alpha <= 1:
        raise InputError(f"alpha is {alpha}; it must lie in (0, 1].")
    if not _MIN_EPS <= eps <= 1:
        raise InputError(f"eps is {eps}; it must lie in [{_MIN_EPS:g}, 1].")
    if top_k < 1 and top_k != -1:
        raise InputError(f"top_k is {top_k}; give at least 1, or -1 for all.")
