"""Heard: the training losses that a loop tells a recorder, one a step; cheap, for it happens at every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.instruments.instrument import Need
from graphdyn.journal import Clock, Metric
from graphdyn.sinks import Sink
from graphdyn.watch import Watch


class Heard:
    """Losses until all who want them have read them, and until they are written.

    Args:
        watches: Some of which read losses.
    """

    def __init__(self, watches: Sequence[Watch]):
        self.watches = watches
        self.losses: list[tuple[int, Tensor]] = []  # by the number of steps before
        self._wanted = any(Need.LOSSES in w.instrument.needs for w in watches)
        self._unwritten: list[tuple[Clock | tuple[int, int, float], Tensor]] = []

    @property
    def waiting(self) -> int:
        """How many are not written."""
        return len(self._unwritten)

    def note(self, step: int, loss: Tensor) -> None:
        """The loss of the step that came after so many."""
        if self._wanted:
            self.losses.append((step, loss))

    def write_later(self, at: Clock | tuple[int, int, float], loss: Tensor) -> None:
        """To be recorded: when (a clock, or step, epoch and seconds), and what."""
        self._unwritten.append((at, loss))

    def write(self, sink: Sink) -> None:
        """As rows, what waits."""
        heard, self._unwritten = self._unwritten, []
        for at, loss in heard:
            clock = at if isinstance(at, Clock) else Clock(0, *at, 0)
            sink.put(clock, Metric("loss", "step", cast(float, loss)))

    def trim(self) -> None:
        """Forget those that all have read."""
        if not self.losses:
            return
        seen = [w.seen for w in self.watches if w.reads_losses]
        self._wanted = bool(seen)
        self.losses = [pair for pair in self.losses if pair[0] > min(seen, default=math.inf)]


def scalar(loss: Tensor | float) -> Tensor:
    """A loss as a tensor of its own.

    Raises:
        InputError: If it is more than one number.
    """
    loss = torch.as_tensor(loss).detach()
    if loss.numel() != 1:
        raise InputError(
            f"log got a loss of shape {tuple(loss.shape)}; give the number that was differentiated."
        )
    return loss.clone()
