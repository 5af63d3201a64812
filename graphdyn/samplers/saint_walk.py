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

from graphdyn.graph import Graph, Propagation
from graphdyn.kernels.walk import count_later, walk
from graphdyn.keys import Key
from graphdyn.samplers.saint import Design, SaintPlans
from graphdyn.samplers.sampler import Sampler
from graphdyn.samplers.subgraph import Ground, check_estimator, check_positive, distinct
from graphdyn.samplers.undirected import simple_graph

_WALKS = 1 << 20  # walks that are counted at once


@dataclass(frozen=True)
class SaintWalk(Sampler):
    """Walks on the undirected graph without loops; where there are no neighbours, a walk stays.

    Attributes:
        roots: r.
        length: L, steps of a walk.
        estimator: ``ht``, ``unit`` or ``published``, see :mod:`graphdyn.samplers.saint`.
        coverage: How often an average node is met while counting; takes time in ``prepare``.
        inductive: Training nodes and the edges between them alone, as in the paper.
    """

    roots: int = 3000
    length: int = 2
    estimator: str = "ht"
    coverage: int = 50
    inductive: bool = False

    def prepare(
        self,
        graph: Graph,
        propagation: Propagation,
        num_hops: int,
        *,
        nodes: Tensor | None = None,
        key: Key = Key(0),
    ) -> SaintPlans:
        """See :meth:`Sampler.prepare`."""
        check_estimator(self.estimator)
        check_positive(roots=self.roots, length=self.length, coverage=self.coverage)
        ground = Ground.of(graph, propagation, nodes, inductive=self.inductive)
        design = WalkDesign(ground, self.roots, self.length, self.coverage, key)
        return SaintPlans(ground, design, self.estimator, self.coverage, key)


class WalkDesign(Design):
    """m independent walks from uniform roots.

    One step from a uniform node takes the edge {u, v} with probability (1/d_u + 1/d_v) / U: with
    L = 1 these are GraphSAINT's edge sampler, and nothing is left to count.

    Args:
        ground: What is drawn from.
        units: m.
        length: L.
        coverage: Walks that are counted: coverage U / (L + 1).
        key: Of counting.
    """

    def __init__(self, ground: Ground, units: int, length: int, coverage: int, key: Key):
        self.units, self.length, self.universe = units, length, ground.universe
        graph = simple_graph(ground.structure.csc)
        self.graph = graph.to(ground.structure.device)
        self.inverse = torch.where(graph.degree > 0, 1.0 / graph.degree.double(), 0.0)
        self._edges = graph.dst.long() * graph.num_src + graph.indices.long()
        self.hit = self._first_step(ground.is_member.cpu())
        self.later: Tensor | None = None
        if length > 1 and graph.num_edges:
            self._count(coverage, key.fold("coverage"))

    def _first_step(self, member: Tensor) -> Tensor:
        """(N,) that v is the root, or that a neighbour is and steps to v."""
        graph = self.graph.to("cpu")
        arrive = torch.zeros(graph.num_dst, dtype=torch.float64)
        arrive.index_add_(0, graph.dst.long(), self.inverse[graph.indices.long()])
        return torch.where(member, (1 + arrive) / self.universe.numel(), 0.0).clamp(max=1)

    def _count(self, coverage: int, key: Key) -> None:
        """What later steps add to the probabilities of a walk."""
        graph = self.graph
        count = -(-coverage * self.universe.numel() // (self.length + 1))
        node = torch.zeros(graph.num_dst, dtype=torch.int64, device=graph.device)
        edge = torch.zeros(graph.num_edges, dtype=torch.int32, device=graph.device)
        for number, first in enumerate(range(0, count, _WALKS)):
            walks = self._walks(key.fold(number), min(_WALKS, count - first))
            count_later(graph, walks, node, edge)
        self.hit = (self.hit + node.cpu().double() / count).clamp(max=1)
        self.later = (edge.double() / count).cpu()

    def _walks(self, key: Key, count: int) -> Tensor:
        number = torch.arange(count, device=self.universe.device)
        root = key.fold("roots").integers(number, self.universe.numel())
        return walk(self.graph, self.universe[root], self.length, key.fold("walk").bits)

    def draw(self, key: Key) -> Tensor:
        """See :meth:`Design.draw`."""
        return distinct(self._walks(key, self.units))

    def node_hit(self) -> Tensor:
        """See :meth:`Design.node_hit`."""
        return self.hit

    def pair_hit(self, src: Tensor, dst: Tensor) -> Tensor:
        """See :meth:`Design.pair_hit`."""
        first = (self.inverse[src] + self.inverse[dst]) / self.universe.numel()
        if self.later is None:
            return first
        place = torch.searchsorted(self._edges, dst * self.graph.num_src + src)
        return first + self.later[place.clamp(max=self._edges.numel() - 1)]
