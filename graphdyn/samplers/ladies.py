"""LADIES (Zou et al. 2019): n sources a layer with replacement, weighted by the targets' rows.

As in the paper: ``q_u ~ sum over targets v of a_vu^2``, ``s = m / (n q)``, and rows normalised to add
up to 1 (estimator ``published``). That is a ratio estimator: biased, the more so the more rows are
empty; and it forgets the row sums of the matrix where these are not 1. ``ht`` is unbiased, ``hajek``
keeps the row sums. The code that came with the paper draws without replacement with scale 1 / p and
is biased by tens of percent; it is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphdyn.kernels.draw import Draw
from graphdyn.keys import Key
from graphdyn.samplers.designs import Drawn, Wheel
from graphdyn.samplers.layerwise import LayerDependent, LayerDependentPlans
from graphdyn.samplers.seeds import SeedDraw
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.weight import RULES, draw_with_rows


@dataclass(frozen=True)
class Ladies(LayerDependent):
    """LADIES; other options are those of :class:`graphdyn.samplers.layerwise.LayerDependent`.

    Attributes:
        estimator: ``published``: ``ht`` with every row of ``s a`` normalised to add up to 1; or one of
            the others.
    """

    estimators: ClassVar[tuple[str, ...]] = ("published", *RULES)

    importance: str = "norm2"
    estimator: str = "published"

    def bind(self, structure: Structure, seeds: SeedDraw, num_hops: int, key: Key) -> LadiesPlans:
        """See :meth:`graphdyn.samplers.layered.LayeredSampler.bind`."""
        return LadiesPlans(self, structure, seeds, num_hops, _with_replacement)


class LadiesPlans(LayerDependentPlans):
    """See :class:`Ladies`."""

    def weigh(self, draw: Draw, dst: Tensor) -> Draw:
        """See :meth:`graphdyn.samplers.layerwise.LayerwisePlans.weigh`."""
        if self.sampler.estimator != "published":
            return super().weigh(draw, dst)
        one = torch.ones(dst.numel(), dtype=torch.float64, device=dst.device)
        return draw_with_rows(draw, self.structure, one)


def _with_replacement(weight: Tensor, ids: Tensor, n: int, key: Key) -> Drawn:
    del ids  # a draw belongs to its number
    return Wheel(weight).draw(n, key)
