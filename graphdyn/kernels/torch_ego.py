"""Ego graphs in plain torch, on any device: the integers of :mod:`graphdyn.kernels.numba_ego`."""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.kernels.torch_draw import positions, unpack_loops
from graphdyn.keys import hash_torch
from graphdyn.sparse import CSC


def ego(
    csc: CSC, loops: Tensor | None, roots: Tensor, depth: int, k: int, bits: int
) -> tuple[Tensor, Tensor]:
    """See :func:`graphdyn.kernels.ego.ego`: all groups grow side by side, a hop at a time."""
    group, node = torch.arange(roots.numel(), device=roots.device), roots
    groups, nodes = [group], [node]
    own_bits = hash_torch(roots, bits)
    known = group * csc.num_src + node
    for _ in range(depth):
        row, source = _draw(csc, loops, node, hash_torch(node ^ own_bits[group], bits), k)
        pair = group[row] * csc.num_src + source
        new = _first_seen(pair) & ~torch.isin(pair, known)
        group, node = group[row][new], source[new]
        known = torch.cat([known, pair[new]])
        groups.append(group)
        nodes.append(node)
    group = torch.cat(groups)
    cuts = torch.zeros(roots.numel() + 1, dtype=torch.int64, device=roots.device)
    cuts[1:] = torch.bincount(group, minlength=roots.numel()).cumsum(0)
    return torch.cat(nodes)[torch.argsort(group, stable=True)], cuts


def _draw(
    csc: CSC, loops: Tensor | None, nodes: Tensor, word: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Up to k sources of each node, loops left out: (E,) place of the node, (E,) source."""
    start = csc.indptr[nodes].long()
    at, own = unpack_loops(loops, nodes)
    rest = csc.indptr[nodes + 1].long() - start - own
    count = rest if k < 0 else rest.clamp(max=k)
    row = torch.repeat_interleave(count)
    place = torch.arange(row.numel(), device=nodes.device) - (count.cumsum(0) - count)[row]
    sampled = rest > count
    if bool(sampled.any()):
        table = torch.zeros(nodes.numel(), k, dtype=torch.int64, device=nodes.device)
        table[sampled] = positions(word[sampled], rest[sampled], k, False)
        place = torch.where(sampled[row], table[row, place.clamp(max=k - 1)], place)
    edge = start[row] + place + torch.where(place >= at[row], own[row], 0)
    return row, csc.indices[edge].long()


def _first_seen(values: Tensor) -> Tensor:
    """Where each value stands for the first time."""
    order = torch.argsort(values, stable=True)
    ranked = values[order]
    first = torch.ones_like(ranked, dtype=torch.bool)
    first[1:] = ranked[1:] != ranked[:-1]
    out = torch.empty_like(first)
    out[order] = first
    return out
