"""LABOR's importance: which sources to draw, so that targets share them; Balin & Catalyurek 2023.

Edge t -> s is kept if ``r_t < p = min(1, c_s pi_t)``, where c_s gives target s the variance of k of d
neighbours. Any pi will do; ``pi_t <- pi_t max_s c_s`` never raises the expected number of sources
``sum_t min(1, pi_t max_s c_s)``. Inside, y = 1 / c and 1 / pi are kept. Shapes: D targets, E edges of theirs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.kernels.draw import Draw, draw_uniform, relabel, take_source
from graphdyn.kernels.labor import Uniforms, limits, solve, words
from graphdyn.samplers.structure import Structure

_GAIN = 1e-4  # LABOR-* stops when a round saves less than this share, as the authors' code
_UNITS = 2.0**32  # expected counts add up as integers, so that rounds stop alike on every device


class Rows(NamedTuple):
    """All edges of some targets.

    Attributes:
        indptr: (D + 1,) the edges of each target.
        edge: (E,) positions in the pattern; loops first, then ascending.
        row: (E,) the target of each edge.
        loop: (E,) bool.
        weight: (E,) float64 |a|, or ones; 0 at loops.
    """

    indptr: Tensor
    edge: Tensor
    row: Tensor
    loop: Tensor
    weight: Tensor


class Importance(NamedTuple):
    """The Poisson design of one layer.

    Attributes:
        prob: (E,) float64 p of each edge; 1 at loops, 0 at edges of weight 0.
        expected: After 0, 1, ... rounds, the expected number of sources beside the targets' loops.
    """

    prob: Tensor
    expected: list[float]


def draw_poisson(
    structure: Structure, dst: Tensor, k: int, rounds: int, uniforms: Uniforms, *, weighted: bool
) -> Draw:
    """Every edge whose source has ``r_t < p``.

    Args:
        structure: What is drawn from.
        dst: (D,) distinct targets.
        k: Fan-out; -1 is all.
        rounds: Of importance; -1 until they no longer help.
        uniforms: The numbers r_t.
        weighted: See :func:`rows_of`.

    Returns:
        Edges, loops first, then ascending, with scale 1 / p.
    """
    rows = rows_of(structure, dst, weighted=weighted)
    prob = importance(structure, dst, rows, k, rounds).prob
    word = words(structure.csc, rows.indptr, rows.edge, uniforms)
    limit = limits(prob.clamp(min=2.0**-53, max=1 - 2.0**-53), uniforms)
    keep = (prob == 1) | ((word < limit) & (prob > 0))
    indptr = torch.zeros_like(rows.indptr)
    indptr[1:] = torch.bincount(rows.row[keep], minlength=dst.numel()).cumsum(0)
    return Draw(indptr, rows.edge[keep], prob[keep].reciprocal().float())


def rows_of(structure: Structure, dst: Tensor, *, weighted: bool) -> Rows:
    """All edges of the targets.

    Args:
        structure: What is drawn from.
        dst: (D,) targets.
        weighted: Edges count by the size of their value; those of value 0 are not there.

    Returns:
        Edges by target.
    """
    csc = structure.csc
    indptr, edge, *_ = draw_uniform(csc, structure.loops, dst, -1, 0)
    row = torch.repeat_interleave(indptr.diff())
    loop = take_source(csc, edge) == dst[row]
    weight = structure.values[edge.long()].abs() if weighted else torch.ones_like(row)
    return Rows(indptr, edge, row, loop, torch.where(loop, 0.0, weight.double()))


def importance(structure: Structure, dst: Tensor, rows: Rows, k: int, rounds: int) -> Importance:
    """Probabilities after a number of rounds.

    Round 0 is pi = 1, or |a| of each edge; then pi belongs to sources alone.

    Args:
        structure: What is drawn from.
        dst: (D,) distinct targets.
        rows: Their edges.
        k: Fan-out; -1 is all.
        rounds: -1: until a round saves less than one source in 10000.

    Returns:
        Probabilities, and what the rounds saved.
    """
    there = rows.weight > 0
    inverse = torch.where(there, 1 / rows.weight, 1.0)
    y = solve(rows.indptr, rows.weight, inverse, k)
    expected: list[float] = []
    slot, count = None, 0
    while rounds:
        if slot is None:
            src = take_source(structure.csc, rows.edge)
            slot, nodes = relabel(dst, src, structure.workspace)
            slot, count = slot.long(), nodes.numel()
        likely = _likeliest(torch.where(there, y[rows.row] * inverse, torch.inf), slot, count)
        expected.append(_expected(likely))
        stop = rounds < 0 and len(expected) > 1 and expected[-1] >= (1 - _GAIN) * expected[-2]
        if stop or len(expected) == rounds + 1:
            break
        inverse = torch.where(there, likely[slot], 1.0)
        y = solve(rows.indptr, rows.weight, inverse, k)
    prob = (1 / (y[rows.row] * inverse)).clamp(max=1.0)
    return Importance(torch.where(there, prob, rows.loop.double()), expected)


def _likeliest(inverse_prob: Tensor, slot: Tensor, count: int) -> Tensor:
    """(S,) the least of each source's 1 / (c pi): that of the target which draws it most."""
    out = torch.full((count,), torch.inf, dtype=torch.float64, device=slot.device)
    return out.scatter_reduce_(0, slot, inverse_prob, "amin")


def _expected(inverse_prob: Tensor) -> float:
    share = (inverse_prob.reciprocal().clamp(max=1.0) * _UNITS).round()
    return int(share.long().sum()) / _UNITS
