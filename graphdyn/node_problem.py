"""NodeProblem: a graphdyn model on the nodes of a graph, as instruments ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
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
from graphdyn.problem import Problem, Trace
from graphdyn.samplers import Neighbor, Plans, Seeds
from graphdyn.sight import (
    calls_of_stack,
    layer_name,
    units_of_stack,
)
from graphdyn.step import NOTHING, gradient_of_step


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

    def full_steps(self) -> float:
        """See :meth:`Problem.full_steps`."""
        return passes(self)

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


def passes(problem: Any) -> float:
    """How many batches a pass over the whole graph is, by edges or rows, whichever are more."""
    plan = problem.plans.plan(Key(0))
    hops, graph = max(1, problem.num_hops), problem.graph
    blocks = plan.blocks * hops if len(plan.blocks) == 1 else plan.blocks
    edges = sum(b.adjacency.csc.num_edges for b in blocks)
    rows = plan.num_nodes + sum(b.num_dst for b in blocks)
    ratios = (hops * graph.num_edges / max(1, edges), (hops + 1) * graph.num_nodes / max(1, rows))
    return max(1.0, *ratios)


def mean_size(plans: Plans, num_targets: int) -> float:
    """Mean number of targets a step, where an epoch sees each of them once on average."""
    simple = plans.simple
    if simple is None or simple.disjoint:
        return num_targets / plans.num_batches
    return simple.size


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
