"""FastGCN (Chen, Ma & Xiao 2018): n nodes a layer, with replacement, whatever the layer above is.

Weights come from the columns of the whole matrix, ``q_u ~ ||A_u||`` (published: its square), so they
are computed once. Unbiased with the estimator ``ht``, ``s = m / (n q)``. Few of the sampled nodes are
sources of the batch's targets: most rows are empty and the variance is large; LADIES and PLADIES
mend that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphdyn.keys import Key
from graphdyn.samplers.designs import Drawn, Wheel
from graphdyn.samplers.layerwise import Layerwise, LayerwisePlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure


@dataclass(frozen=True)
class FastGCN(Layerwise):
    """FastGCN; options are those of :class:`graphdyn.samplers.layerwise.Layerwise`.

    As published: ``importance="norm2"``.
    """

    def bind(self, structure: Structure, seeds: SeedDraw, num_hops: int, key: Key) -> FastGCNPlans:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.bind`."""
        return FastGCNPlans(self, structure, seeds, num_hops)


class FastGCNPlans(LayerwisePlans):
    """See :class:`FastGCN`."""

    def __init__(self, sampler: FastGCN, structure: Structure, seeds: SeedDraw, num_hops: int):
        super().__init__(sampler, structure, seeds, num_hops)
        every = torch.arange(structure.num_nodes, device=structure.device)
        _, weight = self.importance(every)
        self.nodes, self.wheel = every, Wheel(weight)

    def choose(self, dst: Tensor, n: int, key: Key) -> tuple[Tensor, Drawn]:
        """See :meth:`LayerwisePlans.choose`."""
        return self.nodes, self.wheel.draw(n, key)
