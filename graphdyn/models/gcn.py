"""GCN (Kipf & Welling 2017, "Semi-Supervised Classification with Graph Convolutional Networks").

Valid under every sampler with a debiasing scale: the layer is linear in its messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphdyn.graph import Features
from graphdyn.models.conv import Slot
from graphdyn.models.options import Options
from graphdyn.models.parameters import Linear
from graphdyn.models.propagate import Hop, aggregate, drop_edges
from graphdyn.models.stack import Stack


class GCNConv(torch.nn.Module):
    """``z_v = sum_u a_vu h_u W^T + b`` with the values a of the block; Glorot weights, zero bias.

    Args:
        slot: Its place in the stack.
        bias: Learn b.
        edge_dropout: Probability that an edge other than a loop is dropped.
    """

    hops = 1

    def __init__(self, slot: Slot, *, bias: bool, edge_dropout: float):
        super().__init__()
        self.edge_dropout = edge_dropout
        self.lin = Linear(slot.inputs, slot.outputs, bias=bias, key=slot.key, scheme="glorot")

    def forward(self, h: Features, hops: Sequence[Hop], h0: Tensor | None) -> tuple[Tensor]:
        """(S, F) -> (D, C)."""
        del h0
        block = drop_edges(hops[0], self.edge_dropout)
        return (aggregate(block, h, self.lin.weight, self.lin.bias),)


class GCN(Stack):
    """Graph convolutional network; with ``activation="none"`` the linear GNN.

    The matrix is D^-1/2 (A + I) D^-1/2: loops are added once, to nodes without one, before degrees
    are taken.

    Args:
        num_features: F.
        num_classes: C.
        **options: See :class:`graphdyn.models.Options`.

    Raises:
        InputError: If an option is out of range or options exclude each other.

    Example:
        >>> model = GCN(8, 3, hidden=16, norm="batch", skip="identity", dropout=0.5)
        >>> sorted(model.parameter_groups())
        ['first', 'hidden', 'norm', 'out']
    """

    def __init__(self, num_features: int, num_classes: int, **options: Any):
        o = Options(**options)

        def make(slot: Slot) -> GCNConv:
            return GCNConv(slot, bias=o.bias, edge_dropout=o.edge_dropout)

        super().__init__(num_features, num_classes, o, make)
