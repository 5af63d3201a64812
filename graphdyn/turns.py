"""Turns: whose turn it is to measure, among those that are due and that the budget has the time for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from graphdyn.budget import Asks, Budget, intervals
from graphdyn.errors import InputError
from graphdyn.groups import Groups
from graphdyn.instruments.instrument import Need
from graphdyn.problem import Problem
from graphdyn.schedule import NEVER
from graphdyn.watch import Watch

# What finding the symmetry of a model is believed to take, before it was tried: some seconds, and for each of
# its 3 G + 8 derivatives in double precision some more a parameter.
SYMMETRY, EACH = 0.3, 3e-8
# Of the budget, for those that have measured, while another waits for its first time.
SAVING = 0.5


class Turns:
    """See the module.

    Args:
        watches: All instruments.
        budget: Of all together.
        groups: How many parameters there are.
        problem: Says how long a pass over the whole graph takes.

    Attributes:
        next: The first step at which any is due.
        symmetry_known: Whether the symmetry of the model was found.
    """

    def __init__(
        self, watches: Sequence[Watch], budget: Budget, groups: Groups, problem: Problem | None
    ):
        self.watches, self.budget, self._problem = watches, budget, problem
        self._size, tensors = groups.size, len(groups.parameters)
        self._symmetry = SYMMETRY + (3 * tensors + 8) * groups.size * EACH
        self.next, self.symmetry_known = 0, False

    def at(self, step: int, now: int) -> list[Watch]:
        """Who measures at a step.

        Args:
            step: Where they would measure.
            now: Steps done.
        """
        return self._afford((w for w in self.watches if w.wants(step)), now)

    def at_end(self, epoch: int, now: int) -> list[Watch]:
        """Who measures at the end of the epoch-th epoch; who looks at a step will do so at the next."""
        ends = [w for w in self.watches if w.ends(epoch)]
        for watch in ends:
            if Need.UPDATE in watch.instrument.needs:
                watch.at(now + 1)
        return self._afford((w for w in ends if Need.UPDATE not in w.instrument.needs), now)

    def plan(self) -> None:
        """How often the budget lets each measure."""
        share, autos = self.budget.share, [w for w in self.watches if w.auto]
        if share is None or not self.budget.step_seconds:
            return
        asks = [Asks(self._usual(w), w.auto.weight) for w in autos if w.auto]
        for watch, steps in zip(autos, intervals(asks, share, self.budget.step_seconds)):
            watch.every(steps)

    def settle(self) -> None:
        """See when the next is due."""
        self.next = min((w.next for w in self.watches), default=NEVER)

    def found_symmetry(self, now: int) -> None:
        """Those that waited for the time that finding it takes need not wait any longer."""
        if not self.symmetry_known:
            self.symmetry_known = True
            for watch in self.watches:
                watch.hurry(now + 1)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {w.instrument.name: w.state() for w in self.watches}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave.

        Raises:
            InputError: If it is that of other instruments.
        """
        names = [w.instrument.name for w in self.watches]
        if sorted(names) != sorted(state):
            raise InputError(
                f"the checkpoint is of the instruments {', '.join(state)}, and here are "
                f"{', '.join(names)}; give the recorder the same ones."
            )
        for watch in self.watches:
            watch.restore(state[watch.instrument.name])
        self.settle()

    def _afford(self, due: Iterable[Watch], now: int) -> list[Watch]:
        """Those that the budget has the time for together, the longest due first; the others wait for it."""
        turn, planned = [], 0.0
        # One that is dear, and has never measured, would wait for ever while cheap ones spend all there is.
        saving = any(not w.firings and not w.off for w in self.watches)
        for watch in sorted(due, key=lambda w: (not w.replayed, w.next)):
            part = SAVING if saving and watch.firings else 1.0
            expected = planned + self._expected(watch)
            if watch.replayed or self.budget.allows(expected, part):
                turn.append(watch)
                planned = planned if watch.replayed else expected
            else:
                watch.wait(now + self.budget.steps_until(expected, part))
        return turn

    def _expected(self, watch: Watch) -> float:
        new = not self.symmetry_known and Need.SYMMETRY in watch.instrument.needs
        return self._usual(watch) + (self._symmetry if new else 0.0)

    def _usual(self, watch: Watch) -> float:
        return watch.expected(self.budget, self._full_steps, self._size)

    @cached_property
    def _full_steps(self) -> float:
        if self.budget.share is None or self._problem is None:
            return 1.0
        return self._problem.full_steps()
