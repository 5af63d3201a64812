"""Plans with a halo: the nodes of a batch hear from all their neighbours, these from those at hand.

The structure of local message compensation (Shi, Liang & Wang 2023, "LMC: Fast Training of GNNs via
Subgraph Sampling with Provable Convergence"). The batch is what a subgraph sampler draws; the halo is all
nodes that send to it or hear from it; the block holds every edge among both, with the full graph's
weights, and serves all layers. Sampling scales have nothing left to correct: no edge into the batch is
missing. Shapes: B nodes in the batch, M in the halo.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from graphdyn.batch import Block, Halo, Plan
from graphdyn.errors import InputError, unknown
from graphdyn.kernels.draw import draw_uniform, relabel, take_source, weigh
from graphdyn.kernels.induced import induced
from graphdyn.keys import Key
from graphdyn.samplers.around import AroundPlans
from graphdyn.samplers.sampler import Sampler, Task
from graphdyn.samplers.subgraph import Members, SubgraphPlans
from graphdyn.sparse import CSC, Sparse

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "const": torch.ones_like,
    "linear": lambda x: x,
    "concave": lambda x: x * (2 - x),
    "convex": torch.square,
    "sin": lambda x: torch.sin((x - 0.5) * math.pi).clamp(min=0),
}
PARTS = ("weight", "count")


@dataclass(frozen=True)
class Compensated(Sampler):
    """A subgraph sampler, its plans with halos.

    Attributes:
        sampler: Draws the nodes of the batch, and weighs its seeds.
        beta: Largest share of what is computed in a row of the halo, from 0 to 1.
        score: A key of :data:`SCORES`: the share is ``beta * score(x)``, where x is the part of a
            row's messages that the block holds. ``sin`` is negative below one half in the paper, and 0
            here: a share is one.
        part: Measure x by edge ``weight``, or by their ``count`` as the paper does.
    """

    sampler: Sampler
    beta: float = 1.0
    score: str = "const"
    part: str = "weight"

    def make(self, task: Task) -> CompensatedPlans:
        """See :meth:`Sampler.make`.

        Raises:
            InputError: If an option is out of range, or the sampler draws no subgraphs.
        """
        check_share(self.beta, self.score, self.part)
        base = self.sampler.make(task)
        if not isinstance(base, SubgraphPlans):
            raise InputError(
                f"{type(self.sampler).__name__} draws no subgraph with neighbours around it to make up "
                "for; use the sampler 'cluster', 'node', 'saint-node', 'saint-edge' or 'saint-walk'."
            )
        if base.estimator == "published":
            raise InputError(
                "the estimator 'published' weighs a batch by the seeds that it happens to have, which "
                "says nothing of its other nodes; use 'unit' (or 'ht')."
            )
        return CompensatedPlans(base, self)


def check_share(beta: float, score: str, part: str) -> None:
    """Raise :class:`InputError` unless the options of :class:`Compensated` are in range."""
    if not 0 <= beta <= 1:
        raise InputError(f"beta is {beta}; it must lie in [0, 1].")
    for name, value, known in (("score", score, tuple(SCORES)), ("part", part, PARTS)):
        if value not in known:
            raise unknown(name, value, known)


class CompensatedPlans(AroundPlans):
    """See :class:`Compensated`.

    Args:
        base: Draws nodes and weighs seeds.
        recipe: Says what share of a halo is computed.
    """

    def __init__(self, base: SubgraphPlans, recipe: Compensated):
        super().__init__(base)
        self.determined = base.determined
        self.recipe, self.structure = recipe, base.structure

    def target_probability(self) -> list[Tensor]:
        """Of being in the batch proper, see :meth:`Plans.target_probability`."""
        return self.base.target_probability()

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`."""
        members = self.base.draw(key)
        nodes, ground = members.node_id, self.base.ground
        rows = torch.nonzero(ground.is_seed[nodes]).flatten()
        seeds = nodes[rows]
        weight = self.base.seed_weight(members, seeds)
        return Plan((self.block(members),), rows, seeds, weight, key)

    def block(self, members: Members) -> Block:
        """The square block of a batch and its halo, the batch first."""
        inside = members.node_id.numel()
        nodes = self.around(members.node_id)
        sub = induced(self.structure.csc, nodes, self.structure.workspace)
        csc = CSC(sub.indptr.to(sub.src.dtype), sub.src, nodes.numel())
        values = weigh(self.structure.adjacency.values, sub.edge, None)
        score = SCORES[self.recipe.score]
        share = self.recipe.beta * score(self.present(csc, values, nodes)[inside:])
        return Block(
            Sparse(csc, values), nodes, sub.edge, halo=Halo(self.weight(members, nodes), share)
        )

    def around(self, nodes: Tensor) -> Tensor:
        """(B + M,) the nodes, then everybody who sends to one of them or hears from one."""
        found = nodes
        for csc in (self.structure.csc, self.backward):
            if csc is not None:
                near = take_source(csc, draw_uniform(csc, None, nodes, -1, 0).edge)
                found = relabel(found, near, self.structure.workspace)[1]
        return found

    @cached_property
    def backward(self) -> CSC | None:
        """The pattern by source; ``None`` where it is the same."""
        csc = self.structure.csc
        turned = csc.transpose.csc
        same = torch.equal(csc.indptr, turned.indptr) and torch.equal(csc.indices, turned.indices)
        return None if same else turned

    def weight(self, members: Members, nodes: Tensor) -> Tensor:
        """(B + M,) one over the probability to be in the batch, as seeds are weighted; 0 in the halo."""
        inside = members.node_id.numel()
        weight = torch.zeros(nodes.numel(), device=nodes.device)
        own = self.base.seed_weight(members, nodes[:inside])
        weight[:inside] = own * self.base.ground.num_seeds
        return weight

    def present(self, csc: CSC, values: Tensor | None, nodes: Tensor) -> Tensor:
        """(B + M,) the part of each row's messages that is there, 1 for rows that get none."""
        if self.recipe.part == "count" or values is None:
            there, every = csc.degree.double(), self.structure.csc.degree[nodes].double()
        else:
            there = torch.zeros(nodes.numel(), dtype=torch.float64, device=nodes.device)
            there.index_add_(0, csc.dst.long(), values.double())
            every = self.structure.row_sum[nodes]
        return torch.where(every == 0, 1.0, there / every).clamp(0, 1).float()
