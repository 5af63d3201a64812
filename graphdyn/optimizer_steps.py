"""OptimizerSteps: the hooks of an optimiser, called once for each step that it really takes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor


class OptimizerSteps:
    """Torch calls an optimiser's hooks more often than it steps, and this sorts it out.

    A subclass whose ``step`` calls its parent's has both of them hooked. One that unscales gradients by itself
    (fused, under a gradient scaler) is called, and does nothing, where a gradient is not finite; a copy of that
    flag on CPU is read, on a device nobody waits for it, and the step counts.

    Args:
        optimizer: Any of torch's, or a subclass.
        before: Called with whether the step gets a closure, which takes the gradients inside it.
        after: Called with the same.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        before: Callable[[bool], None],
        after: Callable[[bool], None],
    ):
        self.optimizer, self._before, self._after = optimizer, before, after
        self._handles: list[Any] = []
        self._outer: FrameType | None = None  # of the step under way

    def attach(self) -> None:
        """Begin to watch."""
        pre = self.optimizer.register_step_pre_hook(self._pre)
        post = self.optimizer.register_step_post_hook(self._post)
        self._handles = [pre, post]

    def detach(self) -> None:
        """Stop to watch."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._outer = [], None

    @property
    def attached(self) -> bool:
        """Whether it watches."""
        return bool(self._handles)

    def _pre(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        step = sys._getframe(1)
        # A step that has failed never ends; it is forgotten when the next one begins outside of it.
        if self._outer is not None and _within(step, self._outer):
            return
        self._outer = step
        if not _skipped(optimizer):
            self._before(_closure(args, kwargs))

    def _post(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if sys._getframe(1) is not self._outer:
            return
        self._outer = None
        if not _skipped(optimizer):
            self._after(_closure(args, kwargs))


def _within(frame: FrameType | None, outer: FrameType) -> bool:
    while frame is not None and frame is not outer:
        frame = frame.f_back
    return frame is not None


def _skipped(optimizer: torch.optim.Optimizer) -> bool:
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and found.device.type == "cpu" and bool(found)


def _closure(args: Any, kwargs: Any) -> bool:
    return any(callable(value) for value in (*args[1:], *kwargs.values()))
