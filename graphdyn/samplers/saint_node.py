"""GraphSAINT's node sampler: m nodes with replacement, by importance. Normalised in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphdyn.errors import InputError, unknown
from graphdyn.keys import Key
from graphdyn.samplers.saint import Design, Hits, Saint, column_norm, normalised
from graphdyn.samplers.subgraph import Ground, check_positive, distinct

IMPORTANCE = ("norm", "degree")


@dataclass(frozen=True)
class SaintNode(Saint):
    """m draws with replacement; a node that is drawn twice is in the subgraph once.

    Other options are those of :class:`graphdyn.samplers.saint.Saint`.

    Attributes:
        budget: m.
        importance: ``norm``: probability ∝ ||A_:v||^2 of the model's matrix, the paper's; ``degree``:
            ∝ messages that a node sends, the official code's. Nodes that send nothing get the least.
    """

    budget: int = 6000
    importance: str = "norm"

    def design(self, ground: Ground) -> NodeDesign:
        """See :meth:`Saint.design`."""
        check_positive(budget=self.budget)
        if self.importance not in IMPORTANCE:
            raise unknown("importance", self.importance, IMPORTANCE)
        if self.budget == 1 and self.estimator == "ht":
            raise InputError(
                "budget is 1: a lone node has no edges to others, and no weight brings them back; "
                "give at least 2."
            )
        return NodeDesign(ground, self._importance(ground), self.budget)

    def _importance(self, ground: Ground) -> Tensor:
        if self.importance == "norm":
            return column_norm(ground.structure)
        csc = ground.structure.csc
        return torch.bincount(csc.indices.cpu(), minlength=csc.num_src)


class NodeDesign(Design):
    """m independent nodes.

    Args:
        ground: What is drawn from.
        importance: (N,) not negative.
        units: m.
    """

    def __init__(self, ground: Ground, importance: Tensor, units: int):
        self.units, self.universe = units, ground.universe
        self.prob = normalised(importance, ground)
        self.cumulated = self.prob[self.universe.cpu()].cumsum(0).to(self.universe.device)

    def draw(self, key: Key) -> Tensor:
        """See :meth:`Design.draw`."""
        device = self.universe.device
        u = key.fold("nodes").uniform(torch.arange(self.units, device=device))
        place = torch.searchsorted(self.cumulated, u * self.cumulated[-1], right=True)
        return distinct(self.universe[place.clamp(max=self.universe.numel() - 1)])

    def hits(self, key: Key) -> Hits:
        """See :meth:`Design.hits`: one draw brings one node."""
        return Hits(self.prob, lambda src, dst: torch.zeros(src.numel(), dtype=torch.float64))
