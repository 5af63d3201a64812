"""Block, Plan and Batch: what travels from a graph or a sampler to a model.

Shapes: a block has S sources and D targets, targets are the first D sources; B rows carry a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.graph import Features, Graph, Propagation
from graphdyn.keys import Key
from graphdyn.sparse import CSC, Sparse


@dataclass(frozen=True, eq=False)
class Border:
    """The sources of a block that this step does not compute: its last M, remembered from earlier steps.

    The first block never has one: features are always at hand.

    Attributes:
        first: (M,) rows of ``Batch.x`` that hold the features of these nodes; their global ids are the
            last M of ``Block.node_id``.
        states: What memory has pulled: (M, F) outputs of the hops that ``model.recalls`` names, in that
            order. Constants. Empty in a plan, which knows no values.
        dropout: Whether states are dropped as those of fresh rows are, by the same masks.
    """

    first: Tensor
    states: tuple[Tensor, ...] = ()
    dropout: bool = True

    @property
    def num_nodes(self) -> int:
        """M."""
        return self.first.numel()

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of the border."""
        yield from (self.first, *self.states)

    def map(self, move: Callable[[Tensor], Tensor]) -> Border:
        """The same border with every tensor moved."""
        return replace(self, first=move(self.first), states=tuple(map(move, self.states)))


@dataclass(frozen=True, eq=False)
class Halo:
    """Targets beside the batch, the last M of a block: they hear from a part of their neighbours only.

    What they lack, in the forward as in the backward pass, a memory makes up for.

    Attributes:
        weight: (D,) how much each target counts in the gradients of parameters: one over the
            probability that it is in the batch, 0 in the halo.
        share: (M,) of the output as computed, in what is read of it; the rest is remembered.
        state: (M, F) what memory has pulled: an earlier output of the hop, a constant. ``None`` in a
            plan, which knows no values.
    """

    weight: Tensor
    share: Tensor
    state: Tensor | None = None

    @property
    def num_inside(self) -> int:
        """Targets of the batch proper, which come first."""
        return self.weight.numel() - self.share.numel()

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of the halo."""
        yield from (self.weight, self.share)
        yield from () if self.state is None else (self.state,)

    def map(self, move: Callable[[Tensor], Tensor]) -> Halo:
        """The same halo with every tensor moved."""
        state = None if self.state is None else move(self.state)
        return Halo(move(self.weight), move(self.share), state)


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
        prob: (E,) probability that the edge is in the block, given the block's targets; ``None``
            where it is 1 / scale, or (without a scale) 1. NaN where nobody knows it.
        node_prob: (D,) probability that the target is in a batch at this layer; ``None`` where all
            are equally likely, or nobody asked. Weighs the rows of a batch norm.
        border: Which of the sources are remembered; ``None``: all are computed.
        offset: (D, F) constant that is added to the hop's output, before norm and activation: a
            control variate on outputs.
        halo: Which of the targets are beside the batch; ``None``: all are in it.
    """

    adjacency: Sparse
    node_id: Tensor | None = None
    edge_id: Tensor | None = None
    scale: Tensor | None = None
    prob: Tensor | None = None
    node_prob: Tensor | None = None
    border: Border | None = None
    offset: Tensor | None = None
    halo: Halo | None = None

    @property
    def num_src(self) -> int:
        """S, with those that are remembered."""
        return self.adjacency.csc.num_src

    @property
    def num_fresh(self) -> int:
        """Sources that the layer below computes: the targets of the block before."""
        return self.num_src - (0 if self.border is None else self.border.num_nodes)

    @property
    def num_dst(self) -> int:
        """D."""
        return self.adjacency.csc.num_dst

    @property
    def dst_id(self) -> Tensor:
        """(D,) global ids of the targets."""
        return self._ids()[: self.num_dst]

    @property
    def border_id(self) -> Tensor:
        """(M,) global ids of the sources that are remembered."""
        return self._ids()[self.num_fresh :]

    def _ids(self) -> Tensor:
        if self.node_id is None:
            return torch.arange(self.num_src, device=self.adjacency.device)
        return self.node_id

    @property
    def inclusion(self) -> Tensor:
        """(E,) probability that each edge is in the block, given the block's targets."""
        if self.prob is not None:
            return self.prob
        if self.scale is not None:
            return self.scale.reciprocal()
        return torch.ones(self.adjacency.csc.num_edges, device=self.adjacency.device)

    def shift(self, z: Tensor) -> Tensor:
        """The hop's output z, (D, F), with the offset; every model says it of every hop."""
        return z if self.offset is None else z + self.offset

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of the block."""
        csc = self.adjacency.csc
        own = (getattr(self, name) for name in _TENSORS)
        yield from (
            t for t in (csc.indptr, csc.indices, self.adjacency.values, *own) if t is not None
        )
        yield from () if self.border is None else self.border.tensors()
        yield from () if self.halo is None else self.halo.tensors()

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Block:
        """The same block on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin(self) -> Block:
        """The same block in page-locked memory, from which copies to a GPU overlap with work."""
        return self._map(_pin)

    def _map(self, move: Callable[[Tensor], Tensor]) -> Block:
        own = {n: None if (t := getattr(self, n)) is None else move(t) for n in _TENSORS}
        border = None if self.border is None else self.border.map(move)
        halo = None if self.halo is None else self.halo.map(move)
        return Block(_map_sparse(self.adjacency, move), **own, border=border, halo=halo)


_TENSORS = ("node_id", "edge_id", "scale", "prob", "node_prob", "offset")


@dataclass(frozen=True, eq=False)
class Plan:
    """What a sampler decides for one step: structure and weights, no features. A pure function of the key.

    Attributes:
        blocks: One a layer, first layer first; a single block serves every layer.
        rows: (B,) rows of the last block's targets that carry the loss.
        seeds: (B,) global ids of these rows.
        seed_weight: (B,) float32: ``sum(seed_weight * loss)`` estimates the full-graph mean loss.
        key: Where the plan's randomness comes from; the same sampler gives the same plan for it again.
    """

    blocks: tuple[Block, ...]
    rows: Tensor
    seeds: Tensor
    seed_weight: Tensor
    key: Key

    @property
    def node_id(self) -> Tensor | None:
        """(S0,) global ids of the rows whose features are read; ``None``: all, in order."""
        return self.blocks[0].node_id

    @property
    def num_nodes(self) -> int:
        """S0: rows whose features are read (unique nodes, but for samplers of disjoint subgraphs)."""
        return self.blocks[0].num_src

    @property
    def num_edges(self) -> int:
        """Edges of all blocks."""
        return sum(block.adjacency.csc.num_edges for block in self.blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the plan."""
        own = (self.rows, self.seeds, self.seed_weight)
        every = [*own, *(t for block in self.blocks for t in block.tensors())]
        return sum(t.numel() * t.element_size() for t in every)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Plan:
        """The same plan on another device."""
        return self._map(
            lambda t: t.to(device, non_blocking=non_blocking),
            lambda b: b.to(device, non_blocking=non_blocking),
        )

    def pin(self) -> Plan:
        """The same plan in page-locked memory."""
        return self._map(_pin, Block.pin)

    def _map(self, move: Callable[[Tensor], Tensor], block: Callable[[Block], Block]) -> Plan:
        blocks = tuple(block(b) for b in self.blocks)
        rows, seeds, weight = (move(t) for t in (self.rows, self.seeds, self.seed_weight))
        return Plan(blocks, rows, seeds, weight, self.key)

    def batch(self, x: Features, y: Tensor) -> Batch:
        """The plan with what it reads.

        Args:
            x: (S0, F) features of ``node_id``.
            y: (B,) classes or (B, C) 0/1 labels of ``seeds``.

        Returns:
            What a model and a loss need.
        """
        return Batch(x, self.blocks, self.rows, y, self.seed_weight, self.key)


def _pin(tensor: Tensor) -> Tensor:
    """Page-locked; what lies on a device stays there."""
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


def _map_sparse(matrix: Sparse, move: Callable[[Tensor], Tensor]) -> Sparse:
    csc = CSC(move(matrix.csc.indptr), move(matrix.csc.indices), matrix.csc.num_src)
    return Sparse(csc, None if matrix.values is None else move(matrix.values))


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
        dropout: Whether a model in training drops anything.
    """

    x: Features
    blocks: tuple[Block, ...]
    rows: Tensor
    y: Tensor
    seed_weight: Tensor
    key: Key
    dropout: bool = True

    @property
    def drop_key(self) -> Key | None:
        """Of dropout masks in training."""
        return self.key if self.dropout else None

    def block(self, layer: int) -> Block:
        """The block of a layer, counted from the input."""
        return self.blocks[0] if len(self.blocks) == 1 else self.blocks[layer]

    @property
    def num_edges(self) -> int:
        """Edges touched if every block is used once."""
        return sum(block.adjacency.csc.num_edges for block in self.blocks)

    @property
    def seeds(self) -> Tensor:
        """(B,) global ids of the rows that carry the loss."""
        ids = self.blocks[-1].node_id if self.blocks else None
        return self.rows if ids is None else ids[self.rows]

    @property
    def nbytes(self) -> int:
        """Bytes of features, labels and structure."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor of the batch."""
        yield from [self.x] if isinstance(self.x, Tensor) else Block(self.x).tensors()
        yield from (t for block in self.blocks for t in block.tensors())
        yield from (self.rows, self.y, self.seed_weight)

    def at(self, key: Key) -> Batch:
        """The same batch under another key (another step)."""
        return replace(self, key=key)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self._map(
            lambda t: t.to(device, non_blocking=non_blocking),
            lambda b: b.to(device, non_blocking=non_blocking),
        )

    def pin(self) -> Batch:
        """The same batch in page-locked memory."""
        return self._map(_pin, Block.pin)

    def _map(self, move: Callable[[Tensor], Tensor], block: Callable[[Block], Block]) -> Batch:
        x = move(self.x) if isinstance(self.x, Tensor) else _map_sparse(self.x, move)
        rows, y, weight = (move(t) for t in (self.rows, self.y, self.seed_weight))
        blocks = tuple(block(b) for b in self.blocks)
        return Batch(x, blocks, rows, y, weight, self.key, self.dropout)


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
