"""Heard: what a loop tells a recorder, a loss at every step and scores now and then; cheap, and written later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.instruments.instrument import Need
from graphdyn.journal import Clock, Metric
from graphdyn.sinks import Sink
from graphdyn.watch import Watch

FLUSH_SECONDS, FLUSH_ROWS = 10.0, 4096


class Heard:
    """Losses until all who want them have read them, and until they are written.

    Args:
        watches: Some of which read losses.
        sink: Where rows go.
        now: Seconds.

    Attributes:
        losses: By the number of steps before.
        scores: The latest by name.
    """

    def __init__(self, watches: Sequence[Watch], sink: Sink, now: float):
        self.watches, self.sink, self._flushed = watches, sink, now
        self.losses: list[tuple[int, Tensor]] = []
        self.scores: dict[str, float] = {}
        self._wanted = any(Need.LOSSES in w.instrument.needs for w in watches)
        self._unwritten: list[tuple[Clock | tuple[int, int, float], Tensor]] = []

    def note(self, step: int, loss: Tensor) -> None:
        """The loss of the step that came after so many."""
        if self._wanted:
            self.losses.append((step, loss))

    def write_later(self, at: Clock | tuple[int, int, float], loss: Tensor) -> None:
        """To be recorded: when (a clock, or step, epoch and seconds), and what."""
        self._unwritten.append((at, loss))

    def write(self) -> None:
        """As rows, losses that wait."""
        heard, self._unwritten = self._unwritten, []
        for at, loss in heard:
            clock = at if isinstance(at, Clock) else Clock(0, *at, 0)
            self.sink.put(clock, Metric("loss", "step", cast(float, loss)))

    def flush(self, now: float) -> None:
        """Let the sink write, where rows are many or have waited long."""
        many = self.sink.waiting + len(self._unwritten) >= FLUSH_ROWS
        if many or now - self._flushed > FLUSH_SECONDS:
            self.write()
            self.sink.flush()
            self._flushed = now

    def trim(self) -> None:
        """Forget those that all have read."""
        if not self.losses:
            return
        seen = [w.seen for w in self.watches if w.reads_losses]
        self._wanted = bool(seen)
        self.losses = [pair for pair in self.losses if pair[0] > min(seen, default=math.inf)]

    def state(self) -> dict[str, Any]:
        """What a resumed run needs; losses that wait become rows, which the sink keeps."""
        self.write()
        return {"losses": list(self.losses), "scores": dict(self.scores)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave, which may say more."""
        self.losses = [(step, loss) for step, loss in state["losses"]]
        self.scores = dict(state["scores"])


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
