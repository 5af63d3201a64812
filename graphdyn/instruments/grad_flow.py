"""GradFlow: how strongly the loss pulls at each layer's states and at its weights.

Valid at any step after the first, for every optimiser. A ratio that falls by orders of magnitude from the last
layer to the first is a vanishing gradient, whatever the optimiser makes of it. Gradients of weights are those that the
last step used, as the optimiser saw them (of a batch, clipped if somebody clipped); those of states come from a
pass of their own at the present weights. How far the step then goes: :class:`graphdyn.UpdateRatio`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Invalid, Reading
from graphdyn.groups import total
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.instruments.looks import state_grads
from graphdyn.schedule import Auto, Schedule
from graphdyn.snapshot import Snapshot


class GradFlow(Instrument):
    """By layer, and by group of parameters and in total.

    ==============  =============================================================================================
    reading         what it is
    ==============  =============================================================================================
    ``state_grad``  |dL/dH|, Frobenius norm, by layer; H before norm and activation
    ``grad_ratio``  |g| / |w|, g the gradient of the last step, w the weights in front of it
    ==============  =============================================================================================

    No standard errors: these are numbers of one step. A group of weights that are all 0 (a bias that has never
    moved) has no ratio.

    Args:
        every: See :class:`Instrument`.
        on: Where derivatives of states are taken: ``"full"`` or ``"batch"``, see :meth:`Snapshot.trace`; by
            default whatever the level says.
    """

    needs = Need.PROBLEM | Need.UPDATE
    every: Schedule = Auto(steps=100)
    levels = ({"on": "full"}, {"on": "batch"})
    full = 1.0

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If no step was taken yet, or the model does not show its layers.
        """
        if s.before is None:
            raise Invalid("no step was taken yet.")
        trace = s.trace(self.option("on"))
        states: dict[Any, Tensor] = {
            ("state_grad", n): g.double().norm() for n, g in state_grads(trace).items()
        }
        grads, weights = (s.groups.dots(v, v) for v in (s.grad, s.before))
        pairs: dict[Any, Any] = {"grad_ratio": (total(grads), total(weights))}
        pairs |= {("grad_ratio", group): (g, weights[group]) for group, g in grads.items()}
        return states | {key: torch.sqrt(a / b) for key, (a, b) in pairs.items() if b > 0}
