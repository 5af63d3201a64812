"""TimeToTarget: how much it takes until a validation metric passes a target, on five axes, censored until then.

Valid for any loop that logs a metric once per measurement: schedule it as often as the loop evaluates (the
default is once an epoch), for a value that is read twice counts twice. Nothing is assumed of model, optimiser
or sampler. A run that does not get there says when it was last seen; :mod:`graphdyn.survival` puts such runs
together. A hit is the first time that the median of three consecutive evaluations passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from graphdyn.errors import InputError
from graphdyn.estimate import Invalid, Reading
from graphdyn.instruments.instrument import Instrument
from graphdyn.schedule import Epoch, Schedule
from graphdyn.snapshot import Snapshot


class TimeToTarget(Instrument):
    """What it took, or has taken so far, for each target.

    The group of a reading is the target, written with ``:g``. Axes that the loop does not count are missing.

    ============  ==========  =====================================================================
    reading       unit        what it is
    ============  ==========  =====================================================================
    ``hit``       0 or 1      whether the target was passed; else the others are right-censored
    ``steps``     steps       optimiser steps until the last of the three evaluations; until now without a hit
    ``targets``   targets     target nodes whose loss was differentiated, likewise
    ``edges``     edges       edges that messages went along, likewise
    ``bytes``     bytes       of features gathered, likewise
    ``seconds``   seconds     of training, without instruments, likewise
    ``median``    metric      median of the last three evaluations; no group; from the third on
    ============  ==========  =====================================================================

    No standard error: a number of this run; intervals come from seeds. No prediction.

    Args:
        targets: One or several values to be passed.
        score: Name under which the loop logs the metric.
        window: How many evaluations the median is of.
        larger: Whether larger values are better.
        every: One measurement an evaluation.

    Raises:
        InputError: If there is no target, or the window is not positive.
    """

    every: Schedule = Epoch()

    def __init__(
        self,
        targets: float | Sequence[float],
        *,
        score: str = "valid",
        window: int = 3,
        larger: bool = True,
        **options: Any,
    ):
        super().__init__(**options)
        self.targets = (targets,) if isinstance(targets, (int, float)) else tuple(targets)
        if not self.targets or window < 1:
            raise InputError(
                f"got {len(self.targets)} targets and a window of {window}; give at least one of each."
            )
        self.score, self.window, self.larger = score, window, larger
        self._recent: list[float] = []
        self._hits: dict[float, dict[str, float]] = {}

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If the loop has not logged the metric.
        """
        if self.score not in s.scores:
            raise Invalid(f"the loop has not logged '{self.score}'; call log({self.score}=...).")
        now = {"steps": float(s.step)}
        axes = ("targets", "edges", "bytes", "seconds")
        now |= {n: s.counters[n] for n in axes if n in s.counters}
        self._recent = [*self._recent, s.scores[self.score]][-self.window :]
        found: dict[str | tuple[str, str], float] = {}
        if len(self._recent) == self.window:
            found["median"] = middle = median(self._recent)
            for target in self.targets:
                if middle >= target if self.larger else middle <= target:
                    self._hits.setdefault(target, now)
        for target in self.targets:
            group = f"{target:g}"
            found["hit", group] = float(target in self._hits)
            found |= {(axis, group): v for axis, v in self._hits.get(target, now).items()}
        return found

    def state(self) -> dict[str, Any]:
        """See :meth:`Instrument.state`."""
        return {"recent": self._recent, "hits": [[t, now] for t, now in self._hits.items()]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :meth:`Instrument.restore`."""
        self._recent = list(state["recent"])
        self._hits = {target: dict(now) for target, now in state["hits"]}
