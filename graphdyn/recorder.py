"""Recorder: instruments on any PyTorch loop, through the hooks of its optimiser.

Every real step of the optimiser is seen exactly once, in any framework: steps that a gradient scaler skips
are none, an accumulated step is one. Nothing that training reads is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.budget import Budget
from graphdyn.errors import InputError
from graphdyn.estimate import Invalid, Reading
from graphdyn.groups import By, Groups
from graphdyn.heard import Heard, scalar
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.journal import Clock, Event, Metric
from graphdyn.keys import Key
from graphdyn.micro import MicroBatches
from graphdyn.optimizer_steps import OptimizerSteps
from graphdyn.problem import Problem
from graphdyn.readings import gaps_of, rows_of
from graphdyn.sinks import FolderSink, Sink
from graphdyn.snapshot import Snapshot
from graphdyn.touched import Touched
from graphdyn.turns import Turns
from graphdyn.watch import Watch

FLUSH_SECONDS, FLUSH_ROWS = 10.0, 4096


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
        self.watches = [
            Watch(i, None if replay is None else replay.get(i.name, ())) for i in instruments
        ]
        _check(self.watches, problem)
        self.sink = FolderSink(to) if isinstance(to, (str, Path)) else (to or Sink())
        self.symmetry: Any = None
        self._clock, self._own = clock or self._own_clock, clock is None
        self._scores: dict[str, float] = {}
        self._heard, self._turns = (
            Heard(self.watches),
            Turns(self.watches, self.budget, self.groups, problem),
        )
        self._turn: list[Watch] = []
        self._before: Tensor | None = None
        self._settings: dict[str, dict[str, Any]] = {}
        self._touched = Touched(self.groups)
        self._modified: bool | None = None
        self._handed: Tensor | None = None
        self._scale: Tensor | None = None  # what a scaler leaves to the optimiser to divide by
        self._squares: Tensor | None = None  # of the micro-batches of the last step
        self._factor: Tensor | float = 1.0  # and what was done to them on the way to the optimiser
        self._steps = OptimizerSteps(optimizer, self._pre, self._post)
        self._micro = MicroBatches(self.groups) if self._reads(Need.MICRO) else None
        self._last: float | None = None  # end of the last step
        self._inside = 0.0  # instrument time since then
        self._flushed = time.perf_counter()
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
        self._touched.attach()
        if self._micro is not None:
            self._micro.attach()
        return self

    def close(self, *, finished: bool = True) -> None:
        """Stop to watch, and write what is not written; twice is as good as once.

        Args:
            finished: Whether the record is complete. One that is not can go on from a checkpoint.
        """
        self._steps.detach()
        self._touched.detach()
        if self._micro is not None:
            self._micro.detach()
        self._heard.write(self.sink)
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
        start = time.perf_counter()
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
        self._charge(start)

    def note(self, loss: Tensor | None = None, scores: Mapping[str, float] | None = None) -> None:
        """As :meth:`log`, for loops that record these numbers themselves, in tensors that stay as they are."""
        if loss is not None:
            self._heard.note(self.step - 1, loss)
        if scores:
            self._scores.update(scores)

    def mark(self, event: str, text: str = "") -> None:
        """Record that something happened."""
        self.sink.put(self._now(), Event(event, text))

    def end_epoch(self) -> None:
        """An epoch is over: instruments with the schedule :class:`graphdyn.Epoch` measure now.

        Those that look at a step measure the next one.
        """
        self.epoch += 1
        start = time.perf_counter()
        self._turn = self._turns.at_end(self.epoch, self.step)
        self._measure()
        self._charge(start)

    def settle(self) -> None:
        """Measure what is due; for loops with ``deferred``."""
        if not self._own:
            self.budget.trained, self.budget.steps = self._clock().seconds, self.step
        if not self._started:
            self._begin()
        elif self.step >= self._turns.next:
            start = time.perf_counter()
            self._measure()
            self._charge(start)

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
        start = time.perf_counter()
        s = self._snapshot()
        try:
            with self._unheard():
                return {n: known[n].read(s) for n in names or known}
        finally:
            self.symmetry = s.symmetry
            self._inside += time.perf_counter() - start

    @property
    def firings(self) -> dict[str, list[int]]:
        """Steps at which each instrument has measured, by name; ``replay=`` of another run."""
        return {w.instrument.name: list(w.firings) for w in self.watches}

    # ------------------------------------------------------------------------------------- resume

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, for the loop's own checkpoint: tensors and plain values."""
        start = time.perf_counter()
        own = {"step": self.step, "epoch": self.epoch, "started": self._started, "told": self._told}
        spent = {n: getattr(self.budget, n) for n in ("trained", "spent", "steps")}
        watches = {w.instrument.name: w.state() for w in self.watches}
        rest = {"losses": list(self._heard.losses), "scores": dict(self._scores)}
        self._heard.write(self.sink)
        state = {**own, **rest, "budget": spent, "watches": watches, "sink": self.sink.state()}
        self._charge(start)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, before :meth:`attach`; rows written after it are dropped.

        Raises:
            InputError: If the state is that of other instruments.
            RecordError: If the record was closed.
        """
        names = [w.instrument.name for w in self.watches]
        if sorted(names) != sorted(state["watches"]):
            raise InputError(
                f"the checkpoint is of the instruments {', '.join(state['watches'])}, and here are "
                f"{', '.join(names)}; give the recorder the same ones."
            )
        self.step, self.epoch, self._started = state["step"], state["epoch"], state["started"]
        for name, value in state["budget"].items():
            setattr(self.budget, name, value)
        self._told = state["told"]
        self._heard.losses = [(step, loss) for step, loss in state["losses"]]
        self._scores = dict(state["scores"])
        for watch in self.watches:
            watch.restore(state["watches"][watch.instrument.name])
        self.sink.restore(state["sink"])
        self._turns.settle()

    # ----------------------------------------------------------------------------------- the hooks

    def _pre(self, closure: bool) -> None:
        if not self._started:
            self._begin()
        if self.step + 1 < self._turns.next:
            return
        start = time.perf_counter()
        self._turn = self._turns.at(self.step + 1, self.step)
        if self._turn:
            _refuse_capture()
            self._settings = self._options()
            self._scale = getattr(self.optimizer, "grad_scale", None)
            if any(Need.UPDATE in w.instrument.needs for w in self._turn):
                self._before = self.groups.weights()
            if not closure:
                self._gradients_now()
        self._charge(start)

    def _gradients_now(self) -> None:
        """As the optimiser gets them: some write to them as they step, fused ones what a scaler left to them."""
        self._modified = self._touched.modified()
        self._factor = 1.0 if self._micro is None else self._micro.factor()
        if self._scale is not None:
            self._factor = self._factor / self._scale.double()
        if self._before is not None:
            grad = self.groups.grads()
            self._handed = grad if self._scale is None else grad / self._scale

    def _post(self, closure: bool) -> None:
        now = time.perf_counter()
        if self._last is not None and self._own:
            self.budget.train(now - self._last - self._inside)
        self._inside = 0.0
        self.step += 1
        self._squares = None if self._micro is None else self._micro.take()
        if self._turn and closure:
            self._gradients_now()
        if self._turn and self._squares is not None:
            self._squares = self._squares * self._factor**2
        if self.step >= self._turns.next and not self.deferred:
            self._measure()
        rows = self.sink.waiting + self._heard.waiting
        if rows >= FLUSH_ROWS or now - self._flushed > FLUSH_SECONDS:
            self._heard.write(self.sink)
            self.sink.flush()
            self._flushed = now
        self._charge(now)
        self._last, self._inside = time.perf_counter(), 0.0

    def _begin(self) -> None:
        """At step 0, with the first weights; or where a resumed run stands."""
        self._started = True
        start = time.perf_counter()
        self._turn = self._turns.at(self.step, self.step)
        self._measure()
        self._charge(start)

    def _measure(self) -> None:
        """Those whose turn it is; then see whose is next."""
        if self._turn:
            self._tell_modified()
            s = self._snapshot()
            with self._unheard():
                for watch in self._turn:
                    watch.fired(self.step)
                    self._take(watch, s)
            self._turn, self._before, self._handed = [], None, None
            self._settings, self._scale, self._modified = {}, None, None
            self._turns.plan()
            self._heard.trim()
        self._turns.settle()

    def _tell_modified(self) -> None:
        if self._modified and not self._told:
            self._told = True
            text = "somebody wrote to gradients between backward pass and step (clipping, a scaler, a memory)"
            self.mark(
                "gradients modified", f"{text}; instruments see them as the optimiser used them."
            )

    def _take(self, watch: Watch, s: Snapshot) -> None:
        clock, start = self._now(), time.perf_counter()
        if Need.LOSSES in watch.instrument.needs:
            s.losses = watch.since(self._heard.losses)
        reading: Reading
        try:
            reading = watch.read(s)
        except Invalid as reason:
            reading = {"": reason}
        for row in rows_of(watch.instrument, reading):
            self.sink.put(clock, row)
        for name, reason in gaps_of(watch.instrument, reading):
            if watch.refused(f"{name}: {reason}"):
                self.sink.put(clock, Event(f"{name} invalid", reason))
        if s.symmetry is not None:
            self._turns.found_symmetry(self.step)
        self.symmetry = s.symmetry
        watch.took(time.perf_counter() - start)

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
            settings=self._settings or self._options(),
            before=self._before,
            handed=self._handed,
            modified=self._modified,
            micro=self._squares,
            counters={
                "seconds": clock.seconds,
                "edges": float(clock.edges),
                "bytes": float(clock.bytes),
            },
            scores=dict(self._scores),
            symmetry=self.symmetry,
        )

    # ---------------------------------------------------------------------------------------- time

    def _charge(self, start: float) -> None:
        took = time.perf_counter() - start
        self.budget.spent += took
        self._inside += took

    # ----------------------------------------------------------------------------------- the rest

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        """Inside, backward passes are those of instruments, which nobody counts."""
        ears = (self._touched, *([] if self._micro is None else [self._micro]))
        for ear in ears:
            ear.paused = True
        try:
            yield
        finally:
            for ear in ears:
                ear.paused = False

    def _options(self) -> dict[str, dict[str, Any]]:
        """The optimiser's options in force, by group; those of its first parameter speak for a group."""
        kind = type(self.optimizer).__name__
        of = {id(p): g for g in self.optimizer.param_groups for p in g["params"]}
        found: dict[str, dict[str, Any]] = {}
        for name, members in self.groups.members.items():
            options = of.get(id(self.groups.parameters[members[0]]), {})
            found[name] = {"optimizer": kind, **{k: v for k, v in options.items() if k != "params"}}
        return found

    def _about(self) -> dict[str, Any]:
        """How the rows are measured, for whoever finds them."""
        instruments = {w.instrument.name: repr(w.schedule) for w in self.watches}
        return {
            "model": type(self.model).__name__,
            "optimizer": type(self.optimizer).__name__,
            "options": {n: {k: str(v) for k, v in o.items()} for n, o in self._options().items()},
            "groups": {name: list(members) for name, members in self.groups.members.items()},
            "instruments": instruments,
            "budget": self.budget.share,
            "device": str(next(iter(self.groups.parameters.values())).device),
            "torch": torch.__version__,
        }

    def _reads(self, need: Need) -> bool:
        return any(need in w.instrument.needs for w in self.watches)

    def _now(self) -> Clock:
        return replace(self._clock(), step=self.step)

    def _own_clock(self) -> Clock:
        return Clock(0, self.step, self.epoch, self.budget.trained, 0)


def _check(watches: list[Watch], problem: Problem | None) -> None:
    names = [w.instrument.name for w in watches]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two instruments are called '{name}'; give one a name= of its own in a subclass."
            )
    for watch in watches:
        if problem is None and Need.PROBLEM in watch.instrument.needs:
            raise InputError(
                f"{type(watch.instrument).__name__} draws batches of its own; give the recorder problem=, "
                "which says what is trained."
            )


def _is_parallel(model: nn.Module) -> bool:
    return isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel))


def _refuse_capture() -> None:
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise InputError(
            "the optimiser steps inside a CUDA graph that is being captured, where nothing can be read; "
            "attach the recorder after the capture."
        )
