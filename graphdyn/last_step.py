"""LastStep: what can be seen of an optimiser's step only while it is taken, kept until it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.groups import Groups
from graphdyn.micro import MicroBatches
from graphdyn.touched import Touched


class LastStep:
    """See the module; :meth:`fields` are those of a :class:`graphdyn.snapshot.Snapshot`.

    Args:
        optimizer: Whose steps.
        groups: Of its parameters.
        micro: Whether to look at micro-batches, too.

    Attributes:
        modified: Whether somebody wrote to gradients between backward pass and step; ``None``: not known.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, groups: Groups, *, micro: bool):
        self.optimizer, self.groups = optimizer, groups
        self._touched = Touched(groups)
        self._micro = MicroBatches(groups) if micro else None
        self._ears = [self._touched, *([] if self._micro is None else [self._micro])]
        self._settings: dict[str, dict[str, Any]] = {}
        self._weights: Tensor | None = None  # before it
        self._handed: Tensor | None = None
        self.modified: bool | None = None
        self._scale: Tensor | None = None  # what a scaler leaves to the optimiser to divide by
        self._squares: Tensor | None = None  # of its micro-batches
        self._factor: Tensor | float = 1.0  # and what was done to them on the way to the optimiser

    def attach(self) -> None:
        """Begin to watch backward passes."""
        for ear in self._ears:
            ear.attach()

    def detach(self) -> None:
        """Stop to watch them."""
        for ear in self._ears:
            ear.detach()

    @contextmanager
    def unheard(self) -> Iterator[None]:
        """Inside, backward passes are those of instruments, which nobody counts."""
        for ear in self._ears:
            ear.paused = True
        try:
            yield
        finally:
            for ear in self._ears:
                ear.paused = False

    def before(self, *, weights: bool, closure: bool) -> None:
        """A step begins that will be measured.

        Args:
            weights: Whether to keep the weights.
            closure: Whether the step takes its gradients itself.

        Raises:
            InputError: If it is being captured.
        """
        _refuse_capture()
        self._settings = self.options()
        self._scale = getattr(self.optimizer, "grad_scale", None)
        if weights:
            self._weights = self.groups.weights()
        if not closure:
            self._gradients_now()

    def after(self, *, measured: bool, closure: bool) -> None:
        """A step has ended.

        Args:
            measured: Whether it will be measured.
            closure: As before.
        """
        self._squares = None if self._micro is None else self._micro.take()
        if measured and closure:
            self._gradients_now()
        if measured and self._squares is not None:
            self._squares = self._squares * self._factor**2

    def fields(self) -> dict[str, Any]:
        """What a snapshot says of it."""
        return {
            "settings": self._settings or self.options(),
            "before": self._weights,
            "handed": self._handed,
            "modified": self.modified,
            "micro": self._squares,
        }

    def forget(self) -> None:
        """It was measured; what is large is let go."""
        self._settings, self._scale, self.modified = {}, None, None
        self._weights = self._handed = None

    def options(self) -> dict[str, dict[str, Any]]:
        """The optimiser's options in force, by group; those of its first parameter speak for a group."""
        kind = type(self.optimizer).__name__
        of = {id(p): g for g in self.optimizer.param_groups for p in g["params"]}
        found: dict[str, dict[str, Any]] = {}
        for name, members in self.groups.members.items():
            options = of.get(id(self.groups.parameters[members[0]]), {})
            found[name] = {"optimizer": kind, **{k: v for k, v in options.items() if k != "params"}}
        return found

    def _gradients_now(self) -> None:
        """As the optimiser gets them: some write to them as they step, fused ones what a scaler left to them."""
        self.modified = self._touched.modified()
        self._factor = 1.0 if self._micro is None else self._micro.factor()
        if self._scale is not None:
            self._factor = self._factor / self._scale.double()
        if self._weights is not None:
            grad = self.groups.grads()
            self._handed = grad if self._scale is None else grad / self._scale


def _refuse_capture() -> None:
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise InputError(
            "the optimiser steps inside a CUDA graph that is being captured, where nothing can be read; "
            "attach the recorder after the capture."
        )
