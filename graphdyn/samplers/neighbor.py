"""Neighbour sampling (Hamilton et al. 2017, GraphSAGE): up to k neighbours of each target.

Unbiased for the aggregate of every layer with the estimator ``ht``: variance (1/k - 1/d) S^2 without
replacement, sigma^2 / k with. Self-loops are kept beside the k, exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.kernels.draw import Draw, draw_uniform
from graphdyn.keys import Key
from graphdyn.samplers.layered import LayeredSampler
from graphdyn.samplers.sampler import LayeredPlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.weight import apply_rule


@dataclass(frozen=True)
class Neighbor(LayeredSampler):
    """Neighbour sampling; the other options are those of :class:`graphdyn.samplers.layered.LayeredSampler`.

    Attributes:
        fanouts: Neighbours a target, from the seeds outwards (PyG's ``num_neighbors``); -1 is all. One
            number serves every layer.
        replace: Draw with replacement.
    """

    fanouts: tuple[int, ...] = (10,)
    replace: bool = False

    def bind(self, structure: Structure, seeds: SeedDraw, num_hops: int, key: Key) -> NeighborPlans:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.bind`."""
        return NeighborPlans(self, structure, seeds, expand_fanouts(self.fanouts, num_hops))


class NeighborPlans(LayeredPlans):
    """See :class:`Neighbor`."""

    def __init__(
        self, sampler: Neighbor, structure: Structure, seeds: SeedDraw, fanouts: tuple[int, ...]
    ):
        super().__init__(structure, seeds, len(fanouts), reuse=sampler.reuse)
        self.sampler, self.fanouts = sampler, fanouts

    def draw(self, dst: Tensor, hop: int, key: Key) -> Draw:
        """See :meth:`LayeredPlans.draw`."""
        csc, loops = self.structure.csc, self.structure.loops
        k, replace = self.fanouts[hop], self.sampler.replace
        draw = draw_uniform(csc, loops, dst, k, key.bits, replace=replace)
        return apply_rule(self.sampler.estimator, draw, self.structure, dst)

    def edge_probability(self, hop: int) -> Tensor:
        """See :meth:`LayeredPlans.edge_probability`."""
        csc, k = self.structure.csc, self.fanouts[hop]
        if k < 0:
            return torch.ones(csc.num_edges, device=csc.device)
        loop = csc.indices == csc.dst
        own = torch.bincount(csc.dst[loop], minlength=csc.num_dst)
        rest = (csc.degree - own).clamp(min=1).double()
        prob = (k / rest).clamp(max=1.0)
        if self.sampler.replace:
            prob = 1 - (1 - 1 / rest) ** k
        return torch.where(loop, 1.0, prob.float()[csc.dst])


def expand_fanouts(fanouts: tuple[int, ...], num_hops: int) -> tuple[int, ...]:
    """One fan-out a hop.

    Raises:
        InputError: If a fan-out is 0 or below -1, or their number does not fit the model.
    """
    bad = [k for k in fanouts if k < 1 and k != -1]
    if bad:
        raise InputError(f"fan-out {bad[0]} is not allowed; give at least 1, or -1 for all.")
    if len(fanouts) == 1:
        return fanouts * num_hops
    if len(fanouts) != num_hops:
        raise InputError(
            f"{len(fanouts)} fan-outs were given, but the model has {num_hops} message-passing "
            "layers; give one for each layer, or a single one for all."
        )
    return fanouts
