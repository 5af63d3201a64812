"""Loss of class probabilities against soft targets, and targets made sharper. Shapes: N rows, C classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SOFT_LOSSES = ("bce", "ce")


def soft_losses(logits: Tensor, target: Tensor, kind: str) -> Tensor:
    """(N,) the loss of each row, in nats.

    Args:
        logits: (N, C); half precision is computed in float32.
        target: (N, C) probabilities.
        kind: ``"bce"``: binary cross-entropy of softmax(logits), the mean over classes; logarithms are cut
            at -100. ``"ce"``: cross-entropy.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.float() if logits.dtype.itemsize < 4 else logits
        target = target.to(logits.dtype)
        if kind == "ce":
            return -(target * logits.log_softmax(1)).sum(1)
        return F.binary_cross_entropy(logits.softmax(1), target, reduction="none").mean(1)


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """(N, C) ``p^(1/T) / sum p^(1/T)``, by logarithms: powers of small probabilities are 0 in floating point."""
    return (p.log() / temperature).softmax(1)
