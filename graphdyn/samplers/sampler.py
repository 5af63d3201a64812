"""Sampler: a recipe of plain values. Prepared for a graph and a model it gives plans, by key.

Every sampler is the same formula: ``zhat[dst] = F h[src]`` per layer, with values ``a * s``, and
``loss = sum_i omega_i loss_i``. Layered samplers draw edges target by target from the seeds down;
subgraph samplers draw nodes and use the edges among them in every layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from graphdyn.batch import Block, Plan
from graphdyn.errors import InputError
from graphdyn.graph import Graph, Propagation
from graphdyn.kernels.draw import Draw, relabel, take_source, weigh, weigh_rows
from graphdyn.keys import Key
from graphdyn.parallel import World
from graphdyn.samplers.seeds import SeedDraw, Seeds, Simple
from graphdyn.samplers.structure import Structure
from graphdyn.sparse import CSC, Sparse

Kind = TypeVar("Kind")


class Task(NamedTuple):
    """What a sampler is prepared for, see :meth:`Sampler.prepare`."""

    graph: Graph
    propagation: Propagation
    num_hops: int
    nodes: Tensor | None
    key: Key
    world: World = World()


class Sampler(ABC):
    """How batches are made. Subclasses are frozen dataclasses; they hold no randomness and no data.

    Attributes:
        parallel: Whether the plans of several ranks are shares of one step.
    """

    parallel: ClassVar[bool] = False

    def prepare(
        self,
        graph: Graph,
        propagation: Propagation,
        num_hops: int,
        *,
        nodes: Tensor | None = None,
        key: Key = Key(0),
        world: World = World(),
    ) -> Plans:
        """Everything that is computed once before training.

        Args:
            graph: With a split, unless ``nodes`` are given.
            propagation: The model's (``model.propagation``).
            num_hops: The model's (``model.num_hops``).
            nodes: (T,) nodes whose loss counts; by default the training split.
            key: Randomness of preparation (partitions, pre-sampling).
            world: Who trains; the plans are those of this rank.

        Returns:
            Plans by key.

        Raises:
            InputError: If the sampler does not fit the graph or the model.
        """
        if not (world.alone or self.parallel):
            raise InputError(
                f"the sampler '{type(self).__name__}' does not divide a step among {world.size} ranks; "
                "start one process, or choose a layered sampler, cluster, node or shadow."
            )
        return self.make(Task(graph, propagation, num_hops, nodes, key, world))

    @abstractmethod
    def make(self, task: Task) -> Plans:
        """What :meth:`prepare` does, for a task; what a new sampler writes."""

    def largest_batch(self, graph: Graph) -> int:
        """Most nodes that ``batch_size`` may ask for, in samplers that have one: all training nodes."""
        return training_nodes(graph, None).numel()


class Plans(ABC):
    """A sampler bound to a graph and a model: a pure function from keys to plans, safe to share by threads.

    Attributes:
        num_batches: Steps in an epoch.
        ready: Every plan is there before it is asked for, so nobody need work ahead.
        determined: Nothing of a plan is random but its targets.
        base: The plans that these add something to; ``None``: they are made from nothing else.
        live: Plans depend on what training has written by then (scores, caches), so nobody may.
    """

    num_batches: int
    ready: bool = False
    determined: bool = False
    live: bool = False
    base: Any = None

    @abstractmethod
    def plan(self, key: Key) -> Plan:
        """The plan of step ``key.step`` (counted over the run) of epoch ``key.epoch``."""

    def redraw(self, key: Key, again: Key) -> Plan | None:
        """The targets of one step, with their weights, and neighbours drawn anew.

        Args:
            key: Gives the targets.
            again: Gives everything else; also the key of the plan.

        Returns:
            A plan; ``None`` where neighbours cannot be drawn given the targets.
        """
        return replace(self.plan(key), key=again) if self.determined else None

    def target_probability(self) -> list[Tensor] | None:
        """In closed form: (N,) a block, how likely each node is one of its targets; ``None``: not known."""
        return None

    @property
    def simple(self) -> Simple | None:
        """How seeds are drawn, where they are a uniform sample with equal weights; ``None``: they are not."""
        return None if self.base is None else self.base.simple

    @property
    def features(self) -> Tensor | None:
        """(N, F) what batches read in place of the features of the graph; ``None``: these."""
        return None if self.base is None else self.base.features

    def find(self, kind: type[Kind]) -> Kind | None:
        """The outermost plans of a kind, from these down to those that draw; ``None``: there are none."""
        if isinstance(self, kind):
            return self
        return None if self.base is None else self.base.find(kind)

    def keys(self, key: Key, epochs: range, first: int | None = None) -> Iterator[Key]:
        """The keys of whole epochs, one a step.

        Args:
            key: Seed and path.
            epochs: Which epochs.
            first: The first step, counted over the run; by default that of the first epoch. In the
                middle of an epoch, the rest of it follows.

        Yields:
            Keys with epoch and step.
        """
        first = epochs.start * self.num_batches if first is None else first
        for step in range(first, epochs.stop * self.num_batches):
            yield key.at(epoch=step // self.num_batches, step=step)


Cut = Callable[[Block, int], Block]


class LayeredPlans(Plans):
    """Plans of samplers that draw edges layer by layer, from the seeds down.

    Draws of different layers are independent unless ``reuse``: every node is drawn for once, at the
    hop that first meets it, and has the same neighbours in all layers. Then even a linear network is
    estimated with bias: from three layers on, where a walk may come back to the node; from two on,
    where targets share their draws.

    Args:
        structure: What is drawn from.
        seeds: Bound seed policy.
        num_hops: Blocks a plan must bring. A model without messages (0) gets one block without edges.
        reuse: One draw a node for all layers.
    """

    def __init__(
        self, structure: Structure, seeds: SeedDraw, num_hops: int, *, reuse: bool = False
    ):
        self.structure, self.seeds, self.live = structure, seeds, seeds.live
        self.num_hops, self.reuse = num_hops, reuse

    @property
    def num_batches(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Steps in an epoch."""
        return self.seeds.num_batches

    @property
    def simple(self) -> Simple | None:
        """See :attr:`Plans.simple`."""
        return self.seeds.simple

    @abstractmethod
    def draw(self, dst: Tensor, hop: int, key: Key) -> Draw:
        """The edges of one layer, with their scales.

        Args:
            dst: (D,) distinct targets.
            hop: Distance from the seeds: 0 is the last layer.
            key: Of this step and layer.
        """

    def edge_probability(self, hop: int) -> Tensor | None:
        """(E,) how likely :meth:`draw` takes each edge, given its target; ``None``: not known."""
        return None

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`."""
        return self.plan_for(self.seeds.draw(key), key)

    def redraw(self, key: Key, again: Key) -> Plan:
        """See :meth:`Plans.redraw`."""
        return self.plan_for(self.seeds.draw(key), again)

    def plan_for(self, seeds: Seeds, key: Key, cut: Cut | None = None) -> Plan:
        """The plan of given seeds, whoever chose them.

        Args:
            seeds: Of the step.
            key: Of the step.
            cut: Called with each new block and its layer, counted from the input: gives it a border,
                behind which nothing is drawn.
        """
        blocks: list[Block] = []
        dst = seeds.node_id
        draw = no_edges(dst[:0])
        for hop in range(self.num_hops):
            if self.reuse:
                draw = self._draw_new(draw, dst, hop, key.fold("layer", 0))
            else:
                draw = self.draw(dst, hop, key.fold("layer", hop))
            block = assemble(self.structure, dst, draw)
            block = block if cut is None else cut(block, self.num_hops - 1 - hop)
            blocks.insert(0, block)
            assert block.node_id is not None
            dst = block.node_id[: block.num_fresh]
        return make_plan(blocks or [assemble(self.structure, dst, no_edges(dst))], seeds, key)

    def _draw_new(self, old: Draw, dst: Tensor, hop: int, key: Key) -> Draw:
        """The old draw, and that of the targets which it does not have."""
        new = dst[old.indptr.numel() - 1 :]
        if not new.numel():
            return old
        draw = self.draw(new, hop, key)
        return join(old, draw) if hop else draw


def no_edges(dst: Tensor) -> Draw:
    """The draw of a layer that nobody sends to."""
    empty = torch.zeros(0, dtype=torch.int32, device=dst.device)
    return Draw(torch.zeros(dst.numel() + 1, dtype=torch.int64, device=dst.device), empty)


def join(first: Draw, second: Draw) -> Draw:
    """The draws of different targets as one, those of the first in front."""
    both = (first, second)
    ones = [torch.ones(d.edge.numel(), device=d.edge.device) for d in both]
    scales = [one if d.scale is None else d.scale for d, one in zip(both, ones)]
    probs = [s.reciprocal() if d.prob is None else d.prob for d, s in zip(both, scales)]
    return Draw(
        torch.cat([first.indptr, second.indptr[1:] + first.indptr[-1]]),
        torch.cat([first.edge, second.edge.to(first.edge.dtype)]),
        None if all(d.scale is None for d in both) else torch.cat(scales),
        None if all(d.prob is None for d in both) else torch.cat(probs),
    )


def make_plan(blocks: list[Block], seeds: Seeds, key: Key) -> Plan:
    """The plan whose seeds are the first targets of the last block."""
    rows = torch.arange(seeds.node_id.numel(), device=seeds.node_id.device)
    return Plan(tuple(blocks), rows, seeds.node_id, seeds.weight, key)


def assemble(structure: Structure, dst: Tensor, draw: Draw) -> Block:
    """A block from the edges that were drawn: local ids, targets first; values a * s.

    Args:
        structure: What was drawn from.
        dst: (D,) distinct global ids.
        draw: Edges by target.

    Returns:
        Structure and weights of one layer.
    """
    src = take_source(structure.csc, draw.edge) if draw.src is None else draw.src
    local, nodes = relabel(dst, src, structure.workspace)
    csc = CSC(draw.indptr.to(local.dtype), local, nodes.numel())
    if structure.row_value is None:
        values = weigh(structure.adjacency.values, draw.edge, draw.scale)
    else:
        values = weigh_rows(structure.row_value, dst, draw)
    return Block(Sparse(csc, values), nodes, draw.edge, draw.scale, draw.prob)


def training_nodes(graph: Graph, nodes: Tensor | None) -> Tensor:
    """The pool of seeds: ``nodes``, or the training split.

    Raises:
        InputError: If there is none, or ids repeat or lie outside the graph.
    """
    if nodes is None and graph.split is None:
        raise InputError(f"{graph.name} has no split; give one or name the nodes.")
    if nodes is None:
        assert graph.split is not None
        nodes = graph.split.train
    if not nodes.numel():
        raise InputError("there are no training nodes; at least one is needed.")
    low, high = int(nodes.min()), int(nodes.max())
    if low < 0 or high >= graph.num_nodes:
        bad = low if low < 0 else high
        raise InputError(f"seed node {bad} is outside 0..{graph.num_nodes - 1}.")
    if torch.unique(nodes).numel() != nodes.numel():
        raise InputError("the seed nodes repeat; every node may be given once.")
    return nodes
