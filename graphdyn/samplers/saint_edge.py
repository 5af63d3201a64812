"""GraphSAINT's edge sampler: m undirected edges by 1/d_u + 1/d_v, and all edges among their ends.

The edge {u, v} is drawn with probability (1/d_u + 1/d_v) / U: a uniform node, then a uniform neighbour
of it, which needs no table. Normalised in closed form, exactly; the paper and its code count.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphdyn.graph import Graph, Propagation
from graphdyn.keys import Key
from graphdyn.samplers.saint import SaintPlans
from graphdyn.samplers.saint_walk import WalkDesign
from graphdyn.samplers.sampler import Sampler
from graphdyn.samplers.subgraph import Ground, check_estimator, check_positive


@dataclass(frozen=True)
class SaintEdge(Sampler):
    """m edges with replacement, without regard to direction, loops or parallel edges.

    Degrees are those of that simple graph. A node without edges stands as one edge of weight 1, a
    node's own share of any edge set, for else it would be missing from the loss for good.

    Attributes:
        budget: m.
        estimator: ``ht``, ``unit`` or ``published``, see :mod:`graphdyn.samplers.saint`.
        coverage: How often an average node is met while counting; ``published`` alone.
        inductive: Training nodes and the edges between them alone, as in the paper.
    """

    budget: int = 4000
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
        check_positive(budget=self.budget, coverage=self.coverage)
        ground = Ground.of(graph, propagation, nodes, inductive=self.inductive)
        design = WalkDesign(ground, self.budget, 1, self.coverage)
        return SaintPlans(ground, design, self.estimator, self.coverage, key)
