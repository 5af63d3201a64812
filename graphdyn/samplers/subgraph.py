"""Subgraph samplers: draw nodes, use the edges among them in every layer (one block a plan).

================  =============================================  =====================================
estimator         edges, given that the target is in the batch   loss
================  =============================================  =====================================
ht                s = 1 / P(source in batch | target in batch)   1 / (P(seed in batch) |T|) each
unit              s = 1, full-graph weights: mass is lost        the same
published         what the paper's code does, see the sampler    see the sampler
================  =============================================  =====================================

With ``ht``, ``E[zhat_v | v in batch] = z_v`` in one layer, and the loss weights are exact. The block
serves all layers: from two on, walks that come back to a node weigh too much even in a linear network.
A batch may hold no training node; its loss is then 0.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.batch import Block, Plan
from graphdyn.errors import InputError
from graphdyn.graph import Graph, Norm, Propagation
from graphdyn.kernels.draw import weigh
from graphdyn.kernels.induced import Induced, induced
from graphdyn.keys import Key
from graphdyn.samplers.sampler import Plans, Task, training_nodes
from graphdyn.samplers.structure import Structure, training_graph
from graphdyn.samplers.weight import check_rule
from graphdyn.sparse import CSC, Sparse

RULES = ("ht", "unit", "published")


@dataclass(frozen=True, eq=False)
class Ground:
    """What subgraph samplers know of a graph.

    Attributes:
        structure: The propagation matrix; edges between training nodes alone, if inductive.
        weight: (E,) edge weights before normalisation, or ``None``.
        norm: How the matrix is normalised.
        universe: (U,) int64 ascending: nodes that may be in a batch; training nodes, if inductive.
        is_seed: (N,) bool, nodes whose loss counts.
        num_seeds: T.
    """

    structure: Structure
    weight: Tensor | None
    norm: Norm
    universe: Tensor
    is_seed: Tensor
    num_seeds: int

    @classmethod
    def of(cls, task: Task, *, inductive: bool) -> Ground:
        """Of the graph and the model of a task.

        Raises:
            InputError: If the seeds do not fit the graph, or ``inductive`` excludes some.
        """
        graph, propagation = task.graph, task.propagation
        pool = training_nodes(graph, task.nodes)
        universe = torch.arange(graph.num_nodes, device=graph.device)
        if inductive:
            graph = training_graph(graph)
            assert graph.split is not None
            universe = graph.split.train.sort().values
            _check_inside(pool, universe)
        plain = graph.adjacency(replace(propagation, norm="none"))
        structure = Structure(graph.adjacency(propagation))
        is_seed = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.device)
        is_seed[pool] = True
        return cls(structure, plain.values, propagation.norm, universe, is_seed, pool.numel())

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.structure.num_nodes

    @property
    def is_member(self) -> Tensor:
        """(N,) bool, nodes that may be in a batch."""
        out = torch.zeros_like(self.is_seed)
        out[self.universe] = True
        return out


class Members(NamedTuple):
    """The nodes of a batch.

    Attributes:
        node_id: (M,) int64 ascending.
        units: How many were drawn of what is drawn (parts, nodes, walks).
    """

    node_id: Tensor
    units: int


class SubgraphPlans(Plans):
    """Plans of samplers that draw nodes.

    Args:
        ground: What is drawn from.
        estimator: One of :data:`RULES`.
    """

    def __init__(self, ground: Ground, estimator: str):
        self.ground, self.estimator = ground, estimator
        self.structure = ground.structure

    @abstractmethod
    def draw(self, key: Key) -> Members:
        """The nodes of a step."""

    @abstractmethod
    def scale(self, members: Members, sub: Induced) -> Tensor:
        """(E,) float32 factor of each edge of the subgraph that makes its target's row unbiased."""

    @abstractmethod
    def seed_weight(self, members: Members, seeds: Tensor) -> Tensor:
        """(B,) float32 weights of the training nodes of a batch: ``1 / (P(in batch) |T|)``."""

    @abstractmethod
    def target_probability(self) -> list[Tensor]:
        """(N,) float32 how likely each node is in a batch, averaged over the steps of an epoch."""

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`."""
        return self.plan_of(self.draw(key), key)

    def plan_of(self, members: Members, key: Key) -> Plan:
        """The plan of given nodes."""
        nodes = members.node_id
        rows = torch.nonzero(self.ground.is_seed[nodes]).flatten()
        seeds = nodes[rows]
        return Plan((self.block(members),), rows, seeds, self.seed_weight(members, seeds), key)

    def block(self, members: Members) -> Block:
        """The square block of given nodes."""
        nodes = members.node_id
        sub = induced(self.structure.csc, nodes, self.structure.workspace)
        csc = CSC(sub.indptr.to(sub.src.dtype), sub.src, nodes.numel())
        scale, prob = self.scale(members, sub), None
        if self.estimator != "ht":
            scale, prob = None, scale.reciprocal()
        values = self.values(csc, sub.edge, scale)
        return Block(Sparse(csc, values), nodes, sub.edge, scale, prob)

    def values(self, csc: CSC, edge: Tensor, scale: Tensor | None) -> Tensor | None:
        """(E,) values of the block: the full graph's times the scale; ``None`` are ones."""
        return weigh(self.structure.adjacency.values, edge, scale)

    def renormalised(self, csc: CSC, edge: Tensor) -> Tensor | None:
        """(E,) values of the propagation matrix of the subgraph alone, by its own degrees."""
        weight = self.ground.weight
        weight = None if weight is None else weight[edge.long()]
        # Loops are there where they should be.
        own = Propagation(self.ground.norm, self_loops=False)
        return Graph(csc, edge_weight=weight).adjacency(own).values


def check_estimator(estimator: str) -> None:
    """Raise :class:`InputError` unless the estimator is one of :data:`RULES`."""
    check_rule(estimator, RULES)


def check_positive(**options: int) -> None:
    """Raise :class:`InputError` unless every option is at least 1."""
    for name, value in options.items():
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1.")


def ascending(ids: Tensor) -> Tensor:
    """Sorted ids: rows then lie near each other in memory. NumPy's sort is ten times torch's on CPU."""
    if ids.device.type != "cpu":
        return ids.sort().values
    import numpy as np

    return torch.from_numpy(np.sort(ids.numpy()))


def distinct(ids: Tensor) -> Tensor:
    """Ascending ids, each once."""
    ids = ascending(ids.flatten())
    new = torch.ones(ids.numel(), dtype=torch.bool, device=ids.device)
    new[1:] = ids[1:] != ids[:-1]
    return ids[new]


def _check_inside(pool: Tensor, universe: Tensor) -> None:
    outside = pool[~torch.isin(pool, universe)]
    if outside.numel():
        raise InputError(
            f"seed node {int(outside[0])} is not a training node of the split, but inductive sampling "
            "sees training nodes alone; leave it out, or set inductive to false."
        )
