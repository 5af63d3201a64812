"""The simple undirected graph under a propagation matrix: what is cut into parts and walked on."""

from __future__ import annotations

import numpy as np
import torch

from graphdyn.sparse import CSC, index_dtype


def simple_graph(csc: CSC) -> CSC:
    """Edges in both directions, once each, without loops.

    Args:
        csc: (N, N) pattern.

    Returns:
        (N, N) symmetric pattern on the CPU, rows sorted.
    """
    import scipy.sparse as sp

    csc = csc.to("cpu")
    keep = csc.indices != csc.dst
    count = np.bincount(csc.dst[keep].numpy(), minlength=csc.num_dst)
    indptr = np.concatenate([[0], count.cumsum()])
    # Truth values: in a narrow integer type 256 parallel edges would add up to none.
    parts = (np.ones(int(indptr[-1]), dtype=bool), csc.indices[keep].numpy(), indptr)
    one_way = sp.csr_array(parts, shape=(csc.num_dst, csc.num_src))
    both = (one_way + one_way.T.tocsr()).tocsr()
    both.sum_duplicates()
    kind = index_dtype(both.nnz, csc.num_src)
    indptr, indices = (torch.from_numpy(a).to(kind) for a in (both.indptr, both.indices))
    return CSC(indptr, indices, csc.num_src)
