"""Watch: one instrument in a recorder: when it is due, what it costs, why it was refused."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from graphdyn.budget import Budget
from graphdyn.errors import InputError
from graphdyn.estimate import Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.journal import Event
from graphdyn.problem import Problem
from graphdyn.readings import gaps_of, rows_of
from graphdyn.schedule import NEVER, At, Auto, Epoch, Schedule, When
from graphdyn.sinks import Row
from graphdyn.snapshot import Snapshot

# Measurements that say what the next will take; the lower median, for the first one compiles.
LATELY = 4


class Watch:
    """See the module.

    Args:
        instrument: Serves this watch alone.
        replay: Steps at which to measure, in place of its schedule.

    Attributes:
        next: The first step at which it may be due.
        firings: Steps at which it has measured.
        off: Why it never measures; empty while it does.
        seen: Step of the last loss that it has read.
        replayed: Whether another run says when it measures, whatever it costs.
    """

    def __init__(self, instrument: Instrument, replay: Iterable[int] | None = None):
        self.instrument = instrument
        self.schedule: Schedule = instrument.every if replay is None else At(replay)
        # There are none of these before the first step.
        late = instrument.needs & (Need.UPDATE | Need.LOSSES)
        self.next = self.schedule.after(0 if late else -1)
        self.replayed = replay is not None
        self.firings: list[int] = []
        self.off, self._told = "", set[str]()
        self._costs: dict[int, list[float]] = {}
        self._interval: int | None = None
        self._held = 0  # the step until which the budget lacks the time
        self.seen = -1
        self._ready = False

    @property
    def auto(self) -> Auto | None:
        """The schedule, if the budget decides."""
        return self.schedule if isinstance(self.schedule, Auto) and not self.off else None

    @property
    def reads_losses(self) -> bool:
        """Whether it will ever read a loss again."""
        over = self.next >= NEVER and not isinstance(self.schedule, Epoch)
        return Need.LOSSES in self.instrument.needs and not self.off and not over

    def wants(self, step: int) -> bool:
        """Whether it is due at this step; a step that was missed is made up for at the next."""
        if self.off or step < self.next:
            return False
        return self.schedule.wants(step) if isinstance(self.schedule, When) else True

    def ends(self, epoch: int) -> bool:
        """Whether it measures at the end of this epoch, which is the epoch-th."""
        schedule = self.schedule
        return not self.off and isinstance(schedule, Epoch) and epoch % schedule.epochs == 0

    def fired(self, step: int) -> None:
        """It measures now."""
        self.firings.append(step)
        self._held = 0
        self.next = self._after(step)

    def at(self, step: int) -> None:
        """At this step."""
        self.next = step

    def wait(self, step: int) -> None:
        """Not before this step."""
        self._held = step
        self.next = max(self.next, step)

    def hurry(self, step: int) -> None:
        """At this step, if it has never measured and was to wait longer."""
        if not self.firings and not self.off:
            self.next = min(self.next, step)

    def every(self, steps: int) -> None:
        """What the budget says; a cheaper level, for good, where that would be too seldom."""
        auto, instrument = self.auto, self.instrument
        assert auto is not None
        if steps > auto.most and instrument.level + 1 < len(instrument.levels):
            instrument.level += 1
        self._interval = max(steps, auto.least)
        if self.firings:  # sooner than was planned, where something became cheaper
            self.next = max(self._held, self._after(self.firings[-1]))

    def expected(self, budget: Budget, full_steps: float = 1.0, size: int = 0) -> float:
        """Seconds that a measurement should take at the present level.

        Args:
            budget: Knows the time of a step.
            full_steps: How many steps a pass over the whole graph takes.
            size: Parameters of the model.
        """
        instrument = self.instrument
        lately = self._costs.get(instrument.level)
        seen = statistics.median_low(lately) if lately else None
        shrink = 2.0**-instrument.level
        gradients = (instrument.cost + instrument.full * full_steps) * shrink
        return budget.expected(seen, gradients, size)

    def took(self, seconds: float) -> None:
        """What the measurement has taken."""
        lately = self._costs.setdefault(self.instrument.level, [])
        lately.append(seconds)
        del lately[:-LATELY]

    def rows(self, s: Snapshot, losses: Sequence[tuple[int, Tensor]]) -> Iterator[Row]:
        """What the instrument says, and what it cannot say; the same reason once.

        Args:
            s: Now.
            losses: By step, of which it reads those that are new to it.
        """
        if Need.LOSSES in self.instrument.needs:
            s.losses = self._since(losses)
        reading: Reading
        try:
            reading = self.read(s)
        except Invalid as reason:
            reading = {"": reason}
        yield from rows_of(self.instrument, reading)
        for name, reason in gaps_of(self.instrument, reading):
            if self._refused(f"{name}: {reason}"):
                yield Event(f"{name} invalid", reason)

    def read(self, s: Snapshot) -> Reading:
        """What the instrument says.

        Raises:
            Invalid: If it has nothing to say now, or ever.
        """
        if not self._ready:
            try:
                self.instrument.setup(s)
            except Invalid as reason:
                self.off, self.next = str(reason), NEVER
                raise
            self._ready = True
        return self.instrument.measure(s)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        own = {
            "next": self.next,
            "firings": list(self.firings),
            "off": self.off,
            "interval": self._interval,
            "held": self._held,
        }
        costs = {str(level): list(cost) for level, cost in self._costs.items()}
        told, level = sorted(self._told), self.instrument.level
        more = {
            "costs": costs,
            "told": told,
            "level": level,
            "ready": self._ready,
            "seen": self.seen,
        }
        return {**own, **more, "instrument": dict(self.instrument.state())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state` gave."""
        self.next, self.off = state["next"], state["off"]
        self.firings, self._interval = list(state["firings"]), state["interval"]
        self._held = state["held"]
        self._costs = {int(level): list(cost) for level, cost in state["costs"].items()}
        self._told, self._ready = set(state["told"]), state["ready"]
        self.seen, self.instrument.level = state["seen"], state["level"]
        self.instrument.restore(state["instrument"])

    def _since(self, losses: Sequence[tuple[int, Tensor]]) -> list[tuple[int, Tensor]]:
        """Losses, by step, that it has not read yet."""
        new = [pair for pair in losses if pair[0] > self.seen]
        self.seen = max((step for step, _ in new), default=self.seen)
        return new

    def _refused(self, reason: str) -> bool:
        """Whether this reason is new, whatever the numbers in it."""
        reason = re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?", "#", reason)
        new = reason not in self._told
        self._told.add(reason)
        return new

    def _after(self, step: int) -> int:
        if self._interval is not None:
            return (step // self._interval + 1) * self._interval
        return self.schedule.after(step)


def watches_of(
    instruments: Sequence[Instrument],
    problem: Problem | None,
    replay: Mapping[str, Iterable[int]] | None,
) -> list[Watch]:
    """One for each instrument; arguments as those of :class:`graphdyn.Recorder`.

    Raises:
        InputError: If two instruments have one name, or one needs a problem and there is none.
    """
    names = [i.name for i in instruments]
    for instrument in instruments:
        if names.count(instrument.name) > 1:
            raise InputError(
                f"two instruments are called '{instrument.name}'; give one a name= of its own in a subclass."
            )
        if problem is None and Need.PROBLEM in instrument.needs:
            raise InputError(
                f"{type(instrument).__name__} draws batches of its own; give the recorder problem=, "
                "which says what is trained."
            )
    return [Watch(i, None if replay is None else replay.get(i.name, ())) for i in instruments]
