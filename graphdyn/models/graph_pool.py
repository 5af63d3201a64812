"""gPool (Gao & Ji 2019, "Graph U-Nets", ICML): a graph on its best nodes, joined where two steps joined them.

Valid for a whole graph: which nodes are best depends on all of them. Matrices have loops and are not yet
normalised; they are constants, in float64, since counts of walks grow like degrees to the power of two, four,
eight ... Shapes: N nodes of the graph, n of a level, k kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphdyn.batch import Block
from graphdyn.errors import InputError
from graphdyn.kernels import sum_dst
from graphdyn.sparse import CSC, Sparse

LOOP = 2.0  # A + 2I
_DENSE_FROM = 1 / 32  # share of stored entries from which a dense product is faster
_MOST_DENSE = 4096  # rows of the largest dense matrix


@dataclass(frozen=True, eq=False)
class Level:
    """A graph of the hierarchy.

    Attributes:
        matrix: (n, n) A + 2I; loops that the graph had keep their weight.
        ids: (n,) global ids of its nodes, ascending; ``None``: all nodes in order.
        total: N.
    """

    matrix: Sparse
    ids: Tensor | None
    total: int

    @property
    def num_nodes(self) -> int:
        """How many nodes there are: n."""
        return self.matrix.csc.num_dst

    @cached_property
    def block(self) -> Block:
        """``D^-1/2 (A + 2I) D^-1/2`` with the degrees of this level, for a GCN layer."""
        csc, values = self.matrix.csc, _values(self.matrix)
        inverse = sum_dst(csc, values).rsqrt()
        inverse = torch.where(inverse.isfinite(), inverse, 0.0)
        values = inverse[csc.dst] * values * inverse[csc.indices]
        return Block(Sparse(csc, values.float()), self.ids, self._edge_ids())

    def _edge_ids(self) -> Tensor | None:
        """Pairs of nodes by number: an edge between two has the same dropout mask whatever else is kept."""
        if self.ids is None:
            return None
        csc = self.matrix.csc
        return self.ids[csc.dst] * self.total + self.ids[csc.indices]

    def pooled(self, keep: Tensor) -> Level:
        """The graph on some of the nodes, with a step for every walk of two: ``(A + I)^2`` among them, plus 2I.

        Its own diagonal is left out. The authors' code has 1 for every pair within two steps instead of the
        number of walks; this is the paper's power of A, and what PyG's ``GraphUNet`` does.

        Args:
            keep: (k,) int64 rows of this level, ascending.
        """
        ids = keep if self.ids is None else self.ids[keep]
        return Level(_looped(_squared(_looped(self.matrix, 1.0), keep), LOOP), ids, self.total)


def best(score: Tensor, k: int) -> Tensor:
    """(k,) int64 rows of the highest scores, ascending; of equal ones those with lower numbers.

    Args:
        score: (n,).
        k: At most n.
    """
    order = torch.sort(score.detach(), descending=True, stable=True).indices
    return order[:k].sort().values


def sizes(pool: str | float | Sequence[float], depth: int) -> tuple[float, ...]:
    """How much each of ``depth`` levels keeps: below 1 a share, from 1 on a number of nodes.

    Args:
        pool: One or several; the last serves all levels after it.
        depth: How many levels there are.

    Raises:
        InputError: If one is neither a share nor a number of nodes, or there are more than levels.
    """
    try:
        parts = pool.split(",") if isinstance(pool, str) else pool
        given = [float(p) for p in ([parts] if isinstance(parts, (int, float)) else parts)]
    except (TypeError, ValueError):
        given = []
    if not given or not all(0 < p < 1 or (p >= 1 and p == int(p)) for p in given):
        raise InputError(
            f"pool is {pool!r}; expected shares in (0, 1) or numbers of nodes, for example 0.5 or 2000,1000."
        )
    if len(given) > depth:
        raise InputError(
            f"pool has {len(given)} entries, but there are {depth} levels; give fewer."
        )
    return tuple(given + [given[-1]] * (depth - len(given)))


def kept(size: float, n: int) -> int:
    """How many of n nodes a level keeps: a share rounded up, or a number, at most all."""
    return min(n, math.ceil(size * n) if size < 1 else int(size))


def _values(matrix: Sparse) -> Tensor:
    if matrix.values is None:
        return torch.ones(matrix.csc.num_edges, dtype=torch.float64, device=matrix.device)
    return matrix.values.double()


def _looped(matrix: Sparse, loop: float) -> Sparse:
    """The same matrix with this diagonal; every node has a loop already, parallel ones share the weight."""
    csc, values = matrix.csc, _values(matrix)
    own = csc.dst == csc.indices
    parallel = torch.bincount(csc.dst[own], minlength=csc.num_dst)
    values = values.clone()
    values[own] = (loop / parallel[csc.dst[own]]).to(values)
    return Sparse(csc, values)


def _squared(matrix: Sparse, keep: Tensor) -> Sparse:
    """(k, k) the square of a matrix among the rows kept, in float64; columns ascending."""
    csc = matrix.csc
    if csc.num_dst <= _MOST_DENSE and csc.num_edges >= _DENSE_FROM * csc.num_dst**2:
        full = matrix.to_dense(torch.float64)
        return _from_dense(full[keep] @ full[:, keep])
    if csc.device.type == "cpu":
        table, rows = matrix.to_scipy(), keep.numpy()
        return Sparse.from_scipy(table[rows] @ table[:, rows], torch.float64)
    return by_walks(matrix, keep)


def _from_dense(full: Tensor) -> Sparse:
    row, column = full.nonzero(as_tuple=True)
    return _compressed(row, column, full[row, column], full.shape[0])


def by_walks(matrix: Sparse, keep: Tensor) -> Sparse:
    """(k, k) the square among the rows kept, walk by walk: for any device, in memory for all walks from them.

    Args:
        matrix: (n, n) with values.
        keep: (k,) ascending.
    """
    csc, n = matrix.csc, keep.numel()
    place = torch.full((csc.num_src,), -1, dtype=torch.int64, device=csc.device)
    place[keep] = torch.arange(n, device=csc.device)
    near = matrix.rows(keep)
    middle = near.csc.indices.long()
    far = matrix.rows(middle)  # row e: what the middle of edge e hears from
    column, edge = place[far.csc.indices.long()], far.csc.dst.long()
    value = _values(far) * _values(near)[edge]
    inside = column >= 0
    pair = (near.csc.dst.long()[edge] * n + column)[inside]
    pair, where = torch.unique(pair, return_inverse=True)
    total = value.new_zeros(pair.numel()).index_add_(0, where, value[inside])
    return _compressed(pair // n, pair % n, total, n)


def _compressed(row: Tensor, column: Tensor, value: Tensor, n: int) -> Sparse:
    indptr = torch.zeros(n + 1, dtype=torch.int32, device=row.device)
    indptr[1:] = torch.bincount(row, minlength=n).cumsum(0)
    return Sparse(CSC(indptr, column.int(), n), value)
