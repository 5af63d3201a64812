"""Instrument: one quantity of training. A subclass has one method, :meth:`Instrument.measure`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Flag, auto
from typing import Any, ClassVar

from graphdyn.errors import unknown
from graphdyn.estimate import Reading
from graphdyn.schedule import Auto, Schedule, as_schedule
from graphdyn.snapshot import Snapshot


class Need(Flag):
    """What must be at hand when an instrument measures."""

    NOTHING = 0
    UPDATE = auto()  # the weights before the step, so there must have been one
    PROBLEM = auto()  # gradients beside those of training
    SYMMETRY = auto()  # what leaves the loss as it is, which is looked for once
    LOSSES = auto()  # the training losses that the loop has noted since the last time
    MICRO = auto()  # the gradients of micro-batches, as they are accumulated


class Instrument(ABC):
    """One quantity, measured when its schedule says so.

    Attributes:
        name: By which the record knows it; by default the name of the class, as ``effective_lr``.
        needs: See :class:`Need`.
        every: When; a number stands for :class:`graphdyn.Every`.
        levels: Options from the best to the cheapest, for a budget to choose from; ``level`` is the present
            one's place, ``option`` reads it.
        cost: About how many gradients of a batch one measurement takes at the best level; what a budget
            believes before it has seen one.
        full: About how many passes over the whole graph, there and back, it takes besides.
        bands: Relative deviation from ``pred`` that a report calls agreement, by what is measured.
        fixed: Options that are held, whatever the level.

    Args:
        every: In place of the class's own.
        **fixed: Members of ``levels`` to hold at a value, whatever the level; ``None``: as the level says.

    Raises:
        InputError: If no level has such a member.
    """

    name: ClassVar[str]
    needs: Need = Need.NOTHING
    every: Schedule = Auto()
    levels: tuple[Mapping[str, Any], ...] = ()
    cost: float = 0.0
    full: float = 0.0
    bands: ClassVar[Mapping[str, float]] = {}
    level: int = 0
    fixed: Mapping[str, Any] = {}

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "name" not in vars(cls):
            cls.name = re.sub(
                r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__
            ).lower()

    def __init__(self, *, every: Schedule | int | None = None, **fixed: Any):
        if every is not None:
            self.every = as_schedule(every)
        known = {name for level in self.levels for name in level}
        for name in fixed:
            if name not in known:
                raise unknown(f"option of {type(self).__name__}", name, sorted(known))
        self.fixed = {name: value for name, value in fixed.items() if value is not None}

    def option(self, name: str) -> Any:
        """What is held fixed, or what the present level says."""
        return self.fixed[name] if name in self.fixed else self.levels[self.level][name]

    def setup(self, s: Snapshot) -> None:  # noqa: B027 most have nothing to do
        """Before the first measurement.

        Raises:
            Invalid: If the quantity does not exist for this model, optimiser or problem.
        """

    @abstractmethod
    def measure(self, s: Snapshot) -> Reading:
        """The quantity now, by name, or by (name, group).

        Raises:
            Invalid: If it does not exist at this moment.
        """

    def state(self) -> dict[str, Any]:
        """What a resumed run needs: tensors and plain values by name."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 nor to keep
        """Take back what :meth:`state` gave."""
