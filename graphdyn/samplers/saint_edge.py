"""GraphSAINT's edge sampler: m undirected edges by 1/d_u + 1/d_v, and all edges among their ends.

The edge {u, v} is drawn with probability (1/d_u + 1/d_v) / U: a uniform node, then a uniform neighbour
of it, which needs no table. Normalised in closed form, exactly; the paper and its code count.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphdyn.samplers.saint import Saint
from graphdyn.samplers.saint_walk import WalkDesign
from graphdyn.samplers.subgraph import Ground, check_positive


@dataclass(frozen=True)
class SaintEdge(Saint):
    """m edges with replacement, without regard to direction, loops or parallel edges.

    Other options are those of :class:`graphdyn.samplers.saint.Saint`.

    Degrees are those of that simple graph. A node without edges stands as one edge of weight 1, a
    node's own share of any edge set, for else it would be missing from the loss for good.

    Attributes:
        budget: m.
    """

    budget: int = 4000

    def design(self, ground: Ground) -> WalkDesign:
        """See :meth:`Saint.design`."""
        check_positive(budget=self.budget)
        return WalkDesign(ground, self.budget, 1, self.coverage)
