"""How far one seed of a run has come, in plain values that a checkpoint can hold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from graphdyn.evaluation import Scores
from graphdyn.journal import Clock
from graphdyn.loader import SECONDS

LEDGER = ("precompute", *SECONDS, "compute", "memory", "instruments", "evaluate", "total")


@dataclass
class Selection:
    """The evaluation that is reported: the first with the best validation value."""

    epoch: int = -1
    step: int = -1
    value: float = -math.inf
    metric: dict[str, float] = field(default_factory=dict)
    waited: int = 0

    def offer(self, epoch: int, step: int, value: float, scores: Scores) -> bool:
        """Take what was evaluated then if it is strictly better; say whether it was."""
        if not value > self.value:
            self.waited += 1
            return False
        self.epoch, self.step = epoch, step
        self.value, self.metric, self.waited = value, dict(scores.metric), 0
        return True


@dataclass
class SeedState:
    """Counts and times of a seed.

    Attributes:
        seed: Its number.
        epoch: Whole epochs done.
        step: Steps done.
        edges: Edges touched, by all ranks.
        nodes: Rows of features read, by all ranks.
        bytes: Of these rows.
        trained: Seconds of training after the last step, those of rank 0: what a budget in seconds counts.
        marks: Evaluations that have been due so far, where they lie evenly along a budget.
        loss: Sum of the losses of the epoch's steps so far.
        seconds: By row of the ledger.
        selection: The best evaluation so far.
    """

    seed: int
    epoch: int = 0
    step: int = 0
    edges: int = 0
    nodes: int = 0
    bytes: int = 0
    trained: float = 0.0
    marks: int = 0
    loss: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEDGER, 0.0))
    selection: Selection = field(default_factory=Selection)

    @property
    def clock(self) -> Clock:
        """When a number measured now is measured."""
        seconds = sum(self.seconds[name] for name in ("compute", "memory", "wait"))
        return Clock(self.seed, self.step, self.epoch, seconds, self.edges, self.bytes)

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> SeedState:
        """What :meth:`plain` gave."""
        return cls(**{**plain, "selection": Selection(**plain["selection"])})
