"""When an instrument measures: a function of the number of optimiser steps done."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from graphdyn.errors import InputError

NEVER = 1 << 62


class Schedule(ABC):
    """Steps at which to measure. 0 is before the first step."""

    @abstractmethod
    def after(self, step: int) -> int:
        """The first step at which to measure that is greater than ``step``; :data:`NEVER` if none is."""


@dataclass(frozen=True)
class Every(Schedule):
    """At multiples of ``steps``, 0 among them."""

    steps: int = 1

    def __post_init__(self) -> None:
        _at_least("Every", self.steps, 1)

    def after(self, step: int) -> int:
        """See :meth:`Schedule.after`."""
        return (step // self.steps + 1) * self.steps


class At(Schedule):
    """At these steps.

    Args:
        steps: Any order.
    """

    def __init__(self, steps: Iterable[int]):
        self.steps = sorted(set(steps))
        _at_least("At", min(self.steps, default=0), 0)

    def after(self, step: int) -> int:
        """See :meth:`Schedule.after`."""
        place = bisect_right(self.steps, step)
        return self.steps[place] if place < len(self.steps) else NEVER


class LogSpaced(At):
    """At 0 and 1, then equally often in every decade.

    Args:
        per_decade: How often.
        most: The last step that may be asked for.
    """

    def __init__(self, per_decade: int = 10, most: int = 10**8):
        _at_least("LogSpaced", per_decade, 1)
        powers, value = [0], 1.0
        while value <= most:
            powers.append(round(value))
            value *= 10 ** (1 / per_decade)
        super().__init__(powers)


@dataclass(frozen=True)
class Epoch(Schedule):
    """At the end of every so many epochs; the loop says where they end, see :meth:`Recorder.end_epoch`."""

    epochs: int = 1

    def __post_init__(self) -> None:
        _at_least("Epoch", self.epochs, 1)

    def after(self, step: int) -> int:
        """Never by itself."""
        return NEVER


@dataclass(frozen=True)
class When(Schedule):
    """At the steps for which a function says so; it is asked about every step.

    Attributes:
        wanted: From the number of steps done to yes or no.
    """

    wanted: Callable[[int], bool]

    def after(self, step: int) -> int:
        """The next step, which :meth:`wants` may then refuse."""
        return step + 1

    def wants(self, step: int) -> bool:
        """Whether to measure at this step."""
        return self.wanted(step)


@dataclass(frozen=True)
class Auto(Schedule):
    """As often as the budget allows, see :mod:`graphdyn.budget`; without one, as :class:`Every`.

    Attributes:
        steps: Between two measurements where there is no budget.
        weight: How much a measurement is worth beside those of other instruments.
        least: Fewest steps between two measurements under a budget.
        most: Most of them; a cheaper level of fidelity is taken before more would be needed.
    """

    steps: int = 100
    weight: float = 1.0
    least: int = 1
    most: int = 5000

    def __post_init__(self) -> None:
        _at_least("Auto", min(self.steps, self.least), 1)
        _at_least("most of Auto", self.most, self.least)
        if not self.weight > 0:
            raise InputError(f"the weight of Auto is {self.weight}; it must be positive.")

    def after(self, step: int) -> int:
        """See :meth:`Schedule.after`; without a budget."""
        return (step // self.steps + 1) * self.steps


def as_schedule(every: Schedule | int) -> Schedule:
    """A number stands for :class:`Every`.

    Raises:
        InputError: If it is neither.
    """
    if isinstance(every, Schedule):
        return every
    if not isinstance(every, int):
        raise InputError(f"every is {every!r}; expected a number of steps, or a schedule.")
    return Every(every)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"{name} got {value}; it must be at least {least}.")
