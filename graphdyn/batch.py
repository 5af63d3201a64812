"""Block and Batch: what travels from a graph or a sampler to a model.

Shapes: a block has S sources and D targets, targets are the first D sources; B rows carry a loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.graph import Features, Graph, Propagation
from graphdyn.keys import Key
from graphdyn.sparse import Sparse


@dataclass(frozen=True, eq=False)
class Block:
    """One layer's message structure: a (D, S) propagation matrix whose targets are a prefix of its sources.

    Attributes:
        adjacency: Values carry the model's own full-graph weight times the sampler's debiasing scale,
            so that ``adjacency @ h`` estimates the full-graph aggregate.
        node_id: (S,) global ids of the sources, or ``None`` when sources are all nodes in order. Keys
            of dropout masks, so a node has the same mask in every batch of a step.
        edge_id: (E,) ids of the edges in the full propagation matrix, or ``None`` when they are all
            edges in order. Keys of edge dropout.
        scale: (E,) the debiasing scale alone; ``None`` is 1. Attention adds its logarithm to the logits.
    """

    adjacency: Sparse
    node_id: Tensor | None = None
    edge_id: Tensor | None = None
    scale: Tensor | None = None

    @property
    def num_src(self) -> int:
        """S."""
        return self.adjacency.csc.num_src

    @property
    def num_dst(self) -> int:
        """D."""
        return self.adjacency.csc.num_dst


@dataclass(frozen=True, eq=False)
class Batch:
    """Everything a model and a loss need for one step.

    Attributes:
        x: (S0, F) features of the first block's sources; dense or sparse.
        blocks: One a layer, first layer first; a single block serves every layer (full graph).
        rows: (B,) rows of the model's output that carry the loss.
        y: (B,) classes or (B, C) 0/1 labels of these rows.
        seed_weight: (B,) weights: ``sum(seed_weight * loss)`` estimates the full-graph mean loss.
        key: The randomness of this step; dropout masks are a function of it.
    """

    x: Features
    blocks: tuple[Block, ...]
    rows: Tensor
    y: Tensor
    seed_weight: Tensor
    key: Key

    def block(self, layer: int) -> Block:
        """The block of a layer, counted from the input."""
        return self.blocks[0] if len(self.blocks) == 1 else self.blocks[layer]

    @property
    def num_edges(self) -> int:
        """Edges touched if every block is used once."""
        return sum(block.adjacency.csc.num_edges for block in self.blocks)

    def at(self, key: Key) -> Batch:
        """The same batch under another key (another step)."""
        return replace(self, key=key)


def full_batch(
    graph: Graph, propagation: Propagation, *, nodes: Tensor | None = None, key: Key = Key(0)
) -> Batch:
    """The whole graph as one batch: exact, the baseline of every sampler.

    Args:
        graph: With features and labels.
        propagation: The model's (``model.propagation``).
        nodes: (B,) ids whose loss counts; by default the training split.
        key: Randomness of the step.

    Returns:
        A batch whose loss is the mean over ``nodes``.

    Raises:
        InputError: If the graph lacks features, labels or a training split.
    """
    if graph.x is None or graph.y is None:
        raise InputError(f"{graph.name} has no {'features' if graph.x is None else 'labels'}.")
    if nodes is None:
        if graph.split is None:
            raise InputError(f"{graph.name} has no split; give one or name the nodes.")
        nodes = graph.split.train
    block = Block(graph.adjacency(propagation))
    weight = torch.full((nodes.numel(),), 1.0 / max(1, nodes.numel()), device=graph.device)
    return Batch(graph.x, (block,), nodes, graph.y[nodes], weight, key)
