"""Normalisation of node states, by name.

``batch`` and ``graph`` take their statistics over the rows at hand: on a sampled batch these are
the sampled rows, not the graph. ``layer`` looks at one row at a time and is the same everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphdyn.errors import unknown


class GraphNorm(torch.nn.Module):
    """Subtract a learned share of the mean, divide by the standard deviation (Cai et al. 2021).

    ``y = gamma * (x - a * mean(x)) / sqrt(mean((x - a * mean(x))^2) + eps) + beta`` per feature,
    over all rows given; ``a`` is learned. "GraphNorm: A Principled Approach to Accelerating Graph
    Neural Network Training", equation 3; one graph, as in node classification.

    Args:
        width: F.
        eps: Added to the variance.
    """

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(width))
        self.bias = torch.nn.Parameter(torch.zeros(width))
        self.mean_scale = torch.nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(N, F) -> (N, F)."""
        x = x - x.mean(0) * self.mean_scale
        scale = self.weight * (x.square().mean(0) + self.eps).rsqrt()
        return torch.addcmul(self.bias, x, scale)


class PairNorm(torch.nn.Module):
    """Centre the rows and fix their mean squared length (Zhao & Akoglu 2020).

    ``y = s * c / sqrt(mean_v |c_v|^2 + eps)`` with ``c = x - mean(x)``: the total distance between
    pairs of nodes stays as it is however deep the model. "PairNorm: Tackling Oversmoothing in
    GNNs", equations 10 and 11. No parameters.

    Args:
        scale: s.
        eps: Added to the mean squared length.
    """

    def __init__(self, scale: float = 1.0, eps: float = 1e-5):
        super().__init__()
        self.scale, self.eps = scale, eps

    def forward(self, x: Tensor) -> Tensor:
        """(N, F) -> (N, F)."""
        x = x - x.mean(0)
        return x * (self.scale * (x.square().sum(-1).mean() + self.eps).rsqrt())


NORMS = {
    "none": lambda width: torch.nn.Identity(),
    "batch": torch.nn.BatchNorm1d,
    "layer": torch.nn.LayerNorm,
    "graph": GraphNorm,
    "pair": lambda width: PairNorm(),
}


def build_norm(name: str, width: int) -> torch.nn.Module:
    """A norm by name.

    Args:
        name: A key of :data:`NORMS`.
        width: Features of a row.

    Returns:
        A module (N, width) -> (N, width); nothing random is drawn.

    Raises:
        InputError: If the name is not known.
    """
    if name not in NORMS:
        raise unknown("norm", name, NORMS)
    return NORMS[name](width)
