"""Regularizer: what a step minimises beside the loss of its batch.

A recipe of plain values; bound to a model it is an :class:`Objective`, which :mod:`graphdyn.step` alone asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from graphdyn.batch import Batch
from graphdyn.gradient import Loss
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.memories.memory import Memory, Setting
from graphdyn.models.output import Output
from graphdyn.parallel import World
from graphdyn.presets import Method, Prepared
from graphdyn.regularizers.unlabelled import Prepare, Spent
from graphdyn.samplers import Full, Plans


class Aim(NamedTuple):
    """What one step minimises.

    Attributes:
        parts: Scalars by name, weighted so that their sum is what is differentiated.
        output: What the model said about the batch; where it was not run on it, logits of the rows of the
            batch from elsewhere, and no hidden states.
    """

    parts: dict[str, Tensor]
    output: Output

    @property
    def total(self) -> Tensor:
        """The sum of the parts."""
        first, *rest = self.parts.values()
        return sum(rest, first)


class Objective:
    """The loss of the batch and nothing else; the base of all objectives.

    Attributes:
        names: Of all parts that there may be; a step may have some of them.
        spent: What was used beside the batches, since the run began in this process.
    """

    names: tuple[str, ...] = ("supervised",)

    def __init__(self) -> None:
        self.spent = Spent()

    def runs(self, batch: Batch) -> bool:
        """Whether a step on this batch runs the model on it; otherwise memories take no part in it."""
        return True

    def __call__(self, model: nn.Module, batch: Batch, loss: Loss, *, hidden: bool) -> Aim:
        """What a step on this batch minimises.

        Args:
            model: In training mode.
            batch: As a memory has pulled it.
            loss: (logits, batch) -> scalar.
            hidden: Return the hidden states of the model.
        """
        output = model(batch, hidden=hidden)
        return Aim({"supervised": loss(output.logits, batch)}, output)

    def every(self, model: nn.Module, batch: Batch, loss: Loss) -> dict[str, Tensor]:
        """All parts of a batch by name, weighted as now, whichever of them a step would take."""
        return self(model, batch, loss, hidden=False).parts

    def at(self, epoch: int) -> Objective:
        """The same, weighted as in that epoch, whatever epoch a batch is of; for looking, not for training."""
        return self

    def moved(self) -> None:
        """The optimiser has just changed the weights."""

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Inside, the model has the weights that are evaluated and kept."""
        yield

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by name; the tensors themselves, not copies."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""


class Regularizer(ABC):
    """What to minimise beside the loss. Subclasses are frozen dataclasses of plain values."""

    @abstractmethod
    def check(self, model: Any, method: Method, graph: Graph, world: World = World()) -> None:
        """Raise :class:`graphdyn.errors.InputError` if it is not defined for these."""

    def objective(
        self,
        model: Any,
        graph: Graph,
        prepared: Prepared,
        method: Method = Method(Full()),
        *,
        key: Key = Key(0),
    ) -> Objective:
        """For a training loop of one's own.

        Args:
            model: That is trained.
            graph: With features, labels and a split.
            prepared: By the method, for this model and graph.
            method: Sampler and memories; by default the whole graph.
            key: Of the run.

        Returns:
            For :func:`graphdyn.step.train`.

        Raises:
            InputError: If it is not defined for these.
        """
        self.check(model, method, graph)

        def prepare(nodes: Tensor) -> Plans:
            sampler = method.at_most(nodes.numel()).wrapped
            return sampler.prepare(graph, model.propagation, model.num_hops, nodes=nodes, key=key)

        setting = Setting(model, graph, prepared.plans, key)
        return self.bind(setting, prepared.memory, method, prepare)

    @abstractmethod
    def bind(self, setting: Setting, memory: Memory, method: Method, prepare: Prepare) -> Objective:
        """The objective of one run.

        Args:
            setting: What memories are bound to, too.
            memory: Bound.
            method: Of the run.
            prepare: Makes plans for other nodes than those of training.

        Raises:
            InputError: If it is not defined for plans like these.
        """
