"""The kernels on CPU: Numba loops over rows, shared out over threads, torch tensors in and out.

Each row is written by one thread in one order, so results are the same for any number of threads.
Operations without a loop of their own here are torch's.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from graphdyn.kernels import numba_loops as loops
from graphdyn.kernels.threads import run
from graphdyn.kernels.torch_ops import *  # noqa
from graphdyn.sparse import CSC


def _array(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.detach().contiguous().numpy()


def _view(csc: CSC, flip: bool):
    """Row boundaries for the threads, indptr, indices, and where row-ordered edges find their values."""
    perm = None
    if flip:
        csc, perm = csc.transpose.csc, csc.transpose.perm.numpy()
    return csc.chunks, csc.indptr.numpy(), csc.indices.numpy(), perm


def spmm(csc: CSC, values: Tensor | None, x: Tensor, flip: bool) -> Tensor:
    """The pattern (transposed when ``flip``) with edge values, times x."""
    cuts, indptr, indices, perm = _view(csc, flip)
    out = x.new_empty(indptr.size - 1, *x.shape[1:])
    loop = loops.spmm if x.dim() == 2 else loops.spmm_heads
    args = (indptr, indices, perm if values is not None else None, _array(values), _array(x))
    run(loop, cuts, indices.size * x[:1].numel(), *args, out.numpy())
    return out
