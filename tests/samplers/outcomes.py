"""Expectations of subgraph plans over every outcome of a draw: exact, no randomness.

An outcome is (probability, node ids, units drawn). From graphdyn nothing is read but what a plan holds.
"""

from collections import defaultdict
from itertools import chain, combinations, product

import torch

from graphdyn.keys import Key
from graphdyn.samplers.subgraph import Members


def subsets(groups, count):
    """Every choice of ``count`` of the groups, equally likely."""
    chosen = list(combinations(groups, count))
    return [(1 / len(chosen), sorted(chain.from_iterable(c)), count) for c in chosen]


def sequences(units, prob, count):
    """Every sequence of ``count`` independent draws; a unit is a tuple of nodes."""
    total = defaultdict(float)
    for drawn in product(range(len(units)), repeat=count):
        p = 1.0
        for i in drawn:
            p *= float(prob[i])
        total[tuple(sorted({v for i in drawn for v in units[i]}))] += p
    return [(p, list(nodes), count) for nodes, p in total.items()]


def together(outcomes, n):
    """(N, N) float64: how likely two nodes are in one batch; the diagonal: each alone."""
    out = torch.zeros(n, n, dtype=torch.float64)
    for p, nodes, _ in outcomes:
        member = torch.zeros(n, dtype=torch.float64)
        member[nodes] = 1
        out += p * torch.outer(member, member)
    return out


def dense(block, n):
    """(N, N) float64: the block's values at their global ids; parallel edges add up."""
    csc, values = block.adjacency.csc, block.adjacency.values
    values = torch.ones(csc.num_edges) if values is None else values
    row = torch.repeat_interleave(torch.arange(csc.num_dst), csc.indptr.diff().long())
    at = (block.node_id[row], block.node_id[csc.indices.long()])
    return torch.zeros(n, n, dtype=torch.float64).index_put(at, values.double(), accumulate=True)


def expect(plans, outcomes, n):
    """(N, N) E[matrix of the block, row v | v in the batch], and (N,) E[loss weight of v]."""
    rows, weight = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    prob = together(outcomes, n).diagonal()
    for p, nodes, units in outcomes:
        plan = plans.plan_of(Members(torch.tensor(nodes), units), Key(0))
        rows += p * dense(plan.blocks[0], n)
        weight[plan.seeds] += p * plan.seed_weight.double()
    return rows / prob.clamp(min=1e-300)[:, None], weight


def loss_weight(graph):
    """(N,) 1 / T for training nodes: what the loss weights must be on average."""
    out = torch.zeros(graph.num_nodes, dtype=torch.float64)
    out[graph.split.train] = 1 / graph.split.train.numel()
    return out


def relative_error(found, truth):
    """Of matrices, in the norm of all entries."""
    return float((found - truth).norm() / truth.norm())


def same_plan(a, b):
    """Bit for bit."""
    mine, yours = ([*p.blocks[0].tensors(), p.rows, p.seeds, p.seed_weight] for p in (a, b))
    return len(mine) == len(yours) and all(torch.equal(s, t) for s, t in zip(mine, yours))
