"""How likely each node is a row of a batch: weights for batch norms, ranks for feature caches.

In closed form where the plans know it; by message passing from the seeds outwards for samplers that
know the probability of each edge; else counted over plans. Shapes: N nodes, E edges, D targets of a block.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from graphdyn.batch import Block, Plan
from graphdyn.keys import Key
from graphdyn.samplers.around import AroundPlans
from graphdyn.samplers.sampler import LayeredPlans, Plans
from graphdyn.samplers.spread import Spread


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

    Samplers that know the probability of each edge (neighbour sampling): by message passing outwards
    from the seeds, see :mod:`graphdyn.samplers.spread`; exact on trees with independent seeds, and for
    one hop from them on any graph. Counted for all others: (c + 1/2) / (R + 1) with c of R plans, so that
    nobody has probability 0; the relative error of a node is about 1 / sqrt(R p). A node that stands in a
    plan k times counts k times.

    Args:
        plans: Any.
        num_nodes: N.
        rounds: R; by default one epoch, but no less than 64.
        key: Randomness of the plans that are counted.

    Returns:
        (N,) float32 for each block, first layer first.
    """
    tables = plans.target_probability() or reach(plans)
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
    tables = reach(plans, sources=True)
    return tables[0].float() if tables else _count(plans, num_nodes, rounds, key)[1]


class _Weighted(AroundPlans):
    def __init__(self, plans: Plans, tables: list[Tensor]):
        super().__init__(plans)
        self.tables = tables

    def around(self, plan: Plan) -> Plan:
        blocks = (_weighted(b, t) for b, t in zip(plan.blocks, self.tables, strict=True))
        return replace(plan, blocks=tuple(blocks))

    def target_probability(self) -> list[Tensor]:
        return self.tables


def _weighted(block: Block, table: Tensor) -> Block:
    if block.node_id is None:
        return block
    return replace(block, node_prob=table[block.dst_id])


def reach(plans: Plans, *, sources: bool = False) -> list[Tensor]:
    """As :func:`target_probability`, by message passing; empty where edges do not say.

    Args:
        plans: Any.
        sources: One table more in front: of the sources of the first block.

    Returns:
        (N,) float64 for each.
    """
    if not isinstance(plans, LayeredPlans):
        return []
    csc, seeds = plans.structure.csc, plans.seeds
    prob = torch.zeros(csc.num_dst, dtype=torch.float64, device=csc.device)
    prob[seeds.pool] = seeds.prob.double()
    spread, tables = None, [prob]
    for hop in range(plans.num_hops if sources else plans.num_hops - 1):
        edge = plans.edge_probability(hop)
        if edge is None:
            return []
        spread = spread or Spread(csc, prob, once=plans.reuse)
        tables.insert(0, spread.step(edge))
    return tables


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
