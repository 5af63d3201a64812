"""A moving average of the weights of a run, beside the weights that are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """``average <- a average + (1 - a) weights`` after each step, ``a = min(1 - 1 / (t + 1), decay)``, t from 0.

    So it is the plain mean of all weights so far until decay is reached, and starts as those after the first
    step. Parameters and floating buffers (statistics of batch norms) alike; what is averaged shares no memory
    with the model.

    Args:
        model: That is trained.
        decay: Below 1.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, torch.zeros((), dtype=torch.int64)
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self.weights = {n: t for n, t in named.items() if t.is_floating_point()}
        self.values = {n: t.detach().clone() for n, t in self.weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """A step was taken."""
        step = int(self.steps)
        share = min(1 - 1 / (step + 1), self.decay)
        for name, value in self.values.items():
            value.lerp_(self.weights[name].detach(), 1 - share)
        self.steps += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, tensor in self.weights.items():
            tensor.data, self.values[name] = self.values[name], tensor.data

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {"steps": self.steps, **{f"values/{n}": v for n, v in self.values.items()}}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        self.steps.copy_(state["steps"])
        for name, value in self.values.items():
            value.copy_(state[f"values/{name}"])
