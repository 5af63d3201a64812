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
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch, Plan, full_batch
from graphdyn.estimate import Invalid
from graphdyn.gradient import Loss
from graphdyn.graph import Graph
from graphdyn.keys import Key
from graphdyn.loader import gather, source
from graphdyn.loss import node_loss, node_losses
from graphdyn.memories.looking import looking
from graphdyn.memories.memory import Memory
from graphdyn.precision import autocast
from graphdyn.samplers import Neighbor, Plans, Seeds, Simple
from graphdyn.sight import (
    Call,
    Normed,
    Sight,
    Unit,
    batch_norms,
    calls_of_stack,
    layer_name,
    layers_of,
    units_of_stack,
)
from graphdyn.step import NOTHING, gradient_of_step


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
    """

    num_targets: int
    batch_size: float
    graph: Graph | None = None
    num_hops: int = 0
    simple: Simple | None = None

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
        own = {n: p for n, p in model.named_parameters() if p.requires_grad}
        found = torch.autograd.grad(self.loss(model, batch), [*own.values()], allow_unused=True)
        return {
            n: torch.zeros_like(p) if g is None else g.detach()
            for (n, p), g in zip(own.items(), found)
        }

    def step_gradient(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """What the optimiser would see of a batch that was drawn, with all that a memory adds and corrects."""
        return self.gradient(model, batch)

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

    def toy(self, key: Key) -> Callable[[nn.Module], Tensor]:
        """From a float64 copy of the model on CPU to its loss on a few random data of the same widths.

        Labels are random, nothing is dropped, and equal keys give the same function: what
        :func:`graphdyn.symmetry.find_symmetry` varies weights on.

        Raises:
            Invalid: Where nobody knows what such data look like.
        """
        raise Invalid(f"{type(self).__name__} cannot make small data of its own.")


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


class NodeProblem(Problem):
    """A graphdyn model on the nodes of a graph, under any sampler and memory.

    Args:
        model: Gives propagation and depth.
        graph: With features, labels and split.
        plans: Of the sampler that training uses.
        memory: Bound to the model, as training uses it. Nothing is pushed by looking.
        loss: As in training.
        precision: As in training.
        chunk: Targets of one piece of :meth:`full`; ``None``: the whole graph at once. Pieces differ from
            the whole where norms average over rows.
    """

    def __init__(
        self,
        model: Any,
        graph: Graph,
        plans: Plans,
        *,
        memory: Memory = NOTHING,
        loss: Loss = node_loss,
        precision: str = "float32",
        chunk: int | None = None,
    ):
        self.graph, self.plans, self.memory = graph, plans, memory
        self.propagation, self.num_hops = model.propagation, model.num_hops
        self._loss, self.precision, self.chunk = loss, precision, chunk
        assert graph.split is not None
        self.pool = graph.split.train
        self.num_targets, self.simple = self.pool.numel(), plans.simple
        self.batch_size = mean_size(plans, self.num_targets)

    @cached_property
    def _exact(self) -> Any:
        assert self.graph is not None
        every = Neighbor(fanouts=(-1,), batch_size=1)
        return every.prepare(self.graph, self.propagation, self.num_hops)

    def draw(self, key: Key) -> Batch:
        """See :meth:`Problem.draw`: a random step of the first epoch of a run of its own."""
        first = torch.zeros(1, dtype=torch.int64)
        step = int(key.fold("step").integers(first, self.plans.num_batches))
        return self._gather(self.plans.plan(key.at(epoch=0, step=step)))

    def redraw(self, batch: Batch, key: Key) -> Batch:
        """See :meth:`Problem.redraw`; dropout masks stay those of the batch."""
        plan = self.plans.redraw(batch.key, key)
        if plan is None:
            name = type(self.plans).__name__
            raise Invalid(f"{name} draw targets and neighbours together, not one given the other.")
        return self._gather(plan).at(batch.key)

    def exact(self, batch: Batch) -> Batch:
        """See :meth:`Problem.exact`; dropout masks stay those of the batch."""
        seeds = Seeds(batch.seeds, batch.seed_weight, torch.ones_like(batch.seed_weight))
        return self._gather_exact(self._exact.plan_for(seeds, batch.key))

    def full(self, key: Key) -> Iterator[Batch]:
        """See :meth:`Problem.full`."""
        assert self.graph is not None
        if self.chunk is None:
            yield full_batch(self.graph, self.propagation, key=key)
            return
        for nodes in self.pool.split(self.chunk):
            weight = torch.full((nodes.numel(),), 1.0 / self.num_targets, device=nodes.device)
            plan = self._exact.plan_for(Seeds(nodes, weight, torch.ones_like(weight)), key)
            yield self._gather_exact(plan)

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Problem.targets`."""
        return batch.seeds, batch.seed_weight

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See :meth:`Problem.loss`; for exact batches, which have nothing to remember."""
        with autocast(batch.y.device, self.precision):
            return self._loss(model(batch, hidden=False).logits, batch)

    def step_gradient(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Problem.step_gradient`."""
        how = {"memory": self.memory, "loss": self._loss, "precision": self.precision}
        with looking(self.memory):
            return gradient_of_step(model, batch, **how)

    def trace(self, model: nn.Module, batch: Batch) -> Trace:
        """See :meth:`Problem.trace`."""
        with autocast(batch.y.device, self.precision), calls_of_stack(model) as calls:
            output = model(batch, hidden=True)
            loss = self._loss(output.logits, batch)
        names = [layer_name(k) for k in range(1, len(output.hidden) + 1)]
        units, normed = units_of_stack(model, batch, output.hidden)
        own = 0 if self.plans.features is None else 1  # hops that read what the graph's nodes have
        if any(b.halo is not None or b.offset is not None for b in batch.blocks):
            calls = {}  # a layer's call is not all there is to its output
        return Trace(
            loss,
            node_losses(output.logits, batch),
            output.logits.index_select(0, batch.rows),
            dict(zip(names, output.hidden)),
            {name: _dst(batch, k) for k, name in enumerate(names)},
            batch.seeds,
            calls,
            {name: _src(batch, k) for k, name in enumerate(names) if name in calls and k >= own},
            units,
            normed,
        )

    def step_trace(self, model: nn.Module, batch: Batch) -> Trace:
        """See :meth:`Problem.step_trace`."""
        with looking(self.memory):
            return self.trace(model, self.memory.pull(batch))

    def whole(self, batch: Batch) -> Batch:
        """See :meth:`Problem.whole`."""
        if self.chunk is not None:
            raise Invalid("the graph is taken in pieces, so that it is never there as a whole.")
        assert self.graph is not None
        return full_batch(self.graph, self.propagation, nodes=batch.seeds, key=batch.key)

    def toy(self, key: Key) -> Callable[[nn.Module], Tensor]:
        """See :meth:`Problem.toy`; a random graph of 24 nodes, half of them targets."""
        assert self.graph is not None
        graph = toy_graph(self.graph, key)
        nodes = key.fold("targets").permutation(graph.num_nodes)[: graph.num_nodes // 2]
        batch = replace(full_batch(graph, self.propagation, nodes=nodes, key=key), dropout=False)
        return lambda model: self._loss(model(batch, hidden=False).logits, batch)

    def _gather(self, plan: Plan) -> Batch:
        assert self.graph is not None
        assert self.graph.y is not None
        return gather(plan, source(self.plans, self.graph), self.graph.y)

    def _gather_exact(self, plan: Plan) -> Batch:
        assert self.graph is not None
        assert self.graph.x is not None
        assert self.graph.y is not None
        return gather(plan, self.graph.x, self.graph.y)


def mean_size(plans: Plans, num_targets: int) -> float:
    """Mean number of targets a step, where an epoch sees each of them once on average."""
    simple = plans.simple
    if simple is None or simple.disjoint:
        return num_targets / plans.num_batches
    return simple.size


def seen(sight: Sight) -> dict[str, Any]:
    """What a look at a model's layers says of a trace; rows have no ids."""
    states = {name: call.output for name, call in sight.calls.items()}
    ids = dict.fromkeys(states)
    own = {"calls": sight.calls, "units": sight.units, "normed": sight.normed}
    return {"states": states, "nodes": ids, **own}


def _dst(batch: Batch, hop: int) -> Tensor | None:
    block = batch.block(hop)
    return None if block.node_id is None else block.dst_id


def _src(batch: Batch, hop: int) -> Tensor | None:
    block = batch.block(hop)
    return None if block.node_id is None else block.node_id[: block.num_fresh]


def toy_graph(like: Graph, key: Key, num_nodes: int = 24) -> Graph:
    """About three random edges a node, normal features, random labels; widths as in the graph given."""
    rng = key.fold("toy").generator()
    edges = torch.randint(num_nodes, (2, 3 * num_nodes), generator=rng)
    x = torch.randn(num_nodes, like.num_features, generator=rng, dtype=torch.float64)
    multi = like.task == "multilabel"
    y = torch.randint(
        2 if multi else like.num_classes, (num_nodes, like.num_classes), generator=rng
    )
    y = y.float() if multi else y[:, 0]
    own = {"num_classes": like.num_classes, "task": like.task}
    return Graph.from_edge_index(edges, num_nodes, undirected=True, x=x, y=y, **own)


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
