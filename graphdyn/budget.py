"""Budget: instruments take at most a given share of training time, at every moment.

Time that training has taken is credit, what instruments have taken is debit: one fires only while
``spent + expected cost <= 0.9 share * trained``. How often those that leave it to the budget (:class:`graphdyn.Auto`)
ask for their turn follows from what they cost: minimising ``sum_i w_i k_i`` under
``sum_i c_i / k_i <= share * t`` gives ``k_i = sqrt(c_i / w_i) * sum_j sqrt(c_j w_j) / (share * t)`` steps, with t the
time of a step, c_i the cost and w_i the weight of an instrument (Lagrange; derived here). Intervals are rounded
up to powers of two, so that instruments meet and share what they look at.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphdyn.errors import InputError

PRIOR = 2e-4  # seconds that a measurement is believed to take besides its gradients
EACH = 2e-8  # and for each parameter of the model
# A pause longer than so many usual steps is none, once so many steps were seen.
LONG, FEW = 10.0, 10
# Of the share, planned with; the rest is for measurements that take longer than they did.
RESERVE = 0.9
MARGIN = 1.5  # on what was seen: a measurement may take longer the next time


class Asks(NamedTuple):
    """What the interval of one instrument follows from.

    Attributes:
        cost: Seconds of a measurement.
        weight: How much one is worth.
    """

    cost: float
    weight: float


@dataclass
class Budget:
    """Who has used how much time.

    Attributes:
        share: Of training time that instruments may take; ``None``: any.
        trained: Seconds of training, instruments excluded.
        spent: Seconds of instruments.
        steps: Steps that make up ``trained``.
    """

    share: float | None = None
    trained: float = 0.0
    spent: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share <= 1:
            raise InputError(
                f"budget is {self.share}; it must lie in (0, 1]: a share of training time."
            )
        self._ended: float | None = None  # when the last step did
        self._apart = 0.0  # seconds since then that were no training

    @property
    def step_seconds(self) -> float:
        """Mean time of a step of training; 0 before the first."""
        return self.trained / self.steps if self.steps else 0.0

    @property
    def overhead(self) -> float:
        """Instrument time over training time so far."""
        return self.spent / self.trained if self.trained else 0.0

    @staticmethod
    def now() -> float:
        """Seconds, of a clock that only goes forward."""
        return time.perf_counter()

    def charge(self, start: float) -> None:
        """Instruments have worked from then until now."""
        took = self.now() - start
        self.spent += took
        self._apart += took

    def leave_out(self, start: float) -> None:
        """From then until now was neither training nor to be paid for."""
        self._apart += self.now() - start

    def step_ended(self, now: float) -> None:
        """A step of training has ended; it began when the last one did."""
        if self._ended is not None:
            self.train(now - self._ended - self._apart)
        self._ended, self._apart = now, 0.0

    def expected(self, seen: float | None, gradients: float, size: int = 0) -> float:
        """Seconds that a measurement should take.

        Args:
            seen: What it took lately; ``None``: it was never measured.
            gradients: About how many gradients of a batch it takes, each believed to cost a step.
            size: Parameters of the model, which are read a few times.
        """
        if seen is not None:
            return MARGIN * seen
        return MARGIN * (PRIOR + EACH * size + gradients * self.step_seconds)

    def train(self, seconds: float) -> None:
        """A step of training has ended; a pause as long as many steps is not one (a debugger, a breakpoint)."""
        usual = self.step_seconds
        known = self.steps >= FEW
        self.trained += max(0.0, min(seconds, LONG * usual) if known else seconds)
        self.steps += 1

    def steps_until(self, seconds: float, part: float = 1.0) -> int:
        """How many more steps it takes before so much may be spent; see :meth:`allows`.

        Not fewer than keep asking, which takes time too, to a tenth of the share.
        """
        if self.share is None or not self.step_seconds:
            return 1
        share = RESERVE * self.share * part
        lacking = self.spent + seconds - share * self.trained
        quiet = 10 * PRIOR / (self.share * self.step_seconds)
        return max(1, math.ceil(max(lacking / (share * self.step_seconds), quiet)))

    def allows(self, seconds: float, part: float = 1.0) -> bool:
        """Whether so much more may be spent now, of a part of the share."""
        if self.share is None:
            return True
        return self.spent + seconds <= RESERVE * self.share * part * self.trained

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"trained": self.trained, "spent": self.spent, "steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.trained, self.spent, self.steps = state["trained"], state["spent"], state["steps"]


def intervals(asks: Sequence[Asks], share: float, step_seconds: float) -> list[int]:
    """Steps between two measurements of each instrument, powers of two; see the module."""
    if step_seconds <= 0:
        return [1 for _ in asks]
    together = sum(math.sqrt(a.cost * a.weight) for a in asks)
    exact = [math.sqrt(a.cost / a.weight) * together / (share * step_seconds) for a in asks]
    return [1 << max(0, math.ceil(math.log2(k))) if k > 0 else 1 for k in exact]
