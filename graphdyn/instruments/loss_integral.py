"""LossIntegral: the area under the training loss, over steps and over accumulated learning rate.

Exact for the losses that the loop noted, which are those of batches: with sampled batches the area is that of
the noisy curve, unbiased for the area of the mean one. Nothing is assumed of model, optimiser or sampler. The
area over accumulated learning rate is exact where the learning rate changes only when this is measured; measure
every step under a schedule that changes it every step. The trapezoidal rule; derived here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.snapshot import Snapshot


class LossIntegral(Instrument):
    """The area under the loss since the first loss that was noted.

    ============  ==========  =====================================================================
    reading       unit        what it is
    ============  ==========  =====================================================================
    ``steps``     loss·step   int L dt = sum (L_i + L_i+1) (t_i+1 - t_i) / 2
    ``mean``      loss        ``steps`` over the number of steps it spans; from the second loss on
    ``time``      loss·lr     int L eta dt; where learning rates differ, one for each group of parameters
    ============  ==========  =====================================================================

    No standard error: a number of this run. No prediction: runs are compared.
    """

    needs = Need.LOSSES

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._steps = 0  # spanned
        self._last: tuple[int, Tensor] | None = None
        self._area: Tensor | float = 0.0
        self._time: dict[str, Tensor | float] = {}
        self._apart = False  # whether learning rates have ever differed

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If no loss was noted yet.
        """
        added = self._add([*s.losses])
        if self._last is None:
            raise Invalid("no training loss was noted; call the recorder's log(loss=...).")
        rates = {name: own["lr"] for name, own in s.settings.items() if "lr" in own}
        first = next(iter(rates.values()), None)
        self._apart |= any(lr is not first and lr != first for lr in rates.values())
        for name, lr in rates.items():
            self._time[name] = self._time.get(name, 0.0) + lr * added
        found: dict[str | tuple[str, str], Any] = {"steps": self._area}
        if self._steps:
            found["mean"] = self._area / self._steps
        if self._apart:
            return found | {("time", name): area for name, area in self._time.items()}
        return found | ({"time": next(iter(self._time.values()))} if self._time else {})

    def _add(self, losses: list[tuple[int, Tensor]]) -> Tensor | float:
        """The area under the losses that are new."""
        start = float("-inf") if self._last is None else self._last[0]
        new = [pair for pair in losses if pair[0] > start]
        if not new:
            return 0.0
        chain = new if self._last is None else [self._last, *new]
        values = torch.stack([loss.detach().double() for _, loss in chain])
        steps = torch.tensor([step for step, _ in chain], device=values.device).double()
        area = torch.trapezoid(values, steps)
        self._last = (chain[-1][0], values[-1])
        self._steps += chain[-1][0] - chain[0][0]
        self._area = self._area + area
        return area

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return {
            "steps": self._steps,
            "last": self._last,
            "area": self._area,
            "time": {**self._time},
            "apart": self._apart,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._steps, self._last = state["steps"], state["last"]
        self._area, self._time = state["area"], {**state["time"]}
        self._apart = state["apart"]
