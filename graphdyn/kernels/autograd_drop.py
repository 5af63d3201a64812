"""Gradients of keyed dropout, of the family of :mod:`graphdyn.kernels.autograd`."""

# The methods are torch's protocol; the class says what they compute.
# ruff: noqa: D102

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import Function

from graphdyn.kernels.autograd import mapped
from graphdyn.kernels.backend import ops


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
