"""Gradients of the kernels: a small family of functions that is closed under differentiation.

Every backward is written with functions of this file alone, so gradients of gradients exist to any
order. Each function is linear in every argument that has a gradient (softmax excepted), given gates
or choices that have none; so each backward is a neighbour's forward. Shapes as in
:mod:`graphdyn.sparse`.
"""

# The methods are torch's protocol; the class says what they compute.
# ruff: noqa: D102

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from graphdyn.kernels.backend import ops
from graphdyn.sparse import CSC


def mapped(cls: type[Function]) -> type[Function]:
    """Give a function its ``torch.func.vmap`` rule: a loop over the batch."""

    def vmap(info: Any, in_dims: tuple, *args: Any):
        def pick(arg, dim, i):
            return arg if dim is None else arg.select(dim, i)

        results = [
            cls.apply(*(pick(arg, dim, i) for arg, dim in zip(args, in_dims)))
            for i in range(info.batch_size)
        ]
        if isinstance(results[0], tuple):
            return tuple(torch.stack(part) for part in zip(*results)), (0,) * len(results[0])
        return torch.stack(results), 0

    cls.vmap = staticmethod(vmap)
    # Function.apply inspects the signature on every call; keeping it there saves most of that time.
    cls.forward.__signature__ = inspect.signature(cls.forward)
    return cls


@mapped
class SpMM(Function):
    """Values (as a matrix on the pattern, transposed when flip) @ x."""

    @staticmethod
    def forward(csc: CSC, flip: bool, values: Tensor | None, x: Tensor) -> Tensor:
        return ops(x.device).spmm(csc, values, x, flip)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, ctx.flip, values, x = inputs
        # x is kept alive only when the gradient of the values will ask for it.
        ctx.save_for_backward(values, x if ctx.needs_input_grad[2] else None)

    @staticmethod
    def backward(ctx, grad):
        values, x = ctx.saved_tensors
        g_values = g_x = None
        if ctx.needs_input_grad[2]:
            g_values = SDDMM.apply(ctx.csc, *((x, grad) if ctx.flip else (grad, x)))
        if ctx.needs_input_grad[3]:
            g_x = SpMM.apply(ctx.csc, not ctx.flip, values, grad)
        return None, None, g_values, g_x


@mapped
class SpMMRoot(Function):
    """A x beside the rows of x that are the targets, whose two gradients then meet in one pass."""

    @staticmethod
    def forward(csc: CSC, values: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
        return ops(x.device).spmm(csc, values, x, False), x[: csc.num_dst].clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, values, x = inputs
        ctx.save_for_backward(values, x if ctx.needs_input_grad[1] else None)

    @staticmethod
    def backward(ctx, grad, root):
        values, x = ctx.saved_tensors
        g_values = SDDMM.apply(ctx.csc, grad, x) if ctx.needs_input_grad[1] else None
        return None, g_values, SpMMPlus.apply(ctx.csc, values, grad, root)


@mapped
class SpMMPlus(Function):
    """A^T x, with ``root`` added to its first rows: the transpose of :class:`SpMMRoot`."""

    @staticmethod
    def forward(csc: CSC, values: Tensor | None, x: Tensor, root: Tensor) -> Tensor:
        out = ops(x.device).spmm(csc, values, x, True)
        out[: root.shape[0]] += root
        return out

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, values, x, _ = inputs
        ctx.save_for_backward(values, x if ctx.needs_input_grad[1] else None)

    @staticmethod
    def backward(ctx, grad):
        values, x = ctx.saved_tensors
        g_values = SDDMM.apply(ctx.csc, x, grad) if ctx.needs_input_grad[1] else None
        return None, g_values, *SpMMRoot.apply(ctx.csc, values, grad)


@mapped
class SDDMM(Function):
    """<dst[v], src[u]> per edge."""

    @staticmethod
    def forward(csc: CSC, dst: Tensor, src: Tensor) -> Tensor:
        return ops(dst.device).sddmm(csc, dst, src)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, dst, src = inputs
        ctx.save_for_backward(dst, src)

    @staticmethod
    def backward(ctx, grad):
        dst, src = ctx.saved_tensors
        g_dst = SpMM.apply(ctx.csc, False, grad, src) if ctx.needs_input_grad[1] else None
        g_src = SpMM.apply(ctx.csc, True, grad, dst) if ctx.needs_input_grad[2] else None
        return None, g_dst, g_src


@mapped
class Gather(Function):
    """The row of each edge's source or target."""

    @staticmethod
    def forward(csc: CSC, side: str, x: Tensor) -> Tensor:
        return ops(x.device).gather(csc, x, side)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, ctx.side, _ = inputs

    @staticmethod
    def backward(ctx, grad):
        return None, None, SegmentSum.apply(ctx.csc, ctx.side, grad)


@mapped
class SegmentSum(Function):
    """Sum of the edge rows of each source or target."""

    @staticmethod
    def forward(csc: CSC, side: str, e: Tensor) -> Tensor:
        return ops(e.device).segment_sum(csc, e, side)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, ctx.side, _ = inputs

    @staticmethod
    def backward(ctx, grad):
        return None, None, Gather.apply(ctx.csc, ctx.side, grad)


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
class Argmax(Function):
    """(D, F) the first edge that carries the maximum: a choice, without gradient."""

    @staticmethod
    def forward(csc: CSC, x: Tensor) -> Tensor:
        return ops(x.device).segment_argmax(csc, x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx, _):
        return None, None


@mapped
class Take(Function):
    """Row x[u] at the source u of the chosen edge, each column its own: (D, F)."""

    @staticmethod
    def forward(csc: CSC, best: Tensor, x: Tensor) -> Tensor:
        return ops(x.device).take(csc, best, x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, best, _ = inputs
        ctx.save_for_backward(best)

    @staticmethod
    def backward(ctx, grad):
        return None, None, Put.apply(ctx.csc, *ctx.saved_tensors, grad)


@mapped
class Put(Function):
    """Transpose of Take: (S, F)."""

    @staticmethod
    def forward(csc: CSC, best: Tensor, grad: Tensor) -> Tensor:
        return ops(grad.device).put(csc, best, grad)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.csc, best, _ = inputs
        ctx.save_for_backward(best)

    @staticmethod
    def backward(ctx, grad):
        return None, None, Take.apply(ctx.csc, *ctx.saved_tensors, grad)


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


@mapped
class Dropout(Function):
    """Keyed inverted dropout of (R, C): a diagonal map, its own transpose. No mask is kept."""

    @staticmethod
    def forward(x: Tensor, ids: Tensor | None, threshold: int, bits: int) -> Tensor:
        return ops(x.device).dropout(x, threshold, bits, ids, False)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ids, ctx.threshold, ctx.bits = inputs
        ctx.save_for_backward(ids)

    @staticmethod
    def backward(ctx, grad):
        return Dropout.apply(grad, *ctx.saved_tensors, ctx.threshold, ctx.bits), None, None, None


@mapped
class EntryDropout(Function):
    """The mask of Dropout at the stored entries of a sparse matrix: diagonal, its own transpose."""

    @staticmethod
    def forward(values: Tensor, row: Tensor, column: Tensor, threshold: int, bits: int) -> Tensor:
        keep = ops(values.device).keep_entries(row, column, threshold, bits)
        return torch.where(keep, values * (2.0**32 / (2**32 - threshold)), 0.0)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, row, column, ctx.threshold, ctx.bits = inputs
        ctx.save_for_backward(row, column)

    @staticmethod
    def backward(ctx, grad):
        grad = EntryDropout.apply(grad, *ctx.saved_tensors, ctx.threshold, ctx.bits)
        return grad, None, None, None, None


@mapped
class ReluDropout(Function):
    """Keyed dropout of relu(x): (R, C). The output itself tells the backward what passed."""

    @staticmethod
    def forward(x: Tensor, ids: Tensor | None, threshold: int, bits: int) -> Tensor:
        return ops(x.device).dropout(x, threshold, bits, ids, True)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.scale = 2.0**32 / (2**32 - inputs[2])
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad):
        return Gate.apply(*ctx.saved_tensors, grad, ctx.scale), None, None, None


@mapped
class Gate(Function):
    """``scale * x`` where gate > 0, else 0; its own transpose in x."""

    @staticmethod
    def forward(gate: Tensor, x: Tensor, scale: float) -> Tensor:
        return ops(x.device).gate(gate, x, scale)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        gate, _, ctx.scale = inputs
        ctx.save_for_backward(gate)

    @staticmethod
    def backward(ctx, grad):
        return None, Gate.apply(*ctx.saved_tensors, grad, ctx.scale), None
