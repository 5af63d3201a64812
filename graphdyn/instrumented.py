"""The recorder of one seed of a run: its rows go to the run folder, its state into the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from graphdyn.checkpoint import pack, unpack
from graphdyn.errors import InputError
from graphdyn.instruments import Instrument, Need
from graphdyn.journal import Clock
from graphdyn.parallel import World
from graphdyn.problem import Problem
from graphdyn.record import Record
from graphdyn.recorder import Recorder
from graphdyn.sinks import Row, Sink


class RunSink(Sink):
    """Rows go to a run folder, whose checkpoints count them.

    Attributes:
        record: Where; set before the first row is written.
    """

    record: Record

    def write(self, rows: Sequence[tuple[Clock, Row]]) -> None:
        """See :meth:`Sink.write`."""
        for clock, row in rows:
            self.record.add(clock, row)


class Instrumented:
    """The recorder of a seed, or none.

    Args:
        model: Of the seed.
        optimizer: Over its parameters.
        instruments: What to measure; none: nothing is done at all.
        problem: Makes what is trained; called where an instrument asks for it.
        budget: Share of training time.
        seed: Its number.
        clock: Of the seed.
        world: Rank 0 measures, alone.

    Raises:
        InputError: If instruments draw batches of their own while several ranks train.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        instruments: Sequence[Instrument],
        problem: Callable[[], Problem],
        *,
        budget: float | None,
        seed: int,
        clock: Callable[[], Clock],
        world: World,
    ):
        self.sink, self.recorder = RunSink(), None
        probing = [i for i in instruments if Need.PROBLEM in i.needs]
        if probing and not world.alone:
            names = ", ".join(i.name for i in probing)
            raise InputError(
                f"{names}: these draw batches of their own, which one of {world.size} ranks cannot do alone; "
                "choose --instruments light, or start one process."
            )
        if instruments and world.leads:
            self.recorder = Recorder(
                model,
                optimizer,
                instruments,
                problem=problem() if world.alone else None,
                to=self.sink,
                budget=budget,
                seed=seed,
                clock=clock,
                deferred=True,
            )

    @property
    def seconds(self) -> float:
        """What instruments have taken so far."""
        return self.recorder.budget.spent if self.recorder else 0.0

    def begin(self, record: Record) -> None:
        """Before the first step of this process."""
        if self.recorder:
            self.sink.record = record
            self.recorder.attach()
            self.recorder.settle()

    def step(self, loss: Tensor) -> None:
        """A step has ended."""
        if self.recorder:
            self.recorder.note(loss)
            self.recorder.settle()

    def scored(self, metric: dict[str, float]) -> None:
        """The weights were evaluated."""
        if self.recorder:
            self.recorder.note(scores=metric)

    def end_epoch(self) -> None:
        """An epoch has ended."""
        if self.recorder:
            self.recorder.end_epoch()

    def close(self) -> None:
        """The seed is done, or stops here."""
        if self.recorder:
            self.recorder.close()

    def summary(self) -> dict[str, Any]:
        """What instruments have done: how often each has measured, and why some did not."""
        if not self.recorder:
            return {}
        budget, watches = self.recorder.budget, self.recorder.watches
        return {
            "overhead": budget.overhead,
            "measured": {w.instrument.name: len(w.firings) for w in watches},
            "invalid": {w.instrument.name: w.off for w in watches if w.off},
        }

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """For a checkpoint; rows are with the record afterwards."""
        return pack(self.recorder.state_dict()) if self.recorder else ({}, None)

    def restore(self, tensors: dict[str, Tensor], plain: Any) -> None:
        """Take back what :meth:`state` gave."""
        if self.recorder:
            self.recorder.load_state_dict(unpack(tensors, plain))
