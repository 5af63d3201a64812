"""Batches of whole parts: q of c parts, and the edges among their nodes.

The q parts of a step are a uniform subset. Given that a node is in the batch, nodes of its own part are
there surely, and those of another part with probability (q - 1) / (c - 1): scales 1 and
(c - 1) / (q - 1) make every row unbiased. A node is in the batch with probability q / c.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.kernels.induced import Induced
from graphdyn.keys import Key
from graphdyn.parallel import World
from graphdyn.samplers.seeds import Shuffle, Uniform, fill
from graphdyn.samplers.shares import bind_share
from graphdyn.samplers.subgraph import Ground, Members, SubgraphPlans, ascending
from graphdyn.sparse import CSC


def cross_scale(parts: int, drawn: int) -> float:
    """(c - 1) / (q - 1): the scale of edges between different parts; 1 where q = 1 leaves none."""
    return (parts - 1) / (drawn - 1) if drawn > 1 else 1.0


class PartPlans(SubgraphPlans):
    """Plans of whole parts.

    An epoch is a new random order of the parts, cut into ceil(c / q) batches whose sizes differ by at
    most one; the scales are those of the step's own size. Where ``ht`` would be left with a batch of a
    single part (q = 2, c odd), batches have three.

    Args:
        ground: What is drawn from.
        estimator: One of :data:`graphdyn.samplers.subgraph.RULES`; ``published`` re-normalises the
            subgraph by its own degrees and takes the mean loss of the batch.
        part: (U,) int64 part of each node of the universe: 0..c-1, none of them empty.
        drawn: q, at most; all where there are fewer.
        independent: Draw the q parts of every step independently, instead of every part once an epoch.
        diagonal: Lambda of Cluster-GCN's ``A + lambda diag(A)``; ``published`` alone.
        world: Every rank takes q parts of a step's W q and the edges among its own; scales and weights
            are those of the parts that it has, so each rank's loss is unbiased alone.

    Raises:
        InputError: If ``ht`` is asked of batches of a single part.
    """

    determined = True

    def __init__(
        self,
        ground: Ground,
        estimator: str,
        part: Tensor,
        drawn: int,
        *,
        independent: bool = False,
        diagonal: float = 0.0,
        world: World = World(),
    ):
        super().__init__(ground, estimator)
        self.part = torch.full((ground.num_nodes,), -1, dtype=torch.int64, device=part.device)
        self.part[ground.universe] = part
        self.nodes = ground.universe[torch.argsort(part, stable=True)]
        size = torch.bincount(part)
        self.cuts = torch.cat([size.new_zeros(1), size.cumsum(0)])
        self.num_parts, self.diagonal = size.numel(), diagonal
        drawn = self._drawn(min(drawn, -(-self.num_parts // world.size)), independent, world.size)
        policy = Uniform(drawn) if independent else Shuffle(drawn)
        self.order = bind_share(policy, torch.arange(self.num_parts, device=part.device), world)
        self.num_batches = self.order.num_batches
        steps = self.num_batches * world.size
        self.share = drawn / self.num_parts if independent else 1 / steps

    def _drawn(self, q: int, independent: bool, ranks: int) -> int:
        c = self.num_parts
        if self.estimator != "ht" or c == 1:
            return q
        if q == 1:
            raise InputError(
                "one part a batch loses all edges between parts, and no weight brings them back: the "
                "estimator 'ht' needs at least 2; give more, or choose 'published' or 'unit'."
            )
        if ranks == 1:
            return 3 if q == 2 and c % 2 and not independent else q
        if c < 2 * ranks:
            raise InputError(
                f"{c} parts leave no two for each of {ranks} ranks, as the estimator 'ht' needs; give more "
                "parts, or fewer ranks."
            )
        # The smallest batch of a rank is a floor of a floor; with fewer steps it has two parts.
        steps = -(-c // (q * ranks))
        while not independent and c // steps < 2 * ranks:
            steps -= 1
        return q if independent else max(q, -(-c // (steps * ranks)))

    def draw(self, key: Key) -> Members:
        """See :meth:`SubgraphPlans.draw`."""
        chosen = self.order.draw(key).node_id
        return Members(self.members(chosen), chosen.numel())

    def members(self, chosen: Tensor) -> Tensor:
        """(M,) the nodes of parts, ascending."""
        start = self.cuts[chosen]
        size = self.cuts[chosen + 1] - start
        shift = torch.repeat_interleave(start - (size.cumsum(0) - size), size)
        return ascending(self.nodes[shift + torch.arange(shift.numel(), device=shift.device)])

    def scale(self, members: Members, sub: Induced) -> Tensor:
        """See :meth:`SubgraphPlans.scale`."""
        part = self.part[members.node_id]
        target = torch.repeat_interleave(part, sub.indptr.diff(), output_size=sub.src.numel())
        same = part[sub.src.long()] == target
        return torch.where(same, 1.0, cross_scale(self.num_parts, members.units))

    def values(self, csc: CSC, edge: Tensor, scale: Tensor | None) -> Tensor | None:
        """See :meth:`SubgraphPlans.values`."""
        if self.estimator != "published":
            return super().values(csc, edge, scale)
        values = self.renormalised(csc, edge)
        if not self.diagonal:
            return values
        values = torch.ones(edge.numel(), device=edge.device) if values is None else values
        return torch.where(csc.dst == csc.indices, 1 + self.diagonal, 1.0) * values

    def seed_weight(self, members: Members, seeds: Tensor) -> Tensor:
        """See :meth:`SubgraphPlans.seed_weight`; ``published``: 1 / B."""
        if self.estimator == "published":
            return fill(seeds, 1 / max(seeds.numel(), 1))
        return fill(seeds, self.num_parts / (members.units * self.ground.num_seeds))

    def target_probability(self) -> list[Tensor]:
        """See :meth:`SubgraphPlans.target_probability`."""
        return [torch.where(self.part >= 0, self.share, 0.0)]
