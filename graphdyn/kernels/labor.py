"""LABOR's draws: one number r_t a source and layer, shared by all targets; Balin & Catalyurek 2023.

"Layer-neighbor sampling: defusing neighborhood explosion in GNNs". On CPU one thread and Numba;
anywhere else torch, with the same integers. Every edge of every target is looked at, O(d) each, for hubs
too. Shapes: N nodes, D targets, E edges.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.kernels import torch_labor
from graphdyn.kernels.backend import compiled
from graphdyn.kernels.door import eager
from graphdyn.kernels.draw import Draw
from graphdyn.sparse import CSC


class Uniforms(NamedTuple):
    """Where the uniform numbers r_t come from, one a source t.

    Attributes:
        bits: 64 key bits.
        later: 64 other key bits, or ``None``. With them ``r_t = Phi(cos(angle) n_t + sin(angle) m_t)``, n_t
            and m_t the normal numbers of both keys: from one to the other as the angle turns to pi / 2.
        angle: In [0, pi / 2].
    """

    bits: int
    later: int | None = None
    angle: float = 0.0

    @property
    def turn(self) -> tuple[float, float]:
        """Cosine and sine of the angle."""
        return math.cos(self.angle), math.sin(self.angle)


@eager
def has_parallel(csc: CSC) -> bool:
    """Whether any two edges have the same source and target; rows are sorted by source."""
    same = csc.indices[1:] == csc.indices[:-1]
    return bool((same & (csc.dst[1:] == csc.dst[:-1])).any())


@eager
def draw_smallest(
    csc: CSC, loops: Tensor | None, dst: Tensor, k: int, uniforms: Uniforms, *, parallel: bool
) -> Draw:
    """The k edges of each target whose sources have the smallest r_t; self-loops are kept beside them.

    To one target these are k of its edges uniformly without replacement; of parallel edges each has
    a number of its own. Ties, one in 2^63 a pair, go to the first edge.

    Args:
        csc: The full pattern, rows sorted by source.
        loops: (N,) int64 from :func:`graphdyn.kernels.draw.find_loops`, or ``None``.
        dst: (D,) targets.
        k: Edges a target; -1 is all.
        uniforms: The numbers r_t.
        parallel: From :func:`has_parallel`.

    Returns:
        Edges, loops first, then ascending, with scale (d - loops) / k; 1 where all are kept.
    """
    law = (uniforms.bits, uniforms.later, uniforms.turn)
    if not compiled(csc.device):
        indptr, edge, scale = torch_labor.draw_smallest(csc, loops, dst, k, *law)
        return Draw(indptr, edge.to(csc.indices.dtype), scale, src=csc.indices[edge])
    from graphdyn.kernels import numba_draw, numba_labor

    indptr = torch.empty(dst.numel() + 1, dtype=torch.int64)
    rows = torch.empty(dst.numel(), 3, dtype=torch.int64)
    full = (csc.indptr.numpy(), None if loops is None else loops.numpy())
    numba_draw.count_uniform(dst.numpy(), *full, k, False, rows.numpy(), indptr.numpy())
    edge = torch.empty(int(indptr[-1]), dtype=csc.indices.dtype)
    src = torch.empty_like(edge)
    scale = torch.empty(edge.numel(), dtype=torch.float32)
    longest = int(rows[:, 1].max()) if dst.numel() else 0
    numba_labor.fill_smallest(
        csc.indices.numpy(),
        rows.numpy(),
        k,
        parallel,
        *_law(uniforms),
        longest,
        indptr.numpy(),
        edge.numpy(),
        src.numpy(),
        scale.numpy(),
    )
    return Draw(indptr, edge, scale, src=src)


@eager
def words(csc: CSC, indptr: Tensor, edge: Tensor, uniforms: Uniforms) -> Tensor:
    """(E,) int64 in [0, 2^63): r_t of the source of each edge, as a number that only its order gives a meaning.

    Args:
        csc: The full pattern.
        indptr: (D + 1,) rows of ``edge``.
        edge: (E,) positions in the pattern; parallel edges side by side, all of them or none.
        uniforms: The numbers r_t.
    """
    if not compiled(csc.device):
        row = torch.repeat_interleave(indptr.diff())
        src = csc.indices[edge.long()]
        law = (uniforms.bits, uniforms.later, uniforms.turn)
        return torch_labor.words(src, torch_labor.copies(src, row), *law)
    from graphdyn.kernels import numba_labor

    out = torch.empty(edge.numel(), dtype=torch.int64)
    numba_labor.words(
        indptr.numpy(), csc.indices.numpy(), edge.numpy(), *_law(uniforms), out.numpy()
    )
    return out


@eager
def limits(prob: Tensor, uniforms: Uniforms) -> Tensor:
    """(E,) int64 L with ``r_t < prob`` if and only if ``word < L``, for probabilities below 1."""
    return torch_labor.limits(prob, turned=uniforms.later is not None)


@eager
def solve(indptr: Tensor, weight: Tensor, inverse: Tensor, k: int) -> Tensor:
    """1 / c of each row, where ``p = min(1, c importance)`` gives the variance of k neighbours of d.

    Solves ``sum w^2 / p = W^2 / k - W^2 / d + sum w^2`` (equation 22 of the paper; for w = 1 it is
    ``sum 1 / p = d^2 / k``), W = sum w. The left side is convex and piecewise linear in y = 1 / c, so
    Newton's method from above meets the solution exactly after a few steps. Sums are those of integers
    and do not depend on their order.

    Args:
        indptr: (D + 1,) rows.
        weight: (E,) float64 w, not negative; edges of weight 0 are not there.
        inverse: (E,) float64, 1 / importance, positive.
        k: Fan-out; -1 is all.

    Returns:
        (D,) float64 y; where k or fewer edges have a weight, the largest at which all p are 1.
    """
    if not compiled(weight.device):
        return torch_labor.solve(indptr, weight, inverse, k)
    from graphdyn.kernels import numba_labor

    out = torch.empty(indptr.numel() - 1, dtype=torch.float64)
    arrays = (indptr.numpy(), weight.numpy(), inverse.numpy())
    numba_labor.solve(*arrays, k, out.numpy())
    return out


def _law(uniforms: Uniforms) -> tuple:
    from graphdyn.kernels.numba_draw import word

    later = None if uniforms.later is None else word(uniforms.later)
    return word(uniforms.bits), later, uniforms.turn
