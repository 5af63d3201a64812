"""Sampling on a pattern: draw edges, give their sources local ids, gather rows.

On CPU one thread and Numba; anywhere else torch, with the same integers. Shapes: N nodes, D
targets, E kept edges.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.graph import Features
from graphdyn.kernels import torch_draw
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager
from graphdyn.kernels.memory import empty
from graphdyn.kernels.rows import sparse_rows
from graphdyn.kernels.threads import even_cuts, run
from graphdyn.sparse import CSC, Sparse


class Draw(NamedTuple):
    """The edges that a sampler keeps for one layer, by target.

    Attributes:
        indptr: (D + 1,) int64; the edges of target i are ``indptr[i]:indptr[i + 1]``.
        edge: (E,) positions in the full pattern, in its own index type.
        scale: (E,) float32, the factor that makes ``sum scale * a * h`` unbiased; ``None`` is 1.
        prob: (E,) float32 probability of each edge given the targets; ``None``: 1 / scale. NaN where the
            design has none in closed form.
        src: (E,) sources, where the draw has read them anyway; else ``None``.
    """

    indptr: Tensor
    edge: Tensor
    scale: Tensor | None = None
    prob: Tensor | None = None
    src: Tensor | None = None


class Workspace:
    """Scratch of one thread: where each node stands in the batch at hand. Never cleared, but stamped.

    Args:
        num_nodes: N.
    """

    def __init__(self, num_nodes: int):
        self.table = torch.zeros(num_nodes, dtype=torch.int64)
        self.stamp = 0

    def next_stamp(self) -> int:
        """A stamp that no entry carries yet."""
        self.stamp += 1
        if self.stamp == 1 << 31:
            self.table.zero_()
            self.stamp = 1
        return self.stamp


@eager
def draw_uniform(
    csc: CSC, loops: Tensor | None, dst: Tensor, k: int, bits: int, *, replace: bool = False
) -> Draw:
    """Up to k edges of each target, uniformly; self-loops are kept beside them, exact.

    Without replacement by Floyd's algorithm (Bentley & Floyd 1987), k draws of O(k) whatever the
    degree; bounded integers are unbiased. Draws depend on (bits, target id) alone.

    Args:
        csc: The full pattern.
        loops: (N,) int64 from :func:`find_loops`, or ``None``.
        dst: (D,) targets.
        k: Edges a target; -1 is all.
        bits: 64 key bits.
        replace: Draw with replacement: k edges, parallel where one is drawn twice.

    Returns:
        Edges with scale (d - loops) / k; 1 where all are kept.
    """
    if not compiled(csc.device):
        indptr, edge, scale = torch_draw.draw_uniform(csc, loops, dst, k, bits, replace)
        return Draw(indptr, edge.to(csc.indices.dtype), scale)
    from graphdyn.kernels import numba_draw as loop

    indptr = torch.empty(dst.numel() + 1, dtype=torch.int64)
    rows = torch.empty(dst.numel(), 3, dtype=torch.int64).numpy()
    full = (csc.indptr.numpy(), None if loops is None else loops.numpy())
    loop.count_uniform(dst.numpy(), *full, k, replace, rows, indptr.numpy())
    size = int(indptr[-1])
    edge = torch.empty(size, dtype=csc.indices.dtype)
    scale = torch.empty(size, dtype=torch.float32)
    out = (indptr.numpy(), edge.numpy(), scale.numpy())
    loop.fill_uniform(dst.numpy(), rows, k, replace, loop.word(bits), *out)
    return Draw(indptr, edge, scale)


@eager
def find_loops(csc: CSC) -> Tensor | None:
    """Where the self-loops of each row stand: ``offset << 32 | count``; ``None`` without any.

    Rows must be sorted by source, as :func:`graphdyn.sparse.compress` leaves them.
    """
    is_loop = csc.indices == csc.dst
    edge = torch.nonzero(is_loop).flatten()
    if not edge.numel():
        return None
    row = csc.indices[edge].long()
    count = torch.bincount(row, minlength=csc.num_dst)
    first = torch.full((csc.num_dst,), csc.num_edges, dtype=torch.int64, device=csc.device)
    first.scatter_reduce_(0, row, edge, "amin")
    offset = torch.where(count > 0, first - csc.indptr[:-1].long(), 0)
    return offset << 32 | count


@eager
def take_source(csc: CSC, edge: Tensor) -> Tensor:
    """(E,) the source of each edge."""
    if not compiled(csc.device):
        return csc.indices[edge.long()]
    from graphdyn.kernels import numba_draw as loop

    out = torch.empty_like(edge)
    loop.take_source(csc.indices.numpy(), edge.numpy(), out.numpy())
    return out


@eager
def relabel(dst: Tensor, src: Tensor, workspace: Workspace) -> tuple[Tensor, Tensor]:
    """Local ids: targets first, then sources in the order of their first appearance.

    Args:
        dst: (D,) distinct ids.
        src: (E,) ids.
        workspace: Of this thread, on CPU; only its size counts elsewhere.

    Returns:
        (E,) local ids of the sources in the type of ``src``, and (S,) int64 global ids of all.
    """
    if not compiled(dst.device):
        local, nodes = torch_draw.relabel(dst, src, workspace.table.numel())
        return local.to(src.dtype), nodes
    from graphdyn.kernels import numba_draw as loop

    nodes = torch.empty(dst.numel() + src.numel() + 1, dtype=torch.int64)
    local = torch.empty_like(src)
    arrays = (dst.numpy(), src.numpy(), workspace.table.numpy(), workspace.next_stamp())
    count = loop.relabel(*arrays, nodes.numpy(), local.numpy())
    return local, nodes[:count].clone()


@eager
def weigh(values: Tensor | None, edge: Tensor, scale: Tensor | None) -> Tensor | None:
    """``values[edge] * scale``; ``None`` stands for ones."""
    if values is None or scale is None:
        return scale if values is None else values[edge.long()]
    if not compiled(values.device):
        return values[edge.long()] * scale
    from graphdyn.kernels import numba_draw as loop

    out = torch.empty(edge.numel(), dtype=values.dtype)
    loop.weigh(values.numpy(), edge.numpy(), scale.numpy(), out.numpy())
    return out


@eager
def weigh_rows(values: Tensor, dst: Tensor, draw: Draw) -> Tensor:
    """As :func:`weigh` where all edges of a target have one value.

    Args:
        values: (N,) of each target.
        dst: (D,) targets.
        draw: Edges by target.

    Returns:
        (E,).
    """
    if not compiled(values.device) or draw.scale is None:
        row = values[dst].repeat_interleave(draw.indptr.diff(), output_size=draw.edge.numel())
        return row if draw.scale is None else row * draw.scale
    from graphdyn.kernels import numba_draw as loop

    out = torch.empty(draw.edge.numel(), dtype=values.dtype)
    arrays = (values, dst, draw.indptr, draw.scale, out)
    loop.weigh_rows(*(t.numpy() for t in arrays))
    return out


@eager
def take_rows(x: Features, ids: Tensor) -> Features:
    """(R, F) rows of dense or sparse features."""
    if isinstance(x, Sparse):
        return sparse_rows(x, ids)
    if not compiled(x.device) or x.dim() != 2 or x.dtype == torch.bfloat16:
        return x.index_select(0, ids.to(x.device))
    from graphdyn.kernels import numba_draw as loop

    out = empty((ids.numel(), x.shape[1]), x.dtype)
    run(loop.take_rows, even_cuts(ids.numel()), out.numel(), x.numpy(), ids.numpy(), out.numpy())
    return out
