"""Problem: what is trained, so that instruments can ask for gradients that training did not take.

Three gradients matter. With S the targets of a step and w everything else that is drawn (neighbours, what a
memory holds): ``g(S, w)``, what the optimiser sees; ``g(S)``, of the same targets with exact neighbourhoods;
and that of all targets, exact. All at the model's present weights and in its present mode.
Shapes: T targets of the whole problem, b of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.estimate import Invalid
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.samplers import Simple
from graphdyn.sight import (
    Call,
    Normed,
    Sight,
    Unit,
    batch_norms,
    layers_of,
)


@dataclass
class Trace:
    """One forward pass, open for differentiation.

    Attributes:
        loss: Scalar, as in training.
        losses: (b,) of each target, neither weighted nor reduced; ``None`` where nobody knows them.
        logits: (b, C) of the targets; ``None`` where nobody knows them.
        states: Output of each message-passing layer before norm and activation, (>= D_l, F_l), by name in the
            order of the flow; part of the graph that leads to ``loss``.
        nodes: (D_l,) global ids of the first rows of each state; rows behind them reach no target. ``None``:
            all nodes, in order.
        targets: (b,) global ids of the targets; ``None`` where nobody knows them.
        calls: Of these layers, where they can be called again.
        sources: (S_l,) global ids of the first rows that each call reads; rows behind them are remembered.
            ``None``: all nodes, in order. Calls that read other features than the graph's are not here.
        units: Activations behind them, by the layer's name.
        normed: What batch norms with running statistics read.
    """

    loss: Tensor
    losses: Tensor | None
    logits: Tensor | None
    states: dict[str, Tensor] = field(default_factory=dict)
    nodes: dict[str, Tensor | None] = field(default_factory=dict)
    targets: Tensor | None = None
    calls: dict[str, Call] = field(default_factory=dict)
    sources: dict[str, Tensor | None] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    normed: dict[str, Normed] = field(default_factory=dict)

    def cut(self, name: str, rows: Tensor) -> Tensor:
        """The first rows of something that belongs to a layer: those that have a node."""
        nodes = self.nodes[name]
        return rows if nodes is None else rows[: nodes.numel()]


class Problem(ABC):
    """Batches by key, and their loss. Draws under different keys are independent.

    Attributes:
        num_targets: T.
        batch_size: Mean number of targets a step, b.
        graph: The graph; ``None`` for problems without one.
        num_hops: Message-passing layers of the model.
        simple: How targets are drawn, where they are a uniform sample with equal weights, see
            :class:`graphdyn.samplers.Simple`; ``None``: otherwise, or nobody said.
        parts: Names of what a step may minimise, the loss of its batch among them.
    """

    num_targets: int
    batch_size: float
    graph: Graph | None = None
    num_hops: int = 0
    simple: Simple | None = None
    parts: tuple[str, ...] = ("supervised",)

    @abstractmethod
    def draw(self, key: Key) -> Any:
        """A batch as training would see one."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The scalar that training differentiates."""

    def redraw(self, batch: Any, key: Key) -> Any:
        """The same targets with the same weights, everything else drawn anew.

        Raises:
            Invalid: Where targets cannot be held while neighbours are drawn.
        """
        raise Invalid(f"{type(self).__name__} cannot draw neighbours anew for the same targets.")

    def exact(self, batch: Any) -> Any:
        """The same targets with the same weights and exact neighbourhoods.

        Raises:
            Invalid: Where nobody knows them.
        """
        raise Invalid(f"{type(self).__name__} does not know exact neighbourhoods.")

    def full(self, key: Key) -> Iterator[Any]:
        """Exact batches that cover all targets once; their losses sum to that of the whole problem.

        Raises:
            Invalid: Where nobody knows them.
        """
        raise Invalid(f"{type(self).__name__} does not know all targets.")

    def targets(self, batch: Any) -> tuple[Tensor, Tensor]:
        """(b,) ids of the targets and (b,) their weights in the loss.

        Raises:
            Invalid: Where nobody knows them.
        """
        raise Invalid(f"{type(self).__name__} does not say which targets a batch has.")

    def gradient(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Derivative of the loss of a batch, one tensor a trained parameter; call it isolated."""
        return gradients_of(self.loss(model, batch), model)

    def step_gradient(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """What the optimiser would see of a batch that was drawn, with all that a memory adds and corrects."""
        return self.gradient(model, batch)

    def part_gradients(self, model: nn.Module, batch: Any) -> dict[str, dict[str, Tensor]]:
        """Derivatives of all :attr:`parts` of what was drawn, by name; call it isolated."""
        return {self.parts[0]: self.gradient(model, batch)}

    def trace(self, model: nn.Module, batch: Any) -> Trace:
        """A forward pass with what lies between the layers; call it isolated.

        Raises:
            Invalid: Where the model does not show its layers.
        """
        raise Invalid(f"{type(self).__name__} does not show the layers of its model.")

    def step_trace(self, model: nn.Module, batch: Any) -> Trace:
        """As :meth:`trace`, of a batch that was drawn, with all that a memory adds."""
        return self.trace(model, batch)

    def whole(self, batch: Any) -> Any:
        """The whole graph at once, under the dropout masks of a batch.

        Raises:
            Invalid: Where it does not fit, or there is none.
        """
        raise Invalid(f"{type(self).__name__} does not know the whole graph.")

    def full_steps(self) -> float:
        """About how many gradients of a batch a gradient of all targets takes."""
        return max(1.0, self.num_targets / self.batch_size)

    def toy(self, key: Key) -> Callable[[nn.Module], Tensor]:
        """From a float64 copy of the model on CPU to its loss on a few random data of the same widths.

        Labels are random, nothing is dropped, and equal keys give the same function: what
        :func:`graphdyn.symmetry.find_symmetry` varies weights on.

        Raises:
            Invalid: Where nobody knows what such data look like.
        """
        raise Invalid(f"{type(self).__name__} cannot make small data of its own.")


def gradients_of(value: Tensor, model: nn.Module, *, more: bool = False) -> dict[str, Tensor]:
    """Derivative of a scalar, one tensor a trained parameter; 0 where it does not reach.

    Args:
        value: That depends on the model.
        model: Gives parameters.
        more: Whether the pass that led to it is differentiated again.
    """
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(value, [*own.values()], allow_unused=True, retain_graph=more)
    return {
        n: torch.zeros_like(p) if g is None else g.detach() for (n, p), g in zip(own.items(), found)
    }


class FunctionProblem(Problem):
    """Any model and any data.

    Args:
        loss: (model, batch) -> scalar.
        draw: Key -> batch.
        num_targets: T.
        batch_size: b.
        exact: batch -> the same targets, exact.
        full: () -> batches that cover all targets once, weighted so that their losses sum to the whole.
        layers: Names of the modules whose outputs are the states of the model; by default PyG's layers.
        simple: See :class:`Problem`; noise of one target is measured where it is given.
    """

    def __init__(
        self,
        loss: Callable[[nn.Module, Any], Tensor],
        draw: Callable[[Key], Any],
        *,
        num_targets: int,
        batch_size: float,
        exact: Callable[[Any], Any] | None = None,
        full: Callable[[], Iterator[Any]] | None = None,
        layers: Sequence[str] | None = None,
        simple: Simple | None = None,
    ):
        self._loss, self._draw, self._exact, self._full = loss, draw, exact, full
        self.layers, self.simple = layers, simple
        self.num_targets, self.batch_size = num_targets, batch_size

    def draw(self, key: Key) -> Any:
        """See :meth:`Problem.draw`."""
        return self._draw(key)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """See :meth:`Problem.loss`."""
        return self._loss(model, batch)

    def exact(self, batch: Any) -> Any:
        """See :meth:`Problem.exact`; without ``exact=`` a batch is exact as it is drawn."""
        return batch if self._exact is None else self._exact(batch)

    def full(self, key: Key) -> Iterator[Any]:
        """See :meth:`Problem.full`."""
        return super().full(key) if self._full is None else iter(self._full())

    def trace(self, model: nn.Module, batch: Any) -> Trace:
        """See :meth:`Problem.trace`; rows have no ids, logits are not known."""
        with Sight(layers_of(model, self.layers), batch_norms(model)) as sight:
            loss = self._loss(model, batch)
        return Trace(loss, None, None, **seen(sight))

    def toy(self, key: Key) -> Callable[[nn.Module], Tensor]:
        """See :meth:`Problem.toy`; a batch as drawn, in float64."""
        batch = _double(self._draw(key))
        return lambda model: self._loss(model, batch)


def seen(sight: Sight) -> dict[str, Any]:
    """What a look at a model's layers says of a trace; rows have no ids."""
    states = {name: call.output for name, call in sight.calls.items()}
    ids = dict.fromkeys(states)
    own = {"calls": sight.calls, "units": sight.units, "normed": sight.normed}
    return {"states": states, "nodes": ids, **own}


def _double(data: Any) -> Any:
    """Floating tensors in (nested) tuples, lists, mappings and dataclasses as float64 on CPU."""
    if isinstance(data, Tensor):
        return data.detach().cpu().double() if data.is_floating_point() else data.cpu()
    if isinstance(data, Mapping):
        return {k: _double(v) for k, v in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(_double, data))
    if isinstance(data, tuple | list):
        return type(data)(map(_double, data))
    if is_dataclass(data) and not isinstance(data, type):
        return replace(
            data, **{f.name: _double(getattr(data, f.name)) for f in fields(data) if f.init}
        )
    return data
