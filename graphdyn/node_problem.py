"""NodeProblem: a graphdyn model on the nodes of a graph, as instruments ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from graphdyn.batch import Batch, full_batch
from graphdyn.gradient import Loss
from graphdyn.graph import Graph
from graphdyn.graph_problem import GraphProblem
from graphdyn.keys import Key
from graphdyn.loss import node_loss, node_losses
from graphdyn.memories.looking import looking
from graphdyn.memories.memory import Memory
from graphdyn.precision import autocast
from graphdyn.problem import Trace, gradients_of
from graphdyn.regularizers import Objective
from graphdyn.samplers import Neighbor, Plans, Seeds
from graphdyn.sight import (
    calls_of_stack,
    layer_name,
    units_of_stack,
)
from graphdyn.step import NOTHING, PLAIN, gradient_of_step


class NodeProblem(GraphProblem):
    """A graphdyn model on the nodes of a graph, under any sampler and memory.

    Args:
        model: Gives propagation and depth.
        graph: With features, labels and split.
        plans: Of the sampler that training uses.
        memory: Bound to the model, as training uses it. Nothing is pushed by looking.
        loss: As in training.
        objective: As in training.
        epoch: Says how far training is, which weighs the parts of an objective; ``None``: it weighs them as
            in the first epoch.
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
        objective: Objective = PLAIN,
        epoch: Callable[[], int] | None = None,
        precision: str = "float32",
        chunk: int | None = None,
    ):
        assert graph.split is not None
        super().__init__(
            graph, plans, model.propagation, graph.split.train, num_hops=model.num_hops, chunk=chunk
        )
        self.memory, self._loss, self.precision = memory, loss, precision
        self._objective, self._epoch, self.parts = objective, epoch, objective.names

    @cached_property
    def _exact(self) -> Any:
        every = Neighbor(fanouts=(-1,), batch_size=1)
        return every.prepare(self.graph, self.propagation, self.num_hops)

    def exact(self, batch: Batch) -> Batch:
        """See :meth:`Problem.exact`; dropout masks stay those of the batch."""
        seeds = Seeds(batch.seeds, batch.seed_weight, torch.ones_like(batch.seed_weight))
        return self._gather_exact(self._exact.plan_for(seeds, batch.key))

    def full(self, key: Key) -> Iterator[Batch]:
        """See :meth:`Problem.full`."""
        if self.chunk is None:
            yield full_batch(self.graph, self.propagation, key=key)
            return
        for nodes in self.pool.split(self.chunk):
            weight = self._shares(nodes)
            plan = self._exact.plan_for(Seeds(nodes, weight, torch.ones_like(weight)), key)
            yield self._gather_exact(plan)

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See :meth:`Problem.targets`."""
        return batch.seeds, batch.seed_weight

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """See :meth:`Problem.loss`; for exact batches, which have nothing to remember."""
        with autocast(batch.y.device, self.precision):
            return self._loss(model(batch, hidden=False).logits, batch)

    @property
    def objective(self) -> Objective:
        """What is minimised, weighted as at this moment."""
        return self._objective.at(0 if self._epoch is None else self._epoch())

    def step_gradient(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """See :meth:`Problem.step_gradient`; what the objective makes of this batch's key is a part of it."""
        how = {"memory": self.memory, "loss": self._loss, "precision": self.precision}
        with looking(self.memory):
            return gradient_of_step(model, batch, objective=self.objective, **how)

    def part_gradients(self, model: nn.Module, batch: Batch) -> dict[str, dict[str, Tensor]]:
        """See :meth:`Problem.part_gradients`; a memory pulls, and corrects nothing."""
        with looking(self.memory):
            batch = self.memory.pull(batch)
            with autocast(batch.y.device, self.precision):
                parts = self.objective.every(model, batch, self._loss)
        return {name: gradients_of(part, model, more=True) for name, part in parts.items()}

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
        self._refuse_pieces()
        return full_batch(self.graph, self.propagation, nodes=batch.seeds, key=batch.key)

    def toy(self, key: Key) -> Callable[[nn.Module], Tensor]:
        """See :meth:`Problem.toy`; a random graph of 24 nodes, half of them targets."""
        batch = replace(self._toy(key)[1], dropout=False)
        return lambda model: self._loss(model(batch, hidden=False).logits, batch)


def _dst(batch: Batch, hop: int) -> Tensor | None:
    block = batch.block(hop)
    return None if block.node_id is None else block.dst_id


def _src(batch: Batch, hop: int) -> Tensor | None:
    block = batch.block(hop)
    return None if block.node_id is None else block.node_id[: block.num_fresh]
