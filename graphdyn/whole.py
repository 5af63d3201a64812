"""Whole: whether model and optimiser stand between two steps, when another rank is lost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.parallel import World


class Whole:
    """Whether model and optimiser stand between two steps; of several ranks, one may go in the middle.

    Args:
        model: Its buffers move in the forward pass.
        optimizer: Over its parameters, which move in the update.
        world: Alone, nothing is watched.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, world: World):
        self.model, self.watched, self.holds = model, not world.alone, False
        self.buffers: list[Tensor] = []
        if self.watched:
            optimizer.register_step_pre_hook(self._updating)

    def _updating(self, *args: Any) -> None:
        self.holds = False

    def mark(self) -> None:
        """A step is done, with all that belongs to it."""
        if self.watched:
            self.holds = True
            self.buffers = [buffer.clone() for buffer in self.model.buffers()]

    @torch.no_grad()
    def restore(self) -> None:
        """Back to the last mark, while it holds: no parameter has moved since."""
        for buffer, kept in zip(self.model.buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
