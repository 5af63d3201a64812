"""SPIDER: a running estimate of the gradient, moved by differences (Fang et al. 2018, algorithm 1).

``g_t = grad_B(w_t) - grad_B(w_{t-1}) + g_{t-1}``, exact again every K steps; the same recursion as SARAH
(Nguyen et al. 2017). Both terms of a batch share its plan, remembered rows, dropout masks and batch-norm
mode. With ``momentum`` a it is STORM (Cutkosky & Orabona 2019):
``g_t = grad_B(w_t) + (1 - a) (g_{t-1} - grad_B(w_{t-1}))``; a = 1 is the plain gradient.

Given the past, g is biased (towards its own last error); over all draws its error has mean zero where
batches have exact embeddings. The error is a sum of differences, each of the size of one step of the
parameters: it grows like a random walk until the next start, so K and the learning rate bound it. On top of
an optimiser with momentum or adaptive steps the published rates do not hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphdyn.batch import Batch
from graphdyn.errors import InputError
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
class Spider(AnchorRecipe):
    """The last parameters and the last estimate; where it is exact, a step reads no batch.

    Attributes:
        momentum: a, share of the plain gradient; SPIDER is 0. Other options are those of
            :class:`AnchorRecipe`.
    """

    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum <= 1:
            raise InputError(f"momentum is {self.momentum}; it must lie in [0, 1].")

    def bind(self, setting: Setting) -> SpiderMemory:
        """See :meth:`MemoryRecipe.bind`."""
        return SpiderMemory(self, setting)


class SpiderMemory(AnchorMemory):
    """See :class:`Spider`: ``anchor`` is w_{t-1}, ``gradient`` is g_{t-1}."""

    def __init__(self, recipe: Spider, setting: Setting):
        super().__init__(recipe, setting)
        self.keep = 1 - recipe.momentum

    @torch.no_grad()
    def correct(self, batch: Batch) -> None:
        """See :meth:`Memory.correct`."""
        grads, keep = gradients(self.model), self.keep
        if self.countdown.due:
            assign(grads, self.exact(batch))
        else:
            then = gradient_at(self.setting, batch, self.anchor)
            for name, now in grads.items():
                now.sub_(then[name], alpha=keep).add_(self.gradient[name], alpha=keep)
        self.countdown.step()
        assign(self.gradient, grads)
        assign(self.anchor, parameters(self.model))
