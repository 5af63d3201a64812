"""Gradients of the attention kernels, of the family of :mod:`graphdyn.kernels.autograd`."""

# The methods are torch's protocol; the class says what they compute.
# ruff: noqa: D102

from __future__ import annotations

from torch import Tensor
from torch.autograd import Function

from graphdyn.kernels.autograd import Gather, SegmentSum, mapped
from graphdyn.kernels.backend import ops
from graphdyn.sparse import CSC


@mapped
class EdgeSoftmax(Function):
    """Softmax over the edges into each target."""

    @staticmethod
    def forward(csc: CSC, logits: Tensor) -> Tensor:
        return ops(logits.device).edge_softmax(csc, logits)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc = inputs[0]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad):
        return None, EdgeSoftmaxGrad.apply(ctx.csc, *ctx.saved_tensors, grad)


@mapped
class EdgeSoftmaxGrad(Function):
    """``p * (grad - s[v])`` with s the sum of ``p * grad`` over the edges into v."""

    @staticmethod
    def forward(csc: CSC, p: Tensor, grad: Tensor) -> Tensor:
        return ops(p.device).edge_softmax_grad(csc, p, grad)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, p, grad = inputs
        ctx.save_for_backward(p, grad)

    @staticmethod
    def backward(ctx, cotangent):
        p, grad = ctx.saved_tensors
        g_p = g_grad = None
        if ctx.needs_input_grad[1]:
            total = SegmentSum.apply(ctx.csc, "dst", p * grad)
            other = SegmentSum.apply(ctx.csc, "dst", p * cotangent)
            g_p = cotangent * (grad - Gather.apply(ctx.csc, "dst", total))
            g_p = g_p - grad * Gather.apply(ctx.csc, "dst", other)
        if ctx.needs_input_grad[2]:
            g_grad = EdgeSoftmaxGrad.apply(ctx.csc, p, cotangent)
        return None, g_p, g_grad


@mapped
class PairScores(Function):
    """Slope at the gates times (y_src[u] + y_dst[v]): (E, H). GAT's scores when y is the gates."""

    @staticmethod
    def forward(csc: CSC, slope: float, gate_src, gate_dst, y_src, y_dst) -> Tensor:
        return ops(y_src.device).pair_scores(csc, slope, (gate_src, gate_dst), y_src, y_dst)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, ctx.slope, *tensors = inputs
        ctx.save_for_backward(*tensors[:2])

    @staticmethod
    def backward(ctx, grad):
        g_src, g_dst = PairScoresGrad.apply(ctx.csc, ctx.slope, *ctx.saved_tensors, grad)
        return None, None, None, None, g_src, g_dst


@mapped
class PairScoresGrad(Function):
    """Transpose of PairScores in (y_src, y_dst)."""

    @staticmethod
    def forward(csc: CSC, slope: float, gate_src, gate_dst, grad) -> tuple[Tensor, Tensor]:
        return ops(grad.device).pair_scores_grad(csc, slope, (gate_src, gate_dst), grad)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, ctx.slope, *tensors = inputs
        ctx.save_for_backward(*tensors[:2])

    @staticmethod
    def backward(ctx, k_src, k_dst):
        g = PairScores.apply(ctx.csc, ctx.slope, *ctx.saved_tensors, k_src, k_dst)
        return None, None, None, None, g


@mapped
class GATv2Scores(Function):
    """Sum over f of att * slope at the gates * (y_src[u] + y_dst[v]): (E, H).

    With g one cotangent an edge, the sum of g * scores is linear in each of g, y and att; every
    derivative is therefore this function or GATv2ScoresGrad with arguments exchanged.
    """

    @staticmethod
    def forward(csc: CSC, slope: float, gate_src, gate_dst, y_src, y_dst, att) -> Tensor:
        gates = (gate_src, gate_dst)
        return ops(att.device).gatv2_scores(csc, slope, gates, y_src, y_dst, att)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, ctx.slope, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, grad):
        grads = GATv2ScoresGrad.apply(ctx.csc, ctx.slope, *ctx.saved_tensors, grad)
        return None, None, None, None, *grads


@mapped
class GATv2ScoresGrad(Function):
    """Gradients of <grad, GATv2Scores> for (y_src, y_dst, att)."""

    @staticmethod
    def forward(csc: CSC, slope: float, gate_src, gate_dst, y_src, y_dst, att, grad):
        gates = (gate_src, gate_dst)
        return ops(att.device).gatv2_scores_grad(csc, slope, gates, y_src, y_dst, att, grad)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, ctx.slope, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx, k_src, k_dst, k_att):
        *gates, y_src, y_dst, att, grad = ctx.saved_tensors
        fixed = (ctx.csc, ctx.slope, *gates)
        g_grad = GATv2Scores.apply(*fixed, k_src, k_dst, att)
        g_grad = g_grad + GATv2Scores.apply(*fixed, y_src, y_dst, k_att)
        g_src, g_dst, _ = GATv2ScoresGrad.apply(*fixed, y_src, y_dst, k_att, grad)
        _, _, g_att = GATv2ScoresGrad.apply(*fixed, k_src, k_dst, att, grad)
        return None, None, None, None, g_src, g_dst, g_att, g_grad
