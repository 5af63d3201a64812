"""Memory: what outlives a step besides parameters. Bound to a model it has four verbs, called in order.

``pull`` before the forward pass, ``watch`` between forward and backward, ``correct`` between backward
and update, ``push`` after the update. :mod:`graphdyn.step` alone calls them. Models know nothing of a
memory: what was remembered is data in the batch (:class:`graphdyn.batch.Border`, ``Block.offset``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from graphdyn.batch import Batch
from graphdyn.checkpoint import below, prefixed
from graphdyn.gradient import Loss
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.loss import node_loss
from graphdyn.models.output import Output
from graphdyn.parallel import World
from graphdyn.samplers import Plans, Sampler


class Setting(NamedTuple):
    """What a memory is bound to.

    Attributes:
        model: The model that is trained; a memory reads its parameters and never writes them.
        graph: With features and labels.
        plans: The prepared sampler that the batches come from, as :meth:`MemoryRecipe.wrap` made it.
        key: Of the run; fold in what a draw is for.
        nodes: (T,) nodes whose loss counts; ``None``: the training split.
        loss: As in training.
        precision: As in training.
        world: Who trains together.
    """

    model: Any
    graph: Graph
    plans: Plans
    key: Key = Key(0)
    nodes: Tensor | None = None
    loss: Loss = node_loss
    precision: str = "float32"
    world: World = World()

    @property
    def pool(self) -> Tensor:
        """(T,) nodes whose loss counts."""
        if self.nodes is not None:
            return self.nodes
        assert self.graph.split is not None
        return self.graph.split.train


class MemoryRecipe(ABC):
    """How to remember. Subclasses are frozen dataclasses of plain values.

    Attributes:
        parallel: Whether several ranks remember the same, and the mean of what they correct is right.
            Every class says so for itself.
        regularized: Whether a step may minimise more than the loss of its batch, or, now and then, something
            else; likewise.
    """

    parallel: ClassVar[bool] = False
    regularized: ClassVar[bool] = False

    def wrap(self, sampler: Sampler) -> Sampler:
        """The sampler whose plans have room for what is remembered; by default the same.

        Raises:
            InputError: If the memory is not defined for the sampler.
        """
        return sampler

    def check(self, model: nn.Module) -> None:
        """Raise :class:`graphdyn.errors.InputError` if the memory is not valid for the model."""
        del model

    def declare(self, model: Any, graph: Graph) -> int:
        """Bytes that the bound memory will hold, known before anything is allocated."""
        return 0

    @abstractmethod
    def bind(self, setting: Setting) -> Memory:
        """The memory of one run; allocates what :meth:`declare` said."""


class Memory:
    """Remembers nothing; the base of all memories.

    Attributes:
        hidden: Whether :meth:`watch` or :meth:`push` read ``Output.hidden``.
    """

    hidden: bool = False

    def start(self) -> None:
        """Before the first step of a run; not when it is resumed."""

    def pull(self, batch: Batch) -> Batch:
        """The batch with what is remembered; the model is in training mode."""
        return batch

    def look(self, batch: Batch) -> Batch:
        """The batch with what is remembered, for a pass that only reads: nothing is noted."""
        return batch

    def watch(self, output: Output) -> None:
        """Ask autograd for what :meth:`push` wants to read of the output."""

    def correct(self, batch: Batch) -> None:
        """Change ``parameter.grad`` in place. The batch is that of :meth:`pull`."""

    def push(self, batch: Batch, output: Output) -> None:
        """Remember the step. Parameters are already the new ones, the output is that of the old."""

    def report(self) -> dict[str, float]:
        """What the memory did since the last call, for the run folder's metrics."""
        return {}

    def state(self) -> dict[str, Tensor]:
        """Everything that a resumed run needs, by name; the tensors themselves, not copies."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""


class Memories(Memory):
    """Several memories as one: verbs in the order given, so the last one corrects what the others left.

    Args:
        members: Bound memories.
    """

    def __init__(self, members: Sequence[Memory]):
        self.members = tuple(members)
        self.hidden = any(m.hidden for m in members)

    def start(self) -> None:
        """See :meth:`Memory.start`."""
        for member in self.members:
            member.start()

    def pull(self, batch: Batch) -> Batch:
        """See :meth:`Memory.pull`."""
        for member in self.members:
            batch = member.pull(batch)
        return batch

    def look(self, batch: Batch) -> Batch:
        """See :meth:`Memory.look`."""
        for member in self.members:
            batch = member.look(batch)
        return batch

    def watch(self, output: Output) -> None:
        """See :meth:`Memory.watch`."""
        for member in self.members:
            member.watch(output)

    def correct(self, batch: Batch) -> None:
        """See :meth:`Memory.correct`."""
        for member in self.members:
            member.correct(batch)

    def push(self, batch: Batch, output: Output) -> None:
        """See :meth:`Memory.push`."""
        for member in self.members:
            member.push(batch, output)

    def report(self) -> dict[str, float]:
        """See :meth:`Memory.report`."""
        return {name: value for m in self.members for name, value in m.report().items()}

    def state(self) -> dict[str, Tensor]:
        """See :meth:`Memory.state`."""
        parts = [prefixed(str(i), m.state()) for i, m in enumerate(self.members)]
        return {name: t for part in parts for name, t in part.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See :meth:`Memory.restore`."""
        for i, member in enumerate(self.members):
            member.restore(below(str(i), dict(state)))
