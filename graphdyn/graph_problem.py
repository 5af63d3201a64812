"""GraphProblem: what problems on the nodes of a graph share: batches from the plans of a sampler."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Batch, Plan, full_batch
from graphdyn.estimate import Invalid
from graphdyn.graph import Graph, Propagation
from graphdyn.keys import Key
from graphdyn.loader import gather, source
from graphdyn.problem import Problem
from graphdyn.samplers import Plans


class GraphProblem(Problem):
    """Draws and redraws; a subclass says what a batch is for its models, and what it costs them.

    Args:
        graph: With features and labels.
        plans: Of the sampler that training uses.
        propagation: What the model multiplies with.
        pool: (T,) ids of all targets.
        num_hops: Message-passing layers of the model.
        chunk: Targets of one piece of :meth:`full`; ``None``: the whole graph at once.
    """

    graph: Graph

    def __init__(
        self,
        graph: Graph,
        plans: Plans,
        propagation: Propagation,
        pool: Tensor,
        *,
        num_hops: int,
        chunk: int | None,
    ):
        self.graph, self.plans, self.propagation, self.pool = graph, plans, propagation, pool
        self.num_hops, self.chunk = num_hops, chunk
        self.num_targets, self.simple = pool.numel(), plans.simple
        self.batch_size = _mean_size(plans, self.num_targets)

    def draw(self, key: Key) -> Any:
        """See :meth:`Problem.draw`: a random step of the first epoch of a run of its own."""
        first = torch.zeros(1, dtype=torch.int64)
        step = int(key.fold("step").integers(first, self.plans.num_batches))
        return self._batch(self._gather(self.plans.plan(key.at(epoch=0, step=step))))

    def redraw(self, batch: Any, key: Key) -> Any:
        """See :meth:`Problem.redraw`; dropout masks stay those of the batch."""
        plan = self.plans.redraw(batch.key, key)
        if plan is None:
            name = type(self.plans).__name__
            raise Invalid(f"{name} draw targets and neighbours together, not one given the other.")
        return self._batch(self._gather(plan).at(batch.key))

    def full_steps(self) -> float:
        """See :meth:`Problem.full_steps`: by edges or rows, whichever are more."""
        plan, graph = self.plans.plan(Key(0)), self.graph
        hops = max(1, self.num_hops)
        blocks = plan.blocks * hops if len(plan.blocks) == 1 else plan.blocks
        edges = sum(b.adjacency.csc.num_edges for b in blocks)
        rows = plan.num_nodes + sum(b.num_dst for b in blocks)
        by_edges = hops * graph.num_edges / max(1, edges)
        return max(1.0, by_edges, (hops + 1) * graph.num_nodes / max(1, rows))

    def _batch(self, batch: Batch) -> Any:
        """What the model gets."""
        return batch

    def _gather(self, plan: Plan) -> Batch:
        """What a plan of training reads."""
        assert self.graph.y is not None
        return gather(plan, source(self.plans, self.graph), self.graph.y)

    def _gather_exact(self, plan: Plan) -> Batch:
        """What a plan of all neighbours reads."""
        assert self.graph.x is not None
        assert self.graph.y is not None
        return gather(plan, self.graph.x, self.graph.y)

    def _shares(self, nodes: Tensor) -> Tensor:
        """Equal weights of these targets in the mean over all."""
        return torch.full((nodes.numel(),), 1.0 / self.num_targets, device=nodes.device)

    def _refuse_pieces(self) -> None:
        if self.chunk is not None:
            raise Invalid("the graph is taken in pieces, so that it is never there as a whole.")

    def _toy(self, key: Key) -> tuple[Graph, Batch]:
        """A random graph of 24 nodes, half of them targets."""
        graph = _toy_graph(self.graph, key)
        nodes = key.fold("targets").permutation(graph.num_nodes)[: graph.num_nodes // 2]
        return graph, full_batch(graph, self.propagation, nodes=nodes, key=key)


def _mean_size(plans: Plans, num_targets: int) -> float:
    """Mean number of targets a step, where an epoch sees each of them once on average."""
    simple = plans.simple
    if simple is None or simple.disjoint:
        return num_targets / plans.num_batches
    return simple.size


def _toy_graph(like: Graph, key: Key, num_nodes: int = 24) -> Graph:
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
