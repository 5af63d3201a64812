"""SGC (Wu et al. 2019, "Simplifying Graph Convolutional Networks"): K hops in the first layer.

Linear in its messages: valid under every sampler with a debiasing scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import Module

from graphdyn.graph import Features
from graphdyn.models.conv import Slot
from graphdyn.models.mlp import LinearConv
from graphdyn.models.options import Options, positive
from graphdyn.models.parameters import Linear
from graphdyn.models.propagate import Hop, aggregate, attach, drop_edges
from graphdyn.models.stack import Stack


class SGConv(Module):
    """``z = A^K h W^T + b`` with the values of the blocks, one a hop.

    Args:
        slot: Its place in the stack.
        hops: K.
        bias: Learn b.
        edge_dropout: Probability that an edge other than a loop is dropped.
    """

    def __init__(self, slot: Slot, hops: int, *, bias: bool, edge_dropout: float):
        super().__init__()
        self.hops, self.edge_dropout = hops, edge_dropout
        self.lin = Linear(slot.inputs, slot.outputs, bias=bias, key=slot.key)

    def forward(self, h: Features, hops: Sequence[Hop], h0: Tensor | None) -> tuple[Tensor, ...]:
        """(S, F) -> K tensors of C features; W comes with the first hop, b after the last."""
        out = []
        for k, hop in enumerate(hops):
            h = self.step(attach(h, hop.block) if k else h, k, hop, h0)
            h = hop.block.shift(h) if k < self.hops - 1 else h  # the trunk shifts the last one
            out.append(h)
        return tuple(out)

    def step(self, h: Features, k: int, hop: Hop, h0: Tensor | None) -> Tensor:
        """Hop k alone, of 0 to K - 1."""
        del h0
        block = drop_edges(hop, self.edge_dropout)
        z = aggregate(block, h, self.lin.weight if k == 0 else None)
        return z + self.lin.bias if k == self.hops - 1 and self.lin.bias is not None else z


class SGC(Stack):
    """Simplified graph convolution: K hops, then ``layers`` - 1 further linear layers.

    ``layers=1``, the default, is the paper's model: a logistic regression on A^K x.

    Args:
        num_features: F.
        num_classes: C.
        hops: K.
        **options: See :class:`graphdyn.models.Options`; ``layers`` is 1 by default.

    Raises:
        InputError: If an option is out of range or options exclude each other.
    """

    defaults = {"layers": 1}

    def __init__(self, num_features: int, num_classes: int, *, hops: int = 2, **options: Any):
        o = Options(**self.defaults | options)
        positive("hops", hops)

        def make(slot: Slot) -> Module:
            if slot.layer:
                return LinearConv(slot, bias=o.bias)
            return SGConv(slot, hops, bias=o.bias, edge_dropout=o.edge_dropout)

        super().__init__(num_features, num_classes, o, make)
