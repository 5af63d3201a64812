"""NormGap: how far batch norms' statistics of a batch lie from the running ones, and from the whole graph's.

Valid for batch norms that keep running statistics. A model that is evaluated with running statistics is another
one than was trained as far as these lie from those of its batches; and a sampled batch is normalised otherwise than
the whole graph as far as its statistics lie from the graph's. All at the present weights: running statistics
also lag behind them. Shapes: N rows, F features.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from graphdyn.estimate import Estimate, Invalid, Reading
from graphdyn.instruments.instrument import Instrument, Need
from graphdyn.schedule import Auto, Schedule
from graphdyn.sight import Normed, batch_norms
from graphdyn.snapshot import Snapshot
from graphdyn.statistics import mean_of


class NormGap(Instrument):
    """By norm: the layer in front of it in graphdyn's models, the module's name in others.

    ====================  =======================================================================================
    reading               what it is
    ====================  =======================================================================================
    ``mean_to_running``   root mean square over features of (mean of the batch - running mean) / running deviation
    ``var_to_running``    root mean square over features of log(variance of the batch / running variance)
    ``mean_to_full``      as the first, from the statistics of the whole graph in place of the running ones
    ``var_to_full``       as the second, likewise; neither is there where the graph does not fit
    ====================  =======================================================================================

    Variances are unbiased, and have the norm's eps added. Standard errors: of a mean over batches. Prediction: 0
    for the last two under a full-graph sampler, and for the first two if besides weights stand still.

    Args:
        m: Batches; by default what the level says.
        every: See :class:`Instrument`.
    """

    needs = Need.PROBLEM
    every: Schedule = Auto(steps=100)
    levels = ({"m": 8}, {"m": 4}, {"m": 2})
    cost = 8.0
    full = 1.0

    def setup(self, s: Snapshot) -> None:
        """See :meth:`Instrument.setup`."""
        if not batch_norms(s.model):
            raise Invalid("the model has no batch norm that keeps running statistics.")

    def measure(self, s: Snapshot) -> Reading:
        """See the class.

        Raises:
            Invalid: If no batch norm follows a layer, or the model does not show its layers.
        """
        batches = [s.trace("batch", i).normed for i in range(self.option("m"))]
        try:
            full = s.trace("full").normed
        except Invalid:
            full = {}
        found: dict[str | tuple[str, str], Estimate] = {}
        for name, own in batches[0].items():
            norm: Any = own.norm
            others = {"running": (norm.running_mean.double(), norm.running_var.double())}
            if name in full:
                others["full"] = statistics_of(full[name])
            for other, (mean, var) in others.items():
                gaps = [gap(*statistics_of(b[name]), mean, var, norm.eps) for b in batches]
                for what, values in zip(("mean_to_", "var_to_"), zip(*gaps)):
                    found[what + other, name] = mean_of(torch.stack(values))
        if not found:
            raise Invalid("no batch norm stands behind a layer that the model shows.")
        return found


def statistics_of(normed: Normed) -> tuple[Tensor, Tensor]:
    """(F,) mean and unbiased variance of what a norm read, in float64; rows weighted if it weighs them."""
    x, weight = normed.x.double(), normed.weight
    if weight is None:
        return x.mean(0), x.var(0)
    p = weight.double() / weight.double().sum()
    mean = p @ x
    return mean, p @ (x - mean).square() / (1 - p.square().sum())


def gap(mean: Tensor, var: Tensor, other: Tensor, other_var: Tensor, eps: float) -> tuple[Any, Any]:
    """Both gaps of :class:`NormGap` between two sets of statistics."""
    shift = (mean - other).square() / (other_var + eps)
    stretch = ((var + eps) / (other_var + eps)).log().square()
    return shift.mean().sqrt(), stretch.mean().sqrt()
