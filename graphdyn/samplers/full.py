"""The full graph in every step: exact, without sampling; the baseline of all samplers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphdyn.batch import Block, Plan
from graphdyn.keys import Key
from graphdyn.samplers.sampler import Plans, Sampler, Task, training_nodes
from graphdyn.samplers.seeds import Simple
from graphdyn.samplers.structure import Structure


@dataclass(frozen=True)
class Full(Sampler):
    """Every edge and every training node in one step an epoch.

    Attributes:
        inductive: Edges between training nodes alone.
    """

    inductive: bool = False

    def make(self, task: Task) -> FullPlans:
        """See :meth:`Sampler.make`."""
        structure = Structure.of(task.graph, task.propagation, inductive=self.inductive)
        return FullPlans(structure, training_nodes(task.graph, task.nodes))


class FullPlans(Plans):
    """See :class:`Full`."""

    num_batches = 1
    ready = True
    determined = True

    def __init__(self, structure: Structure, nodes: Tensor):
        self.block = Block(structure.adjacency)
        self.nodes = nodes
        self.weight = torch.full((nodes.numel(),), 1.0 / nodes.numel(), device=nodes.device)

    @property
    def simple(self) -> Simple:
        """See :attr:`Plans.simple`."""
        return Simple(self.nodes.numel(), disjoint=False)

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`."""
        return Plan((self.block,), self.nodes, self.nodes, self.weight, key)
