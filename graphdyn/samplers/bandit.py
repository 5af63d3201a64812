"""Bandit neighbour sampling (Liu et al. 2020, "Bandit Samplers for Training Graph Neural Networks").

Each layer has a weight w for every edge, learned from what training reads (:mod:`graphdyn.memories.bandit`).
A target draws k of its d sources with replacement, by ``q = (1 - eta) w / sum w + eta / d``; an edge drawn m
times counts ``m / (k q)``: unbiased for whatever weights the step begins with, variance
``(sum_u a^2 |h_u|^2 / q_u - |z|^2) / k``, least where q is proportional to ``|a| |h|``. Without that memory
weights stay even: neighbour sampling with replacement. Self-loops are kept beside the k, exact, and targets
with at most k sources keep them all. Shapes: E edges, D targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.kernels.draw import Draw, draw_uniform
from graphdyn.kernels.poisson import to_units
from graphdyn.kernels.weighted import draw_replace
from graphdyn.keys import Key
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.samplers.neighbor import expand_fanouts
from graphdyn.samplers.sampler import LayeredPlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure

UNIT = 2.0**30  # shares are drawn in whole parts of this, so that every device draws alike
# Least logarithm of a weight beside its row's largest: what fell behind can come back.
FLOOR = -20.0


@dataclass(frozen=True)
class Bandit(LayeredSampler):
    """Bandit neighbour sampling; other options are those of :class:`graphdyn.samplers.layered.LayeredSampler`.

    Attributes:
        fanouts: Draws a target, from the seeds outwards; -1 is all. One number serves every layer.
        eta: Share of q that is even, in (0, 1]: no edge that counts is ever out of reach.
    """

    estimators: ClassVar[tuple[str, ...]] = ("ht",)

    fanouts: tuple[int, ...] = (10,)
    eta: float = 0.4

    def bind(self, structure: Structure, seeds: SeedDraw, num_hops: int, key: Key) -> BanditPlans:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.bind`."""
        if not 0 < self.eta <= 1:
            raise InputError(
                f"eta is {self.eta}; it must lie in (0, 1], else an edge may get lost."
            )
        return BanditPlans(self, structure, seeds, expand_fanouts(self.fanouts, num_hops))


class BanditPlans(LayeredPlans):
    """See :class:`Bandit`.

    Args:
        sampler: The recipe.
        structure: What is drawn from.
        seeds: Bound seed policy.
        fanouts: One a layer, from the seeds outwards.
    """

    def __init__(
        self, sampler: Bandit, structure: Structure, seeds: SeedDraw, fanouts: tuple[int, ...]
    ):
        super().__init__(structure, seeds, len(fanouts), reuse=sampler.reuse)
        self.eta, self.fanouts, self.live = sampler.eta, fanouts, True

    @cached_property
    def arms(self) -> tuple[Arms, ...]:
        """What is learned, one a layer, from the seeds outwards; allocated by the first who asks."""
        return tuple(Arms(self.structure, k, self.eta) for k in self.fanouts)

    def draw(self, dst: Tensor, hop: int, key: Key) -> Draw:
        """See :meth:`LayeredPlans.draw`."""
        csc, k = self.structure.csc, self.fanouts[hop]
        if k < 0:
            return draw_uniform(csc, self.structure.loops, dst, -1, 0)
        return draw_replace(csc, self.arms[hop].share, UNIT, dst, k, key.bits)

    def edge_probability(self, hop: int) -> Tensor:
        """See :meth:`LayeredPlans.edge_probability`; of the weights as they are now."""
        arms, k, csc = self.arms[hop], self.fanouts[hop], self.structure.csc
        played = arms.played[csc.dst.long()] & (csc.indices != csc.dst)
        return torch.where(played, 1 - (1 - arms.share.double()) ** k, 1.0).float()


class Arms:
    """The bandits of one layer: a target plays its edges, by exponential weights (EXP3, Auer et al. 2002).

    Args:
        structure: Whose edges.
        k: Draws a target; -1 is all.
        eta: Even share of q.

    Attributes:
        log: (E,) float32 logarithms of w, 0 for the largest of a row.
        share: (E,) float32 q; 0 at self-loops, which are not drawn.
        played: (N,) bool: targets with more than k sources, the others keep all.
    """

    def __init__(self, structure: Structure, k: int, eta: float):
        csc = structure.csc
        self.structure, self.eta = structure, eta
        loop = csc.indices == csc.dst
        own = torch.bincount(csc.dst[loop], minlength=csc.num_dst)
        self.count = csc.degree.long() - own
        self.played = (self.count > k) if k > 0 else torch.zeros_like(self.count, dtype=torch.bool)
        self.log = torch.zeros(csc.num_edges, device=csc.device)
        even = self.count.clamp(min=1).double().reciprocal()
        self.share = torch.where(loop, 0.0, even[csc.dst.long()]).float()

    def learn(self, dst: Tensor, edge: Tensor, gain: Tensor) -> None:
        """Raise weights.

        Args:
            dst: (D,) distinct targets whose edges these are.
            edge: (E',) distinct edges, no self-loops.
            gain: (E',) what is added to their logarithms.
        """
        self.log[edge] += gain.to(self.log.dtype)
        self.refresh(dst[self.played[dst]])

    def refresh(self, dst: Tensor) -> None:
        """Weights of whole rows beside their largest, and shares from these; of all edges of the targets."""
        csc = self.structure.csc
        indptr, edge, *_ = draw_uniform(csc, None, dst, -1, 0)
        edge = edge.long()
        row = torch.repeat_interleave(indptr.diff(), output_size=edge.numel())
        loop = csc.indices[edge] == dst[row]
        log = torch.where(loop, -torch.inf, self.log[edge])
        best = log.new_full((dst.numel(),), -torch.inf).scatter_reduce_(0, row, log, "amax")
        log = torch.where(loop, 0.0, (log - best[row]).clamp(min=FLOOR))
        units = to_units(torch.where(loop, 0.0, log.exp()), UNIT)  # sums of whole numbers are exact
        total = torch.zeros_like(dst).index_add_(0, row, units)
        even = self.eta / self.count[dst].double()
        share = (1 - self.eta) * units.double() / total[row].double() + even[row]
        self.log[edge] = log
        self.share[edge] = torch.where(loop, 0.0, share).float()
