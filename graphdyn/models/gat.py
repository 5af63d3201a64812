"""GAT (Velickovic et al. 2018) and GATv2 (Brody et al. 2022): attention over the edges.

Not linear in its messages. Under sampling the logarithm of the block's scale joins the logits,
which makes numerator and denominator of the softmax unbiased, not their ratio: consistent, biased.
Shapes: H heads of F features; edge weights of the graph are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphdyn.batch import Block
from graphdyn.errors import InputError
from graphdyn.graph import Features, Propagation
from graphdyn.kernels import edge_softmax, gat_scores, gatv2_scores, spmm
from graphdyn.models.conv import Slot
from graphdyn.models.options import Options, positive
from graphdyn.models.parameters import Linear, glorot, linear
from graphdyn.models.propagate import Hop, drop_coefficients, prefix
from graphdyn.models.stack import Stack
from graphdyn.sparse import Sparse


class _Attention(torch.nn.Module):
    """Heads, softmax, dropout of coefficients, bias: what the two papers share."""

    hops = 1

    def __init__(self, slot: Slot, heads: int, slope: float, bias: bool, edge_dropout: float):
        super().__init__()
        self.heads, self.slope, self.edge_dropout = heads, slope, edge_dropout
        # Hidden layers concatenate their heads, a layer of logits averages them.
        self.average = slot.last
        self.features = slot.outputs if slot.last else slot.outputs // heads
        self.bias = torch.nn.Parameter(torch.zeros(slot.outputs)) if bias else None

    def coefficients(self, h: Features, hop: Hop) -> Tensor:
        """(E, H) attention of each target to its sources, before dropout; sums to 1 over a target's edges."""
        return self._softmax(hop.block, self._scores(h, hop.block)[0])

    def _scores(self, h: Features, block: Block) -> tuple[Tensor, Tensor]:
        """(E, H) logits and (S, H, F) values."""
        raise NotImplementedError

    def forward(self, h: Features, hops: Sequence[Hop], h0: Tensor | None) -> tuple[Tensor]:
        """(S, F) -> (D, C)."""
        del h0
        hop, csc = hops[0], hops[0].block.adjacency.csc
        logits, x = self._scores(h, hop.block)
        alpha = drop_coefficients(hop, self.edge_dropout, self._softmax(hop.block, logits))
        out = spmm(Sparse(csc, alpha), x)
        out = out.mean(1) if self.average else out.flatten(1)
        return (out if self.bias is None else out + self.bias,)

    def _softmax(self, block: Block, logits: Tensor) -> Tensor:
        if block.scale is not None:
            logits = logits + block.scale.log().to(logits.dtype).unsqueeze(1)
        return edge_softmax(block.adjacency.csc, logits)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(-1, self.heads, self.features)


class GATConv(_Attention):
    """``z_v = sum_u softmax_u(leaky(s.W h_u + t.W h_v)) W h_u + b`` per head.

    Args:
        slot: Its place in the stack.
        heads: H.
        slope: Of the leaky ReLU.
        bias: Learn b.
        edge_dropout: Probability that an attention coefficient (of a loop too) is dropped.
    """

    def __init__(self, slot: Slot, *, heads: int, slope: float, bias: bool, edge_dropout: float):
        super().__init__(slot, heads, slope, bias, edge_dropout)
        width = heads * self.features
        self.lin = Linear(slot.inputs, width, bias=False, key=slot.key, scheme="glorot")
        self.att_src = glorot(heads, self.features, key=slot.key.fold("att_src"))
        self.att_dst = glorot(heads, self.features, key=slot.key.fold("att_dst"))

    def _scores(self, h: Features, block: Block) -> tuple[Tensor, Tensor]:
        # <s, W h> = <W^T s, h>: one thin product instead of passes over (S, H, F).
        weight = self.lin.weight.view(self.heads, self.features, -1)
        att = torch.cat([self.att_src, self.att_dst])
        folded = (att.unsqueeze(-1) * weight.repeat(2, 1, 1)).sum(1)
        a_src, a_dst = linear(h, folded).split(self.heads, 1)
        a_dst = prefix(a_dst, block.num_dst)
        logits = gat_scores(block.adjacency.csc, a_src, a_dst, self.slope)
        return logits, self._split(self.lin(h))


class GATv2Conv(_Attention):
    """``z_v = sum_u softmax_u(att . leaky(W_l h_u + W_r h_v)) W_l h_u + b`` per head.

    Args:
        slot: Its place in the stack.
        heads: H.
        slope: Of the leaky ReLU.
        bias: Learn b, and a bias in each of W_l and W_r.
        edge_dropout: Probability that an attention coefficient (of a loop too) is dropped.
        share_weights: W_r = W_l.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        heads: int,
        slope: float,
        bias: bool,
        edge_dropout: float,
        share_weights: bool,
    ):
        super().__init__(slot, heads, slope, bias, edge_dropout)
        size, key = (slot.inputs, heads * self.features), slot.key
        self.lin_l = Linear(*size, bias=bias, key=key.fold("source"), scheme="glorot")
        self.lin_r = None
        if not share_weights:
            self.lin_r = Linear(*size, bias=bias, key=key.fold("target"), scheme="glorot")
        self.att = glorot(heads, self.features, key=key.fold("att"))

    def _scores(self, h: Features, block: Block) -> tuple[Tensor, Tensor]:
        x_src = self._split(self.lin_l(h))
        x_dst = self._targets(h, x_src, block)
        return gatv2_scores(block.adjacency.csc, x_src, x_dst, self.att, self.slope), x_src

    def _targets(self, h: Features, x_src: Tensor, block: Block) -> Tensor:
        if self.lin_r is None:
            return prefix(x_src, block.num_dst)
        return self._split(self.lin_r(prefix(h, block.num_dst)))


class GAT(Stack):
    """Graph attention network. Loops are added once; ``hidden`` is the width of all heads together.

    Args:
        num_features: F.
        num_classes: C.
        heads: H of the hidden layers, concatenated; ``hidden`` must be a multiple.
        out_heads: Heads of the layer of logits, averaged (``head="conv"`` alone).
        slope: Of the leaky ReLU in the scores.
        **options: See :class:`graphdyn.models.Options`; ``activation`` is ``elu`` by default.
            ``edge_dropout`` is the paper's dropout of attention coefficients, loops included.

    Raises:
        InputError: If an option is out of range or options exclude each other.
    """

    propagation = Propagation("none", self_loops=True)
    defaults = {"activation": "elu"}

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        heads: int = 8,
        out_heads: int = 1,
        slope: float = 0.2,
        **options: Any,
    ):
        o = _attention_options(heads, out_heads, self.defaults | options)

        def make(slot: Slot) -> GATConv:
            h = out_heads if slot.last else heads
            return GATConv(slot, heads=h, slope=slope, bias=o.bias, edge_dropout=o.edge_dropout)

        super().__init__(num_features, num_classes, o, make)


class GATv2(Stack):
    """Graph attention that ranks sources differently for different targets (Brody et al. 2022).

    Args:
        num_features: F.
        num_classes: C.
        heads: As for :class:`GAT`.
        out_heads: As for :class:`GAT`.
        slope: As for :class:`GAT`.
        share_weights: One matrix for sources and targets.
        **options: As for :class:`GAT`.

    Raises:
        InputError: If an option is out of range or options exclude each other.
    """

    propagation = Propagation("none", self_loops=True)
    defaults = {"activation": "elu"}

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        heads: int = 8,
        out_heads: int = 1,
        slope: float = 0.2,
        share_weights: bool = False,
        **options: Any,
    ):
        o = _attention_options(heads, out_heads, self.defaults | options)
        shared: dict[str, Any] = {
            "slope": slope,
            "bias": o.bias,
            "edge_dropout": o.edge_dropout,
            "share_weights": share_weights,
        }

        def make(slot: Slot) -> GATv2Conv:
            return GATv2Conv(slot, heads=out_heads if slot.last else heads, **shared)

        super().__init__(num_features, num_classes, o, make)


def _attention_options(heads: int, out_heads: int, options: dict[str, Any]) -> Options:
    positive("heads", heads)
    positive("out_heads", out_heads)
    o = Options(**options)
    if o.hidden % heads:
        raise InputError(
            f"hidden={o.hidden} is not a multiple of heads={heads}; choose one that is."
        )
    return o
