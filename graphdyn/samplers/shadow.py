"""ShaDow (Zeng et al. 2021, "Decoupling the depth and scope of graph neural networks").

Every seed has an ego graph of its own, in which a network of any depth runs; the seed's row is read.
This defines another model than the one on the full graph: nothing is unbiased for the latter, scales
are 1, and weights on the border keep full-graph degrees. Valid where inference has the same scope:
prepare the same sampler for the nodes to predict (``nodes=``) and read the rows of their plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from graphdyn.batch import Plan
from graphdyn.errors import InputError, unknown
from graphdyn.kernels.ego import Ego, ego
from graphdyn.kernels.ppr import ppr
from graphdyn.keys import Key
from graphdyn.samplers.induce import induce
from graphdyn.samplers.sampler import Plans, Sampler, Task, training_nodes
from graphdyn.samplers.seeds import SeedDraw, Shuffle, Simple
from graphdyn.samplers.shares import bind_share
from graphdyn.samplers.structure import Structure
from graphdyn.sparse import CSC, Sparse

SCOPES = ("neighbor", "ppr")


@dataclass(frozen=True)
class Shadow(Sampler):
    """One ego graph a seed; a batch is their disjoint union, and one block serves every layer.

    A node in several ego graphs has a row in each (``node_id`` repeats), and the same dropout mask in
    all. The ego graph of a seed depends on (seed of the run, epoch, node) alone, not on its batch.

    Attributes:
        batch_size: Seeds a step, at most.
        scope: ``neighbor``: all within ``depth`` hops along ``fanout`` in-edges a node, drawn
            uniformly without replacement anew each epoch. ``ppr``: the nodes with the largest
            personalised PageRank, fixed.
        depth: Hops of ``neighbor``.
        fanout: In-edges a node of ``neighbor``, loops aside; -1 is all.
        top_k: Nodes of an ego graph of ``ppr`` at most, the seed included.
        alpha: Probability that the walk of ``ppr`` ends at each node, see :func:`graphdyn.kernels.ppr.ppr`.
        eps: Its residual an in-edge.
        inductive: Edges between training nodes alone. To predict other nodes, leave it out.
    """

    parallel: ClassVar[bool] = True

    batch_size: int = 1024
    scope: str = "neighbor"
    depth: int = 2
    fanout: int = 10
    top_k: int = 200
    alpha: float = 0.25
    eps: float = 2e-4
    inductive: bool = False

    def make(self, task: Task) -> ShadowPlans:
        """See :meth:`Sampler.make`. Costs nothing for ``neighbor``, one PageRank a node for ``ppr``."""
        self._check()
        pool = training_nodes(task.graph, task.nodes)
        seeds = bind_share(Shuffle(self.batch_size), pool, task.world)
        structure = Structure.of(task.graph, task.propagation, inductive=self.inductive)
        if self.scope == "ppr":
            return PageRankPlans(self, structure, seeds)
        return NeighborhoodPlans(self, structure, seeds)

    def _check(self) -> None:
        if self.scope not in SCOPES:
            raise unknown("scope", self.scope, SCOPES)
        if self.depth < 1:
            raise InputError(f"depth is {self.depth}; an ego graph needs at least 1 hop.")
        if self.fanout < 1 and self.fanout != -1:
            raise InputError(f"fanout is {self.fanout}; give at least 1, or -1 for all.")
        if self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}; an ego graph has at least 1 node, its root.")


class ShadowPlans(Plans):
    """See :class:`Shadow`."""

    def __init__(self, sampler: Shadow, structure: Structure, seeds: SeedDraw):
        self.sampler, self.structure, self.seeds = sampler, structure, seeds
        self.num_batches = seeds.num_batches

    @property
    def simple(self) -> Simple | None:
        """See :attr:`Plans.simple`."""
        return self.seeds.simple

    def scope(self, roots: Tensor, key: Key) -> Ego:
        """The nodes of the ego graphs of (B,) roots, each root first; ``key`` is that of the epoch."""
        raise NotImplementedError

    def plan(self, key: Key) -> Plan:
        """See :meth:`Plans.plan`."""
        seeds = self.seeds.draw(key)
        epoch = Key(key.seed, key.epoch, path=key.path)
        node, cuts = self.scope(seeds.node_id, epoch)
        block = induce(self.structure, node, cuts)
        return Plan((block,), cuts[:-1], seeds.node_id, seeds.weight, key)


class NeighborhoodPlans(ShadowPlans):
    """Ego graphs drawn hop by hop."""

    def scope(self, roots: Tensor, key: Key) -> Ego:
        """See :meth:`ShadowPlans.scope`."""
        s, o = self.structure, self.sampler
        bits = key.fold("ego").bits
        return ego(s.csc, s.loops, roots, o.depth, o.fanout, bits, s.workspace)


class PageRankPlans(ShadowPlans):
    """Ego graphs of the largest PageRank, computed once for every seed."""

    def __init__(self, sampler: Shadow, structure: Structure, seeds: SeedDraw):
        super().__init__(sampler, structure, seeds)
        pool = seeds.pool
        self.place = torch.empty(structure.num_nodes, dtype=torch.int64, device=pool.device)
        self.place[pool] = torch.arange(pool.numel(), device=pool.device)
        self.scopes = _page_rank_scopes(sampler, structure, pool)

    def scope(self, roots: Tensor, key: Key) -> Ego:
        """See :meth:`ShadowPlans.scope`."""
        rows = self.scopes.rows(self.place[roots]).csc
        return Ego(rows.indices, rows.indptr)


def _page_rank_scopes(sampler: Shadow, structure: Structure, roots: Tensor) -> Sparse:
    """(T, N) pattern: the root, then the others by mass, ``top_k`` in all."""
    o = sampler
    rows = ppr(structure.csc, roots, alpha=o.alpha, eps=o.eps, top_k=o.top_k)
    row = torch.repeat_interleave(rows.indptr.diff())
    other = rows.node != roots[row]
    row, node = row[other], rows.node[other]
    count = torch.bincount(row, minlength=roots.numel())
    rank = torch.arange(row.numel(), device=row.device) - (count.cumsum(0) - count)[row]
    row, node = row[rank < o.top_k - 1], node[rank < o.top_k - 1]
    row = torch.cat([torch.arange(roots.numel(), device=row.device), row])
    indptr = torch.zeros(roots.numel() + 1, dtype=torch.int64, device=row.device)
    indptr[1:] = torch.bincount(row, minlength=roots.numel()).cumsum(0)
    order = torch.argsort(row, stable=True)
    return Sparse(CSC(indptr, torch.cat([roots, node])[order], structure.num_nodes))
