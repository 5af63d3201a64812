"""Sparse patterns and matrices, stored by target: the structure every kernel runs on.

Shapes: D targets (rows), S sources (columns), E edges. Row v of a pattern lists the sources u of the
edges u -> v. A propagation matrix and a sparse feature matrix are the same thing to the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

INT32_MAX = 2**31 - 1


def index_dtype(*sizes: int) -> torch.dtype:
    """int32 where every size fits, else int64."""
    return torch.int32 if max(sizes) <= INT32_MAX else torch.int64


@dataclass(frozen=True, eq=False)
class CSC:
    """Pattern of a bipartite graph, compressed by target. Immutable.

    Attributes:
        indptr: (D + 1,) int32 or int64; the edges of target v are ``indptr[v]:indptr[v + 1]``.
        indices: (E,) same dtype and device as ``indptr``; the source of each edge.
        num_src: S.
    """

    indptr: Tensor
    indices: Tensor
    num_src: int

    @property
    def num_dst(self) -> int:
        """Number of targets D."""
        return self.indptr.numel() - 1

    @property
    def num_edges(self) -> int:
        """Number of edges E."""
        return self.indices.numel()

    @property
    def device(self) -> torch.device:
        """Where the pattern lies."""
        return self.indptr.device

    @cached_property
    def degree(self) -> Tensor:
        """(D,) number of edges into each target, int64."""
        return self.indptr.diff().long()

    @cached_property
    def dst(self) -> Tensor:
        """(E,) the target of each edge, same dtype as ``indices``."""
        ids = torch.arange(self.num_dst, dtype=self.indices.dtype, device=self.device)
        return torch.repeat_interleave(ids, self.degree, output_size=self.num_edges)

    @cached_property
    def transpose(self) -> Transpose:
        """The same edges compressed by source, computed once and kept (stable order)."""
        from graphdyn.kernels.backend import compiled

        turned = _compiled_transpose if compiled(self.device) else _sorted_transpose
        indptr, indices, perm, inverse = turned(self)
        csc = CSC(indptr, indices, self.num_dst)
        # The transpose of the transpose is this very object: no third copy on double backward.
        csc.__dict__["transpose"] = Transpose(self, inverse)
        return Transpose(csc, perm)

    @cached_property
    def chunks(self) -> np.ndarray:
        """(K + 1,) row boundaries that split rows + edges evenly: the unit of CPU threads.

        They depend on the pattern alone, so results never depend on the number of threads.
        """
        indptr = self.indptr.numpy()
        work = indptr.astype(np.int64) + np.arange(indptr.size)
        pieces = int(min(max(work[-1] // 4096, 1), 256))
        cuts = np.searchsorted(work, np.linspace(0, work[-1], pieces + 1))
        cuts[0], cuts[-1] = 0, self.num_dst
        return np.unique(cuts).astype(np.int64)

    def to(self, device: torch.device | str) -> CSC:
        """The same pattern on another device."""
        if torch.device(device) == self.device:
            return self
        return CSC(self.indptr.to(device), self.indices.to(device), self.num_src)

    def __repr__(self) -> str:
        return f"CSC({self.num_src} sources -> {self.num_dst} targets, {self.num_edges} edges)"


@dataclass(frozen=True, eq=False)
class Transpose:
    """A transposed pattern and where its edges came from.

    Attributes:
        csc: The pattern with sources and targets exchanged.
        perm: (E,) ``values[perm]`` are the edge values in the transposed order.
    """

    csc: CSC
    perm: Tensor


@dataclass(frozen=True, eq=False)
class Sparse:
    """A sparse matrix: a pattern and one value (or one per head) an edge; ``None`` means all ones.

    Attributes:
        csc: The pattern; rows are targets, columns are sources.
        values: (E,) or (E, H) floating point, or ``None``.
    """

    csc: CSC
    values: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(D, S)."""
        return self.csc.num_dst, self.csc.num_src

    @property
    def device(self) -> torch.device:
        """Where the matrix lies."""
        return self.csc.device

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Sparse:
        """The same matrix on another device, values optionally in another dtype."""
        values = None if self.values is None else self.values.to(device=device, dtype=dtype)
        return Sparse(self.csc.to(device), values)

    def rows(self, index: Tensor) -> Sparse:
        """The matrix of the given rows, in the given order; columns stay.

        Args:
            index: (K,) integer row numbers.

        Returns:
            A (K, S) matrix.
        """
        index = index.long()
        degree = self.csc.degree[index]
        indptr = torch.zeros(index.numel() + 1, dtype=self.csc.indptr.dtype, device=self.device)
        indptr[1:] = degree.cumsum(0)
        start = torch.repeat_interleave(self.csc.indptr[index].long() - indptr[:-1], degree)
        edge = start + torch.arange(start.numel(), device=self.device)
        values = None if self.values is None else self.values[edge]
        return Sparse(CSC(indptr, self.csc.indices[edge], self.csc.num_src), values)

    def to_dense(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(D, S) dense tensor; entries of parallel edges add up."""
        values = self.values
        if values is None:
            values = torch.ones(self.csc.num_edges, dtype=dtype, device=self.device)
        out = torch.zeros(self.shape, dtype=dtype, device=self.device)
        index = (self.csc.dst.long(), self.csc.indices.long())
        return out.index_put(index, values.to(dtype), accumulate=True)

    @classmethod
    def from_scipy(cls, matrix, dtype: torch.dtype = torch.float32) -> Sparse:
        """From any SciPy sparse matrix; its rows become targets."""
        csr = matrix.tocsr()
        csr.sort_indices()
        kind = index_dtype(csr.nnz, *csr.shape)
        indptr, indices = (torch.from_numpy(a).to(kind) for a in (csr.indptr, csr.indices))
        return cls(CSC(indptr, indices, csr.shape[1]), torch.from_numpy(csr.data).to(dtype))

    def to_scipy(self):
        """As ``scipy.sparse.csr_array`` of shape (D, S); one-valued edges become 1.0."""
        import scipy.sparse as sp

        values = self.values
        if values is None:
            values = torch.ones(self.csc.num_edges)
        parts = (values.numpy(), self.csc.indices.numpy(), self.csc.indptr.numpy())
        return sp.csr_array(parts, shape=self.shape)

    def __repr__(self) -> str:
        return f"Sparse({self.shape[0]} x {self.shape[1]}, {self.csc.num_edges} stored)"


def compress(src: np.ndarray, dst: np.ndarray, num_src: int, num_dst: int):
    """Sort an edge list by (target, source), in linear time.

    Args:
        src: (E,) integer sources.
        dst: (E,) integer targets.
        num_src: S.
        num_dst: D.

    Returns:
        The :class:`CSC` and ``order`` (E,): edge e of the pattern was edge ``order[e]`` of the list.
    """
    by_src = _counting_sort(np.ascontiguousarray(src), num_src)
    by_dst = _counting_sort(np.ascontiguousarray(dst[by_src]), num_dst)
    order = by_src[by_dst]
    kind = index_dtype(src.size, num_src, num_dst)
    indptr = torch.zeros(num_dst + 1, dtype=kind)
    indptr[1:] = torch.from_numpy(np.bincount(dst, minlength=num_dst).cumsum())
    return CSC(indptr, torch.from_numpy(src[order]).to(kind), num_src), order


def _compiled_transpose(csc: CSC) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from graphdyn.kernels import numba_transpose as loop

    indptr = torch.zeros(csc.num_src + 1, dtype=csc.indptr.dtype)
    indices, perm, inverse = (torch.empty_like(csc.indices) for _ in range(3))
    arrays = (csc.indptr, csc.indices, indptr, indices, perm, inverse)
    loop.transpose(*(a.numpy() for a in arrays))
    return indptr, indices, perm, inverse


def _sorted_transpose(csc: CSC) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    perm = torch.sort(csc.indices, stable=True).indices
    counts = torch.bincount(csc.indices, minlength=csc.num_src)
    indptr = torch.zeros(csc.num_src + 1, dtype=csc.indptr.dtype, device=csc.device)
    indptr[1:] = counts.cumsum(0)
    inverse = torch.empty_like(csc.indices)
    inverse[perm] = torch.arange(perm.numel(), dtype=inverse.dtype, device=csc.device)
    return indptr, csc.dst[perm], perm.to(csc.indices.dtype), inverse


def _counting_sort(keys: np.ndarray, bound: int) -> np.ndarray:
    """Stable order of integer keys in [0, bound), by SciPy's linear-time CSR conversion."""
    import scipy.sparse as sp

    n = keys.size
    if n == 0:
        return np.empty(0, dtype=np.int64)
    kind = np.int32 if max(n, bound) <= INT32_MAX else np.int64
    position = np.arange(n, dtype=kind)
    coo = sp.coo_array((position, (keys.astype(kind), position)), shape=(bound, n))
    return coo.tocsr().indices.astype(np.int64, copy=False)
