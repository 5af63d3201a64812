"""Instrument: one quantity of training. A subclass has one method, :meth:`Instrument.measure`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import Flag, auto
from typing import Any, ClassVar

from graphdyn.estimate import Reading
from graphdyn.schedule import Auto, Schedule, as_schedule
from graphdyn.snapshot import Snapshot


class Need(Flag):
    """What must be at hand when an instrument measures."""

    NOTHING = 0
    UPDATE = auto()  # the weights before the step, so there must have been one
    PROBLEM = auto()  # gradients beside those of training
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
        bands: Relative deviation from ``pred`` that a report calls agreement, by what is measured.

    Args:
        every: In place of the class's own.
        **options: Attributes to set, for example the members of ``levels`` to hold fixed.
    """

    name: ClassVar[str]
    needs: ClassVar[Need] = Need.NOTHING
    every: Schedule = Auto()
    levels: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    cost: ClassVar[float] = 0.0
    bands: ClassVar[Mapping[str, float]] = {}
    level: int = 0

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        if "name" not in vars(cls):
            cls.name = re.sub(
                r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__
            ).lower()

    def __init__(self, *, every: Schedule | int | None = None):
        if every is not None:
            self.every = as_schedule(every)

    def option(self, name: str) -> Any:
        """What the present level says."""
        return self.levels[self.level][name]

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
