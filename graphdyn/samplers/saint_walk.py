"""GraphSAINT's random-walk sampler: r uniform roots with replacement, a walk of L steps from each.

Each walk is an independent draw, so the closed form of :mod:`graphdyn.samplers.saint` holds with h
the probabilities of one walk. The first step's share of h is exact; what later steps add is counted
over walks, not over subgraphs as in the paper. An edge that was never met while counting has its
first-step probability, so no weight can explode, and the error falls as 1 / sqrt(coverage).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphdyn.kernels.walk import count_later, walk
from graphdyn.keys import Key
from graphdyn.samplers.saint import Design, Hits, Saint
from graphdyn.samplers.subgraph import Ground, check_positive, distinct
from graphdyn.samplers.undirected import simple_graph

_WALKS = 1 << 20  # walks that are counted at once


@dataclass(frozen=True)
class SaintWalk(Saint):
    """Walks on the undirected graph without loops; where there are no neighbours, a walk stays.

    Other options are those of :class:`graphdyn.samplers.saint.Saint`.

    Attributes:
        roots: r.
        length: L, steps of a walk.
    """

    roots: int = 3000
    length: int = 2

    def design(self, ground: Ground) -> WalkDesign:
        """See :meth:`Saint.design`."""
        check_positive(roots=self.roots, length=self.length)
        return WalkDesign(ground, self.roots, self.length, self.coverage)


class WalkDesign(Design):
    """m independent walks from uniform roots.

    One step from a uniform node takes the edge {u, v} with probability (1/d_u + 1/d_v) / U: with
    L = 1 these are GraphSAINT's edge sampler, and nothing is left to count.

    Args:
        ground: What is drawn from.
        units: m.
        length: L.
        coverage: Walks that are counted: coverage U / (L + 1).
    """

    def __init__(self, ground: Ground, units: int, length: int, coverage: int):
        self.ground, self.units, self.length, self.coverage = ground, units, length, coverage
        self.graph = simple_graph(ground.structure.csc).to(ground.structure.device)

    def draw(self, key: Key) -> Tensor:
        """See :meth:`Design.draw`."""
        return distinct(self.walks(key, self.units))

    def walks(self, key: Key, count: int) -> Tensor:
        """(count, L + 1) int64 nodes."""
        universe = self.ground.universe
        number = torch.arange(count, device=universe.device)
        root = universe[key.fold("roots").integers(number, universe.numel())]
        return walk(self.graph, root, self.length, key.fold("walk").bits)

    def hits(self, key: Key) -> Hits:
        """See :meth:`Design.hits`: the first step exactly, later ones counted."""
        first = self._first_step()
        if self.length == 1 or not self.graph.num_edges:
            return first
        node, edge = self._later(key)
        graph = self.graph.to("cpu")
        known = graph.dst.long() * graph.num_src + graph.indices.long()

        def pair(src: Tensor, dst: Tensor) -> Tensor:
            wanted = torch.maximum(src, dst) * graph.num_src + torch.minimum(src, dst)
            # Loops are not among the known; they may point anywhere.
            place = torch.searchsorted(known, wanted).clamp(max=known.numel() - 1)
            return first.pair(src, dst) + edge[place]

        return Hits((first.node + node).clamp(max=1), pair)

    def _first_step(self) -> Hits:
        """A node is hit as the root, or from a neighbour that is; a pair from either end."""
        graph, count = self.graph.to("cpu"), self.ground.universe.numel()
        inverse = torch.where(graph.degree > 0, 1.0 / graph.degree.double(), 0.0)
        node = torch.where(self.ground.is_member.cpu(), 1.0, 0.0).double()
        node.index_add_(0, graph.dst.long(), inverse[graph.indices.long()])
        return Hits((node / count).clamp(max=1), lambda u, v: (inverse[u] + inverse[v]) / count)

    def _later(self, key: Key) -> tuple[Tensor, Tensor]:
        """(N,) and (E,) float64 shares of walks that :func:`count_later` counts."""
        graph, total = self.graph, self.coverage * self.ground.universe.numel()
        count = -(-total // (self.length + 1))
        node = torch.zeros(graph.num_dst, dtype=torch.int64, device=graph.device)
        edge = torch.zeros(graph.num_edges, dtype=torch.int32, device=graph.device)
        for number, first in enumerate(range(0, count, _WALKS)):
            walks = self.walks(key.fold(number), min(_WALKS, count - first))
            count_later(graph, walks, node, edge)
        return node.cpu().double() / count, edge.cpu().double() / count
