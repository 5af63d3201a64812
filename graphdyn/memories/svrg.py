"""SVRG: stochastic variance reduced gradients (Johnson & Zhang 2013), around any sampler.

Every K steps the parameters are kept as w~ with the exact gradient mu there; each step then uses
``g = grad_B(w) - grad_B(w~) + mu``. Both terms of a batch share its plan, remembered rows, dropout masks
and batch-norm mode, so that their difference vanishes at w = w~. Where batches have exact embeddings g is
unbiased; where they have not, g carries the change of the sampler's bias since w~ instead of the bias.

The variance is that of the difference: it grows with the distance from w~, and beyond a correlation of
1/2 between the two terms (variances alike) g is noisier than ``grad_B(w)`` alone, which is what happens to
deep networks soon after a snapshot (Defazio & Bottou 2019, "On the Ineffectiveness of Variance Reduced
Optimization for Deep Learning"). The theory is that of plain SGD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from graphdyn.batch import Batch
from graphdyn.memories.anchor import (
    AnchorMemory,
    AnchorRecipe,
    assign,
    gradient_at,
    gradients,
    parameters,
)
from graphdyn.memories.memory import Setting


@dataclass(frozen=True)
class SVRG(AnchorRecipe):
    """The snapshot w~ and its exact gradient mu; options and costs are those of :class:`AnchorRecipe`."""

    parallel: ClassVar[bool] = True
    regularized: ClassVar[bool] = True  # its correction has mean zero, whatever it is added to

    def bind(self, setting: Setting) -> SVRGMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return SVRGMemory(self, setting)


class SVRGMemory(AnchorMemory):
    """See :class:`SVRG`: ``anchor`` is w~, ``gradient`` is mu."""

    @torch.no_grad()
    def correct(self, batch: Batch) -> None:
        """See :meth:`Memory.correct`."""
        if self.countdown.due:
            assign(self.anchor, parameters(self.model))
            assign(self.gradient, self.exact(batch))
        self.countdown.step()
        then = gradient_at(self.setting, batch, self.anchor)
        for name, now in gradients(self.model).items():
            # In this order: at w = w~ the first difference is 0 to the last bit.
            now.sub_(then[name]).add_(self.gradient[name])
