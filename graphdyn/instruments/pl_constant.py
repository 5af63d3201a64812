"""PLConstant: the Polyak-Lojasiewicz ratio |grad L|^2 / (2 (L - L*)), which bounds how fast gradient flow descends.

Valid where the problem knows all targets exactly, so that L and its gradient are those of the whole problem in the
model's present mode. L* must be known: with an ``optimum`` below the true one the ratio comes out too small
(L - L* too large), never too large. With dropout both are those of one mask. Under gradient flow
dL/dt = -|grad L|^2 = -2 mu (L - L*) at every moment, whatever mu is; a loss whose ratio never falls below mu decays
at least as exp(-2 mu t) (Polyak 1963; Karimi, Nutini & Schmidt 2016, theorem 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.groups import total
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.schedule import Auto, Schedule
from graphdyn.snapshot import Snapshot


class PLConstant(Instrument):
    """The ratio now, which layers make it up, and the smallest so far.

    ============  ==========  =====================================================================
    reading       unit        what it is
    ============  ==========  =====================================================================
    ``mu``        1/time      |grad L|^2 / (2 (L - L*)), time being learning rate times steps. By group: the
                              group's share of |grad L|^2; these add up to the whole, for -dL/dt does
    ``smallest``  1/time      the smallest ``mu`` that was measured
    ``gap``       loss        L - L*, of all targets, exact
    ============  ==========  =====================================================================

    Standard error 0: gradient and loss are exact. On a quadratic mu lies between the smallest and the largest
    eigenvalue of the Hessian.

    Args:
        optimum: L*; the loss of the best weights there are.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=200)
    full = 1.0

    def __init__(self, *, optimum: float = 0.0, **options: Any):
        super().__init__(**options)
        self.optimum = optimum
        self._smallest: Tensor | None = None

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If the problem does not know all targets, or the loss is not above ``optimum``.
        """
        gap = full_loss(s) - self.optimum
        if not gap > 0:
            raise Invalid(
                f"the loss is not above {self.optimum:g}, its optimum; give PLConstant(optimum=...) a true one."
            )
        gradient = s.full_grad()
        parts = {n: v / (2 * gap) for n, v in s.groups.dots(gradient, gradient).items()}
        mu = total(parts)
        self._smallest = mu if self._smallest is None else torch.minimum(self._smallest, mu)
        whole = {"mu": Estimate(mu, 0.0), "smallest": self._smallest, "gap": Estimate(gap, 0.0)}
        return {**whole, **{("mu", name): Estimate(v, 0.0) for name, v in parts.items()}}

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return {"smallest": self._smallest}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._smallest = state["smallest"]


def full_loss(s: Snapshot) -> Tensor:
    """The loss of all targets, exact, in float64; dropout masks are those of :meth:`Snapshot.full_grad`.

    Raises:
        Invalid: If the problem does not know all targets.
    """
    problem, pieces = s.given(), []
    for batch in problem.full(s.key):
        with s.isolated(), torch.no_grad():
            pieces.append(problem.loss(s.model, batch).double())
    return torch.stack(pieces).sum()
