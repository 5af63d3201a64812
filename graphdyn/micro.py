"""The gradients of the micro-batches of an accumulated step, as squared norms: nothing is computed twice.

Shapes: n micro-batches, G groups.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.groups import Groups


class MicroBatches:
    """Watches the backward passes between two steps.

    A hook on a leaf sees the gradient of one backward pass, before it is added to ``.grad``. A parameter that
    comes by a second time begins a new micro-batch; if its ``.grad`` is gone by then, what was seen before
    belongs to a step that was never taken, and is forgotten.

    Args:
        groups: What is watched.

    Attributes:
        paused: Whether backward passes are somebody else's, and not counted.
    """

    def __init__(self, groups: Groups):
        self.groups, self.paused = groups, False
        self._handles: list[Any] = []
        # What is done to all gradients is read off one: the last, for a loss hardly ever leaves it out.
        self._witness: Any = [*groups.parameters.values()][-1]
        self._sum: Tensor | None = None  # its gradient, as it was accumulated
        self._seen: list[dict[str, Tensor]] = []
        self._home = {n: g for g, members in groups.members.items() for n in members}

    def attach(self) -> None:
        """Begin to watch."""
        for name, parameter in self.groups.parameters.items():
            self._handles.append(parameter.register_hook(self._hook(name)))
        self._handles.append(self._witness.register_post_accumulate_grad_hook(self._accumulated))

    def detach(self) -> None:
        """Stop to watch."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def factor(self) -> Tensor | float:
        """What gradients were multiplied by since they were accumulated: by a scaler, which leaves no other trace."""
        now, then = self._witness.grad, self._sum
        if now is None or then is None:
            return 1.0
        square = then.double().square().sum()
        return torch.where(square > 0, (now.double() * then.double()).sum() / square, 1.0)

    def take(self) -> Tensor | None:
        """(n, G) squared norms since the last call, float64; ``None`` if there was no backward pass."""
        seen, self._seen = self._seen, []
        if not seen:
            return None
        rows = [[self._of(batch, group) for group in self.groups.names] for batch in seen]
        return torch.stack([torch.stack(row) for row in rows])

    def _accumulated(self, parameter: Any) -> None:
        if not self.paused:
            self._sum = parameter.grad.detach().clone()

    def _of(self, batch: dict[str, Tensor], group: str) -> Tensor:
        found = [batch[n] for n in self.groups.members[group] if n in batch]
        device = next(iter(batch.values())).device
        return sum(found, torch.zeros((), dtype=torch.float64, device=device))

    def _hook(self, name: str):
        parameter = self.groups.parameters[name]

        def note(grad: Tensor) -> None:
            if self.paused:
                return
            if parameter.grad is None and any(name in batch for batch in self._seen):
                self._seen = []
            if not self._seen or name in self._seen[-1]:
                self._seen.append({})
            self._seen[-1][name] = grad.detach().double().square().sum()

        return note
