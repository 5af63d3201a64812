"""Sampling in plain torch, on any device: the same integers as :mod:`graphdyn.kernels.numba_draw`."""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.keys import GOLDEN, hash_torch, mix_torch, signed
from graphdyn.sparse import CSC

LOW = 0xFFFFFFFF


def bounded(word: Tensor, draw: int, bound: Tensor) -> Tensor:
    """Uniform integers in [0, bound) by 32 random bits, multiply-high and Lemire's rejection."""
    z = mix_torch(word + signed(GOLDEN * (draw + 1) & ((1 << 64) - 1)))
    threshold = torch.remainder((1 << 32) - bound, bound)
    product = ((z >> 32) & LOW) * bound
    again = (product & LOW) < threshold
    while bool(again.any()):
        z = torch.where(again, mix_torch(z + signed(GOLDEN)), z)
        product = ((z >> 32) & LOW) * bound
        again = (product & LOW) < threshold
    return (product >> 32) & LOW


def draw_uniform(
    csc: CSC, loops: Tensor | None, dst: Tensor, k: int, bits: int, replace: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`graphdyn.kernels.draw.draw_uniform`."""
    dst = dst.long()
    start = csc.indptr[dst].long()
    at, own = unpack_loops(loops, dst)
    rest = csc.indptr[dst + 1].long() - start - own
    sampled = (rest > k) | ((rest > 0) if replace else (rest < 0))
    sampled &= k >= 0
    count = own + torch.where(sampled, k, rest)
    indptr = torch.zeros(dst.numel() + 1, dtype=torch.int64, device=dst.device)
    indptr[1:] = count.cumsum(0)
    row = torch.repeat_interleave(count)
    place = torch.arange(row.numel(), device=dst.device) - indptr[row]
    # Loops first, then the others in order; sampled rows overwrite the latter with their draws.
    other = place - own[row]
    if k > 0 and bool(sampled.any()):
        chosen = positions(hash_torch(dst[sampled], bits), rest[sampled], k, replace)
        table = torch.zeros(dst.numel(), k, dtype=torch.int64, device=dst.device)
        table[sampled] = chosen
        column = other.clamp(0, k - 1)
        other = torch.where(sampled[row] & (other >= 0), table[row, column], other)
    skip = torch.where(other >= at[row], own[row], 0)
    edge = start[row] + torch.where(place < own[row], at[row] + place, other + skip)
    factor = torch.where(sampled, rest.double() / max(k, 1), 1.0).float()
    scale = torch.where(place < own[row], 1.0, factor[row])
    return indptr, edge, scale


def positions(word: Tensor, rest: Tensor, k: int, replace: bool) -> Tensor:
    """(R, k) positions among ``rest`` candidates: with replacement, or Floyd's without."""
    out = torch.empty(word.numel(), k, dtype=torch.int64, device=word.device)
    for j in range(k):
        if replace:
            out[:, j] = bounded(word, j, rest)
            continue
        newest = rest - k + j
        t = bounded(word, j, newest + 1)
        hit = (out[:, :j] == t.unsqueeze(1)).any(1)
        out[:, j] = torch.where(hit, newest, t)
    return out


def unpack_loops(loops: Tensor | None, dst: Tensor) -> tuple[Tensor, Tensor]:
    """Offset and number of the self-loops of rows."""
    if loops is None:
        zero = torch.zeros_like(dst)
        return zero, zero
    packed = loops[dst]
    return packed >> 32, packed & LOW


def relabel(dst: Tensor, src: Tensor, num_nodes: int) -> tuple[Tensor, Tensor]:
    """See :func:`graphdyn.kernels.draw.relabel`: local ids in order of first appearance."""
    every = torch.cat([dst.long(), src.long()])
    place = torch.arange(every.numel(), device=every.device)
    first = torch.full((num_nodes,), every.numel(), dtype=torch.int64, device=every.device)
    first.scatter_reduce_(0, every, place, "amin")
    new = first[every] == place
    rank = new.cumsum(0) - 1
    return rank[first[src.long()]], every[new]
