"""GCNII (Chen et al. 2020, "Simple and Deep Graph Convolutional Networks").

Linear in its messages: valid under every sampler with a debiasing scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.models.conv import Slot
from graphdyn.models.options import Options, probability
from graphdyn.models.parameters import glorot
from graphdyn.models.propagate import Hop, aggregate, blend, drop_edges
from graphdyn.models.stack import Stack


class GCN2Conv(torch.nn.Module):
    """``z = (1 - beta) s + beta s W^T`` with ``s = (1 - alpha) A h + alpha h0`` (equation 5).

    Args:
        slot: Its place in the stack; ``beta = log(theta / (layer + 1) + 1)``.
        alpha: Share of the initial state.
        theta: Strength of the weights; the paper's lambda.
        edge_dropout: Probability that an edge other than a loop is dropped.
    """

    hops = 1

    def __init__(self, slot: Slot, *, alpha: float, theta: float, edge_dropout: float):
        super().__init__()
        self.alpha, self.edge_dropout = alpha, edge_dropout
        self.beta = math.log(theta / (slot.layer + 1) + 1.0)
        self.weight = glorot(slot.outputs, slot.inputs, key=slot.key)

    def forward(self, h: Tensor, hops: Sequence[Hop], h0: Tensor) -> tuple[Tensor]:
        """(S, F) and (>= D, F) -> (D, F)."""
        block = drop_edges(hops[0], self.edge_dropout)
        s = blend(aggregate(block, h), h0, self.alpha)
        # (1 - beta) I + beta W is small: one product, where two terms would cost passes over (D, F).
        eye = torch.eye(self.weight.shape[0], dtype=self.weight.dtype, device=self.weight.device)
        return (torch.nn.functional.linear(s, torch.lerp(eye, self.weight, self.beta)),)


class GCNII(Stack):
    """GCN with initial residual and identity mapping; trains at 64 layers.

    ``h0 = sigma(W x + b)``, ``layers`` convs, a linear head; dropout before the input map (give
    ``input_dropout``), before every conv and before the head, as in the authors' code.
    ``parameter_groups()``: their first weight decay is for ``hidden``, the second for ``first``,
    ``out``.

    Args:
        num_features: F.
        num_classes: C.
        alpha: Share of h0 in every layer.
        theta: The paper's lambda; 0.5 for Cora and CiteSeer's 0.6.
        **options: See :class:`graphdyn.models.Options`; ``head`` must be linear. ``skip`` comes on
            top of the layer's own initial residual, so it cannot be ``initial``.

    Raises:
        InputError: If an option is out of range or options exclude each other.
    """

    defaults = {"head": "linear"}

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        alpha: float = 0.1,
        theta: float = 0.5,
        **options: Any,
    ):
        o = Options(**self.defaults | options)
        probability("alpha", alpha)
        if not theta > 0:
            raise InputError(f"theta is {theta}; expected a positive number (0.5 in the paper).")
        if not o.linear_head:
            raise InputError("GCNII ends in a linear map; use head='linear'.")
        if o.skip == "initial":
            raise InputError(
                "GCNII has an initial residual of its own (alpha); use skip='none', 'identity', "
                "'linear', 'dense-cat' or 'dense-max'."
            )

        def make(slot: Slot) -> GCN2Conv:
            return GCN2Conv(slot, alpha=alpha, theta=theta, edge_dropout=o.edge_dropout)

        super().__init__(num_features, num_classes, o, make, encode=True)
