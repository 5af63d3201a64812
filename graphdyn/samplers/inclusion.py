"""How likely each node is a row of a batch: weights for batch norms, ranks for feature caches.

In closed form where the plans know it; by a recursion from the seeds outwards for samplers that draw
edge by edge; else counted over plans. Shapes: N nodes, E edges, D targets of a block.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from graphdyn.batch import Block, Plan
from graphdyn.keys import Key
from graphdyn.samplers.sampler import LayeredPlans, Plans
from graphdyn.sparse import CSC

_CHUNK = 1 << 22  # edges at a time: the recursion needs float64 for each


def with_node_prob(
    plans: Plans, num_nodes: int, *, rounds: int | None = None, key: Key = Key(0)
) -> Plans:
    """The same plans, whose blocks carry ``node_prob``: how likely each target is one.

    A batch norm that weighs its rows by 1 / ``node_prob`` estimates the mean over all nodes that can be
    drawn, and not over those that are drawn often. See :func:`target_probability` for what is exact.

    Args:
        plans: Any.
        num_nodes: N.
        rounds: Plans to count, where counting is needed.
        key: Their randomness.

    Returns:
        Plans by key; blocks of the whole graph stay without, since all their rows are certain.
    """
    return _Weighted(plans, target_probability(plans, num_nodes, rounds=rounds, key=key))


def target_probability(
    plans: Plans, num_nodes: int, *, rounds: int | None = None, key: Key = Key(0)
) -> list[Tensor]:
    """How likely each node is a target of each block.

    Neighbour sampling and others that know the probability of each edge: a recursion outwards from the
    seeds, p_u = 1 - (1 - q_u) prod_{u -> v} (1 - q_v pi_vu), where q is one hop nearer. It treats
    inclusions as independent: exact for one hop from independent seeds, and on trees whose root alone is
    a seed. Counted for all others: (c + 1/2) / (R + 1) with c of R plans, so that nobody has probability
    0; the relative error of a node is about 1 / sqrt(R p). A node that stands in a plan k times counts
    k times.

    Args:
        plans: Any.
        num_nodes: N.
        rounds: R; by default one epoch, but no less than 64.
        key: Randomness of the plans that are counted.

    Returns:
        (N,) float32 for each block, first layer first.
    """
    tables = plans.target_probability() or _reach(plans)[1:]
    return [t.float() for t in tables] or _count(plans, num_nodes, rounds, key)[0]


def source_probability(
    plans: Plans, num_nodes: int, *, rounds: int | None = None, key: Key = Key(0)
) -> Tensor:
    """How likely a plan reads the features of each node.

    Args:
        plans: Any.
        num_nodes: N.
        rounds: See :func:`target_probability`.
        key: See :func:`target_probability`.

    Returns:
        (N,) float32: one hop further out than the first of :func:`target_probability`.
    """
    tables = _reach(plans)
    return tables[0].float() if tables else _count(plans, num_nodes, rounds, key)[1]


class _Weighted(Plans):
    def __init__(self, plans: Plans, tables: list[Tensor]):
        self.plans, self.tables = plans, tables

    @property
    def num_batches(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.plans.num_batches

    def plan(self, key: Key) -> Plan:
        plan = self.plans.plan(key)
        blocks = (_weighted(b, t) for b, t in zip(plan.blocks, self.tables, strict=True))
        return replace(plan, blocks=tuple(blocks))

    def target_probability(self) -> list[Tensor]:
        return self.tables


def _weighted(block: Block, table: Tensor) -> Block:
    if block.node_id is None:
        return block
    return replace(block, node_prob=table[block.node_id[: block.num_dst]])


def _reach(plans: Plans) -> list[Tensor]:
    """(N,) float64 a layer, from the outermost sources to the seeds; empty where edges do not say."""
    if not isinstance(plans, LayeredPlans) or plans.reuse:
        return []
    csc, seeds = plans.structure.csc, plans.seeds
    prob = torch.zeros(csc.num_dst, dtype=torch.float64, device=csc.device)
    prob[seeds.pool] = seeds.prob.double()
    tables = [prob]
    for hop in range(plans.num_hops):
        edge = plans.edge_probability(hop)
        if edge is None:
            return []
        tables.insert(0, _step_out(csc, edge, tables[0]))
    # A model without messages has one block all the same, whose sources are its targets.
    return tables if plans.num_hops else [prob, prob]


def _step_out(csc: CSC, edge: Tensor, prob: Tensor) -> Tensor:
    """How likely each node is a source, from how likely each is a target; targets are sources too."""
    missed = torch.log1p(-prob)
    for first in range(0, csc.num_edges, _CHUNK):
        part = slice(first, first + _CHUNK)
        src, dst = csc.indices[part].long(), csc.dst[part].long()
        taken = torch.where(src == dst, 0.0, prob[dst] * edge[part])
        missed.index_add_(0, src, torch.log1p(-taken))
    return -torch.expm1(missed)


def _count(
    plans: Plans, num_nodes: int, rounds: int | None, key: Key
) -> tuple[list[Tensor], Tensor]:
    """The shares of plans in which nodes are targets of each block, and sources of the first."""
    rounds = max(plans.num_batches, 64) if rounds is None else rounds
    root, hits = key.fold("inclusion"), []
    for r in range(rounds):
        blocks = plans.plan(root.at(epoch=r // plans.num_batches, step=r)).blocks
        seen = [_ids(block, block.num_dst) for block in blocks]
        seen.append(_ids(blocks[0], blocks[0].num_src))
        hits = hits or [torch.zeros(num_nodes, device=ids.device) for ids in seen]
        for count, ids in zip(hits, seen, strict=True):
            count.index_add_(0, ids, torch.ones(ids.numel(), device=ids.device))
    *targets, sources = [(count + 0.5) / (rounds + 1) for count in hits]
    return targets, sources


def _ids(block: Block, size: int) -> Tensor:
    if block.node_id is None:
        return torch.arange(size, device=block.adjacency.device)
    return block.node_id[:size]
