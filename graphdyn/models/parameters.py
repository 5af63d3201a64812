"""Parameters drawn from a key: no model reads or seeds the global generator.

Every tensor has its own key, named after where it stands, so that adding a layer or a bias leaves
all other initial values as they were. Weights lie as in ``torch.nn.Linear``: (outputs, inputs).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import Parameter

from graphdyn.graph import Features
from graphdyn.kernels import spmm
from graphdyn.keys import Key
from graphdyn.sparse import Sparse

Scheme = Literal["glorot", "fan-in"]


def uniform(*shape: int, bound: float, key: Key) -> Parameter:
    """A parameter drawn uniformly from [-bound, bound]."""
    return Parameter(torch.empty(shape).uniform_(-bound, bound, generator=key.generator()))


def glorot(*shape: int, key: Key) -> Parameter:
    """Glorot & Bengio (2010): bound sqrt(6 / (fan in + fan out)), fans being the last two axes."""
    return uniform(*shape, bound=math.sqrt(6.0 / (shape[-2] + shape[-1])), key=key)


class Linear(torch.nn.Linear):
    """``torch.nn.Linear`` for dense or sparse features, drawn from a key.

    Args:
        inputs: F.
        outputs: C.
        key: Where the initial values come from.
        bias: Learn an additive bias.
        scheme: ``"glorot"``: weights after Glorot & Bengio (2010), zero bias, as Kipf & Welling do.
            ``"fan-in"``: weights and bias uniform in 1 / sqrt(F), torch's own default.
    """

    def __init__(
        self, inputs: int, outputs: int, *, key: Key, bias: bool = True, scheme: Scheme = "fan-in"
    ):
        self.key, self.scheme = key, scheme  # read by reset_parameters, which the next line calls
        super().__init__(inputs, outputs, bias=bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the initial values, the same at every call."""
        fans = (self.in_features + self.out_features) if self.scheme == "glorot" else None
        bound = math.sqrt(6.0 / fans) if fans else 1.0 / math.sqrt(self.in_features)
        self.weight.uniform_(-bound, bound, generator=self.key.fold("weight").generator())
        if self.bias is None:
            return
        if self.scheme == "glorot":
            self.bias.zero_()
        else:
            self.bias.uniform_(-bound, bound, generator=self.key.fold("bias").generator())

    def forward(self, x: Features) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(N, F) dense or sparse -> (N, C)."""
        return linear(x, self.weight, self.bias)


def linear(x: Features, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` for dense or sparse x."""
    if not isinstance(x, Sparse):
        return torch.nn.functional.linear(x, weight, bias)
    out = spmm(x, weight.t().contiguous())
    return out if bias is None else out.add_(bias)


def add_linear(out: Tensor, x: Features, weight: Tensor) -> Tensor:
    """``out + x @ weight.T``; may overwrite ``out``, which saves two passes over memory."""
    if isinstance(x, Sparse) or not out.dtype == x.dtype == weight.dtype:
        return out + linear(x, weight)
    return out.addmm_(x, weight.t())
