"""Layer-wise sampling without replacement, debiased by Des Raj's formula: exactly n sources a layer.

Chen et al. 2023, "Calibrate and Debias Layer-wise Sampling for Graph Convolutional Networks". Draws
one by one, proportional to ``||a_u||`` among those that remain; the sequential formula
(:func:`graphdyn.kernels.race.des_raj`) makes the aggregate unbiased. For where the size must be fixed;
with a size that may vary, PLADIES has less variance. Scales are positive but can lie below 1, and the
probability to be drawn has no closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphdyn.keys import Key
from graphdyn.samplers.designs import without_replacement
from graphdyn.samplers.layerwise import LayerDependent, LayerDependentPlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure


@dataclass(frozen=True)
class LayerwiseDesRaj(LayerDependent):
    """See the module; options are those of :class:`graphdyn.samplers.layerwise.LayerDependent`."""

    def bind(
        self, structure: Structure, seeds: SeedDraw, num_hops: int, key: Key
    ) -> LayerDependentPlans:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.bind`."""
        return LayerDependentPlans(self, structure, seeds, num_hops, without_replacement)
