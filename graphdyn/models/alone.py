"""Rows on their own: the graph in which every node is its only neighbour, and rows that stand for pairs of nodes.

What shares its weights with a graph model and looks at rows alone: the fully-connected branch of GraphMix
(Verma et al. 2021). Shapes: N rows, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from graphdyn.batch import Block
from graphdyn.graph import Features
from graphdyn.models.propagate import dense
from graphdyn.sparse import CSC, Sparse, index_dtype


class Mixture(NamedTuple):
    """From a layer on, row i stands for a pair of nodes: ``share h_i + (1 - share) h_partner(i)``.

    Attributes:
        layer: Whose input is mixed, counted from 0; 0 mixes features (made dense), before their dropout.
            As many as there are layers: what a linear head reads.
        share: In [0, 1].
        partner: (N,) rows.
    """

    layer: int
    share: float
    partner: Tensor

    def __call__(self, h: Features) -> Tensor:
        """(N, F) -> (N, F); targets are mixed likewise."""
        h = dense(h)
        return torch.lerp(h.index_select(0, self.partner), h, self.share)


@lru_cache(maxsize=16)
def identity_block(rows: int, device: torch.device) -> Block:
    """Every row is its own only neighbour, with weight 1."""
    kind = index_dtype(rows)
    ids = torch.arange(rows + 1, dtype=kind, device=device)
    return Block(Sparse(CSC(ids, ids[:rows], rows), None))


@contextmanager
def untracked(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Batch norms in training take the statistics of the rows that they get, and note nothing of them.

    Args:
        modules: Of a model; all but batch norms in training are left alone.
    """
    norms = [m for m in modules if isinstance(m, nn.BatchNorm1d) and m.training]
    kept = [(m, m.running_mean, m.running_var, m.track_running_stats) for m in norms]
    try:
        for norm in norms:
            norm.running_mean = norm.running_var = None
            norm.track_running_stats = False
        yield
    finally:
        for norm, mean, var, track in kept:
            norm.running_mean, norm.running_var, norm.track_running_stats = mean, var, track
