"""Touched: whether somebody wrote to gradients between the backward pass and the step (clipping, a loss scaler)."""

from __future__ import annotations

from typing import Any

from torch import nn

from graphdyn.groups import Groups


class Touched:
    """Watches one parameter, which speaks for all: clipping and scaling write to every gradient.

    Args:
        groups: Its first parameter is watched.

    Attributes:
        paused: Whether backward passes are somebody else's, and not counted.
    """

    def __init__(self, groups: Groups):
        self._parameter: nn.Parameter | None = next(iter(groups.parameters.values()), None)
        self._version: int | None = None
        self.paused = False
        self._handle: Any = None

    def attach(self) -> None:
        """Begin to watch."""
        if self._parameter is not None:
            self._handle = self._parameter.register_post_accumulate_grad_hook(self._note)

    def detach(self) -> None:
        """Stop to watch."""
        if self._handle is not None:
            self._handle.remove()

    def modified(self) -> bool | None:
        """Whether the gradient was written to since it was accumulated; ``None``: there is none."""
        if self._parameter is None or self._parameter.grad is None or self._version is None:
            return None
        return self._parameter.grad._version != self._version

    def _note(self, parameter: Any) -> None:
        if not self.paused:
            self._version = parameter.grad._version
