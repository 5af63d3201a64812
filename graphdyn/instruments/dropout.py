"""Does a model drop anything as it is now? Instruments that compare gradients must then think of its masks."""

from __future__ import annotations

from typing import Any

from torch import nn

RATES = ("dropout", "input_dropout", "edge_dropout", "p")


def drops(model: nn.Module) -> bool:
    """Whether a module in training has a dropout rate above 0, as PyTorch, PyG and this package name them."""
    return any(module.training and _rate(module) > 0 for module in model.modules())


def _rate(module: nn.Module) -> float:
    options = getattr(module, "options", None)
    names = RATES if "dropout" in type(module).__name__.lower() else RATES[:-1]
    return max((_number(getattr(o, n, 0)) for o in (module, options) for n in names), default=0)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
