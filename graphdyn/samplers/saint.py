"""GraphSAINT (Zeng et al. 2020, ICLR): what its samplers share, the normalisation.

A subgraph is made of m independent draws (of nodes, edges or walks), so that with h_v the probability
that one draw brings v, and h_uv that it brings both::

    p_v  = 1 - (1 - h_v)^m                                             v is in the subgraph
    p_uv = 1 - (1 - h_u)^m - (1 - h_v)^m + (1 - h_u - h_v + h_uv)^m    both are

``ht`` takes s_vu = p_v / p_uv for the edge u -> v and omega = 1 / (p_v |T|): exactly what the paper
estimates by counting subgraphs. Node and edge samplers need no counting then; for walks, h is counted.
``published`` counts as the official code does, its clip at 10 000 included.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from graphdyn.kernels.induced import Induced, induced
from graphdyn.keys import Key
from graphdyn.samplers.sampler import Sampler, Task
from graphdyn.samplers.structure import Structure
from graphdyn.samplers.subgraph import (
    Ground,
    Members,
    SubgraphPlans,
    check_estimator,
    check_positive,
)
from graphdyn.sparse import CSC

_CHUNK = 1 << 20  # edges whose float64 intermediates are held at once


class Hits(NamedTuple):
    """What one draw brings. On the CPU, where sums have one order: the same draws on every device.

    Attributes:
        node: (N,) float64 probability of each node; 0 outside the universe.
        pair: From (P,) sources and (P,) targets of edges of the graph, no loops, to the (P,) float64
            probability that one draw brings both.
    """

    node: Tensor
    pair: Callable[[Tensor, Tensor], Tensor]


class Norms(NamedTuple):
    """Normalisation of a sampler of subgraphs.

    Attributes:
        prob: (N,) float64 probability of each node; 0 outside the universe.
        scale: (E,) float32 ``P(target) / P(both)`` of each edge of the pattern; loops 1.
    """

    prob: Tensor
    scale: Tensor


class Design(ABC):
    """How the nodes of a subgraph are drawn.

    Attributes:
        units: m, independent draws.
    """

    units: int

    @abstractmethod
    def draw(self, key: Key) -> Tensor:
        """(M,) int64 distinct nodes, ascending."""

    @abstractmethod
    def hits(self, key: Key) -> Hits:
        """What one draw brings; ``key`` serves designs that have to count."""


@dataclass(frozen=True, kw_only=True)
class Saint(Sampler):
    """What the recipes share; each says how its nodes are drawn.

    Attributes:
        estimator: ``ht``, ``unit`` or ``published``, see this module.
        coverage: How often an average node is met while counting, in ``prepare``.
        inductive: Training nodes and the edges between them alone, as in the paper.
    """

    estimator: str = "ht"
    coverage: int = 50
    inductive: bool = False

    def make(self, task: Task) -> SaintPlans:
        """See :meth:`Sampler.make`."""
        check_estimator(self.estimator)
        check_positive(coverage=self.coverage)
        ground = Ground.of(task, inductive=self.inductive)
        return SaintPlans(ground, self.design(ground), self.estimator, self.coverage, task.key)

    @abstractmethod
    def design(self, ground: Ground) -> Design:
        """How nodes are drawn.

        Raises:
            InputError: If the options do not fit.
        """


class SaintPlans(SubgraphPlans):
    """Plans of a design. An epoch has as many steps as bring each node once on average, rounded up.

    Args:
        ground: What is drawn from.
        design: How.
        estimator: One of :data:`graphdyn.samplers.subgraph.RULES`.
        coverage: With ``published``: how often an average node is met in pre-sampling.
        key: Of pre-sampling.
    """

    def __init__(self, ground: Ground, design: Design, estimator: str, coverage: int, key: Key):
        super().__init__(ground, "ht" if estimator == "published" else estimator)
        self.design, key = design, key.fold("coverage")
        if estimator == "published":
            norms = counted(ground, design, coverage, key)
        else:
            norms = closed(ground.structure.csc.to("cpu"), design, key)
        device = ground.structure.device
        self.prob, self.edge_scale = norms.prob.to(device), norms.scale.to(device)
        # Rounding of the sum must not add a step.
        self.num_batches = math.ceil(ground.universe.numel() / float(norms.prob.sum()) - 1e-9)

    def draw(self, key: Key) -> Members:
        """See :meth:`SubgraphPlans.draw`."""
        return Members(self.design.draw(key), self.design.units)

    def scale(self, members: Members, sub: Induced) -> Tensor:
        """See :meth:`SubgraphPlans.scale`."""
        return self.edge_scale[sub.edge.long()]

    def seed_weight(self, members: Members, seeds: Tensor) -> Tensor:
        """See :meth:`SubgraphPlans.seed_weight`."""
        return (1 / (self.prob[seeds] * self.ground.num_seeds)).float()

    def target_probability(self) -> list[Tensor]:
        """See :meth:`SubgraphPlans.target_probability`."""
        return [self.prob.float()]


def any_of(hit: Tensor, m: int) -> Tensor:
    """``1 - (1 - h)^m`` without cancellation, however small h."""
    return -torch.expm1(m * torch.log1p(-hit))


def both_of(hit_u: Tensor, hit_v: Tensor, hit_uv: Tensor, m: int) -> Tensor:
    """p_uv of the module's docstring, by a form that does not cancel.

    With a, b, c the three probabilities: ``p_u p_v + ((1-a)(1-b))^m [(1 + (c - ab) / ((1-a)(1-b)))^m - 1]``;
    the second term is the dependence between the two.
    """
    p_u, p_v = any_of(hit_u, m), any_of(hit_v, m)
    neither = (1 - hit_u) * (1 - hit_v)
    log_neither = torch.log1p(-hit_u) + torch.log1p(-hit_v)
    excess = ((hit_uv - hit_u * hit_v) / neither).clamp(min=-1)
    dependence = torch.exp(m * log_neither) * torch.expm1(m * torch.log1p(excess))
    # A node that every draw brings leaves the other to decide.
    return torch.where(neither > 0, p_u * p_v + dependence, torch.minimum(p_u, p_v))


def closed(csc: CSC, design: Design, key: Key) -> Norms:
    """Normalisation by the closed form."""
    hits, m = design.hits(key), design.units
    scale = torch.ones(csc.num_edges)
    for first in range(0, csc.num_edges, _CHUNK):
        part = slice(first, first + _CHUNK)
        src, dst = csc.indices[part].long(), csc.dst[part].long()
        u, v = hits.node[src], hits.node[dst]
        # Counted probabilities may contradict each other; no pair is likelier than one of its ends.
        pair = torch.minimum(hits.pair(src, dst), torch.minimum(u, v))
        ratio = any_of(v, m) / both_of(u, v, pair, m)
        scale[part] = torch.where(src == dst, 1.0, ratio.float())
    return Norms(any_of(hits.node, m), scale)


def counted(ground: Ground, design: Design, coverage: int, key: Key) -> Norms:
    """Normalisation by counting subgraphs, as the official code does.

    ``alpha_uv = C_uv / C_v``; scales are clipped at 10 000, which is what an edge gets that was never
    seen though its target was; nodes that were never seen count as seen a tenth of a time.
    """
    csc, workspace = ground.structure.csc, ground.structure.workspace
    node = torch.zeros(ground.num_nodes, dtype=torch.int32, device=csc.device)
    edge = torch.zeros(csc.num_edges, dtype=torch.int32, device=csc.device)
    total, rounds = 0, 0
    while total <= coverage * ground.universe.numel():
        nodes = design.draw(key.fold(rounds))
        node[nodes] += 1
        edge[induced(csc, nodes, workspace).edge.long()] += 1
        total, rounds = total + nodes.numel(), rounds + 1
    scale = (node[csc.dst.long()] / edge).nan_to_num(nan=0.1, posinf=1e4).clamp(max=1e4)
    seen = torch.where(node > 0, node.double(), 0.1)
    return Norms(torch.where(ground.is_member, seen / rounds, 0.0), scale)


def normalised(importance: Tensor, ground: Ground) -> Tensor:
    """(N,) float64 probabilities over the universe.

    Nodes without importance get the smallest that there is: a training node that cannot be drawn
    would be missing from the loss for good.
    """
    member = ground.is_member.cpu()
    out = torch.where(member, importance.double(), 0.0)
    positive = out[out > 0]
    least = float(positive.min()) if positive.numel() else 1.0
    out = torch.where(member & (out <= 0), least, out)
    return out / out.sum()


def column_norm(structure: Structure) -> Tensor:
    """(N,) float64 ``||A_:v||^2``: squared weights of what a node sends; parallel edges count apart."""
    out = torch.zeros(structure.num_nodes, dtype=torch.float64)
    return out.index_add_(
        0, structure.csc.indices.cpu().long(), structure.values.cpu().double() ** 2
    )
