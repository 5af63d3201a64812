"""How inclusion spreads: from the probabilities of the seeds to those of all nodes, hop by hop.

Once in, a node stays in, and draws anew at every hop (or once): an epidemic, whose marginals dynamic
message passing gives (Karrer & Newman 2010, "Message passing approach for general epidemic models";
Lokhov et al. 2014). Exact on trees, directed or not, for independent seeds. The ways around a cycle,
and seeds, are treated as independent: short cycles that are expanded in full make nodes look likelier
than they are (a triangle after two hops: 0.75 for 0.5). Shapes: N nodes, E edges.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.sparse import CSC

_CERTAIN = 1 - 2.0**-24  # the float32 below 1: logarithms stay finite


class Spread:
    """Who is in after each hop. About 40 bytes an edge while it lives.

    Along an edge u -> v stand what is true of v if u never is in (its cavity): else a node would be
    drawn by those that it drew itself.

    Args:
        csc: Rows sorted by source.
        prob: (N,) how likely each node is a seed.
        once: A node draws at the hop after the one that brought it in, and never again.
    """

    def __init__(self, csc: CSC, prob: Tensor, *, once: bool = False):
        self.prob, self.once = prob.double(), once
        self.src, self.dst = csc.indices.long(), csc.dst.long()
        self.back = reverse_edges(csc)
        self.inside = self.prob.float()[self.dst]  # v is in
        self.waiting = self.inside.clone()  # v is in, has not drawn u, and will draw
        self.drawn = torch.zeros_like(self.inside)  # v has drawn u

    def step(self, edge: Tensor) -> Tensor:
        """One hop further out.

        Args:
            edge: (E,) how likely a target draws each edge at this hop; loops are not looked at.

        Returns:
            (N,) float64: how likely each node is in.
        """
        edge = torch.where(self.src == self.dst, 0.0, edge)
        self.drawn = (self.drawn + edge * self.waiting).clamp(max=_CERTAIN)
        spared = torch.log1p(-self.drawn)
        out = torch.log1p(-self.prob.clamp(max=_CERTAIN))
        out.index_add_(0, self.src, spared.double())
        own = torch.where(self.back < 0, 0.0, spared[self.back])
        inside = -torch.expm1(out[self.dst] - own).float()
        again = 0.0 if self.once else (1 - edge) * self.waiting
        self.waiting = again + (inside - self.inside).clamp(min=0)
        self.inside = inside
        return -torch.expm1(out)


def reverse_edges(csc: CSC) -> Tensor:
    """(E,) int64: an edge v -> u for each edge u -> v, or -1 where there is none.

    Args:
        csc: Square, rows sorted by source.

    Returns:
        Positions in ``csc``; loops have themselves.
    """
    dst, src, n = csc.dst.long(), csc.indices.long(), csc.num_dst
    back = csc.transpose
    # Both lists ascend, so the search walks through memory in order.
    forward, reverse = dst * n + src, back.csc.dst.long() * n + back.csc.indices.long()
    place = torch.searchsorted(reverse, forward).clamp(max=max(csc.num_edges - 1, 0))
    return torch.where(reverse[place] == forward, back.perm.long()[place], -1)
