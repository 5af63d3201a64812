"""LABOR's draws in plain torch, on any device: the same integers as :mod:`graphdyn.kernels.numba_labor`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphdyn.kernels.torch_draw import draw_uniform
from graphdyn.kernels.torch_normal import score
from graphdyn.keys import GOLDEN, MASK, hash_torch, mix_torch, signed
from graphdyn.sparse import CSC

WORD_BITS = 63  # of r_t as an integer, so that it fits a signed one


def draw_smallest(
    csc: CSC, loops: Tensor | None, dst: Tensor, k: int, bits: int, later: int | None, turn
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`graphdyn.kernels.labor.draw_smallest`."""
    indptr, edge, _ = draw_uniform(csc, loops, dst, -1, 0, False)
    row = torch.repeat_interleave(indptr.diff())
    src = csc.indices[edge]
    rest = src != dst[row]
    count = torch.zeros_like(dst).index_add_(0, row, rest.long())
    word = words(src, copies(src, row), bits, later, turn)
    short = (count <= k) | (k < 0)
    keep = ~rest | short[row]
    sampled = torch.nonzero(~keep).flatten()
    if sampled.numel():
        keep[sampled] = smallest(word[sampled], row[sampled], count, k)
    factor = torch.where(short, 1.0, count.double() / max(k, 1)).float()
    scale = torch.where(rest, factor[row], 1.0)
    indptr = torch.zeros_like(indptr)
    indptr[1:] = torch.bincount(row[keep], minlength=dst.numel()).cumsum(0)
    return indptr, edge[keep], scale[keep]


def words(src: Tensor, copy: Tensor, bits: int, later: int | None, turn: tuple[float, float]):
    """r_t of each edge, see :func:`graphdyn.kernels.labor.words`.

    Args:
        src: (E,) source t of each edge.
        copy: (E,) how many parallel edges of the row stand before it.
        bits: 64 key bits.
        later: Those of the next window, or ``None``.
        turn: Cosine and sine.

    Returns:
        (E,) int64.
    """
    own = stream(src, copy, bits)
    if later is None:
        return _shift(own, 1)
    z = turn[0] * score(_open(own)) + turn[1] * score(_open(stream(src, copy, later)))
    return ordered(z)


def stream(src: Tensor, copy: Tensor, bits: int) -> Tensor:
    """The t-th number of the SplitMix64 generator whose seed is the key; a generator for every copy."""
    out = mix_torch(src.long() * signed(GOLDEN) + signed((bits + GOLDEN) & MASK))
    again = copy > 0
    if bool(again.any()):
        seed = hash_torch(copy[again], bits)
        out[again] = mix_torch((src[again].long() + 1) * signed(GOLDEN) + seed)
    return out


def limits(prob: Tensor, *, turned: bool) -> Tensor:
    """(E,) int64: words below it make up the share ``prob`` < 1 of all."""
    return ordered(score(prob)) if turned else (prob * 2.0**WORD_BITS).long()


def ordered(z: Tensor) -> Tensor:
    """float64 as non-negative int64 in the same order, but for the last bit."""
    bits = z.view(torch.int64)
    return _shift(bits ^ (bits >> 63 | signed(1 << 63)), 1)


def copies(src: Tensor, row: Tensor) -> Tensor:
    """(E,) how many edges before it have the same source and row; such edges stand side by side."""
    place = torch.arange(src.numel(), device=src.device)
    new = torch.ones_like(src, dtype=torch.bool)
    new[1:] = (src[1:] != src[:-1]) | (row[1:] != row[:-1])
    return place - torch.where(new, place, 0).cummax(0).values if src.numel() else place


def smallest(word: Tensor, row: Tensor, count: Tensor, k: int) -> Tensor:
    """(E,) whether an edge is among the k smallest words of its row; the first edge wins a tie.

    Args:
        word: (E,) int64, not negative.
        row: (E,) ascending.
        count: (D,) edges a row.
        k: At least 1.
    """
    # Only edges below a generous quantile are sorted, but all of rows that it leaves short.
    part = (k + spare(k)) / count.clamp(min=1).double()
    bound = torch.where(part < 1, part * 2.0**WORD_BITS, 0.0).long()
    near = (word < bound[row]) | (part >= 1)[row]
    found = torch.zeros_like(count).index_add_(0, row, near.long())
    near |= (found < k)[row]
    index = torch.nonzero(near).flatten()
    index = index[torch.argsort(word[index], stable=True)]
    index = index[torch.argsort(row[index], stable=True)]
    start = torch.zeros(count.numel() + 1, dtype=torch.int64, device=count.device)
    start[1:] = torch.bincount(row[index], minlength=count.numel()).cumsum(0)
    rank = torch.arange(index.numel(), device=index.device) - start[row[index]]
    keep = torch.zeros_like(near)
    keep[index[rank < k]] = True
    return keep


def spare(k: int) -> float:
    """Candidates beyond k: a row falls short of k about once in a thousand."""
    return 3 * math.sqrt(k) + 4


def solve(indptr: Tensor, weight: Tensor, inverse: Tensor, k: int) -> Tensor:
    """See :func:`graphdyn.kernels.labor.solve`."""
    rows = indptr.numel() - 1
    row = torch.repeat_interleave(indptr.diff())
    some = weight > 0
    square = weight * weight
    mass = square * inverse
    count = torch.zeros(rows, dtype=torch.int64, device=row.device)
    count.index_add_(0, row, some.long())

    def largest(values: Tensor) -> Tensor:
        zero = torch.zeros(rows, dtype=torch.float64, device=row.device)
        return zero.scatter_reduce_(0, row, torch.where(some, values, 0.0), "amax")

    # Whole units, 2^(61 - bits of the count) for the largest: sums are exact in any order.
    shift = 61 - torch.frexp(count.double())[1].long()
    units = (torch.ones_like(count) << shift).double()
    per = [units / largest(values) for values in (weight, square, mass)]

    def total(values: Tensor, per_one: Tensor, who: Tensor) -> Tensor:
        parts = torch.where(who, torch.round(values * per_one[row]), 0.0).long()
        zero = torch.zeros(rows, dtype=torch.int64, device=row.device)
        return zero.index_add_(0, row, parts).double() / per_one

    everything = total(weight, per[0], some)
    excess = everything * everything * (1.0 / k - 1.0 / count.double())
    full = (count <= k) | (k < 0)
    y = torch.full((rows,), torch.inf, dtype=torch.float64, device=row.device)
    while True:
        loose = some & (y[row] * inverse > 1.0)
        new = (excess + total(square, per[1], loose)) / total(mass, per[2], loose)
        lower = (new < y) & ~full
        if not bool(lower.any()):
            break
        y = torch.where(lower, new, y)
    return torch.where(full, 1.0 / largest(inverse), y)


def _open(hashed: Tensor) -> Tensor:
    """53 random bits in (0, 1)."""
    return (_shift(hashed, 11).double() + 0.5) * 2.0**-53


def _shift(z: Tensor, by: int) -> Tensor:
    """Logical right shift: torch's own is arithmetic on int64."""
    return (z >> by) & ((1 << (64 - by)) - 1)
