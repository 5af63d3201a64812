"""What every architecture does with a block: aggregate, drop edges, cut to the targets.

Shapes: a block has S sources, D targets, E edges; features are F wide and leave C wide.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

from graphdyn.batch import Batch, Block
from graphdyn.graph import Features
from graphdyn.kernels import dropout, spmm, spmm_fresh, spmm_root
from graphdyn.kernels.door import eager
from graphdyn.kernels.extend import extend, room
from graphdyn.keys import Key
from graphdyn.models.norms import Moments
from graphdyn.models.parameters import add_linear, linear
from graphdyn.sparse import CSC, Sparse

# Multiply-adds of a dense product that take as long as one feature of one edge in an SpMM, which
# waits for memory instead. Measured on two AVX-512 cores (20 to 40); only its order matters.
GEMM_PER_EDGE = 32


class Hop(NamedTuple):
    """One step of message passing: its structure, and the randomness of its edge dropout.

    Attributes:
        block: Who sends to whom.
        key: ``None`` when no edge is dropped.
    """

    block: Block
    key: Key | None = None


class Rows(NamedTuple):
    """What the trunk knows of the rows of a state.

    Attributes:
        key: Of dropout masks; ``None`` when nothing is dropped.
        ids: (N,) global ids; ``None`` when they are all nodes in order.
        weight: (N,) weights in a weighted batch norm; ``None``: all equal.
        moments: What norms over rows use in place of these rows' own statistics.
        out: (N, F) where the rows are wanted once activated, if that saves a pass over memory.
    """

    key: Key | None = None
    ids: Tensor | None = None
    weight: Tensor | None = None
    moments: Moments | None = None
    out: Tensor | None = None


def aggregate(
    block: Block, h: Features, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """``A h W^T + b`` with the values of the block: the one place where sum-type messages add up.

    Nothing is normalised here: the values carry the model's full-graph weights. The product with W
    comes first or last, whichever is cheaper. A constant h (features of the graph) speaks for last:
    then no gradient flows back through A.

    Args:
        block: A, (D, S).
        h: (S, F) dense or sparse.
        weight: (C, F), or ``None`` for the identity.
        bias: (C,) or ``None``.

    Returns:
        (D, C); (D, F) without a weight.
    """
    matrix = block.adjacency
    if block.border is not None:
        # Last: the rows of a border are many, and nobody asks for their gradient.
        out = spmm_fresh(matrix, dense(h), block.num_fresh)
        return out if weight is None else linear(out, weight, bias)
    if weight is None:
        return spmm(matrix, dense(h))
    if not isinstance(h, Sparse) and not _weight_first(matrix.csc, weight, h.requires_grad):
        return linear(spmm(matrix, h), weight, bias)
    out = spmm(matrix, linear(h, weight))
    return out if bias is None else out.add_(bias)


def aggregate_root(
    block: Block, h: Features, weight: Tensor, bias: Tensor | None, root: Tensor
) -> Tensor:
    """:func:`aggregate` plus ``h[:D] R^T``: messages and the target's own state.

    Args:
        block: See :func:`aggregate`, likewise ``h``, ``weight``, ``bias``.
        h: See ``block``.
        weight: See ``block``.
        bias: See ``block``.
        root: R, (C, F).

    Returns:
        (D, C).
    """
    matrix = block.adjacency
    joint = isinstance(h, Tensor) and h.requires_grad and block.num_dst < h.shape[0]
    if not joint or block.border is not None or _weight_first(matrix.csc, weight, True):
        return add_linear(aggregate(block, h, weight, bias), prefix(h, block.num_dst), root)
    messages, own = spmm_root(matrix, dense(h))
    return add_linear(linear(messages, weight, bias), own, root)


def _weight_first(csc: CSC, weight: Tensor, needs_grad: bool) -> bool:
    """Whether A (h W^T) costs less than (A h) W^T, gradients included."""
    outputs, inputs = weight.shape
    gemm = inputs * outputs / GEMM_PER_EDGE
    passes = 2 if torch.is_grad_enabled() else 1
    first = passes * (csc.num_src * gemm + csc.num_edges * outputs)
    last = passes * csc.num_dst * gemm + (passes if needs_grad else 1) * csc.num_edges * inputs
    # At equal cost first: the product then keeps h, which the activation below it keeps anyway.
    return first <= last


@eager
def drop_edges(hop: Hop, p: float) -> Block:
    """The block with inverted dropout of its values; loops are kept exact.

    Dropping edges leaves the expectation of the aggregate as it is. Self-loops stay: they carry the
    node's own state, which no sampler drops either. Keyed by edge id, so an edge lives or dies in
    every batch of a step alike.
    """
    block, key = hop
    if key is None:
        return block
    csc, values = block.adjacency.csc, block.adjacency.values
    if values is None:
        values = torch.ones(csc.num_edges, device=csc.device)
    kept = dropout(values, p, key.bits, block.edge_id)
    kept = torch.where(csc.indices == csc.dst, values, kept)
    return replace(block, adjacency=Sparse(csc, kept))


@eager
def drop_coefficients(hop: Hop, p: float, alpha: Tensor) -> Tensor:
    """Inverted dropout of (E, H) attention coefficients, those of loops too, keyed by edge id."""
    return alpha if hop.key is None else dropout(alpha, p, hop.key.bits, hop.block.edge_id)


def blend(z: Tensor, h0: Tensor, share: float) -> Tensor:
    """Return ``(1 - share) z + share h0``: the initial residual, h0 cut to the rows of z."""
    return torch.lerp(z, prefix(h0, z.shape[0]).to(z.dtype), share)


def attach(h: Any, block: Block) -> Any:
    """The sources of a block: fresh rows, and below them those that its border remembers.

    For hops whose input no norm or activation reads; where one does, see :meth:`graphdyn.models.past.Past.attach`.
    """
    if block.border is None:
        return h
    fresh, old = dense(h), block.border.states[-1]
    space = room(fresh, old.shape[0])
    space[fresh.shape[0] :] = old.detach()
    return extend(fresh, space)


@overload
def prefix(x: Tensor, rows: int) -> Tensor: ...


@overload
def prefix(x: Features, rows: int) -> Features: ...


def prefix(x: Features, rows: int) -> Features:
    """The first rows: what the targets of a block are among its sources."""
    if x.shape[0] == rows:
        return x
    if not isinstance(x, Sparse):
        return x[:rows]
    end = int(x.csc.indptr[rows])
    csc = CSC(x.csc.indptr[: rows + 1], x.csc.indices[:end], x.csc.num_src)
    return Sparse(csc, None if x.values is None else x.values[:end])


def dense(x: Features) -> Tensor:
    """Sparse features as a dense tensor, dense ones as they are."""
    if not isinstance(x, Sparse):
        return x
    return x.to_dense(torch.float32 if x.values is None else x.values.dtype)


def source_ids(batch: Batch) -> Tensor | None:
    """Global ids of the rows of ``batch.x``; ``None`` when they are all nodes in order."""
    return batch.block(0).node_id if batch.blocks else None


def target_rows(block: Block, key: Key | None) -> Rows:
    """The targets as rows of a state: weighted by one over the probability of being in the batch."""
    ids = None if block.node_id is None else block.dst_id
    weight = None if block.node_prob is None else block.node_prob.reciprocal()
    return Rows(key, ids, weight)
