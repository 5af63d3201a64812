"""The one training loop; it yields a read-only view of every step that just happened."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch
from graphdyn.gradient import Loss
from graphdyn.loss import node_loss
from graphdyn.memories.memory import Memory
from graphdyn.parallel import World
from graphdyn.precision import autocast
from graphdyn.regularizers.regularizer import Aim, Objective

NOTHING = Memory()
PLAIN = Objective()


@dataclass(frozen=True, eq=False)
class Step:
    """One optimiser step, after it happened. Read it, do not write to it.

    Gradients of the step are still in ``parameter.grad``; parameters are already the new ones.

    Attributes:
        index: Steps before this one.
        batch: What the step saw, with what a memory pulled; ``batch.key`` says epoch and randomness.
        loss: 0-dim detached tensor on the device, the mean over ranks; reading it with ``float`` waits for
            the device.
        logits: (D, C) detached; (B, C) of the rows of the batch where the objective did not run the model on it.
        hidden: Detached output of each message-passing layer before norm and activation.
        model: The model.
        optimizer: The optimiser.
        seconds: Host time of forward, backward and update; the whole of it on CPU, dispatch on GPU.
        memory_seconds: Host time of the memory, on top of that.
        parts: What the loss is the sum of, by name; detached, of this rank.
    """

    index: int
    batch: Batch
    loss: Tensor
    logits: Tensor
    hidden: tuple[Tensor, ...]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    seconds: float
    memory_seconds: float = 0.0
    parts: dict[str, Tensor] = field(default_factory=dict)


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    memory: Memory = NOTHING,
    loss: Loss = node_loss,
    objective: Objective = PLAIN,
    precision: str = "float32",
    hidden: bool = True,
    first: int = 0,
    world: World = World(),
) -> Iterator[Step]:
    """Train on each batch in turn and yield what happened.

    Nothing runs until the iterator is advanced, and stopping to iterate stops training: the caller decides
    how long, when to evaluate and what to record.

    Args:
        model: Called as ``model(batch, hidden=...)``; returns ``logits`` and ``hidden``.
        batches: From a sampler, or :func:`full_batches`.
        optimizer: Over the model's parameters.
        memory: What outlives a step besides parameters, bound to this model.
        loss: (logits, batch) -> scalar whose expectation is the full-graph loss.
        objective: What is minimised beside it, bound to this model.
        precision: ``"float32"``, or ``"bfloat16"`` for autocast.
        hidden: Whether a step shows the hidden states; without them it needs less memory.
        first: Index of the first step.
        world: Who trains together: gradients are averaged over ranks, after a memory's corrections.

    Yields:
        A :class:`Step` after every update.
    """
    for index, batch in enumerate(batches, start=first):
        # Nothing of the step is kept in a local: a suspended generator would hold its activations
        # while the next step makes its own.
        yield update(
            model,
            batch,
            optimizer,
            memory=memory,
            loss=loss,
            objective=objective,
            precision=precision,
            hidden=hidden,
            index=index,
            world=world,
        )


def update(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    *,
    memory: Memory = NOTHING,
    loss: Loss = node_loss,
    objective: Objective = PLAIN,
    precision: str = "float32",
    hidden: bool = True,
    index: int = 0,
    world: World = World(),
) -> Step:
    """One step: pull, forward, backward, correct, update, push.

    Args:
        model: See :func:`train`, likewise the arguments that follow.
        batch: What to train on.
        optimizer: See ``model``.
        memory: See ``model``.
        loss: See ``model``.
        objective: See ``model``.
        precision: See ``model``.
        hidden: See ``model``.
        index: Steps before this one.
        world: See ``model``.

    Returns:
        What happened.
    """
    clock = _Clock()
    model.train()
    optimizer.zero_grad(set_to_none=True)
    how = {"memory": memory, "loss": loss, "precision": precision, "hidden": hidden}
    batch, aim, value = _differentiate(model, batch, clock, objective=objective, **how)
    value = world.average(model.parameters(), value)
    optimizer.step()
    objective.moved()
    clock.compute()
    if objective.runs(batch):
        memory.push(batch, aim.output)
    clock.memory()
    states = tuple(h.detach() for h in aim.output.hidden) if hidden else ()
    seen = (value, aim.output.logits.detach(), states)
    parts = {name: part.detach() for name, part in aim.parts.items()}
    return Step(index, batch, *seen, model, optimizer, clock.computed, clock.remembered, parts)


def gradient_of_step(
    model: nn.Module,
    batch: Batch,
    *,
    memory: Memory = NOTHING,
    loss: Loss = node_loss,
    objective: Objective = PLAIN,
    precision: str = "float32",
) -> dict[str, Tensor]:
    """What :func:`update` would hand to the optimiser: pull, forward, backward, correct, and no more.

    It writes ``.grad`` and buffers, and a memory may note what it sees: give them back afterwards
    (:func:`graphdyn.isolate.isolated`, :func:`graphdyn.memories.looking.looking`).

    Args:
        model: In the mode that it is in; see :func:`train`, likewise the arguments that follow.
        batch: See ``model``.
        memory: See ``model``.
        loss: See ``model``.
        objective: See ``model``.
        precision: See ``model``.

    Returns:
        One tensor for each parameter that is trained, by name; zeros where the loss does not reach.
    """
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for parameter in own.values():
        parameter.grad = None
    how = {"memory": memory, "loss": loss, "precision": precision, "hidden": False}
    _differentiate(model, batch, _Clock(), objective=objective, **how)
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in own.items()}


def _differentiate(
    model: nn.Module,
    batch: Batch,
    clock: _Clock,
    *,
    memory: Memory,
    loss: Loss,
    objective: Objective,
    precision: str,
    hidden: bool,
) -> tuple[Batch, Aim, Tensor]:
    """Pull, forward, watch, backward, correct; the batch as pulled, what was minimised, its value."""
    runs = objective.runs(batch)
    batch = memory.pull(batch) if runs else batch
    clock.memory()
    with autocast(batch.y.device, precision):
        aim = objective(model, batch, loss, hidden=hidden or memory.hidden)
        value = aim.total
    if runs:
        memory.watch(aim.output)
    value.backward()
    clock.compute()
    if runs:
        memory.correct(batch)
    clock.memory()
    return batch, aim, value.detach()


class _Clock:
    """Who used the time since the last reading."""

    def __init__(self) -> None:
        self.last, self.computed, self.remembered = time.perf_counter(), 0.0, 0.0

    def _lap(self) -> float:
        before, self.last = self.last, time.perf_counter()
        return self.last - before

    def compute(self) -> None:
        self.computed += self._lap()

    def memory(self) -> None:
        self.remembered += self._lap()


def full_batches(batch: Batch, epochs: range) -> Iterator[Batch]:
    """The full graph once an epoch, each time under the key of that epoch.

    Args:
        batch: From :func:`graphdyn.batch.full_batch`.
        epochs: Which epochs, for example ``range(200)``.

    Yields:
        The same batch with ``key.epoch`` and ``key.step`` set.
    """
    for epoch in epochs:
        yield batch.at(batch.key.at(epoch=epoch, step=epoch))
