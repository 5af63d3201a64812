"""Multi-layer perceptron: the stack without messages, the baseline that ignores the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Batch
from graphdyn.errors import InputError
from graphdyn.graph import Features, Propagation
from graphdyn.models.conv import Slot
from graphdyn.models.options import Options
from graphdyn.models.output import Output
from graphdyn.models.parameters import Linear
from graphdyn.models.propagate import Hop, prefix, target_rows
from graphdyn.models.stack import Stack


class LinearConv(torch.nn.Module):
    """A linear map in the place of a conv: it looks at rows alone.

    Args:
        slot: Its place in the stack.
        bias: Learn an additive bias.
    """

    hops = 0

    def __init__(self, slot: Slot, *, bias: bool):
        super().__init__()
        self.lin = Linear(slot.inputs, slot.outputs, bias=bias, key=slot.key)

    def forward(self, h: Features, hops: Sequence[Hop], h0: Tensor | None) -> tuple[Tensor]:
        """(N, F) -> (N, C)."""
        del hops, h0
        return (self.lin(h),)


class MLP(Stack):
    """Linear layers with everything else that the graph models have.

    Rows are the targets of the last block where a batch has blocks, else all rows of ``batch.x``
    (dropout masks are then keyed by row number).

    Args:
        num_features: F.
        num_classes: C.
        **options: See :class:`graphdyn.models.Options`; ``edge_dropout`` must be 0.

    Raises:
        InputError: If an option is out of range or options exclude each other.
    """

    propagation = Propagation("none", self_loops=False)

    def __init__(self, num_features: int, num_classes: int, **options: Any):
        o = Options(**options)
        if o.edge_dropout:
            raise InputError(f"an MLP has no edges, so edge_dropout={o.edge_dropout} must be 0.")
        super().__init__(num_features, num_classes, o, lambda slot: LinearConv(slot, bias=o.bias))

    def forward(self, batch: Batch, *, hidden: bool = True) -> Output:
        """Logits of the last block's targets; hidden states are none."""
        if not batch.blocks:
            return self.run(batch.x, batch, None, hidden=hidden)
        last = batch.blocks[-1]
        rows, x = target_rows(last, None), prefix(batch.x, last.num_dst)
        return self.run(x, batch, rows.ids, weight=rows.weight, hidden=hidden)
