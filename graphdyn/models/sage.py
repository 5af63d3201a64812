"""GraphSAGE (Hamilton et al. 2017, "Inductive Representation Learning on Large Graphs").

Mean and sum are linear in their messages: valid under every sampler with a debiasing scale. The
maximum of a sample has no unbiased form; scales are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from graphdyn.errors import InputError, unknown
from graphdyn.graph import Features, Propagation
from graphdyn.kernels import segment_max
from graphdyn.models.conv import Slot
from graphdyn.models.options import Options
from graphdyn.models.parameters import Linear, add_linear
from graphdyn.models.propagate import Hop, aggregate_root, dense, drop_edges, prefix
from graphdyn.models.stack import Stack

AGGREGATORS = ("mean", "sum", "max")


class SAGEConv(torch.nn.Module):
    """``z_v = W_l agg_{u -> v} h_u + W_r h_v + b``; targets without edges aggregate to 0.

    Args:
        slot: Its place in the stack.
        aggregator: ``"mean"`` and ``"sum"`` differ by the values of the block alone.
        bias: Learn b.
        edge_dropout: Probability that an edge is dropped; mean and sum only.
    """

    hops = 1

    def __init__(self, slot: Slot, aggregator: str, *, bias: bool, edge_dropout: float):
        super().__init__()
        self.aggregator, self.edge_dropout = aggregator, edge_dropout
        size = (slot.inputs, slot.outputs)
        self.lin_l = Linear(*size, bias=bias, key=slot.key.fold("neighbours"))
        self.lin_r = Linear(*size, bias=False, key=slot.key.fold("root"))

    def forward(self, h: Features, hops: Sequence[Hop], h0: Tensor | None) -> tuple[Tensor]:
        """(S, F) -> (D, C)."""
        del h0
        block = drop_edges(hops[0], self.edge_dropout)
        root = self.lin_r.weight
        if self.aggregator != "max":
            return (aggregate_root(block, h, self.lin_l.weight, self.lin_l.bias, root),)
        out = self.lin_l(segment_max(block.adjacency.csc, dense(h)))
        return (add_linear(out, prefix(h, block.num_dst), root),)


class SAGE(Stack):
    """GraphSAGE with a root weight. No self-loops are added: the root weight is the loop.

    Args:
        num_features: F.
        num_classes: C.
        aggregator: ``mean`` (edge weights weigh the mean), ``sum``, or ``max`` (edge weights are
            ignored; sparse features are made dense).
        **options: See :class:`graphdyn.models.Options`.

    Raises:
        InputError: If an option is out of range or options exclude each other.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        aggregator: Literal["mean", "sum", "max"] = "mean",
        **options: Any,
    ):
        o = Options(**options)
        if aggregator not in AGGREGATORS:
            raise unknown("aggregator", aggregator, AGGREGATORS)
        if aggregator == "max" and o.edge_dropout:
            raise InputError(
                f"edge_dropout={o.edge_dropout} cannot keep the expectation of a maximum; use 0, "
                "or the aggregator 'mean' or 'sum'."
            )

        def make(slot: Slot) -> SAGEConv:
            return SAGEConv(slot, aggregator, bias=o.bias, edge_dropout=o.edge_dropout)

        super().__init__(num_features, num_classes, o, make)
        self.propagation = Propagation("mean" if aggregator == "mean" else "none", self_loops=False)
