"""Batch norm whose rows have weights, so that the rows of a sample stand for the whole graph.

Shapes: N rows, F features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.errors import InputError
from graphdyn.kernels.door import eager

# Entries of a piece that stays in a core's cache while its deviations are squared and summed.
PIECE = 1 << 18


class WeightedBatchNorm(torch.nn.BatchNorm1d):
    """Batch norm whose rows count in proportion to weights, so that a sample stands for the graph.

    With p the weights divided by their sum, per feature,

    * ``mean = sum_v p_v x_v`` and ``var = sum_v p_v (x_v - mean)^2`` normalise: the ratio estimators
      of the population's mean and biased variance when the weight of v is 1 / probability of v.
      Their bias falls with one over the effective number of rows ``1 / sum_v p_v^2``.
    * ``running_var`` collects ``var / (1 - sum_v p_v^2)``, which for equal weights is torch's
      n / (n - 1).

    Without weights, and in evaluation with running statistics, it is :class:`torch.nn.BatchNorm1d`.
    Weights are constants: no gradient flows into them. Arguments are those of the base class.
    """

    def forward(self, input: Tensor, weight: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            input: (N, F) rows; half precision is computed in float32.
            weight: (N,) positive weights of the rows, of any scale; ``None``: all equal.

        Returns:
            (N, F) in the type of the input.

        Raises:
            InputError: If weights do not fit the rows, or there is one row to take statistics of.
        """
        if weight is None or not (self.training or self.running_mean is None):
            return super().forward(input)
        _check_rows(input, weight)
        # Autocast would round the sums over all rows to half precision.
        with torch.autocast(input.device.type, enabled=False):
            x = input.float() if input.dtype.itemsize < 4 else input
            p = weight.detach().to(x.dtype)
            p = p / p.sum()
            scale = x.new_ones(x.shape[1]) if self.weight is None else self.weight
            shift = x.new_zeros(x.shape[1]) if self.bias is None else self.bias
            y, mean, var = _normalise(x, p, scale, shift, self.eps)
            if self.training and self.running_mean is not None:
                self._collect(mean, var, p)
        return y.to(input.dtype)

    @torch.no_grad()
    def _collect(self, mean: Tensor, var: Tensor, p: Tensor) -> None:
        """Move the running statistics as torch does: by ``momentum``, or to the mean of all batches."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked)
        rest = (1 - p.square().sum()).clamp(min=torch.finfo(p.dtype).eps)
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((var / rest).to(self.running_var), share)


def _check_rows(x: Tensor, weight: Tensor) -> None:
    if weight.shape != x.shape[:1]:
        raise InputError(
            f"the weights of the rows have shape {tuple(weight.shape)}; expected ({x.shape[0]},)."
        )
    if x.shape[0] < 2:
        raise InputError(
            f"batch norm was given {x.shape[0]} row(s) to take statistics of; at least 2 are "
            "needed: use a larger batch, or the norm 'layer'."
        )


@eager
def _normalise(x: Tensor, p: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Any:
    return _Weighted.apply(x, p, scale, shift, eps)


class _Weighted(torch.autograd.Function):
    """(N, F) rows and (N,) weights of sum 1 -> normalised rows, mean, biased variance.

    Forward and first derivative leave the passes over all entries to torch's own batch norm with
    given statistics; what the statistics owe to the rows is one more pass. Further derivatives are
    those of the plain formula.
    """

    @staticmethod
    def forward(x: Tensor, p: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Normalise."""
        mean = p @ x
        var = _spread(x, p, mean)
        y = torch.nn.functional.batch_norm(x, mean, var, scale, shift, training=False, eps=eps)
        return y, mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the rows and their statistics."""
        x, p, scale, _, ctx.eps = inputs
        _, mean, var = output
        ctx.save_for_backward(x, p, scale, mean, var)
        ctx.mark_non_differentiable(mean, var)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """With z the standardised rows: ``scale / std * (g - p sum(g) - p z sum(g z))``."""
        x, p, scale, mean, var = ctx.saved_tensors
        if torch.is_grad_enabled():
            dx, dscale, dshift = _gradients(grad, x, p, scale, ctx.eps)
            return dx, None, dscale, dshift, None
        given = (grad, x, scale, mean, var, None, None, False, ctx.eps, (True, True, True))
        dx, dscale, dshift = torch.ops.aten.native_batch_norm_backward(*given)
        std = (var + ctx.eps).sqrt()
        slope = scale * dscale / std.square()
        offset = torch.addcmul(scale * dshift / std, mean, slope, value=-1)
        dx.addcmul_(torch.addcmul(offset, x, slope), p.unsqueeze(1), value=-1)
        return dx, None, dscale, dshift, None


def _spread(x: Tensor, p: Tensor, mean: Tensor) -> Tensor:
    """``p @ (x - mean)^2``, on CPU without a copy of x."""
    rows = max(1, PIECE // x.shape[1]) if x.device.type == "cpu" else x.shape[0]
    out = torch.zeros_like(mean)
    for part, share in zip(x.split(rows), p.split(rows)):
        out += share @ (part - mean).square_()
    return out


def _gradients(
    grad: Tensor, x: Tensor, p: Tensor, scale: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The same gradients from the rows alone, in steps that can be differentiated again."""
    centred = x - p @ x
    std = (p @ centred.square() + eps).sqrt()
    z = centred / std
    dscale, dshift = (grad * z).sum(0), grad.sum(0)
    dx = scale / std * (grad - p.unsqueeze(1) * (dshift + z * dscale))
    return dx, dscale, dshift
