"""Recorder: instruments on any PyTorch loop, through the hooks of its optimiser.

Every real step of the optimiser is seen exactly once, in any framework: steps that a gradient scaler skips
are none, an accumulated step is one. Nothing that training reads is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.budget import Budget
from graphdyn.errors import InputError
from graphdyn.estimate import Reading
from graphdyn.groups import By, Groups
from graphdyn.heard import Heard, scalar
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.journal import Clock, Event, Metric
from graphdyn.keys import Key
from graphdyn.last_step import LastStep
from graphdyn.optimizer_steps import OptimizerSteps
from graphdyn.problem import Problem
from graphdyn.sinks import FolderSink, Sink
from graphdyn.snapshot import Snapshot
from graphdyn.turns import Turns
from graphdyn.watch import Watch, watches_of


class Recorder:
    """Measure while somebody else trains.

    Use as a context, or call :meth:`attach` and :meth:`close`::

        with gd.Recorder(model, optimizer, [gd.EffectiveLR()], to="runs/mine"):
            train(model, optimizer, loader)

    Args:
        model: What is trained; of ``DistributedDataParallel`` the module inside.
        optimizer: Over its parameters; any subclass of torch's.
        instruments: What to measure; each object serves one recorder.
        problem: What is trained, for instruments that draw batches of their own.
        to: A folder, or a sink; ``None``: rows are kept in memory, in ``recorder.sink.rows``.
        budget: Share of training time that instruments may take at most, for example 0.05; ``None``: they
            measure exactly as their schedules say.
        groups: How parameters are cut, see :class:`graphdyn.Groups`.
        seed: Of the randomness of instruments, which is not that of training.
        clock: Step, epoch, seconds and edges as the loop counts them; by default the recorder's own.
        deferred: Nothing is measured inside ``optimizer.step``; the loop calls :meth:`settle` before the first
            step and after each. For loops that do more of a step after it, and count what they did.
        replay: Steps at which each instrument is to measure, by name, as :attr:`firings` of another run.

    Attributes:
        budget: Time spent so far; ``budget.overhead`` is instrument time over training time.
        step: Optimiser steps seen.
        epoch: Epochs that :meth:`end_epoch` has ended.
        sink: Where rows go.

    Raises:
        InputError: If two instruments have one name, or one needs a problem and there is none.
        RecordError: If the folder cannot be written.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        instruments: Sequence[Instrument],
        *,
        problem: Problem | None = None,
        to: str | Path | Sink | None = None,
        budget: float | None = None,
        groups: By = "layer",
        seed: int = 0,
        clock: Callable[[], Clock] | None = None,
        deferred: bool = False,
        replay: Mapping[str, Iterable[int]] | None = None,
    ):
        self.model = getattr(model, "module", model) if _is_parallel(model) else model
        self.optimizer, self.problem, self.deferred = optimizer, problem, deferred
        self.groups, self.key = Groups(self.model, groups), Key(seed).fold("recorder")
        self.budget, self.step, self.epoch = Budget(budget), 0, 0
        self.watches = watches_of(instruments, problem, replay)
        self.sink = FolderSink(to) if isinstance(to, (str, Path)) else (to or Sink())
        self.symmetry: Any = None
        self._clock, self._own = clock or self._own_clock, clock is None
        self._heard = Heard(self.watches, self.sink, self.budget.now())
        self._turns = Turns(self.watches, self.budget, self.groups, problem)
        self._turn: list[Watch] = []
        micro = any(Need.MICRO in i.needs for i in instruments)
        self._last_step = LastStep(optimizer, self.groups, micro=micro)
        self._steps = OptimizerSteps(optimizer, self._pre, self._post)
        self._started, self._told = False, False

    # ---------------------------------------------------------------------------------- on and off

    def attach(self) -> Recorder:
        """Begin to watch; returns itself.

        Raises:
            InputError: If it is attached.
            RecordError: If the folder holds rows of another run.
        """
        if self._steps.attached:
            raise InputError("the recorder is attached; close it before it is attached again.")
        self.sink.open()
        self.sink.describe(self._about())
        self._steps.attach()
        self._last_step.attach()
        return self

    def close(self, *, finished: bool = True) -> None:
        """Stop to watch, and write what is not written; twice is as good as once.

        Args:
            finished: Whether the record is complete. One that is not can go on from a checkpoint.
        """
        self._steps.detach()
        self._last_step.detach()
        self._heard.write()
        self.sink.close(finished=finished)

    def __enter__(self) -> Recorder:
        return self.attach()

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close(finished=kind is None)

    # ---------------------------------------------------------------------- what the loop may say

    def log(self, *, loss: Tensor | float | None = None, **scores: float) -> None:
        """Record numbers of the loop's own, and let instruments of convergence read them.

        Args:
            loss: Training loss of the last step, so after it; of a tensor nobody waits for the value.
            **scores: Latest evaluations by name, for example ``valid=0.71``.

        Raises:
            InputError: If the loss is more than one number.
        """
        start = self.budget.now()
        if loss is not None:
            # Once a step, so no more than this now; rows are made when they are written.
            loss = scalar(loss)
            at = (self.step, self.epoch, self.budget.trained) if self._own else self._now()
            self._heard.write_later(at, loss)
            self.note(loss)
        if scores:
            self.note(scores=scores)
            clock = self._now()
            for name, value in scores.items():
                self.sink.put(clock, Metric(name, "all", value))
        self.budget.charge(start)

    def note(self, loss: Tensor | None = None, scores: Mapping[str, float] | None = None) -> None:
        """As :meth:`log`, for loops that record these numbers themselves, in tensors that stay as they are."""
        if loss is not None:
            self._heard.note(self.step - 1, loss)
        if scores:
            self._heard.scores.update(scores)

    def mark(self, event: str, text: str = "") -> None:
        """Record that something happened."""
        self.sink.put(self._now(), Event(event, text))

    def end_epoch(self) -> None:
        """An epoch is over: instruments with the schedule :class:`graphdyn.Epoch` measure now.

        Those that look at a step measure the next one.
        """
        self.epoch += 1
        start = self.budget.now()
        self._turn = self._turns.at_end(self.epoch, self.step)
        self._measure()
        self.budget.charge(start)

    def settle(self) -> None:
        """Measure what is due; for loops with ``deferred``."""
        if not self._own:
            self.budget.trained, self.budget.steps = self._clock().seconds, self.step
        if not self._started:
            self._begin()
        elif self.step >= self._turns.next:
            start = self.budget.now()
            self._measure()
            self.budget.charge(start)

    def measure(self, *names: str) -> dict[str, Reading]:
        """Measure now, off schedule and off budget; all instruments unless some are named.

        Raises:
            InputError: If a name is not that of an instrument here.
            Invalid: If a quantity does not exist at this moment.
        """
        known = {w.instrument.name: w for w in self.watches}
        for name in names:
            if name not in known:
                raise InputError(f"no instrument '{name}' here; known: {', '.join(known)}.")
        start = self.budget.now()
        s = self._snapshot()
        try:
            with self._last_step.unheard():
                return {n: known[n].read(s) for n in names or known}
        finally:
            self.symmetry = s.symmetry
            self.budget.leave_out(start)

    @property
    def firings(self) -> dict[str, list[int]]:
        """Steps at which each instrument has measured, by name; ``replay=`` of another run."""
        return {w.instrument.name: list(w.firings) for w in self.watches}

    # ------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, for the loop's own checkpoint: tensors and plain values."""
        start = self.budget.now()
        own = {"step": self.step, "epoch": self.epoch, "started": self._started, "told": self._told}
        parts = {"budget": self.budget.state(), "watches": self._turns.state()}
        state = {**own, **self._heard.state(), **parts, "sink": self.sink.state()}
        self.budget.charge(start)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, before :meth:`attach`; rows written after it are dropped.

        Raises:
            InputError: If the state is that of other instruments.
            RecordError: If the record was closed.
        """
        self._turns.restore(state["watches"])
        self.step, self.epoch = state["step"], state["epoch"]
        self._started, self._told = state["started"], state["told"]
        self.budget.restore(state["budget"])
        self._heard.restore(state)
        self.sink.restore(state["sink"])

    # ----------------------------------------------------------------------------------- the hooks

    def _pre(self, closure: bool) -> None:
        if not self._started:
            self._begin()
        if self.step + 1 < self._turns.next:
            return
        start = self.budget.now()
        self._turn = self._turns.at(self.step + 1, self.step)
        if self._turn:
            update = any(Need.UPDATE in w.instrument.needs for w in self._turn)
            self._last_step.before(weights=update, closure=closure)
        self.budget.charge(start)

    def _post(self, closure: bool) -> None:
        now = self.budget.now()
        if self._own:
            self.budget.step_ended(now)
        self.step += 1
        self._last_step.after(measured=bool(self._turn), closure=closure)
        if self.step >= self._turns.next and not self.deferred:
            self._measure()
        self._heard.flush(now)
        self.budget.charge(now)

    def _begin(self) -> None:
        """At step 0, with the first weights; or where a resumed run stands."""
        self._started = True
        start = self.budget.now()
        self._turn = self._turns.at(self.step, self.step)
        self._measure()
        self.budget.charge(start)

    def _measure(self) -> None:
        """Those whose turn it is; then see whose is next."""
        if self._turn:
            self._tell_modified()
            s = self._snapshot()
            with self._last_step.unheard():
                for watch in self._turn:
                    watch.fired(self.step)
                    self._take(watch, s)
            self._turn = []
            self._last_step.forget()
            self._turns.plan()
            self._heard.trim()
        self._turns.settle()

    def _tell_modified(self) -> None:
        if self._last_step.modified and not self._told:
            self._told = True
            text = "somebody wrote to gradients between backward pass and step (clipping, a scaler, a memory)"
            self.mark(
                "gradients modified", f"{text}; instruments see them as the optimiser used them."
            )

    def _take(self, watch: Watch, s: Snapshot) -> None:
        clock, start = self._now(), self.budget.now()
        for row in watch.rows(s, self._heard.losses):
            self.sink.put(clock, row)
        if s.symmetry is not None:
            self._turns.found_symmetry(self.step)
        self.symmetry = s.symmetry
        watch.took(self.budget.now() - start)

    def _snapshot(self) -> Snapshot:
        clock = self._now()
        return Snapshot(
            step=self.step,
            epoch=clock.epoch,
            model=self.model,
            optimizer=self.optimizer,
            groups=self.groups,
            problem=self.problem,
            key=self.key.at(step=self.step),
            counters={n: float(getattr(clock, n)) for n in ("seconds", "edges", "bytes")},
            scores=dict(self._heard.scores),
            symmetry=self.symmetry,
            **self._last_step.fields(),
        )

    # ----------------------------------------------------------------------------------- the rest

    def _about(self) -> dict[str, Any]:
        """How the rows are measured, for whoever finds them."""
        instruments = {w.instrument.name: repr(w.schedule) for w in self.watches}
        return {
            "model": type(self.model).__name__,
            "optimizer": type(self.optimizer).__name__,
            "options": {
                n: {k: str(v) for k, v in o.items()} for n, o in self._last_step.options().items()
            },
            "groups": {name: list(members) for name, members in self.groups.members.items()},
            "instruments": instruments,
            "budget": self.budget.share,
            "device": str(next(iter(self.groups.parameters.values())).device),
            "torch": torch.__version__,
        }

    def _now(self) -> Clock:
        return replace(self._clock(), step=self.step)

    def _own_clock(self) -> Clock:
        return Clock(0, self.step, self.epoch, self.budget.trained, 0)


def _is_parallel(model: nn.Module) -> bool:
    return isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel))
