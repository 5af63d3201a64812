"""Influence-based mini-batches (Gasteiger, Qian & Gunnemann 2022, arXiv 2212.09083).

Batches are made once: outputs that influence each other share one, together with the nodes that
influence them most. Nothing is drawn afterwards, so the gradient of a batch has no sampling variance,
but a bias that never averages out: with plain SGD the limit of training is off by a constant. Valid
where inference has the same scope: prepare the same sampler for the nodes to predict (``nodes=``).
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.batch import Block, Plan
from graphdyn.errors import InputError, unknown
from graphdyn.kernels.ppr import PPR, ppr
from graphdyn.keys import Key
from graphdyn.samplers.induce import induce
from graphdyn.samplers.partition import partition
from graphdyn.samplers.sampler import Plans, Sampler, Task, training_nodes
from graphdyn.samplers.seeds import check_size, fill, steps_to_cover
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.undirected import simple_graph

ORDERS = ("shuffle", "fixed")
GROUPINGS = ("influence", "metis")


@dataclass(frozen=True)
class Ibmb(Sampler):
    """Fixed batches of outputs that share influence, with the full graph's weights on the edges inside.

    Influence is approximate personalised PageRank, :func:`graphdyn.kernels.ppr.ppr`, on the model's own
    pattern (its loops included, its weights not). A batch is all edges among its outputs and the nodes
    that it keeps:

    * ``influence`` (the paper's node-wise variant): every output keeps its ``aux`` largest entries. Pairs
      of outputs, the largest influence first, merge the batches that they lie in where both fit; then
      the two smallest batches merge as long as they fit.
    * ``metis`` (its batch-wise variant): METIS cuts the graph into parts of about equal size, balanced
      in outputs too. The outputs of a part keep together the ``aux`` nodes each that have the largest
      sum of influence on them (topic-sensitive PageRank).

    Where this leaves the paper: its push goes node by node, ours in rounds; its batch-wise PageRank is 50
    power iterations, ours the sum of the outputs' rows; it orders batches by their distance in label
    distribution, we shuffle them or keep the order.

    Attributes:
        batch_size: Outputs a batch, at most (the paper's ``primes_per_batch``); with ``metis`` about.
        aux: Nodes kept an output, itself among them.
        grouping: ``influence`` or ``metis``.
        alpha: Probability that the walk ends at each node.
        eps: Its residual an in-edge.
        order: Of the batches in an epoch: ``shuffle`` by key, or ``fixed``.
        inductive: Edges between training nodes alone. To predict other nodes, leave it out.
    """

    batch_size: int = 1024
    aux: int = 16
    grouping: str = "influence"
    alpha: float = 0.25
    eps: float = 2e-4
    order: str = "shuffle"
    inductive: bool = False

    def make(self, task: Task) -> IbmbPlans:
        """See :meth:`Sampler.make`. Costs one PageRank an output, and keeps every batch."""
        if self.order not in ORDERS:
            raise unknown("order of batches", self.order, ORDERS)
        if self.grouping not in GROUPINGS:
            raise unknown("grouping", self.grouping, GROUPINGS)
        if self.aux < 1:
            raise InputError(f"aux is {self.aux}; an output keeps at least 1 node, itself.")
        pool = training_nodes(task.graph, task.nodes)
        check_size(self.batch_size, pool)
        structure = Structure.of(task.graph, task.propagation, inductive=self.inductive)
        group = _by_influence if self.grouping == "influence" else _by_parts
        batches = group(self, structure, pool, task.key)
        return IbmbPlans(self, structure, pool, batches)


class Members(NamedTuple):
    """A batch before it is a block.

    Attributes:
        outputs: (B,) int64 ids.
        kept: (M,) int64 ids of the nodes that influence them most, ascending; outputs may be among them.
    """

    outputs: Tensor
    kept: Tensor


class IbmbPlans(Plans):
    """See :class:`Ibmb`; ``outputs`` and ``blocks`` are those of the batches, in fixed order."""

    ready = True
    determined = True

    def __init__(self, sampler: Ibmb, structure: Structure, pool: Tensor, batches: list[Members]):
        self.sampler, self.structure = sampler, structure
        self.num_nodes = structure.num_nodes
        self.outputs = [batch.outputs for batch in batches]
        self.blocks = [_batch_block(structure, batch) for batch in batches]
        self.num_batches = len(batches)
        # The mean of an epoch's losses is the mean loss, however uneven the batches are.
        self.weight = self.num_batches / pool.numel()

    def target_probability(self) -> list[Tensor]:
        """(N,) share of the batches that each node is in; exact, 0 for nodes in none."""
        share = torch.zeros(self.num_nodes, device=self.outputs[0].device)
        for block in self.blocks:
            assert block.node_id is not None
            share[block.node_id] += 1 / self.num_batches
        return [share]

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`."""
        place = key.step % self.num_batches
        if self.sampler.order == "shuffle":
            epoch = Key(key.seed, key.epoch, path=key.path)
            place = int(epoch.fold("batches").permutation(self.num_batches)[place])
        outputs = self.outputs[place]
        rows = torch.arange(outputs.numel(), device=outputs.device)
        return Plan((self.blocks[place],), rows, outputs, fill(outputs, self.weight), key)


def _batch_block(structure: Structure, batch: Members) -> Block:
    """The subgraph of a batch: its outputs first, then the nodes that it keeps beside them."""
    outputs, kept = batch
    return induce(structure, torch.cat([outputs, kept[~torch.isin(kept, outputs)]]))


def _by_influence(sampler: Ibmb, structure: Structure, pool: Tensor, key: Key) -> list[Members]:
    """Outputs that influence each other; each keeps its own nodes."""
    o = sampler
    rows = ppr(structure.csc, pool, alpha=o.alpha, eps=o.eps, top_k=o.aux)
    out = []
    for batch in merge_outputs(rows, pool, structure.num_nodes, o.batch_size):
        member = torch.zeros(pool.numel(), dtype=torch.bool, device=pool.device)
        member[batch] = True
        kept = rows.node[torch.repeat_interleave(member, rows.indptr.diff())]
        out.append(Members(pool[batch], kept.unique()))
    return out


def _by_parts(sampler: Ibmb, structure: Structure, pool: Tensor, key: Key) -> list[Members]:
    """The outputs of each part; they keep nodes together."""
    balance = torch.zeros(structure.num_nodes, dtype=torch.bool)
    balance[pool.cpu()] = True
    parts = steps_to_cover(pool, sampler.batch_size)
    part = partition(simple_graph(structure.csc), parts, key, balance=balance)
    part = part.to(pool.device)[pool]
    groups = [pool[part == p] for p in part.unique()]
    return [Members(group, _kept_together(sampler, structure, group)) for group in groups]


def _kept_together(sampler: Ibmb, structure: Structure, outputs: Tensor) -> Tensor:
    """The nodes with the largest sum of influence on outputs, ties by id."""
    rows = ppr(structure.csc, outputs, alpha=sampler.alpha, eps=sampler.eps)
    mass = (rows.mass * 2.0**40).long()  # integers: their sum has no order
    total = torch.zeros(structure.num_nodes, dtype=torch.int64, device=outputs.device)
    total.index_add_(0, rows.node, mass)
    order = torch.argsort(-total, stable=True)[: sampler.aux * outputs.numel()]
    return order[total[order] > 0].sort().values


def merge_outputs(rows: PPR, pool: Tensor, num_nodes: int, size: int) -> list[Tensor]:
    """Group outputs greedily by influence.

    Args:
        rows: (T, N) influence on each output.
        pool: (T,) ids of the outputs.
        num_nodes: N.
        size: Outputs a group, at most.

    Returns:
        Groups of places in ``pool``, ascending in each, by their first member.
    """
    group = list(range(pool.numel()))
    members = [[i] for i in group]
    for i, j in _pairs(rows, pool, num_nodes):
        a, b = group[i], group[j]
        if a == b or len(members[a]) + len(members[b]) > size:
            continue
        if len(members[a]) < len(members[b]):
            a, b = b, a  # the smaller moves, so that no output moves more than log2(size) times
        for moved in members[b]:
            group[moved] = a
        members[a] += members[b]
        members[b] = []
    groups = _fill_up([sorted(group) for group in members if group], size)
    return [torch.tensor(sorted(g), device=pool.device) for g in sorted(groups, key=min)]


def _pairs(rows: PPR, pool: Tensor, num_nodes: int) -> zip:
    """Pairs of outputs as places in the pool, the largest influence first, ties by id."""
    place = torch.full((num_nodes,), -1, dtype=torch.int64, device=pool.device)
    place[pool] = torch.arange(pool.numel(), device=pool.device)
    row = torch.repeat_interleave(rows.indptr.diff())
    other = place[rows.node]
    order = torch.argsort(-rows.mass, stable=True)
    order = order[((other >= 0) & (other != row))[order]]
    return zip(row[order].tolist(), other[order].tolist())


def _fill_up(groups: list[list[int]], size: int) -> list[list[int]]:
    """Merge the two smallest groups as long as they fit together."""
    heap = [(len(group), group) for group in groups]
    heapify(heap)
    while len(heap) > 1:
        (a, first), (b, second) = heappop(heap), heappop(heap)
        if a + b > size:
            return [first, second, *(group for _, group in heap)]
        heappush(heap, (a + b, sorted(first + second)))
    return [group for _, group in heap]
