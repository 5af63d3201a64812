"""PLADIES (Balin & Catalyurek 2023, "Layer-neighbor sampling"): LADIES by Poisson sampling.

Every source of the targets is kept on its own with ``pi = min(1, c ||a_u||)``, n on average, scale
``1 / pi``: unbiased for every aggregate, with the least variance of the layer-wise designs here, and
no step depends on another. Targets that are sources of other targets are kept for certain.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphdyn.keys import Key
from graphdyn.samplers.designs import poisson
from graphdyn.samplers.layerwise import LayerDependent, LayerDependentPlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure


@dataclass(frozen=True)
class Pladies(LayerDependent):
    """PLADIES; options are those of :class:`graphdyn.samplers.layerwise.LayerDependent`."""

    keep_targets: bool = True

    def bind(
        self, structure: Structure, seeds: SeedDraw, num_hops: int, key: Key
    ) -> LayerDependentPlans:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.bind`."""
        return LayerDependentPlans(self, structure, seeds, num_hops, poisson)
